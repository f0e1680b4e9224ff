"""The verb that draws accuracy over training and over test-time tokens."""

import json
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from rllab.cli.app import LANGUAGE, AsJson, Figure, Runs, app
from rllab.core.errors import Mistake, Stopped
from rllab.core.messages import visible
from rllab.core.stop import Stop


@app.command(rich_help_panel=LANGUAGE)
def reasoning(
    run: Annotated[str, typer.Argument(help="A run with several checkpoints, as of GRPO: RUN, run:NAME.")],
    rank_by: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="Take the best of k samples by this reward: run:reward-pocket, brevity, "
            "'{name: verifier, model: run:verifier-pocket}'; may be repeated."
        ),
    ] = None,
    task: Annotated[str, typer.Option(help="A task, as for eval; by default that of the run.")] = "",
    samples: Annotated[int, typer.Option(help="Most samples of an item.", min=2)] = 16,
    temperature: Annotated[float, typer.Option(help="Of the samples.", min=0.01)] = 1.0,
    limit: Annotated[int, typer.Option(help="The first items of the task.", min=2)] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the samples.", min=0)] = 0,
    cache: Annotated[bool, typer.Option(help="Read replies that were sampled before.")] = True,
    figure: Figure = "",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Measure accuracy over training and over test-time tokens.

    The two curves of 'Learning to Reason with LLMs': the checkpoints of a run; and of the last of them a budget of
    reasoning, majority voting over k samples, and the best of k by each ranker.
    """
    from rllab.cli.evaluation import check_outputs, say
    from rllab.evals.evaluation import Plan
    from rllab.evals.ranking import open_rankers
    from rllab.evals.reasoning import measure, styles_of, task_of, trained_models
    from rllab.evals.reasoning_figure import draw
    from rllab.evals.replies import cache_folder

    check_outputs("", figure, [task] if task else [])
    models, base = trained_models(run, runs)
    items = task_of(run, task, limit, runs)
    rankers = open_rankers(rank_by or [], models[-1], runs)
    kept = cache_folder() if cache else None
    plan = Plan(models, [items], styles_of(items, samples, temperature), runs, kept, None, seed, say, Stop())
    faults = list[str]()
    try:
        measured = measure(plan, base, rankers, faults)
    except KeyboardInterrupt:
        raise Stopped("the same command samples what is missing" if cache else "nothing was kept", 0) from None
    if measured is None:
        raise Mistake("\n".join(faults))
    row = measured.row()
    print(json.dumps(row)) if as_json else show(row)
    if figure:
        draw(row, Path(figure))


def show(row: dict[str, Any]) -> None:
    """Prints a table of each panel, and the gains."""
    from rllab.cli.tables import table

    print(visible(f"{row['run']} on {row['items']} items of {row['task']}\n"))
    train, base = row["train"], row["base"]
    begun = [{"step": "0", "accuracy": _share(base, 0), "tokens": f"{base['tokens'][0]:.1f}"}] if base else []
    along = [
        {"step": f"{step:g}", "accuracy": _share(train, i), "tokens": f"{train['tokens'][i]:.1f}"}
        for i, step in enumerate(train["x"])
    ]
    table(begun + along, as_json=False)
    print()
    sampled = [curve for curve in row["test"] if "k" in curve]
    ks = [i for i, k in enumerate(sampled[0]["k"]) if not k & (k - 1) or k == len(sampled[0]["k"])]
    table(
        [
            {"k": str(i + 1), "tokens": f"{sampled[0]['x'][i]:.1f}"} | {c["name"]: _share(c, i) for c in sampled}
            for i in ks
        ],
        as_json=False,
    )
    print()
    budgets = [curve for curve in row["test"] if "k" not in curve]
    for curve in budgets:
        table([{"tokens of reasoning and answer": f"{x:.1f}", curve["name"]: _share(curve, i)}
               for i, x in enumerate(curve["x"])], as_json=False)  # fmt: skip
    print()
    for curve in (train, *row["test"]):
        if slope := curve["per_doubling"]:
            print(visible(f"{curve['name']}: {_points(slope['slope'], slope['interval'])} points for each doubling"))
    for gain in row["gains"]:
        print(visible(f"{gain['name']} over {gain['over']}: {_points(gain['difference'], gain['interval'])} points"))


def _share(curve: dict[str, Any], place: int) -> str:
    low, high = curve["interval"][place]
    return f"{100 * curve['accuracy'][place]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _points(difference: float, interval: list[float]) -> str:
    return f"{100 * difference:+.1f} [{100 * interval[0]:+.1f}, {100 * interval[1]:+.1f}]"
