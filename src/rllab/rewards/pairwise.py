"""Comparisons of answers to one prompt, each pair in both orders, so that a judge's position bias cancels out.

A verdict is how much the answer that is shown first is preferred: 1, 0, 1/2 for a tie, or a probability between.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from rllab.core.messages import last_text

ASKS = "Which answer is better?"


class Pair(NamedTuple):
    """The indices of two answers to the same prompt, in the order in which they are shown."""

    first: int
    second: int


class Contest:
    """The comparisons of completions: each with the next `opponents` others to its prompt, in a circle.

    against: one answer for each completion, which it is compared with instead.
    """

    def __init__(
        self, prompts: Sequence[Any], answers: Sequence[str], opponents: int, against: Sequence[str] | None = None
    ) -> None:
        self.size, self._prompts, self._answers = len(answers), prompts, [*answers, *(against or [])]
        met = {(i, i + self.size) for i in range(self.size)} if against else self._of_groups(opponents)
        self._all = [Pair(*p) for a, b in sorted(met) for p in ((a, b), (b, a))]
        self.pairs = [p for p in self._all if self._answers[p.first] != self._answers[p.second]]

    def _of_groups(self, opponents: int) -> set[tuple[int, int]]:
        groups: dict[str, list[int]] = defaultdict(list)
        for place, prompt in enumerate(self._prompts):
            groups[shown(prompt)].append(place)
        return {
            (min(one, other), max(one, other))
            for group in groups.values()
            for i, one in enumerate(group)
            for other in (group[(i + step) % len(group)] for step in range(1, min(opponents, len(group) - 1) + 1))
        }

    def questions(self, asks: str) -> list[str]:
        """The question to a judge about each of the pairs."""
        return [
            "Two answers to a question are to be compared.\n\n"
            f"[Question]\n{shown(self._prompts[min(pair)])}\n\n"
            f"[Answer A]\n{self._answers[pair.first]}\n\n[Answer B]\n{self._answers[pair.second]}\n\n"
            f"{asks} End with the letter alone: A or B, or C if neither is."
            for pair in self.pairs
        ]

    def scores(self, verdicts: Sequence[float | None]) -> list[float | None]:
        """The share of its comparisons that each completion wins, ties as halves; None where there is none.

        verdicts: on each of the pairs; None where it could not be read. Equal answers are a tie without a verdict.
        """
        verdict_of, won = dict(zip(self.pairs, verdicts, strict=True)), defaultdict[int, list[float]](list)
        for pair in self._all:
            verdict = verdict_of.get(pair, 0.5)
            if verdict is not None:
                won[pair.first].append(verdict)
                won[pair.second].append(1.0 - verdict)
        return [sum(won[i]) / len(won[i]) if won[i] else None for i in range(self.size)]


def shown(prompt: Any) -> str:
    """A prompt as a judge reads it; a conversation of several messages with their roles."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return str(prompt[0]["content"])
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in prompt)


def contest_of(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    opponents: int,
    against: str,
    columns: dict[str, Sequence[Any]],
) -> Contest:
    """The comparisons of completions with others of their group, or with the answers in a column.

    Raises:
        ValueError: there is no such column.
    """
    if against and against not in columns:
        raise ValueError(f"against: rows have no {against!r}; they have {', '.join(columns)}")
    others = [last_text(c) for c in columns[against]] if against else None
    return Contest(prompts, list(map(last_text, completions)), opponents, others)
