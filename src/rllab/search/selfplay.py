"""Games that a policy plays against itself, side by side, and what is to be learned from each once it has ended.

Axes: G games, A actions, P moves since the oldest open game began.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rllab.core.games import observed
from rllab.core.protocols import Game
from rllab.search.evaluate import opened, opening_lengths
from rllab.search.search import Found

Arrays = dict[str, np.ndarray]


class OpenGames:
    """`count` games that are always open: where one ends another begins, half of them with a few moves at random.

    openings: how many of these at most. td_lambda: how much the end of a game counts in what its positions are worth,
    rather than what searches found on the way (Sutton 1988).
    """

    def __init__(self, game: Game, count: int, openings: int, td_lambda: float) -> None:
        self._game, self._openings, self._td_lambda = game, openings, td_lambda
        self.boards = dict(game.start(count))
        self.played, self.begun = np.zeros((2, count), np.int64)  # moves of each game; its first place in the record
        self.record: list[dict[str, Any]] = []
        self.lengths: list[int] = []  # of the games that have ended since `learned` was asked
        self._ended: list[Arrays] = []

    def move(self, found: Found, action: np.ndarray, rng: np.random.Generator) -> None:
        """Plays an action [G] in each game, after a search of it.

        Where its value is no number nothing was searched: the game goes on, and nothing is learned from that position.
        """
        after, reward, over = self._game.play(self.boards, action)
        kept = {"policy": found.policy, "value": found.value, "exact": found.exact, "reward": reward}
        self.record.append({"board": observed(self._game, self.boards)} | kept)
        self.boards, self.played = dict(after), self.played + 1
        if over.any():
            ended = np.flatnonzero(over)
            self._ended.append(self._positions(ended))
            self.lengths += self.played[ended].tolist()
            self.begin(ended, rng)

    def learned(self) -> tuple[Arrays, list[int]]:
        """The positions of the games that have ended since this was asked, and how long these were.

        `board.NAME` as a board has it, where `observe` reads it; `policy` [N, A], the search's; `value` [N], how it
        went on for the side to move.
        """
        oldest = int(self.begun.min())
        self.record, self.begun = self.record[oldest:], self.begun - oldest
        ended, lengths, self._ended, self.lengths = self._ended, self.lengths, [], []
        return {k: np.concatenate([e[k] for e in ended]) for k in (ended[0] if ended else ())}, lengths

    def begin(self, which: np.ndarray, rng: np.random.Generator) -> None:
        """New games in these places."""
        board, played = opened(self._game, opening_lengths(self._openings, len(which), rng), rng)
        self.boards = {k: v.copy() for k, v in self.boards.items()}  # the record keeps the old ones
        for name, value in board.items():
            self.boards[name][which] = value
        self.played[which], self.begun[which] = played, len(self.record)

    def state_dict(self) -> dict[str, Any]:
        """The open games and their record, between two rounds."""
        return {"boards": self.boards, "played": self.played, "begun": self.begun, "record": self.record}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state_dict` returned."""
        self.boards, self.played, self.begun = state["boards"], state["played"], state["begun"]
        self.record = state["record"]

    def _positions(self, which: np.ndarray) -> Arrays:
        """What is to be learned from games that have ended."""
        first = int(self.begun[which].min())
        record = self.record[first:]
        inside_PG = np.arange(first, len(self.record))[:, None] >= self.begun[which]
        inside_PG &= ~np.isnan(np.stack([r["value"][which] for r in record]))
        boards = {k: np.stack([r["board"][k][which] for r in record])[inside_PG] for k in record[0]["board"]}
        policy = np.stack([r["policy"][which] for r in record])[inside_PG]
        value = self._outcomes(record, which)[inside_PG]
        return {f"board.{k}": v for k, v in boards.items()} | {"policy": policy, "value": value}

    def _outcomes(self, record: list[dict[str, Any]], which: np.ndarray) -> np.ndarray:
        """How each move of games that have ended went on [P, G]: exact where that is proven, else a mixture."""
        value_PG, exact_PG, reward_PG = (np.stack([r[k][which] for r in record]) for k in ("value", "exact", "reward"))
        sign = -1.0 if self._game.players == 2 else 1.0
        z_PG, z_G, following_G = np.empty_like(value_PG), np.zeros(len(which)), np.zeros(len(which))
        for p in reversed(range(len(record))):
            z_G = reward_PG[p] + sign * (self._td_lambda * z_G + (1.0 - self._td_lambda) * following_G)
            z_G = np.where(np.isnan(exact_PG[p]), z_G, exact_PG[p])
            z_PG[p], following_G = z_G, np.where(np.isnan(value_PG[p]), z_G, value_PG[p])
        return z_PG.clip(-1.0, 1.0).astype(np.float32)
