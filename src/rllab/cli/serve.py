"""The verb that serves a model by vLLM, for recipes with `use_vllm`. vLLM takes this process over."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from rllab.cli.app import LANGUAGE, Runs, app
from rllab.core.errors import Mistake

_FIND = "import importlib.util as u, sys; sys.exit(not (u.find_spec('trl') and u.find_spec('vllm')))"


@app.command(rich_help_panel=LANGUAGE, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="A recipe, whose model is served; or a run, a model's folder, or a name on the hub.")
    ],
    runs: Runs = Path("runs"),
) -> NoReturn:
    """Serve a model by vLLM, for a recipe with use_vllm.

    Further words go to trl vllm-serve, such as --port 8000 --max-model-len 4096; key=value changes the recipe.
    RLLAB_SERVER_VENV is the Python environment of vLLM, which needs its own versions of torch and transformers.
    """
    env = dict(os.environ)  # vLLM's environment is as it was before the lab was loaded
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # a scheduler warns all steps of a job; the trainers end it
    venv = env.get("RLLAB_SERVER_VENV")
    python = str(Path(venv) / "bin/python") if venv else sys.executable
    changes = [word for word in context.args if "=" in word and not word.startswith("-")]
    flags = [word for word in context.args if word not in changes]
    served = _folder_of(model, changes, runs)
    _check_environment(python)
    os.execve(python, [python, "-m", "trl.scripts.vllm_serve", "--model", served, *flags], env)


def _check_environment(python: str) -> None:
    """Raises a Mistake if a Python has no vLLM."""
    if not os.access(python, os.X_OK) or subprocess.run([python, "-c", _FIND]).returncode:
        raise Mistake(
            f"{python} has no vLLM and TRL. vLLM needs its own version of torch, so give it an environment of its own: "
            "python -m venv FOLDER && FOLDER/bin/pip install 'trl[vllm]', then export RLLAB_SERVER_VENV=FOLDER"
        )


def _folder_of(name: str, changes: list[str], runs: Path) -> str:
    """The folder of the model to serve, for one of the hub that in its cache. A stage, `run:NAME`, is trained first."""
    from rllab.core.load import model_folder
    from rllab.core.recipe import load_recipe, recipe_names
    from rllab.text.snapshots import located

    if name in recipe_names() or name.endswith((".yaml", ".yml")):
        name = getattr(load_recipe(name, changes).algorithm, "model", "")
        if not name:
            raise Mistake("the recipe names no `model` to serve; a new model of `shape` is trained first, by a recipe")
    elif changes:
        raise Mistake(f"{' '.join(changes)}: {name} is a model and no recipe, so it has no settings")
    folder = located(model_folder(name, runs))
    if (folder / "adapter_config.json").is_file():
        raise Mistake(f"{folder} holds adapters alone: serve their base, or what rllab merge makes of both")
    return str(folder.resolve())
