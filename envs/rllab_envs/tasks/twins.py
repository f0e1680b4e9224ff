"""Twins: sets that a generator draws anew from a secret salt, of the wording and difficulty of a published set.

A model that knows a published set by heart, as it was in the texts that it was trained on, gains nothing on the twin.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from rllab.core.errors import FieldMistake, Mistake
from rllab_envs.tasks.definitions import Definition, bundled
from rllab_envs.tasks.exemplars import Exemplar, read_exemplars


class Twin:
    """The task of a benchmark's twin; its rows are those of a benchmark, all in the split `test`.

    salt: a text that is kept secret, or a number from 0. folder, name: of the definition.

    Raises:
        Mistake: the benchmark has no twin, or the salt is empty.
    """

    def __init__(self, definition: Definition, folder: Path, name: str, salt: int | str) -> None:
        if definition.twin is None or definition.rows is None:
            having = ", ".join(other for other, one in bundled().items() if one.twin)
            raise Mistake(f"{name} has no twin, so it takes no salt; these benchmarks have one: {having}")
        if salt == "" or (isinstance(salt, int) and salt < 0):
            raise Mistake("the salt of a twin is a text that is not empty, or a number from 0")
        self._generator, self._size = definition.twin(salt=salt), definition.rows
        self._definition, self._folder, self._name = definition, folder, name
        self.instruction = definition.instruction

    @cached_property
    def exemplars(self) -> list[Exemplar]:
        """The exemplars of the benchmark.

        Raises:
            FieldMistake: the file that holds them is not here, or is broken.
        """
        return read_exemplars(self._definition.exemplars, self._folder)

    def size(self, split: str) -> int:
        """Returns the number of rows of a split; 0 for `train` and `validation`."""
        return self._size if split == "test" else 0

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row of the split `test`; its id is its number from 0.

        Raises:
            FieldMistake: another split is asked for.
        """
        if split != "test":
            raise FieldMistake("task", f"the twin of {self._name} has test rows alone, not {split!r}")
        drawn = self._generator.row(index, split)
        kept = {k: drawn[k] for k in ("question", "target", "kind", "choices") if k in drawn}
        return {"id": index} | kept | {"prompt": [{"role": "user", "content": drawn["question"]}]}

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns the target of a row."""
        return str(row["target"])

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the rows, which does not tell the salt."""
        sha = hashlib.sha256()
        for i in range(self._size):
            sha.update(json.dumps(self.row(i, "test")).encode())
        return sha.hexdigest()[:16]
