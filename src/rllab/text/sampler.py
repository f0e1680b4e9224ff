"""The sampler: completions of prompts, many at a time.

Every prompt is read once, however many samples are drawn from it; keys and values are kept; sequences that are finished
are dropped. The random numbers of a completion are a function of its row and sample alone, so that nothing else in the
batch changes it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from rllab.text.attention import KVCache, Packed
from rllab.text.forward import Shape, hidden_states
from rllab.text.models import LanguageModel

_FEW = 0.8  # share of sequences that go on, below which the others are dropped; it takes a copy of all keys and values
Uniforms = Callable[[int, int], np.ndarray]
"""(row, sample) -> numbers in [0, 1), one for each token."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen: greedily at temperature 0, else from the top_k likeliest that make up top_p."""

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0  # 0: all
    top_p: float = 1.0


@dataclass
class Completion:
    """A sampled completion.

    logp: of each sampled token under the model at the sampling's temperature (1 where that is 0), before top_k and
    top_p. finished: it ended by itself. learned: which tokens were sampled, [] for all; the others a task has replied.
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
    """`samples` completions of each prompt, in order; `at_once` of them go side by side.

    uniforms: needed where the temperature is above 0. Our own forward pass is used where it knows the model, else
    transformers' `generate`: the tokens are the same.
    """
    found = [Completion(r, s, [], []) for r in range(len(prompts)) for s in range(samples)]
    size = max(1, at_once // samples)
    for first in range(0, len(prompts), size):
        some, part = prompts[first : first + size], found[first * samples : (first + size) * samples]
        drawn = [uniforms(c.row, c.sample) for c in part] if uniforms else []
        numbers = torch.tensor(np.array(drawn), device=lm.model.device) if drawn else None
        if lm.shape is None:
            _transformers(lm, some, sampling, samples, part, numbers)
        else:
            _native(lm, lm.shape, some, sampling, samples, part, numbers)
    return found


def _native(
    lm: LanguageModel,
    shape: Shape,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    samples: int,
    found: list[Completion],
    numbers: Tensor | None,
) -> None:
    cache, logits = _read(lm, shape, prompts)
    rows = torch.arange(len(prompts), device=logits.device).repeat_interleave(samples)
    cache.select(rows)
    logits, alive = logits[rows], torch.arange(len(found), device=logits.device)
    for step in range(sampling.max_new_tokens):
        chosen, logp = choose_tokens(logits, sampling, None if numbers is None else numbers[alive, step])
        _note([found[i] for i in alive.tolist()], chosen, logp, lm)
        going = [i for i, row in enumerate(alive.tolist()) if not found[row].finished]
        if not going or step + 1 == sampling.max_new_tokens:
            break
        if len(going) < _FEW * len(alive):
            kept = torch.tensor(going, device=logits.device)
            alive, chosen = alive[kept], chosen[kept]
            cache.select(kept)
        logits = _go_on(lm, shape, chosen, cache)


def _note(completions: list[Completion], chosen: Tensor, logp: Tensor, lm: LanguageModel) -> None:
    """Adds the next token to each completion that has not ended."""
    for completion, token, p in zip(completions, chosen.tolist(), logp.tolist(), strict=True):
        if not completion.finished:
            completion.ids.append(token)
            completion.logp.append(p)
            completion.finished = token == lm.tokenizer.eos_token_id


def _read(lm: LanguageModel, shape: Shape, prompts: Sequence[list[int]]) -> tuple[KVCache, Tensor]:
    """Keys and values of the prompts, and the logits [N, V] behind them."""
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


def _go_on(lm: LanguageModel, shape: Shape, tokens: Tensor, cache: KVCache) -> Tensor:
    """Logits [N, V] behind one more token [N] of each sequence."""
    cache.go_on()
    hidden = hidden_states(lm.model, shape, tokens, cache.lengths, cache)
    cache.lengths = cache.lengths + 1
    return lm.model.lm_head(hidden)  # type: ignore[no-any-return]


def _transformers(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    samples: int,
    found: list[Completion],
    numbers: Tensor | None,
) -> None:
    """The same with transformers' `generate`, for any architecture; it is made to choose the tokens that we choose."""
    longest = max(map(len, prompts))
    repeated = [p for p in prompts for _ in range(samples)]
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in repeated], device=lm.model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in repeated], device=lm.model.device)

    def force(so_far: Tensor, logits: Tensor) -> Tensor:
        step = so_far.shape[1] - longest
        chosen, logp = choose_tokens(logits.float(), sampling, None if numbers is None else numbers[:, step])
        _note(found, chosen, logp, lm)
        return torch.full_like(logits, -torch.inf).scatter(1, chosen[:, None], 0.0)

    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=sampling.max_new_tokens,
        do_sample=False,
        eos_token_id=lm.tokenizer.eos_token_id,
        pad_token_id=lm.tokenizer.pad_token_id,
    )
    lm.model.generate(ids, attention_mask=mask, generation_config=config, logits_processor=[force])  # type: ignore[operator]


def choose_tokens(logits: Tensor, sampling: Sampling, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
    """The next tokens [N] and their log-probabilities [N]; uniform: a number in [0, 1) for each."""
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
