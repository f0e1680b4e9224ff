"""Diagnoses that hold for any algorithm: losses that grow without bound, evaluations that fall or never move.

A metric that was not measured gives no diagnosis.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rllab.core.recipe import reached
from rllab.evals.history import ROUNDS, History

EVALUATIONS = 4  # fewest evaluations of a run that a sentence is drawn from
HUGE, GROWN = 1e6, 1e3  # a loss as a number, and as a multiple of that of the first rounds
FALLEN = 0.5  # fall of an evaluation from its best, as a share of its rise before
NOISE = 0.25  # fall of an evaluation that may be chance, as a share of its size
NEARER = 0.1  # rise of an evaluation that may be chance, as a share of the way to what is expected
BEYOND = 10.0  # Q values as a multiple of the largest return so far
CLIPPED = 0.5  # share of entries outside the clip range
CHANGED = 0.2  # nats an action by which an update changes a policy


def of_learning(history: History, settings: Mapping[str, Any], rising: Sequence[str]) -> list[str]:
    """What stands out in a run's losses and evaluations.

    settings: of the recipe. rising: the metrics of evaluations that rise while its algorithm learns.
    """
    goals = dict.fromkeys(rising) | dict(settings.get("expect") or {})
    lines = _losses(history, settings)
    for name, wanted in goals.items():
        lines += _evaluations(history, name, wanted)
    return lines + _steps(history, settings) + _gate(history)


def of_acting(history: History, settings: Mapping[str, Any]) -> list[str]:
    """What stands out in a policy that acts in an environment: values beyond its returns, and large changes."""
    return _beyond(history, settings) + of_policy_change(history, settings)


def _beyond(history: History, settings: Mapping[str, Any]) -> list[str]:
    """Q values that no return comes near, unless they are those of other rewards or count an entropy."""
    changed = settings.get("reward") is not None or "Reward" in str(settings.get("wrappers"))
    value, returns = history.mean("loss/q"), history.course("env/return")
    if changed or value is None or not returns.count or "policy/temperature" in history.newest[-1]:
        return []
    most = max(abs(returns.lowest[0]), abs(returns.highest[0]))
    if abs(value) < BEYOND * max(1.0, most):
        return []
    return [
        f"the values (loss/q) are {value:.4g}, and no return is larger than {most:.4g}: the learning diverges. Make "
        f"optim.lr{_rate(settings)} smaller, set optim.max_grad_norm, or copy the target network less often"
    ]


def of_policy_change(history: History, settings: Mapping[str, Any]) -> list[str]:
    """How far an update moves a policy that acts in an environment (`loss/kl`, nats an action)."""
    kl = history.mean("loss/kl")
    if kl is None or kl < CHANGED:
        return []
    return [
        f"an update changes the policy by {kl:.2g} nats an action (loss/kl): make optim.lr{_rate(settings)} smaller, "
        "or make fewer passes over a round's data"
    ]


def _losses(history: History, settings: Mapping[str, Any]) -> list[str]:
    """Losses that have grown huge. The largest alone is named: the others follow from it."""
    grown = {}
    for name in {k for row in history.newest for k in row if k.startswith("loss/")}:
        newest, first = history.mean(name), history.course(name).early_size()
        squared = name in ("loss/total", "loss/critic", "loss/value")
        if newest is not None and (abs(newest) > HUGE or (squared and abs(newest) > GROWN * max(1.0, first))):
            grown[name] = (abs(newest), newest, first)
    if not grown:
        return []
    name = max(grown, key=lambda n: (n == "loss/total", grown[n]))
    _, newest, first = grown[name]
    return [
        f"{name} is {newest:.2g}, and was {first:.2g} in the first rounds: the learning diverges, or the rewards are "
        f"too large for it. Make optim.lr{_rate(settings)} smaller, set optim.max_grad_norm, or scale the rewards"
    ]


def _evaluations(history: History, name: str, wanted: float | str | None) -> list[str]:
    """Whether a metric of evaluations has fallen from its best, or is the same in all of them."""
    course = history.course(name)
    if course.count < EVALUATIONS or not name.startswith("eval/"):
        return []
    sign = -1.0 if str(wanted).strip().startswith("<=") else 1.0
    best, at = course.highest if sign > 0 else course.lowest
    first, newest = course.first[0], float(np.mean(list(course.newest)[-2:]))
    if course.highest[0] == course.lowest[0] and not (wanted is not None and reached(wanted, first)):
        return [f"{name} is {first:.6g} in all {course.count} evaluations: {_NEVER}"]
    risen, fallen = sign * (best - first), sign * (best - newest)
    noise = max(FALLEN * risen, NOISE * max(abs(best), abs(newest)))
    near = reached(wanted, newest) if wanted is not None else False
    way = abs(float(str(wanted).strip(" <>=")) - first) if wanted is not None else 0.0
    if near or risen <= NEARER * way or fallen < noise:
        return []
    return [
        f"{name} has gone from {best:.4g} in round {at} back to {newest:.4g}: keep the checkpoint "
        "from there (save_every, keep; rllab train --from RUN@ROUND), make optim.lr smaller or let it decay"
    ]


_NEVER = (
    "what is learned does not change what is done. It may never meet a reward: explore more, take an easier task, or "
    "shape the reward; or the learning rate (optim.lr) is too small"
)


def _steps(history: History, settings: Mapping[str, Any]) -> list[str]:
    clipped = history.mean("loss/clipped")
    if clipped is None or clipped < CLIPPED:
        return []
    return [
        f"{clipped:.0%} of the probability ratios are outside the clip range and are not learned from (loss/clipped): "
        f"make optim.lr{_rate(settings)} smaller, or make fewer passes over a round's data"
    ]


def _gate(history: History) -> list[str]:
    """Of a gate between new weights and those that play (AlphaGo Zero's arena)."""
    passed = history.course("gate/passed").newest
    if len(passed) < ROUNDS or any(passed):
        return []
    return [
        f"the new weights have passed none of the last {len(passed)} gates, so the same weights play on: lower gate, "
        "play more games between gates (gate_every), or end the run here"
    ]


def _rate(settings: Mapping[str, Any]) -> str:
    """The learning rate in parentheses, if there is one for all parts."""
    optim = settings.get("optim")
    rate = optim.get("lr") if isinstance(optim, dict) else None
    return f" ({rate:g})" if isinstance(rate, (int, float)) else ""
