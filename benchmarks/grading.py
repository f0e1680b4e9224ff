"""The time to grade a class: adapters on the pocket model, 1,000 items each, and one submission that hangs.

    ./lab python benchmarks/grading.py                # 40 submissions; wall time, and the longest of one
    ./lab python benchmarks/grading.py --kills 20     # 8 submissions, killed at random and started again: equal grades

With kills, each life has measured at least one batch; grades.csv and all pages are compared byte by byte.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from rllab.core.load import model_folder
from rllab.core.machine import processor
from rllab.text.lora import Lora
from rllab.text.open import add_adapters, open_model

STYLES = {"direct": {"style": "direct"}, "thinking": {"style": "zero-shot-cot"}}


def adapters(folder: Path, base: str, seed: int) -> None:
    """Writes adapters that change the base a little."""
    lm = add_adapters(open_model(base), Lora(r=4))
    assert lm.adapters is not None
    chance = torch.Generator().manual_seed(seed)
    state = {
        k: 0.01 * torch.randn(v.shape, generator=chance) if "lora_B" in k else v.clone()
        for k, v in lm.adapters.state_dict().items()
    }
    folder.mkdir(parents=True)
    save_file(state, folder / "adapter_model.safetensors")
    lm.adapters.write_files(folder)


def course(folder: Path, submissions: int, items: int, hang: bool) -> list[str]:
    """Makes a class; returns the command that grades it. hang: the last submission does not end."""
    base = model_folder("run:pocket")
    for i in range(submissions - hang):
        adapters(folder / f"submissions/s{i:02}", base, i)
    hangs = folder / "submissions/hangs.py"
    if hang:
        hangs.write_text("while True: pass")
    parts = {
        name: {"task": "pocket", "limit": items, "points": 10, "seconds": 60} | style for name, style in STYLES.items()
    }
    (folder / "a.yaml").write_text(json.dumps({"base": base, "memory": 2, "parts": parts}))
    return [sys.executable, "-m", "rllab", "grade", str(folder / "a.yaml"), str(folder / "submissions"), "--out"]


def pages(out: Path) -> dict[str, bytes]:
    """All that is written but the records."""
    files = [p for p in out.rglob("*") if p.is_file() and "records" not in p.parts and not p.name.startswith(".lease-")]
    return {str(p.relative_to(out)): p.read_bytes() for p in files}


def batches(out: Path) -> int:
    """How many batches are measured."""
    return sum(p.read_bytes().count(b'{"rows"') for p in out.rglob("*.jsonl"))


def killed(line: list[str], out: Path, kills: int) -> int:
    """Grades, killed at random. Returns how many lives were killed before the last one ended."""
    chance = random.Random(0)
    for life in range(kills + 1):
        process, before = subprocess.Popen([*line, str(out)], stdout=-3, stderr=-3), batches(out)
        while process.poll() is None and (life == kills or batches(out) == before):
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 1))
        if process.poll() is not None:
            return life
        process.send_signal(signal.SIGKILL)
        process.wait()
    return kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--submissions", type=int, default=0)
    parser.add_argument("--items", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        line = course(folder, given.submissions or (8 if given.kills else 40), given.items, not given.kills)
        began = time.monotonic()
        subprocess.run([*line, str(folder / "out")], check=True, stderr=subprocess.DEVNULL)
        print(f"{processor()}, {os.cpu_count()} cores: graded in {time.monotonic() - began:.0f} s")
        if given.kills:
            lives = killed(line, folder / "killed", given.kills)
            same = pages(folder / "out") == pages(folder / "killed")
            print(f"killed {lives} times: {'the same grades and pages' if same else 'OTHER GRADES'}")


if __name__ == "__main__":
    main()
