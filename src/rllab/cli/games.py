"""The commands for board games: play, analyse, strength."""

from pathlib import Path
from typing import Annotated

import typer

from rllab.cli.app import AsJson, Runs, app, numbers, shown
from rllab.core.errors import Mistake

Simulations = Annotated[int, typer.Option(help="Of the search, per move.")]


@app.command()
def play(
    run: Annotated[str, typer.Argument(help="A run that plays a board game: RUN, RUN@STEP, last.")],
    simulations: Simulations = 400,
    second: Annotated[bool, typer.Option(help="The run moves first.")] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Play a board game against a run."""
    from rllab.cli.play import play as play_game
    from rllab.cli.talk import typed
    from rllab.evals.strength import load_player

    play_game(load_player(run, runs), simulations, second, typed(), print)


@app.command()
def analyse(
    run: Annotated[str, typer.Argument(help="A run that plays a board game: RUN, RUN@STEP, last.")],
    file: Annotated[Path, typer.Argument(help="One position a line: the moves that lead to it, such as 4453.")],
    simulations: Simulations = 400,
    out: Annotated[str, typer.Option("--json", help="A file for the rows: JSONL, one row a position.")] = "",
    runs: Runs = Path("runs"),
) -> None:
    """Show the move and the value that a run's search gives for positions."""
    from rllab.cli.play import analyse_file
    from rllab.cli.tables import table
    from rllab.evals.strength import load_player

    rows, problems = analyse_file(load_player(run, runs), file, simulations, Path(out) if out else None)
    if not out:
        table([row | {"visits": " ".join(f"{k}:{v}" for k, v in row["visits"].items() if v)} for row in rows], False)
    if problems:
        raise Mistake("\n".join([f"{len(problems)} positions were left out; the others are above", *problems]))


@app.command()
def strength(
    run: Annotated[str, typer.Argument(help="A run that plays a board game: RUN, RUN@STEP, last.")],
    simulations: Annotated[
        str, typer.Option(help="Of its search, several with commas; 0 is its policy alone.")
    ] = "0,64",
    uct: Annotated[str, typer.Option(help="Simulations of UCT, to compare with, several with commas.")] = "100",
    split: Annotated[str, typer.Option(help="Which positions: validation or test.")] = "test",
    games: Annotated[int, typer.Option(help="Games against each UCT instead of positions.")] = 0,
    opponent: Annotated[
        str,
        typer.Option(
            help="The opponent in these games instead of UCT: mcts, '{name: mcts, simulations: 100}', mine.py:Own."
        ),
    ] = "",
    perfect_from: Annotated[
        int | None,
        typer.Option(help="With fewer stones on the board, perfect play is random, so that games differ."),
    ] = None,
    opening: Annotated[int, typer.Option(help="Random moves that each pair of games begins with.")] = 4,
    predict: Annotated[str, typer.Option(help="A run of Imitation: how often the moves equal its teacher's.")] = "",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Measure how strong a run plays: in positions with known best moves, or in games; --uct 0 is perfect play."""
    from rllab.cli.tables import table
    from rllab.evals import strength as evals

    algorithm, counts, others = evals.load_player(run, runs), numbers(simulations, "simulations"), numbers(uct, "uct")
    if opponent and not games:
        raise Mistake("--opponent plays games: give their number, as in --games 40")
    if predict and games:
        raise Mistake("--predict compares moves in positions, and --games plays games: give one of them")
    if games:
        against = [opponent] if opponent else others
        rows = [row for count in counts for row in evals.games(algorithm, count, against, games, perfect_from, opening)]
    elif predict:
        rows = list(
            evals.predictions(algorithm, evals.load_player(predict, runs), counts, [n for n in others if n], split)
        )
    else:
        rows = list(evals.positions(algorithm, counts, [n for n in others if n], split))
    table(rows if as_json else [{k: shown(v) for k, v in row.items()} for row in rows], as_json)
