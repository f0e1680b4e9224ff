"""Renders conversations in OpenAI's response format Harmony, and parses the tokens that a model samples in it.

    text = render([System(), Developer("Answer in rhymes."), HarmonyMessage("user", "What is 2 + 3?")], "assistant")

The text is tokenized by any tokenizer that has the format's special tokens. `rllab.core.harmony` parses texts. Source
of the format: https://github.com/openai/harmony, docs/format.md.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rllab.core.errors import Mistake
from rllab.core.harmony import (
    CALL,
    CHANNEL,
    CONSTRAIN,
    END,
    ENDS,
    FUNCTIONS,
    MESSAGE,
    RETURN,
    ROLES,
    SPECIALS,
    START,
    Delta,
    HarmonyMessage,
    Parser,
)
from rllab.text.conversations import read_tools
from rllab.text.signatures import Namespace, tools_section

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

EFFORTS = ("low", "medium", "high")


@dataclass(frozen=True)
class System:
    """The system message: what the model is, how much it thinks, in which channels it writes, and its own tools.

    "" leaves a line out, and so do no channels. tools: namespaces such as `rllab.text.harmony_tools.BROWSER`.
    """

    model_identity: str = "You are ChatGPT, a large language model trained by OpenAI."
    reasoning: str = "medium"  # one of EFFORTS
    knowledge_cutoff: str = "2024-06"
    current_date: str = ""
    channels: Sequence[str] = ("analysis", "commentary", "final")
    channel_required: bool = True
    tools: Sequence[Namespace] = ()

    def text(self, has_functions: bool) -> str:
        """Its content. has_functions: a developer message of the conversation defines functions."""
        about = {"": self.model_identity, "Knowledge cutoff: ": self.knowledge_cutoff}
        about |= {"Current date: ": self.current_date}
        sections = ["\n".join(key + value for key, value in about.items() if value)]
        sections.append(f"Reasoning: {self.reasoning}" if self.reasoning else "")
        sections.append(tools_section(self.tools) if self.tools else "")
        if self.channels:
            required = " Channel must be included for every message." if self.channel_required else ""
            where = f"\nCalls to these tools must go to the commentary channel: '{FUNCTIONS}'." if has_functions else ""
            sections.append(f"# Valid channels: {', '.join(self.channels)}.{required}{where}")
        return "\n\n".join(section for section in sections if section)


@dataclass(frozen=True)
class Developer:
    """The developer message: instructions, and functions that the assistant may call, as in OpenAI's API."""

    instructions: str | None = None
    functions: Sequence[Any] = ()

    def text(self) -> str:
        """Its content.

        Raises:
            ValueError: the functions cannot be read.
        """
        sections = [] if self.instructions is None else ["# Instructions", self.instructions]
        if read_tools(self.functions):
            functions = [tool.get("function", tool) for tool in self.functions]  # with keys that are null
            sections.append(tools_section([Namespace(FUNCTIONS, tools=functions)]))
        return "\n\n".join(sections)


Conversation = Sequence[System | Developer | HarmonyMessage]


def render(
    conversation: Conversation, completion: str = "", *, drop_analysis: bool = True, training: bool = False
) -> str:
    """A conversation as text.

    completion: the role whose message a model is to write next, such as "assistant"; "" ends behind the last message.
    drop_analysis: leaves out the thinking before the first answer, if the assistant's last message is an answer, in the
    channel `final`. Thinking between answers, and before a call that no answer follows, is kept. training: an answer at
    the end of the conversation ends with `<|return|>`, as a model samples it, and not with `<|end|>`.

    Raises:
        Mistake: a message cannot be written in the format; the message says which one, and why.
    """
    has_functions = any(isinstance(m, Developer) and m.functions for m in conversation)
    kept = list(conversation if not drop_analysis else _without_analysis(conversation))
    places = {id(message): number for number, message in enumerate(conversation, 1)}
    texts = []
    for message in kept:
        try:
            texts.append(_rendered(message, has_functions))
        except ValueError as error:
            raise Mistake(f"message {places[id(message)]} of {len(conversation)}: {error}") from None
    last = conversation[-1] if conversation else None
    if training and isinstance(last, HarmonyMessage) and (last.role, last.channel) == ("assistant", "final"):
        texts[-1] = texts[-1].removesuffix(END).removesuffix(CALL) + RETURN
    return "".join(texts) + (START + completion if completion else "")


def _without_analysis(conversation: Conversation) -> Iterator[System | Developer | HarmonyMessage]:
    messages = [m if isinstance(m, HarmonyMessage) else HarmonyMessage("system", "") for m in conversation]
    own = [m for m in messages if m.role == "assistant"]
    finals = [i for i, m in enumerate(messages) if m.channel == "final"]
    first = finals[0] if own and own[-1].channel == "final" else 0
    for i, message in enumerate(messages):
        if i >= first or message.channel != "analysis":
            yield conversation[i]


def _rendered(message: System | Developer | HarmonyMessage, has_functions: bool) -> str:
    """A message as text.

    Raises:
        ValueError: it cannot be written in the format.
    """
    if isinstance(message, System):
        if message.reasoning and message.reasoning not in EFFORTS:
            raise ValueError(f"the reasoning {message.reasoning!r} is unknown: take {', '.join(EFFORTS)}")
        message = HarmonyMessage("system", message.text(has_functions))
    elif isinstance(message, Developer):
        message = HarmonyMessage("developer", message.text())
    _check(message)
    author = message.name if message.role == "tool" else message.role + (f":{message.name}" if message.name else "")
    to = f" to={message.recipient}" if message.recipient not in ("", "all") else ""
    channel = CHANNEL + message.channel if message.channel else ""
    kind = f" {message.content_type}" if message.content_type else ""
    end = CALL if message.role == "assistant" and message.recipient else END
    return f"{START}{author}{to}{channel}{kind}{MESSAGE}{message.content}{end}"


def _check(message: HarmonyMessage) -> None:
    """Refuses what a parser would read as other messages.

    Raises:
        ValueError: a special token or a space is where it would do so, or the author is unknown.
    """
    if message.role not in ROLES:
        raise ValueError(f"its role is {message.role!r}: roles are {', '.join(ROLES)}")
    if message.role == "tool" and not message.name:
        raise ValueError("it is a tool's and has no name, such as functions.weather")
    header = {"name": message.name, "recipient": message.recipient, "channel": message.channel}
    header |= {"content type": message.content_type.removeprefix(CONSTRAIN).strip()}
    for key, value in header.items():
        if any(c.isspace() or c == "<" for c in value):
            raise ValueError(f"its {key} is {value[:40]!r}: it may hold no space and no <")
    if special := next((s for s in SPECIALS if s in message.content), ""):
        raise ValueError(f"its content holds {special}, which would be read as a special token: leave it out")


class TokenParser:
    """Parses the tokens that a model samples, one by one: `rllab.core.harmony.Parser` for token ids.

    Special tokens of the format are recognized by their ids, so an ordinary text `<|end|>` ends nothing. A character of
    several tokens comes with its last one.

    Raises:
        Mistake: the tokenizer lacks a special token of the format.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", role: str = "assistant", strict: bool = False) -> None:
        self.parser = Parser(role, strict)
        self._tokenizer, self._ids = tokenizer, list[int]()
        missing = [s for s in (START, MESSAGE, CHANNEL, *ENDS) if s not in tokenizer.get_vocab()]
        if missing:
            raise Mistake(f"the tokenizer has no {missing[0]}: a model of Harmony's format has it as a special token")

    @property
    def messages(self) -> list[HarmonyMessage]:
        """The messages that are complete."""
        return self.parser.messages

    @cached_property
    def _specials(self) -> dict[int, str]:
        vocabulary = self._tokenizer.get_vocab()
        return {vocabulary[special]: special for special in SPECIALS if special in vocabulary}

    def feed(self, ids: Iterable[int]) -> list[Delta]:
        """Reads tokens.

        Raises:
            BadHarmony: they are not in the format, and parsing is strict.
        """
        deltas = []
        for token in ids:
            if special := self._specials.get(token):
                deltas += self._flush()
                self.parser.special(special)
                continue
            self._ids.append(token)
            text = str(self._tokenizer.decode(self._ids))
            if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # of which the other bytes come with the next token
                deltas += self._flush()
        return deltas

    def finish(self) -> list[Delta]:
        """Ends the text, as `Parser.finish`."""
        return self._flush() + self.parser.finish()

    def _flush(self) -> list[Delta]:
        ids, self._ids = self._ids, []
        return self.parser.plain(str(self._tokenizer.decode(ids))) if ids else []
