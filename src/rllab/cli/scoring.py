"""The verbs that score and compare."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from rllab.cli.app import SCORE, AsJson, Figure, Runs, Writes, app, report
from rllab.core.errors import Mistake
from rllab.core.messages import visible

Base = Annotated[bool, typer.Option("--base", help="Measure the model that its training began with.")]
verb = partial(app.command, rich_help_panel=SCORE)


@verb(cls=Writes)
def score(
    files: Annotated[
        list[Path], typer.Argument(help="JSONL with id, question, target, kind and completion; or logs of evaluations.")
    ],
    key: Annotated[
        str,
        typer.Option(
            help="Read the gold from this JSONL with id, target and kind, or from a task, and not from FILES."
        ),
    ] = "",
    kind: Annotated[
        str, typer.Option(help="number, choice, yesno, string or latex; by default the kind in each row.")
    ] = "",
    scorer: Annotated[str, typer.Option(help="rllab, kojima, bbh, or your own: mine.py:fn")] = "rllab",
    out: Annotated[str, typer.Option(help="Write the results to this file: JSONL, one row a sample.")] = "",
    hide_gold: Annotated[
        bool, typer.Option("--hide-gold", help="Leave the right answers out of the results and of what is printed.")
    ] = False,
    csv: Annotated[str, typer.Option(help="With --key: write the ranking of FILES to this file.")] = "",
    as_json: AsJson = False,
) -> None:
    """Score recorded completions; no model is needed."""
    from rllab.cli.tables import table
    from rllab.evals.keys import Key
    from rllab.evals.problems import Problems
    from rllab.evals.score import disagreements, write_results
    from rllab.evals.score import score as score_files
    from rllab.evals.summary import ranked, summaries, write_csv

    problems, outputs = Problems(), [Path(o) for o in (out, csv) if o]
    _check_files(files, key, csv, outputs)
    for path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)  # a folder that may not be written fails before the work
    gold = Key(key, kind or None, problems) if key else None
    scored, label = score_files(files, kind or None, scorer, problems, gold)
    if out:
        write_results(Path(out), scored, label, hide_gold)
    rows = ranked(summaries(scored, label)) if gold else summaries(scored, label)
    if csv:
        write_csv(Path(csv), rows)
    several = any(row["samples"] > row["items"] - row["missing"] for row in rows)
    table(rows if as_json else [_in_per_cent(row, several) for row in rows], as_json)
    if not as_json:
        lines = [f"key: {len(gold)} items ({gold.kinds})"] if gold else []
        print(visible("\n".join(lines + disagreements(scored, hide_gold))))
    report(problems)


def _check_files(files: list[Path], key: str, csv: str, outputs: list[Path]) -> None:
    """Raises a Mistake where files are named that cannot be right, such as the key among the submissions."""
    if csv and not key:
        raise Mistake("--csv ranks files by the same gold: name it by --key")
    if key and any(path.resolve() == Path(key).resolve() for path in files):
        raise Mistake(f"{key} is the key; leave it out of the files that are scored")
    for output in outputs:
        if any(output.resolve() == path.resolve() for path in [*files, Path(key)] if str(path) != "."):
            raise Mistake(f"{output} would overwrite what is scored: name another file")
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise Mistake("--out and --csv are the same file: name two")


def _in_per_cent(row: dict[str, Any], several: bool) -> dict[str, str]:
    """A row of `summaries` for the table. several: some items have several samples."""
    low, high = (f"{100 * bound:.1f}" for bound in row["interval"])
    share = {k: f"{100 * row[k]:.1f}" for k in ("accuracy", "unanswered", "strict", "lenient", "majority")}
    cells = {"rank": str(row["rank"]), "missing": str(row["missing"])} if "rank" in row else {}
    cells |= {"file": visible(row["file"]), "kind": row["kind"], "items": str(row["items"])}
    if several:
        cells |= {"samples": str(row["samples"]), "pass@k": f"{100 * row['pass_at_k'][-1]:.1f} (k = {row['k']})"}
        cells |= {"majority": share["majority"] + f" ({row['ties']} tied)" * bool(row["ties"])}
    return cells | {
        f"accuracy by {row['scorer']}": f"{share['accuracy']} [{low}, {high}]",
        "no answer": share["unanswered"],
        f"{row['own scorer']}: strict": share["strict"],
        "lenient": share["lenient"],
    }


@verb()
def compare(
    what: Annotated[
        list[str],
        typer.Argument(help="Runs or groups of runs, such as 'a-s*' or cartpole seed=0..4; or files of results."),
    ],
    of: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="A metric of runs to compare beside evaluations, such as rollout/tokens; may be repeated."),
    ] = None,
    figure: Figure = "",
    over: Annotated[str, typer.Option(help="The horizontal axis of the figure: step, or time/total.")] = "step",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Compare runs, or results: is it more than chance?

    Runs, each a name, a folder or RUN@STEP, and groups of runs over seeds, each compared with the first: settings that
    differ, evaluations with intervals over seeds, cost. Files of results (score or eval --out): for every two, items
    gained and lost. rllab ladder rates checkpoints that play a board game.
    """
    files = [w for w in what if Path(w).is_file() or Path(w).suffix in (".jsonl", ".json", ".gz")]
    if over != "step" and not figure:
        raise Mistake("--over is the axis of a figure; give --figure FILE as well")
    if not files:
        _runs(what, runs, tuple(of or ()), (figure, over), as_json)
    elif len(files) == len(what):
        if figure or of:
            raise Mistake(f"--{'figure' if figure else 'of'} is for runs, and {files[0]} is a file of results")
        _results([Path(file) for file in files], as_json)
    else:
        other = next(w for w in what if w not in files)
        raise Mistake(f"{files[0]} is a file of results and {other} is none: name such files, or runs alone")


def _runs(words: list[str], runs: Path, of: tuple[str, ...], drawn: tuple[str, str], as_json: bool) -> None:
    import sys

    from rllab.cli.run_tables import as_lines
    from rllab.cli.screen import room
    from rllab.evals.run_comparison import as_plain, compare_runs, draw_comparison

    compared = compare_runs(words, runs, of)
    print(json.dumps(as_plain(compared)) if as_json else "\n".join(as_lines(compared, room())))
    figure, over = drawn
    if figure:
        draw_comparison(compared, Path(figure), over)
        print(f"{figure} is written", file=sys.stderr)


def _results(files: list[Path], as_json: bool) -> None:
    from rllab.cli.tables import table
    from rllab.evals.comparison import HOW, compare, table_of
    from rllab.evals.problems import Problems

    problems = Problems()
    comparisons = compare(files, problems)
    if as_json:
        rows = [c.as_row() for c in comparisons]
        print(json.dumps(rows if len(rows) > 1 else rows[0]))
    elif len(comparisons) == 1:
        print(comparisons[0].as_text())
    else:
        table(table_of(comparisons), as_json)
        print(HOW.format(pairs=len(comparisons), items=comparisons[0].items))
    report(problems)


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
    from rllab.evals.problems import Problems

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
