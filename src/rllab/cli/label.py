"""The verb with which people label pairs of answers or of clips."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from rllab.cli.app import LOOK, AsJson, Runs, app
from rllab.core.errors import Mistake

if TYPE_CHECKING:
    from rllab.board.labels import Labelling
    from rllab.board.pairs import Pairs
    from rllab.core.labels import Labels

verb = partial(app.command, rich_help_panel=LOOK)


@verb()
def label(
    source: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="A run, two runs, or a JSONL file with prompt, a and b in each line.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(help="The file of the labels, which is appended to.")] = Path(
        "preferences.jsonl"
    ),
    who: Annotated[str, typer.Option(help="Your name; by default the user's. Others may label at the same time.")] = "",
    report: Annotated[bool, typer.Option("--report", help="Print the agreement of the labels in --out.")] = False,
    pairs: Annotated[int, typer.Option(help="At most so many pairs of runs.", min=1)] = 200,
    overlap: Annotated[float, typer.Option(help="The share of pairs that everybody is given.", min=0, max=1)] = 0.2,
    seed: Annotated[int, typer.Option(help="Draws the pairs, their order and their sides.", min=0)] = 0,
    step: Annotated[Optional[int], typer.Option(help="The round of samples; by default the last.")] = None,  # noqa: UP045
    length: Annotated[Optional[int], typer.Option(help="Steps of a clip; by default the run's, or 32.", min=1)] = None,  # noqa: UP045
    port: Annotated[int, typer.Option(help="The port of the page; by default a free one.", min=0, max=65535)] = 0,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Label which of two answers or clips of play is better.

    Opens a page with both side by side. Of one run of a language model these are the completions of a prompt, of two
    runs the completions of the same row; of a control run clips of its play. The labels train recipes:
    rllab train reward-model task=preferences.jsonl, or rllab train rlhf-control labels=preferences.jsonl
    """
    if report:
        _report(out, as_json)
        return
    if not source or len(source) > 2:
        raise Mistake("name a run, two runs, or a JSONL file of pairs; rllab label --report shows the agreement")
    from rllab.board.labels import label_routes
    from rllab.board.serve import serve

    labelling = prepared(source, out, who, runs, pairs=pairs, overlap=overlap, seed=seed, at=(step, length))
    print(f"{len(labelling.pairs)} pairs; labels go to {out}", flush=True)
    serve(runs, port, "label", partial(print, flush=True), [lambda board: label_routes(labelling)])


def prepared(
    source: list[str],
    out: Path,
    who: str,
    runs: Path,
    *,
    pairs: int,
    overlap: float,
    seed: int,
    at: tuple[int | None, int | None],
) -> "Labelling":
    """What the page shows: the pairs of a source, and the file of their labels. at: round of samples, steps of a clip.

    Raises:
        Mistake: there are no pairs, or the file holds labels of the other kind.
    """
    import getpass

    from rllab.board.labels import Labelling, answers, clips_of
    from rllab.core.files import check_place

    step, length = at
    check_place(out, "--out")
    own = _pairs(source, runs, pairs, seed, step, length, out.parent)
    clips = "clips" in own.rows[0]
    show = clips_of(out.parent) if clips else answers
    labelling = Labelling(own.rows, out, show, who or getpass.getuser(), seed, overlap)
    labels = labelling.labels()
    of_other_kind = [p.line for p in labels.pairs.values() if ("clips" in p.content) != clips]
    if of_other_kind:
        kind = "answers" if clips else "clips"
        raise Mistake(f"{out}:{of_other_kind[0]} is a label of {kind}, ({len(of_other_kind)} are): use another --out")
    other = [pair for pair in labels.pairs if pair not in labelling.by_id]
    notes = [*own.notes, *labels.fault_lines()]
    if other:
        notes.append(f"{len(other)} of {len(labels.pairs)} pairs in {out} are of another source; they stay")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return labelling


def _pairs(
    source: list[str], runs: Path, count: int, seed: int, step: int | None, length: int | None, folder: Path
) -> "Pairs":
    from rllab.board.pairs import of_file, of_runs
    from rllab.core.run import parse_run
    from rllab.core.runs import find_run

    if len(source) == 1 and source[0].endswith((".jsonl", ".jsonl.gz")):
        return of_file(Path(source[0]))
    named = [parse_run(name) for name in source]
    folders = [find_run(name, runs) for name, _ in named]
    steps = [step if step is not None else own for _, own in named]
    if len(folders) == 1 and "env" in folders[0].plain():
        from rllab.board.clip_pairs import of_control_run

        return of_control_run(folders[0].path, steps[0], count, length, seed, folder)
    return of_runs(folders, steps, count, seed)


def _report(path: Path, as_json: bool) -> None:
    from rllab.cli.tables import table
    from rllab.core.labels import described, read_labels
    from rllab.evals.agreement import agreement, positions

    if not path.is_file():
        raise Mistake(f"there is no file {path}; rllab label writes one, and --out names another")
    labels = read_labels(path)
    if as_json:
        counts = labels.counts()
        print(json.dumps({"counts": counts, "agreement": agreement(labels), "labelers": positions(labels)}))
        return
    for line in labels.fault_lines():
        print(f"note: {line}", file=sys.stderr)
    print(f"{path}: {described(labels.counts(), 'no preference')}\n")
    table([_in_words(row, "left") for row in positions(labels)], False)
    if rows := agreement(labels):
        print()
        table([_in_words(row, "kappa") for row in rows], False)
    _explain(labels)


def _explain(labels: "Labels") -> None:
    """Says where the side on which answers stand matters to a labeler."""
    from rllab.evals.agreement import positions

    for row in positions(labels):
        if row["left"] is not None and not row["low"] <= 0.5 <= row["high"]:
            side = "left" if row["left"] > 0.5 else "right"
            print(f"{row['labeler']} prefers the {side} one more often than chance would: {row['left']:.0%}")


def _in_words(row: dict[str, object], key: str) -> dict[str, object]:
    """A row of the table, with the interval behind the number it belongs to."""
    low, high = row["low"], row["high"]
    kept = {k: "" if v is None else f"{v:.2f}" if isinstance(v, float) else v for k, v in row.items()}
    kept[f"{key} (95 %)"] = f"{kept.pop(key)} [{low:.2f}, {high:.2f}]" if isinstance(low, float) else kept.pop(key)
    return {k: v for k, v in kept.items() if k not in ("low", "high")}
