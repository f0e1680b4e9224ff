"""The number that a text commits itself to."""

import re

from rllab.answers.numerals import Numeral, number, numerals, plain, worded
from rllab.answers.parts import NotCommitted

_OPERATOR = re.compile(r"[ )}]*(?:[+*/×÷^]|-(?=\s*[\d(])|x\s*(?=\d))")
SENTENCE = re.compile(r"[.!?](?=\s|$)(?<!\b[A-Z]\.)|\n")
REFUSED = re.compile(
    r"\b(?:unknown|not (?:known|clear|given|enough|sure|certain|possible|determin)|(?:cannot|can't|can not|could not) "
    r"(?:be|solve|answer|determine|find|tell|say)|unable to|impossible|undetermined|indeterminate|unclear|insufficient|"
    r"none of)\b",
    re.I,
)
_OR = re.compile(r"\W*(?:[a-z]+\W+){0,2}?\b(?:or|versus|vs)\b\W*(?:[a-z]+\W+){0,2}?$", re.I)
_TO = re.compile(r"(?:\s*(?:to|through|and|,|;|~)|\s*-|\s*\.\.+)\s*(?:maybe|about|even)?\s*$", re.I)
DANGLING = re.compile(
    r"(?:[=+*×÷<(\[{,:/-]|\b(?:is|are|was|the|a|an|and|so|of|for|to|with|by|then|therefore|thus|hence|she|he|we|they|it|"
    r"that|which|in|on|at|from|as|be|will|has|have|had|or|than|because|since|if|when|how|each|per|this|his|her|their))\s*$",
    re.I,
)
_SPACED = re.compile(r"(?<![\d.,/])\d{1,3}(?: \d{3})+(?![\d/])")
_LABEL = re.compile(
    r"(?:^|\n)[ \t]*(?:[*#-]+\s?)?(?:step|part|case|day|example|\()?\s?(\d+)\s?[.):]\s+(?=\S)|\bstep (\d+)", re.I
)
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
_WINDOW = 10_000  # characters at the end of a text in which an unmarked number is looked for


def marked(segment: str) -> str | None:
    """The number that a marked segment commits itself to."""
    text = plain(segment[:600]).strip(" \t\n*_\"'")
    end = SENTENCE.search(text)
    text = _SPACED.sub(lambda m: m[0].replace(" ", ""), text[: end.start()] if end else text)
    found = list(numerals(text))
    if REFUSED.search(text[: found[0].start if found else None]):
        raise NotCommitted("it refuses to answer")
    if not found:
        words = worded(text)
        return str(words[0].value) if words and words[0].start < 30 else None
    chosen = _result(text, found)
    _one_answer(text, found, chosen)
    return text[chosen.start : chosen.end]


def _result(text: str, found: list[Numeral]) -> Numeral:
    """The first number, or where that begins a calculation the number behind its last equals sign."""
    chosen = found[0]
    while _OPERATOR.match(text, chosen.end) or re.match(r"[^=\n;,(]{0,40}=", text[chosen.end :]):
        later = [n for n in found if n.start >= chosen.end and re.search(r"[=≈]\W*$", text[chosen.end : n.start])]
        if not later:
            if re.match(r"[ )}]*-(?=\s*[\d(])", text[chosen.end :]):
                raise NotCommitted("a range or a difference")
            raise NotCommitted("a calculation without its result")
        chosen = later[0]
    return chosen


def _one_answer(text: str, found: list[Numeral], chosen: Numeral) -> None:
    """Raises NotCommitted where another number stands beside the chosen one as an alternative."""
    at = found.index(chosen)
    for left, right in zip(found[max(0, at - 1) : at + 1], found[max(1, at) : at + 2], strict=False):
        between = text[left.end : right.start]
        if left.value != right.value and len(between) < 40 and (_OR.fullmatch(between) or _TO.fullmatch(between)):
            raise NotCommitted(f"two answers: {text[left.start : right.end]}")
    if re.search(r"\b(?:between|either)\s*$", text[: chosen.start], re.I):
        raise NotCommitted("two answers")


def placed(part: str) -> str | None:
    """The last number of the text."""
    text = plain(part[-_WINDOW:]).rstrip(" \t\n*_\"'")
    if re.fullmatch(r"\W*\d{1,3}(?: \d{3})+\W*", text):
        return text.replace(" ", "")
    if DANGLING.search(text[-20:]):
        raise NotCommitted("cut off")
    labels = {m.end(m.lastindex or 0) for m in _LABEL.finditer(text)}
    found = [n for n in numerals(text) if n.end not in labels and not _ORDINAL.match(text, n.end)]
    if not found:
        words = worded(text)
        return str(words[0].value) if len(words) == 1 else None
    chosen = found[-1]
    if REFUSED.search(SENTENCE.split(text[: chosen.start])[-1]):
        raise NotCommitted("it refuses to answer")
    if _OPERATOR.match(text, chosen.end):
        raise NotCommitted("a calculation without its result")
    before = text[: chosen.start].rstrip(" (")
    if re.search(r"\b(?:not|isn't|never)$", before):
        raise NotCommitted("it excludes a number, and gives none")
    if before.endswith(("+", "*", "×", "÷", "^", "/", "-")) and re.search(r"\d\W*$", before[:-1][-6:]):
        raise NotCommitted("a calculation without its result")
    _one_answer(text, found, chosen)
    return text[chosen.start : chosen.end]


def same(answer: str, target: str) -> bool:
    """Whether two texts are the same number."""
    mine, its = number(answer), number(target)
    return mine is not None and its is not None and mine.same(its)
