"""Conversations as people write them, in the one form that chat templates read.

Read are OpenAI's forms: content that is null, missing or a list of parts; `tool_calls` with arguments as an object or
as its JSON text; a `function_call`; results of tools; a refusal. Keys of a message that are null count as absent, as
Parquet has every key in every message; arguments that are null are data. A template gets messages with a text as
content, and calls with an object as arguments.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rllab.core.messages import END_THINK, THINK, content_text

Message = dict[str, Any]
_ROLES = {"developer": "system", "function": "tool"}  # OpenAI's names of roles that templates know by another
_THINKING = ("reasoning_content", "reasoning", "thinking")  # keys of what an assistant thinks before its content


def is_conversation(value: Any) -> bool:
    """Whether a prompt or completion is a list of messages, and no text."""
    return not isinstance(value, str)


def read_messages(conversation: Any) -> list[Message]:
    """The messages of a conversation, in the form that templates read.

    Raises:
        ValueError: a message has no role, or cannot be read; the message gives its number from 1.
    """
    if isinstance(conversation, Mapping):
        conversation = [conversation]
    messages = []
    for number, message in enumerate(conversation, 1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ValueError(f"its message {number} has no role: a message is {{role: ..., content: ...}}")
        try:
            messages.append(_message(message))
        except ValueError as error:
            raise ValueError(f"its message {number}, of {message['role']}: {error}") from None
    return messages


def _message(message: Mapping[str, Any]) -> Message:
    read = {k: v for k, v in message.items() if v is not None}
    read["role"] = _ROLES.get(read["role"], read["role"])
    content = read.get("content", read.pop("refusal", None))
    if read["role"] == "tool" and isinstance(content, Mapping):
        content = json.dumps(content, ensure_ascii=False)
    read["content"] = content_text({"content": content})
    if "function_call" in read:
        read["tool_calls"] = [{"function": read.pop("function_call")}]
    calls = read.pop("tool_calls", None)
    if calls:
        read["tool_calls"] = [_call(c) for c in (_listed(calls) if isinstance(calls, str) else calls)]
    for key in _THINKING:
        if isinstance(read.get(key), str) and read[key].strip():
            read["reasoning_content"] = read.pop(key)
    return read


def _listed(calls: str) -> list[Any]:
    try:
        read = json.loads(calls)
    except ValueError:
        read = None
    if not isinstance(read, list):
        raise ValueError(f"its tool_calls are no JSON list: {calls[:80]}")
    return read


def _call(call: Any) -> dict[str, Any]:
    function = call.get("function") or call if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError('a call of a tool is {"type": "function", "function": {"name": ..., "arguments": {...}}}')
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            raise ValueError(f"the arguments of its call of {function['name']} are no JSON: {arguments[:80]}") from None
    read = {"type": "function", "function": {"name": function["name"], "arguments": arguments or {}}}
    return read | ({"id": call["id"]} if call.get("id") is not None else {})


def read_tools(tools: Any) -> list[dict[str, Any]] | None:
    """The tools of a row, each as {"type": "function", "function": {"name", "parameters", ...}}; None without any.

    Raises:
        ValueError: they cannot be read.
    """
    if isinstance(tools, str):
        try:
            tools = json.loads(tools or "null")
        except ValueError:
            raise ValueError(f"its tools are no JSON: {tools[:80]}") from None
    if not tools:
        return None
    if not isinstance(tools, Sequence):
        raise ValueError("its tools are no list")
    read = []
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError('a tool is {"type": "function", "function": {"name": ..., "parameters": {...}}}')
        read.append({"type": "function", "function": _without_nulls(function)})
    return read


def options_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row hands to the template beside its messages: `tools`, `style` and `chat_template_kwargs`.

    Raises:
        ValueError: its tools or `chat_template_kwargs` cannot be read.
    """
    style, tools = row.get("style", "free"), read_tools(row.get("tools"))
    more = row.get("chat_template_kwargs") or {}
    if not isinstance(more, Mapping):
        raise ValueError(f"its chat_template_kwargs is {str(more)[:80]!r}, not an object")
    options = {"style": style, "enable_thinking": style != "direct"} | dict(more)
    return options | ({"tools": tools} if tools else {})


def _without_nulls(value: Any) -> Any:
    """A value without keys that are null; Parquet gives the parameters of a tool those of all others."""
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def called(message: Message) -> list[str]:
    """The names of the tools that a message calls."""
    return [call["function"]["name"] for call in message.get("tool_calls", ())]


def calling(name: str, message: Message) -> Message:
    """A message whose calls are all of a tool `name`."""
    calls = [call | {"function": call["function"] | {"name": name}} for call in message.get("tool_calls", ())]
    return message | ({"tool_calls": calls} if calls else {})


def thinking(message: Message) -> str:
    """What a message thinks before it answers, in a key of its own or between the tags in its content; or ''."""
    if "reasoning_content" in message:
        return str(message["reasoning_content"])
    before, closed, _ = message["content"].partition(END_THINK)
    return str(before.partition(THINK)[2] if THINK in before else before) if closed else ""


def after_opening(message: Message) -> str:
    """A message's thinking and answer, as they follow an opening tag that stands before them."""
    content = str(message["content"])
    if "reasoning_content" in message:
        return f"{message['reasoning_content']}\n{END_THINK}\n\n{content}"
    return content.partition(THINK)[2] if THINK in content else content


def is_learned(message: Message) -> bool:
    """Whether a message is the assistant's, and no `weight: 0` or `train: false` leaves it out."""
    return message["role"] == "assistant" and bool(message.get("weight", 1)) and bool(message.get("train", True))


def common_beginning(texts: Sequence[str]) -> str:
    """The longest text with which all texts begin.

    >>> common_beginning(["<think> a", "<thin"])
    '<thin'
    """
    first, last = min(texts), max(texts)
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def described(conversation: Sequence[Message]) -> str:
    """A conversation in a message for the user: its roles and its end."""
    roles, last = ", ".join(str(m["role"]) for m in conversation), str(conversation[-1]["content"])
    shown = f"{last[:80]} ..." if len(last) > 80 else last
    return f"a conversation of {roles}, which ends with {shown!r}"
