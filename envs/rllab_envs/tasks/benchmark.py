"""Benchmarks: published test sets that are described by a YAML file of a few lines, and sets of one's own in JSONL.

`open_benchmark("aime24")`, `open_benchmark("mine.yaml")` and `open_benchmark("mine.jsonl")` open one. It has test rows
and no others, so nothing can be trained on it.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from rllab.core.errors import FieldMistake
from rllab.core.names import is_data
from rllab_envs.tasks.columns import KINDS, choices_of, column, shuffled, target_of, text
from rllab_envs.tasks.definitions import Definition, Source, expand, find_definition, names
from rllab_envs.tasks.exemplars import Exemplar, checked, find, read_exemplars
from rllab_envs.tasks.messages import RowFault, shown
from rllab_envs.tasks.tables import BrokenLine, Table, joined, read
from rllab_envs.tasks.twins import Twin

__all__ = ["Benchmark", "expand", "names", "open_benchmark"]

_SHOWN = 5  # mistakes that are shown in full


class Benchmark:
    """The task of a published set's rows, all in the split `test`.

    A row is {"id", "question", "prompt", "target", "kind"}, and "choices" where the answer is the letter of one. The
    question has no instruction on the form of the answer, and lists the choices; the prompt is the question as a
    conversation.

    instruction: what all questions ask for, to stand before them in a prompt; mostly "". folder: where the definition
    lies, and where its local file is looked for before RLLAB_DATA. name: for messages.
    is_plain: it is a file of rows as above without a definition; `id` may be missing, and `exemplars` may be a column.

    Raises:
        FieldMistake: there is no such file or set, or a row of it is broken; the message names file and line.
    """

    def __init__(self, definition: Definition, folder: Path, name: str, *, is_plain: bool = False) -> None:
        self._definition, self._folder, self._name, self._is_plain = definition, folder, name, is_plain
        self.instruction = definition.instruction
        self._source, table = self._read()
        self._rows = self._checked(table)
        self._own_exemplars = _exemplars(table, name) if is_plain else []
        self.fingerprint = hashlib.sha256(json.dumps(self._rows).encode()).hexdigest()[:16]

    def size(self, split: str) -> int:
        """Returns the number of rows of a split; 0 for `train` and `validation`."""
        return len(self._rows) if split == "test" else 0

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row of the split `test`.

        Raises:
            FieldMistake: another split is asked for.
        """
        if split != "test":
            raise FieldMistake("task", f"{self._name} is a benchmark, which has test rows alone, not {split!r}")
        row = self._rows[index]
        return row | {"prompt": [{"role": "user", "content": row["question"]}]}

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns the target of a row."""
        return str(row["target"])

    @cached_property
    def exemplars(self) -> list[Exemplar]:
        """The examples of a few-shot prompt: {"question", "chain", "answer"} each; [] of a benchmark without any.

        Raises:
            FieldMistake: the file that holds them is not here, or is broken.
        """
        return read_exemplars(self._definition.exemplars, self._folder) or self._own_exemplars

    def _read(self) -> tuple[Source, Table]:
        """The source that is here, and its rows.

        Raises:
            FieldMistake: no source is here.
        """
        local, hub = self._definition.sources()
        path = find(local.path, self._folder) if local else None
        if local and path:
            return local, _joined(str(path), local)
        missing = f"no file {local.path} in {self._folder} or below RLLAB_DATA" if local else ""
        if not hub:
            raise FieldMistake("task", f"{self._name}: {missing}; it is published: {self._definition.about}")
        try:
            return hub, _joined(hub.path, hub)
        except FieldMistake as error:
            raise FieldMistake("task", "\n".join(filter(None, [f"{self._name}: {missing}", str(error)]))) from None

    def _checked(self, table: Table) -> list[dict[str, Any]]:
        """Reads every row.

        Raises:
            FieldMistake: there is none, or some are broken.
        """
        rows, problems, places = list[dict[str, Any]](), list[str](), dict[str | int, str]()
        for i in range(len(table)):
            try:
                row = self._row(table[i], i)
                before = places.setdefault(row["id"], table.place(i))
                if before != table.place(i):
                    raise RowFault(f"its id {shown(row['id'])} is that of {before}, too")
                rows.append(row)
            except RowFault as fault:
                problems.append(f"{table.place(i)}: {fault}")
        if problems:
            more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
            raise FieldMistake("task", "\n".join([*problems[:_SHOWN], *more]))
        if not rows or len(rows) != (self._definition.rows or len(rows)):
            wanted = self._definition.rows or "some"
            raise FieldMistake("task", f"{self._name}: {self._source.path} has {len(rows)} rows; {wanted} are expected")
        return rows

    def _row(self, published: Any, index: int) -> dict[str, Any]:
        """A row without its prompt."""
        if isinstance(published, BrokenLine):
            raise RowFault(published.fault)
        source = self._source
        kind = self._definition.kinds.get(str(index)) or self._definition.kind or column(published, "kind")
        if kind not in KINDS:
            raise RowFault(f"its kind is {shown(kind)}; kinds are {', '.join(KINDS)}")
        choices = choices_of(column(published, source.choices)) if source.choices and kind == "choice" else []
        target = target_of(column(published, source.target or ""), kind, choices, source.after or "")
        if source.shuffle and choices:
            choices, target = shuffled(choices, target, json.dumps(published, sort_keys=True, default=str))
        own = column(published, source.id) if source.id and (source.id in published or not self._is_plain) else index
        if isinstance(own, bool) or not isinstance(own, (str, int)):
            raise RowFault(f"its id is {shown(own)}, not a text or a whole number")
        question = text(source.question or "", published, choices)
        row = {"id": own, "question": question, "target": target, "kind": kind}
        return row | ({"choices": choices} if choices else {})


def open_benchmark(name: str, salt: int | str | None = None) -> Benchmark | Twin:
    """Opens a benchmark.

    name: of a bundled one, such as `aime24`; a definition, as mine.yaml; or a file of rows with `question`, `target`,
    `kind` and maybe `id` and `choices`, as mine.jsonl. salt: opens the generated twin of the benchmark instead.

    Raises:
        Mistake: there is no such benchmark or no twin, its definition is wrong, or a row is broken.
    """
    if is_data(name):
        definition = Definition(local=name, id="id", question="{question}", choices="choices", target="target")
        folder = Path()
    else:
        definition, folder = find_definition(name)
    if salt is not None:
        return Twin(definition, folder, name, salt)
    return Benchmark(definition, folder, name, is_plain=is_data(name))


def _exemplars(table: Table, name: str) -> list[Exemplar]:
    """The exemplars in the column of that name, which all rows that have it share."""
    columns = [table[i]["exemplars"] for i in range(len(table)) if table[i].get("exemplars") is not None]
    if any(column != columns[0] for column in columns):
        raise FieldMistake("task", f"{name}: its rows differ in their exemplars: give all the same, or one row alone")
    return checked(columns[0], name) if columns else []


def _joined(path: str, source: Source) -> Table:
    """The rows of a file, or of the splits of a folder or a set of the hub."""
    wanted = source.splits()
    tables = read(path, source.config, wanted[0], source.records)
    if Path(path).is_file():
        return tables["train"]
    for split in wanted:
        if not len(tables.get(split, ())):
            full = ", ".join(s for s, table in tables.items() if len(table))
            raise FieldMistake("task", f"{path} has no rows in the split {split!r}; it has {full or 'none'}")
    return joined([tables[split] for split in wanted])
