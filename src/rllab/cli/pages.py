"""The verbs that show runs as pages."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Optional

import typer

from rllab.cli.app import LOOK, Runs, app
from rllab.core.errors import Mistake

verb = partial(app.command, rich_help_panel=LOOK)


@verb()
def report(
    run: Annotated[
        list[str], typer.Argument(help="Runs: name, folder, last, or a group such as 'a*' or cartpole seed=0..4.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("report.html"),
    figures: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A folder for the figures of the report, each as PDF, SVG and PNG.", metavar="DIR"),
    ] = None,
    over: Annotated[str, typer.Option(help="The horizontal axis of figures: step, or data/tokens.")] = "step",
    runs: Runs = Path("runs"),
) -> None:
    """Write a page of runs: curves, results, samples, diagnosis.

    It is one file that loads nothing: open it from the disk, or mail it. With --figures DIR its curves are also written
    as files for a write-up, named by their metrics.
    """
    from rllab.board.report import Report
    from rllab.core.files import check_place, write_atomic
    from rllab.evals.run_groups import read_groups

    check_place(out, "--out")
    groups, notes = read_groups(run, runs, least=1)
    shown = Report(groups, notes)
    if figures is not None:
        shown.check_figures(figures, over)
    elif over != "step":
        raise Mistake("--over is the axis of figures; give --figures DIR as well. The page has a choice of axes")
    write_atomic(out, shown.page())
    count = len(shown.runs)
    print(f"{out}: {count} {'run' if count == 1 else 'runs'}, {out.stat().st_size / 1000:.0f} kB")
    if figures is not None:
        written = shown.write_figures(figures, over)
        print(f"{figures}: {len(written) // 3} figures, each as PDF, SVG and PNG")


@verb()
def board(
    runs: Runs = Path("runs"),
    port: Annotated[int, typer.Option(help="The port; by default the first free one from 8000 on.")] = 0,
) -> None:
    """Show the runs in a folder in a browser, live, until Ctrl-C.

    It answers on this machine alone, and with its token alone. On a cluster it prints the line to type on your own
    machine.
    """
    from rllab.board.serve import serve

    serve(runs, port, say=lambda line: print(line, flush=True))
    sys.exit(0)
