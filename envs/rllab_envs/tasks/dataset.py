"""A task of existing rows: a file, a folder of files, or a dataset of the Hugging Face hub.

`task: mine.jsonl` in a recipe names one. Every row is checked before training, and read again when it is drawn.
"""

import contextlib
import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rllab.core.errors import FieldMistake
from rllab.core.messages import last_text
from rllab_envs.tasks.draws import split_of
from rllab_envs.tasks.formats import canonical, check_template, filled, learned, ranked
from rllab_envs.tasks.labelled import labelled
from rllab_envs.tasks.messages import RowFault
from rllab_envs.tasks.tables import SPLITS, BrokenLine, Groups, Table, read

_SHOWN = 5  # mistakes that are shown in full
_TWENTIETHS = {"validation": 1, "test": 2}  # of the rows that are held out


class Dataset:
    """The task of a dataset's rows, in one of TRL's formats (see rllab.text.chat) or as in `rllab_envs.tasks.formats`.

    path: a file, a folder with files named by their split, or a dataset of the hub. config: of a dataset that has
    several. columns: names in the file and names here, as in {question: prompt, answer: completion}. kind: of the
    answers in `target`, for rows without a column `kind`. prompt, completion: templates that join columns of the file,
    as in "{instruction}\\n{input}"; lines whose columns are all empty are left out. rank_by:
    a column of ratings; neighbouring rows with the same prompt become one ranking. Without rows for `validation` or
    `test`, 1 in 20 and 2 in 20 rows of `train` are held out, by a hash of the row; of fewer than 20 rows maybe none. A
    file of labels is read as in `rllab_envs.tasks.labelled`, and `label_counts` has the numbers of its pairs.

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
        prompt: str = "",
        completion: str = "",
        rank_by: str = "",
    ) -> None:
        self._columns, self._kind, self._rank_by = columns or {}, kind, rank_by
        self._templates = {k: v for k, v in (("prompt", prompt), ("completion", completion)) if v}
        for name, template in self._templates.items():
            try:
                check_template(template)
            except ValueError as error:
                raise FieldMistake("task", f"{name}: {error}") from None
        labels = labelled(path)
        self._tables, self.label_counts = labels or (read(path, config), dict[str, int]())
        if rank_by:
            self._tables = {s: Groups(table, self._prompt_of) for s, table in self._tables.items()}
        self._drawn = array("b")  # of each row of `train`, the split that its hash draws
        self._hashes = {s: array("Q") for s in self._tables}  # of each row
        self._check(path)
        every = {s: (s, array("q", range(len(table)))) for s, table in self._tables.items()}
        self._rows: dict[str, tuple[str, array[int]]] = every  # of each split: its table, and its rows there
        self._hold_out()
        self.fingerprint = self._fingerprint()

    def size(self, split: str) -> int:
        """Returns the number of rows of a split."""
        return len(self._rows[split][1]) if split in self._rows else 0

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row with all of its columns."""
        table, places = self._rows[split]
        return self._canonical(self._tables[table][places[index]])

    def place(self, index: int, split: str) -> str:
        """Returns where a row is, such as 'mine.jsonl:7', for messages."""
        table, places = self._rows[split]
        return self._tables[table].place(places[index])

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns the row's completion, chosen completion or text; of a row without these its target."""
        best = next((row[c] for c in ("completion", "chosen", "text", "target") if c in row), "")
        return last_text(best)

    def _hold_out(self) -> None:
        missing = [s for s in SPLITS[1:] if not self.size(s)]
        held = {s: array("q") for s in ("train", *missing)}
        for i, drawn in enumerate(self._drawn):
            held[SPLITS[drawn] if SPLITS[drawn] in missing else "train"].append(i)
        for split in missing:
            count = len(self._drawn) * _TWENTIETHS[split] // 20
            if count and not held[split]:
                held["train"], held[split] = self._first_by_hash(held["train"], count)
        self._rows |= {s: ("train", places) for s, places in held.items()}

    def _first_by_hash(self, places: Sequence[int], count: int) -> "tuple[array[int], array[int]]":
        """(the others, the `count` rows with the lowest hashes), for small files; equal rows stay together."""
        hashes = self._hashes["train"]
        last = sorted(hashes[i] for i in places)[count - 1]
        held, others = (array("q", (i for i in places if (hashes[i] <= last) is low)) for low in (True, False))
        return (others, held) if others else (held, others)

    def _fingerprint(self) -> str:
        """A hash of the rows of all splits, in their order."""
        sha = hashlib.sha256()
        for split, (table, places) in sorted(self._rows.items()):
            sha.update(f"{split} {len(places)} ".encode())
            sha.update(array("Q", map(self._hashes[table].__getitem__, places)).tobytes())
        return sha.hexdigest()[:16]

    def _check(self, path: str) -> None:
        """Reads every row once.

        Raises:
            FieldMistake: there is none, or some are broken.
        """
        problems, names, first = list[str](), set[str](), ""
        for split, place, row in _all(self._tables):
            if isinstance(row, BrokenLine):
                problems.append(f"{place}: {row.fault}")
                continue
            names |= (row[0] if self._rank_by else row).keys()
            try:
                named = self._canonical(row)
                form = learned(named)
                first = first or form
                if form != first:
                    raise RowFault(f"it has {form}, and the rows before it have {first}: give all rows one form")
                text = json.dumps(named, sort_keys=True, default=str)
                self._hashes[split].append(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
                if split == "train":
                    self._drawn.append(SPLITS.index(split_of(text)))
            except RowFault as fault:
                problems.append(f"{place}: {fault}")
        if problems:
            more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
            raise FieldMistake("task", "\n".join([*problems[:_SHOWN], *more]))
        if not names:
            raise FieldMistake("task", f"{path} has no rows")
        if absent := self._columns.keys() - names:
            raise FieldMistake("task", f"columns: no row of {path} has {', '.join(sorted(absent))}")

    def _canonical(self, row: Any) -> dict[str, Any]:
        """A row in one of the lab's formats; with `rank_by` the ranking of rows with the same prompt."""
        if self._rank_by:
            return ranked([self._named(each) for each in row], self._rank_by)
        return self._named(row)

    def _prompt_of(self, row: Any) -> Any:
        """The prompt of a row; a broken row has one of its own."""
        with contextlib.suppress(RowFault):
            return object() if isinstance(row, BrokenLine) else self._named(row).get("prompt", object())
        return object()

    def _named(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row with renamed and joined columns, in one of the lab's formats."""
        named = {self._columns.get(k, k): v for k, v in row.items() if self._columns.get(k, k) == k or v is not None}
        for old, new in self._columns.items():
            if old != new and row.get(old) is not None and row.get(new) is not None and new not in self._columns:
                raise RowFault(f"its {old} is renamed {new}, and it has another {new}: rename that as well")
        named |= {name: filled(template, row) for name, template in self._templates.items()}
        if named.get("input") and "instruction" in self._columns and "prompt" not in self._templates:
            raise RowFault('its input is not used: join the columns, as in task: {prompt: "{instruction}\\n{input}"}')
        if named.get("target") is not None:
            named["target"] = str(named["target"])  # a file may hold numbers
            named |= {"kind": self._kind} if self._kind and named.get("kind") is None else {}
            if named.get("kind") is None and "rejected" not in named:
                raise RowFault(
                    "its target has no kind: name the kind of the answers, as in task: {name: mine.jsonl, kind: "
                    "number}, or in a column `kind`"
                )
        return canonical(named)


def _all(tables: Mapping[str, Table]) -> Iterator[tuple[str, str, Any]]:
    """(split, place, row) of all rows of tables."""
    for split, table in tables.items():
        for i in range(len(table)):
            yield split, table.place(i), table[i]
