"""How strong a run plays: positions whose best moves are known, and games, beside players that have learned nothing.

Of positions only those are asked in which moves differ in win, draw and loss; in the others any move is right. What a
teacher played in its recorded games can be asked in their place: who predicts its moves need not play well.
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
from rllab.search.match import OPENING, Player, match, perfect, rollouts, same_rules, total
from rllab.search.outside import match_outside, outsider
from rllab.stats import bootstrap, wilson

Row = dict[str, Any]
AT_ONCE = 1024  # positions whose trees are in memory


def load_player(run: str, runs: Path) -> AlphaZero:
    """The algorithm of a run that plays a board game: RUN, or RUN@STEP.

    Raises:
        Mistake: it plays none, or has no such checkpoint.
    """
    algorithm = load_run(run, runs)
    if not isinstance(algorithm, AlphaZero):
        raise Mistake(f"{run} is a run of {type(algorithm).__name__}, which plays no board game; AlphaZero's runs do")
    return algorithm


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
    return _asked(algorithm, game.exam(split), simulations, uct)


def predictions(
    algorithm: AlphaZero, teacher: AlphaZero, simulations: Sequence[int], uct: Sequence[int], split: str
) -> Iterator[Row]:
    """A row for each player: the share of positions in which it plays what the teacher of another run played.

    The positions are of games that the other run has not learned from; they are recorded afresh, and are the same each
    time.

    Raises:
        Mistake: the other run has no teacher, or plays another game.
    """
    if not isinstance(teacher, Imitation):
        raise Mistake(f"--predict: a run of {type(teacher).__name__} has no teacher; one of Imitation has")
    if not same_rules(algorithm.board_game, teacher.board_game):
        raise Mistake(f"--predict: its game is {title(teacher.board_game)}, and not {title(algorithm.board_game)}")
    for row in _asked(algorithm, teacher.held_out(split), simulations, uct):
        yield {"predicts" if k == "keeps" else k: v for k, v in row.items() if k != "best"}


def _asked(algorithm: AlphaZero, exam: Exam, simulations: Sequence[int], uct: Sequence[int]) -> Iterator[Row]:
    game = algorithm.board_game
    legal = game.legal(exam.board)
    chance = (exam.keeps / legal.sum(1, keepdims=True)).sum(1), (exam.best / legal.sum(1, keepdims=True)).sum(1)
    yield _row("random", exam, *chance)
    for count in uct:
        yield _answers(f"UCT {count:,}", exam, rollouts(game, count, np.random.default_rng(0)))
    for count in simulations:
        yield _answers(f"{count:,} simulations" if count else "policy alone", exam, algorithm.player(count))


def _answers(name: str, exam: Exam, player: Player) -> Row:
    each = np.arange(len(exam.keeps))
    parts = [player(rows(exam.board, slice(i, i + AT_ONCE))) for i in range(0, len(each), AT_ONCE)]
    action = np.concatenate(parts)
    return _row(name, exam, exam.keeps[each, action], exam.best[each, action])


def _row(player: str, exam: Exam, keeps: np.ndarray, best: np.ndarray) -> Row:
    whole = len(keeps)
    interval = wilson(int(keeps.sum()), whole) if keeps.dtype == bool else bootstrap(keeps)
    found = {"player": player, "keeps": float(keeps.mean()), "interval": interval, "best": float(best.mean())}
    bounds = np.quantile(exam.stones, [0, 1 / 3, 2 / 3, 1]).astype(int)
    for low, high in zip([bounds[0], bounds[1] + 1, bounds[2] + 1], bounds[1:], strict=True):
        found[f"{low}-{high} stones"] = float(keeps[(exam.stones >= low) & (exam.stones <= high)].mean())
    return found | {"positions": whole}


def games(
    algorithm: AlphaZero,
    simulations: int,
    opponents: Sequence[int | str],
    count: int,
    perfect_from: int | None = None,
    opening: int = OPENING,
) -> Iterator[Row]:
    """A row for each opponent: games against UCT with so many simulations, with 0 against perfect play, or by a name.

    Of each two games one has the other's `opening`, so many moves at random, and sides changed; against perfect play
    the run begins all of them, from the first stone. perfect_from: how many stones lie on the board before perfect play
    is perfect; until then it plays at random, so that games differ. By default it is 0, or what a game says whose first
    moves take minutes.

    Raises:
        Mistake: nobody knows perfect play of the game; or what `rllab.search.outside` tells of a name.
    """
    game, player = algorithm.board_game, algorithm.player(simulations)
    stones = getattr(game, "perfect_from", 0) if perfect_from is None else perfect_from
    for opponent in opponents:
        rng = np.random.default_rng(1)
        if isinstance(opponent, str):
            against, won = opponent, match_outside(game, player, outsider(opponent, game), count, rng, opening)
        elif opponent:
            against, won = f"UCT {opponent:,}", match(game, player, rollouts(game, opponent, rng), count, rng, opening)
        elif hasattr(game, "perfect"):
            against = "perfect play" + f" from {stones} stones on" * bool(stones)
            solved = perfect(game, rng, stones)
            if game.players == 2:
                won = total(game, game.start(count), [player, solved])
            else:
                won = match(game, player, solved, count, rng, opening)
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
