"""The ranges of numbers in settings, as types of fields: `gamma: Share = 0.99`. The reader of recipes checks them."""

from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """Marks a number, as `Annotated[float, Range(0, 1)]`. Without `low` or `high` there is no such bound.

    above, below: the number must be above `low` or below `high`; otherwise it may be equal.
    """

    low: float | None = None
    high: float | None = None
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range."""
        low = self.low is None or (value > self.low if self.above else value >= self.low)
        high = self.high is None or (value < self.high if self.below else value <= self.high)
        return low and high

    def __str__(self) -> str:
        if (self.low, self.high, self.above) == (0, None, True):
            return "positive"
        if self.low is not None and self.high is not None and not (self.above or self.below):
            return f"from {self.low:g} to {self.high:g}"
        bounds = [f"{'above' if self.above else 'at least'} {self.low:g}"] if self.low is not None else []
        bounds += [f"{'below' if self.below else 'at most'} {self.high:g}"] if self.high is not None else []
        return " and ".join(bounds)


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]  # 0 and 1 included
Decay = Annotated[float, Range(0, 1, below=True)]
Half = Annotated[float, Range(0, 0.5)]  # 0 and 0.5 included
BelowHalf = Annotated[float, Range(0, 0.5, below=True)]
Several = Annotated[int, Range(2)]
