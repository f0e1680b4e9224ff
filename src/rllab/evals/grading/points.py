"""What a value is worth: points by thresholds, or linear between values."""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

Rule = dict[str, float]
"""Points by value, as YAML has them: `{0.2: 0, 0.9: 10}`."""


@dataclass(frozen=True, kw_only=True)
class Points:
    """A rule for points. One of `linear` and `steps` is set.

    linear: points at two or more values; between two of them they are linear, and outside they are those of the nearest
    value. steps: points from a value on; below all of them 0. by: what is looked up, the measured value or the lower
    end of its interval, which a small number of items does not raise by chance.

    >>> Points(linear={"0.2": 0, "0.9": 10}).of(0.55, 0.4)
    5.0
    >>> Points(steps={"0.5": 4, "0.9": 10}, by="low").of(0.95, 0.88)
    4.0
    """

    linear: Rule = field(default_factory=dict)
    steps: Rule = field(default_factory=dict)
    by: Literal["value", "low"] = "value"

    def __post_init__(self) -> None:
        if bool(self.linear) == bool(self.steps):
            raise ValueError("points: set linear, as {0.2: 0, 0.9: 10}, or steps, as {0.5: 4, 0.9: 10}")
        if len(self.linear) == 1:
            raise ValueError("linear: name two values or more, as {0.2: 0, 0.9: 10}")
        name, rule = ("linear", self.linear) if self.linear else ("steps", self.steps)
        for text in rule:
            try:
                float(text)
            except ValueError:
                raise ValueError(f"{name}: {text!r} is no number; write values with their points") from None
        if len({float(text) for text in rule}) < len(rule):
            raise ValueError(f"{name}: a value is named twice")
        points = [p for _, p in self._rule]
        if min(points) < 0 or points != sorted(points) or points[-1] == 0:
            raise ValueError(f"{name}: points are not negative, and a higher value is worth no fewer")

    @property
    def _rule(self) -> list[tuple[float, float]]:
        return sorted((float(text), float(points)) for text, points in (self.linear or self.steps).items())

    @property
    def most(self) -> float:
        """The points of the best value."""
        return self._rule[-1][1]

    def of(self, value: float, low: float) -> float:
        """Returns the points of a value whose interval has the lower end `low`, to a hundredth.

        Raises:
            ValueError: it is not a number.
        """
        x, rule = low if self.by == "low" else value, self._rule
        if not math.isfinite(x):
            raise ValueError(f"{x} is worth no points")
        if self.steps:
            return max((points for at, points in rule if x >= at), default=0.0)
        if x <= rule[0][0]:
            return rule[0][1]
        for (left, fewer), (right, more) in pairwise(rule):
            if x <= right:
                return round(fewer + (more - fewer) * (x - left) / (right - left), 2)
        return rule[-1][1]

    def in_words(self) -> str:
        """Returns the rule as a text."""
        what = "the lower end of the 95 % interval" if self.by == "low" else "the value"
        if self.steps:
            each = ", ".join(f"{points:g} from {at:g}" for at, points in self._rule)
            return f"points by {what}: {each}"
        each = ", ".join(f"{points:g} at {at:g}" for at, points in self._rule)
        return f"points by {what}: {each}, linear between"
