"""Scorers that others wrote; several evaluate what a model wrote, so they run in a confined process, never here."""

import math
from collections.abc import Mapping
from typing import Any

from rllab.core.errors import Mistake
from rllab.core.names import Term
from rllab.sandbox.process import CallFailed, Process

_SECONDS = 10.0  # for an answer


class Scorer:
    """Scores answers by a class of another process: made with settings, called with `completions` and columns."""

    def __init__(self, address: str, settings: dict[str, Any]) -> None:
        self._name = address
        self._process = Process(Term(address, 1.0, address, settings, None, True), confined=True)

    def score(self, answer: str, gold: str, columns: Mapping[str, Any]) -> float:
        """What an answer is worth; 0 for one on which the scorer fails while it gets along with the gold answer.

        Raises:
            Mistake: it fails on the gold answer, too.
        """
        try:
            return self._score(answer, columns)
        except CallFailed:
            try:
                self._score(gold, columns)
            except CallFailed as failed:
                raise Mistake(f"the scorer {self._name} fails on the gold answer {gold[:80]!r}: {failed}") from failed
            return 0.0

    def _score(self, answer: str, columns: Mapping[str, Any]) -> float:
        (score,) = self._process.call({"completions": [answer]} | {k: [v] for k, v in columns.items()}, 0, _SECONDS)
        if not isinstance(score, float) or not math.isfinite(score):
            raise CallFailed(f"returned {score!r}, which is no score")
        return score
