"""Completions of several turns: the model speaks and the task replies, until the task has nothing more to say.

What the task says stands among a completion's tokens, and is not learned. All turns share one budget of tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.messages import last_text
from rllab.text.chat import prompt_ids, reply_ids
from rllab.text.models import LanguageModel
from rllab.text.sampler import Completion, Sampling, Uniforms, generate

Row = dict[str, Any]
Message = dict[str, str]


@dataclass
class Conversation:
    """A completion, and the messages that it consists of: the model's, and those of a task that replies."""

    completion: Completion
    messages: list[Message]

    @property
    def text(self) -> str:
        """What the model said last: the answer."""
        return last_text(self.messages)


def converse(
    lm: LanguageModel,
    task: Any,
    rows: Sequence[Row],
    sampling: Sampling,
    samples: int = 1,
    uniforms: Uniforms | None = None,
    longest: int | None = None,
) -> tuple[list[list[int]], list[Conversation]]:
    """The rows' prompts as tokens, of each the last `longest`, and `samples` talks that go on from each, in order.

    Raises:
        FieldMistake: the task replies, and its prompts are no conversations.
        Mistake: its `reply` fails.
    """
    prompts = [p[-longest:] if longest else p for p in prompt_ids(lm.tokenizer, rows)]
    found = generate(lm, prompts, sampling, samples, uniforms)
    talks = [Conversation(c, [_said(lm, c.ids)]) for c in found]
    going = talks if hasattr(task, "reply") else []
    while going := [t for t in going if _replied(lm, task, rows[t.completion.row], t, sampling.max_new_tokens)]:
        _go_on(lm, prompts, going, sampling, uniforms)
    return prompts, talks


def _said(lm: LanguageModel, ids: list[int]) -> Message:
    return {"role": "assistant", "content": str(lm.tokenizer.decode(ids, skip_special_tokens=True))}


def _replied(lm: LanguageModel, task: Any, row: Row, talk: Conversation, budget: int) -> bool:
    """Adds what the task says to a talk; False where it says nothing, or leaves the model no token to answer with."""
    completion = talk.completion
    if not completion.finished:
        return False
    if isinstance(row["prompt"], str):
        raise FieldMistake("task", "replies, and its prompts are plain texts: make them conversations")
    try:
        reply = task.reply(row, [*row["prompt"], *talk.messages])
    except Exception as error:
        name = f"{type(task).__module__}:{type(task).__name__}"
        raise Mistake(f"{name}.reply fails on {talk.text[:80]!r}: {type(error).__name__}: {error}") from error
    if not reply:
        return False
    ids = reply_ids(lm.tokenizer, reply, row)
    if len(completion.ids) + len(ids) >= budget:
        completion.finished = False
        return False
    completion.learned = [*(completion.learned or [True] * len(completion.ids)), *[False] * len(ids)]
    completion.ids = completion.ids + ids
    talk.messages.extend(reply)
    return True


def _go_on(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    going: Sequence[Conversation],
    sampling: Sampling,
    uniforms: Uniforms | None,
) -> None:
    """The next turn of each talk."""
    each = [t.completion for t in going]
    room = [sampling.max_new_tokens - len(c.ids) for c in each]

    def numbers(i: int, _: int) -> np.ndarray:
        assert uniforms is not None
        mine = uniforms(each[i].row, each[i].sample)[-room[i] :]
        return np.pad(mine, (0, max(room) - room[i]))

    contexts = [prompts[c.row] + c.ids for c in each]
    longest = replace(sampling, max_new_tokens=max(room))
    more = generate(lm, contexts, longest, uniforms=numbers if uniforms else None)
    for talk, new, left in zip(going, more, room, strict=True):
        completion, ids = talk.completion, new.ids[:left]
        completion.finished = new.finished and len(new.ids) <= left
        completion.ids = completion.ids + ids
        completion.logp = completion.logp + new.logp[:left]
        completion.learned = [*completion.learned, *[True] * len(ids)]
        talk.messages.append(_said(lm, ids))
