"""A trained verifier as the reward of a prover (DeepSeekMath-V2, Shao et al. 2025, section 2.2)."""

from collections.abc import Sequence
from typing import Any, ClassVar

from rllab.core.messages import last_text
from rllab.rewards.self_verification import Evaluation, prover_reward, read_evaluation, read_proof
from rllab.rewards.trained import check_words
from rllab.text.chat import prompt_ids
from rllab.text.models import LanguageModel
from rllab.text.open import open_model
from rllab.text.sampler import Sampling, generate

_NOT_UNDERSTOOD = 0.5  # share of a call's verdicts, from which the verifier is at fault


class Proving:
    """R of proofs with an evaluation of one's own: a verifier reads each proof behind its problem, and judges.

    verifier: a model, such as `run:verifier`; it judges greedily. max_new_tokens: of its evaluation.
    """

    in_trainer: ClassVar[bool] = True

    def __init__(self, *, verifier: str, max_new_tokens: int = 80) -> None:
        self._name, self._lm, self._sampling = verifier, open_model(verifier), Sampling(max_new_tokens=max_new_tokens)

    def begin(self, policy: LanguageModel) -> None:
        """Goes where the policy is."""
        self._lm.model.to(policy.model.device)  # type: ignore[arg-type]

    def __call__(self, completions: Sequence[Any], problem: Sequence[str]) -> list[float]:
        """R of each completion, a proof of what is in the column `problem`.

        Raises:
            Mistake: the verifier does not know most words of the proofs.
            ValueError: it has no evaluation in due form of most of them.
        """
        found = [read_proof(text) for text in map(last_text, completions)]
        asked = [f"{of} {proof}" for of, (proof, _) in zip(problem, found, strict=True)]
        judged = self.verdicts([text for text, (_, own) in zip(asked, found, strict=True) if own is not None])
        return [prover_reward(own, judged.get(text)) for text, (_, own) in zip(asked, found, strict=True)]

    def verdicts(self, asked: Sequence[str]) -> dict[str, Evaluation | None]:
        """What the verifier says of each of some problems with their proofs."""
        unlike = list(dict.fromkeys(asked))
        ids = prompt_ids(self._lm.tokenizer, [{"prompt": [{"role": "user", "content": text}]} for text in unlike])
        check_words(self._lm, [token for some in ids for token in some], self._name)
        said = generate(self._lm, ids, self._sampling)
        replies = [str(self._lm.tokenizer.decode(s.ids, skip_special_tokens=True)) for s in said]
        found = [read_evaluation(reply) for reply in replies]
        if found.count(None) > _NOT_UNDERSTOOD * len(found):
            raise ValueError(
                f"{self._name} evaluates {found.count(None)} of {len(found)} proofs in no due form, such as "
                f"{replies[found.index(None)][:200]!r}: it is no trained verifier"
            )
        return dict(zip(unlike, found, strict=True))
