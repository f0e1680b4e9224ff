"""An Elo ladder: checkpoints of runs, their policy alone and with a search, and plain tree search, each against each.

Raw network and search stand on one axis, as in figure 6b of AlphaGo Zero (Silver et al. 2017).
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rllab.core.checkpoint import Checkpoints
from rllab.core.errors import Mistake
from rllab.core.games import title
from rllab.core.protocols import Game
from rllab.core.run import find_run, parse_run
from rllab.evals.strength import load_player
from rllab.search.match import Player, match, rollouts, same_rules
from rllab.stats import bradley_terry

PRIOR = 0.5  # of a win for either player of a pair, beside their games: one game drawn
HOW = "Elo about their mean; a drawn game of each two is counted besides, so that who won or lost all has a rating"


class Entrant(NamedTuple):
    """Who takes part; `player` makes it anew for a match, with what that draws."""

    name: str
    player: Callable[[np.random.Generator], Player]


def checkpoints(words: Sequence[str], runs: Path, most: int) -> list[str]:
    """RUN@STEP for each of these: a RUN without a step stands for at most `most` of its checkpoints, spread evenly.

    Raises:
        Mistake: a run has no checkpoint.
    """
    found = list[str]()
    for word in words:
        name, step = parse_run(word)
        folder = find_run(name, runs)
        kept = Checkpoints(folder.path / "checkpoints").steps()
        if not kept:
            raise Mistake(f"{folder.path} has no checkpoint yet; rllab train goes on with it")
        which = np.linspace(0, len(kept) - 1, min(most, len(kept))).round().astype(int).tolist()
        name = folder.path.name if name == "last" else name
        found += [f"{name}@{s}" for s in ([step] if step is not None else [kept[i] for i in which])]
    return list(dict.fromkeys(found))


def few(words: Sequence[str], names: Sequence[str]) -> list[str]:
    """A line for each RUN without a step of which there was one checkpoint or two: how to keep more."""
    runs = [w for w in words if parse_run(w)[1] is None]
    found = {run: [str(step) for name, step in map(parse_run, names) if name == run] for run in runs}
    more = "a run keeps ten with save_every=TOTAL_STEPS/10 keep=10"
    return [f"{w} keeps no checkpoint but {' and '.join(s)}; {more}" for w, s in found.items() if 0 < len(s) < 3]


def entrants(
    names: Sequence[str], runs: Path, simulations: Sequence[int], uct: Sequence[int]
) -> tuple[Game, list[Entrant]]:
    """The game, and its players: each checkpoint once with so many simulations, 0 for its policy alone; and UCT.

    Raises:
        Mistake: a run plays no board game, or another one than the first; or there are fewer than two players.
    """
    algorithms = {name: load_player(name, runs) for name in names}
    game = next(iter(algorithms.values())).board_game
    found = list[Entrant]()
    for name, algorithm in algorithms.items():
        if not same_rules(game, algorithm.board_game):
            raise Mistake(
                f"{name} plays {title(algorithm.board_game)}, and {names[0]} plays {title(game)}, or by other rules: "
                "a ladder is of one game"
            )
        for count in simulations:
            player = algorithm.player(count)
            found.append(
                Entrant(f"{name}, {count:,} simulations" if count else f"{name}, policy alone", _as_is(player))
            )
    found += [Entrant(f"UCT {count:,}", _plain(game, count)) for count in uct]
    if len(found) < 2:
        raise Mistake(
            f"{found[0].name if found else 'nobody'} has nobody to play against: name more runs, or --uct 100"
        )
    return game, found


def _as_is(player: Player) -> Callable[[np.random.Generator], Player]:
    return lambda rng: player


def _plain(game: Game, count: int) -> Callable[[np.random.Generator], Player]:
    return lambda rng: rollouts(game, count, rng)


def ladder(game: Game, players: Sequence[Entrant], games: int) -> list[dict[str, Any]]:
    """A row for each player, the strongest first: its Elo rating with an interval, and how its games ended.

    Each two play `games` games from openings drawn for them, and change sides. Ratings are Bradley and Terry's, about
    their mean, with one drawn game between each pair counted besides: without it a player who won or lost all games
    would have no rating.
    """
    count = len(players)
    won, drawn = np.zeros((2, count, count), int)
    for i, j in combinations(range(count), 2):
        rng = np.random.default_rng([i, j])
        result = match(game, players[i].player(rng), players[j].player(rng), games, rng)
        won[i, j], won[j, i] = (result > 0).sum(), (result < 0).sum()
        drawn[i, j] = drawn[j, i] = (result == 0).sum()
    prior = PRIOR * (1 - np.eye(count))
    rating, interval = bradley_terry(won + drawn / 2 + prior)
    return [
        {
            "player": players[i].name,
            "elo": round(float(rating[i]), 1),
            "interval": (round(float(interval[i, 0]), 1), round(float(interval[i, 1]), 1)),
            "won": int(won[i].sum()),
            "drawn": int(drawn[i].sum()),
            "lost": int(won[:, i].sum()),
        }
        for i in np.argsort(-rating, kind="stable")
    ]
