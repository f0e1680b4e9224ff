"""The verb that shows what it costs to keep a limit."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from rllab.cli.app import LOOK, AsJson, Figure, Runs, app


@app.command("pareto", rich_help_panel=LOOK)
def pareto(
    models: Annotated[list[str], typer.Argument(help="Runs of MPC: RUN, RUN@STEP, last.")],
    set_points: Annotated[str, typer.Option(help="Set points, with commas between.")] = "22,23,24,25,26",
    scenarios: Annotated[int, typer.Option(min=1, help="Scenarios, the same for every controller.")] = 12,
    figure: Figure = "",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Compare what controllers cost and how often they miss a limit.

    Each run's controller is measured at several set points, because at one alone the less careful looks
    cheap. Beside them: the controller that the plant has, and planning with the plant itself, a bound.
    """
    from rllab.cli.evaluation import check_outputs
    from rllab.cli.tables import table
    from rllab.evals.pareto import curves

    check_outputs("", figure, [])
    points = curves(models, runs, set_points, scenarios)
    rows: list[dict[str, Any]] = [asdict(p) for p in points]
    table(rows, as_json)
    if figure:
        from rllab.evals.pareto_figure import draw

        draw(points, Path(figure))
