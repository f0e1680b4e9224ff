"""Finds the part of a completion that counts as its answer."""

import json
import re
from typing import NamedTuple

from rllab.core.messages import answer_of, channels_of, is_harmony


class NotCommitted(Exception):
    """A text does not commit to one answer; the message says why."""


class Part(NamedTuple):
    """The part of a completion that counts; tagged: it is the content of an answer tag."""

    text: str
    tagged: bool = False


_THINKING = "think|thinking|thought|reasoning|scratchpad|reflection"
_CLOSED = re.compile(rf"</(?:{_THINKING})\s*>", re.I)
_OPEN = re.compile(rf"<(?:{_THINKING})\s*>", re.I)
_ANSWER_TAG = re.compile(r"<answer\s*>(.*?)(?:</answer\s*>|\Z)", re.I | re.S)
_JSON = re.compile(r"(?:\A|\n|```json\s)\s*(\{(?:[^{}]|\{[^{}]*\}){1,20000}\})[\s`]*\Z")  # an object that ends the text
_JSON_KEY = re.compile(r"(?:final|correct)?[ _-]?(?:answer|answer[ _-]choice|choice|option)", re.I)
_STOP = re.compile(
    r"<\|?(?:im_end|im_start|endoftext|eot_id|end|return|call|start|end_of_turn|eos)\|?>|</s>|<end_of_turn>"
)
# A line that begins another question. It ends the part only where an answer stands before it: models restate the
# question, and head lists with 'Input:' or '* Q:' (a quantity), before they answer.
_USER = r"(?:human|user|student)\s*:|<\|?(?:user|human)\|?>"
_QUESTION = (
    r"(?:next |new )?(?:question|problem|exercise|instruction)\s*\d*\s*[:.#*]",
    r"(?:Q|(?:new |next )?input)\s*\d*\s*[:.](?=[^\n]*(?:\?|(?:\s+\S+){6}))",  # and a sentence behind it
    _USER,
)
_RUN_ON = re.compile(rf"\n[ \t]*(?:[#*]+\s*)?(?:{'|'.join(_QUESTION)})", re.I)
_TURN = re.compile(rf"\n[ \t]*(?:[#*]+\s*)?(?:{_USER})", re.I)
_QUESTIONS = 20  # how many such lines are looked at


def final_part(text: str) -> Part:
    """Returns the part of a completion that counts as its answer, up to its last answer tag.

    Raises:
        NotCommitted: there is no final channel, or the thinking is not closed.
    """
    text = _without_thinking(text)
    text = _STOP.split(text, maxsplit=1)[0] if "<" in text else text
    if "<" in text and (tags := _ANSWER_TAG.findall(_first_turn(text))):
        return Part(str(tags[-1]), True)
    answer = _json_answer(text) if text.rstrip(" \n`").endswith("}") else None
    return Part(text) if answer is None else Part(answer, True)


def _json_answer(text: str) -> str | None:
    """Returns the value of the key `answer` in a JSON object that ends a text; None where there is none."""
    last = _JSON.search(text)
    try:
        value = json.loads(last[1]) if last else None
    except ValueError:
        return None
    values = [v for k, v in value.items() if _JSON_KEY.fullmatch(k)] if isinstance(value, dict) else []
    return str(values[0]) if len(values) == 1 and isinstance(values[0], (str, int, float)) else None


def _without_thinking(text: str) -> str:
    if is_harmony(text):
        answer = answer_of(text)
        if answer is None:
            other = ", ".join(c for c in channels_of(text) if c != "final")[:60]
            raise NotCommitted(f"no final channel{f', only {other}' if other else ''}")
        return answer
    if "<" not in text:
        return text
    closed = [m.end() for m in _CLOSED.finditer(text)]
    text = text[closed[-1] :] if closed else text
    opened = _OPEN.search(text)
    if opened and not text[: opened.start()].strip():
        raise NotCommitted("thinking is not closed")
    return text[: opened.start()] if opened else text


def _first_turn(text: str) -> str:
    turn = next((m for m in _TURN.finditer(text) if text[: m.start()].strip()), None)
    return text[: turn.start()] if turn else text


def run_ons(text: str) -> list[str]:
    """Returns what stands before each line that begins another question, shortest first, and the whole text last.

    The first of these that states an answer is the part that counts. What follows a turn of the user never counts.
    """
    text = _first_turn(text)
    starts = [m.start() for m in _RUN_ON.finditer(text) if text[: m.start()].strip()]
    return [text[:at] for at in starts[:_QUESTIONS]] + [text]
