"""Yes and no: which of them a text says, and not as a determiner ('no doubt')."""

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
    """(start, end, word) of each yes or no that is an answer and not a determiner ('no doubt')."""
    found = [(m.start(), m.end(), m[1].lower()) for m in _TOKEN.finditer(text)]
    found = [(s, e, w) for s, e, w in found if not (w == "no" and _MORE.match(text, e))]
    for (_, end, one), (start, _, other) in itertools.pairwise(found):
        if POLAR[one] != POLAR[other] and _BOTH.fullmatch(text, end, start):
            raise NotCommitted("yes and no")
    return found


def marked(segment: str) -> str | None:
    """The first yes or no of a marked sentence."""
    text = segment[:600].lstrip(" \n\t*_")
    end = SENTENCE.search(text)
    found = _polar(text[: end.start()] if end else text)
    if not found and REFUSED.search(text[: end.start()] if end else text):
        raise NotCommitted("it refuses to answer")
    return found[0][2] if found else None


def placed(part: str) -> str | None:
    """The last yes or no that leads a sentence or ends the text."""
    text = _ASKED.sub("", re.sub(r"\\(?:text|boxed)|[*_`${}]", "", part)).strip()
    found = _polar(text)
    leading = [f for f in found if _leads(text, *f[:2])]
    return leading[-1][2] if leading else None


def _leads(text: str, start: int, end: int) -> bool:
    """Whether a yes or no begins the text or a sentence, and is not its subject ('Yes would be wrong'), or ends all."""
    if not start or not text[end : end + 20].strip(" .!\"')"):
        return True
    return bool(_THEN.search(text[max(0, start - 20) : start])) and not _MORE.match(text, end)
