"""Answers of yes or no; a 'no' that is a determiner ('no doubt') is not an answer, and 'not true' is false."""

import itertools
import re

from rllab.answers.number import REFUSED, SENTENCE
from rllab.answers.parts import NotCommitted

POLAR = {"yes": True, "no": False, "true": True, "false": False}
_YES = "ja oui sí sim sì да так evet tak はい 是 是的 对 對 네 예 نعم हाँ"  # alone: behind a mark, or at the begin
_NO = "nein non não нет ні hayır nie いいえ 否 不是 不对 不對 아니요 아니오 لا नहीं"
_OTHER = dict.fromkeys(_YES.split(), "yes") | dict.fromkeys(_NO.split(), "no")
_FIRST = re.compile(r"[\W_]*([^\W\d_]+)\s*(?:$|[,.;:!。，、！\n])")
_OPPOSITE = {"true": "false", "false": "true"}
_TOKEN = re.compile(r"(?<![\w'-])(yes|no|true|false)(?![\w'-])", re.I)
_MORE = re.compile(
    r"\s+(?!(?:it|they|he|she|the|this|that|there|because|since|as|you|we|i|not|in|for|a|an|and|or|but|if|so|on|at)\b)\w",
    re.I,
)
# The question repeated: 'True or False:', 'Yes or No?', '(yes/no)'.
_PAIR = r"(?:(?:yes|true)\s*(?:or|/|,|\|)\s*(?:no|false)|(?:no|false)\s*(?:or|/|,|\|)\s*(?:yes|true))"
_ASKED = re.compile(
    rf"\(\s*{_PAIR}\s*\)|\b{_PAIR}\b[\s*_\"')]*(?:[:?]|\n|->|→|=>|\.\s+(?=(?:yes|no|true|false)\b))", re.I
)
_BOTH = re.compile(r"\W*(?:\b(?:and|or|nor|but also|as well as)\b|[/|+;])\W*|\s?,\s?", re.I)
_THEN = re.compile(
    r"(?:^|[.!?:;\n—]|\b(?:so|therefore|thus|hence|then|is|answer|say|conclude|would be))[\s,*_\"'(:]*$", re.I
)
_NOT = re.compile(
    r"(?:\b(?:not|never|cannot be|can not be)|n't(?: be)?)\s+"
    r"(?:(?:be|really|actually|exactly|quite|at all|a)\s+){0,2}[\"'*]*$",
    re.I,
)
_PARTLY = re.compile(
    r"\b(?:necessarily|entirely|completely|always|fully|strictly|wholly|partly|partially|if|whether|"
    r"not \w+ly|n't \w+ly|half|maybe|perhaps|hardly|barely|scarcely|nearly|almost|rarely|seldom|far from)\s+[\"'*]*$|"
    r"\b(?:nobody|no one|no way|not the case|(?<!no )doubt|deny|unlikely|"
    r"(?:not|n't|wrong|incorrect|false) (?:to )?(?:think|believe|agree|say|claim))\b[^.,:;\n]*$",
    re.I,
)
_MARKUP = re.compile(r"\\(?:text|textbf|boxed)|[*_`${}]")


def _polar(text: str) -> list[tuple[int, int, str]]:
    """Returns (start, end, word) of each yes or no that is an answer. 'Not true' is returned as false.

    A determiner ('no doubt') is left out, and so is a word that the text takes back in part ('not necessarily true').

    Raises:
        NotCommitted: the text gives both as alternatives.
    """
    words = []
    for m in _TOKEN.finditer(text):
        word, before = m[1].lower(), text[max(0, m.start() - 40) : m.start()]
        if (word == "no" and _MORE.match(text, m.end())) or _PARTLY.search(before):
            continue
        negated = _NOT.search(before)
        if negated and word not in _OPPOSITE:
            continue
        start = m.start() - len(before) + negated.start() if negated else m.start()
        words.append((start, m.end(), _OPPOSITE[word] if negated else word))
    for (_, end, one), (start, _, other) in itertools.pairwise(words):
        if POLAR[one] != POLAR[other] and _BOTH.fullmatch(text, end, start):
            raise NotCommitted("yes and no")
    return words


def marked(segment: str) -> str | None:
    """Returns the first yes or no in the first sentence behind a mark; None if there is none."""
    text = _without_question(segment[:600], "").lstrip(" \n\t")
    end = SENTENCE.search(text)
    text = text[: end.start()] if end else text
    words = _polar(text)
    if not words and REFUSED.search(text):
        raise NotCommitted("it refuses to answer")
    return words[0][2] if words else _other(text)


boxed = marked


def placed(part: str) -> str | None:
    """Returns the last yes or no of an unmarked text that begins a sentence or ends the text; None if there is none."""
    text = _without_question(part, "\n").strip()
    leading = [word for word in _polar(text) if _leads(text, *word[:2])]
    leading = [word for word in leading if not text.startswith(" that", word[1])] or leading
    return leading[-1][2] if leading else _other(text)


def _other(text: str) -> str | None:
    """Returns the yes or no of another language that begins a text and stands alone there; None if there is none."""
    first = _FIRST.match(text)
    return _OTHER.get(first[1].lower()) if first else None


def _without_question(text: str, by: str) -> str:
    """Replaces the repeated question ('True or False:') in a text without markup."""
    text = _MARKUP.sub("", text)
    lower = text.lower()  # few texts have both words; the pattern is slow
    both = ("yes" in lower or "true" in lower) and ("no" in lower or "false" in lower)
    return _ASKED.sub(by, text) if both else text


def _leads(text: str, start: int, end: int) -> bool:
    """Returns whether a yes or no begins the text or a sentence without being its subject, or ends the text.

    'Yes would be wrong' has a yes as its subject.
    """
    if not start or not text[end : end + 20].strip(" .!\"')"):
        return True
    return bool(_THEN.search(text[max(0, start - 20) : start])) and not _MORE.match(text, end)
