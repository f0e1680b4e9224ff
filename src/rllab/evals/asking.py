"""Asks a model the items of a task in a style: reasoning first, then the answer.

In one stage the reply is graded as it is. In two, a trigger behind the reasoning asks for the answer: its tokens are
sampled greedily, or the log-likelihoods of the choices are compared. Items are asked in batches of prompts of similar
length, and each batch is handed out as soon as it is complete.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rllab.core.harmony import END
from rllab.core.messages import after_thinking, thinks
from rllab.evals.asked import Asked
from rllab.evals.items import Item, Items
from rllab.evals.prompts import Prompt, prompts, room
from rllab.evals.replies import Call, Replies, Reply
from rllab.evals.style import Style
from rllab.text.chat import ids_behind
from rllab.text.evaluation import continuation_log_likelihoods
from rllab.text.models import LanguageModel
from rllab.text.sampler import Sampling

_CONTEXT = 8  # tokens before others with which their text is decoded


@dataclass(frozen=True)
class Chain:
    """The reasoning of a reply.

    item, prompt, sample: what it replies to. limit: most tokens. ids: its tokens. rest: text behind them that is no
    whole token. sampled: how many tokens the model sampled. finished: the model ended it itself.
    """

    item: Item
    prompt: Prompt
    sample: int
    limit: int
    ids: list[int]
    rest: str = ""
    sampled: int = 0
    finished: bool = True

    @property
    def whole(self) -> list[int]:
        """The tokens of prompt and reasoning."""
        return [*self.prompt.ids, *self.ids]

    def text(self, lm: LanguageModel) -> str:
        """The text of its tokens, as it follows that of the prompt."""
        return _behind(lm, self.prompt.ids, self.ids)

    def cut(self, budget: int) -> "Chain":
        """Returns its first `budget` tokens."""
        if len(self.ids) <= budget:
            return self
        return replace(self, ids=self.ids[:budget], rest="", sampled=budget, finished=False)


def ask(replies: Replies, task: Items, style: Style) -> Iterator[list[Asked]]:
    """Yields the replies to all items in batches: of each item all samples and points.

    Raises:
        Mistake: the task does not fit the style, or the model's chat template fails.
    """
    for given in batches(replies, task, style):
        yield ask_batch(replies, style, given)


def batches(replies: Replies, task: Items, style: Style) -> Iterator[list[tuple[Item, Prompt]]]:
    """Yields items with their prompts in batches, the longest prompts first.

    Raises:
        Mistake: the task does not fit the style, or the model's chat template fails.
    """
    given = prompts(replies.lm, style, task)
    order = sorted(range(len(given)), key=lambda i: -len(given[i].ids))
    size = max(1, replies.at_once // style.samples)
    for first in range(0, len(order), size):
        yield [(task.items[i], given[i]) for i in order[first : first + size]]


def reasoned(
    replies: Replies, style: Style, given: Sequence[tuple[Item, Prompt]]
) -> tuple[list[Chain], list[tuple[Item, Prompt]]]:
    """Returns (the reasoning of each sample of each item, the items that have no room in the model's context)."""
    most = [_room(replies.lm, style, prompt) for _, prompt in given]
    chains = [
        Chain(item, prompt, sample, limit, [])
        for (item, prompt), limit in zip(given, most, strict=True)
        if limit is not None
        for sample in range(style.samples)
    ]
    too_long = [each for each, limit in zip(given, most, strict=True) if limit is None]
    return continued(replies, style, chains), too_long


def ask_batch(replies: Replies, style: Style, given: Sequence[tuple[Item, Prompt]]) -> list[Asked]:
    """Returns the replies to items: of each all samples and points."""
    chains, too_long = reasoned(replies, style, given)
    asked = [
        Asked(item, sample, *point, prompt.text, too_long=True)
        for item, prompt in too_long
        for point in style.points
        for sample in range(style.samples)
    ]
    asked += [_asked(replies.lm, style.points[-1], chain) for chain in chains if not chain.prompt.staged]
    chains = [chain for chain in chains if chain.prompt.staged]
    for extensions in range(style.extensions + 1):
        if extensions:
            chains = continued(replies, style, chains, style.extend)
        points = [point for point in style.points if point[1] == extensions]
        asked += answered(replies, style, [(point, chain.cut(point[0])) for point in points for chain in chains])
    return asked


def _room(lm: LanguageModel, style: Style, prompt: Prompt) -> int | None:
    """Returns the most tokens of reasoning; None where the item has no room in the model's context."""
    longest, context = style.points[-1][0], room(lm)
    if context is None:
        return longest
    behind = len(ids_behind(lm.tokenizer, prompt.text, prompt.trigger)) if prompt.trigger else 0
    answer = max((len(ids_behind(lm.tokenizer, prompt.text, text)) for text in prompt.choices), default=0)
    if prompt.staged:
        behind += answer or style.answer_tokens
    limit = min(longest, context - len(prompt.ids) - behind)
    return limit if limit > 0 or (limit == 0 and prompt.staged) else None


def continued(replies: Replies, style: Style, chains: Sequence[Chain], extend: str = "") -> list[Chain]:
    """Returns chains with what the model samples behind them, where they are finished and have tokens left.

    extend: text that goes before it.
    """
    lm, begun, calls = replies.lm, list[list[int]](), list[Call]()
    for chain in chains:
        ids = chain.ids
        if extend:
            ids = ids + ids_behind(lm.tokenizer, chain.prompt.text + chain.text(lm), chain.rest + extend)
        begun.append(ids)
        left = chain.limit - len(ids) if chain.finished else 0
        calls.append(Call((*chain.prompt.ids, *ids), chain.sample, left))
    longest = max((call.limit for call in calls), default=0)
    asks = lm.harmony and any(chain.prompt.trigger for chain in chains)  # for the answer, behind the channel `analysis`
    stop = (*style.stop, END) if asks else style.stop
    sampling = Sampling(max_new_tokens=longest, temperature=style.temperature, top_p=style.top_p, stop=stop)
    drawn = iter(replies([call for call in calls if call.limit > 0], sampling))
    more = []
    for chain, ids, call in zip(chains, begun, calls, strict=True):
        if call.limit <= 0:  # where there is no reasoning at all, none was cut
            more.append(chain if chain.ids or extend else replace(chain, finished=not style.points[-1][0]))
            continue
        reply = next(drawn)
        kept, rest = _until_end(lm, call.prompt, reply, stop)
        more.append(replace(chain, ids=ids + kept, rest=rest, sampled=chain.sampled + len(reply.ids),
                            finished=reply.finished))  # fmt: skip
    return more


def _until_end(lm: LanguageModel, before: Sequence[int], reply: Reply, stop: Sequence[str]) -> tuple[list[int], str]:
    """Returns (the tokens of a reply before what ends it, text behind them that is no whole token).

    It is ended by a stop token, a stop text, or the end of a turn. before: the tokens that it follows.
    """
    ids = reply.ids[:-1] if reply.ids and reply.ids[-1] in lm.stop_ids else reply.ids
    whole = _behind(lm, before, ids)
    ends = [whole.index(end) for end in (*stop, *lm.stop_texts) if end in whole]
    if not ends:
        return ids, ""
    text = whole[: min(ends)].rstrip()
    while not text.startswith(_behind(lm, before, ids)):
        ids = ids[:-1]
    return ids, text[len(_behind(lm, before, ids)) :]


def _behind(lm: LanguageModel, before: Sequence[int], ids: Sequence[int]) -> str:
    """Returns the text of tokens behind others; alone, the first could lose the space before it."""
    last = list(before[-_CONTEXT:])
    front, whole = lm.text_of(last), lm.text_of([*last, *ids])
    return whole[len(front) :] if whole.startswith(front) else str(lm.tokenizer.decode(list(ids)))


def _asked(lm: LanguageModel, point: tuple[int, int], chain: Chain) -> Asked:
    """Returns the reply with its reasoning alone."""
    prompt = chain.prompt
    return Asked(
        chain.item,
        chain.sample,
        *point,
        prompt.text.removesuffix(prompt.reply),
        prompt.reply + chain.text(lm) + chain.rest,
        prompt.trigger,
        tokens=chain.sampled,
        thinking=_thinking(lm, chain),
        finished=chain.finished,
    )


def _thinking(lm: LanguageModel, chain: Chain) -> int:
    """Returns how many tokens a model sampled until its thinking ends: all of reasoning in two stages."""
    whole = chain.prompt.reply + chain.text(lm)
    if chain.prompt.staged or not after_thinking(whole).strip():
        return chain.sampled if chain.prompt.staged or thinks(whole) else 0
    behind = len(after_thinking(whole))
    if behind == len(whole):
        return 0
    end, counts = len(chain.text(lm)) - behind, range(len(chain.ids) + 1)  # the texts of more tokens are longer
    return bisect_left(counts, end, key=lambda n: len(_behind(lm, chain.prompt.ids, chain.ids[:n])))


def answered(replies: Replies, style: Style, chains: Sequence[tuple[tuple[int, int], Chain]]) -> list[Asked]:
    """Returns the replies with the answers that the model gives behind each reasoning."""
    lm, asked, prefixes = replies.lm, [_asked(replies.lm, *each) for each in chains], list[list[int]]()
    for _, chain in chains:
        text = chain.prompt.text + chain.text(lm)
        prefixes.append(chain.whole + ids_behind(lm.tokenizer, text, chain.rest + chain.prompt.trigger))
    if style.measure == "choice":
        choices = [chain.prompt.choices for _, chain in chains]
        each = continuation_log_likelihoods(lm, prefixes, choices)
        return [
            replace(a, answer=texts[int(np.argmax(logp))], scores=tuple(map(float, logp)))
            for a, texts, logp in zip(asked, choices, each, strict=True)
        ]
    sampling = Sampling(max_new_tokens=style.answer_tokens, stop=style.stop)
    answers = replies([Call(tuple(prefix), 0, style.answer_tokens) for prefix in prefixes], sampling)
    answered = []
    for a, prefix, reply in zip(asked, prefixes, answers, strict=True):
        ids, rest = _until_end(lm, prefix, reply, style.stop)
        text, tokens = _behind(lm, prefix, ids) + rest, a.tokens + len(reply.ids)
        answered.append(replace(a, answer=text, tokens=tokens, answered=reply.finished))
    return answered
