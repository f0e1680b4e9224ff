"""Imitation: AlphaZero's network learns from recorded games of a teacher (Silver et al. 2017, figure 3).

The teacher is plain tree search, UCT with random rollouts, playing against itself. The policy's target is the teacher's
move a, and the value's target z is the result of its game for the side to move:

    loss = CE(z, v) - log p(a)          AlphaZero's, with all of pi on the move that was played

The keys of the batch are AlphaZero's: `observation` [B, C, H, W], `policy` [B, A] (1 for a, else 0), `z` [B], `weight`
[B]. Departures from the paper: the teacher is a program, as there are no records of human games for every game; and
the value loss has the weight `value_weight`, 1 by default, where the paper's is 0.01.

The paper's network that learned from human games predicted human moves better than the one from self-play, and played
worse. `rllab strength RUN --predict THIS` and `rllab ladder` show both.

A round: `num_games` games of the teacher are recorded until there are `teacher_games`; then `gradient_steps` updates on
samples of all games recorded so far.
Axes: G games, N positions, A actions, B batch; C, H, W planes, rows and columns of a board.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rllab.algos.alphazero import AlphaZero
from rllab.core.algorithm import Context, Line, Metrics
from rllab.core.games import observed, rows
from rllab.core.protocols import Exam, Game
from rllab.core.ranges import Count
from rllab.search.evaluate import opening_lengths, random_openings
from rllab.search.match import Player, uct_player
from rllab.search.selfplay import Arrays

GAMES_AT_ONCE = 512  # games that one thread plays side by side


@dataclass(kw_only=True)
class Imitation(AlphaZero):
    """Learns a game from a teacher's recorded games; the settings of the search are used in evaluation alone."""

    teacher_games: Count = 20_000  # on all ranks together
    teacher_rollouts: Count = 1000  # simulations per move
    held_out_games: Count = 1000  # more games of the teacher, for `eval/accuracy`; not trained on

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        del self.games  # no game stays open between two rounds
        self._held_out = dict[str, Exam]()

    def self_play(self, step: int) -> Metrics:
        """Adds `num_games` games of the teacher to the window."""
        left = self.teacher_games - step * self.num_games * self.ctx.world
        count, positions = min(self.num_games, -(-left // self.ctx.world)), 0
        if count > 0:
            arrays = self.record_games(count, "teacher", step)
            positions = len(arrays["z"])
            boards = [f"board.{k}" for k in observed(self._game, self._game.start(1))]
            self.seen.add({k: arrays[k] for k in (*boards, "policy", "z")})
        self.positions += int(self.ctx.sum(positions))
        return {"data/positions": self.positions, "play/games": max(0, count) * self.ctx.world}

    def record_games(self, games: int, purpose: str, *index: int, shared: bool = False) -> Arrays:
        """The rows of `record` for games of the teacher, half of which begin with random moves.

        The games are played in torch's number of threads. purpose, index, shared: of the random numbers, see `Context`.
        """
        parts = np.array_split(np.arange(games), -(-games // GAMES_AT_ONCE))

        def play(part: int) -> Arrays:
            rng = self.ctx.rng(purpose, *index, part, shared=shared)
            lengths = opening_lengths(self.openings, len(parts[part]), rng)
            return record(self._game, uct_player(self._game, self.teacher_rollouts, rng), lengths, rng)

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            each = list(pool.map(play, range(len(parts))))
        return {k: np.concatenate([e[k] for e in each]) for k in each[0]}

    def held_out(self, part: str) -> Exam:
        """Positions of games that are not trained on, the same in every call; the teacher's move counts as best."""
        if part not in self._held_out:
            arrays = self.record_games(self.held_out_games, f"held out, {part}", shared=True)
            moves = arrays["policy"] > 0
            board = {k.removeprefix("board."): v for k, v in arrays.items() if k.startswith("board.")}
            self._held_out[part] = Exam(board, moves, moves, arrays["stones"])
        return self._held_out[part]

    def _measurements(self, part: str) -> dict[str, np.ndarray]:
        """Whether the policy alone plays the teacher's move, and AlphaZero's metrics."""
        exam = self.held_out(part)
        right, _ = exam.grade(self.policy_actions(exam.board))
        return {"accuracy": right} | super()._measurements(part)

    def preflight(self) -> dict[str, Line]:
        rounds = -(-self.teacher_games // (self.num_games * self.ctx.world))
        games = f"{self.num_games:,} games of UCT with {self.teacher_rollouts:,} rollouts a move"
        line = Line(f"{games}, in {rounds} of the rounds", games=self.num_games, rounds=rounds)
        return super().preflight() | {"a round": line}


def record(game: Game, teacher: Player, lengths: np.ndarray, rng: np.random.Generator) -> Arrays:
    """Games [G] of a player against itself to their end, after up to `lengths` [G] random moves.

    Returns `board.NAME` [N, ...], the arrays of the boards; `policy` [N, A], 1 for the move that was played; `z` [N],
    the result of the game for the side to move; `stones` [N], the number of moves before.
    """
    (board, played), going = random_openings(game, lengths, rng), np.arange(len(lengths))
    moves = list[dict[str, Any]]()
    while len(going):
        action = teacher(board)
        after, reward, over = game.play(board, action)
        moves.append({"game": going, "board": board, "action": action, "reward": reward, "stones": played[going]})
        going, board, played = going[~over], rows(after, ~over), played + 1
    z_G, sign = np.zeros(len(lengths), np.float32), -1.0 if game.players == 2 else 1.0
    for move in reversed(moves):
        move["z"] = z_G[move["game"]] = move["reward"] + sign * z_G[move["game"]]
    arrays = {f"board.{k}": np.concatenate([m["board"][k] for m in moves]) for k in board}
    arrays |= {k: np.concatenate([m[k] for m in moves]) for k in ("action", "z", "stones")}
    policy = np.eye(len(game.names), dtype=np.float32)[arrays.pop("action")]
    return arrays | {"policy": policy}
