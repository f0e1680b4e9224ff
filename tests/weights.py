"""Prints the SHA-256 of the weights that each algorithm's smallest run ends with.

A change that is not meant to change results prints the same lines before and after:

    ./lab python tests/weights.py            # every algorithm
    ./lab python tests/weights.py cartpole   # some recipes
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import rllab

RECIPES = (
    "cartpole cartpole-ppo pendulum-sac rlhf-control tictactoe connect-four supervised-c4 adversary-c4 "
    "pocket sft-lora reward-model dpo rlhf grpo grpo-calculator r1-rejection verifier prover"
)


def weights(folder: Path) -> str:
    """The hash of every tensor file in a run's last checkpoint that is not the trainer's own state."""
    last = max((folder / "checkpoints").glob("[0-9]*"))  # beside them lie `segments`, shared by the checkpoints
    digest = hashlib.sha256()
    for path in sorted(last.rglob("*.safetensors")):
        if "trainer" not in path.relative_to(last).parts:
            digest.update(path.relative_to(last).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as runs:
        for name in sys.argv[1:] or RECIPES.split():
            folder = Path(runs) / name
            for _ in rllab.Trainer(rllab.load_recipe(name, smoke=True), run=folder):
                pass
            print(f"{name:20} {weights(folder)[:16]}", flush=True)
