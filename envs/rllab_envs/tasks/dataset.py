"""Rows that somebody else wrote as a task: a file, a folder of files, or a dataset of the hub.

`task: mine.jsonl` in a recipe names one. JSONL is read line by line, so that a broken line is told; everything else
(JSON, CSV, Parquet, a folder, a name of the hub) is read by `datasets`, which runs no code of a dataset's.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rllab.core.errors import FieldMistake
from rllab.core.files import read_jsonl
from rllab.core.messages import last_text
from rllab_envs.tasks.draws import split_of

FORMATS = (
    ("messages",),
    ("text",),
    ("prompt", "completions", "ranks"),
    ("chosen", "rejected"),
    ("prompt", "completion"),
    ("prompt",),  # for a policy, which completes it itself
)
SPLITS = ("train", "validation", "test")
_KINDS = {".json": "json", ".csv": "csv", ".parquet": "parquet"}
_TOLD = 5  # mistakes that are told in full


class Dataset:
    """The task of a dataset's rows, in one of TRL's formats (see rllab.text.chat).

    path: a file, a folder with files named by their split, or a dataset of the hub. config: of a dataset that has
    several. columns: ours by theirs, as in {question: prompt, answer: completion}. kind: of the answers in `target`,
    where rows have no column of that name. Where there is no file for `validation` or `test`, one row in twenty and two
    in twenty are held out, by a hash of the row.

    Raises:
        Mistake: a row is broken or lacks a column; tells file and line.
    """

    def __init__(
        self,
        path: str,
        *,
        config: str | None = None,
        columns: dict[str, str] | None = None,
        kind: str | None = None,
    ) -> None:
        problems: list[str] = []
        self._rows = {
            split: [_checked(row, where, columns or {}, kind, problems) for where, row in rows]
            for split, rows in _read(path, config).items()
            if split in SPLITS
        }
        _tell(problems)
        if not any(self._rows.values()):
            raise FieldMistake("task", f"{path} has no rows")
        self._hold_out()
        said = json.dumps(self._rows, sort_keys=True, ensure_ascii=False, default=str)
        self.fingerprint = hashlib.sha256(said.encode()).hexdigest()[:16]

    def size(self, split: str) -> int:
        """How many rows a split has."""
        return len(self._rows.get(split, []))

    def row(self, index: int, split: str) -> dict[str, Any]:
        """A row, with whatever columns it came with."""
        return dict(self._rows[split][index])

    def gold(self, row: Mapping[str, Any]) -> str:
        """The row's own completion, or its best; of a prompt alone its target."""
        best = next((row[c] for c in ("completion", "chosen", "text", "target") if c in row), "")
        return last_text(best)

    def _hold_out(self) -> None:
        missing = [s for s in SPLITS[1:] if not self._rows.get(s)]
        drawn = [(split_of(json.dumps(r, sort_keys=True, default=str)), r) for r in self._rows["train"]]
        self._rows["train"] = [r for s, r in drawn if s not in missing]
        self._rows |= {m: [r for s, r in drawn if s == m] for m in missing}


def _read(path: str, config: str | None) -> dict[str, list[tuple[str, Any]]]:
    """The rows of each split, each with where it came from."""
    folder = Path(path)
    if folder.is_file():
        return {"train": list(_file(folder))}
    if folder.is_dir():
        files = {s: sorted(p for p in folder.iterdir() if p.name.split(".")[0].split("-")[0] == s) for s in SPLITS}
        if not files["train"]:
            raise FieldMistake("task", f"{path} has no file named train, such as train.jsonl or train-00000.parquet")
        return {s: [row for file in found for row in _file(file)] for s, found in files.items()}
    if folder.suffix in (".jsonl", *_KINDS) or path.startswith((".", "/")):
        raise FieldMistake("task", f"no such file: {path}")
    return _hub(path, config)


def _file(file: Path) -> list[tuple[str, Any]]:
    stem = file.name.removesuffix(".gz")
    if stem.endswith(".jsonl"):
        return _jsonl(file)
    kind = _KINDS.get(Path(stem).suffix)
    if kind is None:
        raise FieldMistake("task", f"{file}: rows are read from .jsonl, .json, .csv and .parquet")
    from datasets import Dataset as Table  # it takes a second to import

    try:
        table = getattr(Table, f"from_{kind}")(str(file), keep_in_memory=True)
    except Exception as error:  # whatever a broken file makes it raise
        raise FieldMistake("task", f"{file} cannot be read: {str(error).splitlines()[0]}") from None
    return [(f"{file}, row {i + 1}", row) for i, row in enumerate(table)]


def _jsonl(file: Path) -> list[tuple[str, Any]]:
    problems: list[str] = []
    found = [
        (f"{file}:{line}", row)
        for line, row in read_jsonl(file, lambda line, fault: problems.append(f"{file}:{line}: {fault}"))
    ]
    _tell(problems)
    return found


def _tell(problems: list[str]) -> None:
    if problems:
        more = [f"and {len(problems) - _TOLD} more"] if len(problems) > _TOLD else []
        raise FieldMistake("task", "\n".join([*problems[:_TOLD], *more]))


def _hub(path: str, config: str | None) -> dict[str, list[tuple[str, Any]]]:
    from datasets import load_dataset

    try:
        found = load_dataset(path, config)
    except Exception as error:  # no network, no such name, a configuration that must be named
        raise FieldMistake(
            "task",
            f"{path} is no file or folder here, and the hub does not give it: {str(error).splitlines()[0]}; "
            f"on a cluster fetch it first on a node that has a network: hf download --repo-type dataset {path}",
        ) from None
    return {s: [(f"{path}, {s}, row {i + 1}", row) for i, row in enumerate(rows)] for s, rows in found.items()}


def _checked(
    row: Mapping[str, Any], where: str, columns: dict[str, str], kind: str | None, problems: list[str]
) -> dict[str, Any]:
    """A row under our names of its columns; what is wrong with it is added to `problems`."""
    named = {columns.get(k, k): v for k, v in row.items() if v is not None}
    if "target" in named:
        named["target"] = str(named["target"])  # a file may have numbers
        named |= {"kind": kind} if kind and "kind" not in named else {}
    fits = next((f for f in FORMATS if all(c in named for c in f)), None)
    if fits is None:
        wanted = "; ".join(" and ".join(f) for f in FORMATS)
        problems.append(
            f"{where}: its columns are {', '.join(row)}; a row has {wanted}. Say which is which, as in "
            "task: {name: mine.jsonl, columns: {question: prompt, answer: completion}}"
        )
        return named
    for column in {*fits, "prompt"} & set(named) - {"ranks"}:
        if column == "completions":
            empty = not named[column] or not all(map(_said, named[column]))
        else:
            empty = not _said(named[column])
        if empty:
            problems.append(f"{where}: its {column} is empty")
    if "target" in named and "kind" not in named and "rejected" not in named:
        problems.append(
            f"{where}: its target is of no kind: say of which the answers are, as in task: {{name: mine.jsonl, kind: "
            "number}, or in a column"
        )
    if fits == ("messages",) and not any(m.get("role") == "assistant" for m in named["messages"]):
        problems.append(f"{where}: nobody in its messages is the assistant, so there is nothing to learn")
    return _with_prompt(named) if "chosen" in fits and "prompt" not in named else named


def _said(value: Any) -> bool:
    """Whether a text or conversation says anything."""
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, Sequence) and bool(value) and all(isinstance(m, Mapping) and "role" in m for m in value)


def _with_prompt(row: dict[str, Any]) -> dict[str, Any]:
    """What two conversations begin with alike is their prompt; transcripts as in hh-rlhf are conversations too."""
    chosen, rejected = (_transcript(row[k]) for k in ("chosen", "rejected"))
    same = 0
    while same < min(len(chosen), len(rejected)) - 1 and chosen[same] == rejected[same]:
        same += 1
    return row | {"prompt": chosen[:same], "chosen": chosen[same:], "rejected": rejected[same:]}


def _transcript(said: Any) -> list[dict[str, str]]:
    """The messages of '\\n\\nHuman: ...\\n\\nAssistant: ...' (Bai et al. 2022); of a plain text one message."""
    if not isinstance(said, str):
        return list(said)
    turns = re.split(r"\n\n(Human|Assistant):", said)
    roles = {"Human": "user", "Assistant": "assistant"}
    if len(turns) < 3:
        return [{"role": "assistant", "content": said}]
    return [{"role": roles[who], "content": text.strip()} for who, text in zip(turns[1::2], turns[2::2], strict=True)]
