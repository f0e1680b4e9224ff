"""Reads recorded completions: JSONL with `id`, `question`, `target`, `kind` and `completion`, one sample a line.

The columns of the recordings published with 'Large Language Models are Zero-Shot Reasoners' (Kojima et al. 2022) and
'Challenging BIG-Bench Tasks' (Suzgun et al. 2023) are read too, and the logs of `rllab.evals.logs`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rllab.answers import KINDS, check_target
from rllab.answers.choice import letters, offered
from rllab.core.errors import Mistake
from rllab.core.names import did_you_mean
from rllab.evals.logs import recorded_rows
from rllab.evals.problems import Problems

Rows = Sequence[tuple[int, Mapping[str, Any]]]
"""(line from 1, object) of each line of a file."""
FEW = 0.1  # share of targets of another kind up to which they are reported as exceptions


@dataclass(frozen=True)
class Recording:
    """One recorded completion.

    completion: the whole text behind the question, of the model and of further prompts. answer: the model's text behind
    the last prompt ('Therefore, the answer is'); without further prompts the same as `completion`. prompt: the last
    prompt, or "". line: in its file, from 1. choices: the letters of the choices that its column `choices` or
    `options`, or else its question lists; "" where there are none. source: of a transcript of `rllab eval`, its model
    and style, of which a file may hold several.
    """

    id: str | int
    question: str
    target: str
    kind: str
    completion: str = ""
    answer: str = ""
    prompt: str = ""
    line: int = 0
    choices: str = ""
    source: str = ""


def read_recordings(path: Path, kind: str | None, problems: Problems) -> list[Recording]:
    """Reads the recordings in a file. A line that cannot be used is left out and added to `problems`.

    kind: see `recordings_of`.

    Raises:
        Mistake: the file cannot be read, or the kind is unknown.
    """
    return recordings_of(path, recorded_rows(path, problems), kind, problems)


def recordings_of(
    path: Path, rows: Rows, kind: str | None, problems: Problems, completed: bool = True
) -> list[Recording]:
    """Returns the recording in each row. A row that cannot be used is left out and added to `problems`.

    kind: of all rows. By default it is the row's own `kind`. For rows without one it is inferred from the targets of
    all such rows (`kind_of_targets`). completed: the rows have completions; those of a key have none.

    Raises:
        Mistake: the kind is unknown.
    """
    if kind is not None and kind not in KINDS:
        raise Mistake(f"--kind {kind}: unknown{did_you_mean(kind, KINDS)}; kinds are {', '.join(KINDS)}")
    recordings = list[Recording]()
    for n, row in rows:
        try:
            recording = replace(_item(row, kind), line=n)
            recordings.append(completed_by(recording, row) if completed else recording)
        except ValueError as error:
            problems.add(path, n, str(error))
    unnamed = [r for r in recordings if not r.kind and r.target.strip()]
    inferred = kind_of_targets([r.target for r in unnamed])
    if inferred == "string" and (why := _exceptions(unnamed)):
        problems.remark(path, why)
    kept = []
    for recording in recordings:
        recording = replace(recording, kind=recording.kind or inferred)
        try:
            check_target(recording.target, recording.kind)
        except ValueError as error:
            problems.add(path, recording.line, str(error))
        else:
            kept.append(recording)
    return kept


def _item(row: Mapping[str, Any], kind: str | None) -> Recording:
    """Returns a recording with the item of a row: its id, question, target and kind ('' where the row names none)."""
    ident, target = id_of(row), _text(row, "target")
    question = _text(row, "question") if "question" in row else ""
    kind = kind or (_text(row, "kind") if row.get("kind") else "")
    if kind and kind not in KINDS and row.get("scorer") == "the task":
        raise ValueError(
            f"the kind {kind!r} is graded by its task alone, and the row has the verdict already; rllab compare takes "
            "such a file as it is"
        )
    if kind and kind not in KINDS:
        raise ValueError(f"the kind {kind!r} is unknown{did_you_mean(kind, KINDS)}; kinds are {', '.join(KINDS)}")
    choices = letters(row.get("choices", row.get("options"))) or offered(question)
    return Recording(ident, question, target, kind, choices=choices, source=source_of(row))


def source_of(row: Mapping[str, Any]) -> str:
    """Returns the model and style of a transcript; "" of other rows."""
    return str(row.get("file", "")) if "style" in row else ""


def id_of(row: Mapping[str, Any]) -> str | int:
    """Returns the id of a row, unchanged, so that results can be joined by it; 3.0 is 3.

    Raises:
        ValueError: it has none, or one that is neither text nor a number.
    """
    text, ident = _text(row, "id"), row["id"]
    if isinstance(ident, float):
        return int(ident) if ident.is_integer() else text
    return ident if isinstance(ident, int) else text


def completed_by(item: Recording, row: Mapping[str, Any]) -> Recording:
    """Returns an item with the completion of a row.

    Raises:
        ValueError: the row has none, or one that is no text.
    """
    text, answer, prompt = _completion(row)
    return replace(item, completion=text, answer=answer, prompt=prompt)


def _completion(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Returns (the whole text, the part behind the last prompt, that prompt) of a row."""
    if "answer_completion" in row:
        answer = _text(row, "answer_completion")
        if "completion_with_trigger" in row:
            text = _text(row, "completion_with_trigger")
            return text, answer, text.removesuffix(answer)
        prompt = _text(row, "answer_prompt")
        return _text(row, "reasoning") + prompt + answer, answer, prompt
    for name in ("completion", "prediction"):
        if name in row:
            text = _text(row, name)
            return text, text, ""
    raise ValueError(f"no column 'completion'{did_you_mean('completion', row)}; there are {', '.join(row) or 'none'}")


def _text(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        raise ValueError(f"no column {name!r}{did_you_mean(name, row)}; there are {', '.join(row)}")
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{name!r} is {json.dumps(value)[:40]}; it has to be text or a number")
    return str(value)


def kind_of_targets(targets: Sequence[str]) -> str:
    """Returns the first of `number`, `yesno`, `choice` that all targets are of, else `string`.

    A single target of another kind makes all of them `string`, on purpose: such targets are words of which some look
    like numbers. Where the kind is named instead, by `--kind` or in the rows, such a target is reported with its line.
    """
    kinds = ("number", "yesno", "choice")
    return next((kind for kind in kinds if all(_is_target(target, kind) for target in targets)), "string")


def _exceptions(recordings: Sequence[Recording]) -> str:
    """Returns a message where few targets keep all others from being of one kind, with its line; else ""."""
    for kind in KINDS[:-2]:
        others = [r for r in recordings if not _is_target(r.target, kind)]
        if len(others) <= max(1, FEW * len(recordings)) and len(recordings) > 2:
            return (
                f"its kind is taken to be string, since the target {others[0].target!r} of line {others[0].line} is no "
                f"{kind} as the others are ({len(others)} of {len(recordings)}); --kind {kind} reports such rows and "
                f"scores the others, --kind string scores all as text"
            )
    return ""


def _is_target(target: str, kind: str) -> bool:
    try:
        check_target(target, kind)
    except ValueError:  # the answer to the question, not a fault: the target is of another kind
        return False
    return True
