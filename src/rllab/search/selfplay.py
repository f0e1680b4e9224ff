"""Self-play: open games side by side, and the training rows of each game that has ended.

Axes: G games, A actions, N training rows, P moves since the oldest open game began.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rllab.core.games import observed
from rllab.core.protocols import Game
from rllab.search.evaluate import opening_lengths, random_openings
from rllab.search.search import SearchOutput

Arrays = dict[str, np.ndarray]


class OpenGames:
    """`count` open games. Where one ends, a new one begins; half of the games begin with random moves.

    openings: the most random moves. td_lambda: the λ of the value targets (Sutton 1988): 1 for the result of the game
    alone, less for a mixture with the values of later searches.
    """

    def __init__(self, game: Game, count: int, openings: int, td_lambda: float) -> None:
        self._game, self._openings, self._td_lambda = game, openings, td_lambda
        self.boards = dict(game.start(count))
        self.played, self.begun = np.zeros((2, count), np.int64)  # moves of each game; its first index in the record
        self.record: list[dict[str, Any]] = []
        self.lengths: list[int] = []  # of the games that have ended since the last `pop_finished`
        self._ended: list[Arrays] = []

    def move(self, output: SearchOutput, action: np.ndarray, rng: np.random.Generator) -> None:
        """Plays an action [G] in each game and records the output of its search.

        Where `output.value` is NaN, no search was run: the game goes on, and that position is not a training row.
        """
        after, reward, over = self._game.play(self.boards, action)
        row = {"policy": output.policy, "value": output.value, "exact": output.exact, "reward": reward}
        self.record.append({"board": observed(self._game, self.boards)} | row)
        self.boards, self.played = dict(after), self.played + 1
        if over.any():
            ended = np.flatnonzero(over)
            self._ended.append(self._training_rows(ended))
            self.lengths += self.played[ended].tolist()
            self.begin(ended, rng)

    def pop_finished(self) -> tuple[Arrays, list[int]]:
        """(training rows, lengths) of the games that have ended since the last call.

        The rows are `board.NAME` [N, ...], the arrays of the board that `observe` reads; `policy` [N, A], the
        search's; and `z` [N], the value target for the side to move. Without such games there are no arrays.
        """
        oldest = int(self.begun.min())
        self.record, self.begun = self.record[oldest:], self.begun - oldest
        ended, lengths, self._ended, self.lengths = self._ended, self.lengths, [], []
        return {k: np.concatenate([e[k] for e in ended]) for k in (ended[0] if ended else ())}, lengths

    def begin(self, which: np.ndarray, rng: np.random.Generator) -> None:
        """Starts new games at the indices `which` [N]."""
        board, played = random_openings(self._game, opening_lengths(self._openings, len(which), rng), rng)
        self.boards = {k: v.copy() for k, v in self.boards.items()}  # the record holds the old arrays
        for name, value in board.items():
            self.boards[name][which] = value
        self.played[which], self.begun[which] = played, len(self.record)

    def state_dict(self) -> dict[str, Any]:
        """The open games and their record."""
        return {"boards": self.boards, "played": self.played, "begun": self.begun, "record": self.record}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned.

        Raises:
            ValueError: it is that of another number of games.
        """
        if len(state["played"]) != len(self.played):
            raise ValueError(f"it has {len(state['played'])} games, and num_games is {len(self.played)}")
        self.boards, self.played, self.begun = state["boards"], state["played"], state["begun"]
        self.record = state["record"]

    def _training_rows(self, which: np.ndarray) -> Arrays:
        """The training rows of the games `which`, which have ended."""
        first = int(self.begun[which].min())
        record = self.record[first:]
        inside_PG = np.arange(first, len(self.record))[:, None] >= self.begun[which]
        inside_PG &= ~np.isnan(np.stack([r["value"][which] for r in record]))
        boards = {k: np.stack([r["board"][k][which] for r in record])[inside_PG] for k in record[0]["board"]}
        policy = np.stack([r["policy"][which] for r in record])[inside_PG]
        z = self._value_targets(record, which)[inside_PG]
        return {f"board.{k}": v for k, v in boards.items()} | {"policy": policy, "z": z}

    def _value_targets(self, record: list[dict[str, Any]], which: np.ndarray) -> np.ndarray:
        """The value target of each move [P, G]: the proven value, else a λ-mixture of result and later searches."""
        value_PG, exact_PG, reward_PG = (np.stack([r[k][which] for r in record]) for k in ("value", "exact", "reward"))
        sign = -1.0 if self._game.players == 2 else 1.0
        z_PG, z_G, following_G = np.empty_like(value_PG), np.zeros(len(which)), np.zeros(len(which))
        for p in reversed(range(len(record))):
            z_G = reward_PG[p] + sign * (self._td_lambda * z_G + (1.0 - self._td_lambda) * following_G)
            z_G = np.where(np.isnan(exact_PG[p]), z_G, exact_PG[p])
            z_PG[p], following_G = z_G, np.where(np.isnan(value_PG[p]), z_G, value_PG[p])
        return z_PG.clip(-1.0, 1.0).astype(np.float32)
