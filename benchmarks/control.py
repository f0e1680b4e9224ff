"""PPO and SAC beside Stable-Baselines3 and sbx (JAX): environment steps per CPU second, with the peer's settings.

    python3 -m venv .venv.peers && .venv.peers/bin/pip install -r benchmarks/requirements.txt
    python3 -m venv .venv.sbx && .venv.sbx/bin/pip install -r benchmarks/requirements-sbx.txt
    ./lab python benchmarks/control.py ppo          CartPole-v1, 2x64; the same with --sbx
    ./lab python benchmarks/control.py sac          Pendulum-v1, 2x256, batches of 256; the same with --sbx
    ./lab python benchmarks/control.py sac-small    the same with 2x64

Both sides have the peer's defaults: the same batches, and as many updates for each environment step. Ours steps several
environments side by side. Each is measured on one thread and after its first updates, so that imports, set-up and
compiling are left out.
"""

import argparse
from pathlib import Path
from typing import Any

from pairs import compare, ours, python_of, theirs

ROOT = Path(__file__).resolve().parents[1]
SAC = {
    "num_envs": 16,
    "train_freq": 4,
    "gradient_steps": 64,  # one update for each environment step
    "batch_size": 256,
    "gamma": 0.99,
    "tau": 0.005,
    "optim": {"lr": 3e-4, "weight_decay": 0.0},
    "buffer_size": 1_000_000,
    "learning_starts": 100,
}
PPO = {
    "num_envs": 8,
    "num_steps": 256,  # 2,048 environment steps in a round, as with the peer's single environment
    "update_epochs": 10,
    "num_minibatches": 32,  # of 64 entries
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "optim": {"lr": 3e-4, "eps": 1e-5, "max_grad_norm": 0.5, "weight_decay": 0.0},
    "hidden": [64, 64],
}
# recipe, settings, steps of a round, the peer's algorithm, its environment and its other arguments
CASES: dict[str, tuple[str, dict[str, Any], int, str, str, str]] = {
    "ppo": ("cartpole-ppo", PPO, 2048, "PPO", "CartPole-v1", ""),
    "sac": ("pendulum-sac", SAC | {"hidden": [256, 256]}, 64, "SAC", "Pendulum-v1", ""),
    "sac-small": (
        "pendulum-sac",
        SAC | {"hidden": [64, 64]},
        64,
        "SAC",
        "Pendulum-v1",
        "policy_kwargs={'net_arch': [64, 64]}",
    ),
}
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
model = {algorithm}("MlpPolicy", "{env}", seed=seed{device}{arguments})
model.learn(steps, callback=Clock())
"""


def peer_line(args: argparse.Namespace, warm: int, steps: int, seed: int) -> list[str]:
    """The command of the peer's program."""
    _, _, _, algorithm, env, arguments = CASES[args.case]
    package, device = ("sbx", "") if args.sbx else ("stable_baselines3", ", device='cpu'")
    code = PEER.format(
        package=package, algorithm=algorithm, env=env, device=device, arguments=arguments and ", " + arguments
    )
    return [args.peers, "-c", code, str(warm), str(steps), str(seed)]


def main() -> None:
    """Reads the command line and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--sbx", action="store_true", help="sbx in place of Stable-Baselines3")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="fewer steps, one pair")
    parser.add_argument("--peers", help="the Python that has the peer; .venv.peers or .venv.sbx by default")
    args = parser.parse_args()
    environment, requirements = (
        (".venv.sbx", "requirements-sbx.txt") if args.sbx else (".venv.peers", "requirements.txt")
    )
    args.peers = python_of(args.peers or str(ROOT / environment / "bin/python"), requirements)
    recipe, settings, per_round, *_ = CASES[args.case]
    warm, rounds = (2, 6 if args.quick else 20) if args.case == "ppo" else (8, 16 if args.quick else 48)
    steps = rounds * per_round

    compare(
        f"{args.case}-{'sbx' if args.sbx else 'sb3'}",
        1 if args.quick else args.pairs,
        lambda seed: ours(recipe, warm, settings | {"total_steps": rounds}, seed),
        lambda seed: theirs(peer_line(args, warm * per_round, steps, seed)),
    )


if __name__ == "__main__":
    main()
