"""The letter that a text chooses."""

import itertools
import re

from rllab.answers.parts import NotCommitted

_LETTER = re.compile(r"(?<![A-Za-z0-9'\\])(\(?)([A-Ja-j])(\)?)(?![A-Za-z0-9'_^=])(?!-[A-Za-z])")
_CHOICE_MARKUP = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed)\b\s*|[*_`${}\"]|\\(?=[()])|\\[\[\]]")
_EXCLUDED = re.compile(
    r"\b(?:not|n't|isn't|rather than|instead of|eliminates?d?|except|neither|nor|exclude|rule out|ruled out)\s+"
    r"(?:be\s+)?(?:option |choice |answer )?$",
    re.I,
)
_WRONG = re.compile(
    r"\s*(?:\([^)]*\))?\s*(?:is|are|was|can be|seems|isn't|cannot|can't)\s*"
    r"(?:wrong|incorrect|false|not|n't|eliminated|ruled|invalid|impossible|out|be\b|clearly wrong|also wrong|too)",
    re.I,
)
_ALSO = re.compile(
    r"\s*(?:[^.\n]{0,40}?\b(?:or|and)\b|[,/&])\s*(?:\b(?:or|and)\b\s*)?(?:also |perhaps |maybe |option |choice )*$",
    re.I,
)


def _letters(text: str) -> list[tuple[int, int, str]]:
    """(start, end, letter) of the letters in a text that can be a choice, and are not excluded in words."""
    found = []
    for m in _LETTER.finditer(text):
        opened, letter, closed = m.groups()
        alone = not text[: m.start()].strip(" (\n") and re.match(r"\s*(?:[).:,;]|$)", text[m.end() :])
        enclosed = bool(closed)
        if letter.islower() and not (
            alone or (opened and closed) or re.search(r"\b(?:option|choice) $", text[: m.start()], re.I)
        ):
            continue
        if (
            letter in "AI"
            and not enclosed
            and re.match(r"\s+[a-z]", text[m.end() :])
            and not re.match(
                r"\s+(?:is|because|since|as|and|or|for|with|but|due|which|would|must|can|isn't|seems|was|are)\b",
                text[m.end() :],
            )
        ):  # the article
            continue
        if _EXCLUDED.search(text[max(0, m.start() - 30) : m.start()]) or _WRONG.match(text[m.end() :]):
            continue
        found.append((m.start(), m.end(), letter.upper()))
    return found


def marked(segment: str) -> str | None:
    text = _CHOICE_MARKUP.sub("", segment[:600]).strip()
    end = re.search(r"(?<=\w\w)[.!?](?=\s|$)|(?<=[\])])[.!?](?=\s|$)|\n", text)
    text = text[: end.start()] if end else text
    return _one_letter(text, _letters(text))


def _one_letter(text: str, found: list[tuple[int, int, str]]) -> str | None:
    """The first letter, where no other stands beside it as an alternative."""
    if not found:
        return None
    for (_, end, one), (start, _, other) in itertools.pairwise(found):
        if one != other and _ALSO.fullmatch(text[end:start]):
            raise NotCommitted("two answers")
    if re.search(r"\b(?:either|both|all|none) (?:of )?\W*$", text[: found[0][0]], re.I):
        raise NotCommitted("several answers")
    return found[0][2]


_LEADS = re.compile(r"\W*([A-Ja-j])(?:\s*[).:](?=\s|$)|\s*(?:\n|$))")
_NAMES = re.compile(
    r"\b(?:option|choice|choose|chose|pick|select|go with|selected|picked|must be|has to be|it is|it's|leaves|so|"
    r"therefore,?)\s+(?:option |choice |answer )?\(?([A-J])\b\)?|\(?\b([A-J])\)?\s+is\s+(?:the\s+)?"
    r"(?:clearly |definitely )?(?:correct|right|best|true|answer|the one)",
    re.I,
)


def placed(part: str) -> str | None:
    """A letter that leads the text, is named as the choice, or ends it."""
    text = _CHOICE_MARKUP.sub("", part).strip()
    if lead := _LEADS.match(text):
        first = text.split("\n", 1)[0]
        return _one_letter(first, _letters(first)) or lead[1].upper()
    allowed = _letters(text)
    named = [m.start(1) if m[1] else m.start(2) for m in _NAMES.finditer(text)]
    hits = [x for x in allowed if any(x[0] <= n < x[1] for n in named)]
    last = re.split(r"(?<=\w\w)[.!?]\s|\n", text.rstrip(" .!?\n"))[-1]
    ending = _letters(last)
    _one_letter(last, ending)
    if hits:
        return hits[-1][2]
    return ending[-1][2] if ending and (len(last) < 12 or text[: len(text)].rstrip(" .!").endswith(")")) else None
