"""A trained verifier as the reward of a prover (DeepSeekMath-V2, Shao et al. 2025, section 2.2)."""

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


class Proving:
    """R of proofs that end with an evaluation of their own; a verifier reads each proof behind its problem.

    verifier: a model, such as `run:verifier`; it is sampled greedily. max_new_tokens: of its evaluation.
    """

    in_trainer: ClassVar[bool] = True

    def __init__(
        self,
        *,
        verifier: Annotated[str, Model(hub=True)],  # a model, such as run:verifier
        max_new_tokens: int = 80,  # most tokens of its evaluation
    ) -> None:
        self._name, self._lm, self._sampling = verifier, open_model(verifier), Sampling(max_new_tokens=max_new_tokens)

    def begin(self, policy: LanguageModel) -> None:
        """Moves to the policy's device."""
        self._lm.model.to(policy.model.device)  # type: ignore[arg-type]

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
        ids, prompts = prompt_ids(self._lm.tokenizer, rows), prompt_texts(self._lm.tokenizer, rows)
        check_words(self._lm, [token for some in ids for token in some], self._name)
        sampled = generate(self._lm, ids, self._sampling)
        replies = [completion_text(self._lm, p, s.ids) for p, s in zip(prompts, sampled, strict=True)]
        evaluations = [read_evaluation(reply) for reply in replies]
        if evaluations.count(None) > _NOT_UNDERSTOOD * len(evaluations):
            raise ValueError(
                f"{self._name} evaluates {evaluations.count(None)} of {len(evaluations)} proofs not in the "
                f"required form, such as {replies[evaluations.index(None)][:200]!r}: it is not a trained verifier"
            )
        return dict(zip(unlike, evaluations, strict=True))
