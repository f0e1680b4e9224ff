"""How well a model grades proofs, and what it gains by refining its own.

The measurements follow DeepSeekMath-V2 (Shao et al. 2025, section 3.3).

Axes: P problems, N threads of each.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from rllab.evals.over_optimisation import expected_best
from rllab.evals.run_sampler import Row, RunSampler
from rllab.rewards.self_verification import read_evaluation, read_proof, verifier_reward
from rllab.stats import Interval, paired_difference, wilson


def verify(sampler: RunSampler, count: int) -> list[Row]:
    """Measures a model's evaluations of `count` test rows: a row for each number of steps, and one for all.

    `accuracy` is the mean over grades of the share of proofs that are graded correctly, with its interval. `wrong` and
    `gaps` are the shares of wrong lines and of gaps that are named, or None where there are none. `R_V` is the mean
    reward.
    """
    test_rows = sampler.rows(count, "line")
    evaluated = list(zip(test_rows, map(read_evaluation, sampler.texts(test_rows, 0)), strict=True))
    rows: list[Row] = []
    for steps in (*sorted({r["steps"] for r in test_rows}), "all"):
        own = [(r, float(r["target"]), e) for r, e in evaluated if steps in ("all", r["steps"])]
        value, interval = balanced_accuracy([g for _, g, _ in own], [e is not None and e.score == g for _, g, e in own])
        named = {
            name: _share([e is not None and e.line == r["line"] for r, g, e in own if g == grade])
            for name, grade in (("wrong", 0.0), ("gaps", 0.5))
        }
        reward = float(np.mean([verifier_reward(e, g, r["line"]) for r, g, e in own]))
        rows.append(
            {"steps": steps, "rows": len(own), "accuracy": value, "interval": interval} | named | {"R_V": reward}
        )
    return rows


def balanced_accuracy(classes: Sequence[float], right: Sequence[bool]) -> tuple[float, Interval]:
    """Returns the mean over classes of the share that is right, and its interval.

    The interval is recovered from Wilson's interval of each class (Zou and Donner 2008, equation 5).

    classes, right: [n], the class of each item and whether its prediction is right (Brodersen et al. 2010).
    """
    each = [[ok for c, ok in zip(classes, right, strict=True) if c == of] for of in sorted(set(classes))]
    shares = np.array([sum(some) / len(some) for some in each])
    low, high = np.array([wilson(sum(some), len(some)) for some in each]).T
    value, below, above = shares.mean(), *(np.sqrt(((shares - bound) ** 2).sum()) / len(each) for bound in (low, high))
    return float(value), (float(value - below), float(value + above))


def _share(each: Sequence[bool]) -> float | None:
    return sum(each) / len(each) if each else None


def refine(sampler: RunSampler, rounds: int, problems: int, samples: int) -> Iterator[Row]:
    """Yields a row for first attempts, and rows for at most 1, 2, ... `rounds` refinements in each of N threads.

    A thread is refined until the model grades its own proof 1. Columns, all of the last proof of each thread:
    `gold` is the mean grade by the task's rule. `gain` is its difference from the first attempt's, and `interval` the
    interval of that over problems. `content` is the share of proofs that the model grades 1. `honest` is the share that
    it grades as the rule does. `best by itself` is the gold grade of the one of N that the model grades highest;
    `best by oracle` is the highest gold grade of the N.
    """
    rows = [row for row in sampler.rows(problems, "problem") for _ in range(samples)]
    texts, first_P = sampler.texts(rows[::samples], 0, samples), np.empty(0)
    for turn in range(rounds + 1):
        if turn:
            going = [i for i, text in enumerate(texts) if _own_grade(text) < 1.0]
            asked = [sampler.task.refinement(rows[i], texts[i]) for i in going]
            for i, text in zip(going, sampler.texts(asked, turn) if asked else [], strict=True):
                texts[i] = text
        own_PN = np.array([_own_grade(text) for text in texts]).reshape(-1, samples)
        gold_PN = np.array([sampler.task.score(r, t) for r, t in zip(rows, texts, strict=True)]).reshape(own_PN.shape)
        first_P = first_P if turn else gold_PN.mean(1)
        gain, interval = paired_difference(first_P, gold_PN.mean(1))
        row: Row = {"refined": turn, "gold": float(gold_PN.mean()), "gain": gain, "interval": interval}
        row |= {"content": float((own_PN == 1.0).mean()), "honest": float((own_PN == gold_PN).mean())}
        row |= {"best by itself": expected_best(own_PN, gold_PN, samples)}
        yield row | {"best by oracle": expected_best(gold_PN, gold_PN, samples)}


def _own_grade(text: str) -> float:
    """Returns the grade that the author of a proof gives it; 0 where the evaluation does not have the required form."""
    own = read_proof(text)[1]
    return own.score if own else 0.0
