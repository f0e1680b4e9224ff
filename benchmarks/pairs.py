"""Pairs of runs, ours and a peer's, alternated: CPU time between two moments of each, and the median of the ratios."""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# one thread for torch, for JAX and for its compiled code
ONE_THREAD = {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "JAX_PLATFORMS": "cpu"}


def ours(recipe: str, warm: int, settings: dict[str, Any], seed: int) -> float:
    """Trains a recipe; returns environment steps per CPU second, from the end of round `warm` to that of the last."""
    from rllab import Trainer

    still = {"eval_every": 0, "save_every": 0, "headline_episodes": 1, "until": {}, "expect": {}, "device": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        marks = [
            (row["env/steps"], time.process_time())
            for row in Trainer(recipe, folder, **(still | {"threads": 1, "seed": seed} | settings))
        ]
    (first, start), (last, end) = marks[warm - 1], marks[-1]
    return float(last - first) / (end - start)


def theirs(line: list[str]) -> float:
    """Runs a peer's program on one thread and one core; returns the environment steps per CPU second that it prints."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | ONE_THREAD
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["taskset", "-c", "0", *line], env=env, cwd=folder, capture_output=True, text=True)
    speeds = re.findall(r"SPS: ([\d.]+)", done.stdout)
    if done.returncode or not speeds:
        sys.exit(f"the peer failed: {' '.join(line)}\n{done.stderr[-2000:]}")
    return float(speeds[-1])


def compare(name: str, pairs: int, own: Callable[[int], float], peer: Callable[[int], float]) -> None:
    """Prints each pair of steps per CPU second, for seeds from 1 on, and the median ratio with its range as JSON."""
    from rllab.core.machine import processor

    print(f"{name}: {processor()}, {pairs} pairs, one thread")
    rows = []
    for seed in range(1, pairs + 1):
        theirs_, ours_ = peer(seed), own(seed)
        rows.append((ours_, theirs_, ours_ / theirs_))
        print(f"pair {seed}: ours {ours_:,.0f}/s, peer {theirs_:,.0f}/s, ratio {ours_ / theirs_:.2f}", flush=True)
    medians = [round(statistics.median(column), 2) for column in zip(*rows, strict=True)]
    ratios = [row[2] for row in rows]
    spread = [round(min(ratios), 2), round(max(ratios), 2)]
    print(json.dumps({"name": name, **dict(zip(("ours", "peer", "ratio"), medians, strict=True)), "spread": spread}))


def python_of(path: str, requirements: str) -> str:
    """The peers' Python, where it exists."""
    if not Path(path).is_file():
        sys.exit(f"{path} does not exist: make it from benchmarks/{requirements}, or name another with --peers")
    return path
