"""Reward and gold score over the KL divergence to the reference (Gao et al. 2023).

A reward is a proxy for the gold score. Both rise up to some distance from the reference; beyond it only the reward
rises. The evaluations of runs are compared with best-of-n, which trains nothing: of n answers of the reference it takes
the one with the highest reward. Its KL to the reference is ln n - (n - 1) / n nats.
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
    """Returns a row for each evaluation of a run: `kl` in nats per answer, `reward`, and `gold` where it was measured.

    Raises:
        Mistake: the run has no evaluation with a reward and a KL to a reference.
    """
    each = [r for r in run.metrics.rows() if "eval/kl" in r and "eval/reward/total" in r]
    if not each:
        raise Mistake(
            f"{run.path} has no evaluation with rewards and a KL; runs of RLHF have, and of GRPO with beta or lora"
        )
    rows = []
    for row in each:
        measured = {k: float(row[name]) for k, name in _COLUMNS.items() if name in row}
        rows.append({"model": run.path.name, "round or n": int(row["step"])} | measured)
    return rows


def best_of_n(run: RunFolder, most: int, prompts: int) -> Iterator[Row]:
    """Yields rows of best-of-1, 2, 4, ... up to `most`, of the model that a run began with, by the run's reward.

    `most` answers are sampled to each of `prompts` held-out prompts. The value of best-of-n is its expectation over all
    choices of n of these answers.

    Raises:
        Mistake: the run does not learn from rewards.
    """
    recipe = run.recipe()
    algorithm = recipe.algorithm
    if not isinstance(algorithm, Policy):
        raise Mistake(f"{run.path} is a run of {type(algorithm).__name__}, which has no rewards to choose by")
    algorithm.setup(Engine(recipe.settings, algorithm.large_products).context(recipe.settings))
    groups = algorithm.sample_and_score("validation", prompts, most)
    reward_PN = np.stack([algorithm.total(g) for g in groups])
    gold_PN = np.array([g.gold for g in groups]) if groups[0].gold else None
    for n in (1 << k for k in range(most.bit_length())):
        row: Row = {"model": "best of n", "round or n": n, "kl": log(n) - (n - 1) / n}
        row |= {"reward": expected_best(reward_PN, reward_PN, n)}
        yield row | ({} if gold_PN is None else {"gold": expected_best(reward_PN, gold_PN, n)})


def expected_best(reward_PN: np.ndarray, gold_PN: np.ndarray, n: int) -> float:
    """Returns the expected gold score of the answer with the highest reward among n (Gao et al. 2023, appendix I).

    reward_PN, gold_PN: [P, N], of N answers to each of P prompts. The expectation is over all choices of n of the N
    answers, and the mean over prompts.
    """
    size = reward_PN.shape[1]
    chance_N = np.array([comb(i, n - 1) / comb(size, n) for i in range(size)])  # that the i-th lowest is the best of n
    order_PN = reward_PN.argsort(1, kind="stable")
    return float((np.take_along_axis(gold_PN, order_PN, 1) * chance_N).sum(1).mean())


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draws reward (dashed) and gold score over the KL, a colour for each model.

    path: .svg, .png or .pdf.

    Raises:
        Mistake: matplotlib is not installed, or does not write such files.
    """
    figure, (axes,) = canvas((6, 4))
    for number, name in enumerate(dict.fromkeys(r["model"] for r in rows)):
        own = [r for r in rows if r["model"] == name]
        for column, style in (("reward", "--"), ("gold", "-")):
            points = [(r["kl"], r[column]) for r in own if column in r]
            if points:
                axes.plot(*zip(*points, strict=True), style, color=f"C{number}", marker=".", label=f"{name}: {column}")
    axes.set_xlabel("KL to the reference, nats per answer")
    axes.set_ylabel("mean score of an answer")
    axes.legend(fontsize="small")
    save(figure, path)
