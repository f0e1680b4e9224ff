"""Finds the statements of an answer: boxes, GSM8K's `####` and 'the answer is' in a text."""

import re
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from rllab.answers.corrections import replacements


class Statement(NamedTuple):
    """A place that announces an answer. how: by which mark. text: what stands behind the mark. start: where it begins,
    as an offset in characters. boxed: the text is the whole content of a box. negated: it begins with 'not', which may
    be a part of a text ('not plausible') and denies a number.
    """

    how: str
    text: str
    start: int
    boxed: bool = False
    negated: bool = False


_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\boxed\s+(?=\w)")
_BOXES = 30  # how many boxes of a text are read, from the last
_PHRASES = 200  # how many 'the answer is' of a text are read, from the last
_WORD = re.compile(r"[^\s$.,;]{1,40}")
_BETWEEN = re.compile(r"(?:[$\\()\[\]{}\s,;/.]|or|and|quad|qquad|text)*", re.I)

_HASHES = re.compile(r"####[ \t]*([^\n]*)")
# Markdown headings of the fourth level: '#### Step 2', '#### 1. Eggs', '#### (c) Mode', '#### 2 Multiply it by'.
_HEADING = re.compile(r"[*_\s]*(?:\(?(?:\d{1,2}|[A-Za-z]|[ivx]{1,4})[.):]\s+\S|[A-Za-z]{2,}\b|\d+ [A-Z][a-z]+ \w)")
_ALONE = re.compile(r"[*_\s]*(?:yes|no|true|false)[*_.!\s]*", re.I)

_ANSWERS = (
    r"answers?|ans|antwort|antwoord|respuesta|réponse|risposta|resposta|ответ|cevap|jawaban(?:nya)?|đáp án|απάντηση|"
    r"my (?:choice|pick|selection)|"
    r"(?:correct|right|best|closest|nearest|only|final|appropriate|suitable|likely|accurate) (?:option|choice)"
)
_ARABIC = "الإجابة|الاجابة|الجواب"
_KEYS = re.compile(rf"{_ANSWERS}|{_ARABIC}|答|正解|정답|답|a[ \t]?:")  # in lower case, where a phrase may begin
_IS = (
    r"(?:\bis\b|\bare\b|\bwas\b|\bequals?\b|\b(?:would|will|should|must|has to|could|might) be\b|\bbecomes\b|"
    r"\bcomes (?:out )?to\b|\b(?:seems|appears) to be\b|\b(?:ist|es|est|è|é|lautet|adalah|là|είναι)\b|[:=]|->|→|⟹)"
)
# Verbs behind 'answer' with which a sentence says something else of the answer than what it is.
_OTHER_VERB = (
    r"\b(?:assumes?|means|depends|requires?|represents|makes|uses?|implies|shows|comes from|relies|follows|choices|"
    r"options|we|you)\b"
)
_ANSWER_IS = re.compile(
    rf"\b(?:{_ANSWERS})\b(?:[*_\s]*(?=\n)|(?:(?!{_OTHER_VERB})[^\n.!?:=]){{0,80}}?[\s*_]{{0,3}}{_IS})"
    rf"(?:[\s*_]{{0,9}}(?:{_IS}|[:]))?[\s*_:]*"
    r"|(?:答案|答え|正解|정답|답)[\s*_]*(?:[是为為はは은는]|应该是|應該是|:)[\s*_:]*"
    rf"|(?:{_ARABIC})[^\n.:]{{0,30}}?(?:\bهي\b|\bهو\b|:)[\s*_:]*"
    r"|\bA\s*:[\s*]*",
    re.I,
)
# Before 'answer': the sentence is about the answer, or about another one.
_ABOUT = (
    r"checks?|checking|verify|verifies|verifying|confirms?|validate|explains?|justify|supports?|affects?|changes?",
    r"to (?:find|get|obtain|determine|calculate|compute|reach|write|express|give)",
    r"of|about|in|behind|an|any|no|other|another|wrong|incorrect|possible|alternative|remaining|previous",
)
_DETERMINERS = r"(?:(?:the|this|that|my|our|your|its|final|correct|right|possible|potential|plausible|wrong)\s+){0,3}"
_about = re.compile(rf"\b(?:{'|'.join(_ABOUT)})\s+{_DETERMINERS}$", re.I)
_DOUBTED = re.compile(
    r"\b(?:doubt|deny|(?:do|does|did)(?: not|n't) (?:think|believe|say|mean)|not (?:true|the case)|false|wrong|if)"
    r"(?: that| to say(?: that)?)? (?:the |my |our )?(?:(?:final|correct|right) )?$",
    re.I,
)
_LINE = re.compile(r"(?:^|\n)[ \t*]*$")  # before 'A:'
_CONDITION = re.compile(r"[^.\n]{0,80}\bif\b", re.I)
_IF = re.compile(r"\bif\b[^.\n]*$", re.I)
_WOULD = re.compile(r"\b(?:would|could|might|will) be[\s*_:]*$", re.I)
_NOT = re.compile(
    r"[\s*_]*(?:definitely |certainly |clearly |simply |just )?not\b(?! (?:known|clear|given|certain|sure|possible))",
    re.I,
)
_NOT_BUT = re.compile(
    rf"\b(?:{_ANSWERS})\s+(?:isn't|wasn't|is not|was not)\s[^.\n]{{0,60}}?\bbut (?:rather |instead )?", re.I
)  # 'the answer is not X but Y'
_BUT = re.compile(r"[^.\n]{0,60}?\bbut (?:rather |instead )?", re.I)


def statements(text: str, corrected: bool = False) -> Iterator[Statement]:
    """Yields the statements of an answer in a text, those of stronger marks first and the last of a mark first.

    corrected: the text corrects an earlier statement; 'it should be 15' is a statement, too.
    """
    yield from _boxes(text)
    yield from _hashes(text)
    yield from _phrases(text)
    if corrected:
        yield from (Statement("corrected", text[end:], start) for start, end in replacements(text))


def open_box(text: str) -> bool:
    """Returns whether the text is cut off inside its only box."""
    return "boxed" in text and _BOX.search(text) is not None and not any(True for _ in _closed_boxes(text))


def _boxes(text: str) -> Iterator[Statement]:
    boxes = list(_closed_boxes(text))
    if boxes:
        yield Statement("in a box", _last_box(text, boxes), boxes[-1][0], True)
    for start, _, content in reversed(boxes[:-1]):
        yield Statement("in a box", content, start, True)


def _closed_boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """Yields (start, end, content) of each of the last closed boxes."""
    for m in [*_BOX.finditer(text)][-_BOXES:]:
        if text[m.end()] != "{":
            word = _WORD.match(text, m.end())
            yield m.start(), word.end() if word else m.end(), word[0] if word else ""
        elif end := _closing(text, m.end()):
            yield m.start(), end, text[m.end() + 1 : end - 1]


def _closing(text: str, start: int) -> int | None:
    """Returns the place behind the brace that closes the one at `start`, or None."""
    depth = 0
    for at in range(start, min(len(text), start + 2000)):
        depth += (text[at] == "{") - (text[at] == "}")
        if not depth:
            return at + 1
    return None


def _last_box(text: str, boxes: list[tuple[int, int, str]]) -> str:
    """Returns the content of the last box, joined with preceding boxes that only 'or' or 'and' separates from it."""
    contents = [boxes[-1][2]]
    for (_, end, content), (start, _, _) in zip(reversed(boxes[:-1]), reversed(boxes), strict=False):
        if content == contents[0] or not _BETWEEN.fullmatch(text[end:start]):
            break
        contents.insert(0, content)
    return re.sub(r"(?<!\\)\$", "", " or ".join(contents))


def _hashes(text: str) -> Iterator[Statement]:
    """Yields the lines behind `####` that are no headings: nothing follows them, or they are no words or label."""
    lines = [m for m in reversed(list(_HASHES.finditer(text))) if m[1].strip()]
    headings = [m for m in lines if _HEADING.match(m[1]) and not _ALONE.fullmatch(m[1])]
    for m in lines:
        if m not in headings:
            yield Statement("behind ####", m[1].strip(), m.start())
    if headings and not text[headings[0].end() :].strip():
        yield Statement("behind ####", headings[0][1].strip(), headings[0].start())


def _phrases(text: str) -> Iterator[Statement]:
    """Yields what stands behind 'the answer is', without sentences that say something else of an answer."""
    lower = text.lower()
    keys = deque(_KEYS.finditer(lower if len(lower) == len(text) else text), _PHRASES)
    each = ((_NOT_BUT.match(text, key.start()) or _ANSWER_IS.match(text, key.start())) for key in reversed(keys))
    for m in filter(None, each):
        rest = text[m.end() : m.end() + 2000]
        before = text[max(0, m.start() - 60) : m.start()]
        if (m[0][1:].lstrip().startswith(":") and not _LINE.search(before)) or _about.search(before):
            continue
        if _DOUBTED.search(before):
            continue
        if _WOULD.search(m[0]) and (_CONDITION.match(rest) or _IF.search(text[max(0, m.start() - 200) : m.start()])):
            continue
        if _NOT.match(rest):
            but = _BUT.match(rest)
            if but is None:
                if m[0].rstrip(" *_").endswith(":"):
                    yield Statement("behind 'the answer is'", rest, m.start(), negated=True)
                continue
            rest = rest[but.end() :]
        yield Statement("behind 'the answer is'", rest, m.start())
