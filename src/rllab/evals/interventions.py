"""Asks a model for its answer behind changed reasoning (Lanham et al. 2023, sections 2.3 to 2.5).

The reasoning is sampled, and then given to the model again: cut after each of its steps, replaced by dots of as many
tokens, and up to a step in which a number was changed, from where the model goes on. `rllab.evals.chain` makes these
texts. Each time the answer is asked for by the style's trigger.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from rllab.answers.numerals import number
from rllab.core.errors import Mistake
from rllab.evals.asked import Asked, score_of
from rllab.evals.asking import Chain, answered, batches, continued, reasoned
from rllab.evals.chain import Corruption, Step, corrupted, dots, implied, steps, wrong
from rllab.evals.items import Items
from rllab.evals.replies import Replies
from rllab.evals.score import Scored
from rllab.evals.style import Style
from rllab.evals.summary import vote
from rllab.text.chat import ids_behind
from rllab.text.models import LanguageModel

Row = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """The model's answer behind given reasoning.

    given: what was done to it, as 'whole', '2 of 5 steps', 'dots' or 'mistake'.
    """

    given: str
    asked: Asked
    scored: Scored

    @property
    def right(self) -> bool:
        """Whether it is correct."""
        return self.scored.graded.correct

    def same(self, other: "Answer") -> bool:
        """Returns whether both are the same answer; no answer is the same as none."""
        mine = vote(self.scored)
        return mine is not None and mine == vote(other.scored)


@dataclass(frozen=True)
class Audited:
    """The answers to an item behind one chain of reasoning, and behind that chain changed.

    chain: its text. cut: behind the first 0, 1, ... of its steps, without the whole chain. wrong: whether an equation
    of each step is wrong; None where none can be checked. corruption, mistake: the changed number, and the answer with
    it; None where the chain has no number. implied: the answer that follows from the changed number; None where that
    cannot be computed.
    """

    chain: str
    whole: Answer
    cut: list[Answer]
    wrong: list[bool | None]
    dots: Answer
    corruption: Corruption | None = None
    mistake: Answer | None = None
    implied: Fraction | None = None

    @property
    def follows(self) -> bool:
        """Whether the answer behind the changed number is the one that follows from it."""
        answer = number(self.mistake.scored.graded.answer or "") if self.mistake else None
        return answer is not None and answer.value == self.implied

    def answers(self) -> list[Answer]:
        """Returns all answers."""
        return [*self.cut, self.whole, self.dots, *([self.mistake] if self.mistake else [])]


def audit(replies: Replies, task: Items, style: Style, seed: int) -> Iterator[tuple[list[Audited], int]]:
    """Yields, for batches of items, their audited chains and how many items have no room in the model's context.

    seed: of the changed numbers.

    Raises:
        Mistake: the style has no reasoning, does not ask for an answer behind it, or does not fit the task.
    """
    if not style.points[-1][0]:
        raise Mistake(f"--style {style.name}: it leaves no reasoning that could be changed: take --style audit")
    for given in batches(replies, task, style):
        if (one := next((p for _, p in given if not p.staged), None)) is not None:
            raise Mistake(
                f"--style {style.name}: it has no trigger for this model ({one.text[-40:]!r} begins the reply), and "
                "--audit asks for the answer behind changed reasoning: take --style audit"
            )
        chains, too_long = reasoned(replies, style, given)
        yield _audited(replies, task, style, chains, seed), len(too_long)


def _audited(replies: Replies, task: Items, style: Style, chains: Sequence[Chain], seed: int) -> list[Audited]:
    texts = [chain.text(replies.lm) + chain.rest for chain in chains]
    parts = [steps(text) for text in texts]
    changes = [
        corrupted(text, some, seed, f"{chain.item.id}/{chain.sample}")
        for chain, text, some in zip(chains, texts, parts, strict=True)
    ]
    begun = [_given(replies.lm, chain, c.text) for chain, c in zip(chains, changes, strict=True) if c]
    mistakes = iter(continued(replies, style, begun))
    plan = list[tuple[str, Chain]]()
    for chain, text, some, change in zip(chains, texts, parts, changes, strict=True):
        plan += _plan(replies.lm, chain, text, some) + ([("mistake", next(mistakes))] if change else [])
    asked = answered(replies, style, [(style.points[-1], chain) for _, chain in plan])
    answers = (Answer(name, a, score_of(task, name, a)) for (name, _), a in zip(plan, asked, strict=True))
    return [_of_chain(answers, *each) for each in zip(texts, parts, changes, strict=True)]


def _plan(lm: LanguageModel, chain: Chain, text: str, parts: Sequence[Step]) -> list[tuple[str, Chain]]:
    """Returns what is given in place of a chain, each with its name: its first steps, itself, and dots."""
    ends = [0, *(part.end for part in parts[:-1])] if parts else []
    cut = [(f"{n} of {len(parts)} steps", _given(lm, chain, text[:end])) for n, end in enumerate(ends)]
    filler = dots(len(chain.ids), lambda dotted: len(ids_behind(lm.tokenizer, "", dotted))) if parts else ""
    return [*cut, ("whole", chain), ("dots", _given(lm, chain, filler))]


def _given(lm: LanguageModel, chain: Chain, text: str) -> Chain:
    """Returns a chain with another text."""
    ids = ids_behind(lm.tokenizer, chain.prompt.text, text) if text else []
    return replace(chain, ids=ids, rest="", sampled=0, finished=True)


def _of_chain(answers: Iterator[Answer], text: str, parts: Sequence[Step], change: Corruption | None) -> Audited:
    cut = [next(answers) for _ in parts]
    whole, filler = next(answers), next(answers)
    mistake = next(answers) if change else None
    answer = number(whole.scored.graded.answer or "")
    follows = implied(text, parts, change, answer.value) if change and answer else None
    return Audited(text, whole, cut, [wrong(text, part) for part in parts], filler, change, mistake, follows)


def transcripts(audited: Audited, hide_gold: bool = False) -> Iterator[Row]:
    """Yields a row for each answer: what the model was given, and what it answered."""
    for each in audited.answers():
        asked, graded = each.asked, each.scored.graded
        row: Row = {"id": asked.item.id, "sample": asked.sample, "given": each.given}
        row |= {"question": asked.item.question, "kind": asked.item.kind}
        row |= {} if hide_gold else {"target": asked.item.target}
        row |= {"prompt": asked.prompt, "reasoning": asked.reasoning, "answer_prompt": asked.trigger}
        row |= {"answer_completion": asked.answer, "answer": graded.answer, "correct": graded.correct}
        row |= {"reason": graded.how if hide_gold else graded.reason, "same": each.same(audited.whole)}
        if each.given == "whole":
            row |= {"steps": len(audited.cut), "wrong": audited.wrong}
        if each is audited.mistake and audited.corruption:
            change, follows = audited.corruption, audited.implied
            row |= {"step": change.step + 1, "old": change.old, "new": change.new}
            row |= {"implied": None if follows is None else str(follows), "follows": audited.follows}
        yield row
