"""What algorithms for Gymnasium environments share: making the environments, evaluation, and acting after training."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rllab.control.vector import Envs, EnvSpec, evaluation_envs, play
from rllab.core.algorithm import Algorithm, Context, Headline, Metrics
from rllab.core.errors import FieldMistake
from rllab.core.names import Model, Named
from rllab.stats import bootstrap

HEADLINE_EPISODES = 100
Wrapper = Annotated[Callable[..., Any], Named("gymnasium.wrappers", passed=1)]


@dataclass(kw_only=True)
class Control(Algorithm):
    """An algorithm that acts in Gymnasium environments.

    A subclass calls `make_envs` in its `setup`, and implements `greedy`, the policy that evaluation uses.
    """

    env: str  # a Gymnasium id; rllab/CartPole-v1 is Gymnasium's CartPole-v1, all copies stepped by one array program
    env_kwargs: dict[str, Any] = field(default_factory=dict)  # arguments of the environment's constructor
    wrappers: list[Wrapper] = field(default_factory=list)  # Gymnasium wrappers, from the inside out
    reward: Annotated[Callable[..., float], Named("", passed=6)] | None = None  # replaces the environment's reward
    num_envs: int = 8  # environments stepped side by side
    eval_episodes: int = 20  # episodes in an evaluation
    model: Annotated[str, Model()] = ""  # start from these weights: run:NAME, or a checkpoint's folder

    def __post_init__(self) -> None:
        for name in ("num_envs", "eval_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def make_envs(self, ctx: Context) -> None:
        """Makes `envs`, the training environments; those for evaluation are made at its first call."""
        self.ctx = ctx
        self._spec = EnvSpec(self.env, self.env_kwargs, self.wrappers, self.reward)
        self.envs = Envs(self._spec, self.num_envs, ctx, "episode")
        self._test_envs: Envs | None = None
        self.env_steps = 0  # steps of all environments, over all ranks

    @abstractmethod
    def greedy(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        """The best actions [N, ...] for observations [N, ...], among those that the mask [N, A] allows."""

    def reset_policy(self, which: np.ndarray) -> None:
        """Clears the memory of `greedy` in the environments where `which` [N] is true. Here it does nothing.

        Evaluation calls it before the first action of every episode, and at its start with all environments.
        """

    def evaluate(self, step: int) -> Metrics:
        """Plays greedy episodes in separate environments; returns are sums of the environment's own rewards."""
        returns, lengths = self._measure(self.eval_episodes, 0, step)
        low, high = bootstrap(returns)
        measured = {"return": float(returns.mean()), "return_low": low, "return_high": high}
        return {f"eval/{k}": v for k, v in measured.items()} | {"eval/length": float(lengths.mean())}

    def headline(self) -> Headline:
        """The mean return of 100 greedy episodes with seeds that no evaluation uses."""
        returns, _ = self._measure(HEADLINE_EPISODES, 1)
        return Headline("eval/return", float(returns.mean()), bootstrap(returns))

    def act(self, obs: Any) -> Any:
        """The greedy action for one observation, as `env.step` and `env.reset` return it."""
        return self._greedy(np.asarray(obs)[None], None)[0]

    def _measure(self, episodes: int, *index: int) -> tuple[np.ndarray, np.ndarray]:
        if self._test_envs is None:
            self._test_envs = evaluation_envs(self._spec, self.ctx)
        with torch.inference_mode():
            return play(self._test_envs, self._greedy, episodes, *index, reset=self.reset_policy)

    def _greedy(self, obs: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        with torch.inference_mode():
            return self.greedy(self.tensor(obs), None if mask is None else self.tensor(mask)).cpu().numpy()

    def tensor(self, array: np.ndarray) -> Tensor:
        """Converts an array, of any shape, to a tensor on the run's device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.ctx.device)

    def finished_episodes(self) -> Metrics:
        """`env/steps`, and the mean return and length of the episodes that ended since the last call, if any."""
        finished, self.envs.finished = self.envs.finished, []
        if not finished:
            return {"env/steps": self.env_steps}
        returns, lengths = (np.array(x, float) for x in zip(*finished, strict=True))
        return {"env/steps": self.env_steps, "env/return": returns.mean(), "env/length": lengths.mean()}


def discrete_actions(space: gym.Space[Any]) -> int:
    """The number of actions of a discrete space.

    Raises:
        FieldMistake: actions are not discrete, or do not begin at 0.
    """
    if not isinstance(space, gym.spaces.Discrete) or space.start != 0:
        raise FieldMistake("env", f"its actions are {space}; this algorithm needs Discrete(n)")
    return int(space.n)


def masked(values: Tensor, mask: Tensor | None) -> Tensor:
    """Values [B, A] with minus infinity where the mask [B, A] is false."""
    return values if mask is None else values.masked_fill(~mask, -torch.inf)
