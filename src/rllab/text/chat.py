"""Rows as texts and tokens, in the formats of TRL and `datasets`.

    {"prompt": ..., "completion": ...}             each a text, or a conversation: a list of {"role", "content"}
    {"prompt": ...}                                for a policy, which completes it itself
    {"messages": [...]}                            a conversation; what its assistant says is learned
    {"text": ...}                                  learned as it is
    {"prompt": ..., "chosen": ..., "rejected": ...}
    {"prompt": ..., "completions": [...], "ranks": [...]}     the lowest rank is the best answer

Conversations go through the tokenizer's chat template; `style` (direct, think or free) is handed to it.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedTokenizerFast

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.messages import last_text
from rllab.text.packing import Document

Row = Mapping[str, Any]
Piece = tuple[str, bool]
"""A stretch of text, and whether it is learned."""
_MARK = "=== said ==="
DEADLINE = 20.0  # seconds that a template may take for two short messages


def prompt_texts(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> list[str]:
    """The text of each row's prompt, up to where the model goes on."""
    return [_prompt(tokenizer, row["prompt"], row) for row in rows]


def prompt_ids(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> list[list[int]]:
    """The tokens of each row's prompt."""
    return _encode(tokenizer, prompt_texts(tokenizer, rows))


def reply_ids(tokenizer: PreTrainedTokenizerFast, reply: Sequence[Mapping[str, str]], row: Row) -> list[int]:
    """The tokens between the end of what the model said and where it goes on, after somebody's reply.

    Made from another conversation with the same reply: templates may rewrite what was said, and the tokens that a model
    chose are not always those of their text.
    """
    talk = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}, *reply]
    _, mark, after = _prompt(tokenizer, talk, row).rpartition(_MARK)
    if not mark:
        raise FieldMistake("model", "its chat template leaves out what the model said before: it cannot take turns")
    return _encode(tokenizer, [after.removeprefix(str(tokenizer.eos_token))])[0]


def documents(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Row]) -> list[Document]:
    """The tokens of each row: its prompt, and what may follow."""
    texts = [_texts(tokenizer, row) for row in rows]
    flat = [t for prompt, completions in texts for t in (prompt, *(p for c in completions for p, _ in c))]
    ids = iter(_encode(tokenizer, flat))
    found = []
    for _, completions in texts:
        prompt = next(ids) or [_first_token(tokenizer)]
        pieces = [[(next(ids), learned) for _, learned in c] for c in completions]
        tokens = [[token for piece, _ in c for token in piece] for c in pieces]
        learned = [[yes for piece, yes in c for _ in piece] for c in pieces]
        found.append(Document(prompt, tokens, learned))
    return found


def _encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    return [e.ids for e in tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)]


def _first_token(tokenizer: PreTrainedTokenizerFast) -> int:
    """What a text without a prompt begins with."""
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    assert isinstance(first, int)
    return first


def _texts(tokenizer: PreTrainedTokenizerFast, row: Row) -> tuple[str, list[list[Piece]]]:
    """(the prompt, what may follow it)."""
    end = str(tokenizer.eos_token)
    if "messages" in row:
        return _conversation(tokenizer, row)
    if "text" in row:
        return "", [[(row["text"] + end, True)]]
    return _prompt(tokenizer, row["prompt"], row), [[(last_text(c) + end, True)] for c in completions(row)]


def completions(row: Row) -> list[Any]:
    """What may follow a row's prompt; of a preference the better one comes first, of a prompt alone nothing."""
    if "chosen" in row:
        return [row["chosen"], row["rejected"]]
    return list(row["completions"]) if "completions" in row else [row["completion"]] if "completion" in row else []


def _conversation(tokenizer: PreTrainedTokenizerFast, row: Row) -> tuple[str, list[list[Piece]]]:
    """All that the assistant says is learned; only the last, where the template rewrites what was said before."""
    messages, end = row["messages"], str(tokenizer.eos_token)
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    first = so_far = _prompt(tokenizer, messages[: turns[0]], row)
    pieces: list[Piece] = []
    for turn, following in zip(turns, [*turns[1:], None], strict=True):
        said = messages[turn]["content"] + end
        pieces.append((said, True))
        if following is not None:
            text = _prompt(tokenizer, messages[:following], row)
            if not text.startswith(so_far + said):
                last = (messages[turns[-1]]["content"] + end, True)
                return _prompt(tokenizer, messages[: turns[-1]], row), [[last]]
            pieces.append((text[len(so_far + said) :], False))
            so_far = text
    return first, [pieces]


def _prompt(tokenizer: PreTrainedTokenizerFast, prompt: str | Sequence[Mapping[str, str]], row: Row) -> str:
    if isinstance(prompt, str):
        return prompt
    if tokenizer.chat_template is None:
        raise FieldMistake("model", "its tokenizer has no chat template; give prompts as plain text, or another model")
    style = row.get("style", "free")
    try:
        text = tokenizer.apply_chat_template(
            [dict(m) for m in prompt],
            tokenize=False,
            add_generation_prompt=True,
            style=style,
            enable_thinking=style != "direct",
        )
    except Exception as error:  # a template is somebody's program
        roles = ", ".join(m["role"] for m in prompt)
        raise Mistake(f"the chat template fails on a conversation of {roles}: {error}") from None
    return str(text)


@contextmanager
def checked_template(tokenizer: PreTrainedTokenizerFast, name: str) -> Iterator[None]:
    """Tries a chat template that came with a model, in a process of its own beside whatever is done meanwhile.

    Raises:
        FieldMistake: at the end, where it fails or does not end.
    """
    talk = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    asked = {"conversations": [talk, talk[:1]], "chat_template": tokenizer.chat_template, "add_generation_prompt": True}
    said = json.dumps(asked | {k: v for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str)})
    worker = [sys.executable, "-m", "rllab.text.template_worker"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(worker, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield
            _, failed = process.communicate(said, timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            raise FieldMistake(
                "model", f"{name}: its chat template does not end within {DEADLINE:.0f} seconds"
            ) from None
        finally:
            process.kill()
    if process.returncode:
        why = (failed.strip().splitlines() or ["it ended without a word"])[-1]
        raise FieldMistake("model", f"{name}: its chat template fails on two short messages: {why}")
