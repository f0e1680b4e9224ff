"""Extracts the answer from a completion and grades it against the target.

The policy, in order:

1. Only the final part of a text counts: after the last closing think tag, in Harmony's final channel, in the last
   answer tag. A think tag that is never closed leaves no answer. Where the text goes on to ask a question of its own,
   the part ends before that question.
2. Marks take precedence over position, and stronger marks over weaker ones: the last box, then `####`, then 'the answer
   is'. Without a mark, position decides: the last number, a lone letter, a leading yes. Among marks of the same type
   the last one counts.
3. Two answers, a range, or a text that is cut off before its answer count as no answer.
4. Numbers are compared exactly. No text of a model is evaluated as code; LaTeX is compared in a separate process.

Kinds of answers: `number`, `choice` (a letter), `yesno`, `string`, `latex`.
"""

import re
from dataclasses import dataclass

from rllab.answers import choice, latex, number, numerals, string, yesno
from rllab.answers.numerals import tidy
from rllab.answers.parts import NotCommitted, final_part, marks

READERS = {"number": number, "choice": choice, "yesno": yesno, "string": string, "latex": latex}
KINDS = tuple(READERS)
VERSION = "1"
_NO_WORD = re.compile(r"[\W_]")


@dataclass(frozen=True)
class Answer:
    """An extracted answer.

    text: None where the completion has no answer. how: the mark or position that it was extracted by, or why there is
    none. marked: a mark announces it, or it is the whole text.
    """

    text: str | None
    how: str
    marked: bool = False


@dataclass(frozen=True)
class GradedAnswer:
    """A graded answer.

    answer: as extracted; None where the completion has none. correct: whether it equals the target. reason: how it was
    extracted, and why it is wrong. marked: a mark announces it, or it is the whole text.
    """

    answer: str | None
    correct: bool
    reason: str
    marked: bool = False


def grade(completion: str, target: str, kind: str) -> GradedAnswer:
    """Grades the answer in a completion against the target. Accepts any text as a completion without raising.

    Raises:
        ValueError: the kind is unknown, or the target is not of this kind.
    """
    right = check_target(target, kind)
    answer = extract(completion, kind)
    if answer.text is None:
        return GradedAnswer(None, False, answer.how)
    if kind == "latex":
        correct, why = latex.equal(answer.text, right)
        return GradedAnswer(answer.text, correct, why or answer.how, answer.marked)
    correct = number.same(answer.text, right) if kind == "number" else string.same_text(answer.text, right)
    return GradedAnswer(answer.text, correct, answer.how if correct else f"{answer.how}: not {right}", answer.marked)


judge, Judgement = grade, GradedAnswer  # docs/stable.md names `judge`; scorers of users return `Judgement`


def check_target(target: str, kind: str) -> str:
    """Returns the target in the form that answers are compared with.

    Raises:
        ValueError: the kind is unknown, or the target is not of this kind.
    """
    target = target.rpartition("####")[2].strip()
    if kind == "number" and numerals.number(target) is None:
        raise ValueError(f"the target {target!r} is no number")
    if kind == "choice":
        letter = re.fullmatch(r"\W*([A-Za-z])(?:\W*|[).:] .*)", target)
        if not letter:
            raise ValueError(f"the target {target!r} is no letter")
        return letter[1].upper()
    if kind == "yesno" and string.bare(target) not in yesno.POLAR:
        raise ValueError(f"the target {target!r} is neither yes nor no")
    if kind not in KINDS:
        raise ValueError(f"the kind {kind!r} is unknown; kinds are {', '.join(KINDS)}")
    return string.bare(target) if kind == "yesno" else target


def extract(completion: str, kind: str) -> Answer:
    """Extracts the answer of a kind from a completion, by the policy of this module."""
    try:
        part = final_part(tidy(completion))
        reader = READERS[kind]
        for how, segment in marks(part):
            if (text := reader.marked(segment)) is not None:
                return Answer(text, how, True)
        if (text := reader.placed(part)) is not None:
            alone = _NO_WORD.sub("", part) == _NO_WORD.sub("", text)
            return Answer(text, "all that there is" if alone else "by position", alone)
        raise NotCommitted("no answer")
    except NotCommitted as no:
        return Answer(None, str(no))
