"""Imitation: the network of AlphaZero learns from recorded games of a teacher (Silver et al. 2017, figure 3).

The teacher is plain tree search, UCT with games played on at random, playing against itself. Its moves a are what the
policy is to say, and how its games ended is what positions are worth, z:

    loss = CE(z, v) - log p(a)          AlphaZero's, with all of pi on the move that was played

The paper's network that learned so from people's games predicted their moves better than the one of self-play, and
played worse: `rllab strength RUN --predict THIS` and `rllab compare` show both.

A round: `num_games` games of the teacher are recorded, until there are `teacher_games`; then `gradient_steps` updates
on draws from all that were recorded so far. Axes: G games, N positions, A actions.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rllab.algos.alphazero import AlphaZero
from rllab.core.algorithm import Context, Metrics
from rllab.core.games import observed, rows
from rllab.core.protocols import Exam, Game
from rllab.search.evaluate import opened, opening_lengths
from rllab.search.match import Player, rollouts
from rllab.search.selfplay import Arrays

TOGETHER = 512  # games that one thread plays side by side


@dataclass(kw_only=True)
class Imitation(AlphaZero):
    """Learns a game from a teacher's recorded games; the settings of self-play count for evaluation alone."""

    teacher_games: int = 20_000  # over all ranks
    teacher_rollouts: int = 1000  # for a move
    held_out_games: int = 1000  # of the teacher, which are not learned from: `eval/accuracy`

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("teacher_games", "teacher_rollouts", "held_out_games"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        del self.games  # no game stays open between two rounds
        self._held_out = dict[str, Exam]()

    def self_play(self, step: int) -> Metrics:
        """The teacher's: so many games of it go to the window."""
        left = self.teacher_games - step * self.num_games * self.ctx.world
        count, positions = min(self.num_games, -(-left // self.ctx.world)), 0
        if count > 0:
            found = self.recorded(count, "teacher", step)
            positions = len(found["value"])
            boards = [f"board.{k}" for k in observed(self._game, self._game.start(1))]
            self.seen.add({k: found[k] for k in (*boards, "policy", "value")})
        self.positions += int(self.ctx.sum(positions))
        return {"data/positions": self.positions, "play/games": max(0, count) * self.ctx.world}

    def recorded(self, games: int, purpose: str, *index: int, shared: bool = False) -> Arrays:
        """Games of the teacher, half of them with a few moves at random before; in as many threads as torch has."""
        parts = np.array_split(np.arange(games), -(-games // TOGETHER))

        def play(part: int) -> Arrays:
            rng = self.ctx.rng(purpose, *index, part, shared=shared)
            wanted = opening_lengths(self.openings, len(parts[part]), rng)
            return record(self._game, rollouts(self._game, self.teacher_rollouts, rng), wanted, rng)

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            each = list(pool.map(play, range(len(parts))))
        return {k: np.concatenate([e[k] for e in each]) for k in each[0]}

    def held_out(self, part: str) -> Exam:
        """Positions of games that are not learned from; the teacher's move is right. They are the same each time."""
        if part not in self._held_out:
            found = self.recorded(self.held_out_games, f"held out, {part}", shared=True)
            moves = found["policy"] > 0
            board = {k.removeprefix("board."): v for k, v in found.items() if k.startswith("board.")}
            self._held_out[part] = Exam(board, moves, moves, found["stones"])
        return self._held_out[part]

    def _measured(self, part: str) -> dict[str, np.ndarray]:
        """How often the policy alone says the teacher's move, and how it plays."""
        exam = self.held_out(part)
        said = exam.keeps[np.arange(len(exam.keeps)), self.preferred(exam.board)]
        return {"accuracy": said} | super()._measured(part)

    def preflight(self) -> dict[str, Any]:
        rounds = -(-self.teacher_games // (self.num_games * self.ctx.world))
        told = (
            f"{self.num_games:,} games of UCT with {self.teacher_rollouts:,} rollouts a move, in {rounds} of the rounds"
        )
        return super().preflight() | {"a round": told}


def record(game: Game, teacher: Player, wanted: np.ndarray, rng: np.random.Generator) -> Arrays:
    """Games [G] of a player against itself to their end, after up to `wanted` [G] moves at random.

    Returns `board.NAME` as a board has it; `policy` [N, A], 1 for the move that was played; `value` [N], how the game
    ended for the side to move; `stones` [N], how many moves came before.
    """
    (board, played), going, moves = opened(game, wanted, rng), np.arange(len(wanted)), list[dict[str, Any]]()
    while len(going):
        action = teacher(board)
        after, reward, over = game.play(board, action)
        moves.append({"game": going, "board": board, "action": action, "reward": reward, "stones": played[going]})
        going, board, played = going[~over], rows(after, ~over), played + 1
    z_G, sign = np.zeros(len(wanted), np.float32), -1.0 if game.players == 2 else 1.0
    for move in reversed(moves):
        move["value"] = z_G[move["game"]] = move["reward"] + sign * z_G[move["game"]]
    found = {f"board.{k}": np.concatenate([m["board"][k] for m in moves]) for k in board}
    found |= {k: np.concatenate([m[k] for m in moves]) for k in ("action", "value", "stones")}
    policy = np.eye(len(game.names), dtype=np.float32)[found.pop("action")]
    return found | {"policy": policy}
