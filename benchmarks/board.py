"""The board over many long runs: the time of its answers, and its memory.

    ./lab python benchmarks/board.py [--runs 200] [--rows 10000] [--metrics 24]

It writes made-up runs into a temporary folder, starts `rllab board` on it, and asks for its pages. Times are of the
whole answer, the first time and again.
"""

import argparse
import http.client
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode, urlsplit


def main() -> None:
    """Prints a line for each page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("runs", 200), ("rows", 10_000), ("metrics", 24), ("samples", 100_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    sizes = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), sizes.runs, sizes.rows, sizes.metrics, sizes.samples)
        start = time.perf_counter()
        command = [sys.executable, "-m", "rllab", "board", "--runs", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            address = process.stdout.readline().split()[1]
            print(f"start: {time.perf_counter() - start:.2f} s")
            try:
                measure(address, sizes.runs, process.pid)
            finally:
                process.terminate()


def make(folder: Path, runs: int, rows: int, metrics: int, samples: int) -> None:
    """Writes runs of `rows` rounds with `metrics` metrics each; the first has `samples` samples."""
    draw = random.Random(0)
    names = [f"loss/m{i}" for i in range(metrics)]
    lines = [
        json.dumps({"step": s} | {n: draw.random() for n in names} | {"time/total": 1.5 * s})
        for s in range(1, rows + 1)
    ]
    text = "\n".join(lines) + "\n"
    for i in range(runs):
        run = folder / f"run-{i:03}"
        run.mkdir()
        settings = {"algo": "GRPO", "seed": i % 5, "total_steps": rows, "beta": i // 5, "expect": {"loss/m0": 1.0}}
        (run / "recipe.yaml").write_text(json.dumps(settings))
        (run / "status.json").write_text(json.dumps({"state": "stopped", "step": rows, "headline": None, "expect": []}))
        (run / "env.json").write_text(json.dumps({"signs": {"rising": [], "contrast": ""}}))
        (run / "metrics.jsonl").write_text(text)
    with open(folder / "run-000/samples.jsonl", "w") as file:
        for i in range(samples):
            sample = {"step": 1 + i // 64, "row": i // 8, "sample": i % 8, "prompt": f"what is {i}?", "score": i % 7}
            file.write(json.dumps(sample | {"completion": "so " * 80 + str(i), "rewards": {"accuracy": i % 2}}) + "\n")


def measure(address: str, runs: int, process: int) -> None:
    """Prints the seconds of the first and of the second answer of each page, and the memory of the server."""
    cookie = f"rllab-board-{urlsplit(address).port}={address.partition('token=')[2]}"
    five, fifty = ([("run", f"run-{i:03}") for i in range(min(n, runs))] for n in (5, 50))
    pages = {
        "table of all runs": "/",
        "a run": "/view?run=run-000",
        "its curves": "/curves.json?run=run-000&metric=loss/m0&metric=loss/m1&pixels=400",
        "what stands out in it": "/diagnosis?run=run-000",
        "five runs": f"/view?{urlencode(five)}",
        "curves of five seeds": f"/curves.json?{urlencode([*five, ('metric', 'loss/m0'), ('pixels', 400)])}",
        "its samples": "/samples?run=run-000&order=worst",
        "samples with a text": "/samples?run=run-000&text=what+is+999",
        "one metric of fifty runs": f"/curves.json?{urlencode([*fifty, ('metric', 'loss/m0'), ('pixels', 400)])}",
    }
    for name, path in pages.items():
        print(f"{name}: {' and '.join(f'{seconds(address, path, cookie):.2f} s' for _ in range(2))}")
    status = Path(f"/proc/{process}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    print(f"peak memory: {int(peak.split()[1]) / 1000:.0f} MB")


def seconds(address: str, path: str, cookie: str) -> float:
    """The time of an answer."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=300)
    connection.request("GET", path, headers={"Cookie": cookie})
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, (path, answer.status)
    connection.close()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
