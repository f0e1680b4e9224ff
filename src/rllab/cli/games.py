"""The verbs for board games."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from rllab.cli.app import GAMES, AsJson, Runs, Writes, app, numbers
from rllab.core.errors import Mistake

GameRun = Annotated[str, typer.Argument(help="A run that plays a board game: RUN, RUN@STEP, last.")]
Simulations = Annotated[int, typer.Option(help="Simulations of the search per move.")]
verb = partial(app.command, rich_help_panel=GAMES)


@verb()
def play(
    run: GameRun,
    simulations: Simulations = 400,
    second: Annotated[bool, typer.Option("--second", help="Let the run begin.")] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Play a board game against a run."""
    from rllab.cli.play import play as play_game
    from rllab.cli.talk import typed
    from rllab.evals.strength import load_player

    play_game(load_player(run, runs), simulations, second, typed(), print)


@verb(cls=Writes)
def analyse(
    run: GameRun,
    file: Annotated[Path, typer.Argument(help="One position a line: the moves that lead to it, such as 4453.")],
    simulations: Simulations = 400,
    out: Annotated[str, typer.Option(help="Write the rows to this file: JSONL, one row a position.")] = "",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show a run's best move and its value in given positions."""
    from rllab.cli.play import analyse_file
    from rllab.cli.tables import table
    from rllab.evals.strength import load_player

    rows, problems = analyse_file(load_player(run, runs), file, simulations, Path(out) if out else None)
    if as_json:
        table(rows, as_json)
    elif not out:
        visits = [" ".join(f"{move}:{n}" for move, n in row["visits"].items() if n) for row in rows]
        table([row | {"visits": text} for row, text in zip(rows, visits, strict=True)], as_json)
    if problems:
        raise Mistake("\n".join([f"{len(problems)} positions were left out; the others are above", *problems]))


@verb()
def strength(
    run: GameRun,
    simulations: Annotated[
        str, typer.Option(help="Simulations of its search, several with commas; 0: its policy alone.")
    ] = "0,64",
    uct: Annotated[str, typer.Option(help="Simulations of UCT, the comparison, several with commas.")] = "100",
    split: Annotated[str, typer.Option(help="Which positions: validation or test.")] = "test",
    games: Annotated[int, typer.Option(help="Play this many games against each UCT, in place of positions.")] = 0,
    opponent: Annotated[
        str,
        typer.Option(
            help="Play these games against another player: mcts, '{name: mcts, simulations: 100}', mine.py:Own."
        ),
    ] = "",
    perfect_from: Annotated[
        int | None,
        typer.Option(
            help="Stones on the board from which perfect play is perfect; before, it plays at random, so that games "
            "differ."
        ),
    ] = None,
    opening: Annotated[int, typer.Option(help="Random moves at the start of every two games.")] = 4,
    predict: Annotated[
        str, typer.Option(help="A run of Imitation: measure how often the moves are those of its teacher.")
    ] = "",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Measure how strong a run plays, in solved positions or games.

    Positions are those whose best moves are known. With --games it plays against UCT; UCT with 0 simulations stands for
    perfect play.
    """
    from rllab.cli.tables import table
    from rllab.evals import strength as measure
    from rllab.evals.strength import load_player

    algorithm, counts, others = load_player(run, runs), numbers(simulations, "simulations"), numbers(uct, "uct")
    if opponent and not games:
        raise Mistake("--opponent plays games: say how many, as in --games 40")
    if predict and games:
        raise Mistake("--predict looks at moves in positions, and --games plays: give one of them")
    if games:
        against = [opponent] if opponent else others
        rows = [
            row for count in counts for row in measure.games(algorithm, count, against, games, perfect_from, opening)
        ]
    elif predict:
        teacher = load_player(predict, runs)
        rows = list(measure.predictions(algorithm, teacher, counts, [n for n in others if n], split))
    else:
        rows = list(measure.positions(algorithm, counts, [n for n in others if n], split))
    table(rows, as_json)


@verb()
def ladder(
    run: Annotated[list[str], typer.Argument(help="Runs that play a board game: RUN, RUN@STEP, last.")],
    simulations: Annotated[
        str, typer.Option(help="Simulations of a run's search, several with commas; 0: policy alone.")
    ] = "0,64",
    uct: Annotated[str, typer.Option(help="Add UCT with these simulations, several with commas.")] = "",
    games: Annotated[int, typer.Option(help="Games of each two players.", min=1)] = 40,
    most: Annotated[int, typer.Option("--checkpoints", help="Most checkpoints of a RUN without @STEP.", min=1)] = 8,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Rate checkpoints of runs in Elo, by games of each two.

    rllab compare compares the same runs by what they have recorded, and plays nothing.
    """
    from rllab.cli.tables import table
    from rllab.evals.ladder import HOW, checkpoints, entrants, few
    from rllab.evals.ladder import ladder as rate

    names = checkpoints(run, runs, most)
    counts = numbers(simulations, "simulations"), numbers(uct, "uct")
    table(rate(*entrants(names, runs, *counts), games), as_json)
    if not as_json:
        print("\n".join([HOW, *few(run, names)]))
