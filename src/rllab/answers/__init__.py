"""What a model answered: the part of its text that counts, the answer in it, and whether that is the right one.

The policy, in order:

1. Only the final part counts: after the last closed think, in Harmony's final channel, in the last answer tag. Thinking
   that is not closed is no answer. Where the text runs on into a question of its own, it ends there.
2. A mark beats a position, and the stronger mark the weaker: the last box, `####`, 'the answer is'; only then the last
   number, a lone letter, a leading yes. Of marks of one sort the last counts.
3. Two answers, a range, or a text cut off before its answer are no answer.
4. Numbers compare exactly. Nothing that a model wrote is computed or evaluated; LaTeX goes to a process of its own.

Kinds: `number`, `choice` (a letter), `yesno`, `string`, `latex`.
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
    """What was answered, as extracted (None: nothing), how it is told, or why not, and whether by a mark."""

    text: str | None
    how: str
    marked: bool = False


@dataclass(frozen=True)
class Judgement:
    """An answer, whether it is right, and why; `marked` where a box or words announce it, or it stands alone."""

    answer: str | None
    correct: bool
    reason: str
    marked: bool = False


def judge(completion: str, target: str, kind: str) -> Judgement:
    """Whether a completion answers with the target. No completion raises, however it is made.

    Raises:
        ValueError: the kind is unknown, or the target is none of this kind.
    """
    right = check_target(target, kind)
    found = extract(completion, kind)
    if found.text is None:
        return Judgement(None, False, found.how)
    if kind == "latex":
        correct, why = latex.equal(found.text, right)
        return Judgement(found.text, correct, why or found.how, found.marked)
    correct = number.same(found.text, right) if kind == "number" else string.same_text(found.text, right)
    return Judgement(found.text, correct, found.how if correct else f"{found.how}: not {right}", found.marked)


def check_target(target: str, kind: str) -> str:
    """The target as answers are compared with it.

    Raises:
        ValueError: the kind is unknown, or the target is none of this kind.
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
    """The answer in a completion, by the policy of this module."""
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
