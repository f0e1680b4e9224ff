"""The dynamics of a finite environment, from its attribute `P`, and what planning computes from them.

Gymnasium's toy environments have `P[state][action]`, a list of (probability, next state, reward, terminated).
Axes: S states, A actions, K outcomes of an action.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rllab.core.errors import FieldMistake

_CLOSE = 1e-10  # sweeps end once no value changes by more, relative to the largest value


@dataclass(frozen=True)
class Dynamics:
    """Outcomes of every action in every state, each array [S, A, K]; outcomes that do not exist have probability 0.

    goes_on: 0 for an outcome that ends the episode, whose next state has no value, and 1 otherwise.
    start: the distribution of first states [S]; None if the environment does not say.
    """

    probability: np.ndarray
    next_state: np.ndarray
    reward: np.ndarray
    goes_on: np.ndarray
    start: np.ndarray | None

    def backup(self, value: np.ndarray, gamma: float) -> np.ndarray:
        """The expectation of r + γ V(s') [S, A], for values of states [S]."""
        target = self.reward + gamma * self.goes_on * value[self.next_state]
        expected: np.ndarray = (self.probability * target).sum(2)
        return expected

    def optimal_values(self, gamma: float) -> tuple[np.ndarray, int]:
        """(V* [S], the number of sweeps), by value iteration (Sutton and Barto 2018, equation 4.10); γ below 1."""
        value, sweeps = np.zeros(len(self.reward)), 0
        while True:
            new: np.ndarray = self.backup(value, gamma).max(1)
            sweeps += 1
            if np.abs(new - value).max() <= _CLOSE * max(1.0, np.abs(new).max()):
                return new, sweeps
            value = new

    def policy_values(self, policy: np.ndarray, gamma: float) -> np.ndarray:
        """The values V [S] of a policy: actions [S] (Sutton and Barto 2018, equation 4.5); γ below 1."""
        rows = np.arange(len(policy))
        p, s, r = (x[rows, policy] for x in (self.probability, self.next_state, self.reward))
        reward, weight = (p * r).sum(1), gamma * p * self.goes_on[rows, policy]
        value = np.zeros(len(policy))
        while True:
            new: np.ndarray = reward + (weight * value[s]).sum(1)
            if np.abs(new - value).max() <= _CLOSE * max(1.0, np.abs(new).max()):
                return new
            value = new

    def kinds(self) -> tuple[np.ndarray, np.ndarray]:
        """(where an episode can stand, where it ends), bool [S] each; states that are neither are never entered."""
        possible, states = self.probability > 0, np.arange(len(self.reward))
        ends = np.isin(states, self.next_state[possible & (self.goes_on == 0)])
        stands = np.isin(states, self.next_state[possible & (self.goes_on == 1)])
        if self.start is not None:
            stands = stands | (self.start > 0)
        return stands, ends & ~stands


@dataclass(frozen=True)
class Optimum:
    """What can be reached in an environment at a discount γ. value: V* [S]; sweeps: those of value iteration."""

    dynamics: Dynamics
    gamma: float
    value: np.ndarray
    sweeps: int

    def compare(self, q: np.ndarray, visits: np.ndarray) -> dict[str, float]:
        """Metrics of action values [S, A] and of their greedy policy.

        `eval/value_error` is the mean of |V - V*| over states by visits [S, A], or over all states if there are none.
        """
        visits_S = visits.sum(1)
        share_S = visits_S / visits_S.sum() if visits_S.any() else np.full(len(visits_S), 1 / len(visits_S))
        metrics = {"eval/value_error": float(share_S @ np.abs(q.max(1) - self.value))}
        if (start_S := self.dynamics.start) is not None:
            of_policy_S = self.dynamics.policy_values(q.argmax(1), self.gamma)
            metrics["eval/policy_value"] = float(start_S @ of_policy_S)
            metrics["eval/optimal_value"] = float(start_S @ self.value)
        return metrics


def known_optimum(env: Any, size: tuple[int, int], gamma: float, needed: bool) -> Optimum | None:
    """The optimum of an environment without its wrappers, which has (states, actions); None if it has no `P`, or γ = 1.

    Raises:
        FieldMistake: it is `needed` and not known, or `P` does not fit the environment's spaces.
    """
    if needed and gamma == 1:
        raise FieldMistake("gamma", "is 1, at which planning need not converge: choose one below, such as 0.99")
    if not needed and (gamma == 1 or not hasattr(env, "P")):
        return None
    dynamics = read_dynamics(env, *size)
    return Optimum(dynamics, gamma, *dynamics.optimal_values(gamma))


def read_dynamics(env: Any, states: int, actions: int) -> Dynamics:
    """The dynamics of an environment without its wrappers.

    Raises:
        FieldMistake: it has no `P`, or that does not fit its spaces.
    """
    table = getattr(env, "P", None)
    if table is None:
        raise FieldMistake("env", f"{type(env).__name__} has no P, the probabilities that planning needs; {_WITH_P}")
    if (count := len(table)) != states:
        raise FieldMistake("env", f"its P has {count} states, and its observation_space has {states}")
    outcomes = [[_outcomes(table, s, a, states) for a in range(actions)] for s in range(states)]
    widest = max(len(each) for row in outcomes for each in row)
    filled = np.zeros((4, states, actions, widest))
    for s, row in enumerate(outcomes):
        for a, each in enumerate(row):
            filled[:, s, a, : len(each)] = np.array(each, float).T
    probability, next_state, reward, terminated = filled
    start = getattr(env, "initial_state_distrib", None)
    return Dynamics(probability, next_state.astype(np.int64), reward, 1.0 - terminated, start)


_WITH_P = "FrozenLake-v1, CliffWalking-v1 and Taxi-v4 have it, and q_learning, sarsa and monte_carlo need none"


def _outcomes(table: Any, state: int, action: int, states: int) -> Sequence[Any]:
    where = f"P[{state}][{action}]"
    try:
        outcomes = [(float(p), int(s), float(r), bool(t)) for p, s, r, t in table[state][action]]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        expected = "a list of (probability, next state, reward, terminated)"
        raise FieldMistake("env", f"its {where} is not {expected}: {type(error).__name__}: {error}") from None
    if not np.isfinite(outcomes).all() or abs(sum(p for p, *_ in outcomes) - 1.0) > 1e-6:
        raise FieldMistake("env", f"the probabilities in its {where} do not add up to 1, or a number is not finite")
    if wrong := [s for _, s, *_ in outcomes if not 0 <= s < states]:
        raise FieldMistake("env", f"its {where} leads to state {wrong[0]}, and its states are 0 to {states - 1}")
    return outcomes
