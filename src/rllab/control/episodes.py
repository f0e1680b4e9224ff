"""Whole episodes of a policy, for evaluation."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from rllab.control.spec import EnvSpec
from rllab.control.vector import Envs, Transition
from rllab.core.algorithm import Context

Policy = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""(observations [N, ...], action masks [N, A] or None) -> actions [N, ...]."""
Value = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""(observations [N, ...], action masks [N, A] or None) -> values [N]."""


class Memory(NamedTuple):
    """What a policy with memory learns of the episodes that it plays.

    reset: called before the first action of an episode, with bool [N], the environments in which one begins.
    observe: called with each step, before `reset` where an episode begins after it.
    """

    reset: Callable[[np.ndarray], None]
    observe: Callable[[Transition], None]


def play(
    envs: Envs,
    policy: Policy,
    episodes: int,
    *index: int,
    memories: "Sequence[Memory | Worth | Reported]" = (),
    most_steps: int = 1_000_000_000,
    ended: Callable[[int], None] = lambda count: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Plays episodes and returns their returns and lengths, each [episodes].

    Every environment plays the same number of episodes, so short episodes are not over-represented. One that has
    played its share waits for the others.

    index: selects the seeds of the episodes.
    memories: told of each step, and of each episode that begins.
    most_steps: an episode is ended after so many steps.
    ended: called after each step with the number of episodes that have ended; it may raise to end the play.
    """
    envs.begin(*index)
    envs.finished.clear()
    for memory in memories:
        memory.reset(np.ones(envs.num_envs, bool))
    share = -(-episodes // envs.num_envs)
    results: list[list[tuple[Any, ...]]] = [[] for _ in range(envs.num_envs)]
    active = np.ones(envs.num_envs, bool)  # environments that have not played their share yet
    while active.any():
        before = envs.episode.copy()
        step = envs.step(policy(envs.obs, envs.mask), active)
        for memory in memories:
            memory.observe(step)
        if (late := envs.lengths >= most_steps).any():
            envs.end(late)
        if envs.finished:
            begins = envs.episode != before
            for i, result in zip(np.flatnonzero(begins).tolist(), envs.finished, strict=True):
                results[i].append(result)
                active[i] = len(results[i]) < share
            envs.finished.clear()
            for memory in memories:
                memory.reset(begins)
        ended(sum(map(len, results)))
    flat = in_order(results, episodes)
    return np.array([r for r, _ in flat]), np.array([n for _, n in flat])


def in_order(results: list[list[tuple[Any, ...]]], episodes: int) -> list[tuple[Any, ...]]:
    """The results of `episodes` episodes, of equally many in each environment; the first of each comes first."""
    share = -(-episodes // len(results))
    return [own[k] for k in range(share) for own in results][:episodes]


class Worth:
    """What the episodes of `play` are worth: the value of their first observation, and their discounted return.

    A policy that overestimates has larger values than returns (van Hasselt et al. 2016, figure 3, at all observations).
    What comes after a time limit is in the value and not in the return; with discount γ and T steps it weighs γ^T.

    envs: those that play. gamma: γ. value: the values of the policy that plays.
    """

    def __init__(self, envs: Envs, gamma: float, value: Value) -> None:
        self.envs, self.gamma, self.value = envs, gamma, value
        self.first, self.total, self.factor = (np.zeros(envs.num_envs) for _ in range(3))
        self.open = np.zeros(envs.num_envs, bool)
        self.ended: list[list[tuple[Any, ...]]] = [[] for _ in range(envs.num_envs)]

    def reset(self, which: np.ndarray) -> None:
        """Ends the open episodes of the environments where `which` [N] is true, and begins new ones."""
        for i in np.flatnonzero(which & self.open).tolist():
            self.ended[i].append((self.first[i], self.total[i]))
        self.first = np.where(which, self.value(self.envs.obs, self.envs.mask), self.first)
        self.total[which], self.factor[which], self.open[which] = 0.0, 1.0, True

    def observe(self, step: Transition) -> None:
        """Adds the rewards of a step."""
        self.total += self.factor * step.reward
        self.factor *= self.gamma * ~step.terminated  # also where what is learned of ends before the episode

    def means(self, episodes: int) -> tuple[float, float]:
        """(mean value, mean discounted return) of the episodes that `play` returned."""
        values, returns = zip(*in_order(self.ended, episodes), strict=True)
        return float(np.mean(values)), float(np.mean(returns))


class Reported:
    """The numbers that the environments of `play` report of its episodes. envs: those that play."""

    def __init__(self, envs: Envs) -> None:
        self.envs = envs
        self.ended: list[list[tuple[Any, ...]]] = [[] for _ in range(envs.num_envs)]
        envs.reports.clear()

    def reset(self, which: np.ndarray) -> None:
        """Takes the reports of the episodes that have ended in the environments where `which` [N] is true."""
        for i, report in zip(np.flatnonzero(which).tolist(), self.envs.reports, strict=False):
            self.ended[i].append((report,))
        self.envs.reports.clear()

    def observe(self, step: Transition) -> None:
        """A step alone says nothing."""

    def numbers(self, episodes: int) -> dict[str, np.ndarray]:
        """The numbers by name, each [E], of the E episodes that `play` returned; {} if they report nothing."""
        if not any(self.ended):
            return {}
        reports = [report for (report,) in in_order(self.ended, episodes)]
        return {k: np.array([report[k] for report in reports]) for k in reports[0]}


def epsilon_greedy(policy: Policy, epsilon: float, actions: int, rng: np.random.Generator) -> Policy:
    """A policy [N] that takes one of the allowed `actions` at random with probability `epsilon`, else that of `policy`.

    With `epsilon` 0 it is `policy`, and draws nothing.
    """

    def act(obs: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        chosen = rng.random((len(obs), actions))
        allowed = chosen if mask is None else np.where(mask, chosen, -1.0)
        return np.where(rng.random(len(obs)) < epsilon, allowed.argmax(1), policy(obs, mask))

    return act if epsilon else policy


class OneEpisode(Envs):
    """One environment that plays one episode, which begins with `reset(seed=seed)`.

    It stays at the episode's last state, which can be looked at; `finished` has one entry then.
    """

    def __init__(self, spec: EnvSpec, seed: int, device: torch.device, shared: Envs) -> None:
        super().__init__(spec, 1, _OneSeed(seed, device), "evaluation", shared)

    def end(self, over: np.ndarray) -> None:
        """Ends the episode; `over` [1] is true."""
        self.finished.append((float(self.returns[0]), int(self.lengths[0])))


class _OneSeed(Context):
    """Its seed is that of every episode."""

    def seeds(self, purpose: str, *index: int) -> Callable[[int, int], int]:
        return lambda i, episode: self.seed
