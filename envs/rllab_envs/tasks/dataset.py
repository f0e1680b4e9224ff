"""A task of existing rows: a file, a folder of files, or a dataset of the Hugging Face hub.

`task: mine.jsonl` in a recipe names one. JSONL is read line by line, and a broken line is reported with its number.
Other files (JSON, CSV, Parquet) and datasets of the hub are read by `datasets`, which runs no code of a dataset.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rllab.core.errors import FieldMistake
from rllab.core.files import hub_is_reachable, read_jsonl
from rllab.core.messages import last_text
from rllab_envs.tasks.draws import split_of

FORMATS = (
    ("messages",),
    ("text",),
    ("prompt", "completions", "ranks"),
    ("chosen", "rejected"),
    ("prompt", "completion"),
    ("prompt",),  # for a policy, which samples the completion
)
SPLITS = ("train", "validation", "test")
_KINDS = {".json": "json", ".csv": "csv", ".parquet": "parquet"}
_SHOWN = 5  # mistakes that are shown in full


class Dataset:
    """The task of a dataset's rows, in one of TRL's formats (see rllab.text.chat).

    path: a file, a folder with files named by their split, or a dataset of the hub. config: of a dataset that has
    several. columns: names in the file and names here, as in {question: prompt, answer: completion}. kind: of the
    answers in `target`, for rows without a column `kind`. Without rows for `validation` or `test`, 1 in 20 and 2 in 20
    rows of `train` are held out, by a hash of the row.

    Raises:
        FieldMistake: there are no rows, or a row is broken or lacks a column; the message names file and line.
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
        _raise(problems)
        if not any(self._rows.values()):
            raise FieldMistake("task", f"{path} has no rows")
        self._hold_out()
        text = json.dumps(self._rows, sort_keys=True, ensure_ascii=False, default=str)
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]

    def size(self, split: str) -> int:
        """Returns the number of rows of a split."""
        return len(self._rows.get(split, []))

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row with all of its columns."""
        return dict(self._rows[split][index])

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns the row's completion, chosen completion or text; of a row without these its target."""
        best = next((row[c] for c in ("completion", "chosen", "text", "target") if c in row), "")
        return last_text(best)

    def _hold_out(self) -> None:
        missing = [s for s in SPLITS[1:] if not self._rows.get(s)]
        drawn = [(split_of(json.dumps(r, sort_keys=True, default=str)), r) for r in self._rows["train"]]
        self._rows["train"] = [r for s, r in drawn if s not in missing]
        self._rows |= {m: [r for s, r in drawn if s == m] for m in missing}


def _read(path: str, config: str | None) -> dict[str, list[tuple[str, Any]]]:
    """Returns (place, row) of the rows of each split; the place is a file with a line, for messages."""
    folder = Path(path)
    if folder.is_file():
        return {"train": list(_file(folder))}
    if folder.is_dir():
        files = {s: sorted(p for p in folder.iterdir() if p.name.split(".")[0].split("-")[0] == s) for s in SPLITS}
        if not files["train"]:
            raise FieldMistake("task", f"{path} has no file named train, such as train.jsonl or train-00000.parquet")
        return {s: [row for file in own for row in _file(file)] for s, own in files.items()}
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
    from datasets import Dataset as Table  # takes a second to import

    try:
        table = getattr(Table, f"from_{kind}")(str(file), keep_in_memory=True)
    except Exception as error:  # a broken file may raise anything
        raise FieldMistake("task", f"{file} cannot be read: {str(error).splitlines()[0]}") from None
    return [(f"{file}, row {i + 1}", row) for i, row in enumerate(table)]


def _jsonl(file: Path) -> list[tuple[str, Any]]:
    problems: list[str] = []
    rows = [
        (f"{file}:{line}", row)
        for line, row in read_jsonl(file, lambda line, fault: problems.append(f"{file}:{line}: {fault}"))
    ]
    _raise(problems)
    return rows


def _raise(problems: list[str]) -> None:
    """Raises a FieldMistake with the first problems, if there are any."""
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise FieldMistake("task", "\n".join([*problems[:_SHOWN], *more]))


def _hub(path: str, config: str | None) -> dict[str, list[tuple[str, Any]]]:
    from datasets import config as options
    from datasets import load_dataset

    options.HF_HUB_OFFLINE = options.HF_HUB_OFFLINE or not hub_is_reachable()  # then only its cache is looked at
    try:
        splits = load_dataset(path, config)
    except Exception as error:  # no network, no such name, a configuration that must be named
        raise FieldMistake(
            "task",
            f"{path} is no file or folder here, and the hub does not give it: {str(error).splitlines()[0]}; "
            f"on a cluster fetch it first on a node that has a network: hf download --repo-type dataset {path}",
        ) from None
    return {s: [(f"{path}, {s}, row {i + 1}", row) for i, row in enumerate(rows)] for s, rows in splits.items()}


def _checked(
    row: Mapping[str, Any], where: str, columns: dict[str, str], kind: str | None, problems: list[str]
) -> dict[str, Any]:
    """Returns a row with renamed columns, and adds what is wrong with it to `problems`."""
    named = {columns.get(k, k): v for k, v in row.items() if v is not None}
    if "target" in named:
        named["target"] = str(named["target"])  # a file may hold numbers
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
            empty = not named[column] or not all(map(_has_content, named[column]))
        else:
            empty = not _has_content(named[column])
        if empty:
            problems.append(f"{where}: its {column} is empty")
    if "target" in named and "kind" not in named and "rejected" not in named:
        problems.append(
            f"{where}: its target has no kind: name the kind of the answers, as in task: {{name: mine.jsonl, kind: "
            "number}, or in a column `kind`"
        )
    if fits == ("messages",) and not any(m.get("role") == "assistant" for m in named["messages"]):
        problems.append(f"{where}: none of its messages is by the assistant, so there is nothing to learn")
    return _with_prompt(named) if "chosen" in fits and "prompt" not in named else named


def _has_content(value: Any) -> bool:
    """Returns whether a text is not blank, or a conversation has messages."""
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, Sequence) and bool(value) and all(isinstance(m, Mapping) and "role" in m for m in value)


def _with_prompt(row: dict[str, Any]) -> dict[str, Any]:
    """Makes the common beginning of the chosen and the rejected conversation their prompt.

    Transcripts as in hh-rlhf are read as conversations.
    """
    chosen, rejected = (_transcript(row[k]) for k in ("chosen", "rejected"))
    same = 0
    while same < min(len(chosen), len(rejected)) - 1 and chosen[same] == rejected[same]:
        same += 1
    return row | {"prompt": chosen[:same], "chosen": chosen[same:], "rejected": rejected[same:]}


def _transcript(text: Any) -> list[dict[str, str]]:
    """Returns the messages of '\\n\\nHuman: ...\\n\\nAssistant: ...' (Bai et al. 2022); a plain text is one message."""
    if not isinstance(text, str):
        return list(text)
    turns = re.split(r"\n\n(Human|Assistant):", text)
    roles = {"Human": "user", "Assistant": "assistant"}
    if len(turns) < 3:
        return [{"role": "assistant", "content": text}]
    return [{"role": roles[who], "content": turn.strip()} for who, turn in zip(turns[1::2], turns[2::2], strict=True)]
