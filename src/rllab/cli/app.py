"""The application, and what its verbs share: their options, and how they tell numbers and mistakes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from rllab import __version__
from rllab.core.errors import Mistake

if TYPE_CHECKING:
    from rllab.evals.recordings import Problems

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Reinforcement learning and alignment on one trainer core. Begin with: rllab demo",
)

RecipeName = Annotated[str, typer.Argument(help="A recipe's name, as rllab list shows it, or its file.")]
Changes = Annotated[Optional[list[str]], typer.Argument(help="Changes to it, such as optim.lr=1e-4 seed=0..4")]  # noqa: UP045
Runs = Annotated[Path, typer.Option(help="The folder that runs are in.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ModelName = Annotated[str, typer.Argument(help="A run (RUN, RUN@STEP, last), a model's folder, or a hub's name.")]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(f"rllab {__version__}")
        raise typer.Exit


def shown(value: Any) -> str:
    """A number as a person reads it, and an interval."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "{:.4g} to {:.4g}".format(*value) if isinstance(value, tuple) else str(value)


def numbers(said: str, option: str) -> list[int]:
    """The numbers of an option that takes several, such as 64,400."""
    words = [w for w in said.split(",") if w.strip()]
    if not all(w.strip().isdigit() for w in words):
        raise Mistake(f"--{option} {said}: expected whole numbers with commas, such as 64,400")
    return [int(w) for w in words]


def tell(problems: "Problems") -> None:
    """Says what was left out, as a mistake, where anything was."""
    if problems:
        lines = problems.messages()
        raise Mistake("\n".join([f"{len(problems)} rows or items were left out; the others are above", *lines]))
