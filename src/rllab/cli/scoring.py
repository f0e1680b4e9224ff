"""Verbs about recorded answers."""

import json
from pathlib import Path
from typing import Annotated

import typer

from rllab.cli.app import AsJson, Runs, app, numbers, shown, tell
from rllab.core.errors import Mistake


@app.command()
def score(
    files: Annotated[list[Path], typer.Argument(help="JSONL with id, question, target, kind and completion.")],
    kind: Annotated[str, typer.Option(help="number, choice, yesno, string or latex; by default the rows say it.")] = "",
    scorer: Annotated[str, typer.Option(help="rllab, kojima, bbh, or your own: mine.py:fn")] = "rllab",
    out: Annotated[str, typer.Option("--json", help="A file for the results: JSONL, one row an item.")] = "",
) -> None:
    """Score recorded completions, without a model."""
    from rllab.cli.tables import table
    from rllab.evals.recordings import Problems
    from rllab.evals.score import disagreements, summaries, write_results
    from rllab.evals.score import score as score_files

    problems = Problems()
    Path(out).parent.mkdir(parents=True, exist_ok=True)  # a folder that may not be written is told before the work
    scored, label = score_files(files, kind or None, scorer, problems)
    if out:
        write_results(Path(out), scored, label)
    table(summaries(scored, label), False)
    for line in disagreements(scored):
        print(line)
    tell(problems)


@app.command()
def calibration(
    files: Annotated[list[Path], typer.Argument(help="JSONL as DeepSeekMath-V2 published its proofs.")],
    count: Annotated[int, typer.Option("--bins", help="Ranges of the verifier's score, evenly wide.", min=1)] = 10,
    figure: Annotated[str, typer.Option(help="A file for a figure, such as calibration.svg.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show what a verifier's scores of proofs are worth, beside the points that people gave them."""
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
            table([{k: shown(v) for k, v in row.items()} for row in rows], False)
            print()
    tell(problems)


@app.command()
def compare(
    what: Annotated[
        list[str], typer.Argument(help="Two results of rllab score --json; or runs that play a board game.")
    ],
    simulations: Annotated[str, typer.Option(help="Of a run's search, several with commas; 0: policy alone.")] = "0,64",
    uct: Annotated[str, typer.Option(help="Simulations of UCT, which plays too, several with commas.")] = "",
    games: Annotated[int, typer.Option(help="Games of each two players.", min=1)] = 40,
    most: Annotated[int, typer.Option("--checkpoints", help="Of a RUN without @STEP, at most.", min=1)] = 8,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Compare two results: gained, lost, and is it chance? Or let checkpoints play each other: an Elo ladder."""
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
    found = compare_files(a, b, problems)
    print(found.as_json() if as_json else found.as_text(a, b))
    tell(problems)


def _ladder(
    words: list[str], runs: Path, simulations: list[int], uct: list[int], games: int, most: int, as_json: bool
) -> None:
    from rllab.cli.tables import table
    from rllab.evals.ladder import HOW, checkpoints, entrants, few, ladder

    names = checkpoints(words, runs, most)
    rows = ladder(*entrants(names, runs, simulations, uct), games)
    table(rows if as_json else [{k: shown(v) for k, v in row.items()} for row in rows], as_json)
    if not as_json:
        print("\n".join([HOW, *few(words, names)]))
