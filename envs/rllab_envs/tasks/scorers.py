"""Scorers of other packages. Several evaluate a model's text as code, so they only run in a confined process."""

import math
from collections.abc import Mapping
from typing import Any

from rllab.core.errors import Mistake
from rllab.core.names import Term
from rllab.sandbox.process import CallFailed, Process

_SECONDS = 10.0  # for one answer


class Scorer:
    """Scores answers by a class in another process, made with settings and called with `completions` and columns.

    address: of the class, `module:Class`.
    """

    def __init__(self, address: str, settings: dict[str, Any]) -> None:
        self._name = address
        self._process = Process(Term(address, 1.0, address, settings, None, True), confined=True)

    def score(self, answer: str, gold: str, columns: Mapping[str, Any]) -> float:
        """Returns the score of an answer; 0 if the scorer fails on it and does not fail on the gold answer.

        Raises:
            Mistake: the scorer fails on the gold answer, too.
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
