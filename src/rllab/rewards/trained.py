"""A trained reward model as a reward: `reward: run:reward-model`, or the folder of one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from safetensors import safe_open

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.names import Model
from rllab.text.chat import documents
from rllab.text.models import LanguageModel
from rllab.text.open import open_model
from rllab.text.reward_head import score_completions
from rllab.text.snapshots import located
from rllab.text.tokenizers import unknown_token

MOST_UNKNOWN = 0.3  # share of tokens


class Trained:
    """The score of a completion, behind its prompt, by a reward model.

    length: the most tokens of prompt and completion; longer ones lose the beginning of the prompt and the end of the
    completion.
    at_once: rows of a forward pass.

    Raises:
        FieldMistake: the folder contains no reward model.
    """

    in_trainer: ClassVar[bool] = True

    def __init__(
        self,
        model: Annotated[str, Model(hub=True)],
        *,
        length: int = 1024,  # most tokens of prompt and completion; longer ones are cut
        at_once: int = 64,  # rows of a forward pass
    ) -> None:
        check_head(model)
        self._lm = open_model(model, head="reward")
        self._name, self._checked = model, False
        limit = self._lm.model.config.max_position_embeddings
        self._length, self._at_once = min(length, limit or length), at_once

    def begin(self, policy: LanguageModel) -> None:
        """Moves to the policy's device."""
        self._lm.model.to(policy.model.device)  # type: ignore[arg-type]

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any]) -> list[float]:
        """The reward of each completion; of several turns that of the last, with the others as its prompt.

        Raises:
            Mistake: its tokenizer lacks too many of their tokens.
        """
        rows = [scored_row(p, c) for p, c in zip(prompts, completions, strict=True)]
        if not self._checked:  # one call is enough
            shown = documents(self._lm.tokenizer, rows)
            check_words(self._lm, [t for d in shown for t in (*d.prompt, *d.completions[0])], self._name)
            self._checked = True
        scores, _ = score_completions(self._lm, rows, self._length, self._at_once)
        return [float(values[0]) for values in scores]


def check_words(lm: LanguageModel, ids: Sequence[int], name: str) -> None:
    """Checks that a model that grades texts has their words in its vocabulary.

    Raises:
        Mistake: more than 30 % of the tokens are unknown to its tokenizer.
    """
    unknown = unknown_token(lm.tokenizer)
    missed = sum(t == unknown for t in ids) / max(1, len(ids)) if unknown is not None else 0.0
    if missed > MOST_UNKNOWN:
        raise Mistake(
            f"the tokenizer of {name}, a reward, does not know {missed:.0%} of the tokens of prompts and answers, so "
            "its scores would be noise: train a reward on such rows, from a model with these words"
        )


def scored_row(prompt: Any, completion: Any) -> dict[str, Any]:
    """A completion behind its prompt as a row; of several turns the last is scored, with the others as its prompt."""
    if isinstance(completion, str):
        return {"prompt": prompt, "completion": completion}
    return {"prompt": [*prompt, *completion[:-1]], "completion": completion[-1:]}


def check_head(model: str) -> None:
    """Refuses a model without a trained head: it would get a random one, and its rewards would be noise.

    Raises:
        FieldMistake: the folder has no weights, or no head for rewards.
    """
    files = sorted(located(model).glob("*.safetensors"))
    if not files:
        raise FieldMistake("reward", f"{model} is not the folder of a model: it has no weights in safetensors")
    if not any("score" in name.split(".") for file in files for name in _names(file)):
        raise FieldMistake("reward", f"{model} has no head for rewards; rllab train reward-model makes one that has")


def _names(file: Path) -> list[str]:
    with safe_open(file, "numpy") as tensors:
        return list(tensors.keys())
