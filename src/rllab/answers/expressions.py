"""Expressions of numbers, evaluated exactly; no text is run as code.

    sum     = product { ("+" | "-") product }
    product = power { ("*" | "/" | "of") power }
    power   = operand [ "^" whole number ]
    operand = ["-"] ( number ["%"] [unit] | "(" sum ")" [unit] )

The sizes of numbers, powers and expressions are bounded, which bounds the time that a text can take.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

DEEPEST, MAX_DIGITS, MAX_POWER = 20, 40, 20  # nested brackets, digits of a number, exponents


class Token(NamedTuple):
    """A number, sign, word or other character of a text. apart: a space stands before it."""

    kind: str
    text: str
    apart: bool


class _NoExpression(Exception):
    """Tokens are no expression that can be evaluated."""


@dataclass(frozen=True)
class Expression:
    """A sum, product, power or number. units: the words behind its numbers."""

    tokens: tuple[Token, ...]

    @property
    def numbers(self) -> list[Fraction]:
        """The numbers from left to right, without signs."""
        return [Fraction(t.text.replace(",", "")) for t in self.tokens if t.kind == "number"]

    @property
    def units(self) -> set[str]:
        """The words in it, without a plural's s."""
        return {t.text.lower().removesuffix("s") for t in self.tokens if t.kind == "word"} - {"of"}

    @property
    def single(self) -> bool:
        """Whether it is one number, so that nothing is computed."""
        return len(self.numbers) == 1 and not any(t.text in "*/^" for t in self.tokens)

    def has(self, signs: str) -> bool:
        """Returns whether one of the signs is in it."""
        return any(t.kind == "sign" and t.text in signs for t in self.tokens)

    def value(self, replaced: Mapping[Fraction, Fraction] | None = None, percent: int = 100) -> Fraction | None:
        """Returns the value; None where it divides by 0 or is too large.

        replaced: other values for some numbers. percent: what a number before a percent sign is divided by.
        """
        try:
            return _Evaluation(list(self.tokens), replaced or {}, percent).whole()
        except (_NoExpression, ZeroDivisionError):
            return None


class _Evaluation:
    """Evaluates tokens from left to right, by the grammar of this module."""

    def __init__(self, tokens: list[Token], replaced: Mapping[Fraction, Fraction], percent: int) -> None:
        self.rest, self.replaced, self.percent, self.depth = tokens[::-1], replaced, percent, 0

    def whole(self) -> Fraction:
        value = self.sum()
        if self.rest:
            raise _NoExpression
        return value

    def take(self, signs: str) -> str:
        """Removes and returns the next token if it is one of the signs, else ''."""
        follows = bool(self.rest) and self.rest[-1].kind == "sign" and self.rest[-1].text in signs
        return self.rest.pop().text if follows else ""

    def sum(self) -> Fraction:
        value = self.product()
        while sign := self.take("+-"):
            value += self.product() * (1 if sign == "+" else -1)
        return value

    def product(self) -> Fraction:
        value = self.power()
        while self.rest:
            if self.rest[-1].text in ("*", "of"):
                self.rest.pop()
                value *= self.power()
            elif self.rest[-1].text == "/":
                self.rest.pop()
                value /= self.power()
            elif self.rest[-1].text == "(":
                value *= self.power()
            else:
                break
        return value

    def power(self) -> Fraction:
        if self.take("-"):
            return -self.power()
        base = self.operand()
        if not self.take("^"):
            return base
        exponent = self.operand()
        if exponent.denominator != 1 or not 0 <= exponent <= MAX_POWER or max(base.as_integer_ratio()) > 10**6:
            raise _NoExpression
        return base**exponent.numerator

    def operand(self) -> Fraction:
        if self.take("("):
            self.depth += 1
            if self.depth > DEEPEST:
                raise _NoExpression
            value = self.sum()
            self.depth -= 1
            if not self.take(")"):
                raise _NoExpression
        elif self.rest and self.rest[-1].kind == "number" and len(self.rest[-1].text) <= MAX_DIGITS:
            number = Fraction(self.rest.pop().text.replace(",", ""))
            value = self.replaced.get(number, number)
        else:
            raise _NoExpression
        if self.take("%"):
            value /= self.percent
        while self.rest and self.rest[-1].kind == "word" and self.rest[-1].text != "of":
            self.rest.pop()
        return value
