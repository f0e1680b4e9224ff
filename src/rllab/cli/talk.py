"""A chat with a language model in a terminal, and with its base beside it."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rllab.core.errors import Mistake
from rllab.core.messages import END_THINK, THINK, thinks, visible
from rllab.core.run import RunFolder
from rllab.text.chat import prompt_ids, prompt_texts
from rllab.text.models import LanguageModel
from rllab.text.open import open_model
from rllab.text.sampler import Sampling, completion_text, generate

Message = dict[str, str]
COMMANDS = "/direct, /think, /free set the style; /thoughts shows the last thinking, /new starts over, /quit ends"
_STYLES = {f"/{style}": style for style in ("direct", "think", "free")}


def reply(lm: LanguageModel, messages: list[Message], style: str, sampling: Sampling) -> str:
    """The model's reply to a conversation.

    Raises:
        Mistake: the conversation leaves no room in the model's context.
    """
    row = {"prompt": messages, "style": style}
    (ids,), (prompt,) = prompt_ids(lm.tokenizer, [row]), prompt_texts(lm.tokenizer, [row])
    context = getattr(lm.model.config, "max_position_embeddings", None)
    room = sampling.max_new_tokens if context is None else min(sampling.max_new_tokens, context - len(ids))
    if room < 1:
        raise Mistake(
            f"the conversation has {len(ids)} tokens, and the model's context has {context}; /new starts over"
        )
    (completion,) = generate(lm, [ids], replace(sampling, max_new_tokens=room))
    return completion_text(lm, prompt, completion.ids, sampling.stop).strip()


def fold(text: str) -> tuple[str, str]:
    """(the text to show, with its thinking folded to a word count; the thinking).

    >>> fold("<think> 20 + 5 = 25 </think> #### 25")
    ('[thought 5 words] #### 25', '20 + 5 = 25')
    """
    if not thinks(text):
        return text, ""
    before, _, rest = text.partition(THINK)
    thinking, ended, answer = rest.partition(END_THINK)
    note = f"[thought {len(thinking.split())} words{'' if ended else ', and did not finish'}]"
    return " ".join(part for part in (before.strip(), note, answer.strip()) if part), thinking.strip()


def talk(
    folder: str, base: bool, style: str, max_new_tokens: int, lines: Iterator[str], say: Callable[[str], None]
) -> None:
    """A chat: for each of the user's `lines`, prints the model's reply with `say`, and with `base` that of its base.

    Replies are greedy, and end with the stop texts of the model's recipe, too.
    """
    models = {"": open_model(folder)}
    sampling = Sampling(max_new_tokens=max_new_tokens, stop=tuple(_recipe_of(folder).get("stop") or ()))
    if base:
        models = {"model: ": models[""], "base:  ": open_model(base_of(folder))}
    messages: dict[str, list[Message]] = {who: [] for who in models}
    thoughts: list[str] = []
    say(COMMANDS)
    for line in lines:
        text = line.strip()
        if text == "/quit":
            return
        if text == "/new":
            messages = {who: [] for who in models}
        elif text == "/thoughts":
            say(visible("\n".join(thoughts)) or "there was no thinking")
        elif text in _STYLES:
            style = _STYLES[text]
        elif text.startswith("/"):
            say(COMMANDS)
        elif text:
            thoughts = [_turn(lm, who, messages[who], text, style, sampling, say) for who, lm in models.items()]


def _turn(
    lm: LanguageModel,
    who: str,
    messages: list[Message],
    text: str,
    style: str,
    sampling: Sampling,
    say: Callable[[str], None],
) -> str:
    """One model's turn: adds the user's text and the reply to `messages`, and shows the reply. Returns its thinking."""
    messages.append({"role": "user", "content": text})
    try:
        answer = reply(lm, messages, style, sampling)
    except Mistake as error:
        messages.pop()
        say(visible(f"{who}{error}"))
        return ""
    messages.append({"role": "assistant", "content": answer})
    shown, thinking = fold(answer)
    say(visible(f"{who}{shown}"))
    return f"{who}{thinking}"


def base_of(folder: str) -> str:
    """The model that the one in a checkpoint's folder was trained from, by its run's recipe.

    Raises:
        Mistake: there is no recipe, or it names no model.
    """
    settings = _recipe_of(folder)
    if not settings.get("model"):
        raise Mistake(f"{folder} has no recipe that names the model it was trained from, so there is no base to show")
    return str(settings["model"])


def _recipe_of(folder: str) -> dict[str, Any]:
    """The settings of the run that a checkpoint's folder is in; {} where it is in none."""
    above = [p / "recipe.yaml" for p in Path(folder).parents[1:3]]  # the second where the model is one of several parts
    recipe = next((p for p in above if p.is_file()), None)
    return RunFolder(recipe.parent).plain() if recipe else {}


def typed() -> Iterator[str]:
    """The lines that are typed on standard input, until its end."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line
