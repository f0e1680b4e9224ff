"""The policy as the judge of its own answers (Yuan et al. 2024)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from rllab.core.errors import FieldMistake
from rllab.rewards.pairwise import ASKS, contest_of
from rllab.text.evaluation import log_likelihoods
from rllab.text.models import LanguageModel


class SelfJudge:
    """The share of comparisons that a completion wins, by how much likelier A is than B, in both orders.

    The model says nothing: the log-probabilities of the two letters are compared, which even a small model has.
    """

    in_trainer: ClassVar[bool] = True

    def __init__(self, *, asks: str = ASKS, opponents: int = 2, against: str = "") -> None:
        self._asks, self._opponents, self._against = asks, opponents, against
        self._policy: LanguageModel | None = None

    def begin(self, policy: LanguageModel) -> None:
        """Takes the policy as the judge.

        Raises:
            FieldMistake: its tokenizer does not tell the letters apart.
        """
        a, b = (policy.tokenizer.encode(letter, add_special_tokens=False) for letter in "AB")
        if a == b:
            raise FieldMistake("reward", "self_judge asks for A or B, and this model's tokenizer has no such letters")
        self._policy = policy

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]
    ) -> list[float | None]:
        """The share of comparisons that each completion wins.

        Raises:
            ValueError: it was shown no policy.
        """
        if self._policy is None:
            raise ValueError("self_judge asks the policy, and there is none: name a model")
        contest = contest_of(prompts, completions, self._opponents, self._against, columns)
        rows = [
            {"prompt": [{"role": "user", "content": text}], "completions": [_letter("A"), _letter("B")]}
            for text in contest.questions(self._asks)
        ]
        found = [logp[0] - logp[1] for logp in log_likelihoods(self._policy, rows)]
        return contest.scores([float(1.0 / (1.0 + np.exp(-d))) for d in found])


def _letter(letter: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": letter}]
