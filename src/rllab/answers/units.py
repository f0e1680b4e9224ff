"""Tells a number with its unit from a number that is part of an expression: '5 km/h' from '5x', '√5' and '3 h 30'."""

import re

# LaTeX commands that may stand beside a number and leave it that number.
_HARMLESS = (
    r"(?:degree|quad|qquad|text|textbf|mathrm|mathbf|rm|bf|displaystyle|left|right|approx|implies|Rightarrow|"
    r"Longrightarrow|rightarrow|therefore|to|end|begin|large|Large|huge|euro|pounds|yen|checkmark|blacksquare|square|underline|"
    r"textit|emph|bm|textnormal|longrightarrow|iff|because|space)"
)
_COMMAND = rf"\\(?!{_HARMLESS}(?![A-Za-z]))[A-Za-z]+"
# Units that may be glued to a number ('5kg'); other short letters behind a number are variables ('5x').
_UNITS = (
    r"(?:[munckM]?m[23]?|[munck]?g|m?s|h|hr|min|[mk]?[LlN]|[kM]?[JWV]|[mk]?A|[kM]?Hz|[kM]?Pa|K|C|F|mol|ft|in|lbs?|oz|mi|yd|"
    r"mph|kph|kWh|k?cal|cc|am|pm|AM|PM|st|nd|rd|th|EUR|USD|GBP)"
)
_GLUED = rf"(?!(?:{_UNITS}(?![A-Za-z\d])|[A-Za-z]{{4,}}))[A-Za-z]"
_OTHER_SCRIPTS = r"\u2E80-\uFFFF\u00b5\u0600-\u0E7F\u2600-\u27bf\U0001f300-\U0001faff"  # 5元, and emoji

_BEHIND_IT = (  # it belongs to an expression
    rf"\s*{_COMMAND}",  # 5\pi, 5 \sqrt{2}
    r"\s?[\u0370-\u03ff√∞∛∑∫×÷·±≤≥<>≠∓]",  # 5π, 5 √2, 5 ≤ x
    rf"{_GLUED}|\s[b-fi-ln-z](?![\w'.])",  # 5x, 5 y
    r"\((?![A-Za-z]{3,})|\s?\((?=[^)]{0,20}[-+*/^][^)]{0,20}\)\s?[=*/^+-])",  # 5(x), 5 (x + 1) =
    r"\s?-+\s?(?![-\s*]|[A-Za-z]{2}|$)|\s?:\s?\d|\s\^|_[\w{]|!(?=[^\s!])",  # 5-x, 5 : 3, 5 ^2, 5_2, 5!x
    rf"[ \t]+[-+]?\d|,\s?[-+]?(?:{_COMMAND}|∞)|[)}}]+[(\dA-Za-z^]",  # 3 4 5, (4, \infty), (4)(3)
    r"\s+(?:squared|cubed|mod|modulo|factorial|choose|to the power)\b|(?<=%|t)\sof\s",  # 4 squared, 4% of 50
    r"\s(?:plus|minus|times|over|(?:divided|multiplied) by|(?:more|less|fewer) than|(?:taken |subtracted )?from|"
    r"added to|into|off)\s(?:[b-z]\b|\d)",  # 4 over x, 9 from 38
    r"\s?(?:[A-Za-z]+\s?)?[+*&]\s?[\w\\]",  # 4 m + 2, 4 & 5
    r"\.\\|…|\.{2,}\s?\d",  # 0.\overline{3}, 0.33…, 4..6
    r"\\[^\sA-Za-z%$,;:!()\[\]]",  # \{5\}x
    rf"[^\s.,;:!?)\]}}'\"%°*_`$€£¥/\\A-Za-z({_OTHER_SCRIPTS}-]",  # any other symbol
)
_BEFORE_IT = (  # it belongs to an expression
    # \sqrt{5, \sqrt[3, \frac{x}{5, \log_2 5
    rf"{_COMMAND}\s*(?:_\{{?\w+\}}?|\^\{{?\w+\}}?)?\s*(?:\[[^\]]*\]\s*)?(?:\{{[^{{}}]*\}}\s*)*[\[{{(]?\s*[-+]?$",
    r"[√∛∜±∓≥≤≠¬⌊⌈∠^_]\s?[-+({]?\s?$|(?<![-=\n])[<>]\s?$",  # √5, ≥ 5; but -> 5 and a quoted line
    r"(?<![\s|])\|[-+]?$|^\|[-+]?$",  # |-5|; but a table's cell | 5
    r"(?<![A-Za-z])(?:sqrt|log|ln|sin|cos|tan|exp|floor|ceil|abs|max|min|[A-Za-z])\s?\([-+]?$",  # sqrt(16), f(5)
    r"(?<![A-Za-z])[A-Za-z]\s?[-+/]\s?$|[)}]\s?[-+*/^×·÷]\s?$|\w\s?[*^×·÷]\s?$|\w \+ $",  # 2x - 5, (y)/5, cost + 5
    r"\d[ \t]+[-+]?$|[)\d]\($|[-+*/^]\s?\($|(?:\\infty|∞)\s?,\s?$",  # 3 4 5, 4(3), -(4), (-\infty, 4)
    r"\d\s:\s?$|\w\s?&\s?$|(?:%|percent)\sof\s\$?$",  # 4 : 5, 4 & 5, 4% of 50
    r"(?:(?:\d|\b\w)\s(?:plus|minus|times|over|choose|(?:taken |subtracted )?from|added to|into|off)|"
    r"\b(?:divided|multiplied) by)\s$",  # x plus 4, 9 from 38
    r"\b(?:log|ln|mod|sqrt|sin|cos|tan|twice|thrice|[a-z]*(?:half|third|quarter|root|square|cube|factorial|logarithm|"
    r"reciprocal|opposite|double|multiples?|divisors?|factors?) of(?: the)?(?: number)?)\s+$",  # the square root of 4
)
_MEASURES = (
    r"(?:h|hrs?|hours?|mins?|minutes?|secs?|seconds?|days?|weeks?|months?|years?|ft|feet|foot|inch(?:es)?|yd|yards?|"
    r"miles?|m|met(?:er|re)s?|[ck]m|(?:centi|kilo)met(?:er|re)s?|lbs?|pounds?|oz|ounces?|k?g|(?:kilo)?grams?|tons?|"
    r"dollars?|bucks|euros?|cents?|gallons?|quarts?|pints?|cups?|l|lit(?:er|re)s?|degrees?|dozen)"
)
_WORD = r"[ ]?(?!(?:in|of|on|at|per|for|from|by|to|with|out|after|before|is|are|was|or|as|but|so|not)\b)[A-Za-z]+\.?"
_TWO_PARTS = (  # of one quantity
    rf"[ ]?{_MEASURES}\b\.?,?[ ]+(?:and\s+)?\$?\d",  # 5 feet 3 inches
    rf"(?:{_WORD}){{1,2}},?\s+and\s+\$?\d",  # 4 red and 4 blue
    r"['\"]\s?\d",  # 5'3"
)
_BEHIND, _BEFORE = re.compile("|".join(_BEHIND_IT)), re.compile("|".join(_BEFORE_IT))
_two_parts = re.compile("|".join(_TWO_PARTS), re.I)


def expression(text: str, start: int, end: int) -> str:
    """Returns why the number at [start, end) of a text is only a part of the answer; "" where it is the answer."""
    if _BEHIND.match(text, end) or _BEFORE.search(text[max(0, start - 60) : start]):
        return f"an expression, not a number: {text[max(0, start - 10) : end + 10].strip()}"
    if text.startswith("..", end) and "." in text[start:end]:  # 0.33...
        return "an expression, not a number: decimals that go on"
    if _two_parts.match(text, end):
        return "a quantity of two parts"
    return ""


def second_part(text: str, first: int, second: int) -> bool:
    """Returns whether the number that begins at `second` continues the quantity whose number ends at `first`."""
    m = _two_parts.match(text, first)
    return m is not None and second <= m.end() - 1 <= second + 1
