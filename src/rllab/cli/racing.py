"""The verb that lets drivers race on one track."""

from pathlib import Path
from typing import Annotated

import typer

from rllab.cli.app import LOOK, AsJson, Figure, Runs, app


@app.command("race", rich_help_panel=LOOK)
def race(
    models: Annotated[list[str] | None, typer.Argument(help="Runs in the racing environment: RUN, RUN@STEP.")] = None,
    track: Annotated[str, typer.Option(help="The track: home, or mirror; by default that of the first run.")] = "",
    cars: Annotated[int, typer.Option(min=1, max=1000, help="Cars of each driver, and as many starts.")] = 32,
    figure: Figure = "",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Compare the lap times of racing drivers.

    Runs drive beside two references that know the track: a tuned controller on the centre line, and
    on the fastest line that a search finds. The figure has the lines from above, coloured by speed,
    and the lap times in training.
    """
    from rllab.cli.evaluation import check_outputs
    from rllab.cli.tables import table
    from rllab.evals.racing import race as drive

    check_outputs("", figure, [])
    names = models or []
    driven = drive(names, track or None, cars, runs)
    table(driven.rows(), as_json)
    if figure:
        from rllab.evals.racing_figure import draw, training

        draw(driven, training(names, runs), Path(figure))
