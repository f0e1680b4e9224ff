"""The verbs for language models and their rewards."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from rllab.cli.app import LANGUAGE, AsJson, Figure, ModelName, Runs, app
from rllab.core.errors import Mistake
from rllab.core.messages import visible

verb = partial(app.command, rich_help_panel=LANGUAGE)


@verb()
def chat(
    model: ModelName,
    base: Annotated[bool, typer.Option("--base", help="Also show the replies of its base model.")] = False,
    style: Annotated[str, typer.Option(help="Style of the replies: direct, think or free.")] = "free",
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of a reply.")] = 256,
    runs: Runs = Path("runs"),
) -> None:
    """Chat with a language model; its thinking is folded away."""
    from rllab.cli.talk import talk, typed
    from rllab.core.load import model_folder

    talk(model_folder(model, runs), base, style, max_new_tokens, typed(), print)


@verb()
def samples(
    run: Annotated[str, typer.Argument(help="A run of a language model.")],
    worst: Annotated[bool, typer.Option("--worst", help="Show the lowest-scored first.")] = False,
    count: Annotated[int, typer.Option("-n", min=1, help="Number of completions.")] = 5,
    step: Annotated[Optional[int], typer.Option(help="The evaluation's step; by default the last.")] = None,  # noqa: UP045
    runs: Runs = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
) -> None:
    """Show the completions of a run's last evaluation."""
    from rllab.cli.samples import samples as samples_of
    from rllab.cli.samples import shown

    for sample in samples_of(run, runs, worst, count, step):
        print(visible(json.dumps(sample, ensure_ascii=False)) if as_json else shown(sample) + "\n")


@verb()
def merge(
    model: ModelName,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Of the written weights; auto: that of the base's."),
    ] = "auto",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Merge LoRA adapters into their base model, as a new folder.

    Of a run's adapters the folder also has a model card.
    """
    from rllab.board.cards import card, origin
    from rllab.core.load import model_folder
    from rllab.text.open import merge as merge_adapters

    folder = model_folder(model, runs)
    difference = merge_adapters(folder, out, dtype)
    if of_run := origin(Path(folder)):
        (out / "README.md").write_text(card(*of_run, out, out.name), encoding="utf-8")
    if as_json:
        print(json.dumps({"out": str(out), "largest_difference": difference}))
        return
    print(f"{out}: merged; the largest difference of a logit is {difference:.1e}")


@verb()
def reward(
    name: Annotated[str, typer.Argument(help="As in a recipe: accuracy, run:NAME, '{name: mine.py:fn, scale: 2}'")],
    on: Annotated[str, typer.Option(help="A run whose rollouts are scored.")] = "",
    task: Annotated[
        str,
        typer.Option(help="A task, as in a recipe. Each row's gold answer is scored, and those of other rows."),
    ] = "",
    model: Annotated[
        str, typer.Option(help="With --task: score answers that this model samples; a run, run:NAME or a folder.")
    ] = "",
    step: Annotated[Optional[int], typer.Option(help="The round of the rollouts; by default the last.")] = None,  # noqa: UP045
    count: Annotated[int, typer.Option("-n", help="Number of best and of worst completions to show.")] = 3,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Measure a reward on existing completions, before training."""
    from rllab.cli.tables import values
    from rllab.core.load import model_folder
    from rllab.evals.reward import described, extremes, of_run, of_task, read_reward, read_task, report
    from rllab.text.open import open_model

    if bool(on) == bool(task) or (on and model):
        raise Mistake("say where the answers come from: --on RUN, or --task NAME, and with it perhaps --model NAME")
    rewards = read_reward(name, runs)
    policy = model or (on if rewards.see_the_policy else "")
    lm = open_model(model_folder(policy, runs)) if policy else None
    if lm is not None:
        rewards.begin(lm)
    answers = of_run(on, runs, step) if on else of_task(read_task(task), lm)
    measured = report(rewards, *answers)
    if as_json:
        values(measured, as_json)
        return
    values(described(measured), as_json)
    print(visible("\n".join(extremes(rewards, *answers, count))))


@verb()
def winrate(
    run: Annotated[list[str], typer.Argument(help="Runs of language models that answer.")],
    against: Annotated[
        str, typer.Option(help="The other model: a run, run:NAME, a folder; by default each run's initial model.")
    ] = "",
    by: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="The judge: gold, or a reward as in a recipe, such as run:reward-model; may be repeated."),
    ] = None,
    prompts: Annotated[int, typer.Option(help="Test prompts that both answer.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the answers, sampled at temperature 1.")] = 0,
    figure: Figure = "",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Measure how often a run's answers are preferred to another's."""
    from rllab.cli.tables import table
    from rllab.evals.win_rate import GOLD, draw, play, result

    matches = [play(name, against, prompts, seed, runs) for name in run]
    rows = [result(match, judge, seed, runs) for match in matches for judge in by or [GOLD]]
    if figure:
        draw(rows, Path(figure))
    table(rows, as_json)


@verb()
def overoptimise(
    run: Annotated[list[str], typer.Argument(help="Runs that learn from rewards, of one task.")],
    best_of: Annotated[
        int,
        typer.Option(
            help="Add rows for the best of 1, 2, 4, ... up to this many answers of the first run's initial model."
        ),
    ] = 0,
    prompts: Annotated[int, typer.Option(help="Held-out prompts for --best-of.")] = 100,
    figure: Figure = "",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show reward and gold score over the KL to the first model."""
    from rllab.cli.tables import table
    from rllab.core.runs import find_run
    from rllab.evals.over_optimisation import best_of_n, draw, of_run

    folders = [find_run(name, runs) for name in run]
    rows = [row for folder in folders for row in of_run(folder)]
    if best_of:
        rows += best_of_n(folders[0], best_of, prompts)
    if figure:
        draw(rows, Path(figure))
    table(rows, as_json)
