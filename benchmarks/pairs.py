"""Pairs of runs, ours and a peer's, alternated: CPU time between two moments of each, and the median of the ratios.

The peers are Stable-Baselines3, sbx, which is the same in JAX, and programs of others. Both sides have the peer's
defaults: the same batches, and as many updates for each environment step; ours steps several environments side by side.
Each is measured on one thread and after its first updates, so imports, set-up and compiling are left out.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# one thread for torch, for JAX and for its compiled code
ONE_THREAD = {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "JAX_PLATFORMS": "cpu"}
PEER = """
import sys, time
from {package} import {algorithm}
from stable_baselines3.common.callbacks import BaseCallback
warm, steps, seed = map(int, sys.argv[1:])
class Clock(BaseCallback):
    def _on_step(self):
        if self.num_timesteps == warm: self.start = time.process_time()
        return True
    def _on_training_end(self):
        print("SPS:", (self.num_timesteps - warm) / (time.process_time() - self.start))
model = {algorithm}("MlpPolicy", "{env}", seed=seed{arguments})
model.learn(steps, callback=Clock())
"""
# A program of CleanRL, measured from its 21st update on. Arguments: its folder, the program, environment steps in an
# update, and the program's own
CLEANRL = """
import runpy, sys, time
import ale_py
folder, name, steps = sys.argv[1:4]
sys.path.insert(0, folder)
from cleanrl_utils.buffers import ReplayBuffer
sample, times = ReplayBuffer.sample, []
def timed(self, size):
    times.append(time.process_time())
    return sample(self, size)
ReplayBuffer.sample = timed
sys.argv = [name, *sys.argv[4:]]
runpy.run_path(f"{folder}/cleanrl/{name}", run_name="__main__")
print("SPS:", int(steps) * (len(times) - 21) / (times[-1] - times[20]))
"""


@dataclass(frozen=True)
class Case:
    """What is compared: a recipe with settings, and a peer's algorithm in an environment with arguments.

    per_round: environment steps of a round of ours. warm, rounds: rounds before the clock starts, and in all.
    """

    name: str
    recipe: str
    settings: dict[str, Any]
    per_round: int
    warm: int
    rounds: int
    algorithm: str
    env: str
    arguments: str = ""


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


def peer_words(case: Case, sbx: bool, rounds: int, seed: int) -> list[str]:
    """The program of Stable-Baselines3 or sbx, and its arguments."""
    package, device = ("sbx", "") if sbx else ("stable_baselines3", ", device='cpu'")
    arguments = device + (case.arguments and ", " + case.arguments)
    code = PEER.format(package=package, algorithm=case.algorithm, env=case.env, arguments=arguments)
    return [code, str(case.warm * case.per_round), str(rounds * case.per_round), str(seed)]


def parse(text: str) -> argparse.ArgumentParser:
    """The options of every comparison."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sbx", action="store_true", help="sbx in place of Stable-Baselines3")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, one pair")
    parser.add_argument("--peers", help="the Python that has the peer; of .venv.peers or .venv.sbx by default")
    return parser


def compare(
    case: Case,
    args: argparse.Namespace,
    other: str = "",
    words: Callable[[str, str], list[str]] = lambda steps, seed: [],
) -> None:
    """Prints each pair of steps per CPU second, for seeds from 1 on, and the median ratio with its range as JSON.

    other: another peer's name; `words` then gives its program and arguments, for environment steps and a seed.
    """
    from rllab.core.machine import processor

    python = args.peers or str(ROOT / (".venv.sbx" if args.sbx else ".venv.peers") / "bin/python")
    if not Path(python).is_file():
        sys.exit(f"{python} does not exist: see benchmarks/README.md, or name another with --peers")
    name, pairs = f"{case.name}-{other or ('sbx' if args.sbx else 'sb3')}", 1 if args.quick else args.pairs
    rounds = 2 * case.warm if args.quick else case.rounds
    print(f"{name}: {processor()}, {pairs} pairs, one thread", flush=True)
    rows = []
    for seed in range(1, pairs + 1):
        line = words(str(rounds * case.per_round), str(seed)) if other else peer_words(case, args.sbx, rounds, seed)
        peer = theirs([python, "-c", *line])
        own = ours(case.recipe, case.warm, case.settings | {"total_steps": rounds}, seed)
        rows.append((own, peer, own / peer))
        print(f"pair {seed}: ours {own:,.0f}/s, peer {peer:,.0f}/s, ratio {own / peer:.2f}", flush=True)
    medians = [round(statistics.median(column), 2) for column in zip(*rows, strict=True)]
    ratios = [row[2] for row in rows]
    spread = [round(min(ratios), 2), round(max(ratios), 2)]
    print(json.dumps({"name": name, **dict(zip(("ours", "peer", "ratio"), medians, strict=True)), "spread": spread}))
