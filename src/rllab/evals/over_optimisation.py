"""What a reward buys, against how far a model goes from where it began for it (Gao et al. 2023).

A reward is a stand-in for what is wanted. Up to some distance from the reference both rise, then the reward goes on
alone. Runs are shown as they went; beside them stands best-of-n, which learns nothing: of n answers of the reference it
takes the one that is paid most, and is ln n - (n - 1) / n nats away.
"""

from collections.abc import Iterator, Sequence
from math import comb, log
from pathlib import Path
from typing import Any

import numpy as np

from rllab.algos.online import Policy
from rllab.core.engine import Engine
from rllab.core.errors import Mistake
from rllab.core.run import RunFolder
from rllab.evals.figures import canvas, save

Row = dict[str, Any]
_COLUMNS = {"kl": "eval/kl", "reward": "eval/reward/total", "gold": "eval/gold"}


def of_run(run: RunFolder) -> list[Row]:
    """A row for each evaluation of a run: `kl` in nats an answer, `reward`, and `gold` where its task has one.

    Raises:
        Mistake: it keeps no reference, or was not evaluated.
    """
    each = [r for r in run.rows() if "eval/kl" in r and "eval/reward/total" in r]
    if not each:
        raise Mistake(
            f"{run.path} has no evaluation with rewards and a KL; runs of RLHF have, and of GRPO with beta or lora"
        )
    found = []
    for row in each:
        told = {k: float(row[name]) for k, name in _COLUMNS.items() if name in row}
        found.append({"model": run.path.name, "round or n": int(row["step"])} | told)
    return found


def best_of_n(run: RunFolder, most: int, prompts: int) -> Iterator[Row]:
    """Rows of best-of-1, 2, 4, ... to `most` of the model that a run began with, by the run's reward.

    `most` answers are sampled to each of so many held-out prompts; what the best of n of them is worth is the mean over
    all choices of n.

    Raises:
        Mistake: the run does not learn from rewards.
    """
    recipe = run.recipe()
    algorithm = recipe.algorithm
    if not isinstance(algorithm, Policy):
        raise Mistake(f"{run.path} is a run of {type(algorithm).__name__}, which has no rewards to choose by")
    algorithm.setup(Engine(recipe.settings, algorithm.large_products).context(recipe.settings))
    groups = algorithm.paid("validation", prompts, most)
    paid = np.stack([algorithm.total(g) for g in groups])
    gold = np.array([g.gold for g in groups]) if groups[0].gold else None
    for n in (1 << k for k in range(most.bit_length())):
        told = {
            "model": "best of n",
            "round or n": n,
            "kl": log(n) - (n - 1) / n,
            "reward": expected_best(paid, paid, n),
        }
        yield told | ({} if gold is None else {"gold": expected_best(paid, gold, n)})


def expected_best(paid_PN: np.ndarray, worth_PN: np.ndarray, n: int) -> float:
    """The mean worth of whichever of n answers, out of N to each prompt, is paid most (Gao et al. 2023, appendix I)."""
    size = paid_PN.shape[1]
    chance_N = np.array([comb(i, n - 1) / comb(size, n) for i in range(size)])  # that the i-th from below is the best
    order_PN = paid_PN.argsort(1, kind="stable")
    return float((np.take_along_axis(worth_PN, order_PN, 1) * chance_N).sum(1).mean())


def draw(rows: Sequence[Row], path: Path) -> None:
    """A figure of reward (dashed) and gold against the distance, a colour for each model; .svg, .png or .pdf.

    Raises:
        Mistake: matplotlib is not installed, or does not write such files.
    """
    figure, (axes,) = canvas((6, 4))
    for number, name in enumerate(dict.fromkeys(r["model"] for r in rows)):
        mine = [r for r in rows if r["model"] == name]
        for column, style in (("reward", "--"), ("gold", "-")):
            seen = [(r["kl"], r[column]) for r in mine if column in r]
            if seen:
                axes.plot(*zip(*seen, strict=True), style, color=f"C{number}", marker=".", label=f"{name}: {column}")
    axes.set_xlabel("KL to the reference, nats an answer")
    axes.set_ylabel("worth of an answer")
    axes.legend(fontsize="small")
    save(figure, path)
