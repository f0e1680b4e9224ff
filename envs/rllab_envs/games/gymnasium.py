"""Any board game as a Gymnasium environment, against an opponent that plays random legal moves.

Importing this module registers it: `gymnasium.make("rllab_envs.games.gymnasium:rllab/Game-v0", game="tictactoe")`.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import register, registry
from gymnasium.spaces import Box, Discrete

from rllab.core.errors import FieldMistake
from rllab.core.games import named_game


class GameEnv(gym.Env[np.ndarray, np.int64]):
    """One game per episode; the agent moves first or second at random.

    game: a name or mapping as in a recipe, such as `othello`, `{name: othello, size: 6}`, `mine.py:Game`.
    Observations are the game's planes [C, H, W] from the agent's side; `info["action_mask"]` [A] marks the legal moves.
    The reward is that of the agent's move minus that of the opponent's reply: usually 0, and 1, 0 or -1 at the end. An
    illegal move loses at once.
    """

    def __init__(self, game: str | dict[str, Any], opponent: str = "random") -> None:
        if opponent != "random":
            raise FieldMistake("env_kwargs", f"opponent is 'random', got {opponent!r}")
        self.game = named_game(game)
        self._board, self._over = self.game.start(1), True
        self.observation_space = Box(-np.inf, np.inf, self.game.observe(self._board).shape[1:], np.float32)
        self.action_space = Discrete(len(self.game.names))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new game: (observation [C, H, W], info)."""
        super().reset(seed=seed)
        self._board, self._over = self.game.start(1), False
        if self.game.players == 2 and self.np_random.random() < 0.5:
            self._reply()
        return self._seen()

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """The agent's move and the reply: (observation [C, H, W], reward, terminated, False, info)."""
        if not self.game.legal(self._board)[0, action]:
            self._over = True
            obs, info = self._seen()
            return obs, -1.0, True, False, info
        reward = self._play(action)
        if not self._over and self.game.players == 2:
            reward -= self._reply()
        obs, info = self._seen()
        return obs, reward, self._over, False, info

    def _reply(self) -> float:
        """Plays a random move of the opponent; returns its reward."""
        return self._play(self.np_random.choice(np.flatnonzero(self.game.legal(self._board)[0])))

    def _play(self, action: np.int64) -> float:
        self._board, reward, over = self.game.play(self._board, np.array([action]))
        self._over = bool(over[0])
        return float(reward[0])

    def _seen(self) -> tuple[np.ndarray, dict[str, Any]]:
        """(observation, info) of the board from the side of the player to move, also after the end of the game."""
        return self.game.observe(self._board)[0], {"action_mask": self.game.legal(self._board)[0]}


if "rllab/Game-v0" not in registry:
    register("rllab/Game-v0", "rllab_envs.games.gymnasium:GameEnv")
