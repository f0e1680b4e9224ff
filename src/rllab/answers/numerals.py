"""Reads numbers as people and models write them: '$1,234.50', '2½', '-\\frac{3}{4}', '1.8 × 10^3', '30 %'.

Nothing is computed: '3 + 4' is two numbers and an operator. Values are exact: a Fraction, so 0.1 is a tenth.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
MYRIADS = dict.fromkeys("万萬만", 10**4) | dict.fromkeys("亿億억", 10**8)
_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_UNITS += " seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINALS = "half third quarter fifth sixth seventh eighth ninth tenth"
_PARTS = {w: i for i, w in enumerate(_ORDINALS.split(), 2)} | {"halve": 2, "fourth": 4}
_PARTS |= {f"{w}s": i for w, i in _PARTS.items()}
WORDS = {w: i for i, w in enumerate(_UNITS.split())} | {w: 10 * i for i, w in enumerate(_TENS.split(), 2)}

_UNSIGNED = r"\d{1,3}(?:\.\d{3}){1,40},\d+(?![.,]?\d)|\d{1,3}(?:\.\d{3}){2,40}(?![.,]?\d)|"  # 1.234,56 and 1.234.567
_UNSIGNED += r"(?:[1-9]\d{0,2}(?:,\d{3}){1,40}(?![\d,])|\d{1,3}(?:'\d{3}){1,40}(?!\d)|\d+(?:_\d{3})*)(?:\.\d+)?|\.\d+"
_NUMERAL = re.compile(
    rf"""(?<![A-Za-z\u00c0-\u052f\d_.^\\/])(?<!\d:)(?<!\d,)(?:
        (?P<whole>\d+)(?:\s+|-|\s+and\s+)(?P<top>\d+)/(?P<bottom>\d+)(?![\d/])
      | (?P<number>{_UNSIGNED})(?:\s?/\s?(?P<over>\d+(?:\.\d+)?)(?!\s*/))?)
    (?:[eE](?P<exponent>[+-]?\d+)(?!\w) | \s*[x×*·]\s*10\s*\^\s*[({{]?\s*(?P<tens>[+-]?\d+)[)}}]?)?
    (?P<percent>\s*(?:%|percent\b|per\ cent\b))?
    (?:\s*(?P<scale>{"|".join(SCALES)})s?\b|\s?(?P<myriad>[{"".join(MYRIADS)}])|(?P<kilo>k)\b)?""",
    re.X | re.I,
)
_NO_NUMBER = re.compile(r"[:/]\d|\s?\^|,\d")  # behind a number: it is part of a time, a date, a power or a list
_MINUS_AFTER = re.compile(r"(?:^|[=:(\[{,;]|\b(?:is|are|be|was|equals|to|of))\s*$", re.I)
# Beside a number: it is part of an expression.
_NOT_A_UNIT = re.compile(r"[\d+*/=^<>()|!'_\\√∛±∓≥≤≠¬⌊⌋⌈⌉∠∞×÷-]|[\u0370-\u03ff]")
_POINTS = re.compile(r"\d+\.\d+[.,]")  # thousands are grouped by points
_GROUPING = str.maketrans("", "", ",'_")
MAX_DIGITS, MAX_EXPONENT = 300, 300  # limits on what one number may cost; larger ones are not read

_UNICODE: dict[int, str] = {ord(c): "-" for c in "\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d"}
_UNICODE |= dict.fromkeys(map(ord, "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad"), "")
_UNICODE |= {0x2014: "; ", 0x2044: "/", 0x66B: ".", 0x66C: ",", 0x3000: " "}
_UNICODE |= {c: chr(c - 0xFEE0) for c in range(0xFF01, 0xFF5F)}
_UNICODE |= {ord(c): q for cs, q in (("‘’‛′", "'"), ("“”„‟″«»", '"')) for c in cs}
_REPLACED = re.compile(f"[{re.escape(''.join(map(chr, _UNICODE)))}]")  # faster than `translate`
_THIN = re.compile("(?<=\\d)[\u00a0\u2007\u2008\u2009\u202f](?=\\d{3}(?!\\d))")
_SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f]")
_DIGIT = re.compile(r"(?![0-9])\d")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+")
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*([\d.,]+)\s*\}|(\d))\s*(?:\{\s*([\d.,]+)\s*\}|(\d))")
# What is removed around numbers: (in lower case, one of which a text has where the pattern matches; pattern; by what).
_MARKUP = [
    (
        ("frac",),
        re.compile(
            r"\\[dt]?frac\s*\{\s*\\(?:text|mathrm)\s*\{([^{}]*)\}\s*\}\s*\{\s*\\(?:text|mathrm)\s*\{([^{}]*)\}\s*\}"
        ),
        r" \1/\2",
    ),
    (("<<",), re.compile(r"<<[^<>]*>>"), ""),  # GSM8K's calculator marks
    (("**",), re.compile(r"(?<=[\d)])(?:\*\*| \*\* )(?=[\d(])"), "^"),
    (("minus ", "negative "), re.compile(r"\b(?:minus|negative) (?=[$.\d])", re.I), "-"),
    (
        ("**", "__", *"`\\$€£¥₹₽₩¢", "usd"),
        re.compile(
            r"\*\*|__|`|\\[()\[\],;:! ]|\\(?:left|right|displaystyle|boxed|fbox)\b|(?:\bUS)?\\?[$€£¥₹₽₩¢]|\bUSD\b"
        ),
        "",
    ),
    (("\\q",), re.compile(r"\\q?quad(?![A-Za-z])"), "  "),
    (("{,}",), re.compile(r"\{,\}"), ","),
    (("half",), re.compile(r"(?<=\d) and (?:a|one)[ -]half\b"), " 1/2"),
    (("quarter",), re.compile(r"(?<=\d) and (?:a|one)[ -]quarter\b"), " 1/4"),
    (("\\times", "\\cdot"), re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "×"),
    (("\\%",), re.compile(r"\\%"), "%"),
    (("\\circ",), re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))"), "°"),
    (
        (",",),
        re.compile(r"(?<![\d.,])(\d+),(\d\d?)(?![\d,])|(?<![\d.,])(0),(\d+)(?![\d,])"),  # decimal comma
        r"\1\3.\2\4",
    ),
    (("\\",), re.compile(r"\\(?:text|textbf|mathrm|mathbf|textit|mbox)\s*\{([^{}]*)\}"), r" \1 "),
    (("^",), re.compile(r"\^\s*\{\s*([+-]?\d+)\s*\}"), r"^\1"),
    (
        ("*",),
        re.compile(r"(?<![\w*])\*(?=[\d.$+-]{0,20}\d[\w.,%]{0,20}\*)|(?<=\d)\*(?!\s*[\d(])"),  # *18* in italics
        "",
    ),
]


@dataclass(frozen=True)
class Numeral:
    """A number and its place in the text, as character offsets; percent: a percent sign follows it."""

    value: Fraction
    percent: bool = False
    start: int = 0
    end: int = 0

    def same(self, other: "Numeral") -> bool:
        """Returns whether both are the same number. 30 % equals both 30 and 0.3 if the other has no percent sign."""
        if self.value == other.value:
            return True
        if self.percent == other.percent:
            return False
        share, number = (self, other) if self.percent else (other, self)
        return share.value / 100 == number.value


def tidy(text: str) -> str:
    """Replaces digits, minus signs, spaces and quotes of every script by those of ASCII."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text)
    text = _VULGAR.sub(lambda m: " " + unicodedata.normalize("NFKC", m[0]), text)
    text = _RAISED.sub(lambda m: "^" + unicodedata.normalize("NFKC", m[0]), text)
    text = _SPACES.sub(" ", _THIN.sub("", text))
    text = _REPLACED.sub(lambda m: _UNICODE[ord(m[0])], text)
    return text if text.isascii() else _DIGIT.sub(lambda m: str(unicodedata.decimal(m[0])), text)


def plain(text: str) -> str:
    """Removes currency signs, emphasis and LaTeX commands around numbers from a tidy text."""
    if "\\" in text and "frac" in text:
        text = _FRACTION.sub(_fraction, text)
    lower = text.lower()
    for needles, pattern, by in _MARKUP:
        for needle in needles:
            if needle in lower:
                text = pattern.sub(by, text)
                lower = text.lower()
                break
    return text


def _fraction(m: re.Match[str]) -> str:
    mixed = " " if m.start() and m.string[m.start() - 1].isdigit() else ""
    return f"{mixed}{m[1] or m[2]}/{m[3] or m[4]} "


def numerals(text: str) -> Iterator[Numeral]:
    """Yields the numbers of a plain text in order; dates and times of day are not numbers."""
    for m in _NUMERAL.finditer(text):
        value = None if _NO_NUMBER.match(text, m.end()) else _value(m)
        if value is not None:
            start = _sign(text, m.start())
            if start < m.start() and text[start] == "-":
                value = -value
            yield Numeral(value, bool(m["percent"]), start, m.end())


def _value(m: re.Match[str]) -> Fraction | None:
    """Returns the value of a numeral; None where it divides by zero or is too large to read."""
    if len(m[0]) > MAX_DIGITS:
        return None
    if m["whole"]:
        return Fraction(int(m["whole"])) + Fraction(int(m["top"]), int(m["bottom"])) if int(m["bottom"]) else None
    digits = m["number"]
    if _POINTS.match(digits):
        digits = digits.replace(".", "").replace(",", ".")
    digits = digits.translate(_GROUPING)
    value = Fraction(int(digits) if digits.isdigit() else digits)
    if not m["over"] and m["exponent"] is m["tens"] is m["scale"] is m["myriad"] is m["kilo"] is None:
        return value
    exponent, over = int(m["exponent"] or m["tens"] or 0), Fraction(m["over"] or 1)
    if abs(exponent) > MAX_EXPONENT or not over:
        return None
    scale = SCALES.get((m["scale"] or "").lower(), 1000 if m["kilo"] else 1) * MYRIADS.get(m["myriad"] or "", 1)
    return value / over * Fraction(10) ** exponent * scale


def _sign(text: str, start: int) -> int:
    """Returns where the number with digits at `start` begins: at its sign, unless that subtracts or is a hyphen."""
    window = text[max(0, start - 16) : start].rstrip(" ")
    at = start - min(start, 16) + len(window)
    if not window or window[-1] not in "+-":
        return start
    before = window[:-1].rstrip(" ")
    if at < start:  # '- 5' is -5 only behind a word or sign that announces a number
        return at - 1 if _MINUS_AFTER.search(before) else start
    if before and (before[-1].isdigit() or before[-1] in ")%"):
        return start
    return start if text[at - 2 : at - 1].isalpha() else at - 1


@lru_cache(4096)  # a target is read for each of its completions
def number(text: str) -> Numeral | None:
    """Returns the number that a short text is, with its sign, currency or unit; None if it is not one number."""
    if len(text) > MAX_DIGITS:
        return None
    text = plain(tidy(text)).strip().rstrip(".")
    if re.fullmatch(r"[+-]?\d{1,3}(?: \d{3})+", text):
        text = text.replace(" ", "")
    numbers = list(numerals(text))
    if not numbers:
        words = worded(text)
        return words[0] if len(words) == 1 and not text[: words[0].start].strip(" -minusgatve") else None
    around = text[: numbers[0].start] + text[numbers[0].end :]
    return numbers[0] if len(numbers) == 1 and not _NOT_A_UNIT.search(around) else None


def worded(text: str) -> list[Numeral]:
    """Returns the numbers that a text writes in words: 'twenty-one apples', 'two and a half', 'a dozen'."""
    words = list(re.finditer(r"[a-z]+", text[:2000].lower()))
    names = [w[0] for w in words] + [""] * 3
    numbers, i = [], 0
    while i < len(words):
        value, end = _worded(names, i)
        if value is None:
            i += 1
            continue
        negative = i > 0 and names[i - 1] in ("minus", "negative")
        numbers.append(Numeral(-value if negative else value, False, words[i].start(), words[end - 1].end()))
        i = end
    return numbers


def _worded(names: list[str], i: int) -> tuple[Fraction | None, int]:
    """Returns the number whose words begin at i, or None, and the place behind its words."""
    article = names[i] in ("a", "an")
    if article or names[i] in _PARTS:
        i += article
        if names[i] in _PARTS and not names[i].endswith("s"):
            return Fraction(1, _PARTS[names[i]]), i + 1
        return (Fraction(SCALES[names[i]]), i + 1) if article and names[i] in SCALES else (None, i)
    total, part, start = 0, 0, i
    while names[i] in WORDS or (names[i] in SCALES and i > start):
        if names[i] in WORDS:
            part += WORDS[names[i]]
        else:
            part *= SCALES[names[i]]
            if SCALES[names[i]] >= 1000:
                total, part = total + part, 0
        i += 1
        if names[i] == "and" and names[i + 1] in WORDS and names[i - 1] in SCALES:
            i += 1
    if i == start or (names[start] == "one" and i == start + 1 and names[i] in ("of", "another")):
        return None, i
    value = Fraction(total + part)
    if names[i] in _PARTS and value < 20:
        return value / _PARTS[names[i]], i + 1
    if names[i] == "and" and names[i + 1] in ("a", "one") and names[i + 2] in _PARTS:
        return value + Fraction(1, _PARTS[names[i + 2]]), i + 3
    if names[i] == "point" and names[i + 1] in WORDS:
        digits = ""
        while names[i + 1] in WORDS and WORDS[names[i + 1]] < 10:
            digits, i = digits + str(WORDS[names[i + 1]]), i + 1
        return value + Fraction(f"0.{digits}"), i + 1
    return value, i
