"""A chat with a language model in a terminal, and with its base beside it."""

import sys
from collections.abc import Callable, Iterator

from rllab.core.errors import Mistake
from rllab.core.messages import END_THINK, THINK, is_harmony, parts, thinks, visible
from rllab.text.models import LanguageModel
from rllab.text.open import open_model
from rllab.text.reply import Message, base_of, recipe_of, reply
from rllab.text.sampler import Sampling

COMMANDS = "/direct, /think, /free set the style; /thoughts shows the last thinking, /new starts over, /quit ends"
_STYLES = {f"/{style}": style for style in ("direct", "think", "free")}


def fold(text: str) -> tuple[str, str]:
    """(the text to show, with its thinking folded to a word count; the thinking).

    >>> fold("<think> 20 + 5 = 25 </think> #### 25")
    ('[thought 5 words] #### 25', '20 + 5 = 25')
    """
    if is_harmony(text):
        return _fold_channels(text)
    if not thinks(text):
        return text, ""
    before, _, rest = text.partition(THINK)
    thinking, ended, answer = rest.partition(END_THINK)
    note = _note(thinking, bool(ended))
    return " ".join(part for part in (before.strip(), note, answer.strip()) if part), thinking.strip()


def _fold_channels(text: str) -> tuple[str, str]:
    """As `fold`, of a text in Harmony: thinking is in the channel `analysis`, or in an unknown one."""
    each = parts(text)
    thoughts = "\n".join(text.strip() for thinking, text in each if thinking)
    shown = [text.strip() for thinking, text in each if not thinking]
    note = [_note(thoughts, bool(shown))] if thoughts else []
    return " ".join(note + shown), thoughts


def _note(thinking: str, ended: bool) -> str:
    return f"[thought {len(thinking.split())} words{'' if ended else ', and did not finish'}]"


def talk(
    folder: str, base: bool, style: str, max_new_tokens: int, lines: Iterator[str], say: Callable[[str], None]
) -> None:
    """A chat: for each of the user's `lines`, prints the model's reply with `say`, and with `base` that of its base.

    Replies are greedy, and end with the stop texts of the model's recipe, too.
    """
    models = {"": open_model(folder)}
    sampling = Sampling(max_new_tokens=max_new_tokens, stop=tuple(recipe_of(folder).get("stop") or ()))
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


def typed() -> Iterator[str]:
    """The lines that are typed on standard input, until its end."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line
