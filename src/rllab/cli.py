"""The command `rllab`. Each verb imports what it needs when it runs, so that `rllab --help` is there at once."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional

import typer

from rllab import __version__
from rllab.core.errors import Mistake, RllabError, Stopped, machine_faults

if TYPE_CHECKING:
    from rllab.core.recipe import Recipe
    from rllab.core.run import RunFolder
    from rllab.core.stop import Stop
    from rllab.evals.recordings import Problems

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Reinforcement learning and alignment on one trainer core. Begin with: rllab demo",
)

EXPECTATION_MISSED = 4
RecipeName = Annotated[str, typer.Argument(help="A recipe's name, as rllab list shows it, or its file.")]
Changes = Annotated[Optional[list[str]], typer.Argument(help="Changes to it, such as optim.lr=1e-4 seed=0..4")]  # noqa: UP045
Runs = Annotated[Path, typer.Option(help="The folder that runs are in.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(f"rllab {__version__}")
        raise typer.Exit


@app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """Show the recipes that come with the lab."""
    from rllab.core.recipe import recipe_names, recipes_folder
    from rllab.tables import table

    rows = []
    for name in recipe_names():
        first = (recipes_folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
        rows.append({"recipe": name, "what it does": first.removeprefix("#").strip()})
    table(rows, as_json)


@app.command()
def show(recipe: RecipeName) -> None:
    """Print a recipe with its comments, to copy: rllab show cartpole > mine.yaml"""
    from rllab.core.recipe import recipe_path

    print(recipe_path(recipe).read_text(encoding="utf-8"), end="")


@app.command()
def train(
    recipe: RecipeName,
    changes: Changes = None,
    name: Annotated[str, typer.Option(help="The run's name; by default the recipe's with a number.")] = "",
    runs: Runs = Path("runs"),
    fork: Annotated[str, typer.Option("--from", help="RUN or RUN@STEP: begin at another run's checkpoint.")] = "",
    smoke: Annotated[bool, typer.Option(help="The recipe's smallest size: does it run at all?")] = False,
    strict: Annotated[bool, typer.Option(help="Exit with 4 where the run misses what its recipe expects.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe. The same command again goes on with an unfinished run, or prints what a finished one reached."""
    from rllab.core.stop import Stop

    stop = Stop().install()  # before torch is loaded
    from rllab.core.recipe import expand_seeds, load_recipe, recipe_path
    from rllab.core.run import RunFolder

    words = list(changes or [])
    seeds = expand_seeds(words, recipe_path(recipe).read_text(encoding="utf-8"))
    results = []
    for seed in [None] if seeds is None else seeds:
        here = words if seed is None else [*(w for w in words if not w.startswith("seed=")), f"seed={seed}"]
        read = load_recipe(recipe, here, smoke=smoke)
        label = f"{name or read.name}-s{seed}" if seed is not None else name
        results.append(_train(read, RunFolder(runs / label) if label else None, runs, fork, stop, quiet or as_json))
    _report(results, as_json)
    if strict and not all(e["met"] for r in results for e in r.status()["expect"]):
        sys.exit(EXPECTATION_MISSED)


def _train(recipe: "Recipe", run: "RunFolder | None", runs: Path, fork: str, stop: "Stop", quiet: bool) -> "RunFolder":
    """One run to its end, with its progress shown."""
    from rllab.core.load import resolve_models
    from rllab.core.trainer import Trainer
    from rllab.progress import watch

    def first(model: "Recipe", folder: "RunFolder") -> None:
        print(f"{recipe.name} needs run:{model.name}; it is trained first, once, in {folder.path}", file=sys.stderr)
        _finish(Trainer(model, folder, stop=stop), watch, quiet)

    trainer = Trainer(resolve_models(recipe, runs, first), run, runs=runs, fork=fork or None, stop=stop)
    _finish(trainer, watch, quiet)
    return trainer.folder


def _finish(trainer: Any, watch: Any, quiet: bool) -> None:
    watch(trainer, quiet or trainer.engine.rank != 0)
    if trainer.stopping:
        raise Stopped(f"{trainer.folder.path}: stopped at step {trainer.step} by {trainer.stop.reason}; "
                      "the same command goes on from there")  # fmt: skip


def _report(results: "list[RunFolder]", as_json: bool) -> None:
    """What finished runs reached; of several seeds their mean too."""
    from rllab.progress import result

    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        print(
            json.dumps(
                [{"run": str(r.path)} | r.status() for r in results] if len(results) > 1 else results[0].status()
            )
        )
        return
    for run in results:
        print(result(run))
    values = [h["value"] for r in results if (h := r.status()["headline"])]
    if len(values) > 1:
        import numpy as np

        from rllab.stats import bootstrap

        low, high = bootstrap(np.array(values))
        mean, median = np.mean(values), np.median(values)
        print(f"over {len(values)} seeds: mean {mean:.6g} [{low:.6g}, {high:.6g}], median {median:.6g}")


@app.command()
def runs(runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Show the runs in a folder: what state they are in, and what they reached."""
    from rllab.core.run import list_runs
    from rllab.progress import summary
    from rllab.tables import table

    table([summary(run) for run in list_runs(runs)], as_json)


@app.command()
def score(
    files: Annotated[list[Path], typer.Argument(help="JSONL with id, question, target, kind and completion.")],
    kind: Annotated[str, typer.Option(help="number, choice, yesno, string or latex; by default the rows say it.")] = "",
    scorer: Annotated[str, typer.Option(help="rllab, kojima, bbh, or your own: mine.py:fn")] = "rllab",
    out: Annotated[str, typer.Option("--json", help="A file for the results: JSONL, one row an item.")] = "",
) -> None:
    """Score recorded completions, without a model."""
    from rllab.evals.recordings import Problems
    from rllab.evals.score import disagreements, summaries, write_results
    from rllab.evals.score import score as score_files
    from rllab.tables import table

    problems = Problems()
    Path(out).parent.mkdir(parents=True, exist_ok=True)  # a folder that may not be written is told before the work
    scored, label = score_files(files, kind or None, scorer, problems)
    if out:
        write_results(Path(out), scored, label)
    table(summaries(scored, label), False)
    for line in disagreements(scored):
        print(line)
    _tell(problems)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="Results of rllab score --json.")],
    b: Annotated[Path, typer.Argument(help="Results over the same items.")],
    as_json: AsJson = False,
) -> None:
    """Compare two results over the same items: what B gained and lost, and whether that is more than chance."""
    from rllab.evals.recordings import Problems
    from rllab.evals.score import compare as compare_files

    problems = Problems()
    found = compare_files(a, b, problems)
    print(found.as_json() if as_json else found.as_text(a, b))
    _tell(problems)


def _tell(problems: "Problems") -> None:
    """What was left out, and the exit code of a mistake where anything was."""
    if problems:
        lines = problems.messages()
        raise Mistake("\n".join([f"{len(problems)} rows or items were left out; the others are above", *lines]))


ModelName = Annotated[str, typer.Argument(help="A run (RUN, RUN@STEP, last), a model's folder, or a hub's name.")]


@app.command("eval")
def evaluate(model: ModelName, file: Path, runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """What a model finds likely: multiple choice (prompt, choices, answer) or perplexity (text) of a JSONL file."""
    from rllab.core.load import model_folder
    from rllab.evals.likelihood import evaluate_file
    from rllab.text.models import load

    found = evaluate_file(load(model_folder(model, runs)), file)
    print(json.dumps(found) if as_json else "\n".join(f"{k:<18} {_plain(v)}" for k, v in found.items()))


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "{:.4g} to {:.4g}".format(*value) if isinstance(value, tuple) else str(value)


@app.command()
def merge(
    model: ModelName, out: Annotated[Path, typer.Option(help="The folder to write.")], runs: Runs = Path("runs")
) -> None:
    """Write a model with its LoRA adapters in its weights, as an ordinary Hugging Face folder."""
    from rllab.core.load import model_folder
    from rllab.text.adapters import merge as merge_adapters

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
    from rllab.core.load import model_folder
    from rllab.talk import talk, typed

    talk(model_folder(model, runs), base, style, max_new_tokens, typed(), print)


Simulations = Annotated[int, typer.Option(help="Of the search, for a move.")]


@app.command()
def play(
    run: Annotated[str, typer.Argument(help="A run that plays a board game: RUN, RUN@STEP, last.")],
    simulations: Simulations = 400,
    second: Annotated[bool, typer.Option(help="The run begins.")] = False,
    runs: Runs = Path("runs"),
) -> None:
    """Play a board game against a run."""
    from rllab.play import loaded
    from rllab.play import play as play_game
    from rllab.talk import typed

    play_game(loaded(run, runs), simulations, second, typed(), print)


@app.command()
def analyse(
    run: Annotated[str, typer.Argument(help="A run that plays a board game: RUN, RUN@STEP, last.")],
    file: Annotated[Path, typer.Argument(help="One position a line: the moves that lead to it, such as 4453.")],
    simulations: Simulations = 400,
    out: Annotated[str, typer.Option("--json", help="A file for the rows: JSONL, one row a position.")] = "",
    runs: Runs = Path("runs"),
) -> None:
    """Say what a run would play in positions, and what it thinks of them."""
    from rllab.play import analyse_file, loaded
    from rllab.tables import table

    found, problems = analyse_file(loaded(run, runs), file, simulations, Path(out) if out else None)
    if not out:
        table([row | {"visits": " ".join(f"{k}:{v}" for k, v in row["visits"].items() if v)} for row in found], False)
    if problems:
        raise Mistake("\n".join([f"{len(problems)} positions were left out; the others are above", *problems]))


@app.command()
def strength(
    run: Annotated[str, typer.Argument(help="A run that plays a board game: RUN, RUN@STEP, last.")],
    simulations: Annotated[
        str, typer.Option(help="Of its search, several with commas; 0 is its policy alone.")
    ] = "0,64",
    uct: Annotated[str, typer.Option(help="Simulations of UCT, which is asked the same, several with commas.")] = "100",
    split: Annotated[str, typer.Option(help="Which positions: validation or test.")] = "test",
    games: Annotated[int, typer.Option(help="Games against each UCT in place of positions.")] = 0,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Say how strong a run plays: positions whose best moves are known, or games; with --uct 0 against perfect play."""
    from rllab.evals import strength as found
    from rllab.play import loaded
    from rllab.tables import table

    algorithm, counts, others = loaded(run, runs), _numbers(simulations, "simulations"), _numbers(uct, "uct")
    if games:
        rows = [row for count in counts for row in found.games(algorithm, count, others, games)]
    else:
        rows = list(found.positions(algorithm, counts, [n for n in others if n], split))
    table(rows if as_json else [{k: _plain(v) for k, v in row.items()} for row in rows], as_json)


def _numbers(said: str, option: str) -> list[int]:
    words = [w for w in said.split(",") if w.strip()]
    if not all(w.strip().isdigit() for w in words):
        raise Mistake(f"--{option} {said}: expected whole numbers with commas, such as 64,400")
    return [int(w) for w in words]


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
    from rllab.talk import samples as found
    from rllab.talk import shown

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
    from rllab.text.models import load

    if bool(on) == bool(task) or (on and model):
        raise Mistake("say where the answers come from: --on RUN, or --task NAME, and with it perhaps --model NAME")
    rewards = read_reward(name, runs)
    policy = model or (on if rewards.see_the_policy else "")
    lm = load(model_folder(policy, runs)) if policy else None
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
def check(recipe: RecipeName, changes: Changes = None) -> None:
    """Look at all that a recipe needs, then prove on its smallest size that it keeps the trainer's contract."""
    import tempfile

    from rllab.core.games import make_game
    from rllab.core.load import preflight
    from rllab.core.recipe import load_recipe
    from rllab.testing import check_algorithm, check_game

    for name, value in preflight(load_recipe(recipe, changes or [])).items():
        print(f"{name:<20} {value}")
    read = load_recipe(recipe, changes or [], smoke=True)
    if hasattr(read.algorithm, "game"):
        for line in check_game(make_game(read.algorithm.game)):
            print(f"ok  {line}")
    with tempfile.TemporaryDirectory() as folder:
        for line in check_algorithm(read, Path(folder)):
            print(f"ok  {line}")


@app.command()
def doctor(runs: Runs = Path("runs"), as_json: AsJson = False) -> None:
    """Show machine, versions and what will be used, to paste into a question."""
    from rllab.doctor import examine

    found = examine(runs)
    print(json.dumps(found) if as_json else "\n".join(f"{k:<12} {v}" for k, v in found.items()))


@app.command()
def demo(runs: Runs = Path("runs")) -> None:
    """Watch an agent learn to balance a pole: a few seconds on one core."""
    from rllab.core.stop import Stop

    stop = Stop().install()
    from rllab.demo import balance

    balance(runs, stop)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test(context: typer.Context) -> None:
    """Run the lab's tests, in a clone; words are handed to pytest."""
    import subprocess

    clone = Path(__file__).resolve().parents[2]
    if not (clone / "tests").is_dir():
        raise Mistake("the tests come with a clone of the repository, not with the installed package")
    sys.exit(subprocess.run([sys.executable, "-m", "pytest", *context.args], cwd=clone).returncode)


def main() -> NoReturn:
    """The entry point: runs a verb, and tells an RllabError in plain words with its exit code."""
    sys.path.insert(0, "")  # modules of the working directory can be named, as under `python -m`
    try:
        with machine_faults("nothing that was finished is lost"):
            app(prog_name="rllab")
    except RllabError as error:
        print(f"{'stopped' if isinstance(error, Stopped) else 'error'}: {error}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(error.exit_code)  # torch's threads can turn an ordinary exit into an abort
    sys.exit(0)
