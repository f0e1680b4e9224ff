"""CPU time from the command line to the first round of training, and of verbs that read JSON.

    ./lab python benchmarks/starting.py

The time of `train` is that of a process that ends after its first round; the headline's episodes are not counted.
"""

import os
import subprocess
import sys
import tempfile

from rllab.core.machine import processor

# ends the process when the first row is there, as nothing of the command line does
TRAIN = (
    "import os; from rllab.core.trainer import Trainer; import rllab.cli.train; "
    "next(iter(Trainer('cartpole', 'runs/first'))); os._exit(0)"
)
COMMANDS = {
    "train cartpole, first round": ["-c", TRAIN],
    "runs": ["-m", "rllab", "runs"],
    "curves first": ["-m", "rllab", "curves", "first", "--of", "env/return"],
    "list": ["-m", "rllab", "list"],
    "--help": ["-m", "rllab", "--help"],
}


def cpu_seconds(words: list[str], folder: str) -> float:
    """User and system time of a process."""
    process = subprocess.Popen([sys.executable, *words], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{words} failed")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    print(f"{processor()}\n\n| command | CPU seconds |\n|---|---|")
    for name, words in COMMANDS.items():
        times = []
        for _ in range(5):
            with tempfile.TemporaryDirectory() as folder:
                if "curves" in words or "runs" in words:
                    cpu_seconds(["-c", TRAIN], folder)
                times.append(cpu_seconds(words, folder))
        print(f"| `{name}` | {min(times):.2f} |", flush=True)


if __name__ == "__main__":
    main()
