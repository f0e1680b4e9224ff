"""Finds what withdraws a stated answer: 'wait, no', 'scratch that', 'it should be 15', 'That is wrong.'"""

import re
from collections.abc import Iterator

_NEW = r"(?=[-$(\d]|(?-i:[A-Z])(?=[\s.,!)]|$))"  # a number or a letter follows
_REALLY = r"(?:actually |really |instead |in fact |have |rather ){0,2}"
_SUBJECT = r"(?:it|that|this|the (?:answer|result|total|correct \w+))"
_WITHDRAWS = (  # what withdraws the statements before it
    r"\b(?:wait|hold on|hmm|oops|actually|sorry)\b[\s,.!;:-]{1,4}(?:(?:actually|but)\s)?(?:"
    r"no(?=[\s]{0,2}[,.!;:\n-]|$)|that(?:'s| is| was) (?:not (?:right|correct|true)|wrong|incorrect|a mistake)|"
    r"I (?:made|forgot|misread|miscalculated|missed|was wrong|mixed|need to correct)|scratch that)",  # 'wait, no'
    rf"\bno,? wait\b|,? (?:hmm,? |no,? )?actually,? {_NEW}|(?<=[\w)]), no, {_NEW}",  # 'hmm, actually 15', '12, no, 15'
    r"\bscratch that\b|\bI take that back\b|\bcorrection\s?:|\bI made an? (?:mistake|error)\b|\bmake that\b",
    rf"\bI (?:meant|mean)\b|\bon second thought\b|\bactually,? {_SUBJECT}(?:'s| (?:is|should|must|would|was)\b)",
    rf"\b{_SUBJECT} should {_REALLY}(?:be|been) (?!noted|noticed|clear|\w+ed\b)",  # 'it should be 15'
)
_WITHDRAWN = re.compile("|".join(_WITHDRAWS), re.I)
# Behind a statement, in the next sentence: what denies it.
_DENIED = re.compile(
    r"[^.!?\n]{0,40}[.!?]\s{1,2}"
    r"(?:no(?=[.!]|, it)|(?:that|this|it)(?:'s| is| was) (?:wrong|incorrect|not (?:right|correct)))",
    re.I,
)
_REPLACES = (  # in a correction, what announces the new answer
    rf"\b(?:should|must|has to|would|ought to) {_REALLY}(?:be|been)\b\s*",
    r"\b(?:it|that)(?:'s| is)(?: actually)?\s|\bactually\b,?\s|\b(?:meant|mean|make that|correction)\b\s?:?\s",
)
_REPLACED = re.compile("|".join(_REPLACES), re.I)
# One of these words, in lower case, is in every correction.
_WORDS = [
    "wait",
    "hold on",
    "hmm",
    "oops",
    "actually",
    "sorry",
    " no, ",
    "scratch that",
    "take that back",
    "correction",
    "i made a",
    "make that",
    "i mean",
    "second thought",
    "should",
]


def corrections(text: str, start: int = 0) -> int:
    """Returns where the last correction at or behind `start` begins, as an offset in characters; 0 without one."""
    lower = text[start:].lower()
    if not any(word in lower for word in _WORDS):
        return 0
    return max((m.start() for m in _WITHDRAWN.finditer(text, start)), default=0)


def replacements(text: str) -> Iterator[tuple[int, int]]:
    """Yields the places in a correction behind which the new answer stands: (start, end) of the words, last first."""
    for m in reversed(list(_REPLACED.finditer(text))):
        yield m.start(), m.end()


def denial(text: str) -> int:
    """Returns the end of the words with which a text behind a mark is denied ('10? No.'), as an offset; 0 without."""
    m = _DENIED.match(text)
    return m.end() if m else 0
