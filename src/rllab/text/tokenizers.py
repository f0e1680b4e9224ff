"""Tokenizers of new models: one token a word for tasks that list their words, else byte-pair encoding."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rllab.core.messages import END_THINK, THINK, content_text

ROLES = ("user", "assistant", "system")
STYLES = ("direct", "think")
SPECIAL = ("<|pad|>", "<|unk|>", "<|end|>", *(f"<|{x}|>" for x in (*ROLES, *STYLES)), THINK, END_THINK)
CHAT = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{% if style in ('direct', 'think') %}{{ '<|' + style + '|>' }}{% endif %}"
    "{{ '<|assistant|>' }}{% endif %}"
)
_PIECES = r"####|\d+|\w+|[^\w\s]"
_COLUMNS = ("prompt", "completion", "completions", "chosen", "rejected", "messages", "text")
_ROWS = 10_000  # most rows that a tokenizer is trained on
_VOCABULARY = 4096  # tokens of byte-pair encoding; few, so a small model's embeddings stay small beside its layers


def tokenizer_for(task: Any) -> PreTrainedTokenizerFast:
    """A tokenizer of the task's `words()`, or one that is trained on the texts of its rows."""
    return word_tokenizer(task.words()) if hasattr(task, "words") else byte_pair_tokenizer(_texts(task))


def _texts(task: Any) -> Iterator[str]:
    """The texts of a task's training rows, and their gold answers."""
    for i in range(min(_ROWS, task.size("train"))):
        row = task.row(i, "train")
        yield from (text for column in _COLUMNS if column in row for text in _flat(row[column]))
        yield str(task.gold(row))


def _flat(value: Any) -> Iterator[str]:
    """The texts in a column's value: a text, a message, or nested lists of them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield content_text(value)
    else:
        for each in value:
            yield from _flat(each)


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each word, number and punctuation mark."""
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECES), "removed", invert=True)
    tokenizer.decoder = decoders.WordPiece(prefix="\u2581", cleanup=True)  # a prefix that no word has
    return _with_chat(tokenizer)


def byte_pair_tokenizer(texts: Iterable[str], size: int = _VOCABULARY) -> PreTrainedTokenizerFast:
    """Byte-pair encoding (Sennrich et al. 2016) trained on texts, with at most `size` tokens. It encodes any text.

    Each digit is a token of its own, so a model reads numbers digit by digit.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _with_chat(tokenizer)


def unknown_token(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The id that stands for words which a tokenizer cannot read; None where it reads any text, byte by byte.

    Its `unk_token` alone does not tell: of GPT-2 and others it is the end of text, and stands for no word.
    """
    unknown = tokenizer.unk_token_id
    read = tokenizer.backend_tokenizer.encode("\ue123", add_special_tokens=False).ids  # a character without a meaning
    return int(unknown) if unknown in read else None


def _with_chat(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Adds the special tokens and the chat template.

    The template has three styles: "direct" asks for an answer alone, "think" for thinking first, and any other style
    ("free") leaves it to the model.
    """
    tokenizer.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in SPECIAL[:-2]])
    tokenizer.add_tokens([AddedToken(x, normalized=False) for x in SPECIAL[-2:]])
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="<|pad|>", unk_token="<|unk|>", eos_token="<|end|>"
    )
    fast.chat_template = CHAT
    return fast
