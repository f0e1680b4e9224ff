"""The key: gold answers by id, which come from the teacher and never from a submission.

An id is compared as text, so 1 and "1" are the same. What a submission says of its items itself (`target`, `kind`,
`choices`, `question`) and of its answers (`correct`, `score`) is ignored, and reported where it differs.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rllab.answers import check_target, number
from rllab.core.errors import Mistake
from rllab.core.names import find, is_data
from rllab.evals.logs import recorded_rows
from rllab.evals.problems import Problems, read_rows
from rllab.evals.recordings import Recording, completed_by, id_of, recordings_of, source_of

Row = dict[str, Any]


@dataclass(frozen=True)
class Submission:
    """What a file holds of the items of a key.

    recordings: one for each sample, with the key's gold. rows: as they are in the file. unknown: rows whose id is not
    in the key. differing: rows that say of their item what the key does not.
    """

    recordings: list[Recording] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    unknown: int = 0
    differing: int = 0


class Key:
    """The items of a key by id, each as a recording without a completion."""

    def __init__(self, name: str, kind: str | None, remarks: Problems) -> None:
        """Reads a key: a JSONL file with `id`, `target` and maybe `kind`, or a task named as in a recipe.

        kind: see `recordings_of`. remarks: receives what is noteworthy of the key and no fault.

        Raises:
            Mistake: there is no such file or task, or any row is broken or repeats an id.
        """
        problems, path = Problems(), Path(name)
        if is_data(name) and not path.is_file():
            raise Mistake(f"the key {name} is no file")
        rows = read_rows(path, problems) if path.is_file() else list(_task_rows(name))
        self._items, self._rows = dict[str, Recording](), dict(rows)
        for item in recordings_of(path, rows, kind, problems, completed=False):
            if (first := self._items.get(str(item.id))) is not None:
                problems.add(path, item.line, f"the id {item.id!r} is in line {first.line} already")
            self._items[str(item.id)] = item
        remarks.remarks += problems.remarks
        if problems or not self._items:
            faults = problems.messages() or [f"{name}: it has no rows"]
            raise Mistake("\n".join(["nothing is scored, since the key has faults", *faults]))

    def __len__(self) -> int:
        return len(self._items)

    def items(self) -> list[Recording]:
        """Returns the items in the order of the key, each a recording without a completion."""
        return list(self._items.values())

    @property
    def kinds(self) -> str:
        """The kinds of its answers."""
        return ", ".join(dict.fromkeys(item.kind for item in self.items()))

    def submission(self, path: Path, problems: Problems) -> Submission:
        """Reads a file of completions. Lines that cannot be used, and ids that are not in the key, are reported.

        Raises:
            Mistake: the file cannot be read at all.
        """
        recordings, rows, unknown = list[Recording](), list[Row](), list[Any]()
        differing = defaultdict[str, dict[int, str]](dict)  # of each column, the lines
        for n, row in self._with_ids(path, recorded_rows(path, problems), problems):
            item = self._items.get(str(id_of(row)))
            if item is None:
                unknown.append(id_of(row))
                continue
            try:
                recordings.append(completed_by(replace(item, line=n, source=source_of(row)), row))
            except ValueError as error:
                problems.add(path, n, str(error))
                continue
            rows.append(row)
            for name, own, gold in self._differences(item, row):
                differing[name][n] = f"id {item.id!r}: {str(own)[:60]!r}, not {str(gold)[:60]!r}"
        if unknown:
            fault = f"{len(unknown)} rows have an id that is not in the key, such as {unknown[0]!r}"
            fault += f"; its ids are such as {next(iter(self._items))!r}"
            problems.note(path, fault, len(unknown))
        for name, where in differing.items():
            problems.remark(
                path, f"{len(where)} rows have another `{name}` than the key, such as {next(iter(where.values()))}"
            )
        return Submission(recordings, rows, len(unknown), len(set().union(*differing.values())))

    def missing(self, ids: Iterable[str | int]) -> list[Recording]:
        """Returns the items that are not among the ids."""
        given = set(map(str, ids))
        return [item for ident, item in self._items.items() if ident not in given]

    def _with_ids(self, path: Path, rows: list[tuple[int, Row]], problems: Problems) -> Iterator[tuple[int, Row]]:
        """Yields the rows that have an id. The order of a file is not taken for its ids."""
        for n, row in rows:
            try:
                id_of(row)
            except ValueError as error:
                hint = f"add the key's ids, such as {next(iter(self._items))!r}; the order of lines does not count"
                problems.add(path, n, f"{error}; {hint}" if "id" not in row else str(error))
            else:
                yield n, row

    def _differences(self, item: Recording, row: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        """Yields (column, its value, the key's) of what a row says of its item and the key does not."""
        gold, own = self._rows[item.line], row.get("target")
        for name in ("question", "choices", "options"):
            if name in row and name in gold and row[name] != gold[name]:
                yield name, row[name], gold[name]
        if row.get("kind") not in (None, "", item.kind):
            yield "kind", row["kind"], item.kind
        targets = own if isinstance(own, list) else [own]  # Inspect's logs may have several
        if own is not None and not any(_same_target(str(t), item.target, item.kind) for t in targets):
            yield "target", own, item.target


def _same_target(own: str, gold: str, kind: str) -> bool:
    try:
        own, gold = check_target(own, kind), check_target(gold, kind)
    except ValueError:  # the answer to the question: a target of another kind is another target
        return False
    return own == gold or (kind == "number" and number.same(own, gold))


def _task_rows(name: str) -> Iterator[tuple[int, Row]]:
    """Yields (number from 1, row) of the test split of a task. Rows without an `id` are numbered from 0."""
    try:
        task = find(name, "rllab_envs.tasks", Path())()
    except Mistake as error:
        raise Mistake(f"the key {name} is no file, and no task: {error}") from None
    except TypeError as error:
        raise Mistake(f"the task {name} cannot be a key, since it takes settings: {error}") from None
    for i in range(task.size("test")):
        yield i + 1, {"id": i} | task.row(i, "test")
