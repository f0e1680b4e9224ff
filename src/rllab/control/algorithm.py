"""What algorithms for Gymnasium environments share: making the environments, evaluation, and acting after training."""

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rllab.control.episodes import Memory, OneEpisode, Policy, Reported, Worth, play
from rllab.control.masks import action_mask, choices
from rllab.control.networks import load_weights
from rllab.control.replay import Replay, replay_bytes
from rllab.control.reports import Reporting, Reports, headline_of
from rllab.control.spec import EnvSpec, refuse_state
from rllab.control.vector import Envs, Transition, check_evaluation
from rllab.control.wrapped import Adapted, Statistics
from rllab.core.algorithm import Algorithm, Context, Headline, Line, Metrics
from rllab.core.errors import FieldMistake, Interrupted
from rllab.core.games import named_game
from rllab.core.machine import memory_bytes
from rllab.core.names import Model, Named
from rllab.core.ranges import Count
from rllab.core.rules import checked_game
from rllab.stats import bootstrap

SIDE_BY_SIDE = 100  # the most environments of an evaluation
MOST_ACTIONS = 100_000
_OTHERS = "from 0 on; PPO takes MultiDiscrete, MultiBinary and Box, SAC a Box with bounds, and a wrapper can make them"
STATISTICS = "wrappers.json"  # running statistics of wrappers, in a part's folder of a checkpoint
Wrapper = Annotated[Callable[..., Any], Named("gymnasium.wrappers", passed=1)]


@dataclass(kw_only=True)
class Control(Algorithm):
    """An algorithm that acts in Gymnasium environments.

    A subclass calls `make_envs` in its `setup`, and implements `greedy`, the policy that evaluation uses.
    """

    shown: ClassVar[tuple[str, ...]] = ("env/return", "eval/return")
    rising: ClassVar[tuple[str, ...]] = ("eval/return",)
    kept_by_forks: ClassVar[tuple[str, ...]] = ("env", "env_kwargs", "wrappers", "num_envs", "buffer_size")

    env: str  # a Gymnasium id; rllab/CartPole-v1 is Gymnasium's CartPole-v1, all copies stepped by one array program
    env_kwargs: dict[str, Any] = field(default_factory=dict)  # arguments of the environment's constructor
    wrappers: list[Wrapper] = field(default_factory=list)  # Gymnasium wrappers, from the inside out
    reward: Annotated[Callable[..., float], Named("", passed=6)] | None = None  # replaces the environment's reward
    num_envs: Count = 8  # environments stepped side by side
    eval_env_kwargs: dict[str, Any] = field(default_factory=dict)  # evaluation's arguments, over `env_kwargs`
    eval_wrappers: list[Wrapper] | None = None  # evaluation's wrappers, in place of `wrappers`; null: the same
    eval_episodes: Count = 20  # episodes in an evaluation
    eval_max_steps: Count = 30_000  # steps after which an evaluation ends an episode that goes on
    headline_episodes: Count = 100  # episodes of the final measurement, side by side
    model: Annotated[str, Model()] = ""  # start from these weights: run:NAME, or a checkpoint's folder

    def make_envs(self, ctx: Context) -> None:
        """Makes `envs`, the training environments; those for evaluation are made at its first call."""
        self.ctx = ctx
        self._spec = EnvSpec(self.env, self.env_kwargs, self.wrappers, self.reward)
        refuse_state(self._spec)
        if self.env == "rllab/Game-v0" and "game" in self.env_kwargs:
            checked_game(named_game(self.env_kwargs["game"]), "env_kwargs")
        self.envs = Envs(self._spec, self.num_envs, ctx, "episode")
        _check_number(self.envs.action_space)
        if self.envs.statistics and ctx.world > 1:
            raise FieldMistake("wrappers", "their running statistics would differ between ranks; train on one rank")
        self._eval_spec = self._spec
        if self.eval_env_kwargs or self.eval_wrappers is not None:
            wrappers = self.wrappers if self.eval_wrappers is None else self.eval_wrappers
            kwargs = {**self.env_kwargs, **self.eval_env_kwargs}
            self._eval_spec = replace(self._spec, kwargs=kwargs, wrappers=wrappers)
            check_evaluation(self._eval_spec, self.envs)
        self._test_envs: dict[int, Envs] = {}
        self.env_steps = 0  # steps of all environments, over all ranks
        self._replay_rows = self._replay_bytes = 0

    def make_replay(self, capacity: int, n_step: int = 1, gamma: float = 1.0) -> Replay:
        """A replay buffer for `capacity` transitions of the training environments, on each rank.

        Raises:
            FieldMistake: the machine has not the memory for it, or it cannot hold `n_step` steps of the environments.
        """
        replay = Replay(capacity, self.num_envs, n_step, gamma)
        if (least := n_step * self.num_envs) > replay.capacity:
            raise FieldMistake("n_step", f"{n_step} steps of {self.num_envs} environments need buffer_size={least}")
        self._replay_rows, action = replay.capacity, np.asarray(self.envs.action_space.sample())
        self._replay_bytes = replay_bytes(replay.capacity, self.envs.obs[0], action)
        if self._replay_bytes > (memory := memory_bytes()):
            fits = int(memory / 2 * replay.capacity / self._replay_bytes)
            need = f"{replay.capacity:,} transitions need {self._replay_bytes / 1e9:,.1f} GB"
            raise FieldMistake("buffer_size", f"{need}, the machine has {memory / 1e9:,.1f} GB; try {fits}")
        return replay

    def preflight(self) -> dict[str, Line]:
        if not self._replay_rows:
            return {}
        rows, size = self._replay_rows, self._replay_bytes
        text = f"{size / 1e6:,.0f} MB for {rows:,} transitions, on each rank"
        return {"replay": Line(text, bytes=size, transitions=rows)}

    def start_from(self, part: nn.Module, folder: str) -> None:
        """Loads the weights of another run into a part, and the running statistics of that run's wrappers."""
        file = load_weights(part, folder)
        self.read_files("", file.parent)
        if self.envs.statistics:
            self.envs.begin()  # anew, with the statistics

    def write_files(self, part: str, folder: Path) -> None:
        if self.envs.statistics:
            self.envs.statistics.save(folder / STATISTICS)

    def read_files(self, part: str, folder: Path) -> None:
        if (folder / STATISTICS).is_file():
            self.envs.statistics.load(folder / STATISTICS)

    @property
    def eval_spec(self) -> EnvSpec:
        """Which environments evaluation makes, and how."""
        return self._eval_spec

    def make_env(self, **more: Any) -> gym.Env[Any, Any]:
        """An environment for `act`: Gymnasium's, with evaluation's wrappers and the run's running statistics.

        more: arguments of the constructor beside those of the recipe, such as `render_mode`.
        """
        env = replace(self._eval_spec, kwargs={**self._eval_spec.kwargs, **more}).make_one()
        Statistics([env], self.envs.statistics)
        return env.env if isinstance(env, Adapted) else env  # `act` adapts observations itself

    @abstractmethod
    def greedy(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        """The best actions [N, ...] for observations [N, ...], among those that the mask [N, A] allows.

        They are of the type and within the bounds of the action space. What is computed by tensors alone, without
        NumPy, can be exported.
        """

    @property
    def memory_size(self) -> int:
        """M, the size of the memory of `greedy_from`; 0 for policies without memory."""
        return 0

    def greedy_from(self, obs: Tensor, mask: Tensor | None, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(the actions of `greedy`, the memory after them [N, M]) for a memory [N, M], zeros as an episode begins.

        Policies with memory override it. It must not read or write what `greedy` remembers.
        """
        return self.greedy(obs, mask), memory

    def reset_policy(self, which: np.ndarray) -> None:
        """Clears the memory of `greedy` in the environments where `which` [N] is true. Here it does nothing.

        Evaluation calls it before the first action of every episode, and at its start with all environments.
        """

    def observe(self, step: Transition) -> None:
        """Shows a policy with memory the step [N, ...] that its last actions have made. Here it does nothing."""

    @property
    def policy_memory(self) -> Memory:
        """The memory of `greedy`, for `play`."""
        return Memory(self.reset_policy, self.observe)

    def values(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        """The values [N] that were learned for `greedy` at observations [N, ...], among the actions of mask [N, A].

        Where a subclass implements it, evaluation compares the values of the first observations of its episodes with
        the returns, discounted by the field `gamma`.
        """
        raise NotImplementedError

    def measured_policy(self, *index: int) -> Policy:
        """What evaluation and headline play: here `greedy`. `index` selects the random numbers of one that draws."""
        return self._greedy

    def evaluate(self, step: int) -> Metrics:
        """Plays greedy episodes in separate environments; returns are sums of the environment's own rewards."""
        returns, lengths, worth, reports = self._measure(self.eval_episodes, 0, step)
        low, high = bootstrap(returns)
        measured = {"return": float(returns.mean()), "return_low": low, "return_high": high}
        measured |= worth | (self._reporting(self.eval_episodes).summary(reports) if reports else {})
        return {f"eval/{k}": v for k, v in measured.items()} | {"eval/length": float(lengths.mean())}

    def headline(self) -> Headline:
        """The mean return of `headline_episodes` greedy episodes with seeds that no evaluation uses.

        An environment that reports numbers of its own names the metric that counts instead.
        """
        returns, _, _, reports = self._measure(self.headline_episodes, 1)
        if reports:
            return headline_of(self._reporting(self.headline_episodes), reports)
        return Headline("eval/return", float(returns.mean()), bootstrap(returns))

    def act(self, obs: Any, mask: Any = None) -> Any:
        """The greedy action for one observation, as `step` and `reset` of `make_env()` return it.

        mask: bool [A], the allowed actions, where the environment gives them in `info["action_mask"]`.
        """
        seen, inside = self.envs.one(obs)
        given = mask if mask is not None else inside
        allowed = None if given is None else action_mask(given, self.envs.action_space)[None]
        return self._greedy(np.asarray(seen)[None], allowed)[0]

    def single(self, seed: int, **more: Any) -> OneEpisode:
        """One environment as evaluation has them, whose episode begins with `reset(seed=seed)`.

        more: arguments of the constructor beside those of the recipe, such as `render_mode`.
        """
        spec = replace(self._eval_spec, kwargs={**self._eval_spec.kwargs, **more})
        return OneEpisode(spec, seed, self.ctx.device, self.envs)

    def greedy_steps(self, envs: OneEpisode) -> Iterator[Transition]:
        """Plays greedily, in an environment that `single` has made, until its episode ends."""
        self.reset_policy(np.ones(1, bool))
        while not envs.finished:
            step = envs.step(self._greedy(envs.obs, envs.mask))
            self.observe(step)
            yield step

    def _measure(self, episodes: int, *index: int) -> tuple[np.ndarray, np.ndarray, Metrics, Reports]:
        """Returns and lengths of greedy episodes, each [episodes]; `index` selects their seeds.

        The metrics are the means of `value` and `discounted` (see `Worth`), where the algorithm learns values. The
        reports are the numbers [episodes] that the environment reports, if any.

        Raises:
            Interrupted: the run was asked to stop.
        """
        looked, headline = 0, index == (1,)
        what = "headline" if headline else "evaluation"
        envs = self._evaluation_envs(episodes if headline or self._spec.batched else min(20, episodes))
        worth, reported = self._worth(envs), Reported(envs)

        def ended(count: int) -> None:
            nonlocal looked
            looked += 1
            if looked % (1 if self.ctx.world == 1 else 64) == 0 and self.ctx.stopping():
                raise Interrupted
            self.ctx.tell(f"{what}: {min(count, episodes)} of {episodes} episodes")

        with torch.inference_mode():
            memories: list[Memory | Worth | Reported] = [self.policy_memory, *worth, reported]
            limit, policy = self.eval_max_steps, self.measured_policy(*index)
            returns, lengths = play(envs, policy, episodes, *index, memories=memories, most_steps=limit, ended=ended)
        if cut := int((lengths >= self.eval_max_steps).sum()):
            warnings.warn(
                f"{self.env}: {cut} of {episodes} episodes went on after eval_max_steps={self.eval_max_steps} and were "
                "ended there; without a time limit add wrappers: [{name: TimeLimit, max_episode_steps: 1000}]",
                stacklevel=2,
            )
        means = zip(("value", "discounted"), worth[0].means(episodes), strict=True) if worth else ()
        return returns, lengths, dict(means), reported.numbers(episodes)

    def _reporting(self, episodes: int) -> Reporting:
        """The environment of an evaluation, where it reports numbers."""
        env: Reporting = self._evaluation_envs(episodes).env.unwrapped
        return env

    def _worth(self, envs: Envs) -> list[Worth]:
        """What compares values with returns in `envs`; [] for an algorithm that learns no values."""
        if type(self).values is Control.values:
            return []

        def value(obs: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
            return self.values(self.tensor(obs), None if mask is None else self.tensor(mask)).cpu().numpy()

        return [Worth(envs, getattr(self, "gamma", 1.0), value)]

    def _evaluation_envs(self, number: int) -> Envs:
        """At most so many environments for `play`; every rank plays the same episodes."""
        number = min(number, SIDE_BY_SIDE)
        if number not in self._test_envs:
            alike = Context(self.ctx.seed, self.ctx.device, 0, 1, self.ctx.total_steps)
            self._test_envs[number] = Envs(self._eval_spec, number, alike, "evaluation", self.envs)
        return self._test_envs[number]

    def _greedy(
        self,
        obs: np.ndarray,
        mask: np.ndarray | None,
        policy: Callable[[Tensor, Tensor | None], Tensor] | None = None,
    ) -> np.ndarray:
        """Actions of `greedy`, or of another policy over tensors."""
        act = policy or self.greedy
        with torch.inference_mode():
            return act(self.tensor(obs), None if mask is None else self.tensor(mask)).cpu().numpy()

    def tensor(self, array: np.ndarray) -> Tensor:
        """Converts an array, of any shape, to a tensor on the run's device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.ctx.device)

    def finished_episodes(self) -> Metrics:
        """`env/steps`, and the mean return and length of the episodes that ended since the last call, if any."""
        finished, self.envs.finished = self.envs.finished, []
        self.envs.reports.clear()
        if not finished:
            return {"env/steps": self.env_steps}
        returns, lengths = (np.array(x, float) for x in zip(*finished, strict=True))
        return {"env/steps": self.env_steps, "env/return": returns.mean(), "env/length": lengths.mean()}


def _check_number(space: gym.Space[Any]) -> None:
    """Refuses an action space for which networks would need too many outputs.

    Raises:
        FieldMistake: it has more than `MOST_ACTIONS` choices or components.
    """
    count = sum(choices(space) or [int(np.prod(space.shape or ()))])
    if count > MOST_ACTIONS:
        what = f"its actions are {space}, so a network would need {count:,} outputs, and at most {MOST_ACTIONS:,} work"
        raise FieldMistake("env", f"{what}; let a wrapper offer fewer, or several components (MultiDiscrete)")


def discrete_actions(space: gym.Space[Any]) -> int:
    """The number of actions of a discrete space.

    Raises:
        FieldMistake: actions are not discrete, or do not begin at 0.
    """
    if not isinstance(space, gym.spaces.Discrete) or space.start != 0:
        raise FieldMistake("env", f"its actions are {space}; this algorithm needs Discrete(n) {_OTHERS}")
    return int(space.n)


def choices_from_0(space: gym.Space[Any]) -> list[int]:
    """The numbers of choices of the components of a discrete action; those of a bit are 2.

    Raises:
        FieldMistake: actions are neither Discrete, MultiDiscrete nor MultiBinary, or do not begin at 0.
    """
    if isinstance(space, gym.spaces.MultiBinary):
        return [2] * int(np.prod(space.shape))
    if isinstance(space, gym.spaces.MultiDiscrete) and not space.start.any():
        return [int(n) for n in space.nvec.reshape(-1)]
    return [discrete_actions(space)]


def within(action: np.ndarray, space: gym.spaces.Box) -> np.ndarray:
    """Actions [N, A] as actions [N, ...] of a Box: within its bounds, of its type, and whole if that is an integer."""
    bounded: np.ndarray = within_bounds(torch.from_numpy(action), space).numpy()
    return bounded


def within_bounds(action: Tensor, space: gym.spaces.Box) -> Tensor:
    """Actions [N, A] as actions [N, ...] of a Box, `within` of tensors."""
    shaped = action.reshape(-1, *space.shape)
    low, high = (torch.from_numpy(np.array(bound)).to(action.device) for bound in (space.low, space.high))
    if np.issubdtype(space.dtype, np.integer):
        shaped, low, high = shaped.double().round(), low.double(), high.double()
    return shaped.clamp(low, high).to(tensor_type(space))


def tensor_type(space: gym.Space[Any]) -> torch.dtype:
    """torch's type for the numbers of a space."""
    return torch.from_numpy(np.empty(0, space.dtype)).dtype


def masked(values: Tensor, mask: Tensor | None) -> Tensor:
    """Values [B, A] with minus infinity where the mask [B, A] is false."""
    return values if mask is None else values.masked_fill(~mask, -torch.inf)
