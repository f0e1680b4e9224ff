"""Rankers: rewards that choose among the samples of an item, such as a trained reward model or a verifier."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.load import model_folder
from rllab.evals.asked import Asked
from rllab.evals.outcome import Outcome
from rllab.evals.reward import read_term
from rllab.evals.score import Scored
from rllab.rewards.scoring import Rewards, short, unlike
from rllab.text.models import LanguageModel
from rllab.text.open import open_model

_AT_ONCE = 1024  # completions in a call of a reward, about: all samples of an item are in one call


@dataclass(frozen=True)
class Ranker:
    """A reward by which samples are ranked. name: as figures and tables name it. lm: the model that is ranked."""

    name: str
    reward: Rewards
    lm: LanguageModel

    def scores(self, outcome: Outcome) -> np.ndarray:
        """Returns the reward of each sample of each item of the task, [N, K]; NaN where it does not apply or failed.

        Raises:
            Mistake: it applies to no sample, or fails on all.
        """
        pairs = sorted(
            zip(outcome.asked, outcome.scored, strict=True),
            key=lambda pair: (outcome.task.places[str(pair[0].item.id)], pair[0].sample),
        )
        samples = outcome.style.samples
        step = max(1, _AT_ONCE // samples) * samples
        parts = [self._scored(pairs[first : first + step]) for first in range(0, len(pairs), step)]
        scores = np.concatenate([values for values, _ in parts])
        if np.isnan(scores).all():
            why = next((reason for _, reason in parts if reason), "it applies to no sample")
            raise Mistake(f"--rank-by {self.name}: {why}")
        return scores.reshape(-1, samples)

    def _scored(self, pairs: Sequence[tuple[Asked, Scored]]) -> tuple[np.ndarray, str]:
        """Returns the rewards of samples [n], and the reason of the first failure, or ''."""
        prompts = [asked.item.row.get("prompt", asked.item.question) for asked, _ in pairs]
        texts = [asked.completion.strip() for asked, _ in pairs]
        completions = [
            text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        ids = [list(self.lm.tokenizer.encode(text, add_special_tokens=False)) for text in texts]
        rows: list[dict[str, Any]] = [dict(a.item.row) | {"correct": s.graded.correct} for a, s in pairs]
        scores, faults = self.reward(prompts, completions, ids, rows)
        kept = np.where([asked.too_long for asked, _ in pairs], np.nan, scores[:, 0])
        return kept, faults[0].reason if faults else ""


def open_rankers(names: Sequence[str], model: str, runs: Path) -> list[Ranker]:
    """Returns rankers, named as rewards in a recipe: `run:reward-pocket`, `{name: verifier, model: run:NAME}`.

    model: that whose samples are ranked, as on the command line.

    Raises:
        Mistake: there is no such reward, or its model cannot judge.
    """
    rankers, lm = [], open_model(model_folder(model, runs))
    terms = [read_term(name, runs) for name in names]
    labels = [name.removeprefix("run:") if name.startswith("run:") else short(t.name)
              for name, t in zip(names, terms, strict=True)]  # fmt: skip
    for name, label, term in zip(names, unlike(labels), terms, strict=True):
        reward = Rewards([term], on_error="skip", max_skipped=1.0)
        try:
            reward.start()
            reward.begin(lm)
        except (FieldMistake, Mistake) as error:
            hint = f"; a verifier that writes its grade is '{{name: verifier, model: {name}}}'"
            raise Mistake(f"--rank-by {name}: {error}{hint * name.startswith('run:')}") from None
        rankers.append(Ranker(label, reward, lm))
    return rankers
