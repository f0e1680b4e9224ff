"""The verb that writes the metrics and models of runs for other programs."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from rllab.cli.app import LOOK, Runs, app
from rllab.core.errors import Mistake

verb = partial(app.command, rich_help_panel=LOOK)
FORMS = ("csv", "tensorboard", "wandb", "trackio", "hf", "onnx")


@verb()
def export(
    run: Annotated[list[str], typer.Argument(help="Runs: name, folder, or last; with hf and onnx also RUN@STEP.")],
    to: Annotated[str, typer.Option(help="csv, tensorboard, wandb, trackio, hf or onnx.")],
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", help="csv: the file, by default standard output. onnx: the file. hf, tensorboard: a folder."
        ),
    ] = "",
    runs: Runs = Path("runs"),
) -> None:
    """Write the metrics or the model of runs for other programs.

    csv is one table of all runs, also while they train. tensorboard writes event files, one folder a run. wandb and
    trackio get every row anew, as with `track` in a recipe. hf writes the model of a checkpoint with a model card, for
    `hf upload`. onnx writes the greedy policy of a run that acts in an environment, and checks that ONNX Runtime
    chooses the same actions.
    """
    from rllab.core.names import did_you_mean
    from rllab.core.runs import find_run

    if to not in FORMS:
        raise Mistake(f"--to {to}: expected one of {', '.join(FORMS)}{did_you_mean(to, FORMS)}")
    if out and to in ("wandb", "trackio"):
        raise Mistake(f"--out {out}: {to} keeps its files where it finds them")
    if to == "hf":
        _write_model(run, out, runs)
        return
    if to == "onnx":
        _write_policy(run, out, runs)
        return
    folders = [find_run(name, runs) for name in run]
    if to == "csv":
        from rllab.board.export import write_csv
        from rllab.core.files import check_place

        if not out:
            write_csv(folders, sys.stdout)
            return
        check_place(Path(out), "--out")
        with open(out, "w", encoding="utf-8", newline="") as file:
            write_csv(folders, file)
        print(f"{out} is written", file=sys.stderr)
        return
    from rllab.board.export import send_all

    for folder in folders:
        send_all(folder, to, print, Path(out) / folder.path.name if out else None)
        print(f"{folder.path}: round 1 to {folder.metrics.last().get('step', 0)} are in {to}")


def _write_model(names: list[str], out: str, runs: Path) -> None:
    from rllab.board.cards import write_model
    from rllab.core.load import model_folder

    if len(names) != 1 or not out:
        raise Mistake("--to hf writes the model of one run into a folder: rllab export RUN@STEP --to hf --out FOLDER")
    folder = Path(out)
    write_model(Path(model_folder(names[0], runs)), folder)
    print(
        f"{out} is written; fill in `license:` in {folder / 'README.md'}, then: hf upload MY-NAME/{folder.name} {out}"
    )


def _write_policy(names: list[str], out: str, runs: Path) -> None:
    from rllab.control.onnx_file import check_packages
    from rllab.core.files import check_place
    from rllab.core.run import parse_run
    from rllab.core.runs import find_run

    if len(names) != 1 or not out:
        raise Mistake("--to onnx writes the policy of one run into a file: rllab export RUN@STEP --to onnx --out FILE")
    check_place(Path(out), "--out")
    folder = find_run(parse_run(names[0])[0], runs)
    settings = folder.plain()
    if "env" not in settings:
        other = "rllab play plays against it" if "game" in settings else "--to hf writes a language model"
        raise Mistake(f"{names[0]} acts in no environment, so it has no policy to write as ONNX; {other}")
    check_packages()

    import torch

    from rllab.control.algorithm import Control
    from rllab.control.onnx_file import write_onnx
    from rllab.core.algorithm import Context
    from rllab.core.load import load_run

    algorithm = load_run(names[0], runs, ctx=Context(folder.recipe().settings.seed, torch.device("cpu")))
    assert isinstance(algorithm, Control)
    about = {"run": names[0], "env": algorithm.env, "env_kwargs": dict(algorithm.eval_spec.kwargs)}
    written = write_onnx(algorithm, Path(out), about)
    print(f"{out} is written: {', '.join(f'{k} {form}' for k, form in written.inputs.items())} -> action")
    if written.left:
        print(f"it does not hold {', '.join(written.left)}: apply the recipe's wrappers of that name around it")
    print(f"largest difference from the run's own actions on {written.steps:,} observations: {written.difference:.2g}")
