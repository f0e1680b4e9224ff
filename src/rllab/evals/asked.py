"""A reply to an item, and its grade. No model is needed to read one again."""

from dataclasses import dataclass

import numpy as np

from rllab.answers import GradedAnswer
from rllab.evals.items import Item, Items
from rllab.evals.recordings import Recording
from rllab.evals.score import Scored

VERSION = 1  # of the sampler's choice of tokens; another one makes replies that were kept another's
_WHY = "not asked: longer than the model's context"
TOO_LONG = GradedAnswer(None, False, _WHY, how=_WHY)


@dataclass(frozen=True)
class Asked:
    """A reply to an item.

    budget, extensions: the point of the style that it belongs to. prompt: its text, up to where the reply begins.
    reasoning: the reply, up to the trigger. trigger, answer: the second stage; "" for one stage. tokens: how many were
    sampled. thinking: how many of them until the reply ends its thinking. finished: the model ended its reasoning
    itself. answered: it ended its answer itself, behind a trigger. scores: log-likelihoods of the choices, in nats.
    too_long: the item has no room in the model's context, so the model was not asked.
    """

    item: Item
    sample: int
    budget: int
    extensions: int
    prompt: str
    reasoning: str = ""
    trigger: str = ""
    answer: str = ""
    tokens: int = 0
    thinking: int = 0
    finished: bool = False
    answered: bool = True
    scores: tuple[float, ...] = ()
    too_long: bool = False

    @property
    def completion(self) -> str:
        """The whole reply."""
        return self.reasoning + self.trigger + self.answer

    @property
    def cut_off(self) -> bool:
        """Whether a limit of tokens ended the reasoning or the answer."""
        return not (self.too_long or (self.finished and self.answered))


def score_of(task: Items, file: str, asked: Asked) -> Scored:
    """Returns a reply with its grade. file: names where it comes from."""
    item, choice = asked.item, bool(asked.scores)
    answer = item.choices[int(np.argmax(asked.scores))] if choice and item.kind == "yesno" else ""
    if choice and item.kind == "choice":
        answer = item.letters[int(np.argmax(asked.scores))]
    graded = TOO_LONG if asked.too_long else task.grade(item, answer if choice else asked.completion)
    recording = Recording(
        item.id, item.question, item.target, item.kind, asked.completion, asked.answer, asked.trigger, 0, item.letters
    )
    attempt = None if asked.too_long else task.attempt(item, asked.completion)
    return Scored(file, recording, asked.sample, graded, graded, attempt)
