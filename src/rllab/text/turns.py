"""Completions of several turns: the model and the task alternate, until the task returns no reply.

A reply is a list of messages, of the user or of a tool ({"role": "tool", "content": ...}), as the chat template knows
them. Its tokens are part of the completion, and are not learned. All turns share the budget of `max_new_tokens`. Where
a prompt or a reply ends with an opening tag of thinking, the tag is a part of the model's message.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.sharding import apart
from rllab.text.calls import message_of
from rllab.text.chat import prompt_ids, prompt_texts, reply_ids
from rllab.text.conversations import Message, called, read_messages, read_tools
from rllab.text.models import LanguageModel
from rllab.text.sampler import Completion, Sampling, Uniforms, completion_text, generate

Row = dict[str, Any]


@dataclass
class Conversation:
    """A completion and its messages: the model's, and the task's replies.

    text: the model's last message as it was written, with its calls of tools. reply: the text of the task's last reply,
    up to where the model's turn begins.
    """

    completion: Completion
    messages: list[Message] = field(default_factory=list)
    text: str = ""
    reply: str = ""

    def add(self, lm: LanguageModel, row: Row, before: str, ids: list[int], stop: tuple[str, ...]) -> None:
        """Adds the model's message: token ids behind a text. Of a row with tools it has its calls as `tool_calls`."""
        self.text = completion_text(lm, before, ids, stop)
        message = {"role": "assistant", "content": self.text}
        if tools := read_tools(row.get("tools")):
            message = message_of(completion_text(lm, before, ids, stop, special=True), self.text, tools)
        self.messages.append(message)


def converse(
    lm: LanguageModel,
    task: Any,
    rows: Sequence[Row],
    sampling: Sampling,
    samples: int = 1,
    uniforms: Uniforms | None = None,
    longest: int | None = None,
) -> tuple[list[list[int]], list[Conversation]]:
    """Samples conversations that begin with the rows' prompts.

    Returns the token ids of each prompt, cut to its last `longest` tokens, and `samples` conversations of each prompt,
    in the order of the rows.

    Raises:
        FieldMistake: the task replies, but its prompts are plain texts.
        Mistake: the task's `reply` raises an exception, or returns no messages.
    """
    prompts = [p[-longest:] if longest else p for p in prompt_ids(lm.tokenizer, rows)]
    with apart(lm.model) if lm.server is None else nullcontext():  # ranks may differ in the number of turns
        return prompts, _conversations(lm, task, rows, prompts, sampling, samples, uniforms)


def _conversations(
    lm: LanguageModel,
    task: Any,
    rows: Sequence[Row],
    prompts: list[list[int]],
    sampling: Sampling,
    samples: int,
    uniforms: Uniforms | None,
) -> list[Conversation]:
    completions = generate(lm, prompts, sampling, samples, uniforms)
    texts = prompt_texts(lm.tokenizer, rows)
    conversations = [Conversation(c) for c in completions]
    for c in conversations:
        c.add(lm, rows[c.completion.row], texts[c.completion.row], c.completion.ids, sampling.stop)
    open_ones = conversations if hasattr(task, "reply") else []
    while open_ones := [c for c in open_ones if _replied(lm, task, rows[c.completion.row], c, sampling.max_new_tokens)]:
        _next_turn(lm, rows, prompts, open_ones, sampling, uniforms)
    return conversations


def _replied(lm: LanguageModel, task: Any, row: Row, conversation: Conversation, budget: int) -> bool:
    """Adds the task's reply to a conversation; False where there is none, or no token is left for an answer to it."""
    completion = conversation.completion
    if not completion.finished:
        return False
    if isinstance(row["prompt"], str):
        raise FieldMistake("task", "has a `reply`, but its prompts are plain texts: make them conversations")
    try:
        reply = read_messages(task.reply(row, [*row["prompt"], *conversation.messages]) or [])
    except Exception as error:
        name = f"{type(task).__module__}:{type(task).__name__}"
        raise Mistake(f"{name}.reply fails on {conversation.text[:80]!r}: {type(error).__name__}: {error}") from error
    if not reply:
        return False
    ended = completion.ids[-1] in lm.stop_ids or str(lm.tokenizer.decode(completion.ids)).endswith(lm.turn_ends or "\0")
    ids = reply_ids(lm.tokenizer, reply, row, ended=ended, calls=called(conversation.messages[-1]))
    if len(completion.ids) + len(ids) >= budget:
        completion.finished = False
        return False
    completion.learned = [*(completion.learned or [True] * len(completion.ids)), *[False] * len(ids)]
    completion.ids = completion.ids + ids
    conversation.messages.extend(reply)
    conversation.reply = str(lm.tokenizer.decode(ids))
    return True


def _next_turn(
    lm: LanguageModel,
    rows: Sequence[Row],
    prompts: Sequence[list[int]],
    conversations: Sequence[Conversation],
    sampling: Sampling,
    uniforms: Uniforms | None,
) -> None:
    """Samples the model's next turn of each conversation, with the uniforms that its earlier turns have not used."""
    each = [c.completion for c in conversations]
    room = [sampling.max_new_tokens - len(c.ids) for c in each]

    def numbers(i: int, _: int) -> np.ndarray:
        assert uniforms is not None
        unused = uniforms(each[i].row, each[i].sample)[-room[i] :]
        return np.pad(unused, (0, max(room) - room[i]))

    contexts = [prompts[c.row] + c.ids for c in each]
    longest = replace(sampling, max_new_tokens=max(room))
    more = generate(lm, contexts, longest, uniforms=numbers if uniforms else None, limits=room)
    for conversation, new in zip(conversations, more, strict=True):
        completion = conversation.completion
        completion.finished = new.finished
        completion.ids = completion.ids + new.ids
        completion.logp = completion.logp + new.logp
        completion.learned = [*completion.learned, *[True] * len(new.ids)]
        conversation.add(lm, rows[completion.row], conversation.reply, new.ids, sampling.stop)
