"""The texts and messages of a row of a file, checked.

A message is {"role", "content"}, or ShareGPT's {"from", "value"}. Its content may be a list of parts of type `text`.
`weight: 0` (OpenAI), `train: false` (axolotl) or `loss: false` (ms-swift) of a message of the assistant exclude it from
learning; `weight` remains in the row. Every function raises a RowFault where a value is not what it reads.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_ROLES = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "bot": "assistant", "model": "assistant", "function_call": "assistant", "observation": "tool",
    "function_response": "tool", "ipython": "tool",
} | {role: role for role in ("system", "developer", "user", "assistant", "tool", "function")}  # fmt: skip
_WRITTEN = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")  # beside the content
_MESSAGES = re.compile(r"""\s*\[\s*\{\s*["'](role|content|from|value)["']\s*:""")  # a text that holds a conversation
BEFORE = ("system", "developer")  # may stand before a user's first message


class RowFault(ValueError):
    """What is wrong with a row, and what to do."""


def completion_of(value: Any, column: str) -> str | list[dict[str, Any]]:
    """A prompt or completion: a text, or a conversation, which may be written as JSON."""
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, str) and _MESSAGES.match(value):
        value = _parsed(value, column)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return messages_of(value, column)
    return text_of(value, column)


def text_of(value: Any, column: str, blank: bool = False) -> str:
    """A text; numbers become texts. blank: whether it may be empty."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:  # not NaN
        return str(value)
    if not isinstance(value, str):
        raise RowFault(f"its {column} is {shown(value)}, not a text")
    if not blank and not value.strip():
        raise RowFault(f"its {column} is empty")
    return value


def listed(value: Any, column: str) -> Sequence[Any]:
    """A list that is not empty; it may be written as JSON, as in a cell of a CSV file."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _parsed(value, column)
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
        raise RowFault(f"its {column} is {shown(value)}, not a list")
    if not value:
        raise RowFault(f"its {column} is empty")
    return value


def _parsed(text: str, column: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise RowFault(f"its {column} is {shown(text)}, a list that is no JSON: write it with json.dumps") from None


def messages_of(value: Any, column: str) -> list[dict[str, Any]]:
    """The messages of a conversation, each with a role and content."""
    return [_message(m, f"message {i + 1} of its {column}") for i, m in enumerate(listed(value, column))]


def _message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise RowFault(f"{where} is {shown(message)}, not an object with role and content")
    own = {k: v for k, v in message.items() if v is not None}  # columnar files fill absent keys with null
    speaker, content = own.pop("from", own.get("role")), own.pop("value", own.get("content", own.pop("refusal", None)))
    if not isinstance(speaker, str) or speaker not in _ROLES:
        raise RowFault(f"{where} has the role {speaker!r}; roles are {', '.join(_ROLES)}")
    own["role"] = role = _ROLES[speaker]
    if speaker == "function_call":
        own["tool_calls"], content = _calls(content, where), ""
    if content is None and role == "assistant" and ("tool_calls" in own or "function_call" in own):
        content = ""
    if content is None:
        raise RowFault(f"{where} ({role}) has no content: write its text, or leave out the row")
    own["content"] = json.dumps(content) if role == "tool" and isinstance(content, Mapping) else _parts(content, where)
    learned = _is_learned(own, where)
    return {k: v for k, v in own.items() if k not in ("weight", "train", "loss")} | ({} if learned else {"weight": 0})


def _parts(content: Any, where: str) -> str:
    """The text of a content, which may be a list of parts of type `text`."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return text_of(content, f"content in {where}", blank=True)
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__
        if kind == "text" and not isinstance(part.get("text"), str):
            raise RowFault(f"{where} has a part of type text without a text: write its text, or leave out the part")
        if kind != "text":
            raise RowFault(f"{where} has a part of type {kind}: parts of type text alone can be learned from")
        texts.append(part["text"])
    return "".join(texts)


def _is_learned(message: Mapping[str, Any], where: str) -> bool:
    """Whether `weight`, `train` and `loss` of a message say that it is learned: so is by default the assistant's."""
    own = [(k, message[k]) for k in ("weight", "train", "loss") if k in message]
    for key, value in own:
        if value not in (0, 1):
            raise RowFault(f"{where} has {key} {value!r}: a message is learned (1, true) or not (0, false)")
        if value and message["role"] != "assistant":
            raise RowFault(
                f"{where} ({message['role']}) has {key} {value!r}: the assistant's messages alone are learned"
            )
    return message["role"] != "assistant" or all(value for _, value in own)


def _calls(value: Any, where: str) -> list[dict[str, Any]]:
    """ShareGPT's call of a function, JSON with `name` and `arguments`, as `tool_calls`."""
    try:
        call = json.loads(value) if isinstance(value, str) else value
        return [{"type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}]
    except (ValueError, KeyError, TypeError):
        raise RowFault(f"{where} is a function_call, and not JSON with name and arguments") from None


def check_number(value: Any, what: str) -> None:
    """Checks that a value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        raise RowFault(f"{what} is {shown(value)}, not a number")


def check_turns(messages: Sequence[Mapping[str, Any]]) -> None:
    """Checks that a conversation does not begin with the assistant, and that a message of the assistant is learned."""
    turns = [m for m in messages if m["role"] not in BEFORE]
    own = [m for m in turns if m["role"] == "assistant"]
    if not own:
        raise RowFault("none of its messages is by the assistant, so there is nothing to learn")
    if turns[0] is own[0]:
        raise RowFault(
            "its conversation begins with the assistant, whose message answers nothing: put a user's message before "
            "it, or leave it out"
        )
    if all("weight" in m for m in own):
        raise RowFault("all messages of the assistant have weight 0, so there is nothing to learn")
    check_written(messages, "messages")


def check_written(messages: Sequence[Mapping[str, Any]], column: str) -> None:
    """Checks that the messages of the assistant that are learned hold a text, thinking or calls."""
    for i, message in enumerate(messages):
        own = message["role"] == "assistant" and "weight" not in message
        if own and not message["content"].strip() and not any(message.get(key) for key in _WRITTEN):
            raise RowFault(
                f"message {i + 1} of its {column} (assistant) is empty: write its text, give it weight 0, or leave out "
                "the row"
            )


def shown(value: Any) -> str:
    """The beginning of a value as Python writes it, for messages."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]} ..."
