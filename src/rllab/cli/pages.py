"""The verbs that show runs as pages."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from rllab.cli.app import LOOK, Runs, app
from rllab.core.errors import Mistake

verb = partial(app.command, rich_help_panel=LOOK)


@verb()
def report(
    run: Annotated[list[str], typer.Argument(help="Runs: name, folder, or last.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("report.html"),
    runs: Runs = Path("runs"),
) -> None:
    """Write a page of runs: curves, results, samples, diagnosis.

    It is one file that loads nothing: open it from the disk, or mail it.
    """
    from rllab.board.report import report as page
    from rllab.core.files import write_atomic
    from rllab.core.run import find_run

    folders = list({folder.path: folder for name in run for folder in [find_run(name, runs)]}.values())
    if not out.absolute().parent.is_dir():
        raise Mistake(f"{out}: there is no folder {out.absolute().parent}; make it first")
    write_atomic(out, page(folders))
    print(f"{out}: {len(folders)} {'run' if len(folders) == 1 else 'runs'}, {out.stat().st_size / 1000:.0f} kB")


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
