"""Chat templates: a conversation as a template renders it, and the characters in it that the assistant writes.

A template marks them by `{% generation %}`. Of one without marks they are found by rendering prefixes: a turn begins
where the rendering of the messages before it, with the generation prompt, ends. It ends with the template's own end of
a turn, which two renderings of a placeholder show.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from rllab.core.errors import FieldMistake
from rllab.core.harmony import CALL, FUNCTIONS
from rllab.core.messages import END_THINK, THINK, opening_of
from rllab.text.channels import HARMONY, call_turn, in_fields, speaks_harmony, stop_tokens, turn_begin, turn_end
from rllab.text.conversations import (
    Message,
    after_opening,
    called,
    common_beginning,
    described,
    is_learned,
    thinking,
)
from rllab.text.deadline import Late, deadline
from rllab.text.template_checks import check_messages, check_tools, not_recognized, without_thinking
from rllab.text.tokenizers import CHAT

_MARK, _NEXT = "=== reply ===", "=== next ==="
_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
DEADLINE = 20.0  # seconds for a chat template to render a conversation
Span = tuple[int, int]
"""The first character, and the one after the last."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, up to the end of the assistant's last turn.

    learned: the characters of each learned turn. begin: the character at which the first turn begins that could be
    learned.
    """

    text: str
    learned: list[Span]
    begin: int


class Template:
    """The chat template of a tokenizer, for rows with the same `options_of`.

    Raises:
        FieldMistake: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, options: Mapping[str, Any]) -> None:
        if tokenizer.chat_template is None:
            raise FieldMistake(
                "model",
                "its tokenizer has no chat template, which conversations need: take its instruct version, put a "
                "chat_template.jinja into the model's folder, or join columns to a plain text, as in task: "
                '{name: mine.jsonl, prompt: "{instruction}\\n{input}\\n", completion: "{output}"}',
            )
        self._tokenizer, self._options = tokenizer, dict(options)
        self._tools = [tool["function"]["name"] for tool in self._options.get("tools") or ()]
        self._source = tokenizer.get_chat_template(tools=self._options.get("tools"))
        self._harmony = speaks_harmony(tokenizer)

    def prompt(self, messages: Sequence[Message]) -> str:
        """A conversation up to where the model's next turn begins."""
        return self._rendered(messages, add_generation_prompt=True)[0]

    def reply(self, reply: Sequence[Message], ended: bool = True, calls: Sequence[str] = ()) -> tuple[str, str]:
        """(a text that ends as the model's turn does, what the template renders of a reply to it up to the next turn).

        ended: the model has written the end of its turn, which is left out of the reply. calls: the tools that it
        calls.

        The reply is rendered after a placeholder turn, not after the model's own: templates may rewrite earlier turns,
        and sampled tokens are not always those that the tokenizer makes of their text.

        Raises:
            FieldMistake: the template leaves out the model's earlier turns, or the reply.
        """
        asked, turn, end = {"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}, self.ends[1]
        if self._harmony and reply[0]["role"] == "tool":  # whose result is headed by the name of the call
            turn, end = call_turn(next(iter([*calls, *self._tools]), FUNCTIONS), _MARK), CALL
        before, mark, after = self.prompt([asked, turn, *reply]).rpartition(_MARK)
        if end == CALL:  # behind the rest of the arguments
            rest, _, after = after.partition(CALL)
            before, after = before + mark + rest, CALL + after
        for i, message in enumerate(reply):
            if message["content"].strip() not in after and _NEXT not in self.prompt(
                [asked, turn, *reply[:i], message | {"content": _NEXT}, *reply[i + 1 :]]
            ):
                raise FieldMistake("model", f"its chat template leaves out a reply of the role {message['role']!r}: "
                                   "let the task reply as the user")  # fmt: skip
        if not mark:
            raise FieldMistake("model", "its chat template leaves out the model's earlier turns: it cannot take turns")
        end = end if ended and after.startswith(end) else ""
        return before + mark + end, after.removeprefix(end)

    def conversation(self, messages: Sequence[Message], first: int = 0) -> Rendered:
        """A conversation, of which the assistant's turns from message `first` on are learned.

        Raises:
            FieldMistake: the template leaves out what the last turn thinks, a tool, a call of one or its result, or a
                system message.
            ValueError: none of the messages from `first` on is by the assistant.
        """
        turns = [i for i, m in enumerate(messages) if i >= first and m["role"] == "assistant"]
        if not turns:
            raise ValueError("none of its messages is by the assistant, so there is nothing to learn")
        shown = self._in_fields(messages[: turns[-1] + 1])
        marks = _GENERATION.search(self._source)
        try:
            rendered = self._by_marks(shown, turns, first) if marks else self._by_prefixes(shown, turns)
        except FieldMistake:
            check_tools(self._tools, self.prompt([{"role": "user", "content": "?"}]))  # it may fail because of tools
            raise
        check_tools(self._tools, rendered.text)
        check_messages(shown, rendered.text, lambda messages: self._rendered(messages)[0])
        return rendered

    def question(self, messages: Sequence[Message]) -> str:
        """The `prompt` of a row, which a policy completes.

        Raises:
            FieldMistake: the template leaves out a tool or its result, or a system message.
        """
        text = self.prompt(messages)
        check_tools(self._tools, text)
        check_messages(messages, text, self.prompt)
        return text

    @cached_property
    def ends(self) -> tuple[str, str]:
        """The text that ends the assistant's turn: (of the last turn, of an earlier one). '' where there is none."""
        turn = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
        last = self._rendered(turn)[0].partition(_MARK)[2]
        try:
            longer = self._rendered([*turn, {"role": "user", "content": _NEXT}])[0]
        except FieldMistake:  # it takes one answer alone, and so has no earlier turns
            longer = _MARK + last
        middle = longer.partition(_MARK)[2].partition(_NEXT)[0]
        end = self._special(last) or common_beginning([last, middle]).rstrip()
        return end, end if middle.startswith(end) else self._special(middle)

    @property
    def end_tokens(self) -> set[str]:
        """The tokens that end the assistant's turn; none where that is a text of several."""
        if self._harmony:
            return stop_tokens(self._tokenizer)
        return {end.strip() for end in self.ends} & set(self._tokenizer.get_added_vocab())

    @property
    def end_texts(self) -> tuple[str, ...]:
        """The ends of the assistant's turn that are no token of their own."""
        if self._harmony:
            return ()
        return tuple(dict.fromkeys(e for e in self.ends if e.strip() and e.strip() not in self.end_tokens))

    def _special(self, text: str) -> str:
        """The beginning of a text up to its first special token, if nothing but whitespace stands before that."""
        tokens = [t.content for t in self._tokenizer.added_tokens_decoder.values() if t.special]
        starts = [t for t in tokens if text.lstrip().startswith(t)]
        size = len(text) - len(text.lstrip())
        return text[: size + len(max(starts, key=len))] if starts else ""

    def _by_marks(self, shown: list[Message], turns: list[int], first: int) -> Rendered:
        """What the template marks; behind a prompt, of `first` messages, without what the generation prompt holds."""
        text, marked = self._rendered(shown, return_assistant_tokens_mask=True)
        marked = [span for span in marked if span[0] < span[1]]
        assistants = [i for i, m in enumerate(shown) if m["role"] == "assistant"]
        if len(marked) != len(assistants):
            raise FieldMistake(
                "model",
                f"its chat template marks {len(marked)} turns by {{% generation %}} in {described(shown)}: mark each "
                "of the assistant's turns once",
            )
        begin = self._start(shown, turns[0], text) if first else None
        begin = marked[assistants.index(turns[0])][0] if begin is None else begin
        spans = [(max(a, begin), b) for (a, b), i in zip(marked, assistants, strict=True) if i in turns]
        complete = [thinking(shown[i]).strip() in text[a:b] for (a, b), i in zip(spans, turns, strict=True)]
        if not complete[-1]:
            raise without_thinking(shown)
        each = zip(spans, turns, complete, strict=True)
        return Rendered(
            text[: spans[-1][1]], [span for span, i, whole in each if whole and is_learned(shown[i])], begin
        )

    def _by_prefixes(self, shown: list[Message], turns: list[int]) -> Rendered:
        text, last = self._last_turn(shown)
        starts = [*(self._start(shown, i, text) for i in turns[:-1]), last]
        learned = list[Span]()
        for place, i in enumerate(turns):
            start = starts[place]
            limit = next((s for s in starts[place + 1 :] if s is not None), None)
            end = None if start is None else self._end(text, start, limit, shown[i])
            complete = end is not None and thinking(shown[i]).strip() in text[start:end]
            if end is None and is_learned(shown[i]) and called(shown[i]):
                raise not_recognized(shown[: i + 1])
            if limit is None:
                assert start is not None and end is not None
                if not complete:
                    raise without_thinking(shown)
                text = text[:end]
            if is_learned(shown[i]) and complete:
                assert start is not None and end is not None
                content, span = shown[i]["content"], text[start:end]
                lost = content.partition(END_THINK)[2].strip() not in span  # a second thinking, or what is before it
                if lost or (content.strip() not in span and _MARK not in self._with_mark(shown, i)):
                    raise not_recognized(shown[: i + 1])
                learned.append((start, end))
        return Rendered(text, learned, next(s for s in starts if s is not None))

    def _last_turn(self, shown: list[Message]) -> tuple[str, int]:
        """(the whole text, the character at which the last turn begins); the text begins with the generation prompt.

        A generation prompt may open the thinking of a template that leaves all thinking out of its messages. Then the
        message's own thinking follows.
        """
        prompt = self.prompt(shown[:-1]) if shown[:-1] else ""
        text = self._rendered(shown)[0]
        if text.startswith(prompt):
            return text, len(prompt)
        opening = opening_of(prompt)
        bare = prompt.removesuffix(opening)
        before, mark, behind = self._with_mark(shown, len(shown) - 1).partition(_MARK)
        if self._harmony:  # it leaves out the thinking of earlier calls, which the model saw when it wrote this turn
            begin = turn_begin(before) if mark else None
            if begin is None or not text.startswith(before[:begin]):
                raise not_recognized(shown)
            return bare + text[begin:], len(bare)
        if opening and thinking(shown[-1]).strip():
            written = after_opening(shown[-1]).removeprefix(opening.removeprefix(THINK))
            return prompt + written + behind, len(prompt)
        if opening and text.startswith(bare):
            return text, len(bare)
        if mark and text.startswith(before):
            return prompt + text[len(before) :], len(prompt)
        raise not_recognized(shown)

    def _start(self, shown: list[Message], turn: int, text: str) -> int | None:
        """The character of `text` at which a turn begins; None where the template does not render it."""
        prompt = self.prompt(shown[:turn]) if turn else ""
        for begin in (prompt, prompt.removesuffix(opening_of(prompt))):
            if begin and text.startswith(begin):
                return len(begin)
        before, mark, _ = self._with_mark(shown, turn).partition(_MARK)
        if self._harmony:
            before = before[: turn_begin(before) or 0]
        begins = [before, before.rstrip()] if mark else []  # whitespace before the content may be the turn's own
        begins.sort(key=lambda begin: begin[-1:] != prompt.removesuffix(opening_of(prompt))[-1:])
        return next((len(begin) for begin in begins if text.startswith(begin)), None)

    def _with_mark(self, shown: list[Message], turn: int) -> str:
        """The conversation with a mark as the content of one turn, without its thinking and calls."""
        own = ("reasoning_content", "thinking", "tool_calls")
        message = {k: v for k, v in shown[turn].items() if k not in own} | {"content": _MARK}
        return self._rendered([*shown[:turn], message, *shown[turn + 1 :]])[0]

    def _end(self, text: str, start: int, limit: int | None, message: Message) -> int | None:
        """The character behind a turn; None where it cannot be located. limit: where the next turn begins."""
        if self._harmony:
            return turn_end(text, start, limit)
        end = self.ends[0 if limit is None else 1]
        place = text.rfind(end, start) if limit is None else text.find(end, start, limit)
        if end and place >= 0:
            return place + len(end)
        if limit is None:
            return start + len(text[start:].rstrip())
        content = message["content"].strip()
        place = text.find(content, start, limit)
        return place + len(content) if content and place >= 0 else None

    def _in_fields(self, messages: Sequence[Message]) -> list[Message]:
        return in_fields(messages, self._source) if self._harmony else list(messages)

    def _rendered(self, messages: Sequence[Message], **how: bool) -> tuple[str, list[Span]]:
        """(the text, the characters that the template marks)."""
        arguments = {**self._tokenizer.special_tokens_map, **self._options, **how}
        own = self._source in (CHAT, HARMONY)
        try:  # another template is a program that came with the model
            with nullcontext() if own else deadline(DEADLINE):
                rendered: Any = render_jinja_template(
                    [self._in_fields(messages)], chat_template=self._source, **arguments
                )
        except Late:
            raise FieldMistake(
                "model",
                f"its chat template does not end within {DEADLINE:.0f} seconds on {described(messages)}; take another "
                "model, or leave out this row",
            ) from None
        except Exception as error:
            raise FieldMistake("model", f"the chat template fails on {described(messages)}: {error}") from None
        texts, marked = rendered
        return str(texts[0]), [(a, b) for a, b in marked[0]] if marked else []
