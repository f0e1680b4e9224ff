"""Styles: how a model is asked. A style is a YAML file of a few lines, of the lab or of the user.

    message: "{question}"                        the user's message
    reply: "Let's think step by step."           the begin of the model's reply, which the model continues
    trigger: "Therefore, the answer is"          asks for the answer behind the model's reasoning, in a second stage
    max_new_tokens: 256                          of the reasoning

A model with a chat template gets messages. One without gets the same turns as text, by `turn`. Examples (few-shot) are
earlier turns. `reply` and `trigger` may depend on the kind of answer: `{number: ..., choice: ..., default: ...}`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml

from rllab.core.errors import Mistake
from rllab.core.names import did_you_mean
from rllab.core.nodes import compose, pairs, plain, put
from rllab.core.ranges import Count, Natural, NotNegative, Range
from rllab.core.typed import Reader

FOLDER = Path(__file__).parent / "styles"
TEMPERATURE = 0.7  # of several samples
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, kw_only=True)
class ByKind:
    """A text for each kind of answer; that of `default` is for kinds that have none."""

    number: str = ""
    choice: str = ""
    yesno: str = ""
    string: str = ""
    latex: str = ""
    default: str = ""

    def of(self, kind: str) -> str:
        """Returns the text for a kind."""
        return str(getattr(self, kind, "")) or self.default


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a model is asked. `docs/evaluation.md` explains the keys.

    name: as the command line names it. measure: `answer` grades the model's text; `choice` compares the log-likelihoods
    of the choices; `perplexity` measures given texts. template_style, template_reply, template_trigger: in place of
    `message`, `reply` and `trigger` where a model's chat template has styles of its own, as that of `pocket`.
    """

    PLACEHOLDERS: ClassVar[dict[str, tuple[str, ...]]] = {
        "message": ("question",),
        "turn": ("message", "reply"),
        "reply": ("first", "last"),
        "trigger": ("first", "last"),
        "exemplar": ("chain", "answer"),
    }

    name: str = ""
    measure: Literal["answer", "choice", "perplexity"] = "answer"
    message: str = "{question}"  # the user's message
    turn: str = "Q: {message}\nA: {reply}"  # a turn as text, for models without a chat template
    reply: ByKind | str = ""  # begin of the model's reply
    exemplar: str = ""  # the reply of an example; "": no examples
    trigger: ByKind | str = ""  # asks for the answer behind the reasoning; "": one stage
    template_style: Literal["direct", "think", "free"] = "think"
    template_reply: str = ""
    template_trigger: str = ""
    stop: tuple[str, ...] = ()  # texts that end the reply
    max_new_tokens: Natural = 256  # of the reply, or of the reasoning where a trigger follows; 0: no reasoning
    answer_tokens: Count = 32  # most tokens behind the trigger
    samples: Count = 1  # replies to each item
    temperature: NotNegative = 0.0  # 0: the likeliest token
    top_p: Annotated[float, Range(0, 1, above=True)] = 1.0
    budgets: tuple[Natural, ...] = ()  # most tokens of reasoning; an answer is asked for after each
    extend: str = ""  # follows reasoning that ends before its budget
    extensions: Natural = 0  # how often it is extended

    @property
    def points(self) -> list[tuple[int, int]]:
        """(budget, extensions) of each answer that is asked for; the last is the style's result."""
        longest = max(self.budgets, default=self.max_new_tokens)
        capped = [(budget, 0) for budget in sorted(self.budgets)] or [(longest, 0)]
        return capped + [(longest, n + 1) for n in range(self.extensions)]

    def decoding(self) -> dict[str, Any]:
        """The settings that decide which tokens are chosen."""
        names = ("max_new_tokens", "answer_tokens", "temperature", "top_p", "stop", "extend")
        return {name: getattr(self, name) for name in names}


def names() -> list[str]:
    """Returns the names of the lab's own styles."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_style(named: str, changes: Mapping[str, Any] | None = None) -> Style:
    """Returns a style: of the lab, as `direct`; in a file, as `mine.yaml`; or changed, as `{name: budget, samples: 4}`.

    changes: settings of all styles, which replace those of the style's file but not those in braces. A style without
    reasoning, with 0 `max_new_tokens`, keeps that. Several samples are drawn at temperature 0.7 (Wang et al. 2023)
    where the style chooses the likeliest tokens and no temperature is set.

    Raises:
        Mistake: there is no such style, or it has mistakes; all are listed, each with its place.
    """
    source = f"command line: --style {named}"
    own = compose(named, source)
    settings = {key: value for key, _, value in pairs(own)} if isinstance(own, yaml.MappingNode) else {"name": own}
    path = _path(str(plain(settings.pop("name"))) if "name" in settings else "")
    node, reader = compose(path.read_text(encoding="utf-8"), str(path)), Reader(str(path), path.parent)
    if not isinstance(node, yaml.MappingNode):
        raise Mistake(f"{path}: a style is a mapping of keys such as message, reply and trigger")
    reader.repeats(node)
    silent = any(key == "max_new_tokens" and plain(value) == 0 for key, _, value in pairs(node))
    for key, value in (changes or {}).items():
        if not (silent and key == "max_new_tokens"):
            settings.setdefault(key, compose(json.dumps(value), source))
    for key, value in settings.items():
        value.start_mark = yaml.Mark(source, 0, 0, 0, None, 0)  # where messages say that it is set
        put(node, key, value)
    style: Style = reader.read(node, Style, "")
    reader.raise_mistakes()
    if style.samples > 1 and not style.temperature and "temperature" not in settings:
        style = replace(style, temperature=TEMPERATURE)
    style = replace(style, name=path.stem)
    faults = [*_placeholder_faults(style), *_faults(style)]
    if style.budgets and "max_new_tokens" in settings:
        faults.append("max_new_tokens: reasoning with budgets has the largest of them; set budgets")
    if faults:
        raise Mistake("\n".join(f"{path}: {fault}" for fault in faults))
    return style


def _path(name: str) -> Path:
    """Returns the file of a style.

    Raises:
        Mistake: there is none.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        hint = f"{did_you_mean(name, names())}; styles are {', '.join(names())}, or a file such as mine.yaml"
        raise Mistake(f"no style {name!r}{hint}")
    return path


def _placeholder_faults(style: Style) -> list[str]:
    faults = []
    for key, known in Style.PLACEHOLDERS.items():
        value = getattr(style, key)
        for text in vars(value).values() if isinstance(value, ByKind) else [value]:
            for word in _PLACEHOLDER.findall(text):
                if word not in known:
                    has = ", ".join(f"{{{k}}}" for k in known)
                    faults.append(f"{key}: unknown placeholder {{{word}}}{did_you_mean(word, known)}; it has {has}")
    return faults


def _faults(style: Style) -> list[str]:
    faults = []
    if "{question}" not in style.message and style.measure != "perplexity":
        faults.append("message: it lacks {question}, so all items would have the same prompt")
    if "{message}" not in style.turn or not style.turn.endswith("{reply}"):
        faults.append("turn: it has {message}, and ends with {reply}")
    if (style.budgets or style.extensions) and not style.trigger:
        faults.append("trigger: a style with budgets or extensions asks for the answer behind the reasoning")
    if style.extensions and not style.extend:
        faults.append("extend: name the text that extends the reasoning, such as Wait")
    if style.samples > 1 and not style.temperature:
        faults.append("temperature: 0 gives the same reply each time; with several samples set it, such as to 0.7")
    if style.measure == "answer" and not style.max_new_tokens and not style.budgets:
        faults.append("max_new_tokens: 0 leaves no reply")
    return faults


def of_kind(text: ByKind | str, kind: str, letters: Sequence[str]) -> str:
    """Returns the text for a kind of answer; {first} and {last} are the letters of the first and the last choice."""
    chosen = text if isinstance(text, str) else text.of(kind)
    first, last = (letters[0], letters[-1]) if letters else ("A", "E")
    return filled(chosen, {"first": first, "last": last})


def filled(template: str, values: Mapping[str, str]) -> str:
    """Returns a template with its placeholders replaced, in one pass; values may hold braces."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)
