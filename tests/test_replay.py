"""The replay buffer against a plain one: frames stored once, prioritised replay and other targets by subclasses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rllab.algos.dqn import DQN
from rllab.control.algorithm import masked
from rllab.control.replay import Replay, n_step_return
from rllab.core.algorithm import Batch, Context, Round
from rllab.core.checkpoint import Checkpoints
from rllab.core.recipe import load_recipe, read_recipe
from rllab.core.state import Segment
from rllab.testing import check_algorithm

ENVS, STEPS, CAPACITY = 3, 90, 60


def episodes(shape: tuple[int, ...], axis: int | None, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Random transitions [ENVS, ...] of image environments, with terminal states, time limits and episodes of one step.

    axis: along it frames are stacked, and a first stack repeats its frame or begins with zeros; None: no stack.
    """
    rng = np.random.default_rng(seed)

    def image() -> np.ndarray:
        return rng.integers(0, 3 if axis is None else 256, shape, np.uint8)

    def begin() -> np.ndarray:
        first = image()
        if axis is None:
            return first
        one = np.take(first, [0], axis)
        return (
            np.repeat(one, shape[axis], axis)
            if rng.random() < 0.5
            else np.concatenate([np.zeros_like(np.take(first, range(shape[axis] - 1), axis)), one], axis)
        )

    def follow(obs: np.ndarray) -> np.ndarray:
        if axis is None:
            return image()
        return np.concatenate([np.take(obs, range(1, shape[axis]), axis), np.take(image(), [0], axis)], axis)

    obs, rows = np.stack([begin() for _ in range(ENVS)]), []
    for _ in range(STEPS):
        next_obs = np.stack([follow(o) for o in obs])
        terminated, truncated = rng.random((2, ENVS)) < 0.15
        reward = rng.standard_normal(ENVS).astype(np.float32)
        more = {"action": rng.integers(0, 2, ENVS), "terminated": terminated, "truncated": truncated}
        rows.append({"obs": obs, "next_obs": next_obs, "reward": reward} | more)
        over = terminated | truncated
        obs = np.stack([begin() if over[n] else next_obs[n] for n in range(ENVS)])
    return rows


def plain(rows: list[dict[str, np.ndarray]], index: np.ndarray, n_step: int) -> dict[str, Any]:
    """The transitions [N, ...] at index [N], from the whole history: i is environment i % ENVS at step i // ENVS."""
    each = [dict[str, Any](index=i) for i in index.tolist()]
    for row in each:
        t, n = divmod(row["index"], ENVS)
        window = [{k: v[n] for k, v in step.items()} for step in rows[t : t + n_step]]
        parts = (np.array([[w[k] for w in window]]) for k in ("reward", "terminated", "truncated"))
        reward, discount, last = n_step_return(*parts, 0.9)
        row |= {"obs": window[0]["obs"], "action": window[0]["action"], "next_obs": window[last[0]]["next_obs"]}
        row |= {"reward": np.float32(reward[0]), "discount": np.float32(discount[0])}
    return {k: np.stack([row[k] for row in each]) for k in each[0]}


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((4, 9, 9), 0), ((9, 9, 4), 2), ((9, 9, 3), None), ((9, 9, 1), None), ((9, 8), None), ((4, 9, 8, 3), 0)],
)
def test_images_are_those_of_a_plain_buffer(
    shape: tuple[int, ...], axis: int | None, n_step: int, tmp_path: Path
) -> None:
    """At every step: across ends of episodes, the ring's end and a resumed checkpoint."""
    rows, checkpoints = episodes(shape, axis), Checkpoints(tmp_path, keep=1)
    replay = Replay(CAPACITY, ENVS, n_step, 0.9, block=16)
    for t, step in enumerate(rows):
        replay.add(step)
        if t % 10 == 7:
            checkpoints.save(t + 1, {"model": torch.nn.Linear(1, 1)}, {}, {"replay": replay.state_dict()})
            replay = Replay(CAPACITY, ENVS, n_step, 0.9, block=16)
            replay.load_state_dict(checkpoints.newest().state("rank-0")["replay"])  # type: ignore[union-attr]
        if t >= n_step:
            index = np.arange(replay.added - len(replay), replay.complete)
            taken, expected = replay.take(index), plain(rows, index, n_step)
            assert set(taken) == set(expected)
            for name, value in expected.items():
                np.testing.assert_array_equal(taken[name].numpy(), value, err_msg=name)
    assert replay.added > 4 * CAPACITY


@pytest.mark.parametrize(("shape", "axis"), [((4, 9, 9), 0), ((9, 9, 4), 2), ((4, 9, 9, 3), 0)])
def test_stacked_frames_are_stored_once(shape: tuple[int, ...], axis: int) -> None:
    rows = episodes(shape, axis)
    replay = Replay(CAPACITY, ENVS)
    for step in rows:
        replay.add(step)
    begun = ENVS + sum(int((r["terminated"] | r["truncated"]).sum()) for r in rows[:-1])
    assert replay._frames is not None
    colours = shape[3] if len(shape) == 4 else 1
    pictures = replay._frames.added / colours
    assert ENVS * STEPS + begun <= pictures <= ENVS * STEPS + 2 * begun  # a blank one where padded by zeros


def test_frames_are_found_after_their_numbers_wrap_around() -> None:
    """Numbers are kept modulo 2**32; and full chunks of a checkpoint are used without a copy."""
    replay = Replay(CAPACITY, ENVS, block=16)
    for t, step in enumerate(rows := episodes((4, 9, 9), 0)):
        if t == 40:
            state = replay.state_dict()
            frames, shift = state["frames"], 2**32 - 4 * (state["frames"]["added"] // 4 + 6)  # 4 frames are a chunk
            newest = frames["newest"] + np.uint32(shift)
            state["frames"] |= {
                "added": frames["added"] + shift,
                "first": frames["first"] + shift // 4,
                "newest": newest,
            }
            for block in state["blocks"]:
                for name in ("obs", "next_obs"):
                    (block.arrays if isinstance(block, Segment) else block)[name][:] += np.uint32(shift)
            replay = Replay(CAPACITY, ENVS, block=16)
            replay.load_state_dict(state)
            segment, stored = frames["chunks"][0].arrays["frames"], replay._frames._chunks  # type: ignore[union-attr]
            assert np.shares_memory(segment, stored[frames["first"]])
        replay.add(step)
        index = np.arange(replay.added - len(replay), replay.complete)
        taken, expected = replay.take(index), plain(rows, index, 1)
        assert all(np.array_equal(taken[name].numpy(), expected[name]) for name in ("obs", "next_obs"))
    assert replay._frames is not None and replay._frames.added > 2**32 + 100


class Prioritised(Replay):
    """Draws transitions in proportion to their last TD error (Schaul et al. 2016), new ones as the largest so far."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.priority = np.zeros(self.capacity)

    def add(self, rows: Any) -> None:
        at = self.added % self.capacity
        self.priority[at : at + self.num_envs] = max(1.0, self.priority.max())
        super().add(rows)

    def sample(self, rng: np.random.Generator, size: int) -> Batch:
        rows = np.arange(self.added - len(self), self.complete)
        chance = self.priority[rows % self.capacity] / self.priority[rows % self.capacity].sum()
        place = rng.choice(len(rows), size, p=chance)
        weight = 1 / (len(rows) * chance[place])
        return self.take(rows[place]) | {"importance": torch.from_numpy(weight / weight.max()).float()}

    def update(self, index: torch.Tensor, td_error: torch.Tensor) -> None:
        """Sets the priorities of rows: index [B], td_error [B]."""
        self.priority[index.numpy() % self.capacity] = td_error.cpu().numpy() + 1e-3

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"priority": self.priority}

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.priority = state["priority"]


@dataclass(kw_only=True)
class PrioritisedDQN(DQN):
    """Prioritised replay, in a student's lines."""

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        self.replay: Prioritised = Prioritised(self.buffer_size, self.num_envs, self.n_step, self.gamma)

    def collect(self, step: int) -> Round:
        self.interact(step)
        if self.env_steps > self.learning_starts:
            rng = self.ctx.rng("replay", step)
            for _ in range(self.gradient_steps):
                batch = self.minibatch(rng)
                batch["weight"] = batch["weight"] * batch["importance"]
                out = yield batch
                self.replay.update(batch["index"], out["td_error"])
        return self.finished_episodes()


@dataclass(kw_only=True)
class ExpectedSarsa(DQN):
    """Another target, by `td_target` alone: the mean value of ε-greedy actions."""

    @torch.no_grad()
    def td_target(self, batch: Batch) -> torch.Tensor:
        """The targets [B]."""
        q = self.target(batch["next_obs"])
        value = 0.9 * masked(q, batch.get("next_mask")).amax(1) + 0.1 * q.mean(1)
        return batch["reward"] + batch["discount"] * value


@pytest.mark.parametrize("algo", ["PrioritisedDQN", "ExpectedSarsa"])
def test_relatives_of_dqn_are_short_and_resume_exactly(algo: str, tmp_path: Path) -> None:
    words = {"total_steps": 4, "num_envs": 8, "train_freq": 8, "gradient_steps": 2, "learning_starts": 60, "threads": 1}
    text = f"algo: {Path(__file__).name}:{algo}\nenv: rllab/CartPole-v1\neval_every: 2\noptim: {{lr: 1e-2}}\n"
    text += "".join(f"{k}: {v}\n" for k, v in words.items())
    check_algorithm(read_recipe(text, "r.yaml", Path(__file__).parent, "r"), tmp_path)


def test_transitions_are_drawn_by_their_priorities() -> None:
    dqn = PrioritisedDQN(env="rllab/CartPole-v1", num_envs=8, train_freq=16, batch_size=500)
    dqn.setup(Context(3, torch.device("cpu")))
    dqn.interact(0)
    dqn.replay.update(torch.arange(128), torch.full((128,), 0.0))
    dqn.replay.update(torch.tensor([17]), torch.tensor([1.0]))
    batch = dqn.minibatch(np.random.default_rng(0))
    share = (batch["index"] == 17).float().mean().item()
    assert share == pytest.approx(1.001 / (1.001 + 127e-3), abs=0.05)
    assert torch.equal(batch["obs"], dqn.replay.take(batch["index"].numpy())["obs"])


def test_minibatches_are_drawn_when_they_are_needed() -> None:
    """The next minibatch of a round sees changes made after an update, and uses the current target network."""
    recipe = load_recipe("cartpole", ["learning_starts=0", "gradient_steps=2", "until={}"], smoke=True)
    dqn = recipe.algorithm
    dqn.setup(Context(3, torch.device("cpu")))  # type: ignore[union-attr]
    round_ = dqn.collect(0)  # type: ignore[union-attr]
    next(round_)
    dqn.replay._arrays["action"][:] = 7  # type: ignore[union-attr]
    assert (round_.send({})["action"] == 7).all()  # type: ignore[index]
