"""Verbs about language models, and about rewards of what they say."""

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from rllab.cli.app import AsJson, ModelName, Runs, app, shown
from rllab.core.errors import Mistake


@app.command("eval")
def evaluate(model: ModelName, file: Path, runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """What a model finds likely: multiple choice (prompt, choices, answer) or perplexity (text) of a JSONL file."""
    from rllab.core.load import model_folder
    from rllab.evals.likelihood import evaluate_file
    from rllab.text.open import open_model

    found = evaluate_file(open_model(model_folder(model, runs)), file)
    print(json.dumps(found) if as_json else "\n".join(f"{k:<18} {shown(v)}" for k, v in found.items()))


@app.command()
def merge(
    model: ModelName, out: Annotated[Path, typer.Option(help="The folder to write.")], runs: Runs = Path("runs")
) -> None:
    """Write a model with its LoRA adapters in its weights, as an ordinary Hugging Face folder."""
    from rllab.core.load import model_folder
    from rllab.text.open import merge as merge_adapters

    difference = merge_adapters(model_folder(model, runs), out)
    print(f"{out}: merged; the largest difference of a logit is {difference:.1e}")


@app.command()
def chat(
    model: ModelName,
    base: Annotated[bool, typer.Option(help="Show what its base says, too.")] = False,
    style: Annotated[str, typer.Option(help="direct, think or free")] = "free",
    max_new_tokens: int = 256,
    runs: Runs = Path("runs"),
) -> None:
    """Talk to a language model; its thinking is folded away."""
    from rllab.cli.talk import talk, typed
    from rllab.core.load import model_folder

    talk(model_folder(model, runs), base, style, max_new_tokens, typed(), print)


@app.command()
def samples(
    run: Annotated[str, typer.Argument(help="A run of a language model.")],
    worst: Annotated[bool, typer.Option(help="Those of the lowest score first.")] = False,
    count: Annotated[int, typer.Option("-n", help="How many.")] = 5,
    step: Annotated[Optional[int], typer.Option(help="Of which evaluation; by default the last.")] = None,  # noqa: UP045
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show what a language model answered when its run was last evaluated."""
    from rllab.cli.talk import samples as found
    from rllab.cli.talk import shown

    for sample in found(run, runs, worst, count, step):
        print(json.dumps(sample, ensure_ascii=False) if as_json else shown(sample) + "\n")


@app.command()
def reward(
    name: Annotated[str, typer.Argument(help="As in a recipe: accuracy, run:NAME, '{name: mine.py:fn, scale: 2}'")],
    on: Annotated[str, typer.Option(help="A run whose rollouts are paid.")] = "",
    task: Annotated[
        str, typer.Option(help="A task, as in a recipe, whose gold answers are paid, beside those of other rows.")
    ] = "",
    model: Annotated[
        str, typer.Option(help="With --task: a model whose answers are paid, a run, run:NAME or a folder.")
    ] = "",
    step: Annotated[Optional[int], typer.Option(help="Rollouts of this round; by default the last.")] = None,  # noqa: UP045
    count: Annotated[int, typer.Option("-n", help="How many of the best and worst are shown.")] = 3,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show what a reward pays for answers that are there, before any training."""
    from rllab.core.load import model_folder
    from rllab.evals.reward import extremes, of_run, of_task, read_reward, read_task, report
    from rllab.text.open import open_model

    if bool(on) == bool(task) or (on and model):
        raise Mistake("say where the answers come from: --on RUN, or --task NAME, and with it perhaps --model NAME")
    rewards = read_reward(name, runs)
    policy = model or (on if rewards.see_the_policy else "")
    lm = open_model(model_folder(policy, runs)) if policy else None
    if lm is not None:
        rewards.begin(lm)
    found = of_run(on, runs, step) if on else of_task(read_task(task), lm)
    told, shown = report(rewards, *found), extremes(rewards, *found, count)
    if as_json:
        print(json.dumps(told))
        return
    print("\n".join([f"{k:<20} {v}" for k, v in told.items()] + shown))


@app.command()
def diagnose(
    run: Annotated[str, typer.Argument(help="A run's name, its folder, or last.")],
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Say in plain sentences what goes wrong in a run that learns from rewards."""
    from rllab.core.run import find_run
    from rllab.evals.diagnosis import diagnose

    said = diagnose(find_run(run, runs))
    print(json.dumps(said) if as_json else "\n".join(said or ["nothing stands out"]))


@app.command()
def overoptimise(
    run: Annotated[list[str], typer.Argument(help="Runs that learn from rewards, of one task.")],
    best_of: Annotated[
        int, typer.Option(help="Beside them the best of up to so many answers of what the first began with; 0: none.")
    ] = 0,
    prompts: Annotated[int, typer.Option(help="Held-out prompts that these answer.")] = 100,
    figure: Annotated[str, typer.Option(help="A file for a figure, such as curve.svg.")] = "",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show what a reward has bought, and what it is worth, against the distance from where runs began."""
    from rllab.cli.tables import table
    from rllab.core.run import find_run
    from rllab.evals.over_optimisation import best_of_n, draw, of_run

    folders = [find_run(name, runs) for name in run]
    rows = [row for folder in folders for row in of_run(folder)]
    if best_of:
        rows += best_of_n(folders[0], best_of, prompts)
    if figure:
        draw(rows, Path(figure))
    table(rows if as_json else [{k: shown(v) for k, v in row.items()} for row in rows], as_json)


@app.command()
def winrate(
    run: Annotated[list[str], typer.Argument(help="Runs of language models that answer.")],
    against: Annotated[
        str, typer.Option(help="The other model: a run, run:NAME, a folder; by default what each run began with.")
    ] = "",
    by: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Who judges: gold, or a reward as in a recipe, such as run:reward-model; may be repeated."),
    ] = None,
    prompts: Annotated[int, typer.Option(help="Test prompts that both answer.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Of the answers, sampled at temperature 1.")] = 0,
    figure: Annotated[str, typer.Option(help="A file for a figure, such as wins.svg.")] = "",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show how often a model's answers are liked better than those of another, and how long both are."""
    from rllab.cli.tables import table
    from rllab.evals.win_rate import GOLD, draw, play, result

    matches = [play(name, against, prompts, seed, runs) for name in run]
    rows = [result(match, judge, seed, runs) for match in matches for judge in by or [GOLD]]
    if figure:
        draw(rows, Path(figure))
    table(rows if as_json else [{k: shown(v) for k, v in row.items()} for row in rows], as_json)


@app.command()
def verify(
    run: Annotated[str, typer.Argument(help="A run that evaluates derivations: RUN, RUN@STEP, last.")],
    rows: Annotated[int, typer.Option(help="Test rows.", min=1)] = 999,
    base: Annotated[bool, typer.Option(help="Of the model that it began with.")] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show how well a model grades derivations, and how often it names what is wrong, by their number of steps."""
    from rllab.cli.tables import table
    from rllab.evals.proofs import verify as verified
    from rllab.evals.run_sampler import RunSampler, initial_model

    found = verified(RunSampler(run, runs, initial_model(run, runs, "leave --base out") if base else ""), rows)
    table(found if as_json else [{k: shown(v) for k, v in row.items()} for row in found], as_json)


@app.command()
def refine(
    run: Annotated[str, typer.Argument(help="A run that derives and evaluates itself: RUN, RUN@STEP, last.")],
    rounds: Annotated[int, typer.Option(help="Refinements at most.", min=0)] = 4,
    samples: Annotated[int, typer.Option(help="Threads of each problem.", min=1)] = 8,
    problems: Annotated[int, typer.Option(help="Test problems.", min=1)] = 200,
    base: Annotated[bool, typer.Option(help="Of the model that it began with.")] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Show what refining its own derivations is worth to a model, and whether it knows its best."""
    from rllab.cli.tables import table
    from rllab.evals.proofs import refine as refined
    from rllab.evals.run_sampler import RunSampler, initial_model

    sampler = RunSampler(run, runs, initial_model(run, runs, "leave --base out") if base else "")
    found = list(refined(sampler, rounds, problems, samples))
    table(found if as_json else [{k: shown(v) for k, v in row.items()} for row in found], as_json)
