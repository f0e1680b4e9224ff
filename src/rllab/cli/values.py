"""The verb that shows what a table has learned."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rllab.cli.app import LOOK, AsJson, Figure, Runs, app


@app.command("values", rich_help_panel=LOOK)
def values(
    models: Annotated[list[str], typer.Argument(help="Runs of Tabular: RUN, RUN@STEP, last.")],
    figure: Figure = "",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Compare a table of action values with the optimum.

    The figure has a panel a run: on a grid the value of each state as colour and the greedy action as
    an arrow; otherwise the learned values against the optimal ones.
    """
    from rllab.cli.evaluation import check_outputs
    from rllab.cli.tables import table
    from rllab.evals.values import learned, summary

    check_outputs("", figure, [])
    maps = [learned(name, runs) for name in models]
    rows: list[dict[str, Any]] = [summary(each) for each in maps]
    table(rows, as_json)
    if figure:
        from rllab.evals.values_figure import draw

        draw(maps, Path(figure))
