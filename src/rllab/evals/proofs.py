"""How well a model grades proofs, and what refining its own is worth (DeepSeekMath-V2, Shao et al. 2025, section 3.3).

Axes: P problems, N threads of each.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from rllab.evals.over_optimisation import expected_best
from rllab.evals.speaker import Row, Speaker
from rllab.rewards.self_verification import read_evaluation, read_proof, verifier_reward
from rllab.stats import Interval, paired_difference, stratified_bootstrap


def verify(speaker: Speaker, count: int) -> list[Row]:
    """How evaluations of `count` test rows are, by the number of steps of what they evaluate, and of all.

    `accuracy` is the mean over grades of the share that is graded rightly, with its interval; `wrong` and `gaps` are
    the shares of wrong lines and gaps that are named; `R_V` is the mean reward.
    """
    rows = speaker.rows(count, "line")
    found = list(zip(rows, map(read_evaluation, speaker.says(rows, 0)), strict=True))
    told = []
    for steps in (*sorted({r["steps"] for r in rows}), "all"):
        mine = [(r, float(r["target"]), e) for r, e in found if steps in ("all", r["steps"])]
        value, interval = balanced_accuracy(
            [g for _, g, _ in mine], [e is not None and e.score == g for _, g, e in mine]
        )
        named = {
            name: _share([e is not None and e.line == r["line"] for r, g, e in mine if g == grade])
            for name, grade in (("wrong", 0.0), ("gaps", 0.5))
        }
        paid = float(np.mean([verifier_reward(e, g, r["line"]) for r, g, e in mine]))
        told.append(
            {"steps": steps, "rows": len(mine), "accuracy": value, "interval": interval} | named | {"R_V": paid}
        )
    return told


def balanced_accuracy(classes: Sequence[float], right: Sequence[bool]) -> tuple[float, Interval]:
    """The mean over classes of the share that is right, and its interval by resampling each class (Brodersen 2010)."""
    each = [
        np.array([ok for c, ok in zip(classes, right, strict=True) if c == of], float) for of in sorted(set(classes))
    ]
    weights = np.concatenate([np.full(len(some), 1 / len(some) / len(each)) for some in each])
    return float(np.concatenate(each) @ weights), stratified_bootstrap(each, lambda drawn: drawn @ weights)


def _share(each: Sequence[bool]) -> float | None:
    return sum(each) / len(each) if each else None


def refine(speaker: Speaker, rounds: int, problems: int, samples: int) -> Iterator[Row]:
    """A row for a first attempt, and for up to 1, 2, ... `rounds` refinements of it in each of N threads.

    A thread goes on until its author grades it 1. `gold` is the mean grade of its last proof by the task's own rule,
    `gain` what that is above the first attempt's, with its interval over problems. `honest` is the share of proofs that
    the author grades as the rule does. `best by itself` is the gold of the one of N that the author grades highest,
    `best by oracle` that of the best.
    """
    rows = [row for row in speaker.rows(problems, "problem") for _ in range(samples)]
    said, first_P = speaker.says(rows[::samples], 0, samples), np.empty(0)
    for turn in range(rounds + 1):
        if turn:
            going = [i for i, text in enumerate(said) if _own(text) < 1.0]
            again = speaker.says([speaker.task.refinement(rows[i], said[i]) for i in going], turn) if going else []
            for i, text in zip(going, again, strict=True):
                said[i] = text
        own_PN = np.array([_own(text) for text in said]).reshape(-1, samples)
        gold_PN = np.array([speaker.task.score(r, t) for r, t in zip(rows, said, strict=True)]).reshape(own_PN.shape)
        first_P = first_P if turn else gold_PN.mean(1)
        gain, interval = paired_difference(first_P, gold_PN.mean(1))
        told: Row = {"refined": turn, "gold": float(gold_PN.mean()), "gain": gain, "interval": interval}
        told |= {"content": float((own_PN == 1.0).mean()), "honest": float((own_PN == gold_PN).mean())}
        told |= {"best by itself": expected_best(own_PN, gold_PN, samples)}
        yield told | {"best by oracle": expected_best(gold_PN, gold_PN, samples)}


def _own(text: str) -> float:
    """What the author of a proof thinks of it; 0 where that is not said in due form."""
    own = read_proof(text)[1]
    return own.score if own else 0.0
