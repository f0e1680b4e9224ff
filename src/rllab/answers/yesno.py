"""Answers of yes or no; a 'no' that is a determiner ('no doubt') is not an answer."""

import itertools
import re

from rllab.answers.number import REFUSED, SENTENCE
from rllab.answers.parts import NotCommitted

POLAR = {"yes": True, "no": False, "true": True, "false": False}
_TOKEN = re.compile(r"(?<![\w'-])(yes|no|true|false)(?![\w'-])", re.I)
_MORE = re.compile(
    r"\s+(?!(?:it|they|he|she|the|this|that|there|because|since|as|you|we|i|not|in|for|a|an|and|or|but|if|so|on|at)\b)\w",
    re.I,
)
_ASKED = re.compile(r"\(\s*(?:yes|true)\s*(?:or|/|,)\s*(?:no|false)\s*\)", re.I)
_BOTH = re.compile(r"\W*(?:\b(?:and|or|but also|as well as)\b|/)\W*", re.I)
_THEN = re.compile(
    r"(?:^|[.!?:;\n—]|\b(?:so|therefore|thus|hence|then|is|answer|say|conclude|would be))[\s,*_\"'(:]*$", re.I
)


def _polar(text: str) -> list[tuple[int, int, str]]:
    """Returns (start, end, word) of each yes or no that is an answer and not a determiner ('no doubt').

    Raises:
        NotCommitted: the text gives both as alternatives.
    """
    words = [(m.start(), m.end(), m[1].lower()) for m in _TOKEN.finditer(text)]
    words = [(s, e, w) for s, e, w in words if not (w == "no" and _MORE.match(text, e))]
    for (_, end, one), (start, _, other) in itertools.pairwise(words):
        if POLAR[one] != POLAR[other] and _BOTH.fullmatch(text, end, start):
            raise NotCommitted("yes and no")
    return words


def marked(segment: str) -> str | None:
    """Returns the first yes or no in the first sentence behind a mark; None if there is none."""
    text = segment[:600].lstrip(" \n\t*_")
    end = SENTENCE.search(text)
    words = _polar(text[: end.start()] if end else text)
    if not words and REFUSED.search(text[: end.start()] if end else text):
        raise NotCommitted("it refuses to answer")
    return words[0][2] if words else None


def placed(part: str) -> str | None:
    """Returns the last yes or no of an unmarked text that begins a sentence or ends the text; None if there is none."""
    text = _ASKED.sub("", re.sub(r"\\(?:text|boxed)|[*_`${}]", "", part)).strip()
    leading = [word for word in _polar(text) if _leads(text, *word[:2])]
    return leading[-1][2] if leading else None


def _leads(text: str, start: int, end: int) -> bool:
    """Returns whether a yes or no begins the text or a sentence without being its subject, or ends the text.

    'Yes would be wrong' has a yes as its subject.
    """
    if not start or not text[end : end + 20].strip(" .!\"')"):
        return True
    return bool(_THEN.search(text[max(0, start - 20) : start])) and not _MORE.match(text, end)
