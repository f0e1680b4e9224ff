"""The demonstration: an agent learns to balance a pole, and is drawn before and after."""

import shutil
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np

from rllab.core.algorithm import Algorithm
from rllab.core.errors import Stopped
from rllab.core.load import load_run
from rllab.core.recipe import load_recipe
from rllab.core.stop import Stop
from rllab.core.trainer import Trainer
from rllab.progress import result, watch

FRAMES_PER_SECOND = 50


def balance(runs: Path, stop: Stop) -> None:
    """Trains the recipe `cartpole` as the next run, and shows an episode of it in the terminal."""
    recipe = load_recipe("cartpole")
    print("DQN learns to keep a pole upright on a cart: 1 point for each step, 500 at most.\n")
    trainer = Trainer(recipe, runs=runs, stop=stop)
    watch(trainer, quiet=False)
    if trainer.stopping:
        raise Stopped(f"{trainer.folder.path}: stopped at step {trainer.step}; the same command goes on from there")
    print(f"\n{result(trainer.folder)}")
    if sys.stdout.isatty():
        show(load_run(trainer.folder.path), stop)
    print("\nnext: rllab show cartpole     the recipe, to copy and change\n      rllab list              the others")


def show(agent: Algorithm, stop: Stop, steps: int = 250) -> None:
    """Draws an episode of Gymnasium's own CartPole, at its true speed."""
    env = gym.make("CartPole-v1")
    obs, _ = env.reset(seed=0)
    print("\n" * 6)
    for t in range(steps):
        print("\x1b[6A" + draw(obs, min(60, shutil.get_terminal_size().columns - 2)) + f"   step {t + 1}", flush=True)
        obs, _, terminated, _, _ = env.step(agent.act(obs))
        if terminated or stop:
            break
        time.sleep(1 / FRAMES_PER_SECOND)
    env.close()


def draw(obs: np.ndarray, width: int, height: int = 5) -> str:
    """The cart and its pole as lines of text; a column is 4.8 m / width, the angle is drawn four times as large."""
    cart = int(np.clip((obs[0] + 2.4) / 4.8, 0, 1) * (width - 1))
    lines = [[" "] * width for _ in range(height)]
    for row in range(height):
        lean = round(float(np.sin(4 * obs[2])) * (row + 1))
        column = int(np.clip(cart + lean, 0, width - 1))
        lines[height - 1 - row][column] = "\\" if lean < 0 else "/" if lean > 0 else "|"
    ground = ["-"] * width
    ground[max(0, cart - 2) : cart + 3] = "[===]"[: len(ground[max(0, cart - 2) : cart + 3])]
    return "\n".join("".join(row) for row in [*lines, ground])
