"""Finds the part of a completion that counts as its answer, and the marks in that part."""

import re
from collections.abc import Iterator


class NotCommitted(Exception):
    """A text does not commit to one answer; the message says why."""


_THINKING = "think|thinking|thought|reasoning|scratchpad|reflection"
_CLOSED = re.compile(rf"</(?:{_THINKING})\s*>", re.I)
_OPEN = re.compile(rf"<(?:{_THINKING})\s*>", re.I)
_FINAL = re.compile(r"<\|channel\|>\s*final\b[^<]*<\|message\|>")
_ANSWER_TAG = re.compile(r"<answer\s*>(.*?)(?:</answer\s*>|\Z)", re.I | re.S)
_STOP = re.compile(
    r"<\|?(?:im_end|im_start|endoftext|eot_id|end|return|call|start|end_of_turn|eos)\|?>|</s>|<end_of_turn>"
)
_RUN_ON = re.compile(
    r"\n[ \t]*(?:[#*]+\s*)?(?:(?:next |new )?(?:question|problem|exercise|instruction|input)\s*\d*\s*[:.#*]|"
    r"Q\s*\d*\s*[:.]|(?:human|user|student)\s*:|<\|?(?:user|human)\|?>)",
    re.I,
)


def final_part(text: str) -> str:
    """Returns the part of a completion that counts as its answer.

    Raises:
        NotCommitted: there is no final channel, or the thinking is not closed.
    """
    if "<|channel|>" in text:
        finals = list(_FINAL.finditer(text))
        if not finals:
            raise NotCommitted("no final channel")
        text = text[finals[-1].end() :]
    elif "<" in text:
        closed = [m.end() for m in _CLOSED.finditer(text)]
        text = text[closed[-1] :] if closed else text
        if opened := _OPEN.search(text):
            if not text[: opened.start()].strip():
                raise NotCommitted("thinking is not closed")
            text = text[: opened.start()]
    text = _STOP.split(text, maxsplit=1)[0] if "<" in text else text
    for m in _RUN_ON.finditer(text):
        if text[: m.start()].strip():
            text = text[: m.start()]
            break
    if tags := _ANSWER_TAG.findall(text):
        return str(tags[-1])
    return text


_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\boxed\s+(?=\w)")
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_IS = (
    r"(?:\bis\b|\bare\b|\bwas\b|\bequals?\b|\b(?:would|will|should|must|has to) be\b|\bbecomes\b|\bcomes (?:out )?to\b|"
    r"[:=]|->|→|⟹)"
)
_ANSWER_IS = re.compile(
    rf"\b(?:answers?|ans|(?:correct|right|best) (?:option|choice))\b"
    rf"(?:[*_\s]*(?=\n)|[^\n.!?:=]{{0,80}}?[\s*_]{{0,3}}{_IS})"
    rf"(?:[\s*_]{{0,9}}(?:{_IS}|[:]))?[\s*_:]*"
    r"|^[ \t*]*A\s*:[\s*]*",
    re.I | re.M,
)
_NEGATED = re.compile(
    r"[\s*_]*(?:definitely |certainly |clearly )?not\b(?! (?:known|clear|given|certain|sure|possible))", re.I
)
_BOXES = 30  # how many boxes of a text are read, from the last
_WORD = re.compile(r"[^\s$.,;]{1,40}")
_BETWEEN = re.compile(r"(?:[$\\()\[\]{}\s,;/.]|or|and|quad|qquad|text)*", re.I)


def marks(part: str) -> Iterator[tuple[str, str]]:
    """Yields (name of the mark, text behind it) for each type of mark in the part, strongest first.

    Raises:
        NotCommitted: the text is cut off inside a box, or before its answer.
    """
    if boxes := list(_boxes(part)):
        yield "in a box", f"${_last_box(part, boxes)}$"
    elif _BOX.search(part):
        raise NotCommitted("cut off in its box")
    if lines := _HASHES.findall(part):
        yield "behind ####", lines[-1]
    if phrases := list(_ANSWER_IS.finditer(part)):
        rest = part[phrases[-1].end() :]
        if not rest.strip(" \t\n*_$\"'`"):
            raise NotCommitted("cut off before its answer")
        if _NEGATED.match(rest):
            phrases.pop()
            rest = part[phrases[-1].end() : phrases[-1].end() + 400] if phrases else ""
        yield "behind 'the answer is'", rest


def _boxes(part: str) -> Iterator[tuple[int, int, str]]:
    """Yields (start, end, content) of each of the last closed boxes."""
    for m in [*_BOX.finditer(part)][-_BOXES:]:
        if part[m.end()] != "{":
            word = _WORD.match(part, m.end())
            yield m.start(), word.end() if word else m.end(), word[0] if word else ""
            continue
        depth = 0
        for at in range(m.end(), min(len(part), m.end() + 2000)):
            depth += (part[at] == "{") - (part[at] == "}")
            if not depth:
                yield m.start(), at + 1, part[m.end() + 1 : at]
                break


def _last_box(part: str, boxes: list[tuple[int, int, str]]) -> str:
    """Returns the content of the last box, joined with preceding boxes that only 'or' or 'and' separates from it."""
    contents = [boxes[-1][2]]
    for (_, end, content), (start, _, _) in zip(reversed(boxes[:-1]), reversed(boxes), strict=False):
        if content == contents[0] or not _BETWEEN.fullmatch(part[end:start]):
            break
        contents.insert(0, content)
    return re.sub(r"(?<!\\)\$", "", " or ".join(contents))
