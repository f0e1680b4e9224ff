"""The verb that measures how far policy gradients scatter."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rllab.cli.app import LOOK, AsJson, Figure, Runs, app


@app.command("variance", rich_help_panel=LOOK)
def variance(
    models: Annotated[list[str], typer.Argument(help="Runs of Reinforce: RUN, RUN@STEP, last, or RUN@* for all kept.")],
    episodes: Annotated[int, typer.Option(help="Episodes of each policy, the same for all baselines.")] = 128,
    seed: Annotated[int, typer.Option(help="Of the episodes.")] = 0,
    figure: Figure = "",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Measure the variance of policy gradients under each baseline.

    The policy of each checkpoint plays episodes; the gradients of single episodes are compared under all
    baselines of REINFORCE. The figure shows the trace of their covariance over the length of episodes.
    """
    from rllab.cli.evaluation import check_outputs
    from rllab.cli.tables import table
    from rllab.core.load import checkpoints
    from rllab.evals.variance import variances

    check_outputs("", figure, [])
    names = checkpoints(models, runs)
    rows: list[dict[str, Any]] = [row for name in names for row in variances(name, runs, episodes, seed)]
    table(rows, as_json)
    if figure:
        from rllab.evals.variance_figure import draw

        draw(rows, Path(figure))
