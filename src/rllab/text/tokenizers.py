"""Tokenizers of models that are made here: of words where a task says which there are, else of pairs of bytes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rllab.core.messages import END_THINK, THINK

ROLES = ("user", "assistant", "system")
STYLES = ("direct", "think")
SPECIAL = ("<|pad|>", "<|unk|>", "<|end|>", *(f"<|{x}|>" for x in (*ROLES, *STYLES)), THINK, END_THINK)
CHAT = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{% if style in ('direct', 'think') %}{{ '<|' + style + '|>' }}{% endif %}"
    "{{ '<|assistant|>' }}{% endif %}"
)
_PIECES = r"####|\d+|\w+|[^\w\s]"
_SAID = ("prompt", "completion", "completions", "chosen", "rejected", "messages", "text")
_ROWS = 10_000  # whose texts a tokenizer is trained on
_VOCABULARY = 4096  # of byte pairs: a small model's embeddings then stay small beside its layers


def tokenizer_for(task: Any) -> PreTrainedTokenizerFast:
    """The tokenizer of a task's `words()`, or else one that is trained on what its rows say."""
    return word_tokenizer(task.words()) if hasattr(task, "words") else byte_pair_tokenizer(_texts(task))


def _texts(task: Any) -> Iterator[str]:
    for i in range(min(_ROWS, task.size("train"))):
        row = task.row(i, "train")
        yield from (text for column in _SAID if column in row for text in _said(row[column]))
        yield str(task.gold(row))


def _said(value: Any) -> Iterator[str]:
    """The texts in a column: a text, messages, or several of either."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield str(value.get("content", ""))
    else:
        for each in value:
            yield from _said(each)


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a word, number and sign."""
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECES), "removed", invert=True)
    tokenizer.decoder = decoders.WordPiece(prefix="\u2581", cleanup=True)  # no word begins with it
    return _chatting(tokenizer)


def byte_pair_tokenizer(texts: Iterable[str], size: int = _VOCABULARY) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `size` frequent pieces of these texts (Sennrich et al. 2016), down to bytes: it reads any.

    Digits are tokens of their own, so that numbers are read place by place.
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
    return _chatting(tokenizer)


def _chatting(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """With the tokens and the template of a chat.

    The template has three styles: `style="direct"` and `style="think"` ask for an answer alone or for thinking first,
    without one the model is free.
    """
    tokenizer.add_special_tokens([AddedToken(x, special=True, normalized=False) for x in SPECIAL[:-2]])
    tokenizer.add_tokens([AddedToken(x, normalized=False) for x in SPECIAL[-2:]])
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="<|pad|>", unk_token="<|unk|>", eos_token="<|end|>"
    )
    fast.chat_template = CHAT
    return fast
