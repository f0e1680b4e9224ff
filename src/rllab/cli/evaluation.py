"""The verb that evaluates models on tasks."""

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from rllab.cli.app import LANGUAGE, AsJson, Figure, Runs, Writes, app
from rllab.core.errors import Mistake, Stopped
from rllab.core.messages import visible
from rllab.core.stop import Stop

if TYPE_CHECKING:
    from rllab.evals.evaluation import Plan
    from rllab.evals.items import Items
    from rllab.evals.outcome import Outcome


@app.command("eval", cls=Writes, rich_help_panel=LANGUAGE)
def evaluation(
    models: Annotated[
        list[str],
        typer.Argument(help="Runs (RUN, RUN@STEP, RUN@*, run:NAME), folders, names on the hub."),
    ],
    task: Annotated[
        list[str], typer.Option(help="Benchmarks, tasks as in a recipe, or files: gsm8k, mine.yaml, mine.jsonl.")
    ],
    style: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="How the model is asked: direct, zero-shot-cot, mine.yaml, '{name: budget, extensions: 2}'; several "
            "with commas. By default what fits the task."
        ),
    ] = None,
    samples: Annotated[
        Optional[int], typer.Option(help="Replies to each item, sampled at temperature 0.7.", min=1)  # noqa: UP045
    ] = None,
    temperature: Annotated[Optional[float], typer.Option(help="Of the replies; 0: the likeliest tokens.")] = None,  # noqa: UP045
    max_new_tokens: Annotated[Optional[int], typer.Option(help="Most tokens of a reply.", min=1)] = None,  # noqa: UP045
    limit: Annotated[Optional[int], typer.Option(help="The first items of each task.", min=1)] = None,  # noqa: UP045
    salt: Annotated[str, typer.Option(help="A secret: ask a generated twin of the task, of equal difficulty.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the samples.", min=0)] = 0,
    cache: Annotated[bool, typer.Option(help="Read replies that were sampled before.")] = True,
    out: Annotated[str, typer.Option(help="Write the transcripts to this file: JSONL, one row a reply.")] = "",
    audit: Annotated[
        bool, typer.Option("--audit", help="Change the reasoning, and tell whether the answers depend on it.")
    ] = False,
    hide_gold: Annotated[
        bool, typer.Option("--hide-gold", help="Leave the right answers out of the transcripts and of what is printed.")
    ] = False,
    figure: Figure = "",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Evaluate language models on tasks, directly or with reasoning.

    A row for each model, task and style. Replies are kept, so that the same command goes on where it was stopped.
    """
    stop = Stop()
    for name in ("SIGTERM", "SIGUSR1", "SIGUSR2"):  # every reply that has ended is kept already: nothing is waited for
        if threading.current_thread() is threading.main_thread() and hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    from rllab.core.load import checkpoints
    from rllab.evals.evaluation import Plan
    from rllab.evals.items import expand, open_items
    from rllab.evals.replies import cache_folder
    from rllab.evals.style import read_style

    given = {"samples": samples, "temperature": temperature, "max_new_tokens": max_new_tokens}
    changes = {name: value for name, value in given.items() if value is not None}
    tasks = [open_items(name, limit, salt) for name in expand(_named(task))]
    styles = [read_style(name, changes) for name in _named(style or ["audit" if audit else _fitting(tasks)])]
    check_outputs(out, figure, task)
    kept = cache_folder() if cache else None
    file = Path(out) if out else None
    plan = Plan(checkpoints(models, runs), tasks, styles, runs, kept, file, seed, say, stop, hide_gold)
    if audit:
        from rllab.cli.audits import show as show_audits
        from rllab.evals.audit import audits
        from rllab.evals.audit_figure import draw as draw_audits

        _run(plan, audits, lambda _, rows: show_audits(rows), draw_audits, figure, as_json)
    else:
        from rllab.evals.evaluation import evaluate
        from rllab.evals.outcome_figure import draw

        _run(plan, evaluate, show, draw, figure, as_json)


def check_outputs(out: str, figure: str, tasks: list[str]) -> None:
    """Raises a Mistake where a file cannot be written, before the work."""
    if figure and Path(figure).suffix not in (".svg", ".png", ".pdf"):
        raise Mistake(f"--figure {figure}: name a file that ends with .svg, .png or .pdf")
    for option, name in (("out", out), ("figure", figure)):
        if not name:
            continue
        if Path(name).is_dir():
            raise Mistake(f"--{option} {name} is a folder: name a file")
        if any(Path(task).exists() and Path(task).samefile(name) for task in _named(tasks) if Path(name).exists()):
            raise Mistake(f"--{option} {name} would overwrite a task: name another file")
        try:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Mistake(f"--{option} {name}: its folder cannot be made: {error.strerror}") from None


def _run(
    plan: "Plan",
    measure: Callable[["Plan", list[str]], Iterator[Any]],
    show: Callable[[list[Any], list[dict[str, Any]]], None],
    draw: Callable[[list[dict[str, Any]], Path], None],
    figure: str,
    as_json: bool,
) -> None:
    """Evaluates, and shows what was reached, also where a part failed or a stop was requested."""
    outcomes, rows, faults = list[Any](), list[dict[str, Any]](), list[str]()
    stopped: Stopped | None = None
    try:
        for outcome in measure(plan, faults):
            outcomes.append(outcome)
            rows.append(outcome.row())
            if as_json:
                print(json.dumps(rows[-1]), flush=True)
    except KeyboardInterrupt:
        stopped = Stopped("the same command samples what is missing", plan.stop.rounds)
    except Stopped as error:
        stopped = error
    if rows and not as_json:
        show(outcomes, rows)
    if rows and figure:
        draw(rows, Path(figure))
    if stopped or faults:
        raise stopped or Mistake("\n".join(faults))


def say(line: str) -> None:
    """Prints a line of progress, or a remark."""
    print(visible(line), file=sys.stderr)


def _named(words: list[str]) -> list[str]:
    """The names of tasks or styles: those with commas between them, and settings in braces as they are."""
    return [name.strip() for word in words for name in ([word] if "{" in word else word.split(",")) if name.strip()]


def _fitting(tasks: list["Items"]) -> str:
    """The style of tasks where none is named."""
    if all(t.texts for t in tasks):
        return "perplexity"
    return "choice" if all(t.items and all(i.complete for i in t.items) for t in tasks) else "direct"


def show(outcomes: list["Outcome"], rows: list[dict[str, Any]]) -> None:
    """Prints a table, the curves of its rows, and the items on which strict and lenient reading disagree."""
    from rllab.cli.size_tables import show as show_sizes
    from rllab.cli.tables import table, values
    from rllab.evals.score import disagreements

    graded = [row for row in rows if row.get("accuracy") is not None]
    for row in rows:
        if row.get("accuracy") is None:
            values({k: v for k, v in row.items() if v is not None and k not in ("decoding",)}, as_json=False)
    if not graded:
        return
    several = any(row["k"] > 1 for row in graded)
    table([_in_per_cent(row, several) for row in graded], as_json=False)
    for row in graded:
        if "curve" in row:
            print(f"\n{visible(row['model'])} on {row['task']}, {row['style']}")
            table([_point(point) for point in row["curve"]], as_json=False)
    show_sizes(graded)
    for row in graded:
        if "scaling" in row:
            print(visible(f"{row['model']} on {row['task']}, {row['style']}: {law(row['scaling'])}"))
    for row in graded:
        if gain := row.get("gain"):
            low, high = (f"{100 * bound:+.1f}" for bound in gain["interval"])
            what = f"{row['model']} on {row['task']}: {row['style']} over {gain['over']}"
            print(visible(f"{what} {100 * gain['difference']:+.1f} points [{low}, {high}], paired by item"))
    files = [outcome.file(outcome.style.points[-1]) for outcome in outcomes if outcome.asked]
    print(visible("\n".join(disagreements(files, any(outcome.hide_gold for outcome in outcomes)))))


def _in_per_cent(row: dict[str, Any], several: bool) -> dict[str, str]:
    share = {k: f"{100 * row[k]:.1f}" for k in ("accuracy", "unanswered", "truncated", "majority", "strict")}
    cells = {"model": visible(row["model"]), "task": row["task"], "style": row["style"], "items": str(row["items"])}
    cells |= {f"accuracy by {row['scorer']}": _accuracy(row), "no answer": share["unanswered"]}
    cells |= {"cut off": share["truncated"], "tokens": f"{row['tokens']:.1f}", "strict": share["strict"]}
    if several:
        cells |= {"pass@k": f"{100 * row['pass_at_k'][-1]:.1f} (k = {row['k']})"}
        cells |= {"majority": share["majority"] + f" ({row['ties']} tied)" * bool(row["ties"])}
    return cells


def law(scaling: dict[str, Any]) -> str:
    """The power law of coverage in words, or why there is none. scaling: from `rllab.evals.scaling`."""
    from rllab.cli.results import bracketed

    fit = scaling["power_law"]
    if fit is None:
        return f"no power law; {scaling['no_power_law']}"
    (a, b), last = (bracketed(fit[f"interval_{x}"], 3) for x in "ab"), fit["predicted"][-1]
    return (
        f"coverage = exp(a k^b), a {fit['a']:.3g} {a}, b {fit['b']:.3g} {b}, mean error {fit['error']:.2g}; "
        f"{last['coverage']:.3g} {bracketed(last['interval'], 3)} at {last['k']} samples"
    )


def _point(point: dict[str, Any]) -> dict[str, str]:
    cells = {"budget": str(point["budget"]), "extensions": str(point["extensions"]), "accuracy": _accuracy(point)}
    return cells | {"tokens": f"{point['tokens']:.1f}", "cut off": f"{100 * point['truncated']:.1f}"}


def _accuracy(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    return f"{100 * row['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
