"""The verbs that score and compare."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from rllab.cli.app import SCORE, AsJson, Figure, Runs, Writes, app, numbers, report
from rllab.core.errors import Mistake

Base = Annotated[bool, typer.Option("--base", help="Measure the model that its training began with.")]
verb = partial(app.command, rich_help_panel=SCORE)


@verb(cls=Writes)
def score(
    files: Annotated[list[Path], typer.Argument(help="JSONL with id, question, target, kind and completion.")],
    kind: Annotated[
        str, typer.Option(help="number, choice, yesno, string or latex; by default the kind in each row.")
    ] = "",
    scorer: Annotated[str, typer.Option(help="rllab, kojima, bbh, or your own: mine.py:fn")] = "rllab",
    out: Annotated[str, typer.Option(help="Write the results to this file: JSONL, one row an item.")] = "",
    as_json: AsJson = False,
) -> None:
    """Score recorded completions; no model is needed."""
    from rllab.cli.tables import table
    from rllab.evals.recordings import Problems
    from rllab.evals.score import disagreements, summaries, write_results
    from rllab.evals.score import score as score_files

    problems = Problems()
    Path(out).parent.mkdir(parents=True, exist_ok=True)  # a folder that may not be written fails before the work
    scored, label = score_files(files, kind or None, scorer, problems)
    if out:
        write_results(Path(out), scored, label)
    rows = summaries(scored, label)
    table(rows if as_json else [_in_per_cent(row) for row in rows], as_json)
    if not as_json:
        print("\n".join(disagreements(scored)))
    report(problems)


def _in_per_cent(row: dict[str, Any]) -> dict[str, str]:
    """A row of `summaries` for the table."""
    low, high = (f"{100 * bound:.1f}" for bound in row["interval"])
    share = {k: f"{100 * row[k]:.1f}" for k in ("accuracy", "unanswered", "strict", "lenient")}
    return {
        "file": row["file"],
        "items": str(row["items"]),
        f"accuracy by {row['scorer']}": f"{share['accuracy']} [{low}, {high}]",
        "no answer": share["unanswered"],
        f"{row['own scorer']}: strict": share["strict"],
        "lenient": share["lenient"],
    }


@verb()
def compare(
    what: Annotated[
        list[str], typer.Argument(help="Two results of rllab score --out; or runs that play a board game.")
    ],
    simulations: Annotated[
        str, typer.Option(help="Simulations of a run's search, several with commas; 0: policy alone.")
    ] = "0,64",
    uct: Annotated[str, typer.Option(help="Add UCT with these simulations, several with commas.")] = "",
    games: Annotated[int, typer.Option(help="Games of each two players.", min=1)] = 40,
    most: Annotated[int, typer.Option("--checkpoints", help="Most checkpoints of a RUN without @STEP.", min=1)] = 8,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Compare two results, or rate checkpoints by games.

    Two files of results: items gained and lost, and whether the difference is more than chance. Runs that play a board
    game: their checkpoints play each other, rated in Elo.
    """
    files = [w for w in what if Path(w).is_file() or Path(w).suffix in (".jsonl", ".json", ".gz")]
    if not files:
        _ladder(what, runs, numbers(simulations, "simulations"), numbers(uct, "uct"), games, most, as_json)
    elif len(files) == len(what) == 2:
        _results(Path(files[0]), Path(files[1]), as_json)
    elif len(files) == len(what):
        raise Mistake(f"two files of results are compared with one another, got {len(files)}: {', '.join(files)}")
    else:
        other = next(w for w in what if w not in files)
        raise Mistake(f"{files[0]} is a file of results and {other} is none: name two such files, or runs alone")


def _results(a: Path, b: Path, as_json: bool) -> None:
    from rllab.evals.recordings import Problems
    from rllab.evals.score import compare as compare_files

    problems = Problems()
    comparison = compare_files(a, b, problems)
    print(comparison.as_json() if as_json else comparison.as_text(a, b))
    report(problems)


def _ladder(
    words: list[str], runs: Path, simulations: list[int], uct: list[int], games: int, most: int, as_json: bool
) -> None:
    from rllab.cli.tables import table
    from rllab.evals.ladder import HOW, checkpoints, entrants, few, ladder

    names = checkpoints(words, runs, most)
    table(ladder(*entrants(names, runs, simulations, uct), games), as_json)
    if not as_json:
        print("\n".join([HOW, *few(words, names)]))


@verb()
def calibration(
    files: Annotated[list[Path], typer.Argument(help="JSONL as DeepSeekMath-V2 published its proofs.")],
    count: Annotated[int, typer.Option("--bins", help="Number of ranges of the score, equally wide.", min=1)] = 10,
    figure: Figure = "",
    as_json: AsJson = False,
) -> None:
    """Compare a verifier's scores of proofs with human points."""
    from rllab.cli.tables import table
    from rllab.evals.calibration import agreement, bins, contests, draw, read_proofs
    from rllab.evals.recordings import Problems

    problems = Problems()
    proofs = read_proofs(files, problems)
    tables = {"files": contests(proofs), "bins": bins(proofs, count), "all": [agreement(proofs, count)]}
    if figure:
        draw(tables["bins"], Path(figure))
    if as_json:
        print(json.dumps(tables))
    else:
        for rows in tables.values():
            table(rows, as_json)
            print()
    report(problems)


@verb()
def verify(
    run: Annotated[str, typer.Argument(help="A run that evaluates derivations: RUN, RUN@STEP, last.")],
    rows: Annotated[int, typer.Option(help="Test rows.", min=1)] = 999,
    base: Base = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Measure how well a model grades derivations.

    A row for each number of steps: how often the grade is right, and how often the flawed line is named.
    """
    from rllab.cli.tables import table
    from rllab.evals.proofs import verify as verify_rows
    from rllab.evals.run_sampler import RunSampler, initial_model

    initial = initial_model(run, runs, "leave --base out") if base else ""
    table(verify_rows(RunSampler(run, runs, initial), rows), as_json)


@verb()
def refine(
    run: Annotated[str, typer.Argument(help="A run that derives and evaluates itself: RUN, RUN@STEP, last.")],
    rounds: Annotated[int, typer.Option(help="Most refinements of a thread.", min=0)] = 4,
    samples: Annotated[int, typer.Option(help="Threads of each problem.", min=1)] = 8,
    problems: Annotated[int, typer.Option(help="Test problems.", min=1)] = 200,
    base: Base = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Measure what a model gains by refining its own derivations."""
    from rllab.cli.tables import table
    from rllab.evals.proofs import refine as refine_problems
    from rllab.evals.run_sampler import RunSampler, initial_model

    initial = initial_model(run, runs, "leave --base out") if base else ""
    table(list(refine_problems(RunSampler(run, runs, initial), rounds, problems, samples)), as_json)
