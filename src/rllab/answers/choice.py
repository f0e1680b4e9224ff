"""The letter of a multiple-choice answer."""

import itertools
import re
from typing import NamedTuple

from rllab.answers.parts import NotCommitted

_MARKUP = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed)\b\s?|[*_`${}\"]|\\(?=[()])|\\[\[\]]")
_LETTER = re.compile(
    r"(?<![A-Za-z0-9'\\])(?:(\()([A-Za-z])(\))|(\(?)([A-HJa-hj])(\)?))(?![A-Za-z0-9'_^=])(?!-[A-Za-z])"
)
_ENDS = re.compile(r"\s{0,9}(?:[).:,;]|$)")
_NAMED = re.compile(r"\b(?:option|choice) $", re.I)
_ARTICLE = re.compile(
    r"\s+(?!(?:is|isn't|was|are|because|since|as|and|or|for|with|but|due|which|would|must|can|seems)\b)[a-z]"
)
_EXCLUDED = re.compile(
    r"(?:\b(?:not|isn't|wasn't|(?:can't|cannot|couldn't|won't|wouldn't) be|rather than|instead of|eliminated?s?|except|"
    r"neither|nor|exclude|ruled? out)|\b(?:doesn't|does not|don't)\b[^.\n]{0,40}\bbe)\s+(?:option |choice |answer )?$",
    re.I,
)
_WRONG = re.compile(
    r"\s*(?:\([^)]{0,40}\))?\s*(?:is|are|was|can be|seems|isn't|cannot|can't)\s*"
    r"(?:clearly |also )?(?:wrong|incorrect|false|not|n't|eliminated|ruled|invalid|impossible|out|be\b|too)",
    re.I,
)
_ALSO = re.compile(
    r"\s*(?:[^.\n]{0,40}?\b(?:or|and)\b|[,/&])\s*(?:\b(?:or|and)\b\s*)?(?:also |perhaps |maybe |option |choice )*", re.I
)
_SEVERAL = re.compile(r"\b(?:either|both|all|none) (?:of )?\W*$", re.I)
_END = re.compile(r"(?<=\w\w)[.!?](?=\s|$)|(?<=[\])])[.!?](?=\s|$)|\n")
_LEADS = re.compile(r"\W{0,9}([A-HJa-hj])(?:\s?[).:,](?=\s|$)|\s*(?:\n|$))")
_CHOOSES = re.compile(
    r"\b(?:option|choice|choose|chose|pick|select|go with|selected|picked|must be|has to be|it is|it's|leaves|so|"
    r"therefore,?)\s(?:option |choice |answer )?\(?([A-J])\b\)?|\(?\b([A-J])\)?\sis\s(?:the\s)?"
    r"(?:clearly |definitely )?(?:correct|right|best|true|answer|the one)",
    re.I,
)
_WINDOW = 4000  # characters at the end of a text that are searched for an unmarked choice


class Letter(NamedTuple):
    """A letter (upper case) and its place in the text, as character offsets."""

    start: int
    end: int
    name: str


def marked(segment: str) -> str | None:
    """Returns the letter in the first sentence behind a mark, or None."""
    text = _MARKUP.sub("", segment[:600]).strip()
    end = _END.search(text)
    text = text[: end.start()] if end else text
    return _only(text, _letters(text))


def placed(part: str) -> str | None:
    """Returns the letter that begins an unmarked text, is named as the choice, or ends it; None if there is none."""
    text = _MARKUP.sub("", part).strip()
    if lead := _LEADS.match(text):
        first = text.split("\n", 1)[0][:600]
        return _only(first, _letters(first)) or lead[1].upper()
    text = text[-_WINDOW:]
    chosen = {m.start(1) if m[1] else m.start(2) for m in _CHOOSES.finditer(text)}
    named = [x for x in _letters(text) if chosen & set(range(x.start, x.end))]
    last = re.split(r"(?<=\w\w)[.!?]\s|\n", text.rstrip(" .!?\n"))[-1]
    ending = _letters(last)
    _only(last, ending)
    if named:
        return named[-1].name
    return ending[-1].name if ending and (len(last) < 12 or text.rstrip(" .!").endswith(")")) else None


def _letters(text: str) -> list[Letter]:
    """Returns the letters of a text that can be a choice, without articles and letters that the text rules out."""
    letters, excluded = list[Letter](), -1
    for m in _LETTER.finditer(text):
        opened, letter, closed = m.groups()[:3] if m[2] else m.groups()[3:]
        start, end = m.span()
        before = text[max(0, start - 60) : start]
        if letter.islower() and not (opened and closed) and not _NAMED.search(before):
            if len(before) > 9 or before.strip(" (\n") or not _ENDS.match(text, end):
                continue
        elif letter == "A" and not closed and _ARTICLE.match(text, end):
            continue
        beside = excluded >= 0 and start - excluded < 60 and _ALSO.fullmatch(text, excluded, start)
        if beside or _EXCLUDED.search(before) or _WRONG.match(text, end):
            excluded = end
        else:
            letters.append(Letter(start, end, letter.upper()))
    return letters


def _only(text: str, letters: list[Letter]) -> str | None:
    """Returns the first letter.

    Raises:
        NotCommitted: another letter is given as an alternative to one of them.
    """
    if not letters:
        return None
    for one, other in itertools.pairwise(letters):
        if one.name != other.name and other.start - one.end < 60 and _ALSO.fullmatch(text, one.end, other.start):
            raise NotCommitted("two answers")
    if _SEVERAL.search(text[max(0, letters[0].start - 30) : letters[0].start]):
        raise NotCommitted("several answers")
    return letters[0].name
