"""Reads recorded completions: JSONL with `id`, `question`, `target`, `kind` and `completion`, one item a line.

The columns of the recordings published with 'Large Language Models are Zero-Shot Reasoners' (Kojima et al. 2022) and
'Challenging BIG-Bench Tasks' (Suzgun et al. 2023) are read too.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rllab.answers import KINDS, check_target
from rllab.core.errors import Mistake
from rllab.core.files import read_jsonl
from rllab.core.names import did_you_mean


@dataclass(frozen=True)
class Recording:
    """One recorded completion.

    completion: the whole text behind the question, of the model and of further prompts. answer: the model's text behind
    the last prompt ('Therefore, the answer is'); without further prompts the same as `completion`. prompt: the last
    prompt, or "". line: in its file, from 1.
    """

    id: str | int
    question: str
    target: str
    kind: str
    completion: str
    answer: str
    prompt: str = ""
    line: int = 0


class Problems:
    """Collects what is wrong with lines of files. Lines with the same fault share one message."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._notes: list[str] = []

    def note(self, path: Path, fault: str) -> None:
        """Adds a fault of a whole file."""
        self._notes.append(f"{path}: {fault}")

    def add(self, path: Path, line: int, fault: str) -> None:
        """Adds a fault of a line (from 1)."""
        self._lines[str(path), fault].append(line)

    def __len__(self) -> int:
        return sum(map(len, self._lines.values())) + len(self._notes)

    def messages(self) -> list[str]:
        """Returns a message for each fault, `FILE:LINE: fault`, with the first of its lines."""
        return self._notes + [
            f"{path}:{lines[0]}: {fault}" + (f" (and {len(lines) - 1} more lines)" if len(lines) > 1 else "")
            for (path, fault), lines in self._lines.items()
        ]


def read_recordings(path: Path, kind: str | None, problems: Problems) -> list[Recording]:
    """Reads the recordings in a file. A line that cannot be used is left out and added to `problems`.

    kind: of all rows. By default it is the row's own `kind`. For rows without one it is inferred from the targets of
    all such rows (`kind_of_targets`).

    Raises:
        Mistake: there is no such file, or the kind is unknown.
    """
    if kind is not None and kind not in KINDS:
        raise Mistake(f"--kind {kind}: unknown{did_you_mean(kind, KINDS)}; kinds are {', '.join(KINDS)}")
    recordings = [r for n, row in read_rows(path, problems) if (r := _recording(path, n, row, kind, problems))]
    inferred = kind_of_targets([r.target for r in recordings if not r.kind])
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


def read_rows(path: Path, problems: Problems) -> list[tuple[int, dict[str, Any]]]:
    """Returns (line from 1, object) of each line of a JSONL file. A line that is no object is added to `problems`.

    Raises:
        Mistake: there is no such file.
    """
    try:
        return list(read_jsonl(path, lambda line, fault: problems.add(path, line, fault)))
    except (FileNotFoundError, IsADirectoryError):
        raise Mistake(f"{path} is no file; name recordings in JSONL") from None


def _recording(path: Path, n: int, row: dict[str, Any], kind: str | None, problems: Problems) -> Recording | None:
    try:
        text, answer, prompt = _completion(row)
        named, target = _text(row, "id"), _text(row, "target")
        ident = row["id"] if isinstance(row["id"], int) else named  # unchanged, so that results can be joined by it
        question = _text(row, "question") if "question" in row else ""
        kind = kind or (_text(row, "kind") if row.get("kind") else "")
        if kind and kind not in KINDS:
            raise ValueError(f"the kind {kind!r} is unknown{did_you_mean(kind, KINDS)}; kinds are {', '.join(KINDS)}")
    except ValueError as error:
        problems.add(path, n, str(error))
        return None
    return Recording(ident, question, target, kind, text, answer, prompt, n)


def _completion(row: dict[str, Any]) -> tuple[str, str, str]:
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


def _text(row: dict[str, Any], name: str) -> str:
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


def _is_target(target: str, kind: str) -> bool:
    try:
        check_target(target, kind)
    except ValueError:  # the answer to the question, not a fault: the target is of another kind
        return False
    return True
