"""The number of a numeric answer."""

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
_WINDOW = 10_000  # characters at the end of a text that are searched for an unmarked number


def marked(segment: str) -> str | None:
    """Returns the number in the first sentence behind a mark, as text; None if there is none."""
    text = plain(segment[:600]).strip(" \t\n*_\"'")
    end = SENTENCE.search(text)
    text = _SPACED.sub(lambda m: m[0].replace(" ", ""), text[: end.start()] if end else text)
    numbers = list(numerals(text))
    if REFUSED.search(text[: numbers[0].start if numbers else None]):
        raise NotCommitted("it refuses to answer")
    if not numbers:
        words = worded(text)
        return str(words[0].value) if words and words[0].start < 30 else None
    chosen = _result(text, numbers)
    _one_answer(text, numbers, chosen)
    return text[chosen.start : chosen.end]


def _result(text: str, numbers: list[Numeral]) -> Numeral:
    """Returns the first number; where it begins a calculation, the number behind the last equals sign."""
    chosen = numbers[0]
    while _OPERATOR.match(text, chosen.end) or re.match(r"[^=\n;,(]{0,40}=", text[chosen.end :]):
        later = [n for n in numbers if n.start >= chosen.end and re.search(r"[=≈]\W*$", text[chosen.end : n.start])]
        if not later:
            if re.match(r"[ )}]*-(?=\s*[\d(])", text[chosen.end :]):
                raise NotCommitted("a range or a difference")
            raise NotCommitted("a calculation without its result")
        chosen = later[0]
    return chosen


def _one_answer(text: str, numbers: list[Numeral], chosen: Numeral) -> None:
    """Raises NotCommitted where a neighbouring number is an alternative to the chosen one."""
    at = numbers.index(chosen)
    for left, right in zip(numbers[max(0, at - 1) : at + 1], numbers[max(1, at) : at + 2], strict=False):
        between = text[left.end : right.start]
        if left.value != right.value and len(between) < 40 and (_OR.fullmatch(between) or _TO.fullmatch(between)):
            raise NotCommitted(f"two answers: {text[left.start : right.end]}")
    if re.search(r"\b(?:between|either)\s*$", text[: chosen.start], re.I):
        raise NotCommitted("two answers")


def placed(part: str) -> str | None:
    """Returns the last number of an unmarked text, as text; None if there is none."""
    text = plain(part[-_WINDOW:]).rstrip(" \t\n*_\"'")
    if re.fullmatch(r"\W*\d{1,3}(?: \d{3})+\W*", text):
        return text.replace(" ", "")
    if DANGLING.search(text[-20:]):
        raise NotCommitted("cut off")
    labels = {m.end(m.lastindex or 0) for m in _LABEL.finditer(text)}
    numbers = [n for n in numerals(text) if n.end not in labels and not _ORDINAL.match(text, n.end)]
    if not numbers:
        words = worded(text)
        return str(words[0].value) if len(words) == 1 else None
    chosen = numbers[-1]
    if REFUSED.search(SENTENCE.split(text[: chosen.start])[-1]):
        raise NotCommitted("it refuses to answer")
    if _OPERATOR.match(text, chosen.end):
        raise NotCommitted("a calculation without its result")
    before = text[: chosen.start].rstrip(" (")
    if re.search(r"\b(?:not|isn't|never)$", before):
        raise NotCommitted("it excludes a number, and gives none")
    if before.endswith(("+", "*", "×", "÷", "^", "/", "-")) and re.search(r"\d\W*$", before[:-1][-6:]):
        raise NotCommitted("a calculation without its result")
    _one_answer(text, numbers, chosen)
    return text[chosen.start : chosen.end]


def same(answer: str, target: str) -> bool:
    """Returns whether two texts are the same number."""
    a, b = number(answer), number(target)
    return a is not None and b is not None and a.same(b)
