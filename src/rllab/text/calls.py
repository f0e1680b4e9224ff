"""The tool calls in a model's text, as a message with `tool_calls`.

Read are the forms in which chat templates write calls:

    <tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>                      Qwen, Hermes
    <tool_call><function=weather><parameter=city>Paris</parameter></function></tool_call>           Qwen 3.5, Nemotron 3
    [TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}}]                               Mistral
    [TOOL_CALLS]weather[ARGS]{"city": "Paris"}                                                      Mistral since 2025
    {"name": "weather", "parameters": {"city": "Paris"}}                                            Llama 3
    to=functions.weather<|channel|>commentary json<|message|>{"city": "Paris"}<|call|>              gpt-oss (Harmony)

A text with a call that cannot be read is a message of text, to which a task can reply.
"""

import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from rllab.core.errors import FieldMistake
from rllab.core.messages import is_harmony
from rllab.text.channels import message_from
from rllab.text.conversations import Message, called, options_of
from rllab.text.template import Template

_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_XML = re.compile(r"\s*<function=([^>\s]+)>(.*?)</function>\s*", re.DOTALL)
_PARAMETER = re.compile(r"\s*<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>\s*", re.DOTALL)
_MISTRAL = re.compile(r"\[TOOL_CALLS\](.*?)(?=\[TOOL_CALLS\]|\Z)", re.DOTALL)
_NAMED = re.compile(r"\s*([\w.-]+)(?:\[CALL_ID\]\w+)?\[ARGS\](.*)", re.DOTALL)
_BARE = re.compile(r'\s*(?:<\|python_tag\|>)?\s*(?=\{\s*"(?:name|type)")(.*)', re.DOTALL)


def message_of(raw: str, text: str, tools: Sequence[Mapping[str, Any]]) -> Message:
    """What a model wrote as its message: `tool_calls`, and what stands beside them as its content.

    raw, text: the same with and without special tokens, one of which may mark a call. tools: of the row.
    """
    try:
        if is_harmony(raw):
            return message_from(raw)
        content, calls = _read(raw, tools)
    except (ValueError, RecursionError):  # no JSON, or JSON that is no call
        calls = []
    if not calls:
        return {"role": "assistant", "content": text}
    return {"role": "assistant", "content": content.strip(), "tool_calls": calls}


def _read(raw: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """(the text beside calls, the calls).

    Raises:
        ValueError: a call cannot be read.
    """
    for form, read in ((_TAGGED, _tagged), (_MISTRAL, _mistral)):
        if matches := form.findall(raw):
            return form.sub("", raw), [call for text in matches for call in read(text, tools)]
    bare = _BARE.fullmatch(raw)
    return "", [_call(value, "parameters") for value in _values(bare[1])] if bare else []


def _tagged(text: str, tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if xml := _XML.fullmatch(text):
        if _PARAMETER.sub("", xml[2]).strip():
            raise ValueError("text beside the parameters")
        types = _types(xml[1], tools)
        return [_made(xml[1], {k: _typed(v, types.get(k)) for k, v in _PARAMETER.findall(xml[2])})]
    return [_call(json.loads(text), "arguments")]


def _mistral(text: str, tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if named := _NAMED.fullmatch(text):
        return [_call({"name": named[1], "arguments": json.loads(named[2])}, "arguments")]
    values = json.loads(text)
    return [_call(value, "arguments") for value in (values if isinstance(values, list) else [values])]


def _values(text: str) -> Iterable[Any]:
    """The values of JSON that a text holds one after another, between blanks and semicolons."""
    decoder, text = json.JSONDecoder(), text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:].lstrip("; \n")


def _call(value: Any, key: str) -> dict[str, Any]:
    """A call of JSON; key: that of its arguments, for which the model may take the other name, too."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError("no call")
    arguments = value.get(key, value.get("arguments", value.get("parameters")))
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(arguments, dict):
        raise ValueError("its arguments are no object")
    return _made(value["name"], arguments)


def _made(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def _types(name: str, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The type of each parameter of a tool, by its JSON schema."""
    functions = [tool.get("function", tool) for tool in tools]
    schema = next((f.get("parameters") or {} for f in functions if f.get("name") == name), {})
    return {k: v.get("type") for k, v in (schema.get("properties") or {}).items()}


def _typed(text: str, kind: Any) -> Any:
    """A parameter's value, which its tag gives as a text; all but strings are JSON."""
    if kind == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def check_calls(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Mapping[str, Any]]) -> None:
    """Warns where the chat template writes calls of the rows' tools in a form that is not read."""
    row = next((row for row in rows if row.get("tools") and not isinstance(row["prompt"], str)), None)
    if row is None:
        return
    options = options_of(row)
    template, tools = Template(tokenizer, options), options["tools"]
    call = _made(tools[0]["function"]["name"], {"x": "y"}) | {"id": "abcdefgh9"}  # Mistral's have 9 characters
    asked = [{"role": "user", "content": "?"}]
    try:
        rendered = template.conversation([*asked, {"role": "assistant", "content": "", "tool_calls": [call]}])
        text = rendered.text[rendered.begin :].removesuffix(template.ends[0])
    except FieldMistake:
        text = ""
    if called(message_of(text, text, tools)) != called({"tool_calls": [call]}):
        warnings.warn(
            "model: its chat template writes calls of tools in a form that is not read, so `reply` gets the text of a "
            f"call instead of `tool_calls`: {text!r}",
            stacklevel=2,
        )
