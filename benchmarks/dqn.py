"""DQN's environment steps per second on CartPole, ours against a peer's, at the peer's settings and updates per step.

    python3 -m venv .venv.peers && .venv.peers/bin/pip install -r benchmarks/requirements.txt
    .venv/bin/python benchmarks/dqn.py                        against Stable-Baselines3's DQN, at its defaults
    .venv/bin/python benchmarks/dqn.py --cleanrl dqn.py       against CleanRL's file, at its defaults

The two alternate in one run. The peer runs with one thread and with torch's default number, and its faster half counts.
Both sides are timed from their first environment step to their last; imports and set-up are left out.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# What a round of ours holds: 640 or 512 environment steps, and as many updates as the peer does in as many steps.
AT_CLEANRLS = {
    "hidden": [120, 84],
    "optim": {"lr": 2.5e-4},
    "double": False,
    "huber": False,
    "n_step": 1,
    "batch_size": 128,
    "buffer_size": 10_000,
    "learning_starts": 10_000,
    "num_envs": 128,
    "train_freq": 5,
    "gradient_steps": 64,  # one in 10 steps
    "target_update_interval": 50,  # every 500 steps
    "epsilon_end": 0.05,
}
AT_SB3S = {
    "hidden": [64, 64],
    "optim": {"lr": 1e-4, "max_grad_norm": 10.0},
    "double": False,
    "huber": True,
    "n_step": 1,
    "batch_size": 32,
    "buffer_size": 1_000_000,
    "learning_starts": 100,
    "num_envs": 64,
    "train_freq": 8,
    "gradient_steps": 128,  # one in 4 steps
    "target_update_interval": 2_500,  # every 10,000 steps
    "epsilon_end": 0.05,
}
SB3 = """
import sys, time
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
steps = int(sys.argv[1])
model = DQN("MlpPolicy", "CartPole-v1", seed=int(sys.argv[2]), device="cpu")
class Clock(BaseCallback):
    def _on_training_start(self): self.start = time.perf_counter()
    def _on_step(self): return True
    def _on_training_end(self): print("SPS:", steps / (time.perf_counter() - self.start))
model.learn(steps, callback=Clock())
"""


def ours(settings: dict[str, object], steps: int, seed: int) -> float:
    """Steps per second of a run of the recipe cartpole with these settings."""
    from rllab import Trainer

    per_round = int(settings["num_envs"]) * int(settings["train_freq"])  # type: ignore[call-overload]
    rounds, exploring = -(-steps // per_round), steps // 2 if settings is AT_CLEANRLS else steps // 10
    more = {"total_steps": rounds, "epsilon_steps": exploring, "eval_every": 0, "until": {}, "expect": {}, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer("cartpole", folder, **settings, **more)
        start = 0.0
        for row in trainer:
            start = start or time.perf_counter() - row["time/total"]
            last = time.perf_counter()
    return float(row["env/steps"] / (last - start))


def theirs(line: list[str], threads: str | None) -> float:
    """Steps per second that a peer says of itself."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "OMP_NUM_THREADS")}
    env |= {"OMP_NUM_THREADS": threads} if threads else {}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(line, env=env, cwd=folder, capture_output=True, text=True)
    said = re.findall(r"SPS: ([\d.]+)", done.stdout)
    if done.returncode or not said:
        sys.exit(f"the peer failed: {' '.join(line)}\n{done.stderr[-2000:]}")
    return float(said[-1])


def peer_line(args: argparse.Namespace, steps: int, seed: int) -> list[str]:
    if args.cleanrl:
        return [args.peers, str(Path(args.cleanrl).resolve()), "--total-timesteps", str(steps), "--seed", str(seed)]
    return [args.peers, "-c", SB3, str(steps), str(seed)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps, one pair: under a minute")
    parser.add_argument("--cleanrl", metavar="PATH", help="CleanRL's dqn.py, beside its package cleanrl_utils")
    parser.add_argument("--peers", default=str(ROOT / ".venv.peers/bin/python"), help="the Python that has the peers")
    args = parser.parse_args()
    if not Path(args.peers).is_file():
        sys.exit(f"{args.peers} is not there: make it from benchmarks/requirements.txt, or name another with --peers")
    from rllab.core.run import processor

    steps, pairs = (12_000, 1) if args.quick else (100_000, 5)
    settings = AT_CLEANRLS if args.cleanrl else AT_SB3S
    mine, peer = [], []
    print(f"{processor()}; {steps:,} steps, {pairs} pairs")
    for seed in range(1, pairs + 1):
        halves = [theirs(peer_line(args, steps, seed), threads) for threads in ("1", None)]
        peer.append(max(halves))
        mine.append(ours(settings, steps, seed))
        print(
            f"pair {seed}: ours {mine[-1]:,.0f}/s, peer {halves[0]:,.0f}/s on one thread, {halves[1]:,.0f}/s by default"
        )
    ratios = [a / b for a, b in zip(mine, peer, strict=True)]
    result = {
        "name": f"dqn-cartpole-{'cleanrl' if args.cleanrl else 'sb3'}",
        "ours": statistics.median(mine),
        "peer": statistics.median(peer),
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
    }
    print(
        json.dumps(
            {
                k: v if isinstance(v, str) else [round(x, 2) for x in v] if isinstance(v, list) else round(v, 2)
                for k, v in result.items()
            }
        )
    )


if __name__ == "__main__":
    main()
