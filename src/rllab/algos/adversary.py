"""An adversary: it learns to beat one frozen run, which is easier than to play well (Wang et al. 2023).

AlphaZero plays against itself and looks for moves that are good whoever answers. Here one side of every game is played
by another run, whose weights stay as they are: the opponent. What differs from AlphaZero (the loss is the same):

- only the adversary's own positions are learned from; z is how its games against the opponent went on, and mixes in
  what its own later searches found, never what the opponent's did;
- its search knows whom it plays against (A-MCTS-S in the paper): where the opponent moves, walks follow the opponent's
  policy instead of looking for the best reply. The adversary's network has not learned to judge such positions: they
  are worth what it finds them worth after the opponent's likeliest move;
- a proof counts only if it holds whatever the opponent plays: what the adversary can force, not what it fears.

The opponent plays without chance: the move that a search of `opponent_simulations` visits most or, with 0, the one that
its policy likes best. Games differ by their openings and by the adversary's own draws.
Axes: G games, A actions, B batch.
"""

from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np

from rllab.algos.alphazero import AlphaZero
from rllab.core.algorithm import Context
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.games import rows, title
from rllab.core.load import load_checkpoint
from rllab.core.names import Model
from rllab.core.protocols import Board, Game
from rllab.search.evaluate import Judge, Network
from rllab.search.match import Player, match, rollouts, same_rules
from rllab.search.search import Found


@dataclass(kw_only=True)
class Adversary(AlphaZero):
    """Learns to beat another run."""

    opponent: Annotated[str, Model()] = ""  # run:NAME, or a checkpoint's folder; "": one that has learned nothing
    opponent_simulations: int = 64  # of its move; 0: its policy alone

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.opponent_simulations < 0:
            raise ValueError(f"opponent_simulations must not be negative, got {self.opponent_simulations}")
        if self.gate:
            raise ValueError("gate must be 0: who beats the weights before need not beat the opponent")

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        if self._game.players != 2:
            raise FieldMistake("game", "an adversary needs a game for two")
        self._opponent = self._loaded(ctx)

    def _loaded(self, ctx: Context) -> AlphaZero:
        """The opponent.

        Raises:
            FieldMistake: it plays no board game, or another one.
        """
        if not self.opponent:
            new = AlphaZero(**{f.name: getattr(self, f.name) for f in fields(AlphaZero)})
            new.setup(ctx)
            return new
        try:
            found = load_checkpoint(self.opponent, ctx)
            if not isinstance(found, AlphaZero):
                raise Mistake(f"it is a run of {type(found).__name__}, which plays no board game")
        except Mistake as error:
            raise FieldMistake("opponent", str(error)) from error
        if not same_rules(self._game, found.board_game):
            other, own = title(found.board_game), title(self._game)
            raise FieldMistake("opponent", f"it plays {other}, and not {own} by the rules of this recipe")
        return found

    def found_in_games(self, judges: list[Judge], noise_GA: np.ndarray) -> Found:
        """A search where it is the adversary's turn, and the opponent's move elsewhere, of which nothing is learned.

        The adversary begins the games in even places.
        """
        count, boards = self.num_games, self.games.boards
        mine = (self.games.played + np.arange(count)) % 2 == 0
        action, none = np.zeros(count, np.int64), np.full((count, len(self._game.names)), np.nan, np.float32)
        if not mine.all():
            action[~mine] = self._opposing(judges)(rows(boards, ~mine))
        policy = np.eye(none.shape[1], dtype=np.float32)[action]
        found = Found(action, policy, np.zeros(none.shape, np.int32), none[:, 0].copy(), none[:, 0].copy(), none)
        if mine.any():
            own = self.searched(rows(boards, mine), self.simulations, judges, noise_GA[mine])
            for f in fields(Found):
                getattr(found, f.name)[mine] = getattr(own, f.name)
        return found

    def _settings(self, judge: Judge) -> dict[str, Any]:
        assert isinstance(judge, Facing)
        return super()._settings(judge) | {"rival": judge.replies}

    def _judges(self, views: int = 1, who: str = "player") -> list[Judge]:
        judge, opponents = self._network(who), self._opponent._judges(self._opponent.eval_views)
        return [Facing(self._game, judge, self.ctx, views, other) for other in opponents]

    def _opposing(self, judges: list[Judge]) -> Player:
        """The opponent as a player."""
        return self._opponent.player(self.opponent_simulations, [j.opponent for j in judges if isinstance(j, Facing)])

    def _measured(self, part: str) -> dict[str, np.ndarray]:
        """Its score against the opponent; and how both fare elsewhere, where the adversary is often the weaker."""
        judges, rng = self._judges(self.eval_views), self.ctx.rng(part, shared=True)
        game, player, opponent = self._game, self.player(self.eval_simulations, judges), self._opposing(judges)
        found = {"score": (match(game, player, opponent, self.eval_games, rng) + 1) / 2}
        uct = rollouts(game, self.eval_rollouts, rng)
        for name, who in (("", player), ("opponent_", opponent)):
            found[f"{name}uct"] = (match(game, who, uct, self.eval_games, rng) + 1) / 2
            if hasattr(game, "exam"):
                exam = game.exam(part)
                found[f"{name}keeps"] = exam.keeps[np.arange(len(exam.keeps)), who(exam.board)]
        return found


class Facing(Judge):
    """The adversary's network, with the opponent's: in a search each judges the positions in which it moves."""

    def __init__(self, game: Game, network: Network, ctx: Context, views: int, opponent: Judge) -> None:
        super().__init__(game, network, ctx, views=views)
        self.opponent = opponent

    def replies(self, board: Board, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the opponent moves: its policy [B, A], and what its likeliest move is worth to it [B].

        The worth is the adversary's opinion of the position after that move, in which it moves itself.
        """
        logits, _ = self.opponent(board, legal)
        after, reward, over = self.game.play(board, np.where(legal, logits, -np.inf).argmax(1))
        worth, on = reward.astype(np.float32), ~over
        if on.any():
            after = rows(after, on)
            worth[on] -= self(after, self.game.legal(after))[1]
        return logits, worth
