"""What a chat template leaves out of a conversation is refused: tools, calls, results, system messages, thinking."""

from collections.abc import Callable, Sequence

from rllab.core.errors import FieldMistake
from rllab.core.messages import END_THINK, THINK
from rllab.text.conversations import Message, called, calling, described

_MARK = "=== mark ==="


def check_tools(tools: Sequence[str], text: str) -> None:
    """Checks that the names of all tools of a row are in its text.

    Raises:
        FieldMistake: one is missing.
    """
    for name in tools:
        if name not in text:
            raise _not_rendered("tools", name)


def check_messages(messages: Sequence[Message], text: str, render: Callable[[Sequence[Message]], str]) -> None:
    """Checks that calls of tools, their results and system messages of a conversation are in its text.

    render: renders messages as `text` was rendered.

    Raises:
        FieldMistake: the template leaves one out.
    """
    calls = [name for message in messages for name in called(message)]  # a text with tools has the names anyway
    if calls and render([calling(_MARK, m) for m in messages]).count(_MARK) < len(calls):
        raise _not_rendered("tool_calls", calls[0])
    for i, message in enumerate(messages):
        if message["role"] in ("user", "assistant") or message["content"].strip() in text:
            continue
        marked = [*messages[:i], message | {"content": _MARK}, *messages[i + 1 :]]
        if _MARK not in render(marked):  # it may hold the message rewritten
            raise FieldMistake("model", f"its chat template leaves out message {i + 1} ({message['role']}) of "
                               f"{described(messages)}: leave it out, or take another template")  # fmt: skip


def _not_rendered(key: str, name: str) -> FieldMistake:
    text = f"its chat template does not render `{key}` ({name}): take a model whose template knows tools, or drop them"
    return FieldMistake("model", text)


def without_thinking(conversation: Sequence[Message]) -> FieldMistake:
    """The error for a template that leaves out what the last message thinks."""
    return FieldMistake("model", f"its chat template leaves out the thinking of {described(conversation)}: write it "
                        f"into the content, between {THINK} and {END_THINK}")  # fmt: skip


def not_recognized(conversation: Sequence[Message]) -> FieldMistake:
    """The error for a template that rewrites the last message so that its text cannot be located."""
    return FieldMistake("model", f"its chat template renders the answer of {described(conversation)} so that it cannot "
                        "be recognized: mark it in the template by {% generation %}")  # fmt: skip
