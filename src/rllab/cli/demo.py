"""The demonstration: the five capstones at a size for two cores, one after another, each against what it must reach."""

import shutil
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from rllab.board.report import Report
from rllab.cli.progress import train_to_end
from rllab.cli.results import bracketed, result
from rllab.cli.tables import table
from rllab.core.algorithm import Algorithm
from rllab.core.files import write_atomic
from rllab.core.load import load_run
from rllab.core.recipe import load_recipe
from rllab.core.run import RunFolder
from rllab.core.stop import Stop
from rllab.evals.run_groups import by_seed

FRAMES_PER_SECOND = 50
REPORT = "demo.html"  # in the folder of the runs


class Capstone(NamedTuple):
    """A recipe, what is to be seen in it, what to type next (after `rllab`) with the run that it left."""

    recipe: str
    learns: str
    next: str


CAPSTONES = (
    Capstone("cartpole", "DQN keeps a pole upright on a cart: a point for each step, 500 at most", "curves {run}"),
    Capstone("connect-four-quick", "AlphaZero learns connect four: moves that keep the outcome", "play {run}"),
    Capstone("sft-lora", "LoRA teaches a language model a new word: problems solved", "chat {run} --base"),
    Capstone("rlhf", "PPO makes a support agent say what customers prefer: 3 is the best reply", "overoptimise {run}"),
    Capstone("grpo", "GRPO pays for right answers, and finds that thinking helps: problems solved", "samples {run}"),
)  # fmt: skip


def capstones(runs: Path, stop: Stop, smoke: bool) -> None:
    """Trains the five, as runs that are named `demo-RECIPE`; those that are done already are only told of."""
    rows, trained = [], list[RunFolder]()
    for number, (name, learns, then) in enumerate(CAPSTONES, 1):
        print(f"\n{number} of {len(CAPSTONES)}. {learns}\n")
        recipe = load_recipe(name, smoke=smoke)
        run = train_to_end(recipe, RunFolder(runs / f"demo-{name}"), stop, runs=runs)
        print(f"\n{result(run)}")
        if number == 1 and sys.stdout.isatty():
            show(load_run(run.path), stop)
        trained.append(run)
        rows.append(_learnt(run) | {"next: rllab ...": then.format(run=run.path.name)})
    print("\nWhat was learnt, and what to type next; rllab show RECIPE prints a recipe, to copy and change.\n")
    table(rows, as_json=False)
    write_atomic(runs / REPORT, Report(by_seed(trained), side_by_side=False).page())
    print(f"\nThe report of the five, to open in a browser: {runs / REPORT}")


def _learnt(run: RunFolder) -> dict[str, Any]:
    """A run's row in the table."""
    headline, (expected, *_) = run.status()["headline"], run.status()["expect"]
    return {
        "run": run.path.name,
        "measured": headline["name"],
        "value": f"{headline['value']:.3g} {bracketed(headline['interval'], 3)}",
        "expected": f"{expected['wanted']}: {'met' if expected['met'] else 'missed'}",
        "minutes": f"{run.metrics.last()['time/total'] / 60:.1f}",
    }


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
    """The cart and its pole as lines of text: obs [4]; a column is 4.8 m / width, the angle counts four times."""
    cart = int(np.clip((obs[0] + 2.4) / 4.8, 0, 1) * (width - 1))
    lines = [[" "] * width for _ in range(height)]
    for row in range(height):
        lean = round(float(np.sin(4 * obs[2])) * (row + 1))
        column = int(np.clip(cart + lean, 0, width - 1))
        lines[height - 1 - row][column] = "\\" if lean < 0 else "/" if lean > 0 else "|"
    ground = ["-"] * width
    ground[max(0, cart - 2) : cart + 3] = "[===]"[: len(ground[max(0, cart - 2) : cart + 3])]
    return "\n".join("".join(row) for row in [*lines, ground])
