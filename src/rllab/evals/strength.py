"""How strong a run plays: positions whose best moves are known, and games, beside players that have learned nothing.

Of positions only those are asked in which moves differ in win, draw and loss; in the others any move is right.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rllab.algos.alphazero import AlphaZero
from rllab.core.errors import Mistake
from rllab.core.protocols import Board, Exam
from rllab.search.match import Player, match, perfect, rollouts, total
from rllab.stats import bootstrap, wilson

Row = dict[str, Any]


def positions(algorithm: AlphaZero, simulations: Sequence[int], uct: Sequence[int], split: str) -> Iterator[Row]:
    """A row for each player: the share of positions in which it keeps the outcome, and plays the best move.

    simulations: of the run's search, 0 for its policy alone. uct: of UCT, which knows the rules alone.

    Raises:
        Mistake: no positions come with the game.
    """
    game: Any = algorithm.board_game
    if not hasattr(game, "exam"):
        raise Mistake(
            f"no positions with known moves come with {type(game).__name__}; --games plays against UCT instead"
        )
    exam: Exam = game.exam(split)
    legal = game.legal(exam.board)
    chance = (exam.keeps / legal.sum(1, keepdims=True)).sum(1), (exam.best / legal.sum(1, keepdims=True)).sum(1)
    yield _row("random", exam, *chance)
    for count in uct:
        yield _answers(f"UCT {count:,}", exam, rollouts(game, count, np.random.default_rng(0))(exam.board))
    for count in simulations:
        yield _answers(
            f"{count:,} simulations" if count else "policy alone", exam, _player(algorithm, count)(exam.board)
        )


def _player(algorithm: AlphaZero, simulations: int) -> Player:
    def plays(board: Board) -> np.ndarray:
        return algorithm.searched(board, simulations).action if simulations else algorithm.preferred(board)

    return plays


def _answers(player: str, exam: Exam, action: np.ndarray) -> Row:
    each = np.arange(len(action))
    return _row(player, exam, exam.keeps[each, action], exam.best[each, action])


def _row(player: str, exam: Exam, keeps: np.ndarray, best: np.ndarray) -> Row:
    whole = len(keeps)
    interval = wilson(int(keeps.sum()), whole) if keeps.dtype == bool else bootstrap(keeps)
    found = {"player": player, "keeps": float(keeps.mean()), "interval": interval, "best": float(best.mean())}
    bounds = np.quantile(exam.stones, [0, 1 / 3, 2 / 3, 1]).astype(int)
    for low, high in zip([bounds[0], bounds[1] + 1, bounds[2] + 1], bounds[1:], strict=True):
        found[f"{low}-{high} stones"] = float(keeps[(exam.stones >= low) & (exam.stones <= high)].mean())
    return found | {"positions": whole}


def games(
    algorithm: AlphaZero, simulations: int, opponents: Sequence[int], count: int, perfect_from: int | None = None
) -> Iterator[Row]:
    """A row for each opponent: games against UCT with so many simulations, or with 0 against perfect play.

    Of each two games one has the other's opening and sides changed; against perfect play the run begins all of them,
    from the first stone. perfect_from: how many stones lie on the board before perfect play is perfect; until then it
    plays at random, so that games differ. By default it is 0, or what a game says whose first moves take minutes.

    Raises:
        Mistake: nobody knows perfect play of the game.
    """
    game, player = algorithm.board_game, _player(algorithm, simulations)
    stones = getattr(game, "perfect_from", 0) if perfect_from is None else perfect_from
    for rollout_count in opponents:
        rng = np.random.default_rng(1)
        if rollout_count:
            against, won = f"UCT {rollout_count:,}", match(game, player, rollouts(game, rollout_count, rng), count, rng)
        elif hasattr(game, "perfect"):
            against = "perfect play" + f" from {stones} stones on" * bool(stones)
            solved = perfect(game, rng, stones)
            if game.players == 2:
                won = total(game, game.start(count), [player, solved])
            else:
                won = match(game, player, solved, count, rng)
        else:
            raise Mistake(f"nobody knows perfect play of {type(game).__name__}: name UCT's simulations instead of 0")
        yield _score(f"{simulations:,} simulations", against, won)


def _score(player: str, against: str, won: np.ndarray) -> Row:
    """What a player won in games [count]: 1, 0 or -1 each."""
    return {
        "player": player,
        "against": against,
        "won": int((won > 0).sum()),
        "drawn": int((won == 0).sum()),
        "lost": int((won < 0).sum()),
        "score": float((won.mean() + 1) / 2),
        "interval": bootstrap((won + 1) / 2),
    }
