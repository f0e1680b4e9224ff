"""An Elo ladder of checkpoints, with a search and by their policy alone, and of UCT: a round robin.

Raw networks and searches share one axis, as in figure 6b of AlphaGo Zero (Silver et al. 2017).
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
from rllab.core.run import parse_run
from rllab.core.runs import find_run
from rllab.evals.strength import load_player
from rllab.search.match import Player, match, same_rules, uct_player
from rllab.stats import bradley_terry

PRIOR = 0.5  # wins added for either player of a pair: one more drawn game
HOW = "Elo relative to the mean; each pair has one more drawn game, so that all wins or all losses have a rating, too"


class Entrant(NamedTuple):
    """A participant; `player` makes its player for a match, from the match's random generator."""

    name: str
    player: Callable[[np.random.Generator], Player]


def checkpoints(words: Sequence[str], runs: Path, most: int) -> list[str]:
    """The names RUN@STEP of some runs; a RUN without a step gives at most `most` of its checkpoints, spread evenly.

    Raises:
        Mistake: a run has no checkpoint.
    """
    names = list[str]()
    for word in words:
        name, step = parse_run(word)
        folder = find_run(name, runs)
        steps = Checkpoints(folder.path / "checkpoints").steps()
        if not steps:
            raise Mistake(f"{folder.path} has no checkpoint yet; rllab train resumes the run")
        which = np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int).tolist()
        name = folder.path.name if name == "last" else name
        names += [f"{name}@{s}" for s in ([step] if step is not None else [steps[i] for i in which])]
    return list(dict.fromkeys(names))


def few(words: Sequence[str], names: Sequence[str]) -> list[str]:
    """A line for each RUN without a step that has only one or two checkpoints: how to keep more."""
    runs = [w for w in words if parse_run(w)[1] is None]
    steps = {run: [str(step) for name, step in map(parse_run, names) if name == run] for run in runs}
    more = "a run keeps ten with save_every=TOTAL_STEPS/10 keep=10"
    return [f"{w} keeps no checkpoint but {' and '.join(s)}; {more}" for w, s in steps.items() if 0 < len(s) < 3]


def entrants(
    names: Sequence[str], runs: Path, simulations: Sequence[int], uct: Sequence[int]
) -> tuple[Game, list[Entrant]]:
    """The game and its players: each checkpoint once for each number of simulations (0: the policy alone), and UCT.

    Raises:
        Mistake: a run plays no board game, or another game than the first; or there are fewer than two players.
    """
    algorithms = {name: load_player(name, runs) for name in names}
    game = next(iter(algorithms.values())).board_game
    players = list[Entrant]()
    for name, algorithm in algorithms.items():
        if not same_rules(game, algorithm.board_game):
            raise Mistake(
                f"{name} plays {title(algorithm.board_game)}, and {names[0]} plays {title(game)}, or by other rules: "
                "a ladder is of one game"
            )
        for count in simulations:
            player = algorithm.player(count)
            players.append(
                Entrant(f"{name}, {count:,} simulations" if count else f"{name}, policy alone", _as_is(player))
            )
    players += [Entrant(f"UCT {count:,}", _uct(game, count)) for count in uct]
    if len(players) < 2:
        raise Mistake(f"{players[0].name if players else 'the ladder'} has no opponent: name more runs, or --uct 100")
    return game, players


def _as_is(player: Player) -> Callable[[np.random.Generator], Player]:
    return lambda rng: player


def _uct(game: Game, count: int) -> Callable[[np.random.Generator], Player]:
    return lambda rng: uct_player(game, count, rng)


def ladder(game: Game, players: Sequence[Entrant], games: int) -> list[dict[str, Any]]:
    """A row for each player, the strongest first: its Elo rating with an interval, and the results of its games.

    Each pair plays `games` games from random openings, each opening once from either side. Ratings are Bradley and
    Terry's, relative to their mean. Each pair has one more drawn game, as a player who won or lost all games would have
    no rating otherwise.
    """
    count = len(players)
    won, drawn = np.zeros((2, count, count), int)
    for i, j in combinations(range(count), 2):
        rng = np.random.default_rng([i, j])
        results = match(game, players[i].player(rng), players[j].player(rng), games, rng)
        won[i, j], won[j, i] = (results > 0).sum(), (results < 0).sum()
        drawn[i, j] = drawn[j, i] = (results == 0).sum()
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
