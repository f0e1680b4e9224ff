"""The sampler: completions of prompts, many at a time.

Every prompt is read once, however many samples are drawn from it; keys and values are kept; sequences that are finished
are dropped. The random numbers of a completion are a function of its row and sample alone, so that nothing else in the
batch changes it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rllab.text.forward import Cache, Shape, hidden_states
from rllab.text.models import LanguageModel

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

    logp: of each token under the model at the sampling's temperature (1 where that is 0), before top_k and top_p.
    finished: it ended by itself.
    """

    row: int
    sample: int
    ids: list[int]
    logp: list[float]
    finished: bool = False


@torch.inference_mode()
def generate(
    lm: LanguageModel,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    samples: int = 1,
    uniforms: Uniforms | None = None,
) -> list[Completion]:
    """`samples` completions of each prompt, in order. uniforms: needed where the temperature is above 0."""
    shape = Shape.of(lm.model)
    assert shape is not None  # whoever loads a model has asked
    lengths = torch.tensor([len(p) for p in prompts])
    cache = Cache(lm.model, shape, len(prompts), int(lengths.max()) + sampling.max_new_tokens)
    logits = _read(lm, shape, prompts, lengths, cache)
    found = [Completion(r, s, [], []) for r in range(len(prompts)) for s in range(samples)]
    rows = torch.arange(len(prompts)).repeat_interleave(samples)
    cache.select(rows)
    logits, alive = logits[rows], found
    drawn = [uniforms(c.row, c.sample) if uniforms else np.empty(0) for c in found]
    for step in range(sampling.max_new_tokens):
        uniform = torch.tensor([drawn[c.row * samples + c.sample][step] for c in alive]) if uniforms else None
        chosen, logp = choose(logits, sampling, uniform)
        for completion, token, p in zip(alive, chosen.tolist(), logp.tolist(), strict=True):
            completion.ids.append(token)
            completion.logp.append(p)
            completion.finished = token == lm.tokenizer.eos_token_id
        going = torch.tensor([i for i, c in enumerate(alive) if not c.finished], dtype=torch.long)
        if not len(going) or step + 1 == sampling.max_new_tokens:
            break
        if len(going) < len(alive):
            alive, chosen = [alive[i] for i in going.tolist()], chosen[going]
            cache.select(going)
        logits = _go_on(lm, shape, chosen, cache)
    return found


def _read(lm: LanguageModel, shape: Shape, prompts: Sequence[list[int]], lengths: Tensor, cache: Cache) -> Tensor:
    """Logits [N, V] behind the prompts, whose keys and values go to the cache."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(p) for p in prompts], batch_first=True)
    position = torch.arange(ids.shape[1])
    mask = (position[:, None] >= position).expand(len(ids), 1, -1, -1)
    hidden = hidden_states(lm.model, shape, ids, position.expand_as(ids), mask, cache)
    cache.lengths = lengths
    return lm.model.lm_head(hidden[torch.arange(len(ids)), lengths - 1])  # type: ignore[no-any-return]


def _go_on(lm: LanguageModel, shape: Shape, tokens: Tensor, cache: Cache) -> Tensor:
    """Logits [N, V] behind one more token [N] of each sequence."""
    seen = torch.arange(int(cache.lengths.max()) + 1)
    mask = (seen <= cache.lengths[:, None])[:, None, None]
    hidden = hidden_states(lm.model, shape, tokens[:, None], cache.lengths[:, None], mask, cache)
    cache.lengths = cache.lengths + 1
    return lm.model.lm_head(hidden[:, 0])  # type: ignore[no-any-return]


def choose(logits: Tensor, sampling: Sampling, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
    """The next tokens [N] and their log-probabilities [N]; uniform: a number in [0, 1) for each."""
    if not sampling.temperature:
        chosen = logits.argmax(-1)
    logp = (logits / (sampling.temperature or 1.0)).log_softmax(-1)
    if sampling.temperature:
        assert uniform is not None
        likely, order = logp.sort(stable=True, dim=-1, descending=True)
        p = likely.exp().double()
        before = p.cumsum(-1) - p
        keep = before < sampling.top_p
        if sampling.top_k:
            keep[:, sampling.top_k :] = False
        p = p * keep
        place = (p.cumsum(-1) <= uniform[:, None] * p.sum(-1, keepdim=True)).sum(-1, keepdim=True)
        chosen = order.gather(-1, place.clamp(max=p.shape[-1] - 1)).squeeze(-1)
    return chosen, logp.gather(-1, chosen[:, None]).squeeze(-1)
