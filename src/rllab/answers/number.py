"""The number of a numeric answer: a number, with a unit or a percent sign at most; no expression is computed."""

import re

from rllab.answers.numerals import Numeral, number, numerals, plain, worded
from rllab.answers.parts import NotCommitted
from rllab.answers.units import expression, second_part

_OPERATOR = re.compile(
    r"[ )}]*(?:[+*/×÷^]|-(?=\s*[\d(])|x\s*(?=\d)|(?:divided by|times|plus|minus|multiplied by|over)\s(?=\W*\d))"
)
_RESULT = re.compile(r"(?:[=≈]|\b(?:is|equals|gives|makes|yields|becomes|approximately|about|or))\W*$", re.I)
SENTENCE = re.compile(r"[.!?](?=\s|$)(?<!\b[A-Z]\.)(?<!\bRs\.)(?<!\bNo\.)|[\n。！]")
REFUSED = re.compile(
    r"\b(?:unknown|not (?:known|clear|given|enough|sure|certain|possible|determin)|(?:cannot|can't|can not|could not) "
    r"(?:be|solve|answer|determine|find|tell|say)|unable to|impossible|undetermined|indeterminate|unclear|insufficient|"
    r"none of|depend(?:s|ent|ing) (?:on|upon)|it depends|(?:hard|difficult|too early) to (?:say|tell|know|determine)|"
    r"inconclusive|ambiguous|doubt that|debatable|up for debate)\b",
    re.I,
)
# Behind 'the answer is': words with which the sentence says something else of the answer.
OF_IT = re.compile(
    r"[\s*_]*(?:(?:also|then|only|easily|simply|be) )?"
    r"(?:consistent|correct|incorrect|right|wrong|reasonable|sensible|plausible|valid|invalid|tempting|close|unique|"
    r"independent|expected|based on|the same|in|verified|confirmed|supported|measured|found|obtained|checked|derived|"
    r"given|determined|calculated|computed|reached|rounded|expressed|written)\b",
    re.I,
)
_OR = re.compile(r"\W*(?:[a-z]+\W+){0,2}?\b(?:or|versus|vs)\b\W*(?:[a-z]+\W+){0,2}?$", re.I)
_TO = re.compile(r"(?:\s*(?:to|through|and|by|versus|then|less|,|;|~)|\s*-|\s*\.\.+)\s*(?:maybe|about|even)?\s*$", re.I)
DANGLING = re.compile(
    r"(?:[=+*×÷<(\[{,:/-]|\b(?:is|are|was|the|a|an|and|so|of|for|to|with|by|then|therefore|thus|hence|she|he|we|they|it|"
    r"that|which|in|on|at|from|as|be|will|has|have|had|or|than|because|since|if|when|how|each|per|this|his|her|their))\s*$",
    re.I,
)
_SPACED = re.compile(r"(?<![\d.,/])\d{1,3}(?: \d{3})+(?![\d/])")
# Between two numbers: they are apart. With symbols alone between them they are one expression.
_APART = re.compile(r"[^\W\d_]{2}|[^\x00-\u02ff\W]|[=≈\n:(]|[.!?,;]\s|->|→|⇒")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_LABEL = re.compile(
    r"(?:^|\n)[ \t]*(?:[*#-]+\s?)?(?:step|part|case|day|example|\()?\s?(\d+)\s?[.):]\s+(?=\S)|\bstep (\d+)", re.I
)
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
_FACTORIAL = re.compile(r"(?<=[\d)}])!(?=\s*(?:\$|\\[)\]]|[}+*/^=]))")
_SYMBOL = re.compile(r"\\(?:pi|sqrt|infty|theta|[ln]?log|ln|e)\b|[√π∞∛]")
_DIFFERENT = re.compile(
    r"\b(?:(?:more|less|fewer|greater|larger|smaller|other|over|under) than|not|never|no longer|anything but|neither|"
    r"nor)\s\W*$",
    re.I,
)
_REMARK = re.compile(r"\s\((?!(?:or|maybe|perhaps)\b)[^()\n]*\)[\s.]*$")
_COMPUTED = re.compile(r"\b(?:sum|difference|product|average|mean|quotient|remainder)\b", re.I)
_NEAR = 160  # characters behind a mark within which its number stands
_WINDOW = 10_000  # characters at the end of a text that are searched for an unmarked number


def marked(segment: str) -> str | None:
    """Returns the number in the first sentence behind a mark, as text; None if there is none.

    Raises:
        NotCommitted: it is an expression, has an alternative, or the sentence refuses to answer.
    """
    if OF_IT.match(segment):
        return None
    text = plain(_FACTORIAL.sub(r"\\factorial ", segment[:600])).strip(" \t\n*_\"'")
    end = SENTENCE.search(text)
    text = _SPACED.sub(lambda m: m[0].replace(" ", ""), text[: end.start()] if end else text)
    numbers = list(numerals(text))
    if REFUSED.search(text[: numbers[0].start if numbers else None]):
        raise NotCommitted("it refuses to answer")
    if _SYMBOL.search(text) and not numbers:
        raise NotCommitted("an expression, not a number")
    if not numbers:
        return _in_words(text)
    chosen = _result(text, numbers)
    _alone(text, numbers, chosen)
    return text[chosen.start : chosen.end] if chosen.start < _NEAR else None


def boxed(content: str) -> str | None:
    """Returns the number that is the content of a box, as text; None where the box is empty or holds words alone.

    Raises:
        NotCommitted: it is an expression.
    """
    content = re.sub(r"!\s*$", r"\\factorial ", content)
    value = marked(content)
    numbers = list(numerals(_SPACED.sub(lambda m: m[0].replace(" ", ""), plain(content))))
    if value is not None and not all(n.same(numbers[0]) for n in numbers) and not re.search(r"[=≈(]|\\approx", content):
        raise NotCommitted("several numbers in one box")
    if value is None and re.search(r"\d|\\(?!text)[a-z]|^\W*[A-Za-z]\W*$", content):
        raise NotCommitted("an expression, not a number")
    return value


def _in_words(text: str) -> str | None:
    """Returns the number that a text begins with in words, unless another follows that no reason separates from it."""
    words = worded(text)
    if not words or words[0].start >= 30:
        return None
    between = [text[words[0].end : w.start] for w in words[1:] if not w.same(words[0])]
    if between and not re.search(r"[,;(]|\b(?:because|since|as|of)\b", between[0]):
        raise NotCommitted("two answers")
    return str(words[0].value)


def _result(text: str, numbers: list[Numeral]) -> Numeral:
    """Returns the first number; where it begins a calculation, the number behind the last equals sign."""
    chosen = numbers[0]
    if _COMPUTED.search(text[: chosen.start]):  # 'the difference between 20 and 8 is 12'
        chosen = next((n for n in numbers if re.search(r"\b(?:is|equals)\s\W*$", text[: n.start])), chosen)
    while _OPERATOR.match(text, chosen.end) or re.match(r"[^=\n;,(]{0,40}=", text[chosen.end :]):
        later = [n for n in numbers if n.start >= chosen.end and _RESULT.search(text[chosen.end : n.start])]
        if not later:
            if re.match(r"\s*=", text[chosen.end :]):  # '1024 = 2^10'
                return chosen
            if re.match(r"[ )}]*-(?=\s*[\d(])", text[chosen.end :]):
                raise NotCommitted("a range or a difference")
            raise NotCommitted("a calculation without its result")
        chosen = later[0]
    return chosen


def _alone(text: str, numbers: list[Numeral], chosen: Numeral) -> None:
    """Checks that the chosen number is the whole answer.

    Raises:
        NotCommitted: it is part of an expression or of a quantity, or a neighbour is an alternative to it.
    """
    if why := expression(text, chosen.start, chosen.end):
        raise NotCommitted(why)
    at = numbers.index(chosen)
    if at and second_part(text, numbers[at - 1].end, chosen.start):
        raise NotCommitted("a quantity of two parts")
    for left, right in zip(numbers[max(0, at - 1) : at + 1], numbers[max(1, at) : at + 2], strict=False):
        between = text[left.end : right.start]
        near = len(between) < 40 and (_OR.fullmatch(between) or _TO.fullmatch(between))
        if not left.same(right) and (near or not _APART.search(_COMMAND.sub("", between))):
            raise NotCommitted(f"two answers: {text[left.start : right.end]}")
    if re.search(r"\b(?:between|either)\s*$", text[: chosen.start], re.I):
        raise NotCommitted("two answers")
    if _DIFFERENT.search(text[max(0, chosen.start - 30) : chosen.start]):
        raise NotCommitted("it excludes a number, and gives none")


def placed(part: str) -> str | None:
    """Returns the last number of an unmarked text, as text; None if there is none.

    Raises:
        NotCommitted: it is an expression or a calculation, has an alternative, or the text is cut off or refuses.
    """
    text = plain(_FACTORIAL.sub(r"\\factorial ", part[-_WINDOW:])).rstrip(" \t\n*_\"'")
    if re.fullmatch(r"\W*\d{1,3}(?: \d{3})+\W*", text):
        return text.replace(" ", "")
    if DANGLING.search(text[-20:]):
        raise NotCommitted("cut off")
    text = _without_remark(text)
    labels = {m.end(m.lastindex or 0) for m in _LABEL.finditer(text)}
    numbers = [n for n in numerals(text) if n.end not in labels and not _ORDINAL.match(text, n.end)]
    if not numbers:
        words = worded(text)
        return str(words[0].value) if len(words) == 1 else None
    chosen = numbers[-1]
    if REFUSED.search(SENTENCE.split(text[: chosen.start])[-1]):
        raise NotCommitted("it refuses to answer")
    before = text[: chosen.start].rstrip(" (")
    computed = before.endswith(("+", "*", "×", "÷", "^", "/", "-")) and re.search(r"\d\W*$", before[:-1][-6:])
    if _OPERATOR.match(text, chosen.end) or computed:
        raise NotCommitted("a calculation without its result")
    if re.search(r"\b(?:not|isn't|never)$", before):
        raise NotCommitted("it excludes a number, and gives none")
    _alone(text, numbers, chosen)
    return text[chosen.start : chosen.end]


def _without_remark(text: str) -> str:
    """Removes brackets at the end of a text, unless they hold its only number: '18 (9 eggs at 2 dollars)'."""
    remark = _REMARK.search(text[-300:])
    if remark is None:
        return text
    rest = text[: len(text) - len(remark[0])]
    return rest if re.search(r"\d\W*[A-Za-z]*\W*$", rest) else text


def same(answer: str, target: str) -> bool:
    """Returns whether two texts are the same number."""
    a, b = number(answer), number(target)
    return a is not None and b is not None and a.same(b)
