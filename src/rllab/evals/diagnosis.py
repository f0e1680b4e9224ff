"""Diagnoses runs, in sentences: what was observed, its number, and which setting to change.

It reads only `samples.jsonl` and `metrics.jsonl`, so it works while a run trains and afterwards, and what the algorithm
declares of itself. A metric that was not measured gives no diagnosis.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rllab.core.errors import Mistake
from rllab.core.files import read_json
from rllab.core.logs import Log
from rllab.core.names import find
from rllab.core.run import RunFolder
from rllab.evals.health import of_acting, of_learning
from rllab.evals.history import ROUNDS, History, mean

CUT = 0.5  # share of answers that reach the token limit
EQUAL = 0.95  # share of groups without a difference in reward
DROWNED = 0.05  # a reward with a smaller share of the differences within groups does not count beside the others
KL = 1.0  # nats per token to the reference, above which the policy has left its language
ASTRAY = -1.0  # explained variance of the returns by the values, below which the value head diverges
FALLEN = 0.1  # fall of the gold score, as a share of its rise before
APART = 0.05  # nats per token between sampler and trainer; rounding alone causes about a thousandth of it
_LOOK_BACK = 20 * ROUNDS  # rounds in which the newest rollouts are looked for

Sample = Mapping[str, Any]


class Diagnosis:
    """Follows a run row by row. A row and a diagnosis cost the same in round 10 and in round 10,000.

    What the algorithm declares of itself is in the run's env.json; for a run without it the algorithm is imported.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run, self._settings, self._history = run, run.plain(), History()
        declared = signs(run)
        if declared is None:
            kind = find(self._settings["algo"], "rllab.algos", run.path)
            declared = {"rising": kind.rising, "contrast": kind.contrast}
        self._rising: Sequence[str] = declared["rising"]
        self._contrast: str = declared["contrast"]

    @classmethod
    def of_record(cls, run: RunFolder) -> "Diagnosis":
        """Follows a run from its first row to the last that is written."""
        diagnosis = cls(run)
        for row in run.metrics.rows():
            diagnosis.add(row)
        return diagnosis

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds the next row of metrics.jsonl."""
        self._history.add(row)

    def sentences(self) -> list[str]:
        """What stands out in the newest rounds; [] where nothing does.

        Raises:
            Mistake: samples.jsonl holds other samples than those of a run.
        """
        history, settings = self._history, self._settings
        lines = of_learning(history, settings, self._rising)
        if not self._contrast:
            return lines + of_acting(history, settings)
        if not (samples := newest_rollouts(self._run.sampled)):
            return lines
        try:
            seen = of_rollouts(samples, history, settings, self._contrast)
        except (KeyError, TypeError, ValueError) as error:
            path = self._run.path / "samples.jsonl"
            raise Mistake(f"{path}: its samples are not those of a run ({type(error).__name__}: {error})") from None
        return [*seen, *of_rows(history, settings), *lines]


def signs(run: RunFolder) -> dict[str, Any] | None:
    """What the algorithm declares of its metrics, `rising` and `contrast`; None if env.json does not have it."""
    try:
        declared = read_json(run.path / "env.json").get("signs")
    except Mistake:
        return None
    return declared if isinstance(declared, dict) and {"rising", "contrast"} <= declared.keys() else None


def diagnose(run: RunFolder) -> list[str]:
    """Returns what stands out in a run's newest rounds; [] where nothing does.

    Raises:
        Mistake: the run's recipe or its samples are damaged.
    """
    return Diagnosis.of_record(run).sentences()


def of_rollouts(
    samples: Sequence[Sample], history: History, settings: Mapping[str, Any], contrast: str = "group"
) -> list[str]:
    """Diagnoses completions and their rewards: truncated, without differences, never rewarded, drowned by another.

    settings: of the recipe. contrast: as in `Algorithm.contrast`.
    """
    groups: dict[Any, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[(sample["step"], sample["row"]) if contrast == "group" else None].append(sample)
    lines = []
    cut = float(np.mean([s["finish"] == "length" for s in samples]))
    if cut > CUT:
        lines.append(
            f"{cut:.0%} of the answers are cut off at max_new_tokens ({settings.get('max_new_tokens')}), most before "
            "they answer: make it larger, or ask for shorter answers"
        )
    equal = float(np.mean([len(_scores(g)) < 2 for g in groups.values()]))
    if contrast == "filter":
        return lines
    if equal >= EQUAL:
        why = _why_equal(list(groups.values()), history, settings)
        which = f"{equal:.0%} of the groups" if contrast == "group" else "the answers of the newest rounds"
        lines.append(f"{which} have no difference in reward and teach nothing: {why}")
    else:
        lines += _components(list(groups.values()), settings)
    return lines


def of_rows(history: History, settings: Mapping[str, Any]) -> list[str]:
    """Diagnoses metrics: KL, sampler against trainer, values, over-optimisation."""
    lines = []
    kl, apart = (history.mean(f"loss/{name}") for name in ("kl", "sampler_kl"))
    if kl is not None and kl > KL:
        lines.append(
            f"the KL to the reference model is {kl:.2g} nats per token, and the answers may be nothing that the "
            f"reference would say: make beta ({settings.get('beta')}) larger, or optim.lr smaller"
        )
    if apart is not None and apart > APART and not settings.get("importance_sampling_clip_max"):
        lines.append(
            f"the sampler is {apart:.2g} nats per token from the trained model: set "
            "importance_sampling_clip_max: 2, or sample in the precision of the training"
        )
    explained = history.mean("value/explained")
    if explained is not None and explained < ASTRAY:
        lines.append(
            f"the values predict the returns worse than a constant would (value/explained is {explained:.2g}): make "
            "the learning rate of the value head (optim.value.lr) smaller"
        )
    return lines + _over_optimised(history)


def _over_optimised(history: History) -> list[str]:
    """The gold score has fallen from its best while the reward has not (Gao et al. 2023)."""
    windows = history.gold
    if windows.count < 3:
        return []
    first, best, last = windows.first, windows.best, windows.newest()
    risen = best[1] - first[1]
    if risen <= 0 or best[1] - last[1] < FALLEN * risen or last[2] < best[2] - FALLEN * abs(best[2] - first[2]):
        return []
    return [
        f"the task's own score of the answers (rollout/gold) has fallen from {best[1]:.2f} around round {best[0]:.0f} "
        f"to {last[1]:.2f}, while the reward has not ({best[2]:.2f} to {last[2]:.2f}): the reward is over-optimised. "
        "Keep the policy nearer to the reference (beta), or stop earlier"
    ]


def _why_equal(groups: list[list[Sample]], history: History, settings: Mapping[str, Any]) -> str:
    samples = [s for g in groups for s in g]
    score = mean(samples, "score")
    if score is None:
        return "no reward applies to any of the newest answers. Take rows to which one applies, or another reward"
    right = [s["correct"] for s in samples if s.get("correct") is not None]
    total = history.course("reward/total")
    if (right and np.mean(right) >= EQUAL) or (total.count and score >= total.highest[0] > total.first[0]):
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
    """Of several rewards, those that reward no answer, and those that another one drowns."""
    samples = [s for g in groups for s in g]
    names, weights = list(samples[0]["rewards"]), _weights(settings)
    if len(names) < 2:
        return []
    lines, spread, reach = [], {}, {}
    for name, weight in zip(names, weights, strict=True):
        scores = [s["rewards"][name] for s in samples if s["rewards"][name] is not None]
        if not scores:
            lines.append(
                f"{name} applies to none of the {len(samples):,} answers of the newest rounds, and cannot be learned: "
                "take rows to which it applies, or leave it out"
            )
        elif max(scores) == min(scores) <= 0:
            lines.append(
                f"{name} is {scores[0]:g} for all {len(scores):,} answers of the newest rounds, and cannot be learned: "
                "show in the prompt what it wants, train on examples first (SFT), or give partial credit"
            )
        # a group to which the reward does not apply has no difference that is due to it: its deviation is 0
        each = [np.std([s["rewards"][name] for s in g if s["rewards"][name] is not None] or [0.0]) for g in groups]
        spread[name], reach[name] = abs(weight) * float(np.mean(each)), float(np.ptp(scores or [0.0]))
        if reach[name]:
            reach[name] = float(np.mean(each)) / reach[name]
    largest, whole = max(spread, key=lambda n: spread[n]), sum(spread.values())
    drowned = [n for n in names if 0 < spread[n] < DROWNED * whole and reach[n] > 0.1]
    if drowned and settings.get("multi_objective_aggregation") == "sum_then_normalize":
        lines.append(
            f"{largest} makes {spread[largest] / whole:.0%} of the differences within groups, and "
            f"{' and '.join(drowned)} hardly counts: change `weight`, or set "
            "multi_objective_aggregation: normalize_then_sum"
        )
    return lines


def _weights(settings: Mapping[str, Any]) -> list[float]:
    terms = settings["reward"]
    each = terms if isinstance(terms, list) else [terms]
    return [float(t.get("weight", 1.0)) if isinstance(t, dict) else 1.0 for t in each]


def _scores(group: Sequence[Sample]) -> set[float]:
    return {s["score"] for s in group if s["score"] is not None}


def newest_rollouts(log: Log) -> list[Sample]:
    """The rollouts in the newest `ROUNDS` rounds of samples.jsonl that have some, in the order of the file.

    Of a run whose newest rounds have none, only the newest rounds are read.
    """
    rollouts, newest_step = list[Sample](), log.last().get("step", 0)
    rounds = set[int]()  # with rollouts
    for sample in log.backward():
        step = sample["step"]
        if (len(rounds) == ROUNDS and step not in rounds) or step < newest_step - _LOOK_BACK:
            break
        if "sample" in sample and "split" not in sample:  # the others are answers of evaluations
            rollouts.append(sample)
            rounds.add(step)
    return rollouts[::-1]
