"""Chat templates of Harmony's kind, as that of gpt-oss: how messages are handed to them, and where their turns end.

A turn of the assistant is one message or several, each with its channel: thinking in `analysis`, calls of tools and
what announces them in `commentary`, the answer in `final`. The model samples all of them but the first `<|start|>` and
role. So `<|end|>` does not end its turn, while `<|return|>` and `<|call|>` do.
"""

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from rllab.core.harmony import (
    CALL,
    CHANNEL,
    END,
    ENDS,
    FUNCTIONS,
    MESSAGE,
    RETURN,
    ROLES,
    SPECIALS,
    START,
    HarmonyMessage,
)
from rllab.core.messages import END_THINK, is_harmony, own_messages, parts
from rllab.text.conversations import Message, thinking

HARMONY = (files("rllab.text") / "harmony.jinja").read_text(encoding="utf-8")
"""The lab's own chat template of the format, which has the styles direct, think and free."""
STARTED = f"{START}assistant"
FINAL, ANALYSIS = (f"{CHANNEL}{name}{MESSAGE}" for name in ("final", "analysis"))
TO_FINAL = f"{END}{STARTED}{FINAL}"  # ends the thinking and begins the answer
_END = re.compile("|".join(map(re.escape, ENDS)))
_WORDS = (*ROLES[:-1], "analysis", "commentary", "final")  # of headers, but for those of calls


def speaks_harmony(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether a tokenizer's chat template writes the format, and the tokenizer has its special tokens."""
    written = all(special in str(tokenizer.chat_template) for special in (START, CHANNEL, MESSAGE))
    return written and {START, CHANNEL, MESSAGE, END, RETURN} <= set(tokenizer.get_added_vocab())


def with_harmony(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Gives a new model's tokenizer the special tokens of the format, the words of its headers, and its template."""
    tokenizer.add_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIALS], special_tokens=True)
    unread = [w for w in _WORDS if tokenizer.unk_token_id in tokenizer.encode(w, add_special_tokens=False)]
    tokenizer.add_tokens([AddedToken(w, single_word=True, normalized=False) for w in unread])
    tokenizer.eos_token = RETURN
    tokenizer.chat_template = HARMONY
    return tokenizer


def stop_tokens(tokenizer: PreTrainedTokenizerFast) -> set[str]:
    """The tokens that end a completion."""
    return {RETURN, CALL} & set(tokenizer.get_added_vocab())


def message_from(text: str) -> Message:
    """What the assistant wrote as its message: its answer, or else what announces a call; its thinking and its calls.

    Raises:
        ValueError: a call cannot be read.
    """
    own = [m for m in own_messages(text) if m.role == "assistant"]
    calls = [_call(m) for m in own if m.is_call]
    channels: dict[str, list[str]] = {"final": [], "commentary": [], "analysis": []}
    for m in own:
        if not m.is_call and m.content.strip():
            channels["analysis" if m.channel not in channels else m.channel].append(m.content)
    content = channels["final"][-1:] or channels["commentary"]
    message: Message = {"role": "assistant", "content": "\n".join(content)}
    if channels["analysis"]:
        message["reasoning_content"] = "\n".join(channels["analysis"])
    return message | ({"tool_calls": calls} if calls else {})


def _call(message: HarmonyMessage) -> dict[str, Any]:
    arguments = json.loads(message.content)
    if not isinstance(arguments, dict):
        raise ValueError("its arguments are no object")
    name = message.recipient.removeprefix(f"{FUNCTIONS}.")
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def in_fields(messages: Sequence[Message], template: str) -> list[Message]:
    """Messages as templates of this kind read them: an assistant's thinking apart from its content, in a key.

    What an assistant wrote in the format itself, as in a chat, is taken apart. The key is `reasoning_content`, and
    `thinking` for gpt-oss's template, which not every transformers adds. Beside a call, templates of others write
    content or thinking, and not both.
    """
    return [_in_fields(m, template) if m["role"] == "assistant" else m for m in messages]


def _in_fields(message: Message, template: str) -> Message:
    content = str(message["content"])
    if is_harmony(content):
        try:
            message = {k: v for k, v in message.items() if k != "content"} | message_from(content)
        except (ValueError, RecursionError):  # a call that cannot be read
            message = message | {"content": "\n".join(text for thought, text in parts(content) if not thought)}
    elif END_THINK in content and "reasoning_content" not in message:
        answer = content.partition(END_THINK)[2].strip()
        message = message | {"reasoning_content": thinking(message).strip(), "content": answer}
    thought = str(message.get("reasoning_content") or message.get("thinking") or "")
    if thought.strip() and message.get("tool_calls") and message["content"] and template != HARMONY:
        thought, message = f"{thought}\n{message['content']}", message | {"content": ""}
    message = {k: v for k, v in message.items() if k not in ("reasoning_content", "thinking")}
    return message | ({"reasoning_content": thought, "thinking": thought} if thought.strip() else {})


def call_turn(name: str, argument: str) -> Message:
    """A message that calls a tool: in place of the model's own, where its result is rendered."""
    function = {"name": name, "arguments": {"x": argument}}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}


def turn_begin(text: str) -> int | None:
    """The character behind the header `<|start|>assistant` that a text has last."""
    place = text.rfind(STARTED)
    return None if place < 0 else place + len(STARTED)


def turn_end(text: str, begin: int, limit: int | None) -> int | None:
    """The character behind the assistant's messages from `begin` on; None where none of them ends.

    limit: where its next turn begins, None for its last. The `<|end|>` of an earlier answer is not a part of its turn:
    it stands in the place of the `<|return|>` that a model samples.
    """
    last, place = len(text) if limit is None else limit - len(STARTED), begin
    while match := _END.search(text, place, last):
        place = match.end()
        if not text.startswith(STARTED, place) or place >= last:
            return match.start() if match[0] == END and limit is not None else place
    return place if place > begin else None
