"""A language model's reply to a conversation, at once or as far as it has come, and the base it was trained from."""

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rllab.core.errors import Mistake, Stopped
from rllab.core.run import RunFolder
from rllab.text.chat import prompt_ids, prompt_texts
from rllab.text.models import LanguageModel
from rllab.text.sampler import Completion, Sampling, completion_text, generate

Message = dict[str, str]
EACH = 0.05  # seconds between two looks at a reply that grows


def reply(lm: LanguageModel, messages: list[Message], style: str, sampling: Sampling) -> str:
    """The model's reply to a conversation.

    Raises:
        Mistake: the conversation leaves no room in the model's context.
    """
    prompt = _prompt(lm, messages, style, sampling)
    (completion,) = generate(lm, [prompt.ids], prompt.sampling)
    return prompt.text_of(completion.ids)


def growing_reply(
    lm: LanguageModel, messages: list[Message], style: str, sampling: Sampling, each: float = EACH
) -> Generator[str, None, str]:
    """Yields the reply as far as it has come, whenever it has grown within `each` seconds; returns that of `reply`.

    Closing the generator stops the sampling with the next token.

    Raises:
        Mistake: as of `reply`.
    """
    prompt, stopped, seen = _prompt(lm, messages, style, sampling), threading.Event(), list[Completion]()

    def watch(completion: Completion, over: bool) -> None:
        seen[:] = [completion]
        if stopped.is_set():
            raise Stopped("nobody reads the reply any more", 0)

    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)) as thread:
        sampled, shown = thread.submit(generate, lm, [prompt.ids], prompt.sampling, watch=watch), ""
        try:
            while not wait([sampled], each).done:
                text = prompt.text_of(list(seen[0].ids)) if seen else ""
                text = text.rstrip("\N{REPLACEMENT CHARACTER}")  # of which the other bytes come with the next token
                if text != shown:
                    shown = text
                    yield shown
        finally:
            stopped.set()
        return prompt.text_of(sampled.result()[0].ids)


@dataclass(frozen=True)
class _Prompt:
    """A conversation as a model reads it, with room for the reply in `sampling`."""

    lm: LanguageModel
    ids: list[int]
    text: str
    sampling: Sampling

    def text_of(self, ids: list[int]) -> str:
        """The text of a reply, or of its first tokens."""
        return completion_text(self.lm, self.text, ids, self.sampling.stop).strip()


def _prompt(lm: LanguageModel, messages: list[Message], style: str, sampling: Sampling) -> _Prompt:
    row = {"prompt": messages, "style": style}
    (ids,), (text,) = prompt_ids(lm.tokenizer, [row]), prompt_texts(lm.tokenizer, [row])
    context = getattr(lm.model.config, "max_position_embeddings", None)
    room = sampling.max_new_tokens if context is None else min(sampling.max_new_tokens, context - len(ids))
    if room < 1:
        raise Mistake(
            f"the conversation has {len(ids)} tokens, and the model's context has {context}: begin a new conversation"
        )
    return _Prompt(lm, ids, text, replace(sampling, max_new_tokens=room))


def base_of(folder: str) -> str:
    """The model that the one in a checkpoint's folder was trained from, by its run's recipe.

    Raises:
        Mistake: there is no recipe, or it names no model.
    """
    settings = recipe_of(folder)
    if not settings.get("model"):
        raise Mistake(f"{folder} has no recipe that names the model it was trained from, so there is no base to show")
    return str(settings["model"])


def recipe_of(folder: str) -> dict[str, Any]:
    """The settings of the run that a checkpoint's folder is in; {} where it is in none."""
    above = [p / "recipe.yaml" for p in Path(folder).parents[1:3]]  # the second where the model is one of several parts
    recipe = next((p for p in above if p.is_file()), None)
    return RunFolder(recipe.parent).plain() if recipe else {}
