"""Verbs about recorded answers."""

from pathlib import Path
from typing import Annotated

import typer

from rllab.cli.app import AsJson, app, tell


@app.command()
def score(
    files: Annotated[list[Path], typer.Argument(help="JSONL with id, question, target, kind and completion.")],
    kind: Annotated[str, typer.Option(help="number, choice, yesno, string or latex; by default the rows say it.")] = "",
    scorer: Annotated[str, typer.Option(help="rllab, kojima, bbh, or your own: mine.py:fn")] = "rllab",
    out: Annotated[str, typer.Option("--json", help="A file for the results: JSONL, one row an item.")] = "",
) -> None:
    """Score recorded completions, without a model."""
    from rllab.evals.recordings import Problems
    from rllab.evals.score import disagreements, summaries, write_results
    from rllab.evals.score import score as score_files
    from rllab.tables import table

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
def compare(
    a: Annotated[Path, typer.Argument(help="Results of rllab score --json.")],
    b: Annotated[Path, typer.Argument(help="Results over the same items.")],
    as_json: AsJson = False,
) -> None:
    """Compare two results over the same items: what B gained and lost, and whether that is more than chance."""
    from rllab.evals.recordings import Problems
    from rllab.evals.score import compare as compare_files

    problems = Problems()
    found = compare_files(a, b, problems)
    print(found.as_json() if as_json else found.as_text(a, b))
    tell(problems)
