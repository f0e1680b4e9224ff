"""Finds equations between numbers in a text, and whether they hold: '20 + 5 = 25', '$1,200 / 12 = $100 a month'.

Only what is certain is an equation. One with a variable, a function, a root, a number in words or a blank is none.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from rllab.answers.expressions import Expression, Token
from rllab.answers.numerals import SCALES, tidy

LONGEST = 200  # most tokens of an expression
NEAR = Fraction(1, 20)  # relative error up to which '≈' holds
ROUNDED = Fraction(1, 100_000)  # and '=' between numbers with decimals: 1666.67 * 1.2 = 2000
_SCALED = SCALES.keys() | {"cent"}
_RELATION = re.compile(r"(?<![<>!=:~+*/-])=(?![=>])|≈")
_TOKEN = re.compile(
    r"(?P<other>0\d+(?:\.\d+)?)|(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,]*\d)|\d+(?:\.\d+)?|\.\d+)"
    r"|(?P<sign>[-+*/^()%])|(?P<word>[^\W\d_]+)|(?P<gap>\s+)|(?P<sundry>.)",
    re.S,
)
_WRITTEN = [
    (re.compile(r"<<[^<>]*>>"), ""),  # GSM8K's calculator marks
    (re.compile(r"\\\\"), "\n"),
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|textit|mbox|boxed|fbox)\s*\{([^{}]*)\}"), r" \1 "),
    *[(re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"((\1)/(\2))")] * 3,
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])|[×·∙⋅]"), "*"),
    (re.compile(r"\\div(?![A-Za-z])|÷"), "/"),
    (re.compile(r"\\approx(?![A-Za-z])|≃|≅"), "≈"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"(?<![\d.,])(\d{1,3}) (?=\d{3}(?!\d))"), r"\1,"),  # 18 000
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\(?:left|right|displaystyle|quad|qquad)(?![A-Za-z])|\\[()\[\],;:! ]|\\?[$€£¥]|&|`"), " "),
    (re.compile(r"(?<=[\d)])\*\*(?=[\d(])"), "^"),
    (re.compile(r"\*\*"), " "),
    (re.compile(r"\^\s*\{\s*(\d+)\s*\}"), r"^\1"),
    (re.compile(r"(?<=[A-Za-z])\s?\^\s?[23]"), ""),  # square and cubic units
    (re.compile(r"(?<=[\d)%])\s*[xX]\s*(?=[\d(.])|(?<=[A-Za-z)]) [xX] +(?=[\d(.])"), "*"),
    (re.compile(r"(?<=/ )(\d+/\d+)(?![\d/.])"), r"(\1)"),  # '28 / 1/5'
    (re.compile(r"(?<![\d.,/^])(\d+) (\d+)/(\d+)(?![\d/.])"), r"(\1+\2/\3)"),
    (re.compile(r"\n\s*(?=[=≈])"), " "),
    (re.compile(r"(?:^|(?<=\n))\s*[-*+•]\s+"), ""),  # the mark of an item of a list
]
# Before or behind an expression, these belong to it: it is then only a part of something that is not evaluated.
_OPEN = "times plus minus of over by squared cubed divided multiplied mod modulo sqrt log ln sin cos tan exp half twice"
_OPEN_WORDS = frozenset(_OPEN.split())
_JOINING = "and or so then is are which because since if but when while with as to from in at on per for"
_NO_UNITS = frozenset(_JOINING.split())
_OPEN_SIGNS = frozenset("√∛^_\\|[]{}<>~#@?/*+-%π!∑∫∞±")


@dataclass(frozen=True)
class Equation:
    """Two expressions with an equals sign, or with '≈' (about), between them."""

    left: Expression
    right: Expression
    about: bool = False

    @property
    def holds(self) -> bool | None:
        """Whether both sides are equal; None where that depends on what units or percent signs mean.

        A decimal number may be the other side rounded: 10 / 3 = 3.33. A percent sign may be read as hundredths or not.
        """
        if any(self._equal(a, b) for a in (100, 1) for b in (100, 1)):
            return True
        sides = (self.left, self.right)
        units = self.left.units | self.right.units
        unclear = len(units) > 1 or units & _SCALED or any(s.has("%") and s.has("+-") for s in sides)
        unclear = unclear or (self.left.single and self.left.units)  # '40 nickels = 40 * 0.05'
        return None if unclear else False

    def _equal(self, percent: int, of_right: int) -> bool:
        left, right = self.left.value(None, percent), self.right.value(None, of_right)
        if left is None or right is None:
            return False
        decimals = any("." in t.text for t in self.left.tokens + self.right.tokens)
        near = NEAR if self.about else ROUNDED if decimals else 0
        if abs(left - right) <= near * max(abs(left), abs(right)):
            return True
        if self.right.single:
            return _rounded(left, right, self.right, of_right, self.about)
        return self.left.single and _rounded(right, left, self.left, percent, self.about)


def _rounded(exact: Fraction, shown: Fraction, number: Expression, percent: int, about: bool) -> bool:
    """Returns whether a number shows the exact value with fewer decimals."""
    decimals = next(len(t.text.partition(".")[2]) for t in number.tokens if t.kind == "number")
    unit = Fraction(1, 10**decimals) / (percent if number.has("%") else 1)
    return bool((decimals or about or number.has("%")) and abs(exact - shown) <= unit / 2)


@lru_cache(10_000)  # an audit reads the same steps several times
def equations(text: str) -> tuple[Equation, ...]:
    """Returns the equations in a text, in order; 'a = b = c' is two."""
    text = tidy(text)
    for pattern, by in _WRITTEN:
        text = pattern.sub(by, text)
    return tuple(e for line in text.split("\n") for e in _of_line(line))


def _of_line(line: str) -> Iterator[Equation]:
    signs = list(_RELATION.finditer(line))
    cuts = [0, *(m.end() for m in signs)], [*(m.start() for m in signs), len(line)]
    members = [list(_tokens(line[start:end])) for start, end in zip(*cuts, strict=True)]
    for place, sign in enumerate(signs):
        left, right = _last(members[place]), _first(members[place + 1])
        if left is None or right is None or (left.single and right.single):
            continue
        if left.single and (place == 0 or _first(members[place]) != left):
            continue  # 'day 1 = 3 * 4' names something
        if left.value() is not None and right.value() is not None:
            yield Equation(left, right, sign[0] == "≈")


def _tokens(text: str) -> Iterator[Token]:
    apart = True
    for m in _TOKEN.finditer(text):
        if m.lastgroup != "gap":
            yield Token(str(m.lastgroup).replace("sundry", "other"), m[0], apart)
        apart = m.lastgroup == "gap"


def _run(tokens: list[Token], start: int) -> int:
    """Returns the place behind the expression that begins at `start`, as far as tokens can continue one."""
    at, depth, operand = start, 0, False  # operand: the last token ends one
    while at < len(tokens):
        kind, text, apart = tokens[at]
        if kind == "number" or text == "(":
            if operand and (kind == "number" or apart):
                break
            depth += text == "("
            operand = kind == "number"
        elif text == ")":
            if not depth or not operand:
                break
            depth -= 1
        elif kind == "word":
            of = text == "of" and tokens[at - 1].text == "%"
            if not operand or not (of or _is_unit(tokens, at)):
                break
            operand = not of
        elif kind == "other" or (text in "*/^%" and not operand):
            break
        else:
            operand = text == "%"
        at += 1
    return at


def _is_unit(tokens: list[Token], at: int) -> bool:
    """Returns whether a word is a unit: at least two letters behind a number, a bracket or another unit."""
    word = tokens[at].text.lower()
    words = sum(t.kind == "word" for t in tokens[at - 2 : at])
    return len(word) > 1 and word not in _OPEN_WORDS | _NO_UNITS and words < 2


def _first(tokens: list[Token]) -> Expression | None:
    """Returns the expression that a member of an equation begins with; None if there is none that is complete."""
    end = _run(tokens, 0)
    behind = tokens[end] if end < len(tokens) else None
    if behind is None or (behind.text == "!" and end + 1 == len(tokens)):
        return _complete(tokens[:end])
    rest = tokens[end + 1 :]
    if behind.kind == "word":
        mixed = behind.text.lower() == "and" and any(t.text in "(/" for t in rest[:2])
        goes_on = mixed or behind.text.lower() in _OPEN_WORDS or (len(behind.text) == 1 and not behind.apart)
    else:
        joined = behind.text in ":," and any(not t.apart for t in rest[:1])
        goes_on = (
            joined or behind.kind == "number" or behind.text in _OPEN_SIGNS or (behind.text == "(" and not behind.apart)
        )
    return None if goes_on else _complete(tokens[:end])


def _last(tokens: list[Token]) -> Expression | None:
    """Returns the expression that a member of an equation ends with; None if there is none that is complete."""
    tokens = tokens[-LONGEST:]
    starts = (i for i in range(len(tokens)) if tokens[i].kind == "number" or tokens[i].text in "(-")
    for start in starts:
        if _run(tokens, start) == len(tokens):
            return None if start and _goes_on(tokens[:start], tokens[start:]) else _complete(tokens[start:])
    return None


def _goes_on(before: list[Token], tokens: list[Token]) -> bool:
    """Returns whether an expression of tokens goes on before them: 'X - 3', '1 and 1/4', '16,0000'."""
    last = before[-1]
    if last.kind == "word":
        mixed = last.text.lower() == "and" and [t.text for t in tokens[1:]][:1] == ["/"]
        minus = tokens[0].text == "-" and any(t.apart for t in tokens[1:2])
        return mixed or minus or not tokens[0].apart or last.text.lower() in _OPEN_WORDS
    decimal = last.text in ".," and (not tokens[0].apart or (len(before) > 1 and before[-2].kind == "sign"))
    factor = last.text == ")" and len(before) > 3 and before[-2].kind == "number"  # '(1)' may be a label
    return decimal or factor or last.kind == "number" or last.text in _OPEN_SIGNS


def _complete(tokens: list[Token]) -> Expression | None:
    """Returns the expression of tokens, without a bracket around the equation; None where it has no value."""
    depth = sum((t.text == "(") - (t.text == ")") for t in tokens)
    while depth > 0 and tokens and tokens[0].text == "(":
        tokens, depth = tokens[1:], depth - 1
    if not tokens or len(tokens) > LONGEST or depth:
        return None
    expression = Expression(tuple(tokens))
    return expression if expression.value() is not None else None
