"""Trained verifiers as rewards: of a prover (DeepSeekMath-V2, Shao et al. 2025, section 2.2), or of any completion."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from rllab.core.messages import last_text
from rllab.core.names import Model
from rllab.rewards.self_verification import Evaluation, prover_reward, read_evaluation, read_proof
from rllab.rewards.trained import check_words
from rllab.text.chat import prompt_ids, prompt_texts
from rllab.text.models import LanguageModel
from rllab.text.open import open_model
from rllab.text.sampler import Sampling, completion_text, generate

_NOT_UNDERSTOOD = 0.5  # the most evaluations of a call without the required form, as a share


class _Writes:
    """A reward that a language model writes, in the trainer's process.

    name: of the model in messages.
    """

    in_trainer: ClassVar[bool] = True

    def __init__(self, name: str, max_new_tokens: int) -> None:
        self._name, self._lm, self._sampling = name, open_model(name), Sampling(max_new_tokens=max_new_tokens)

    def begin(self, policy: LanguageModel) -> None:
        """Moves to the policy's device."""
        self._lm.model.to(policy.model.device)  # type: ignore[arg-type]


class Proving(_Writes):
    """R of proofs that end with an evaluation of their own; a verifier reads each proof behind its problem.

    verifier: a model, such as `run:verifier`; it is sampled greedily. max_new_tokens: of its evaluation.
    """

    def __init__(
        self,
        *,
        verifier: Annotated[str, Model(hub=True)],  # a model, such as run:verifier
        max_new_tokens: int = 80,  # most tokens of its evaluation
    ) -> None:
        super().__init__(verifier, max_new_tokens)

    def __call__(self, completions: Sequence[Any], problem: Sequence[str]) -> list[float]:
        """R of each completion, a proof of the problem in the column `problem`.

        Raises:
            Mistake: the verifier's tokenizer lacks too many tokens of the proofs.
            ValueError: most of its evaluations have not the required form.
        """
        proofs = [read_proof(text) for text in map(last_text, completions)]
        questions = [f"{of} {proof}" for of, (proof, _) in zip(problem, proofs, strict=True)]
        graded = self.verdicts([text for text, (_, own) in zip(questions, proofs, strict=True) if own is not None])
        return [prover_reward(own, graded.get(text)) for text, (_, own) in zip(questions, proofs, strict=True)]

    def verdicts(self, questions: Sequence[str]) -> dict[str, Evaluation | None]:
        """The verifier's evaluation of each problem with its proof; None where it has not the required form."""
        unlike = list(dict.fromkeys(questions))
        rows = [{"prompt": [{"role": "user", "content": text}]} for text in unlike]
        replies = _replies(self._lm, rows, self._sampling, self._name)
        evaluations = [read_evaluation(reply) for reply in replies]
        if evaluations.count(None) > _NOT_UNDERSTOOD * len(evaluations):
            raise ValueError(
                f"{self._name} evaluates {evaluations.count(None)} of {len(evaluations)} proofs not in the "
                f"required form, such as {replies[evaluations.index(None)][:200]!r}: it is not a trained verifier"
            )
        return dict(zip(unlike, evaluations, strict=True))


class Verifier(_Writes):
    """The grade that a verifier gives: it reads a completion behind its problem, and ends its evaluation with a number.

    As generative verifiers do (Zhang et al. 2025), it works the problem out before it grades; it is sampled greedily.

    model: such as `run:verifier-pocket`. max_new_tokens: of its evaluation.
    """

    def __init__(
        self,
        *,
        model: Annotated[str, Model(hub=True)],  # such as run:verifier-pocket
        max_new_tokens: int = 96,  # most tokens of its evaluation
    ) -> None:
        super().__init__(model, max_new_tokens)

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any]) -> list[float]:
        """The grade of each completion; 0 where its evaluation ends without one.

        Raises:
            Mistake: the verifier's tokenizer lacks too many tokens of the completions.
            ValueError: most of its evaluations end without a grade.
        """
        texts = [f"{last_text(p)} {last_text(c).strip()}" for p, c in zip(prompts, completions, strict=True)]
        grades = self._grades(list(dict.fromkeys(texts)))
        return [grades[text] or 0.0 for text in texts]

    def _grades(self, texts: Sequence[str]) -> dict[str, float | None]:
        rows = [{"prompt": [{"role": "user", "content": text}], "style": "free"} for text in texts]
        replies = _replies(self._lm, rows, self._sampling, self._name)
        grades = [_grade(reply) for reply in replies]
        if grades.count(None) > _NOT_UNDERSTOOD * len(grades):
            raise ValueError(
                f"{self._name} ends {grades.count(None)} of {len(grades)} evaluations without a grade, such as "
                f"{replies[grades.index(None)][:200]!r}: it is not a trained verifier"
            )
        return dict(zip(texts, grades, strict=True))


def _replies(lm: LanguageModel, rows: Sequence[dict[str, Any]], sampling: Sampling, name: str) -> list[str]:
    """What a verifier writes behind each prompt.

    Raises:
        Mistake: its tokenizer lacks too many tokens of the prompts.
    """
    ids, prompts = prompt_ids(lm.tokenizer, rows), prompt_texts(lm.tokenizer, rows)
    check_words(lm, [token for some in ids for token in some], name)
    sampled = generate(lm, ids, sampling)
    return [completion_text(lm, p, s.ids) for p, s in zip(prompts, sampled, strict=True)]


def _grade(evaluation: str) -> float | None:
    """Returns the number behind the last #### of an evaluation, from 0 to 1; None where there is none."""
    match = re.search(r".*####\s*(1|0(?:\.\d+)?|1 ?/ ?2)\s*$", evaluation.strip(), re.DOTALL)
    return None if match is None else 0.5 if "/" in match[1] else float(match[1])
