"""The letter of a multiple-choice answer."""

import itertools
import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, NamedTuple

from rllab.answers.parts import NotCommitted

_MARKUP = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed)\b\s?|[*_`${}\"]|\\(?=[() ])|\\[\[\]]")
# A letter in parentheses, or a bare one that stands for itself: no part of a word, a formula or a unit behind a number.
_LETTER = re.compile(
    r"(?<![A-Za-z0-9'\\])(?:(\()([A-Za-z])(\))|(?<![\d.] )(\(?)([A-Za-z])(\)?))(?![A-Za-z0-9'_^=])(?!-[A-Za-z])"
    r"(?!\.[A-Za-z])(?!\+\+)(?! ?[=^·<>] ?\w)(?! ?[+/] ?\d)"
)
_ENDS = re.compile(r"\s{0,9}(?:[).:,;]|$)")
# Before a letter: it is a part of a name, as in 'vitamin C'.
_NAME = re.compile(
    r"\b(?:vitamin|plan|type|group|class|grade|figure|table|hepatitis|section|appendix|team|vector|point|line|angle|event|"
    r"box|company|person|country|city|state|phase|factor|protein|case|sample|model)s? $",
    re.I,
)
_NAMED = re.compile(r"\b(?:option|choice) $", re.I)
# Behind a bare 'A' or 'I' that is a word: 'A good estimate', 'I think'.
_WORD = re.compile(
    r"\s+(?!(?:is|isn't|was|are|because|since|as|and|or|for|with|but|due|which|would|must|can|seems)\b)[a-z]"
)
_PRONOUN = re.compile(
    r"\s+(?!(?:is|isn't|because|since|as|and|or|which|seems|\d)\b)[a-z]|,?\s+(?:can|could|would|was|must)\b|,\s+(?!because|since|as|not|which)[a-z]"
)
_EXCLUDED = re.compile(
    r"(?:\b(?:not|isn't|wasn't|(?:can't|cannot|couldn't|won't|wouldn't) be|rather than|instead of|eliminated?s?|except|"
    r"neither|nor|exclude|ruled? out)|\b(?:doesn't|does not|don't)\b[^.\n]{0,40}\bbe)\s+(?:option |choice |answer )?$",
    re.I,
)
_WRONG = re.compile(
    r"\s*(?:\([^)]{0,40}\))?\s*(?:is|are|was|can be|seems|isn't|cannot|can't)\s*"
    r"(?:clearly |also |tempting,? but )?"
    r"(?:wrong|incorrect|false|not|n't|eliminated|ruled|invalid|impossible|out|be\b|too)",
    re.I,
)
_ALSO = re.compile(
    r"\s*(?:[^.\n]{0,40}?\b(?:or|and)\b|[,/&+|;]|(?=\s))\s*(?:\b(?:or|and)\b\s*)?"
    r"(?:also |perhaps |maybe |possibly |even |option |choice )*",
    re.I,
)
_SEVERAL = re.compile(r"\b(?:either|both|all|none) (?:of )?\W*$", re.I)
_END = re.compile(
    r"(?<=\w\w)[.!?](?=\s|$)|(?<=[\])])[.!?](?=\s|$)|"
    r"(?<=\b[A-Z])\.(?=\s[A-Z][a-z]+\s)|[\n。！]"
)
_FORMULA = re.compile(r"(?<![A-Za-z])[A-Za-z]\s?=\s")
_ALONE = re.compile(r"\W{0,9}([A-Za-z])[^\w+#]{0,9}")
_LEADS = re.compile(r"\W{0,9}(?:([A-J])(?:\s?[).:,](?=\s|$)|\s*\n)|([a-j])(?:\s?\)(?=\s|$)|\s*\n))")
_REASON = re.compile(r"\s*(?:because|since|as)\b")
_EXPLAINS = re.compile(r",?\s(?:because|since|whereas|while|as (?:option|choice|it))\b", re.I)
_LISTED = re.compile(r"^\W{0,9}([A-Za-z])\s?[).:]\s", re.M)
_BOXED = re.compile(r"\W*(?:(?:option|choice|answer)\b\W*)?([A-Za-z])(?:\W*|\s?[).:]\W*\s.*)", re.I | re.S)
_CHOOSES = re.compile(
    r"\b(?:option|choice|choose|chose|pick|select|go with|selected|picked)\s(?:option |choice |answer )?"
    r"\(?([A-Z])\b\)?|(?:选择?|選擇?)\s?\(?([A-Z])(?![A-Za-z])|"
    r"\b(?:must be|should be|has to be|it is|it's|leaves|so|actually|therefore,?)\s(?:option |choice |answer )?"
    r"(?:\(([A-Z])\)|([A-J])\b)|\(?\b([A-J])\b\)?\sis\s(?:the\s)?"
    r"(?:clearly |definitely )?(?:correct|right|best|true|answer|the one)|\bis\s(?:\(([A-J])\)|([A-J])[.)]\s\w)",
    re.I,
)
_OFFERED = re.compile(r"(?:^|[\s(\[])\(?([A-Z])[).:](?=\s|[^\s.)])")
_WINDOW = 4000  # characters at the end of a text that are searched for an unmarked choice


class Letter(NamedTuple):
    """A letter (upper case) and its place in the text, as character offsets."""

    start: int
    end: int
    name: str


def offered(question: str) -> str:
    """Returns the letters of the choices that a question lists, such as "ABCDE"; "" if it lists none.

    They are the longest run of letters A, B, C and on that stand before a bracket, full stop or colon in this order.
    """
    count = 0
    for m in _OFFERED.finditer(question):
        count += m[1] == chr(ord("A") + count)
    return "".join(chr(ord("A") + i) for i in range(count)) if count > 1 else ""


def letters(choices: Sequence[Any] | Mapping[str, Any] | None) -> str:
    """Returns the letters of the choices in a row's column `choices`, such as "ABCD" of four; "" where it has none."""
    return ascii_uppercase[: len(choices)] if isinstance(choices, (list, tuple, dict)) else ""


def boxed(content: str) -> str | None:
    """Returns the letter that a box holds, alone or before its text ('B) 42'); None where it holds something else."""
    text = _MARKUP.sub("", content).replace("~", " ").replace("\\", " ")
    several = _letters(text)
    m = _BOXED.fullmatch(text)
    if m is None or not (m[1].isupper() or _ALONE.fullmatch(text) or "(" in text):
        _only(text, several)
        return None
    _only(text, several)
    return m[1].upper()


def marked(segment: str) -> str | None:
    """Returns the letter in the first sentence behind a mark, or None."""
    text = _MARKUP.sub("", segment[:600]).strip()
    end = _END.search(text)
    text = _FORMULA.split(text[: end.start()] if end else text)[0]
    before = _EXPLAINS.split(text)[0]  # an explanation may name the others
    text = before if _letters(before) else text
    return _only(text, _letters(text))


def placed(part: str) -> str | None:
    """Returns the letter that begins an unmarked text, is named as the choice, or ends it; None if there is none."""
    text = _MARKUP.sub("", part).strip()
    if alone := _ALONE.fullmatch(text):
        return alone[1].upper()
    if lead := _leading(text):
        first = text.split("\n", 1)[0][:600]
        return _only(first, _letters(first)) or lead.upper()
    text = text[-_WINDOW:]
    chosen = {m.start(m.lastindex or 0) for m in _CHOOSES.finditer(text)}
    letters = _letters(text)
    named = [x for x in letters if chosen & set(range(x.start, x.end))]
    last = re.split(r"(?<=\w\w)[.!?]\s|\n", text.rstrip(" .!?\n"))[-1]
    ending = _letters(last)
    _only(last, ending)
    if named:
        _only(text, [x for x in letters if x.start >= named[-1].start])
        return named[-1].name
    return ending[-1].name if ending and (len(last) < 12 or text.rstrip(" .!").endswith(")")) else None


def _leading(text: str) -> str | None:
    """Returns the letter that begins a text, unless it begins a list of cases or choices ('A. ...', 'B. ...')."""
    lead = _LEADS.match(text)
    if lead is None or (text[: lead.end()].strip("( \n*#-") == "I," and not _REASON.match(text, lead.end())):
        return None
    letter = str(lead[1] or lead[2])
    listed = [m[1] for m in itertools.islice(_LISTED.finditer(text), 3)]
    if lead[2] and (len(listed) > 1 or len(text) > 200 or re.search(r"\s\(?[b-j]\)\s", text[lead.end() :])):
        return None
    return None if len(listed) > 2 and ord(listed[1]) == ord(letter) + 1 == ord(listed[2]) - 1 else letter


def _letters(text: str) -> list[Letter]:
    """Returns the letters of a text that can be a choice, without words ('a', 'I') and letters that it rules out."""
    letters, excluded = list[Letter](), -1
    for m in _LETTER.finditer(text):
        opened, letter, closed = m.groups()[:3] if m[2] else m.groups()[3:]
        start, end = m.span()
        before = text[max(0, start - 60) : start]
        if _is_word(text, m, letter, bool(opened and closed), before):
            continue
        beside = excluded >= 0 and start - excluded < 60 and _ALSO.fullmatch(text, excluded, start)
        if beside or _EXCLUDED.search(before) or _WRONG.match(text, end):
            excluded = end
        else:
            letters.append(Letter(start, end, letter.upper()))
    return letters


def _is_word(text: str, m: re.Match[str], letter: str, enclosed: bool, before: str) -> bool:
    """Returns whether a letter is a word ('a', 'I') or a variable, and no choice."""
    if enclosed:
        return False
    if _NAME.search(before):
        return True
    if letter.islower():
        named = _NAMED.search(before) is not None
        return not named and bool(len(before) > 9 or before.strip(" (\n") or not _ENDS.match(text, m.end()))
    if m[6]:  # 'A)'
        return False
    pattern = {"A": _WORD, "I": _PRONOUN}.get(letter)
    return pattern is not None and pattern.match(text, m.end()) is not None


def _only(text: str, letters: list[Letter]) -> str | None:
    """Returns the first letter.

    Raises:
        NotCommitted: another letter is given as an alternative to one of them.
    """
    if not letters:
        return None
    for one, other in itertools.pairwise(letters):
        near = one.name != other.name and other.start - one.end < 60
        if near and (one.end == other.start or _ALSO.fullmatch(text, one.end, other.start)):
            raise NotCommitted("two answers")
    if _SEVERAL.search(text[max(0, letters[0].start - 30) : letters[0].start]):
        raise NotCommitted("several answers")
    return letters[0].name
