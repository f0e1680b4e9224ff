"""DQN's environment steps per second on CartPole in rllab and in a peer, with the peer's settings and update rate.

    python3 -m venv .venv.peers && .venv.peers/bin/pip install -r benchmarks/requirements.txt
    .venv/bin/python benchmarks/dqn.py                        Stable-Baselines3's DQN with its defaults
    .venv/bin/python benchmarks/dqn.py --cleanrl dqn.py       CleanRL's dqn.py with its defaults

The two alternate in one run. The peer runs once with one thread and once with torch's default number; its faster run
counts. Time is measured from the first environment step to the last, without imports and set-up.
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

# A round of ours has 640 or 512 environment steps, with as many updates as the peer does in these steps.
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
    "gradient_steps": 64,  # one update in 10 steps
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
    "gradient_steps": 128,  # one update in 4 steps
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
    """Returns the environment steps per second of the recipe cartpole with these settings."""
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
    """Returns the environment steps per second that the peer's program prints."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "OMP_NUM_THREADS")}
    env |= {"OMP_NUM_THREADS": threads} if threads else {}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(line, env=env, cwd=folder, capture_output=True, text=True)
    speeds = re.findall(r"SPS: ([\d.]+)", done.stdout)
    if done.returncode or not speeds:
        sys.exit(f"the peer failed: {' '.join(line)}\n{done.stderr[-2000:]}")
    return float(speeds[-1])


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
        sys.exit(f"{args.peers} does not exist: make it from benchmarks/requirements.txt, or name another with --peers")
    from rllab.core.machine import processor

    steps, pairs = (12_000, 1) if args.quick else (100_000, 5)
    settings = AT_CLEANRLS if args.cleanrl else AT_SB3S
    own, peer = [], []
    print(f"{processor()}; {steps:,} steps, {pairs} pairs")
    for seed in range(1, pairs + 1):
        speeds = [theirs(peer_line(args, steps, seed), threads) for threads in ("1", None)]
        peer.append(max(speeds))
        own.append(ours(settings, steps, seed))
        print(
            f"pair {seed}: ours {own[-1]:,.0f}/s, peer {speeds[0]:,.0f}/s on one thread, {speeds[1]:,.0f}/s by default"
        )
    ratios = [a / b for a, b in zip(own, peer, strict=True)]
    result = {
        "name": f"dqn-cartpole-{'cleanrl' if args.cleanrl else 'sb3'}",
        "ours": statistics.median(own),
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
