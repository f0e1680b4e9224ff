"""How well a model answers held-out rows of a task, in each style."""

from typing import Any

from rllab.answers import judge
from rllab.text.models import LanguageModel
from rllab.text.packing import prompt_ids
from rllab.text.sampler import Completion, Sampling, Uniforms, generate


def answers(
    lm: LanguageModel, rows: list[dict[str, Any]], style: str, sampling: Sampling, uniforms: Uniforms | None = None
) -> tuple[list[bool], list[Completion]]:
    """Whether each row is answered rightly when asked in a style, and the completions."""
    asked = [row | {"style": style} for row in rows]
    found = generate(lm, prompt_ids(lm.tokenizer, asked), sampling, uniforms=uniforms)
    texts = lm.tokenizer.batch_decode([c.ids for c in found], skip_special_tokens=True)
    right = [judge(t, r["target"], r["kind"]).correct for t, r in zip(texts, rows, strict=True)]
    return right, found
