"""The verb that maps what models know of the Earth."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from rllab.cli.app import LANGUAGE, AsJson, Figure, Runs, app
from rllab.core.errors import Mistake, RllabError, Stopped
from rllab.core.messages import visible


@app.command("earth", rich_help_panel=LANGUAGE)
def earth(
    models: Annotated[
        list[str], typer.Argument(help="Runs (RUN, RUN@STEP, RUN@*, run:NAME), folders, names on the hub.")
    ],
    step: Annotated[int, typer.Option(help="Ask every such cell of one degree: 2 asks a quarter of them.")] = 1,
    instruction: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option(
            help="Say in the prompt what to answer. By default the lab's own models are given the place alone."
        ),
    ] = None,
    words: Annotated[str, typer.Option(help="The words for land and water, a token each.")] = "Land,Water",
    mask: Annotated[str, typer.Option(help="The mask of land and water; by default below RLLAB_DATA.")] = "",
    figure: Figure = "",
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Map where a language model sees land, and score the map.

    For each cell of one degree, the probabilities of 'Land' and 'Water' as the next token. Accuracy and Brier score are
    by area; always 'Water' is right on 71 %.
    """
    from rllab.cli.evaluation import check_outputs
    from rllab.cli.tables import table
    from rllab.core.load import checkpoints
    from rllab.evals.earth import always_water, grid, read_mask, summary

    pair = tuple(word.strip() for word in words.split(","))
    if len(pair) != 2 or not all(pair) or pair[0] == pair[1]:
        raise Mistake(f"--words {words}: expected two words with a comma, such as Land,Water")
    check_outputs("", figure, [])
    truth, cells = read_mask(mask), grid(step)
    maps, fault = _maps(checkpoints(models, runs), lambda name: _mapped(name, runs, step, cells, instruction, pair))
    rows = [summary(each, truth) for each in maps]
    if rows:
        table(rows if as_json else [_in_per_cent(row) for row in [summary(always_water(step), truth), *rows]], as_json)
    if maps and figure:
        from rllab.evals.earth_figure import draw

        draw(maps, truth, Path(figure))
    if fault:
        raise fault


def _maps(names: list[str], mapped: Callable[[str], Any]) -> tuple[list[Any], RllabError | None]:
    """Returns (the maps of models, what failed or that Ctrl-C ended it)."""
    maps, faults = list[Any](), list[str]()
    for name in names:
        try:
            maps.append(mapped(name))
        except KeyboardInterrupt:
            return maps, Stopped(f"at {name}; maps of models before it are shown, and none is kept", 0)
        except Mistake as error:
            faults.append(str(error) if str(error).startswith(name) else f"{name}: {error}")
    return maps, Mistake("\n".join(faults)) if faults else None


def _mapped(name: str, runs: Path, step: int, cells: Any, instruction: bool | None, words: Any) -> Any:
    """Returns the map of a model.

    Raises:
        Mistake: the model cannot be opened, or does not have each word as one token.
    """
    from rllab.evals.earth import EarthMap, ask_earth
    from rllab.evals.evaluation import Progress, open_evaluated

    lm, _ = open_evaluated(name, runs)
    progress = Progress(name, cells.size, lambda line: print(visible(line), file=sys.stderr))
    land, both = ask_earth(lm, cells.ravel(), instruction, words, progress.tell)
    return EarthMap(name, step, land.reshape(cells.shape), both.reshape(cells.shape), cells)


def _in_per_cent(row: dict[str, Any]) -> dict[str, str]:
    return {
        "model": visible(row["model"]),
        "cells": str(row["cells"]),
        "accuracy": _share(row["accuracy"], row["interval"]),
        "Brier": f"{row['brier']:.4f}",
        "accuracy on test cells": _share(row["test_accuracy"], row["test_interval"]),
        "Brier on test cells": f"{row['test_brier']:.4f}",
        "land": f"{100 * row['land']:.1f}",
        "both words": f"{100 * row['both_words']:.1f}",
    }


def _share(share: float, interval: Any) -> str:
    return f"{100 * share:.1f}" + (f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else "")
