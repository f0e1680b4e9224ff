"""Whole episodes of a policy, for evaluation."""

from collections.abc import Callable

import numpy as np
import torch

from rllab.control.spec import EnvSpec
from rllab.control.vector import Envs
from rllab.core.algorithm import Context

Policy = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""(observations [N, ...], action masks [N, A] or None) -> actions [N, ...]."""
Reset = Callable[[np.ndarray], None]
"""Called with bool [N]: the environments in which an episode begins."""


def play(
    envs: Envs,
    policy: Policy,
    episodes: int,
    *index: int,
    reset: Reset = lambda which: None,
    most_steps: int = 1_000_000_000,
    ended: Callable[[int], None] = lambda count: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Plays episodes and returns their returns and lengths, each [episodes].

    Every environment plays the same number of episodes, so short episodes are not over-represented. One that has
    played its share waits for the others.

    index: selects the seeds of the episodes.
    reset: called before the first action of an episode, with the environments [N] in which one begins.
    most_steps: an episode is ended after so many steps.
    ended: called after each step with the number of episodes that have ended; it may raise to end the play.
    """
    envs.begin(*index)
    envs.finished.clear()
    reset(np.ones(envs.num_envs, bool))
    share = -(-episodes // envs.num_envs)
    results: list[list[tuple[float, int]]] = [[] for _ in range(envs.num_envs)]
    active = np.ones(envs.num_envs, bool)  # environments that have not played their share yet
    while active.any():
        before = envs.episode.copy()
        envs.step(policy(envs.obs, envs.mask), active)
        if (late := envs.lengths >= most_steps).any():
            envs.end(late)
        if envs.finished:
            begins = envs.episode != before
            for i, result in zip(np.flatnonzero(begins).tolist(), envs.finished, strict=True):
                results[i].append(result)
                active[i] = len(results[i]) < share
            envs.finished.clear()
            reset(begins)
        ended(sum(map(len, results)))
    flat = [results[i][k] for k in range(share) for i in range(envs.num_envs)][:episodes]
    return np.array([r for r, _ in flat]), np.array([n for _, n in flat])


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
