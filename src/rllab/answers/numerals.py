"""Numbers as people and models write them, read exactly: '$1,234.50', '2½', '-\\frac{3}{4}', '1.8 × 10^3', '30 %'.

Nothing is computed: '3 + 4' is two numbers and an operator. Values are Fractions, so 0.1 is a tenth.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_UNITS += " seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
WORDS = {w: i for i, w in enumerate(_UNITS.split())} | {w: 10 * i for i, w in enumerate(_TENS.split(), 2)}

_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+(?:_\d{3})*)(?:\.\d+)?|\.\d+"
_NUMERAL = re.compile(
    rf"""(?<![\w.^\\/])(?:
        (?P<whole>\d+)(?:\s+|-|\s+and\s+)(?P<top>\d+)/(?P<bottom>\d+)(?![\d/])
      | (?P<number>{_UNSIGNED})(?:\s?/\s?(?P<over>\d+(?:\.\d+)?)(?!\s*/))?)
    (?:[eE](?P<exponent>[+-]?\d+)(?!\w) | \s*[x×*·]\s*10\s*\^\s*[({{]?\s*(?P<tens>[+-]?\d+)[)}}]?)?
    (?P<percent>\s*(?:%|percent\b|per\ cent\b))?
    (?:\s*(?P<scale>{"|".join(SCALES)})s?\b)?""",
    re.X | re.I,
)
_MINUS_AFTER = re.compile(r"(?:^|[=:(\[{,;]|\b(?:is|are|be|was|equals|to|of))\s*$", re.I)
MAX_DIGITS, MAX_EXPONENT = 300, 300  # beyond these a number is an attack

_UNICODE: dict[int, str] = {ord(c): "-" for c in "\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d"}
_UNICODE |= dict.fromkeys(map(ord, "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad"), "")
_UNICODE |= {0x2014: "; ", 0x2044: "/", 0x66B: ".", 0x66C: ",", 0x3000: " "}
_UNICODE |= {c: chr(c - 0xFEE0) for c in range(0xFF01, 0xFF5F)}
_UNICODE |= {ord(c): q for cs, q in (("‘’‛′", "'"), ("“”„‟″«»", '"')) for c in cs}
_THIN = re.compile("(?<=\\d)[\u00a0\u2007\u2008\u2009\u202f](?=\\d{3}(?!\\d))")
_SPACES = re.compile("[\u00a0\u2000-\u200a\u202f\u205f]")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+")
_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*([\d.,]+)\s*\}|(\d))\s*(?:\{\s*([\d.,]+)\s*\}|(\d))")
_MARKUP = [
    (re.compile(r"<<[^<>]*>>"), ""),  # GSM8K's calculator marks
    (re.compile(r"(?<=[\d)])\s*\*\*\s*(?=[\d(])"), "^"),
    (
        re.compile(
            r"\*\*|__|`|\\[()\[\],;:! ]|\\(?:left|right|displaystyle|boxed|fbox)\b|(?:\bUS)?\\?[$€£¥₹₽₩¢]|\bUSD\b"
        ),
        "",
    ),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\(?:times|cdot)\b"), "×"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|textit|mbox)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\^\s*\{\s*([+-]?\d+)\s*\}"), r"^\1"),
    (re.compile(r"(?<![\w*])\*(?=[\d.$+-]*\d[\w.,%]*\*)|(?<=\d)\*(?!\s*[\d(])"), ""),  # *18* in italics
]


@dataclass(frozen=True)
class Numeral:
    """A number and where it stands in the text; `percent` where a percent sign follows."""

    value: Fraction
    percent: bool = False
    start: int = 0
    end: int = 0

    def same(self, other: "Numeral") -> bool:
        """Whether both are the same number; 30 % is 30 and 0.3 where the other has no percent sign."""
        if self.value == other.value:
            return True
        if self.percent == other.percent:
            return False
        share, number = (self, other) if self.percent else (other, self)
        return share.value / 100 == number.value


def tidy(text: str) -> str:
    """Digits, minus signs, spaces and quotes of every script as ASCII has them."""
    if text.isascii():
        return text
    text = _VULGAR.sub(lambda m: " " + unicodedata.normalize("NFKC", m[0]), text)
    text = _RAISED.sub(lambda m: "^" + unicodedata.normalize("NFKC", m[0]), text)
    text = _SPACES.sub(" ", _THIN.sub("", text)).translate(_UNICODE)
    if text.isascii():
        return text
    return "".join(str(d) if (d := unicodedata.decimal(c, None)) is not None else c for c in text)


def plain(text: str) -> str:
    """A tidy text without currency signs, emphasis and what LaTeX puts around numbers."""
    if "\\" in text and "frac" in text:
        text = _FRACTION.sub(_fraction, text)
    for pattern, by in _MARKUP:
        text = pattern.sub(by, text)
    return text


def _fraction(m: re.Match[str]) -> str:
    mixed = " " if m.start() and m.string[m.start() - 1].isdigit() else ""
    return f"{mixed}{m[1] or m[2]}/{m[3] or m[4]} "


def numerals(text: str) -> Iterator[Numeral]:
    """The numbers of a plain text, first to last; dates and times of day are none."""
    for m in _NUMERAL.finditer(text):
        if re.match(r"[:/]\d|\s*\^|,\d", text[m.end() : m.end() + 4]) or (
            text[max(0, m.start() - 1) : m.start()] == ":" and re.search(r"\d:$", text[: m.start()][-3:])
        ):
            continue
        value = _value(m)
        if value is not None:
            start = _sign(text, m.start())
            if start < m.start() and text[start] == "-":
                value = -value
            yield Numeral(value, bool(m["percent"]), start, m.end())


def _value(m: re.Match[str]) -> Fraction | None:
    if len(m[0]) > MAX_DIGITS:
        return None
    if m["whole"]:
        return Fraction(int(m["whole"])) + Fraction(int(m["top"]), int(m["bottom"])) if int(m["bottom"]) else None
    exponent = int(m["exponent"] or m["tens"] or 0)
    over = Fraction(m["over"]) if m["over"] else Fraction(1)
    if abs(exponent) > MAX_EXPONENT or not over:
        return None
    value = Fraction(m["number"].replace(",", "").replace("_", "")) / over
    return value * Fraction(10) ** exponent * SCALES.get((m["scale"] or "").lower(), 1)


def _sign(text: str, start: int) -> int:
    """Where the number begins that has its digits at `start`: at a sign, unless that sign subtracts or joins."""
    at = start
    while at and text[at - 1] == " ":
        at -= 1
    if not at or text[at - 1] not in "+-":
        return start
    before = text[: at - 1].rstrip(" ")
    if at < start:  # '- 5' is -5 only where a number is announced
        return at - 1 if _MINUS_AFTER.search(before[-12:]) else start
    if before and (before[-1].isdigit() or before[-1] in ")%"):
        return start
    return start if text[at - 2 : at - 1].isalpha() else at - 1


def number(text: str) -> Numeral | None:
    """The one number that a short text is, with its sign, currency, percent sign or unit; None where it is none."""
    if len(text) > MAX_DIGITS:
        return None
    text = plain(tidy(text)).strip().rstrip(".")
    if re.fullmatch(r"[+-]?\d{1,3}(?: \d{3})+", text):
        text = text.replace(" ", "")
    found = list(numerals(text))
    if not found:
        return number_words(text)
    around = text[: found[0].start] + text[found[0].end :]
    return found[0] if len(found) == 1 and not re.search(r"[\d+*/=^<>()-]", around) else None


def number_words(text: str) -> Numeral | None:
    """The number that a text begins with in words: 'twenty-one apples'."""
    total = part = 0
    seen = False
    words = re.findall(r"[a-z]+", text[:120].lower())
    for i, word in enumerate(words):
        if word in WORDS:
            part, seen = part + WORDS[word], True
        elif word in SCALES and seen:
            part *= SCALES[word]
            if SCALES[word] >= 1000:
                total, part = total + part, 0
        elif not (word == "and" and seen and words[i + 1 : i + 2] and words[i + 1] in WORDS and part % 100 == 0):
            break
    return Numeral(Fraction(total + part), False, 0, len(text)) if seen else None
