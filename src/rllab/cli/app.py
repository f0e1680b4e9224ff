"""The application, and what its verbs share: groups, options, and the form of numbers."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperCommand, TyperGroup

from rllab import __version__
from rllab.core.errors import Mistake
from rllab.core.messages import visible

if TYPE_CHECKING:
    from rllab.evals.problems import Problems

GROUPS = TRAIN, LOOK, LANGUAGE, GAMES, SCORE = "Train", "Look", "Language models", "Games", "Score and grade"
_WRITTEN = (".json", ".jsonl", ".gz")  # endings of files that earlier versions wrote with --json


class Verbs(TyperGroup):
    """Lists the verbs by group, each with the first paragraph of its help, uncut.

    Typer has groups as well, but only with rich, whose import takes longer than the rest of `rllab --help`.
    """

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
        width = max(map(len, self.commands))
        for name, command in self.commands.items():
            summary = " ".join((command.help or "").partition("\n\n")[0].split())
            groups[command.rich_help_panel].append((f"{name:<{width}}", summary))  # type: ignore[attr-defined]
        for group, rows in groups.items():
            with formatter.section(group):
                formatter.write_dl(rows)


class Writes(TyperCommand):
    """A verb with `--out FILE`. It refuses `--json FILE`, by which earlier versions wrote the file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for word, following in zip(args, [*args[1:], ""], strict=True):
            option, _, file = word.partition("=")
            file = file or following
            if option == "--json" and file.endswith(_WRITTEN):
                raise Mistake(
                    f"--json is a flag and prints JSON; --out {file} writes a file (to print, put --json last)"
                )
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Verbs,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Reinforcement learning and alignment on one trainer core. Begin with: rllab demo",
    epilog="rllab VERB --help shows the options of a verb. In a clone, ./lab VERB runs rllab VERB, ./lab python FILE "
    "runs the lab's Python, and ./lab shell starts a shell with both.",
)

RecipeName = Annotated[str, typer.Argument(help="A recipe's name, as in rllab list, or its file.")]
Changes = Annotated[Optional[list[str]], typer.Argument(help="Changed settings, such as optim.lr=1e-4 seed=0..4")]  # noqa: UP045
Runs = Annotated[Path, typer.Option(help="The folder of the runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ModelName = Annotated[str, typer.Argument(help="A run (RUN, RUN@STEP, last), a model's folder, or a name on the hub.")]
Figure = Annotated[str, typer.Option(help="Draw a figure to this file, such as figure.svg.")]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(f"rllab {__version__}")
        raise typer.Exit


def numbers(text: str, option: str) -> list[int]:
    """The numbers of an option that takes several, such as 64,400.

    Raises:
        Mistake: the text has something else than whole numbers.
    """
    words = [w for w in text.split(",") if w.strip()]
    if not all(w.strip().isdigit() for w in words):
        raise Mistake(f"--{option} {text}: expected whole numbers with commas, such as 64,400")
    return [int(w) for w in words]


def report(problems: "Problems") -> None:
    """Prints remarks; raises a Mistake that lists the problems, if there are any."""
    for remark in problems.remarks:
        print(f"note: {visible(remark)}", file=sys.stderr)
    if problems:
        lines = problems.messages()
        raise Mistake("\n".join([f"{len(problems)} rows or items were left out; the others are above", *lines]))
