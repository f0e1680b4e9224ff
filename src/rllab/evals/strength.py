"""How strong a run plays: in positions whose best moves are known, and in games, beside untrained players.

The positions are those whose moves differ in win, draw and loss; in others every move is right. The moves of a teacher
in its recorded games can stand in for the best moves. A run that predicts them need not play well.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rllab.algos.alphazero import AlphaZero
from rllab.algos.imitation import Imitation
from rllab.core.errors import Mistake
from rllab.core.games import rows, title
from rllab.core.load import load_run
from rllab.core.protocols import Exam
from rllab.search.match import OPENING, Player, match, perfect_player, play_out, same_rules, solved_from, uct_player
from rllab.search.outside import make_outsider, match_outside
from rllab.stats import share_interval, wilson

Row = dict[str, Any]
AT_ONCE = 1024  # positions searched at once, which bounds the memory of their trees


def load_player(run: str, runs: Path) -> AlphaZero:
    """The algorithm of a run that plays a board game: RUN, or RUN@STEP.

    Raises:
        Mistake: it plays no board game, or has no such checkpoint.
    """
    algorithm = load_run(run, runs)
    if not isinstance(algorithm, AlphaZero):
        raise Mistake(f"{run} is a run of {type(algorithm).__name__}, which plays no board game; AlphaZero's runs do")
    return algorithm


def positions(algorithm: AlphaZero, simulations: Sequence[int], uct: Sequence[int], split: str) -> Iterator[Row]:
    """A row for each player: the shares of positions in which it keeps the outcome, and plays a best move.

    simulations: of the run's search, 0 for its policy alone. uct: simulations of UCT, which uses the rules alone.

    Raises:
        Mistake: the game has no exam.
    """
    game: Any = algorithm.board_game
    if not hasattr(game, "exam"):
        raise Mistake(
            f"no positions with known moves come with {type(game).__name__}; --games plays against UCT instead"
        )
    return _graded_players(algorithm, game.exam(split), simulations, uct)


def predictions(
    algorithm: AlphaZero, teacher: AlphaZero, simulations: Sequence[int], uct: Sequence[int], split: str
) -> Iterator[Row]:
    """A row for each player: the share of positions in which it plays the move of another run's teacher.

    The positions are from games that the other run was not trained on. They are recorded anew, and are the same each
    time.

    Raises:
        Mistake: the other run has no teacher, or plays another game.
    """
    if not isinstance(teacher, Imitation):
        raise Mistake(f"--predict: a run of {type(teacher).__name__} has no teacher; one of Imitation has")
    if not same_rules(algorithm.board_game, teacher.board_game):
        raise Mistake(f"--predict: its game is {title(teacher.board_game)}, and not {title(algorithm.board_game)}")
    for row in _graded_players(algorithm, teacher.held_out(split), simulations, uct):
        yield {"predicts" if k == "keeps" else k: v for k, v in row.items() if k != "best"}


def _graded_players(algorithm: AlphaZero, exam: Exam, simulations: Sequence[int], uct: Sequence[int]) -> Iterator[Row]:
    """Rows of random play, UCT and the run on an exam."""
    game = algorithm.board_game
    legal = game.legal(exam.board)
    chance = (exam.keeps / legal.sum(1, keepdims=True)).sum(1), (exam.best / legal.sum(1, keepdims=True)).sum(1)
    yield _row("random", exam, *chance)
    for count in uct:
        yield _grade(f"UCT {count:,}", exam, uct_player(game, count, np.random.default_rng(0)))
    for count in simulations:
        yield _grade(f"{count:,} simulations" if count else "policy alone", exam, algorithm.player(count))


def _grade(name: str, exam: Exam, player: Player) -> Row:
    parts = [player(rows(exam.board, slice(i, i + AT_ONCE))) for i in range(0, len(exam.keeps), AT_ONCE)]
    return _row(name, exam, *exam.grade(np.concatenate(parts)))


def _row(player: str, exam: Exam, keeps: np.ndarray, best: np.ndarray) -> Row:
    """keeps, best [B]: whether each move keeps the outcome and is best, or the probability of that."""
    whole = len(keeps)
    row = {
        "player": player,
        "keeps": float(keeps.mean()),
        "interval": share_interval(keeps),
        "best": float(best.mean()),
    }
    bounds = np.quantile(exam.stones, [0, 1 / 3, 2 / 3, 1]).astype(int)
    for low, high in zip([bounds[0], bounds[1] + 1, bounds[2] + 1], bounds[1:], strict=True):
        row[f"{low}-{high} stones"] = float(keeps[(exam.stones >= low) & (exam.stones <= high)].mean())
    return row | {"positions": whole}


def games(
    algorithm: AlphaZero,
    simulations: int,
    opponents: Sequence[int | str],
    count: int,
    perfect_from: int | None = None,
    opening: int = OPENING,
) -> Iterator[Row]:
    """A row for each opponent: games against UCT with so many simulations, perfect play (0), or a player by its name.

    Games come in pairs with the same `opening`, a number of random moves, and sides changed. Against perfect play the
    run moves first in all games, from the empty board. perfect_from: with fewer stones on the board, the perfect player
    plays at random, so that games differ; by default `solved_from(game)`.

    Raises:
        Mistake: the game has no perfect play; or see `make_outsider` and `match_outside`.
    """
    game, player = algorithm.board_game, algorithm.player(simulations)
    stones = solved_from(game) if perfect_from is None else perfect_from
    for opponent in opponents:
        rng = np.random.default_rng(1)
        if isinstance(opponent, str):
            against, won = opponent, match_outside(game, player, make_outsider(opponent, game), count, rng, opening)
        elif opponent:
            against, won = (
                f"UCT {opponent:,}",
                match(game, player, uct_player(game, opponent, rng), count, rng, opening),
            )
        elif hasattr(game, "perfect"):
            against = "perfect play" + f" from {stones} stones on" * bool(stones)
            solved = perfect_player(game, rng, stones)
            if game.players == 2:
                won = play_out(game, game.start(count), [player, solved])
            else:
                won = match(game, player, solved, count, rng, opening)
        else:
            raise Mistake(f"{type(game).__name__} has no perfect play: name UCT's simulations instead of 0")
        yield _score(f"{simulations:,} simulations", against, won)


def _score(player: str, against: str, won: np.ndarray) -> Row:
    """won [G]: 1, 0 or -1 for each game won, drawn or lost."""
    return {
        "player": player,
        "against": against,
        "won": int((won > 0).sum()),
        "drawn": int((won == 0).sum()),
        "lost": int((won < 0).sum()),
        "score": float((won.mean() + 1) / 2),
        "interval": wilson(float((won + 1).sum() / 2), len(won)),
    }
