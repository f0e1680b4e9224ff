"""An adversary learns to beat one frozen run, which is easier than to play well (Wang et al. 2023).

AlphaZero plays against itself and looks for moves that are good against any reply. Here another run, the opponent,
plays one side of every game, and its weights are frozen. The loss and the keys of the batch are AlphaZero's:
`observation` [B, C, H, W], `policy` [B, A], `z` [B], `weight` [B]. Differences from AlphaZero:

- Only the adversary's own positions are training rows. z is the result of its games against the opponent, mixed with
  the values of its own later searches, never with the opponent's.
- Its search models the opponent (A-MCTS-S in the paper). Where the opponent moves, walks follow its policy instead of
  looking for the best reply. The adversary's network is not trained on such positions. They get the value that it gives
  to the position after the opponent's likeliest move.
- A value is proven only if it holds against every move of the opponent.

Departures from the paper: walks visit the opponent's moves in proportion to its policy instead of sampling them, so
that a search is a function of its arguments. There is one opponent, and no curriculum of ever stronger ones.

The opponent is deterministic: it plays the most visited move of a search with `opponent_simulations`, or with 0 the
move with the highest prior. Games differ by their openings and by the adversary's own sampling.
Axes: G games, A actions, B batch; C, H, W planes, rows and columns of a board.
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
from rllab.core.ranges import Natural
from rllab.search.evaluate import Evaluator, Network
from rllab.search.match import Player, match, same_rules, uct_player
from rllab.search.search import SearchOutput


@dataclass(kw_only=True)
class Adversary(AlphaZero):
    """Learns to beat another run."""

    opponent: Annotated[str, Model()] = ""  # run:NAME, or a checkpoint's folder; "": new weights
    opponent_simulations: Natural = 64  # per move; 0: the policy alone

    def __post_init__(self) -> None:
        if self.gate:
            raise ValueError("gate must be 0: weights that beat the previous ones need not beat the opponent")

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        if self._game.players != 2:
            raise FieldMistake("game", "an adversary needs a game for two players")
        self._opponent = self._load_opponent(ctx)

    def _load_opponent(self, ctx: Context) -> AlphaZero:
        """The opponent, with its weights.

        Raises:
            FieldMistake: there is no such run, or it plays no board game or one with other rules.
        """
        if not self.opponent:
            new = AlphaZero(**{f.name: getattr(self, f.name) for f in fields(AlphaZero)})
            new.setup(ctx)
            return new
        try:
            opponent = load_checkpoint(self.opponent, ctx)
            if not isinstance(opponent, AlphaZero):
                raise Mistake(f"it is a run of {type(opponent).__name__}, which plays no board game")
        except Mistake as error:
            raise FieldMistake("opponent", str(error)) from error
        if not same_rules(self._game, opponent.board_game):
            other, own = title(opponent.board_game), title(self._game)
            raise FieldMistake("opponent", f"it plays {other}, and not {own} by the rules of this recipe")
        return opponent

    def search_games(self, evaluators: list[Evaluator], noise_GA: np.ndarray) -> SearchOutput:
        """Searches the games in which the adversary is to move; in the others the output is the opponent's move.

        The value there is NaN, so that these positions are no training rows. The adversary moves first in even games.
        noise_GA [G, A]: as in AlphaZero.
        """
        count, boards = self.num_games, self.games.boards
        own_turn = (self.games.played + np.arange(count)) % 2 == 0
        action, none = np.zeros(count, np.int64), np.full((count, len(self._game.names)), np.nan, np.float32)
        if not own_turn.all():
            action[~own_turn] = self._opponent_player(evaluators)(rows(boards, ~own_turn))
        policy = np.eye(none.shape[1], dtype=np.float32)[action]
        visits, value, exact = np.zeros(none.shape, np.int32), none[:, 0].copy(), none[:, 0].copy()
        output = SearchOutput(action, policy, visits, value, exact, none)
        if own_turn.any():
            own = self.run_search(rows(boards, own_turn), self.simulations, evaluators, noise_GA[own_turn])
            for f in fields(SearchOutput):
                getattr(output, f.name)[own_turn] = getattr(own, f.name)
        return output

    def _search_settings(self, evaluator: Evaluator) -> dict[str, Any]:
        assert isinstance(evaluator, PairedEvaluator)
        return super()._search_settings(evaluator) | {"opponent": evaluator.opponent_turn}

    def _evaluators(self, views: int = 1, who: str = "player") -> list[Evaluator]:
        network, opponents = self._network(who), self._opponent._evaluators(self._opponent.eval_views)
        return [PairedEvaluator(self._game, network, self.ctx, views, opponent) for opponent in opponents]

    def _opponent_player(self, evaluators: list[Evaluator]) -> Player:
        """The opponent as a player."""
        theirs = [e.opponent for e in evaluators if isinstance(e, PairedEvaluator)]
        return self._opponent.player(self.opponent_simulations, theirs)

    def _measurements(self, part: str) -> dict[str, np.ndarray]:
        """The score against the opponent; and both against UCT and on the exam, where the adversary is often weaker."""
        evaluators, rng = self._evaluators(self.eval_views), self.ctx.rng(part, shared=True)
        player, opponent = self.player(self.eval_simulations, evaluators), self._opponent_player(evaluators)
        game = self._game
        results = {"score": (match(game, player, opponent, self.eval_games, rng) + 1) / 2}
        uct = uct_player(game, self.eval_rollouts, rng)
        for name, who in (("", player), ("opponent_", opponent)):
            results[f"{name}uct"] = (match(game, who, uct, self.eval_games, rng) + 1) / 2
            if hasattr(game, "exam"):
                exam = game.exam(part)
                results[f"{name}keeps"], _ = exam.grade(who(exam.board))
        return results


class PairedEvaluator(Evaluator):
    """The adversary's network and the opponent's; in a search each evaluates the positions in which it is to move."""

    def __init__(self, game: Game, network: Network, ctx: Context, views: int, opponent: Evaluator) -> None:
        super().__init__(game, network, ctx, views=views)
        self.opponent = opponent

    def opponent_turn(self, board: Board, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Evaluates positions in which the opponent is to move: (its policy logits [B, A], values [B] for it).

        The value is that of its likeliest move, by the adversary's network in the position after that move.
        """
        logits, _ = self.opponent(board, legal)
        after, reward, over = self.game.play(board, np.where(legal, logits, -np.inf).argmax(1))
        value, on = reward.astype(np.float32), ~over
        if on.any():
            after = rows(after, on)
            value[on] -= self(after, self.game.legal(after))[1]
        return logits, value
