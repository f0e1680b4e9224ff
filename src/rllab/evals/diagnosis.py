"""What goes wrong in a run that learns from rewards, in plain sentences: what was seen, the number, what to change.

It reads the record alone, `samples.jsonl` and `metrics.jsonl`: a run can be asked while it goes on, or long after.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rllab.core.run import RunFolder

ROUNDS = 5  # the newest rounds are looked at together: of one alone much is chance
CUT = 0.5  # share of answers that reach the token limit; TRL's users meet it first as a reward of 0
EQUAL = 0.95  # share of groups that teach nothing
DROWNED = 0.05  # share of the differences within groups, below which a reward does not count beside another
KL = 1.0  # nats a token: the model says something else than the one that it began as
ASTRAY = -1.0  # share of the returns' variance that values explain
FALLEN = 0.1  # of all that gold has risen before
APART = 0.05  # nats a token between the sampler and the trainer; rounding alone is a thousandth of it
_BLOCK = 1 << 22  # bytes

Sample = Mapping[str, Any]


def diagnose(run: RunFolder) -> list[str]:
    """What stands out in a run's newest rounds; [] where nothing does, or it keeps no rollouts."""
    samples = newest_rollouts(run.path / "samples.jsonl")
    settings, rows = run.plain(), run.rows()
    return [*of_rollouts(samples, rows, settings), *of_rows(rows, settings)] if samples else []


def of_rollouts(samples: Sequence[Sample], rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> list[str]:
    """What completions and their rewards show: cut off, all the same, never paid, drowned."""
    groups: dict[Any, list[Sample]] = defaultdict(list)
    for sample in samples:
        one = settings.get("algo") == "RLHF"  # a value stands in for the others of a group
        groups[None if one else (sample["step"], sample["row"])].append(sample)
    said = []
    cut = float(np.mean([s["finish"] == "length" for s in samples]))
    if cut > CUT:
        said.append(
            f"{cut:.0%} of the answers are cut off at max_new_tokens ({settings.get('max_new_tokens')}), most before "
            "they answer: make it larger, or ask for shorter answers"
        )
    equal = float(np.mean([len(_scores(g)) < 2 for g in groups.values()]))
    if equal >= EQUAL:
        said.append(f"{equal:.0%} of the groups are paid the same for all of their answers and teach nothing: ")
        said[-1] += _why_equal(list(groups.values()), rows, settings)
    else:
        said += _components(list(groups.values()), settings)
    return said


def of_rows(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> list[str]:
    """What the losses show: a KL that runs away, a sampler that is not the trainer."""
    said = []
    kl, apart = (_mean(rows[-ROUNDS:], f"loss/{name}") for name in ("kl", "sampler_kl"))
    if kl > KL:
        said.append(
            f"the KL to the model that training began with is {kl:.2g} nats a token, and the answers may be "
            f"nothing that it would say: make beta ({settings.get('beta')}) larger, or optim.lr smaller"
        )
    if apart > APART and not settings.get("importance_cap"):
        said.append(
            f"what samples is {apart:.2g} nats a token apart from what learns: set importance_cap: 2, or sample in the "
            "precision of the training"
        )
    explained = _mean(rows[-ROUNDS:], "value/explained")
    if explained < ASTRAY:
        said.append(
            f"values miss what follows by more than a constant would (value/explained is {explained:.2g}): make the "
            "rate of the value head (optim.value.lr) smaller"
        )
    return said + _over_optimised(rows)


def _over_optimised(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The reward does not fall, and what the task itself thinks of the answers does (Gao et al. 2023)."""
    each = [
        (r["step"], r["rollout/gold"], r["reward/total"]) for r in rows if {"rollout/gold", "reward/total"} <= r.keys()
    ]
    windows = [np.mean(each[i : i + ROUNDS], 0) for i in range(0, len(each) - ROUNDS + 1, ROUNDS)]
    if len(windows) < 3:
        return []
    best, last = max(windows[:-1], key=lambda w: w[1]), np.mean(each[-ROUNDS:], 0)
    risen = best[1] - windows[0][1]
    if risen <= 0 or best[1] - last[1] < FALLEN * risen or last[2] < best[2] - FALLEN * abs(best[2] - windows[0][2]):
        return []
    return [
        f"what the task itself thinks of the answers (rollout/gold) has fallen from {best[1]:.2f} around round "
        f"{best[0]:.0f} to {last[1]:.2f}, while the reward has not ({best[2]:.2f} to {last[2]:.2f}): it is "
        "over-optimised. Hold the policy nearer to where it began (kl_coef or beta), or stop earlier"
    ]


def _why_equal(groups: list[list[Sample]], rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    samples = [s for g in groups for s in g]
    right = [s["correct"] for s in samples if s.get("correct") is not None]
    totals = [float(r["reward/total"]) for r in rows if "reward/total" in r]
    score = _mean(samples, "score")
    if (right and np.mean(right) >= EQUAL) or (totals and score >= max(totals) > totals[0]):
        of = f"{np.mean(right):.0%} are right" if right else f"the reward is {score:.3g}, the highest of the run"
        return f"{of}. The reward is saturated: take harder rows, or end the run here"
    if np.mean([len({s["completion"] for s in g}) == 1 for g in groups]) >= EQUAL:
        temperature = settings.get("temperature")
        return f"the answers of a group are the same word for word: make temperature ({temperature}) larger"
    of = f"{np.mean(right):.1%} are right" if right else f"the reward is {score:.3g}"
    return (
        f"{of}. The rows are too hard, or the reward never sees what it wants (rllab reward NAME --on this run): begin "
        f"with easier rows or an SFT model, give partial credit, or make num_generations "
        f"({settings.get('num_generations')}) larger"
    )


def _components(groups: list[list[Sample]], settings: Mapping[str, Any]) -> list[str]:
    """Of several rewards those that pay nobody, and those that another one drowns."""
    samples = [s for g in groups for s in g]
    names, weights = list(samples[0]["rewards"]), _weights(settings)
    if len(names) < 2:
        return []
    said, spread, reach = [], {}, {}
    for name, weight in zip(names, weights, strict=True):
        paid = [s["rewards"][name] for s in samples if s["rewards"][name] is not None]
        if not paid or max(paid) == min(paid) <= 0:
            all_of = f"{paid[0]:g} for all {len(paid):,} answers" if paid else "nothing: it never applies"
            said.append(
                f"{name} has paid {all_of} of the newest rounds, so that it cannot be learned: show in the prompt "
                "what it wants, train on examples first (SFT), or give partial credit"
            )
        each = [np.std([s["rewards"][name] for s in g if s["rewards"][name] is not None] or [0.0]) for g in groups]
        spread[name], reach[name] = abs(weight) * float(np.mean(each)), float(np.ptp(paid or [0.0]))
        if reach[name]:
            reach[name] = float(np.mean(each)) / reach[name]
    largest, whole = max(spread, key=lambda n: spread[n]), sum(spread.values())
    drowned = [n for n in names if 0 < spread[n] < DROWNED * whole and reach[n] > 0.1]
    if drowned and settings.get("combine") == "sum_then_normalize":
        said.append(
            f"{largest} makes {spread[largest] / whole:.0%} of the differences within groups, and "
            f"{' and '.join(drowned)} hardly counts: change `weight`, or set combine: normalize_then_sum"
        )
    return said


def _weights(settings: Mapping[str, Any]) -> list[float]:
    terms = settings["reward"]
    each = terms if isinstance(terms, list) else [terms]
    return [float(t.get("weight", 1.0)) if isinstance(t, dict) else 1.0 for t in each]


def _scores(group: Sequence[Sample]) -> set[float]:
    return {s["score"] for s in group if s["score"] is not None}


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    found = [float(r[name]) for r in rows if r.get(name) is not None]
    return float(np.mean(found)) if found else 0.0


def newest_rollouts(path: Path) -> list[Sample]:
    """The rollouts of the newest rounds, read from the end of a file that may be long."""
    size, block = path.stat().st_size if path.is_file() else 0, _BLOCK
    while size:
        with open(path, "rb") as file:
            start = max(0, size - block)
            file.seek(start)
            lines = file.read(size - start).split(b"\n")[:-1]
        found = [json.loads(line) for line in lines[1 if start else 0 :]]
        found = [s for s in found if "sample" in s and "split" not in s]  # others are what evaluations said
        steps = sorted({s["step"] for s in found})
        if not start or len(steps) > ROUNDS:
            newest = set(steps[-ROUNDS:])
            return [s for s in found if s["step"] in newest]
        block *= 4
    return []
