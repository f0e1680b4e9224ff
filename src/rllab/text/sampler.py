"""The sampler: generates completions of many prompts at a time.

A prompt is computed once for all of its samples, keys and values are cached, and finished sequences are dropped from
the batch. A completion ends with any of the model's stop tokens, or where its text holds a stop text. The random
numbers of a completion are a function of its row and sample alone, so the other sequences of the batch do not change
it.

Axes: N sequences, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from rllab.core.messages import opening_of
from rllab.text.attention import KVCache, Packed
from rllab.text.decode import Decoder
from rllab.text.forward import Shape, hidden_states
from rllab.text.models import LanguageModel

_DROP_BELOW = 0.8  # finished sequences are dropped below this fraction of unfinished ones, as it copies the cache
Uniforms = Callable[[int, int], np.ndarray]
"""(row, sample) -> uniform random numbers in [0, 1), one for each new token [max_new_tokens]."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen: the likeliest at temperature 0; else sampled, within top_k and top_p."""

    max_new_tokens: int = 64  # most tokens of a completion
    temperature: float = 0.0  # of the softmax; 0: the likeliest token
    top_k: int = 0  # sample from the k likeliest tokens; 0: all
    top_p: float = 1.0  # sample from the likeliest tokens whose probabilities reach p
    stop: tuple[str, ...] = ()  # texts that end a completion, beside the model's stop tokens


@dataclass
class Completion:
    """A sampled completion.

    row: index of its prompt. sample: its number among the samples of the prompt. logp: log-probability of each sampled
    token at the sampling's temperature (1 where that is 0), before top_k and top_p. finished: it ended with a stop
    token or a stop text, which is in its last tokens. learned: for each token whether it was sampled, [] for all; the
    others are replies of a task.
    """

    row: int
    sample: int
    ids: list[int]
    logp: list[float]
    finished: bool = False
    learned: list[bool] = field(default_factory=list)


@torch.inference_mode()
def generate(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    samples: int = 1,
    uniforms: Uniforms | None = None,
    at_once: int = 1024,
) -> list[Completion]:
    """`samples` completions of each prompt, in the order of the prompts; `at_once` of them in a batch.

    uniforms: required where the temperature is above 0. Models that the native forward pass does not support run in
    transformers' `generate`, by the same rule for choosing tokens.
    """
    completions = [Completion(r, s, [], []) for r in range(len(prompts)) for s in range(samples)]
    size = max(1, at_once // samples)
    for first in range(0, len(prompts), size):
        some, part = prompts[first : first + size], completions[first * samples : (first + size) * samples]
        drawn = [uniforms(c.row, c.sample) for c in part] if uniforms else []
        numbers = torch.tensor(np.array(drawn), device=lm.model.device) if drawn else None
        if lm.shape is None:
            _transformers(lm, some, sampling, samples, part, numbers)
        else:
            _native(lm, lm.shape, some, sampling, samples, part, numbers)
    return completions


def _native(
    lm: LanguageModel,
    shape: Shape,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    samples: int,
    completions: list[Completion],
    numbers: Tensor | None,
) -> None:
    """Fills in the completions with the native forward pass. numbers: uniforms [N, max_new_tokens]."""
    ends, (cache, logits) = _Ends(lm, sampling.stop), _prefill(lm, shape, prompts)
    rows = torch.arange(len(prompts), device=logits.device).repeat_interleave(samples)
    logits, alive = logits[rows], torch.arange(len(completions), device=logits.device)
    make = Decoder if Decoder.fits(lm.model) else _ForwardPass
    decode = make(lm.model, shape, cache, rows, sampling.max_new_tokens)
    for step in range(sampling.max_new_tokens):
        chosen, logp = choose_tokens(logits, sampling, None if numbers is None else numbers[alive, step])
        _append([completions[i] for i in alive.tolist()], chosen, logp, ends)
        unfinished = [i for i, row in enumerate(alive.tolist()) if not completions[row].finished]
        if not unfinished or step + 1 == sampling.max_new_tokens:
            break
        if len(unfinished) < _DROP_BELOW * len(alive):
            kept = torch.tensor(unfinished, device=logits.device)
            alive, chosen = alive[kept], chosen[kept]
            decode.select(kept)
        logits = decode(chosen)


class _Ends:
    """Whether token ids end a completion: with a stop token, or with a stop text in the text of the last tokens."""

    def __init__(self, lm: LanguageModel, stop: tuple[str, ...]) -> None:
        self._tokens, self._stop, self._tokenizer = lm.stop_ids, (*stop, *lm.stop_texts), lm.tokenizer
        self._last = max((len(text.encode()) for text in self._stop), default=0) + 4  # a token has at least one byte

    def __call__(self, ids: list[int]) -> bool:
        if ids[-1] in self._tokens or not self._stop:
            return ids[-1] in self._tokens
        text = str(self._tokenizer.decode(ids[-self._last :]))
        return any(end in text for end in self._stop)


def completion_text(
    lm: LanguageModel, prompt: str, ids: list[int], stop: Sequence[str] = (), special: bool = False
) -> str:
    """The text of a sampled completion, cut behind the first stop text, and without what ends its turn.

    It begins with the opening tag of thinking that may end its prompt. special: with the special tokens in it.
    """
    own = ids[:-1] if ids and ids[-1] in lm.stop_ids else ids
    text = str(lm.tokenizer.decode(own, skip_special_tokens=not special))
    cut = text[: min((text.index(end) + len(end) for end in (*stop, *lm.stop_texts) if end in text), default=None)]
    end = next((end for end in lm.turn_ends if cut.endswith(end)), "")
    return opening_of(prompt) + cut.removesuffix(end)


def _append(completions: list[Completion], chosen: Tensor, logp: Tensor, ends: _Ends) -> None:
    """Appends the next token [N] to each unfinished completion."""
    for completion, token, p in zip(completions, chosen.tolist(), logp.tolist(), strict=True):
        if not completion.finished:
            completion.ids.append(token)
            completion.logp.append(p)
            completion.finished = ends(completion.ids)


def _prefill(lm: LanguageModel, shape: Shape, prompts: Sequence[list[int]]) -> tuple[KVCache, Tensor]:
    """The cache of the prompts' keys and values, and the logits [N, V] of their next tokens."""
    device = lm.model.device
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    cache = KVCache(len(prompts), device)
    position = torch.arange(int(lengths.max()), device=device)
    real = position < lengths[:, None]
    mask = (position[:, None] >= position).expand(len(prompts), 1, -1, -1)
    ids = torch.tensor([token for p in prompts for token in p], device=device)
    hidden = hidden_states(lm.model, shape, ids, position.expand_as(real)[real], Packed(real, mask, cache))
    cache.lengths = lengths
    return cache, lm.model.lm_head(hidden[lengths.cumsum(0) - 1])


class _ForwardPass:
    """The same as `Decoder` by the forward pass, for models that `Decoder` does not fit."""

    def __init__(self, model: PreTrainedModel, shape: Shape, prompts: KVCache, rows: Tensor, most: int) -> None:
        self._model, self._shape, self._cache = model, shape, prompts
        prompts.select(rows)

    def select(self, kept: Tensor) -> None:
        self._cache.select(kept)

    def __call__(self, tokens: Tensor) -> Tensor:
        cache = self._cache
        cache.prepare_next()
        hidden = hidden_states(self._model, self._shape, tokens, cache.lengths, cache)
        cache.lengths = cache.lengths + 1
        logits: Tensor = self._model.lm_head(hidden)
        return logits


def _transformers(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    samples: int,
    completions: list[Completion],
    numbers: Tensor | None,
) -> None:
    """The same with transformers' `generate`, for any architecture. A logits processor forces our choice of tokens."""
    longest = max(map(len, prompts))
    repeated = [p for p in prompts for _ in range(samples)]
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in repeated], device=lm.model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in repeated], device=lm.model.device)
    ends, over = _Ends(lm, sampling.stop), min(lm.stop_ids)

    def force(so_far: Tensor, logits: Tensor) -> Tensor:
        step = so_far.shape[1] - longest
        chosen, logp = choose_tokens(logits.float(), sampling, None if numbers is None else numbers[:, step])
        _append(completions, chosen, logp, ends)
        for place, completion in enumerate(completions):
            if completion.finished:
                chosen[place] = over  # any token that ends the sequence for `generate`
        return torch.full_like(logits, -torch.inf).scatter(1, chosen[:, None], 0.0)

    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=sampling.max_new_tokens,
        do_sample=False,
        eos_token_id=sorted(lm.stop_ids),
        pad_token_id=lm.tokenizer.pad_token_id,
    )
    with _without_defaults(lm.model):
        lm.model.generate(ids, attention_mask=mask, generation_config=config, logits_processor=[force])  # type: ignore[operator]


@contextmanager
def _without_defaults(model: PreTrainedModel) -> Iterator[None]:
    """Context without the generation config of a model, whose penalties and limits `generate` would add to ours."""
    own, model.generation_config = model.generation_config, GenerationConfig()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        model.generation_config = own


def choose_tokens(logits: Tensor, sampling: Sampling, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
    """The next tokens [N] and their log-probabilities [N], from logits [N, V].

    uniform: a random number in [0, 1) for each sequence [N]; required where the temperature is above 0.
    """
    if not sampling.temperature:
        chosen = logits.argmax(-1)
    logp = (logits / (sampling.temperature or 1.0)).log_softmax(-1)
    if sampling.temperature:
        assert uniform is not None
        likely, order = logp, None
        if sampling.top_k or sampling.top_p < 1.0:
            likely, order = logp.sort(stable=True, dim=-1, descending=True)
        p = likely.exp().double()
        if order is not None:
            p = p * (p.cumsum(-1) - p < sampling.top_p)
            p[:, sampling.top_k or p.shape[-1] :] = 0.0
        below = p.cumsum(-1)
        place = torch.searchsorted(below, uniform[:, None] * below[:, -1:], right=True).clamp(max=p.shape[-1] - 1)
        chosen = (place if order is None else order.gather(-1, place)).squeeze(-1)
    return chosen, logp.gather(-1, chosen[:, None]).squeeze(-1)
