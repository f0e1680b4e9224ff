"""Completions as text: the answer of a conversation, what a model thinks, and what follows its thinking.

Thinking stands between the tags `<think>` and `</think>`, or in the channel `analysis` of Harmony
(`rllab.core.harmony`). A completion is a plain text, or a conversation: a list of messages {"role", "content"}. The
content of a message is a text, None (beside a call of a tool), or a list of parts {"type": "text", "text"}.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rllab.core.harmony import CHANNEL, MESSAGE, RETURN, START, HarmonyMessage, parse

THINK, END_THINK = "<think>", "</think>"
# control characters except tab and newline, and those that change the direction of a text
_CONTROL = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")


def content_text(message: Mapping[str, Any]) -> str:
    """The text of a message; '' of a message without content.

    Raises:
        ValueError: a part of its content is no text, such as an image.

    >>> content_text({"content": [{"type": "text", "text": "2 + "}, {"type": "text", "text": "3"}]})
    '2 + 3'
    """
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, Sequence):
        raise ValueError(f"its content is a {type(content).__name__}: write a text")
    parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    if not all(isinstance(part, str) for part in parts):
        kinds = ", ".join(str(p.get("type")) if isinstance(p, Mapping) else type(p).__name__ for p in content)
        raise ValueError(f"its content has parts of the types {kinds}; only text is read")
    return "".join(map(str, parts))


def last_text(completion: str | Sequence[Mapping[str, Any]]) -> str:
    """The text of a completion; of a conversation that of its last message.

    >>> last_text("5"), last_text([{"role": "user", "content": "2 + 3"}, {"role": "assistant", "content": "5"}])
    ('5', '5')
    """
    return completion if isinstance(completion, str) else content_text(completion[-1])


def opening_of(prompt: str) -> str:
    """The opening tag of thinking at the end of a prompt, with the whitespace behind it; '' without one.

    A model that completes the prompt writes the rest of the thinking, so the tag is a part of its completion. So is the
    header of a message in Harmony, from its channel on.

    >>> opening_of("<|Assistant|><think>\\n"), opening_of("<think> </think>")
    ('<think>\\n', '')
    >>> opening_of("<|start|>assistant<|channel|>final<|message|>"), opening_of("<|start|>assistant")
    ('<|channel|>final<|message|>', '')
    """
    if prompt.endswith(MESSAGE):
        _, channel, name = prompt[prompt.rfind(START) :].partition(CHANNEL)
        return channel + name
    return prompt[prompt.rindex(THINK) :] if prompt.rstrip().endswith(THINK) else ""


def thinks(text: str) -> bool:
    """Whether a text begins to think somewhere."""
    return any(thinking for thinking, _ in parts(text)) if is_harmony(text) else THINK in text


def after_thinking(text: str) -> str:
    """A text without its thinking: what follows the last closed thinking, up to one that is not closed.

    Of a text in Harmony it is the answer, in the channel `final`.

    >>> after_thinking("<think> 20 + 5 = 25 </think> #### 25"), after_thinking("<think> #### 2")
    (' #### 25', '')
    """
    if is_harmony(text):
        return answer_of(text) or ""
    return text.rpartition(END_THINK)[2].partition(THINK)[0]


def parts(completion: str) -> list[tuple[bool, str]]:
    """(whether it is thinking, text) for each part of a completion, in order; empty ones are left out.

    >>> parts("<think> 20 + 5 </think> #### 25")
    [(True, ' 20 + 5 '), (False, ' #### 25')]
    >>> parts("<|channel|>analysis<|message|>20 + 5<|end|><|start|>assistant<|channel|>final<|message|>25")
    [(True, '20 + 5'), (False, '25')]
    """
    pieces = [_part(message) for message in parse(completion)] if is_harmony(completion) else []
    while completion and not is_harmony(completion):
        before, tag, rest = completion.partition(THINK)
        if not tag and END_THINK in completion:  # the prompt had the opening tag
            thinking, _, completion = completion.partition(END_THINK)
            pieces.append((True, thinking))
            continue
        pieces.append((False, before))
        thinking, _, completion = rest.partition(END_THINK)
        pieces.append((True, thinking))
    if is_harmony(completion) and not pieces:  # it has no message that could be read
        pieces = [(False, completion)]
    return [(thinking, text) for thinking, text in pieces if text.strip()]


def _part(message: HarmonyMessage) -> tuple[bool, str]:
    """(whether it is thinking, text) of a message; only `final` and `commentary` are written for others."""
    if message.is_call:
        return False, f"to={message.recipient} {message.content}"
    if message.role != "assistant":
        return False, f"{message.name or message.role}: {message.content}"
    return message.channel not in ("final", "commentary"), message.content


def is_harmony(text: str) -> bool:
    """Whether a text is in the format: it names a channel."""
    return CHANNEL in text


def own_messages(text: str) -> list[HarmonyMessage]:
    """The messages of the assistant's turn that a text begins with, and of the tools that it calls.

    A turn ends with `<|return|>`, and before a message of anyone else: what a model writes behind that is not its turn.
    """
    own = list[HarmonyMessage]()
    for message in parse(text):
        if message.role not in ("assistant", "tool"):
            if any(m.role == "assistant" for m in own):
                break
            continue  # the prompt, which is in the text
        own.append(message)
        if message.end == RETURN:
            break
    return own


def answer_of(text: str) -> str | None:
    """The answer in a text: the content of the last message in the channel `final`; None without one.

    >>> answer_of("<|channel|>analysis<|message|>4?<|end|><|start|>assistant<|channel|>final<|message|>5<|return|>")
    '5'
    """
    finals = [m.content for m in own_messages(text) if m.is_final]
    return finals[-1] if finals else None


def channels_of(text: str) -> list[str]:
    """The channels in which the assistant writes in a text, each once."""
    return list(dict.fromkeys(m.channel for m in own_messages(text) if m.role == "assistant" and m.channel))


def visible(text: str) -> str:
    """A text for a terminal, which would obey control characters: they are replaced by their numbers, as in JSON.

    >>> visible("red: \\x1b[31m")
    'red: \\\\u001b[31m'
    """
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """A text for a cell of a table in a terminal: as `visible`, and without newlines.

    >>> one_line("a\\nb")
    'a\\\\nb'
    """
    return visible(text).replace("\n", "\\n")
