"""MinAtar's Breakout (Young and Tian 2019): a game of Atari on 10 x 10 cells, stepped in numba.

A paddle in the lowest row bounces a ball, which moves along diagonals, against three rows of bricks. Each brick that it
breaks gives a reward of 1. Once all are broken and the ball is back, three new rows appear. The episode ends when the
ball passes the paddle. The rules are those of the package `minatar`. Its difficulty ramp has no effect in this game, so
there is none here. An episode begins with no earlier action to repeat; in the package it is that of the episode before.

The rows of the state: BALL_X, BALL_Y, LAST_X, LAST_Y the cells of the ball now and a step ago; WAY its direction (0 up
left, 1 up right, 2 down right, 3 down left); PADDLE its column; STRIKE 1 after a step in which a brick was hit; LAST
the action that sticks; KEY and CLOCK, from which the chance of a step is computed; then the 30 bricks, 1 where there is
one. Axes: N environments, S rows of the state.
"""

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode
from numba import njit

from rllab.core.errors import FieldMistake
from rllab_envs.control.batched import BatchedEnv, Floats, One

BALL_X, BALL_Y, LAST_X, LAST_Y, WAY, PADDLE, STRIKE, LAST, KEY, CLOCK, BRICKS = range(11)
SIDE, TOP, ROWS = 10, 1, 3  # cells of a side; the first row of bricks, and how many there are
STILL, LEFT, RIGHT = 0, 1, 3  # of the six actions of MinAtar; the others are as STILL
COLOURS = np.array([[255, 255, 255], [242, 190, 90], [130, 100, 60], [70, 120, 200]], np.uint8)
_SQUARE = 16  # pixels of a cell


class Breakout(BatchedEnv):
    """Actions: 0 stay, 1 left, 2 right. Observation: bool [10, 10, 4], the channels paddle, ball, trail, brick.

    sticky_actions: the probability that the environment repeats the action of the step before (Machado et al. 2018).
    minimal_actions: false for MinAtar's six actions, n, l, u, r, d, f, of which l and r alone move the paddle.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}

    def __init__(
        self,
        num_envs: int = 1,
        sticky_actions: float = 0.1,
        minimal_actions: bool = True,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        if not 0.0 <= sticky_actions <= 1.0:
            raise FieldMistake("env_kwargs", f"sticky_actions: {sticky_actions} is no probability, from 0 to 1")
        self.sticky_actions, self.render_mode = sticky_actions, render_mode
        self._actions = np.array([STILL, LEFT, RIGHT] if minimal_actions else range(6))
        seen = Box(0, 1, (SIDE, SIDE, 4), np.bool_)  # type: ignore[arg-type]  # Gymnasium names floats alone
        super().__init__(num_envs, seen, Discrete(len(self._actions)), max_episode_steps, autoreset_mode)

    def draw(self, rng: np.random.Generator) -> Floats:
        """A start state [S]: all bricks, and the ball below them at the left or the right wall."""
        state = np.zeros(BRICKS + ROWS * SIDE)
        right = rng.integers(2)
        state[BALL_X], state[WAY] = (9, 3) if right else (0, 2)
        state[BALL_Y] = state[LAST_Y] = 3
        state[LAST_X], state[PADDLE], state[BRICKS:] = state[BALL_X], 4, 1
        state[KEY] = rng.integers(2**52)
        return state

    def advance(self, action: np.ndarray) -> tuple[Floats, np.ndarray]:
        """One step by actions [N]; returns rewards [N], 1 for a brick, and where the ball has passed the paddle [N]."""
        state, reward, over = self.state.copy(), np.zeros(self.num_envs), np.zeros(self.num_envs, np.bool_)
        play(state, self._actions[action], self.sticky_actions, reward, over)
        self.state = state
        return reward, over

    def observe(self) -> np.ndarray:
        """Observations [N, 10, 10, 4] of `state`."""
        obs = np.zeros((self.num_envs, SIDE, SIDE, 4), np.bool_)
        see(self.state, obs)
        return obs

    def render(self) -> np.ndarray:  # type: ignore[override]  # one picture, as of one environment
        """The first environment, uint8 [160, 160, 3]."""
        picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        for channel in (3, 2, 1, 0):
            picture[self.observe()[0, :, :, channel]] = COLOURS[channel]
        return picture.repeat(_SQUARE, 0).repeat(_SQUARE, 1)


class OneBreakout(One):
    """One game, as Gymnasium's `make` returns it; the arguments are those of `Breakout`."""

    metadata = Breakout.metadata
    kind = Breakout

    def __init__(self, render_mode: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.render_mode = render_mode

    def render(self) -> np.ndarray:
        """The game, uint8 [160, 160, 3]."""
        assert isinstance(self.vector, Breakout)
        return self.vector.render()


@njit(cache=True, nogil=True)
def chance(key: float, clock: float) -> float:
    """A number in [0, 1), which is a function of an episode's key and the step (splitmix64, Steele et al. 2014)."""
    z = np.uint64(key) + np.uint64(clock + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return float((z ^ (z >> np.uint64(31))) >> np.uint64(11)) / 2.0**53


@njit(cache=True, nogil=True)
def play(state: np.ndarray, action: np.ndarray, sticky: float, reward: np.ndarray, over: np.ndarray) -> None:
    """One step of games [S, N] in place, by actions [N] of MinAtar's six; writes reward and over [N]."""
    for n in range(state.shape[1]):
        game = state[:, n]
        if game[BALL_Y] == SIDE - 1:  # the episode has ended, and nothing moves
            over[n] = True
            continue
        chosen = game[LAST] if chance(game[KEY], game[CLOCK]) < sticky else action[n]
        game[LAST], game[CLOCK] = chosen, game[CLOCK] + 1
        if chosen == LEFT:
            game[PADDLE] = max(0.0, game[PADDLE] - 1)
        elif chosen == RIGHT:
            game[PADDLE] = min(SIDE - 1.0, game[PADDLE] + 1)
        reward[n], over[n] = _move_ball(game)


@njit(cache=True, nogil=True)
def _move_ball(game: np.ndarray) -> tuple[float, bool]:
    """Moves the ball of one game [S]; returns (reward, whether the ball has passed the paddle)."""
    reward, over, hit = 0.0, False, False
    old_x, old_y, way = game[BALL_X], game[BALL_Y], int(game[WAY])
    x = old_x + (1.0 if way == 1 or way == 2 else -1.0)
    y = old_y + (1.0 if way >= 2 else -1.0)
    if x < 0 or x > SIDE - 1:
        x = min(max(x, 0.0), SIDE - 1.0)
        way = way ^ 1  # left to right, and back
    brick = BRICKS + int(y - TOP) * SIDE + int(x)
    if y < 0:
        y, way = 0.0, 3 - way  # up to down
    elif TOP <= y < TOP + ROWS and game[brick] == 1:
        hit = True
        if game[STRIKE] == 0:  # the ball passes a second brick in a row
            reward, game[brick] = 1.0, 0.0
            y, way = old_y, 3 - way
    elif y == SIDE - 1:
        if not game[BRICKS:].any():
            game[BRICKS:] = 1.0
        if old_x == game[PADDLE]:
            y, way = old_y, 3 - way
        elif x == game[PADDLE]:
            y, way = old_y, (way + 2) % 4  # back where it came from
        else:
            over = True
    game[STRIKE] = 1.0 if hit else 0.0
    game[LAST_X], game[LAST_Y], game[BALL_X], game[BALL_Y], game[WAY] = old_x, old_y, x, y, way
    return reward, over


@njit(cache=True, nogil=True)
def see(state: np.ndarray, obs: np.ndarray) -> None:
    """Marks what is in games [S, N] in observations [N, 10, 10, 4], which are false."""
    for n in range(state.shape[1]):
        obs[n, SIDE - 1, int(state[PADDLE, n]), 0] = True
        obs[n, int(state[BALL_Y, n]), int(state[BALL_X, n]), 1] = True
        obs[n, int(state[LAST_Y, n]), int(state[LAST_X, n]), 2] = True
        for k in range(ROWS * SIDE):
            obs[n, TOP + k // SIDE, k % SIDE, 3] = state[BRICKS + k, n] == 1
