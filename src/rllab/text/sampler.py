"""The sampler: generates completions of many prompts at a time.

A prompt is computed once for all samples, keys and values are cached, and finished sequences leave the batch. A
completion ends with any of the model's stop tokens, or where its text holds a stop text. The random numbers of a
completion are a function of its row and sample alone, so the other sequences of the batch do not change it, up to
rounding.

Axes: N sequences, V vocabulary.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from rllab.core.errors import Mistake
from rllab.core.messages import opening_of
from rllab.core.sharding import apart, compute, is_split
from rllab.text.attention import Attention, KVCache, Packed
from rllab.text.batches import AT_ONCE, Cost, batches
from rllab.text.decode import Decoder
from rllab.text.forward import Shape, hidden_states
from rllab.text.models import LanguageModel, not_finite

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


Watch = Callable[[Completion, bool], None]
"""Is called with a completion after each of its tokens, and whether it has ended. It may raise an error to stop."""


@torch.inference_mode()
def generate(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    samples: int = 1,
    uniforms: Uniforms | None = None,
    at_once: int = AT_ONCE,
    limits: Sequence[int] | None = None,
    watch: Watch | None = None,
) -> list[Completion]:
    """`samples` completions of each prompt, in the order of the prompts.

    They are sampled in one batch, or in several that are sorted by length, if there are more than `at_once` or the
    memory would not hold them (`rllab.text.batches`). uniforms: required where the temperature is above 0. limits: the
    most new tokens of each prompt's completions, where that is less than `max_new_tokens`. watch: see `Watch`.

    Models that the native forward pass does not support run in transformers' `generate`, by the same rule for choosing
    tokens. Where the model has a `server`, that samples.

    Raises:
        Mistake: a prompt has no tokens, or the model's outputs are not numbers.
        ValueError: a limit is less than 1.
    """
    limits = [min(sampling.max_new_tokens, n) for n in limits or [sampling.max_new_tokens] * len(prompts)]
    _check(prompts, limits)
    if lm.server is not None:
        return lm.server.generate(lm, prompts, sampling, samples, uniforms, limits)
    completions = [Completion(r, s, [], []) for r in range(len(prompts)) for s in range(samples)]
    with apart(lm.model):
        _sample(lm, prompts, sampling, completions, uniforms, at_once, limits, watch)
    return completions


def _sample(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    completions: list[Completion],
    uniforms: Uniforms | None,
    at_once: int,
    limits: Sequence[int],
    watch: Watch | None,
) -> None:
    """Fills completions in; the arguments are those of `generate`."""
    lengths = [(len(p), limit) for p, limit in zip(prompts, limits, strict=True)]
    # a completion that has ended is computed on with the others until it is dropped
    decode = _decoder(lm, max(map(len, prompts), default=0) + max(limits, default=0))
    shared = isinstance(decode, Decoder)
    cost = Cost.of(lm.model, native=decode is not None, shared=shared, greedy=not sampling.temperature)
    for places in batches(cost, [lengths[c.row] for c in completions], [c.row for c in completions], at_once):
        part = [completions[i] for i in places]
        drawn = [uniforms(c.row, c.sample) for c in part] if uniforms else []
        numbers = torch.tensor(np.array(drawn), device=lm.model.device) if drawn else None
        batch = _Batch(lm, prompts, sampling, part, limits, watch)
        if decode is None:
            _transformers(lm, batch, sampling, numbers)
        else:
            _native(lm, decode, batch, sampling, numbers)


def _check(prompts: Sequence[list[int]], limits: Sequence[int]) -> None:
    if empty := [i for i, prompt in enumerate(prompts) if not prompt]:
        raise Mistake(f"prompt {empty[0] + 1} of {len(prompts)} has no tokens, and a model needs one to begin")
    if min(limits, default=1) < 1:
        raise ValueError("a completion needs room for one token")


def _decoder(lm: LanguageModel, longest: int) -> "Decoder | _ForwardPass | None":
    """What computes a token of each sequence; None where transformers' `generate` samples."""
    if lm.shape is None:
        return None
    alone = not is_split(lm.model) and Decoder.fits(lm.model)
    return (Decoder if alone else _ForwardPass)(lm.model, lm.shape, longest)


def _native(
    lm: LanguageModel, decode: "Decoder | _ForwardPass", batch: "_Batch", sampling: Sampling, numbers: Tensor | None
) -> None:
    """Fills in a batch with the native forward pass. numbers: uniforms [N, max_new_tokens]."""
    cache, logits = _prefill(lm, batch.prompts)
    rows = torch.tensor(batch.prompt_of, device=logits.device)
    logits, alive = logits[rows], torch.arange(len(rows), device=logits.device)
    decode.begin(cache, rows)
    for step in range(sampling.max_new_tokens):
        chosen, logp = choose_tokens(logits, sampling, None if numbers is None else numbers[alive, step])
        unfinished = batch.append(alive.tolist(), chosen, logp)
        if not unfinished:
            break
        if len(unfinished) < _DROP_BELOW * len(alive):
            kept = torch.tensor(unfinished, device=logits.device)
            alive, chosen = alive[kept], chosen[kept]
            decode.select(kept)
        logits = decode(chosen)


class _Batch:
    """Completions that are sampled at the same time.

    prompts: their prompts, each once. prompt_of: the index in `prompts` of each completion.
    """

    def __init__(
        self,
        lm: LanguageModel,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        completions: list[Completion],
        limits: Sequence[int],
        watch: Watch | None,
    ) -> None:
        places = {row: i for i, row in enumerate(dict.fromkeys(c.row for c in completions))}
        self.prompts, self.prompt_of = [prompts[row] for row in places], [places[c.row] for c in completions]
        self._completions, self._limits = completions, [limits[c.row] for c in completions]
        self._name, self._ends, self._watch = lm.name, Ends(lm, sampling.stop), watch
        self.over = [False] * len(completions)

    def append(self, places: list[int], chosen: Tensor, logp: Tensor) -> list[int]:
        """Appends a token [N] to each of N completions that is not over; returns which of the N go on."""
        each = logp.tolist()
        if math.isnan(sum(each)):
            raise not_finite(self._name)
        for place, token, p in zip(places, chosen.tolist(), each, strict=True):
            completion = self._completions[place]
            if not self.over[place]:
                completion.ids.append(token)
                completion.logp.append(p)
                completion.finished = self._ends(completion.ids)
                self.over[place] = completion.finished or len(completion.ids) == self._limits[place]
                if self._watch is not None:
                    self._watch(completion, self.over[place])
        return [i for i, place in enumerate(places) if not self.over[place]]


class Ends:
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

    It begins with the opening tag of thinking, or of a channel, that may end its prompt. special: with the special
    tokens in it; those of Harmony are there always.
    """
    own = ids[:-1] if ids and ids[-1] in lm.stop_ids else ids
    text = str(lm.tokenizer.decode(own)) if special else lm.text_of(own)
    cut = text[: min((text.index(end) + len(end) for end in (*stop, *lm.stop_texts) if end in text), default=None)]
    end = next((end for end in lm.turn_ends if cut.endswith(end)), "")
    return opening_of(prompt) + cut.removesuffix(end)


def _prefill(lm: LanguageModel, prompts: Sequence[list[int]]) -> tuple[KVCache, Tensor]:
    """The cache of the prompts' keys and values, and the logits [N, V] of their next tokens."""
    device = lm.model.device
    assert lm.shape is not None
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    cache = KVCache(len(prompts), device)
    position = torch.arange(int(lengths.max()), device=device)
    real = position < lengths[:, None]
    ids = torch.tensor([token for p in prompts for token in p], device=device)
    positions, attention, last = position.expand_as(real)[real], Packed(real, None, cache), lengths.cumsum(0) - 1
    logits = compute(lm.model, _logits, lm.model, lm.shape, ids, positions, attention, last)
    cache.lengths = lengths
    return cache, logits


def _logits(
    model: PreTrainedModel, shape: Shape, ids: Tensor, positions: Tensor, attention: Attention, needed: Tensor | None
) -> Tensor:
    """The logits [P, V] behind the tokens `needed` [P] of ids [T] at `positions` [T]; without `needed`, [T, V]."""
    hidden = hidden_states(model, shape, ids, positions, attention)
    logits: Tensor = model.lm_head(hidden if needed is None else hidden[needed])
    return logits


class _ForwardPass:
    """The same as `Decoder` by the forward pass, for models that `Decoder` does not fit."""

    def __init__(self, model: PreTrainedModel, shape: Shape, longest: int) -> None:
        self._model, self._shape = model, shape

    def begin(self, prompts: KVCache, rows: Tensor) -> None:
        self._cache = prompts
        prompts.select(rows)

    def select(self, kept: Tensor) -> None:
        self._cache.select(kept)

    def __call__(self, tokens: Tensor) -> Tensor:
        cache = self._cache
        cache.prepare_next()
        logits = compute(self._model, _logits, self._model, self._shape, tokens, cache.lengths, cache, None)
        cache.lengths = cache.lengths + 1
        return logits


def _transformers(lm: LanguageModel, batch: _Batch, sampling: Sampling, numbers: Tensor | None) -> None:
    """The same with transformers' `generate`, for any architecture. A logits processor forces our choice of tokens."""
    longest = max(map(len, batch.prompts))
    repeated = [batch.prompts[i] for i in batch.prompt_of]
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in repeated], device=lm.model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in repeated], device=lm.model.device)
    places, over = list(range(len(repeated))), min(lm.stop_ids)

    def force(so_far: Tensor, logits: Tensor) -> Tensor:
        step = so_far.shape[1] - longest
        chosen, logp = choose_tokens(logits.float(), sampling, None if numbers is None else numbers[:, step])
        batch.append(places, chosen, logp)
        chosen[torch.tensor(batch.over, device=chosen.device)] = over  # any token that ends it for `generate`
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
