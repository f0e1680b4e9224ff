"""Texts behind token ids that stay as they are: prompts with sampled tokens, whose text has other tokenizations."""

from collections.abc import Sequence
from itertools import takewhile

from transformers import PreTrainedTokenizerFast

_TAIL = 16  # tokens before a text that are tokenized with it; a tokenizer looks back no further than a word


def continuation_ids(
    tokenizer: PreTrainedTokenizerFast, prefix: Sequence[int], texts: Sequence[str]
) -> tuple[list[int], list[list[int]]]:
    """(the ids of the prefix, the ids of each text behind it), tokenized as the whole text of both is.

    The prefix stays as it is, up to a token that the tokenizer joins with the begin of a text, as it joins a space with
    the word behind it. The prefix then ends before this token, and all texts begin with its characters: so their
    probabilities are those of the same condition, and can be compared.

    Where the tokenizer would not make the last token of the prefix of its text, or joins the only one, the texts are
    tokenized as behind the begin of a line.

    Raises:
        ValueError: the prefix or a text is empty.
    """
    if not prefix or not all(texts):
        raise ValueError("a prefix and its continuations need a token each")
    encode = tokenizer.backend_tokenizer.encode

    def ids(text: str) -> list[int]:
        return list(encode(text, add_special_tokens=False).ids)

    tail = _tail(tokenizer, list(prefix))
    before = tail or ids("\n")
    wholes = [ids(str(tokenizer.decode(before)) + text) for text in texts]
    kept = min(_equal(whole, before) for whole in wholes)
    cut = len(prefix) - len(tail) + kept
    if tail and cut:
        return list(prefix[:cut]), [whole[kept:] for whole in wholes]
    begun = len(before)
    return list(prefix), [w[begun:] if w[:begun] == before else ids(t) for w, t in zip(wholes, texts, strict=True)]


def _tail(tokenizer: PreTrainedTokenizerFast, prefix: list[int]) -> list[int]:
    """The last tokens of a prefix that the tokenizer makes of their text, at most `_TAIL`."""
    for first in range(-_TAIL, 0):
        tail = prefix[first:]
        if tokenizer.backend_tokenizer.encode(str(tokenizer.decode(tail)), add_special_tokens=False).ids == tail:
            return tail
    return []


def _equal(whole: Sequence[int], tail: Sequence[int]) -> int:
    """How many tokens at the begin are equal."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(whole, tail, strict=False)))
