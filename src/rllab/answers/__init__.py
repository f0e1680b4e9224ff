"""Extracts the answer from a completion and grades it against the target.

The policy, in order (docs/scoring.md has the rules of each kind):

1. Only the final part of a text counts: after the last closing think tag, in Harmony's final channel, in the last
   answer tag. A think tag that is never closed leaves no answer, and neither does Harmony without a final channel. What
   follows a question of the text's own does not count where an answer stands before it.
2. Marks take precedence over position, and stronger marks over weaker ones: the last box, then `####`, then 'the answer
   is', then an answer tag. Among marks of the same type the last one that reads as an answer of the kind counts. A
   correction ('wait, no') withdraws the statements before it. Without a mark, position decides: the last number, a lone
   letter, a leading yes.
3. Two answers, a range, an expression where a number is asked for, or a text that is cut off before its answer count as
   no answer.
4. Numbers are compared exactly. No text of a model is evaluated as code; LaTeX is compared in a separate process.

Kinds of answers: `number`, `choice` (a letter), `yesno`, `string`, `latex`.
"""

import re
from dataclasses import dataclass, field
from types import ModuleType

from rllab.answers import choice, latex, number, numerals, string, yesno
from rllab.answers.corrections import corrections, denial
from rllab.answers.numerals import tidy
from rllab.answers.parts import NotCommitted, final_part, run_ons
from rllab.answers.statements import open_box, statements

READERS = {"number": number, "choice": choice, "yesno": yesno, "string": string, "latex": latex}
KINDS = tuple(READERS)
VERSION = "4"
_NO_WORD = re.compile(r"[\W_]")
_SENTENCES = re.compile(r"[.!?;]\s|\n")
# The end of a text that is cut off within a sentence.
_CUT_OFF = re.compile(
    r"[.!?\n][^.!?\n]*\b(?:that|the|a|an|of|to|and|or|is|are|was|with|for|in|by|because|if|as|than|which|we|its?)\s*$"
)
# The end of a text that only leads to the question that it repeats.
_LEADS_TO_QUESTION = re.compile(
    r"(?::|\b(?:restate|rephrase|reread|repeat|read|understand|summar\w+|question|problem|given|let me|let's)\b"
    r"[^\n]*)\s*$",
    re.I,
)


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
    extracted, and why it is wrong. marked: a mark announces it, or it is the whole text. how: the reason without the
    target, for those who must not read it.
    """

    answer: str | None
    correct: bool
    reason: str
    marked: bool = False
    how: str = field(default="", compare=False)


def grade(completion: str, target: str, kind: str, choices: str = "") -> GradedAnswer:
    """Grades the answer in a completion against the target. Accepts any text as a completion without raising.

    choices: the letters of the row's choices, such as "ABCDE"; a letter that is none of them is not an answer. By
    default every letter may be one.

    Raises:
        ValueError: the kind is unknown, or the target is not of this kind.
    """
    right = check_target(target, kind)
    answer = extract(completion, kind, choices if kind == "choice" and right in choices else "")
    if answer.text is None:
        return GradedAnswer(None, False, answer.how, how=answer.how)
    if kind == "latex":
        correct, why = latex.equal(answer.text, right)
        return GradedAnswer(answer.text, correct, why or answer.how, answer.marked, answer.how)
    correct = number.same(answer.text, right) if kind == "number" else string.same_text(answer.text, right)
    reason = answer.how if correct else f"{answer.how}: not {right}"
    return GradedAnswer(answer.text, correct, reason, answer.marked, answer.how)


judge, Judgement = grade, GradedAnswer  # docs/stable.md names `judge`; scorers of users return `Judgement`


def check_target(target: str, kind: str) -> str:
    """Returns the target in the form that answers are compared with.

    Raises:
        ValueError: the kind is unknown, or the target is not of this kind.
    """
    if kind not in KINDS:
        raise ValueError(f"the kind {kind!r} is unknown; kinds are {', '.join(KINDS)}")
    target = target.rpartition("####")[2].strip()
    if not target:
        raise ValueError("the target is empty")
    if kind == "number" and numerals.number(target) is None:
        raise ValueError(f"the target {target!r} is no number")
    if kind == "choice":
        letter = re.fullmatch(r"\W*([A-Za-z])(?:\W*|[).:] .*)", target)
        if not letter:
            raise ValueError(f"the target {target!r} is no letter")
        return letter[1].upper()
    if kind == "yesno" and string.bare(target) not in yesno.POLAR:
        raise ValueError(f"the target {target!r} is neither yes nor no")
    return string.bare(target) if kind == "yesno" else target


def extract(completion: str, kind: str, choices: str = "") -> Answer:
    """Extracts the answer of a kind from a completion, by the policy of this module. choices: as in `grade`."""
    reader = READERS[kind]
    try:
        part = final_part(tidy(completion))
        *before, whole = run_ons(part.text)
        for text in before:
            answer = _read(text, reader, choices, part.tagged)
            if answer.marked or (answer.text is not None and not _LEADS_TO_QUESTION.search(text.rstrip()[-200:])):
                return answer
        return _read(whole, reader, choices, part.tagged)
    except NotCommitted as no:
        return Answer(None, str(no))


def _read(text: str, reader: ModuleType, choices: str, tagged: bool = False, corrected: bool = False) -> Answer:
    """Returns the answer of a text: of its last statement that reads as one, else by its position.

    Raises:
        NotCommitted: a statement gives no single answer of the kind.
    """
    cut = False
    if open_box(text):
        raise NotCommitted("cut off in its box")
    for statement in statements(text, corrected):
        if statement.negated and reader is not string:
            continue
        cut = cut or not statement.text.strip(" \t\n*_$\"'`")
        value = (reader.boxed if statement.boxed else reader.marked)(statement.text)
        if value is None or (choices and value not in choices):
            continue
        if at := denial(statement.text):
            return _withdrawn(statement.text[at:], reader, choices)
        if at := corrections(text, statement.start + 1):
            return _withdrawn(text[at:], reader, choices)
        return Answer(value, statement.how, True)
    if cut:
        raise NotCommitted("cut off before its answer")
    if tagged and not _SENTENCES.search(text.strip()) and (value := reader.marked(text)) is not None:
        return Answer(value, "in an answer tag", True)
    return _by_position(text, reader, choices, tagged)


def _withdrawn(text: str, reader: ModuleType, choices: str) -> Answer:
    """Returns the answer of the text that withdraws another one."""
    answer = _read(text, reader, choices, corrected=True)
    return answer if answer.text is not None else Answer(None, "its answer is withdrawn")


def _by_position(text: str, reader: ModuleType, choices: str, tagged: bool) -> Answer:
    if cut := _CUT_OFF.search(text, max(0, len(text) - 300)):
        if reader is not choice:
            return Answer(None, "cut off before its answer")
        text = text[: cut.start() + 1]  # a choice that was named before is still the last one
    try:
        at = corrections(text)
        value = (reader.placed(text[at:]) if at else None) or reader.placed(text)
    except NotCommitted as no:
        return Answer(None, str(no))
    if value is None or (choices and value not in choices):
        return Answer(None, "no answer")
    alone = _NO_WORD.sub("", text).casefold() == _NO_WORD.sub("", value).casefold()
    how = "all that there is" if alone else "in an answer tag" if tagged else "by position"
    return Answer(value, how, alone or tagged)
