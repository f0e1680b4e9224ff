"""Parses and evaluates arithmetic that a model wrote, exactly, and finds it in a completion.

    sum     = product { ("+" | "-") product }
    product = operand { ("*" | "/") operand }
    operand = whole number | "(" sum ")"

Nothing else is an expression: no sign before a number, no power, no decimal point. No text of a model is run as code.
Length and depth are bounded, which bounds the time that a text can take.
"""

import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from rllab.core.messages import after_thinking

LONGEST, DEEPEST = 200, 20  # most characters of an expression, and most nested brackets
_TOKEN = re.compile(r"0|[1-9][0-9]*|[-+*/()]")  # digits of other scripts are not digits here
_LEVELS = ("+-", "*/")  # operators by precedence, lowest first
_WORK = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
_WRITTEN = {r"\times": "*", r"\cdot": "*", r"\div": "/", "×": "*", "·": "*", "÷": "/", "−": "-"}
_MARK = re.compile(r"####|<answer>|\\boxed\s*\{")
_WORDS = re.compile(r"\banswer is:?", re.I)  # by which evaluations ask for an answer


@dataclass(frozen=True)
class Operation:
    """One of the operations + - * / on two expressions."""

    sign: str
    left: "int | Operation"
    right: "int | Operation"


Expression = int | Operation


def parse(text: str) -> Expression:
    """Parses a text as an expression. Spaces and redundant brackets do not matter.

    Raises:
        ValueError: the text is not an expression, or is too long or nested too deeply.
    """
    if len(text) > LONGEST:
        raise ValueError(f"an expression has at most {LONGEST} characters")
    for written, sign in _WRITTEN.items():
        text = text.replace(written, sign)
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != "".join(text.split()):
        raise ValueError("an expression is made of whole numbers, + - * / and brackets")
    tokens.reverse()  # the next token is the last of the list, to be popped
    tree = _level(tokens, 0, 0)
    if tokens:
        raise ValueError(f"nothing is expected before {tokens[-1]!r}")
    return tree


def _level(tokens: list[str], level: int, depth: int) -> Expression:
    if level == len(_LEVELS):
        return _operand(tokens, depth)
    tree = _level(tokens, level + 1, depth)
    while tokens and tokens[-1] in _LEVELS[level]:
        tree = Operation(tokens.pop(), tree, _level(tokens, level + 1, depth))
    return tree


def _operand(tokens: list[str], depth: int) -> Expression:
    token = tokens.pop() if tokens else ""
    if token.isdigit():
        return int(token)
    if token != "(" or depth == DEEPEST:
        raise ValueError("a number is missing, or brackets are too deep")
    tree = _level(tokens, 0, depth + 1)
    if not tokens or tokens.pop() != ")":
        raise ValueError("a bracket is not closed")
    return tree


def value(tree: Expression) -> Fraction:
    """Evaluates an expression exactly.

    Raises:
        ZeroDivisionError: the expression divides by 0.
    """
    if isinstance(tree, int):
        return Fraction(tree)
    result: Fraction = _WORK[tree.sign](value(tree.left), value(tree.right))
    return result


def numbers_in(tree: Expression) -> list[int]:
    """Returns the numbers of an expression from left to right."""
    return [tree] if isinstance(tree, int) else [*numbers_in(tree.left), *numbers_in(tree.right)]


def shown(tree: Expression) -> str:
    """Writes an expression with only the brackets that are needed to parse it to the same expression."""
    if isinstance(tree, int):
        return str(tree)
    level = _binds(tree)
    left = shown(tree.left) if _binds(tree.left) >= level else f"({shown(tree.left)})"
    right = shown(tree.right) if _binds(tree.right) > level else f"({shown(tree.right)})"
    return f"{left} {tree.sign} {right}"


def _binds(tree: Expression) -> int:
    """Returns the precedence: 0 of sums, 1 of products, 2 of numbers."""
    return 2 if isinstance(tree, int) else int(tree.sign in _LEVELS[1])


def worked(tree: Expression) -> Iterator[str]:
    """Yields a line for each operation, inner operations first: '60 - 2 = 58', '58 * 5 = 290'."""
    if isinstance(tree, Operation):
        yield from worked(tree.left)
        yield from worked(tree.right)
        yield f"{value(tree.left)} {tree.sign} {value(tree.right)} = {value(tree)}"


def behind_mark(text: str) -> int | None:
    """Returns where a text's answer begins: behind the last `####`, `<answer>` or `\\boxed{`, else 'answer is'."""
    for mark in (_MARK, _WORDS):
        if ends := [match.end() for match in mark.finditer(text)]:
            return ends[-1]
    return None


def marked_answer(completion: str) -> str | None:
    """Returns the text behind the mark of the answer, after the thinking; None without a mark."""
    text = after_thinking(completion)
    begin = behind_mark(text)
    if begin is None:
        return None
    behind = text[begin:].lstrip()
    return re.split(r"[\n<}]", behind, maxsplit=1)[0].strip(" \t\r.$`")


def before_mark(completion: str) -> str:
    """Returns the worked solution: the completion up to its first mark, without think tags."""
    return re.sub(r"</?think>", " ", _MARK.split(completion, maxsplit=1)[0])
