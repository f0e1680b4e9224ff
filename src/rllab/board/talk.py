"""Replies of a run's language model, or of its base, for the page of a chat: as they are sampled."""

from collections.abc import Generator, Mapping
from contextlib import closing
from typing import Any

from rllab.board.loaded import LoadedRun
from rllab.core.errors import Mistake
from rllab.core.messages import parts
from rllab.core.stages import checkpoint_of, model_of
from rllab.text.models import LanguageModel
from rllab.text.open import open_model
from rllab.text.reply import Message, base_of, growing_reply, recipe_of
from rllab.text.sampler import Sampling

STYLES = ("direct", "think", "free")
MOST_TOKENS = 4096
Row = dict[str, Any]


def reply(run: LoadedRun, request: Mapping[str, Any]) -> Generator[Row, None, Row]:
    """Yields the reply to a conversation as far as it has come, `{"text", "parts"}`, and returns the whole one.

    The request has `messages`; `style`: direct, think or free; `max_new_tokens`; `checkpoint`: a step, or None for the
    newest; `base`: whether the base of the model replies. Replies are greedy, and end with the stop texts of the
    recipe, too. parts: (whether it is thinking, text) in order.

    Raises:
        Mistake: the run has no language model, no base, or the conversation leaves no room in the context.
    """
    step = request.get("checkpoint")
    checkpoint = checkpoint_of(run.folder, step if isinstance(step, int) else None)
    folder = str(model_of(checkpoint))
    messages, style, count = _messages(request.get("messages")), request.get("style"), request.get("max_new_tokens")
    if style not in STYLES:
        raise Mistake(f"style must be one of {', '.join(STYLES)}")
    if not isinstance(count, int) or not 1 <= count <= MOST_TOKENS:
        raise Mistake(f"the most new tokens must be a whole number from 1 to {MOST_TOKENS:,}")
    is_base = bool(request.get("base"))
    lm = _model(run, "base" if is_base else "model", base_of(folder) if is_base else folder)
    sampling = Sampling(max_new_tokens=count, stop=tuple(recipe_of(folder).get("stop") or ()))
    with closing(growing_reply(lm, messages, style, sampling)) as growing:
        while True:
            try:
                text = next(growing)
            except StopIteration as done:
                return {"text": done.value, "parts": parts(done.value), "checkpoint": checkpoint.step}
            yield {"text": text, "parts": parts(text)}


def _model(run: LoadedRun, place: str, name: str) -> LanguageModel:
    """The model with a name, which is kept for the next request in its place: `model` or `base`."""
    if run.kept.get(place, ("", None))[0] != name:
        run.kept.pop(place, None)  # frees the memory of the other one first
        run.kept[place] = name, open_model(name)
    lm: LanguageModel = run.kept[place][1]
    return lm


def _messages(messages: Any) -> list[Message]:
    """The messages of a conversation: the user's and the model's in turn, the last one the user's."""
    whole = isinstance(messages, list) and len(messages) % 2 == 1
    for i, message in enumerate(messages if whole else ()):
        whole = whole and isinstance(message, dict) and message.keys() == {"role", "content"}
        whole = whole and message["role"] == ("assistant" if i % 2 else "user") and isinstance(message["content"], str)
    if not whole:
        raise Mistake("messages must be those of the user and the model in turn, the last one the user's")
    checked: list[Message] = messages
    return checked
