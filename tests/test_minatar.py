"""MinAtar's Breakout against a plain program of its rules, and its chance, state and pictures.

The rules were compared with the package `minatar` 1.0.15 as well: 44,924 games of 1,200,000 steps, all equal.
"""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from rllab_envs.control.minatar import CLOCK, KEY, LAST, Breakout, chance

from rllab.core.errors import FieldMistake


class Plain:
    """One game by the rules in words: cells as (column, row), the ball's motion as (dx, dy)."""

    def __init__(self, right: bool) -> None:
        self.ball, self.motion = ((9, 3), (-1, 1)) if right else ((0, 3), (1, 1))
        self.trail, self.paddle, self.passing = self.ball, 4, False
        self.bricks = {(x, y) for x in range(10) for y in (1, 2, 3)}

    def step(self, move: int) -> tuple[int, bool]:
        """move: -1, 0 or 1. Returns (bricks broken, whether the ball is lost)."""
        self.paddle = min(9, max(0, self.paddle + move))
        (x, y), (dx, dy) = self.ball, self.motion
        self.trail = self.ball
        to_x, to_y = x + dx, y + dy
        if not 0 <= to_x <= 9:
            dx, to_x = -dx, x
        broken, lost, was_passing, self.passing = 0, False, self.passing, False
        if to_y < 0:
            dy, to_y = -dy, 0
        elif (to_x, to_y) in self.bricks:
            self.passing = True
            if not was_passing:
                self.bricks.remove((to_x, to_y))
                broken, dy, to_y = 1, -dy, y
        elif to_y == 9:
            self.bricks = self.bricks or {(x, y) for x in range(10) for y in (1, 2, 3)}
            if x == self.paddle:
                dy, to_y = -dy, y
            elif to_x == self.paddle:
                dx, dy, to_y = -dx, -dy, y
            else:
                lost = True
        self.ball, self.motion = (to_x, to_y), (dx, dy)
        return broken, lost

    def observe(self) -> np.ndarray:
        """The observation bool [10, 10, 4]."""
        seen = np.zeros((10, 10, 4), bool)
        for channel, cells in enumerate(([(self.paddle, 9)], [self.ball], [self.trail], self.bricks)):
            for x, y in cells:
                seen[y, x, channel] = True
        return seen


def follow(games: list[Plain]) -> np.ndarray:
    """Actions [N] towards the columns which the balls move to."""
    ahead = np.array([min(9, max(0, g.ball[0] + g.motion[0])) for g in games])
    paddle = np.array([g.paddle for g in games])
    return np.where(ahead < paddle, 1, np.where(ahead > paddle, 2, 0))


def test_games_are_those_of_the_rules() -> None:
    """Also while actions stick, and with new rows of bricks, which come after the thirtieth."""
    count, rng = 16, np.random.default_rng(0)
    env = Breakout(count, sticky_actions=0.1, autoreset_mode=AutoresetMode.DISABLED)
    obs, _ = env.reset(seed=5)
    games = [Plain(bool(o[3, 9, 1])) for o in obs]
    last, score, best, ended, sides = np.zeros(count, int), np.zeros(count), 0.0, 0, set[bool]()
    for t in range(1500):
        assert np.array_equal(obs, np.stack([g.observe() for g in games]))
        action = np.where(rng.random(count) < np.linspace(0, 0.3, count), rng.integers(3, size=count), follow(games))
        sticks = [chance(k, c) < 0.1 for k, c in zip(env.state[KEY], env.state[CLOCK], strict=True)]
        last = np.where(sticks, last, action)
        obs, reward, over, late, _ = env.step(action)
        played = [g.step((0, -1, 1)[a]) for g, a in zip(games, last.tolist(), strict=True)]
        assert played == list(zip(reward.tolist(), over.tolist(), strict=True)) and not late.any()
        score += reward
        best, ended = max(best, score.max()), ended + int(over.sum())
        if over.any():
            obs, _ = env.reset(seed=[1000 * t + n for n in range(count)], options={"reset_mask": over})
            for n in np.flatnonzero(over).tolist():
                games[n], last[n], score[n] = Plain(bool(obs[n, 3, 9, 1])), 0, 0
                sides.add(bool(obs[n, 3, 9, 1]))
    assert best > 30 and ended > 100 and sides == {False, True}, "the players are too good or too bad"


def test_an_ended_game_stays_as_it_is() -> None:
    env = Breakout(1, sticky_actions=0.0, autoreset_mode=AutoresetMode.DISABLED)
    env.reset(seed=0)
    steps = [env.step(np.array([1])) for _ in range(40)]
    ends = [bool(s[2][0]) for s in steps]
    first = ends.index(True)
    assert all(ends[first:])
    for obs, reward, *_ in steps[first:]:
        np.testing.assert_array_equal(obs, steps[first][0])
        assert reward == 0


def test_actions_stick_as_often_as_they_should() -> None:
    keys = np.random.default_rng(0).integers(2**52, size=200).astype(float)
    drawn = np.array([[chance(k, float(c)) for c in range(200)] for k in keys])
    assert abs((drawn < 0.1).mean() - 0.1) < 5 * (0.09 / drawn.size) ** 0.5
    assert abs(np.corrcoef(drawn[:, :-1].ravel(), drawn[:, 1:].ravel())[0, 1]) < 5 / drawn.size**0.5
    env = Breakout(3, sticky_actions=1.0)
    env.reset(seed=0)
    env.step(np.array([0, 1, 2]))
    assert (env.state[LAST] == 0).all()  # the first step of an episode has only staying to repeat


def test_the_six_actions_of_the_package() -> None:
    env = Breakout(6, sticky_actions=0.0, minimal_actions=False)
    assert env.single_action_space == gym.spaces.Discrete(6)
    env.reset(seed=0)
    obs = env.step(np.arange(6))[0]
    assert obs[:, 9, :, 0].argmax(1).tolist() == [4, 3, 4, 5, 4, 4]


def test_one_game_is_a_gymnasium_environment_with_pictures() -> None:
    one = gym.make("rllab_envs.control:rllab/MinAtarBreakout-v1", render_mode="rgb_array")
    many = gym.make_vec("rllab/MinAtarBreakout-v1", 1)
    first, _ = one.reset(seed=3)
    np.testing.assert_array_equal(first, many.reset(seed=3)[0][0])
    assert one.observation_space.contains(first)
    step, steps = one.step(2), many.step(np.array([2]))
    np.testing.assert_array_equal(step[0], steps[0][0])
    picture = one.render()
    assert isinstance(picture, np.ndarray) and picture.shape == (160, 160, 3) and picture.dtype == np.uint8
    assert (picture[9 * 16 + 8, 5 * 16 + 8] == 255).all()  # the paddle, one to the right of its first column


def test_its_state_is_exact() -> None:
    env, other = (gym.make_vec("rllab/MinAtarBreakout-v1", 6) for _ in range(2))
    rng = np.random.default_rng(0)
    env.reset(seed=1)
    for _ in range(50):
        env.step(rng.integers(3, size=6))
    other.unwrapped.load_state_dict(env.unwrapped.state_dict())
    ends = 0
    for _ in range(50):
        action = rng.integers(3, size=6)
        for x, y in zip(env.step(action)[:4], other.step(action)[:4], strict=True):
            np.testing.assert_array_equal(x, y)
        ends += int(env.unwrapped._over.sum())
    assert ends > 6


def test_a_wrong_probability_is_refused() -> None:
    with pytest.raises(FieldMistake, match=r"sticky_actions: 1\.5 is no probability"):
        Breakout(2, sticky_actions=1.5)
