"""Rows as texts and tokens, in the formats of TRL and `datasets`.

    {"prompt": ..., "completion": ...}             each a text, or a conversation: a list of {"role", "content"}
    {"prompt": ...}                                a prompt alone, which a policy completes
    {"messages": [...]}                            a conversation; the assistant's messages are learned
    {"text": ...}                                  a plain text, all of it learned
    {"prompt": ..., "chosen": ..., "rejected": ...}
    {"prompt": ..., "completions": [...], "ranks": [...]}     the lowest rank is the best answer

Conversations are rendered by the tokenizer's chat template, which gets a row's `style` ("direct", "think" or "free").
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from transformers import PreTrainedTokenizerFast

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.messages import last_text
from rllab.text.deadline import Late, deadline
from rllab.text.packing import Document
from rllab.text.tokenizers import CHAT

Row = Mapping[str, Any]
Piece = tuple[str, bool]
"""A piece of text, and whether it is learned."""
_MARK = "=== reply ==="
DEADLINE = 20.0  # seconds for a chat template to render a conversation


def prompt_texts(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> list[str]:
    """The text of each row's prompt, up to where the model's completion begins."""
    return [_prompt(tokenizer, row["prompt"], row) for row in rows]


def prompt_ids(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> list[list[int]]:
    """The token ids of each row's prompt."""
    return _encode(tokenizer, prompt_texts(tokenizer, rows))


def reply_ids(tokenizer: PreTrainedTokenizerFast, reply: Sequence[Mapping[str, str]], row: Row) -> list[int]:
    """The token ids of a reply, between the end of the model's last turn and the begin of its next.

    They are rendered after a placeholder turn, not after the model's own: templates may rewrite earlier turns, and
    sampled tokens are not always those that the tokenizer makes of their text.

    Raises:
        FieldMistake: the chat template leaves out the model's earlier turns.
    """
    conversation = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}, *reply]
    _, mark, after = _prompt(tokenizer, conversation, row).rpartition(_MARK)
    if not mark:
        raise FieldMistake("model", "its chat template leaves out the model's earlier turns: it cannot take turns")
    return _encode(tokenizer, [after.removeprefix(str(tokenizer.eos_token))])[0]


def documents(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> list[Document]:
    """The token ids of each row: its prompt and its completions."""
    texts = [_texts(tokenizer, row) for row in rows]
    flat = [t for prompt, completions in texts for t in (prompt, *(p for c in completions for p, _ in c))]
    ids = iter(_encode(tokenizer, flat))
    tokenized = []
    for _, completions in texts:
        prompt = next(ids) or [_first_token(tokenizer)]
        pieces = [[(next(ids), learned) for _, learned in c] for c in completions]
        tokens = [[token for piece, _ in c for token in piece] for c in pieces]
        learned = [[yes for piece, yes in c for _ in piece] for c in pieces]
        tokenized.append(Document(prompt, tokens, learned))
    return tokenized


def _encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    return [e.ids for e in tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)]


def _first_token(tokenizer: PreTrainedTokenizerFast) -> int:
    """The token that stands for an empty prompt: the model predicts a text's first token from it."""
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    assert isinstance(first, int)
    return first


def _texts(tokenizer: PreTrainedTokenizerFast, row: Row) -> tuple[str, list[list[Piece]]]:
    """(prompt, the pieces of each completion) of a row."""
    end = str(tokenizer.eos_token)
    if "messages" in row:
        return _conversation(tokenizer, row)
    if "text" in row:
        return "", [[(row["text"] + end, True)]]
    return _prompt(tokenizer, row["prompt"], row), [[(last_text(c) + end, True)] for c in completions(row)]


def completions(row: Row) -> list[Any]:
    """The completions of a row; of a preference the chosen one first. [] where the row has a prompt alone."""
    if "chosen" in row:
        return [row["chosen"], row["rejected"]]
    return list(row["completions"]) if "completions" in row else [row["completion"]] if "completion" in row else []


def _conversation(tokenizer: PreTrainedTokenizerFast, row: Row) -> tuple[str, list[list[Piece]]]:
    """(prompt, pieces of one completion): all turns of the assistant are learned.

    Where the template rewrites earlier turns, the last turn alone is learned, and all before it is the prompt.
    """
    messages, end = row["messages"], str(tokenizer.eos_token)
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    first = so_far = _prompt(tokenizer, messages[: turns[0]], row)
    pieces: list[Piece] = []
    for turn, following in zip(turns, [*turns[1:], None], strict=True):
        reply = messages[turn]["content"] + end
        pieces.append((reply, messages[turn].get("weight") != 0))
        if following is not None:
            text = _prompt(tokenizer, messages[:following], row)
            if not text.startswith(so_far + reply):
                last = (messages[turns[-1]]["content"] + end, True)
                return _prompt(tokenizer, messages[: turns[-1]], row), [[last]]
            pieces.append((text[len(so_far + reply) :], False))
            so_far = text
    return first, [pieces]


def _prompt(tokenizer: PreTrainedTokenizerFast, prompt: str | Sequence[Mapping[str, str]], row: Row) -> str:
    if isinstance(prompt, str):
        return prompt
    if tokenizer.chat_template is None:
        raise FieldMistake("model", "its tokenizer has no chat template; give prompts as plain text, or another model")
    style = row.get("style", "free")
    own = tokenizer.chat_template == CHAT
    try:  # another template is a program that came with the model
        with nullcontext() if own else deadline(DEADLINE):
            text = tokenizer.apply_chat_template(
                [dict(m) for m in prompt],
                tokenize=False,
                add_generation_prompt=True,
                style=style,
                enable_thinking=style != "direct",
            )
    except Late:
        raise FieldMistake(
            "model",
            f"its chat template does not end within {DEADLINE:.0f} seconds on {_described(prompt)}; take another "
            "model, or leave out this row",
        ) from None
    except Exception as error:
        raise Mistake(f"the chat template fails on {_described(prompt)}: {error}") from None
    return str(text)


def _described(conversation: Sequence[Mapping[str, str]]) -> str:
    roles, last = ", ".join(m["role"] for m in conversation), str(conversation[-1]["content"])
    shown = f"{last[:80]} ..." if len(last) > 80 else last
    return f"a conversation of {roles}, which ends with {shown!r}"


@contextmanager
def checked_template(tokenizer: PreTrainedTokenizerFast, name: str) -> Iterator[None]:
    """Renders a chat template that came with a model, in a separate process and beside the body of the `with`.

    Raises:
        FieldMistake: when the body is done, if the template fails or does not end within `DEADLINE`.
    """
    example = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    arguments = {"conversations": [example, example[:1]], "chat_template": tokenizer.chat_template}
    arguments |= {"add_generation_prompt": True}
    request = json.dumps(arguments | {k: v for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str)})
    worker = [sys.executable, "-m", "rllab.text.template_worker"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(worker, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield
            _, failed = process.communicate(request, timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            raise FieldMistake(
                "model", f"{name}: its chat template does not end within {DEADLINE:.0f} seconds"
            ) from None
        finally:
            process.kill()
    if process.returncode:
        why = (failed.strip().splitlines() or ["it ended without a message"])[-1]
        raise FieldMistake("model", f"{name}: its chat template fails on two short messages: {why}")
