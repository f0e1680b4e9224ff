"""From the columns of a published set to a row of a benchmark: its question, its choices, and its target."""

import re
from collections.abc import Mapping, Sequence
from string import Formatter, ascii_uppercase
from typing import Any, Literal, get_args

from rllab_envs.tasks.draws import permutation
from rllab_envs.tasks.formats import filled
from rllab_envs.tasks.messages import RowFault, shown, text_of

Kind = Literal["number", "choice", "yesno", "string", "latex"]
KINDS = get_args(Kind)
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,3}|/\d+)?")
_LISTED = re.compile(r"^\(([A-Z])\) *(.*\S)", re.M)
_POLAR = {"yes", "no", "true", "false"}
_LETTER = re.compile(r"\(?([A-Z])\)?")


def column(row: Mapping[str, Any], path: str) -> Any:
    """Returns a value of a row, such as `question`, `question.stem`, `solutions.0`, or `options.text` of all options.

    Raises:
        RowFault: the row has no such value.
    """
    value: Any = row
    for name in [path] if path in row else path.split("."):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif _is_list(value) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        elif _is_list(value) and value and all(isinstance(v, Mapping) and name in v for v in value):
            value = [v[name] for v in value]
        else:
            raise RowFault(f"it has no {path!r}; its columns are {', '.join(row)}")
    return value


def columns_of(template: str) -> list[str]:
    """Returns the columns that a template such as "{Body} {Question}" names."""
    return [name for _, name, _, _ in Formatter().parse(template) if name]


def text(template: str, row: Mapping[str, Any], choices: Sequence[str] = ()) -> str:
    """Returns a template with the columns of a row, without the space around them.

    The choices stand where it names `{choices}`, else behind the text unless this lists them.

    Raises:
        RowFault: the row has no such column, or it holds no text, or the text is empty.
    """
    listed = " ".join(f"({letter}) {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))
    values = {name: listed if name == "choices" and choices else column(row, name) for name in columns_of(template)}
    values = {name: text_of(value, name, blank=True).strip() for name, value in values.items() if value is not None}
    filled_in = filled(template, dict.fromkeys(columns_of(template)) | values).strip()
    if not filled_in:
        raise RowFault(f"its columns {', '.join(columns_of(template))} are empty")
    if all(f"({letter}) {choice}" in filled_in for letter, choice in zip(ascii_uppercase, choices, strict=False)):
        return filled_in
    return f"{filled_in} Answer Choices: {listed}"


def choices_of(value: Any) -> list[str]:
    """Returns the choices that a column holds: a list, the keys of scores, or a text with lines such as '(A) circle'.

    A letter that stands before each choice of a list, as in 'A)21', is left out.

    Raises:
        RowFault: there is no choice, or there are more than 26.
    """
    if isinstance(value, str):
        listed = _LISTED.findall(value)
        choices = [choice for letter, choice in listed]
        if [letter for letter, _ in listed] != list(ascii_uppercase[: len(listed)]):
            raise RowFault(f"its text lists the letters {', '.join(letter for letter, _ in listed)}, not A, B and on")
    elif isinstance(value, (Mapping, Sequence)):
        choices = [text_of(choice, "choices").strip() for choice in value]
        if all(c.startswith((f"{a})", f"({a})")) for c, a in zip(choices, ascii_uppercase, strict=False)):
            choices = [c.lstrip("(")[2:].strip() for c in choices]
    else:
        raise RowFault(f"its choices are {shown(value)}, not a list")
    if not 1 <= len(choices) <= len(ascii_uppercase):
        raise RowFault(f"it has {len(choices)} choices; from 1 to 26 are expected")
    return choices


def shuffled(choices: Sequence[str], target: str, by: str) -> tuple[list[str], str]:
    """Returns (the choices in an order that is a function of the text `by`, the letter of the right one)."""
    order = permutation(by, len(choices))
    return [choices[i] for i in order], ascii_uppercase[order.index(ascii_uppercase.index(target))]


def target_of(value: Any, kind: str, choices: Sequence[str], after: str = "") -> str:
    """Returns the target as answers of its kind are written: a letter for `choice`, '1234' for '1,234.0'.

    value: the answer; or scores by answer, of which the right one has 1. For the kind choice it is a letter, the number
    of a choice from 0, or the text of one. after: the mark that the answer stands behind, such as `####`.

    Raises:
        RowFault: it is no answer of this kind.
    """
    if isinstance(value, Mapping):
        right = [answer for answer, score in value.items() if score == 1]
        if len(right) != 1:
            raise RowFault(f"its scores are {shown(value)}; one answer with the score 1 is expected")
        value = right[0]
    if kind == "choice":
        return _letter(value, choices)
    if kind == "yesno" and isinstance(value, bool):
        value = "yes" if value else "no"
    target = text_of(value, "target")
    if after and after not in target:
        raise RowFault(f"its target has no {after!r}: {shown(target)}")
    target = target.rpartition(after)[2].strip() if after else target.strip()
    if kind == "number":
        target = re.sub(r"\.0*$", "", target.replace(",", ""))
        if not _NUMBER.fullmatch(target):
            raise RowFault(f"its target {shown(target)} is no number, such as 1234, -0.5 or 1/2")
    if kind == "yesno" and target.lower() not in _POLAR:
        raise RowFault(f"its target {shown(target)} is neither yes nor no")
    if not target:
        raise RowFault("its target is empty")
    return target.lower() if kind == "yesno" else target


def _letter(value: Any, choices: Sequence[str]) -> str:
    """The letter of the right choice."""
    if not choices:
        raise RowFault("its kind is choice and it lists no choices: name their column as `choices`")
    letters, target = ascii_uppercase[: len(choices)], text_of(value, "target").strip()
    named = {a for a, choice in zip(letters, choices, strict=True) if choice == target}
    if isinstance(value, int):
        named |= set(letters[value : value + 1]) if value >= 0 else set()
    elif letter := _LETTER.fullmatch(target):
        named |= {letter[1]} & set(letters)
    if len(named) != 1:
        fault = f"it names {' and '.join(sorted(named))}" if named else "no letter, number from 0 or text of a choice"
        raise RowFault(f"its target is {shown(value)}: {fault}; the choices are {shown(list(choices))}")
    return named.pop()


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
