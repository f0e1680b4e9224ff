"""The policy as the judge of its own answers (Yuan et al. 2024)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from rllab.core.errors import FieldMistake
from rllab.rewards.pairwise import ASKS, contest_of
from rllab.text.evaluation import log_likelihoods
from rllab.text.models import LanguageModel


class SelfJudge:
    """The share of comparisons that a completion wins, in both orders, by the probabilities of the letters A and B.

    Nothing is sampled: the log-probabilities of the two letters are compared, so small models can be judges as well.
    """

    in_trainer: ClassVar[bool] = True

    def __init__(
        self,
        *,
        asks: str = ASKS,  # the question to the judge
        opponents: int = 2,  # others of its group that each completion is compared with
        against: str = "",  # a column with one answer that all completions are compared with instead
    ) -> None:
        self._asks, self._opponents, self._against = asks, opponents, against
        self._policy: LanguageModel | None = None

    def begin(self, policy: LanguageModel) -> None:
        """Takes the policy as the judge.

        Raises:
            FieldMistake: its tokenizer encodes both letters alike.
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
            ValueError: `begin` was not called.
        """
        if self._policy is None:
            raise ValueError("self_judge asks the policy, and there is none: name a model")
        contest = contest_of(prompts, completions, self._opponents, self._against, columns)
        rows = [
            {"prompt": [{"role": "user", "content": text}], "completions": [_letter("A"), _letter("B")]}
            for text in contest.questions(self._asks)
        ]
        differences = [logp[0] - logp[1] for logp in log_likelihoods(self._policy, rows)]
        return contest.scores([float(1.0 / (1.0 + np.exp(-d))) for d in differences])


def _letter(letter: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": letter}]
