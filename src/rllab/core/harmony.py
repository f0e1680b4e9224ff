"""OpenAI's response format Harmony, as text: its messages, and a parser that is fed with pieces of any size.

    <|start|>{role} to={recipient}<|channel|>{channel} <|constrain|>{type}<|message|>{content}<|end|>

An assistant thinks in the channel `analysis`, calls tools and announces calls in `commentary`, and answers in `final`.
What it samples follows `<|start|>assistant`, and ends with `<|return|>`, or with `<|call|>` where it calls a tool.
Source: https://github.com/openai/harmony, docs/format.md.

Strict parsing reads what OpenAI's own parser reads, and beyond that what only its renderer writes: authors with a name
(`user:ann`), results of tools without a recipient, `<|constrain|>` without a recipient, before it, or with a space
behind. It refuses all other text, and `<|start|>` or an end within a header, which that parser takes for a part of a
name. Parsing that is not strict accepts any text:

- what stands between messages is left out; a header of unknown form keeps what can be read of it;
- `<|start|>` and `<|channel|>` within a content begin the next message, as models leave out `<|end|>`;
- a header that ends without `<|message|>` makes a message that is not `whole`, with the words behind its channel.

Both cost time linear in the length of the text.
"""

import re
from dataclasses import dataclass, field, replace
from typing import NamedTuple

START, MESSAGE, CHANNEL, CONSTRAIN = "<|start|>", "<|message|>", "<|channel|>", "<|constrain|>"
END, RETURN, CALL = "<|end|>", "<|return|>", "<|call|>"
ENDS = (END, RETURN, CALL)
SPECIALS = (START, MESSAGE, CHANNEL, CONSTRAIN, *ENDS)
ROLES = ("system", "developer", "user", "assistant", "tool")
FUNCTIONS = "functions"  # the namespace of the tools that a developer defines
_SPECIAL = re.compile("|".join(map(re.escape, SPECIALS)))
_LONGEST = max(map(len, SPECIALS))
_WORD = re.compile(r"[^ \t\n\r\f]+")
_CHANNEL_NAME = re.compile(r"[^\s<]*")
_TOOL = re.compile(r"python|browser|\w[\w-]*(?:\.[\w-]+)+")  # the name of a tool as an author
_FAULTS = 100  # most faults that are kept of a text
_BETWEEN, _HEADER, _CONTENT = "between messages", "in a header", "in a content"


class BadHarmony(ValueError):
    """A text that is not in the format; the message says what is wrong, and at which character."""


@dataclass(frozen=True)
class HarmonyMessage:
    """A message.

    role: one of ROLES. name: of the author; a tool's is its own, such as functions.weather. recipient: whom it is for;
    "" for all. channel: "" for none. content_type: such as `<|constrain|>json`. end: the special token that ended it,
    "" where the text ended first. whole: it has a header that ends with `<|message|>`.
    """

    role: str
    content: str
    name: str = ""
    recipient: str = ""
    channel: str = ""
    content_type: str = ""
    end: str = field(default="", compare=False)
    whole: bool = field(default=True, compare=False)

    @property
    def is_call(self) -> bool:
        """Whether it is the assistant's call of a tool."""
        return self.role == "assistant" and self.recipient not in ("", "all", "user", "assistant")

    @property
    def is_final(self) -> bool:
        """Whether it is an answer of the assistant: whole, in the final channel, and not for a tool."""
        return self.role == "assistant" and self.channel == "final" and self.whole and not self.is_call


class Delta(NamedTuple):
    """Text that a piece added to the content of message number `message`, and who writes it where."""

    message: int
    role: str
    channel: str
    recipient: str
    text: str


class Parser:
    """Parses a text that comes in pieces. `messages` are those that are complete.

    role: of the author of the text that comes first, such as the assistant whom a prompt lets begin; "" where the text
    begins with `<|start|>`. faults: what was wrong with a text, where parsing is not strict.

    >>> parser = Parser()
    >>> [d.text for piece in ("<|channel|>final<|mess", "age|>It is", " 5.<|ret", "urn|>") for d in parser.feed(piece)]
    ['It is', ' 5.']
    >>> parser.messages
    [HarmonyMessage(role='assistant', content='It is 5.', name='', recipient='', channel='final', content_type='', \
end='<|return|>', whole=True)]
    """

    def __init__(self, role: str = "assistant", strict: bool = False) -> None:
        self.messages: list[HarmonyMessage] = []
        self.faults: list[str] = []
        self._strict, self._role, self._author = strict, role, role or "assistant"
        self._state, self._header, self._content = (_HEADER if role else _BETWEEN), list[str](), list[str]()
        self._open = HarmonyMessage("", "")
        self._held, self._place, self._stray = "", 0, False

    @property
    def current(self) -> HarmonyMessage | None:
        """The message that is not complete yet, with its content so far; None within and before a header."""
        return replace(self._open, content="".join(self._content)) if self._state == _CONTENT else None

    def feed(self, text: str) -> list[Delta]:
        """Reads a piece of text. The begin of a special token at its end is held back until the next piece.

        Raises:
            BadHarmony: the text is not in the format, and parsing is strict.
        """
        text, deltas, at = self._held + text, list[Delta](), 0
        for match in _SPECIAL.finditer(text):
            deltas += self.plain(text[at : match.start()])
            deltas += self.special(match[0])
            at = match.end()
        size = _held_back(text[at:])
        self._held = text[len(text) - size :]
        return deltas + self.plain(text[at : len(text) - size])

    def finish(self) -> list[Delta]:
        """Ends the text: a message without an end is complete.

        Raises:
            BadHarmony: the text ends in a header, and parsing is strict.
        """
        deltas, self._held = self.plain(self._held), ""
        if self._state == _CONTENT:
            self._complete("")
        elif self._state == _HEADER:
            self._fault("it ends in a header")
        self._state = _BETWEEN
        return deltas

    def plain(self, text: str) -> list[Delta]:
        """Reads text in which nothing is a special token, such as the text of a token that is none."""
        if not text:
            return []
        if self._state == _BETWEEN and not self._stray:
            blank = 0 if self._strict else len(text) - len(text.lstrip())
            if blank < len(text):
                self._fault(f"{text[blank]!r} stands between messages, where only {START} may stand", blank)
                self._stray = True
        self._place += len(text)
        if self._state == _HEADER:
            self._header.append(text)
        return self._added(text) if self._state == _CONTENT else []

    def special(self, token: str) -> list[Delta]:
        """Reads a special token, one of SPECIALS."""
        deltas = list[Delta]()
        if self._state == _CONTENT:
            deltas = self._in_content(token)
        elif self._state == _HEADER:
            deltas = self._in_header(token)
        elif token == START or (token == CHANNEL and not self._strict):
            self._begin(token)
        else:
            self._fault(f"{token} stands between messages, where only {START} may stand")
        self._place += len(token)
        return deltas

    def _added(self, text: str) -> list[Delta]:
        self._content.append(text)
        message = self._open
        return [Delta(len(self.messages), message.role, message.channel, message.recipient, text)]

    def _begin(self, token: str) -> None:
        """A header, which begins with a special token: without `<|start|>` it is of the same author."""
        self._state, self._header = _HEADER, [] if token == START else [token]
        self._role = "" if token == START else self._author

    def _in_content(self, token: str) -> list[Delta]:
        if token not in ENDS and (self._strict or token in (MESSAGE, CONSTRAIN)):
            return self._added(token)
        if token in ENDS:
            self._complete(token)
            self._state = _BETWEEN
        else:
            self._fault(f"{token} stands in a content")
            self._complete("")
            self._begin(token)
        return []

    def _in_header(self, token: str) -> list[Delta]:
        deltas = list[Delta]()
        header = "".join(self._header) if token not in (CHANNEL, CONSTRAIN) else ""
        if token in (CHANNEL, CONSTRAIN):
            self._header.append(token)
        elif token == MESSAGE:
            self._open, _ = self._read(header, whole=True)
            self._state, self._content = _CONTENT, []
        elif token == START:
            if header.strip() or not self._role:
                self._fault(f"{START} stands in a header")
            self._begin(START)
        else:
            self._fault(f"{token} stands in a header, which has no {MESSAGE}")
            if header.strip():
                self._open, content = self._read(header, whole=False)
                deltas = self._added(content) if content else []
                self._complete(token)
            self._state = _BETWEEN
        return deltas

    def _complete(self, end: str) -> None:
        self.messages.append(replace(self._open, content="".join(self._content), end=end))
        self._author, self._content, self._stray = self._open.role, [], False

    def _read(self, header: str, *, whole: bool) -> tuple[HarmonyMessage, str]:
        """(the message of a header, without its content; the content of one that is not whole: its other words)."""
        before, marker, after = header.partition(CHANNEL)
        after = after if self._strict else after.lstrip()
        match = _CHANNEL_NAME.match(after)
        channel = match[0] if marker and match else ""
        if marker and not channel:
            self._fault(f"no channel follows {CHANNEL}")
        before, constrained, after = (before + after[len(channel) :]).partition(CONSTRAIN)
        words, behind = _WORD.findall(before), _WORD.findall(after)
        content_type = CONSTRAIN + "".join(behind[:1]) if constrained else ""
        words += behind[1:]
        role, name = self._author_of(words, bool(content_type))
        message = HarmonyMessage(role, "", name, "", channel, content_type, whole=whole)
        if not whole:
            return message, " ".join(words)
        if len(words) > 1 and not content_type and not words[-1].startswith("to="):
            message = replace(message, content_type=words.pop())
        if words and not (self._strict or content_type or words[-1].startswith("to=") or _TOOL.fullmatch(words[-1])):
            message = replace(message, content_type=words.pop())  # a strict parser takes a lone word for the recipient
        if words:
            message = replace(message, recipient=words.pop().removeprefix("to="))
        if words:
            self._fault(f"{words[0][:40]!r} in a header is neither role, recipient, channel nor content type")
        return message, ""

    def _author_of(self, words: list[str], constrained: bool) -> tuple[str, str]:
        """(role, name) of the author, whose word is taken from the words of a header."""
        if self._role:
            if words[:1] == [self._role]:
                del words[0]
            return self._role, ""
        if not words:
            self._fault("a header has no role")
            return "assistant", ""
        word = words.pop(0)
        role, _, name = word.partition(":")
        if role in ROLES:
            return role, name or ("tool" if role == "tool" else "")
        if not (words or constrained or word.startswith("to=") or _TOOL.fullmatch(word)):
            self._fault(f"{word[:40]!r} is no role: roles are {', '.join(ROLES[:-1])}, and the name of a tool")
        return "tool", word

    def _fault(self, what: str, further: int = 0) -> None:
        """Something is wrong `further` characters behind the place of the parser."""
        fault = f"{what} (character {self._place + further + 1:,})"
        if self._strict:
            raise BadHarmony(fault)
        if len(self.faults) < _FAULTS:
            self.faults.append(fault)


def parse(text: str, role: str = "assistant", strict: bool = False) -> list[HarmonyMessage]:
    """The messages of a text. role, strict: as in `Parser`.

    Raises:
        BadHarmony: the text is not in the format, and parsing is strict.

    >>> [(m.channel, m.content) for m in parse("<|channel|>analysis<|message|>2 + 3<|end|>"
    ...                                        "<|start|>assistant<|channel|>final<|message|>5<|return|>")]
    [('analysis', '2 + 3'), ('final', '5')]
    """
    parser = Parser(role, strict)
    parser.feed(text)
    parser.finish()
    return parser.messages


def _held_back(text: str) -> int:
    """How many characters at the end of a text may begin a special token."""
    first = text.rfind("<", max(0, len(text) - _LONGEST + 1))
    return len(text) - first if first >= 0 and any(s.startswith(text[first:]) for s in SPECIALS) else 0
