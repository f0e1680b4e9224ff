"""Rows as texts and tokens, in the formats of TRL and `datasets`.

    {"prompt": ..., "completion": ...}             each a text, or a conversation: a list of {"role", "content"}
    {"prompt": ...}                                a prompt alone, which a policy completes
    {"messages": [...]}                            a conversation; the assistant's messages are learned
    {"text": ...}                                  a plain text, all of it learned
    {"prompt": ..., "chosen": ..., "rejected": ...}
    {"prompt": ..., "completions": [...], "ranks": [...]}     the lowest rank is the best answer

Conversations are rendered by the tokenizer's chat template, which gets a row's `tools`, its `chat_template_kwargs` and
its `style` ("direct", "think" or "free"). Of a completion of several messages the assistant's are learned. Plain texts
begin as the tokenizer begins a text, with its beginning-of-sequence token if it has one, and end with its end of text.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from rllab.core.errors import FieldMistake
from rllab.core.messages import last_text
from rllab.text.conversations import (
    Message,
    common_beginning,
    described,
    is_conversation,
    options_of,
    read_messages,
)
from rllab.text.packing import Document
from rllab.text.template import Span, Template

Row = Mapping[str, Any]
Text = tuple[str, list[Span]]
"""A prompt with its completion, and the characters of it that are learned."""


class RowMistake(FieldMistake):
    """A row that cannot be read. index: its place among the rows that were given, from 0."""

    def __init__(self, field: str, message: str, index: int) -> None:
        super().__init__(field, message)
        self.index = index


def prompt_texts(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> list[str]:
    """The text of each row's prompt, up to where the model's completion begins."""
    templates = _Templates(tokenizer)
    return [_each(i, _prompt, templates, row) for i, row in enumerate(rows)]


def prompt_ids(
    tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row], texts: Sequence[str] | None = None
) -> list[list[int]]:
    """The token ids of each row's prompt. texts: what `prompt_texts` returned, where that is known already."""
    encode, texts = _Encoder(tokenizer), list(prompt_texts(tokenizer, rows) if texts is None else texts)
    encode.read(texts)
    return [encode.prompt(text, plain=_is_plain(row)) for text, row in zip(texts, rows, strict=True)]


def reply_ids(
    tokenizer: PreTrainedTokenizerFast,
    reply: Sequence[Mapping[str, Any]],
    row: Row,
    *,
    ended: bool = True,
    calls: Sequence[str] = (),
) -> list[int]:
    """The token ids of a reply, between the end of the model's last turn and the begin of its next.

    ended: the model ended its turn with a stop token; else the reply begins with the template's end of a turn. calls:
    the names of the tools that its last turn calls.

    Raises:
        FieldMistake: the chat template leaves out the model's earlier turns.
    """
    before, after = Template(tokenizer, options_of(row)).reply(read_messages(reply), ended, calls)
    return _Encoder(tokenizer).continuation(before, after)


def ids_behind(tokenizer: PreTrainedTokenizerFast, before: str, text: str) -> list[int]:
    """The token ids of a text behind another text."""
    return _Encoder(tokenizer).continuation(before, text)


def documents(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> list[Document]:
    """The token ids of each row: its prompt and its completions.

    Raises:
        RowMistake: a row has no conversation that the template renders, or nothing to learn.
    """
    templates, encode = _Templates(tokenizer), _Encoder(tokenizer)
    each = [_each(i, _texts, templates, row) for i, row in enumerate(rows)]
    encode.read([t for prompt, texts in each for t in (prompt, *(text for text, _ in texts)) if t is not None])
    return [_document(encode, row, *texts) for row, texts in zip(rows, each, strict=True)]


def completions(row: Row) -> list[Any]:
    """The completions of a row; of a preference the chosen one first. [] where the row has a prompt alone."""
    if "chosen" in row:
        return [row["chosen"], row["rejected"]]
    return list(row["completions"]) if "completions" in row else [row["completion"]] if "completion" in row else []


def turns_of(row: Row) -> int:
    """How many turns a row has that can be learned: messages of the assistant, and texts."""
    if "messages" in row:
        return sum(message["role"] == "assistant" for message in row["messages"])
    if "text" in row:
        return 1
    each = [_listed(completion, "assistant") for completion in completions(row)]
    return sum(message["role"] == "assistant" for messages in each for message in messages)


def _each(index: int, read: Callable[..., Any], templates: "_Templates", row: Row) -> Any:
    try:
        return read(templates, row)
    except FieldMistake as error:
        raise RowMistake(error.field, str(error), index) from error
    except ValueError as error:
        raise RowMistake("task", str(error), index) from error


class _Templates:
    """The tokenizer's template for the options of each row."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self._templates: dict[str, Template] = {}

    def of(self, row: Row) -> Template:
        options = options_of(row)
        key = json.dumps(options, sort_keys=True, default=str)
        if key not in self._templates:
            self._templates[key] = Template(self.tokenizer, options)
        return self._templates[key]


def _is_plain(row: Row) -> bool:
    """Whether a row has texts alone, which are learned without the chat template."""
    if "messages" in row:
        return False
    return "text" in row or not any(is_conversation(part) for part in (row["prompt"], *completions(row)))


def _prompt(templates: _Templates, row: Row) -> str:
    if not is_conversation(row["prompt"]) and _is_plain(row):
        return str(row["prompt"])
    messages = read_messages(_conversations(row)[0])
    return templates.of(row).question(messages)


def _texts(templates: _Templates, row: Row) -> tuple[str | None, list[Text]]:
    """(the text of the prompt, the text of prompt and completion for each completion).

    A prompt of None ends where the first learned token begins.
    """
    if _is_plain(row):
        end, prompt = str(templates.tokenizer.eos_token), "" if "text" in row else str(row["prompt"])
        answers = [row["text"]] if "text" in row else map(last_text, completions(row))
        wholes = [prompt + answer + ("" if answer.endswith(end) else end) for answer in answers]
        return prompt, [(whole, [(len(prompt), len(whole))]) for whole in wholes]
    template = templates.of(row)
    if "messages" in row:
        rendered = template.conversation(read_messages(row["messages"]))
        if not rendered.learned:
            raise ValueError(f"nothing is learned of {described(read_messages(row['messages']))}")
        return None, [(rendered.text, rendered.learned)]
    prompt_messages, answers = _conversations(row)
    read = read_messages(prompt_messages)
    if not answers:
        return template.question(read), []
    each = [template.conversation(read + read_messages(a), len(read)) for a in answers]
    if not all(r.learned for r in each):
        raise ValueError(f"nothing is learned of a completion of {described(read)}")
    return common_beginning([r.text[: r.begin] for r in each]), [(r.text, r.learned) for r in each]


def _conversations(row: Row) -> tuple[list[Any], list[list[Any]]]:
    """(the messages of the prompt, those of each completion). A text is a message of the user or of the assistant.

    A completion that begins with the prompt, as in UltraFeedback, loses it.
    """
    prompt, answers = row["prompt"], []
    messages = _listed(prompt, "user")
    for answer in completions(row):
        own = _listed(answer, "assistant")
        if own and not is_conversation(prompt):
            own = _without_prompt(str(prompt), own)
        elif own[: len(messages)] == messages:
            own = own[len(messages) :]
        answers.append(own)
    return messages, answers


def _listed(value: Any, role: str) -> list[Any]:
    """The messages of a prompt or completion; a text is one of `role`."""
    if not is_conversation(value):
        return [{"role": role, "content": value}]
    return [value] if isinstance(value, Mapping) else list(value)


def _without_prompt(prompt: str, answer: list[Message]) -> list[Message]:
    """The messages of an answer without the user's first one.

    Raises:
        ValueError: the first message is the user's, but not the prompt.
    """
    if answer[0].get("role") == "assistant":
        return answer
    if str(answer[0].get("content")).strip() != prompt.strip():
        raise ValueError(
            f"its prompt is {prompt[:80]!r}, and its completion is a conversation that begins otherwise, with "
            f"{str(answer[0].get('content'))[:80]!r}: leave out the column `prompt`, or make it a list of messages"
        )
    return answer[1:]


def _document(encode: "_Encoder", row: Row, prompt: str | None, texts: list[Text]) -> Document:
    if prompt is None:
        ((text, learned),) = texts
        ids, mask = encode.learned(text, learned)
        first = max(1, mask.index(True))
        return Document(ids[:first], [ids[first:]], [mask[first:]])
    begin = encode.prompt(prompt, plain=_is_plain(row))
    each = [encode.behind(prompt, text, learned) for text, learned in texts]
    return Document(begin, [ids for ids, _ in each], [mask for _, mask in each])


class _Encoder:
    """Texts as token ids. Whole texts are tokenized, and cut where a character of them is."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer, self._backend = tokenizer, tokenizer.backend_tokenizer
        self._read: dict[str, Any] = {}

    def read(self, texts: list[str]) -> None:
        """Tokenizes many texts at once, which is faster than one after another."""
        unlike = list(dict.fromkeys(texts))
        self._read |= zip(unlike, self._backend.encode_batch(unlike, add_special_tokens=False), strict=True)

    def prompt(self, text: str, *, plain: bool) -> list[int]:
        """The ids of a prompt; of a plain one behind what the tokenizer puts before a text."""
        ids, front = list(self._encoding(text).ids), self._front if plain else []
        ids = ids if ids[: len(front)] == front else front + ids
        return ids or [self._first_token()]

    def learned(self, text: str, spans: Sequence[Span]) -> tuple[list[int], list[bool]]:
        """(the ids of a text, which of them hold a character of `spans`)."""
        encoding = self._encoding(text)
        firsts, ends = np.array(encoding.offsets, int).reshape(-1, 2).T
        ends = np.maximum.accumulate(ends)
        firsts[1:] = np.minimum(firsts[1:], ends[:-1])  # offsets may lack the space before a word
        mask, whole = np.zeros(len(ends), bool), ~np.isin(encoding.ids, self._special)
        for first, end in spans:  # a special token before a span may have taken the whitespace at its begin
            mask |= (firsts < end) & (ends > first) & (whole | (firsts >= first))
        return list(encoding.ids), mask.tolist()

    def behind(self, prompt: str, text: str, spans: Sequence[Span]) -> tuple[list[int], list[bool]]:
        """(the ids of a text behind its prompt, which of them are learned).

        The prompt's own ids come first, since a model that completes it sees these.
        """
        ids, mask = self.learned(text, spans)
        begin = self._encoding(prompt).ids or self._written_front(ids)
        if ids[: len(begin)] == begin:
            return ids[len(begin) :], mask[len(begin) :]
        rest, shift = text[len(prompt) :], len(prompt)
        return self._inside(rest, [(max(0, a - shift), b - shift) for a, b in spans])

    def continuation(self, before: str, text: str) -> list[int]:
        """The ids of a text behind another."""
        return self.behind(before, before + text, [])[0]

    def _inside(self, text: str, spans: Sequence[Span]) -> tuple[list[int], list[bool]]:
        """(the ids of a text as they are within another, which of them are learned).

        A token of the whole text holds the last character before it and its first. So it is tokenized behind the begin
        of a line, where no tokenizer puts a space before it.
        """
        moved = [(a + 1, b + 1) for a, b in spans]
        ids, mask = self.learned("\n" + text, moved)
        ends = [end for _, end in self._encoding("\n" + text).offsets]
        if 1 in ends:
            first = max(i for i, end in enumerate(ends) if end <= 1) + 1
            return ids[first:], mask[first:]
        return self.learned(text, spans)

    def _encoding(self, text: str) -> Any:
        if text not in self._read:
            self._read[text] = self._backend.encode(text, add_special_tokens=False)
        return self._read[text]

    @cached_property
    def _special(self) -> list[int]:
        return [i for i, token in self._tokenizer.added_tokens_decoder.items() if token.special]

    @cached_property
    def _front(self) -> list[int]:
        """The ids that the tokenizer's post-processor puts before a text, such as the begin of a sequence."""
        own, whole = (self._backend.encode("a", add_special_tokens=special).ids for special in (False, True))
        places = [i for i in range(len(whole)) if whole[i : i + len(own)] == own]
        return list(whole[: places[0]]) if places else []

    def _written_front(self, ids: list[int]) -> list[int]:
        """What the tokenizer puts before a text, if the text writes it itself."""
        front = self._front
        return front if ids[: len(front)] == front else []

    def _first_token(self) -> int:
        """The token that stands for an empty prompt: the model predicts a text's first token from it."""
        bos, eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        first = bos if bos is not None else eos
        assert isinstance(first, int)
        return first
