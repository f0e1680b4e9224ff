"""A language model behind an address as the judge of which answer is better (Zheng et al. 2023)."""

import os
import re
from collections.abc import Sequence
from typing import Any

from rllab.core.messages import after_thinking
from rllab.rewards.pairwise import ASKS, contest_of
from rllab.rewards.remote import ask_all

_AT_ONCE, _SECONDS = 16, 120.0
_VERDICTS = {"A": 1.0, "B": 0.0, "C": 0.5}
_NOT_UNDERSTOOD = 0.2  # share of a call's verdicts, from which the judge is at fault


async def judge(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    *,
    url: str,
    model: str,
    asks: str = ASKS,
    opponents: int = 2,
    against: str = "",
    **columns: Sequence[Any],
) -> list[float | None]:
    """The share of comparisons that a completion wins, by a judge with OpenAI's interface (vLLM, SGLang, a provider).

    url: up to `/v1`. asks: what the judge is to look for. opponents: with how many others of its group each completion
    is compared. against: a column with the answer that all are compared with instead. The key is read from
    OPENAI_API_KEY.

    Raises:
        ConnectionError: the judge does not answer.
        ValueError: many of its answers end with none of A, B and C.
    """
    contest = contest_of(prompts, completions, opponents, against, columns)
    questions = [
        {"model": model, "temperature": 0, "messages": [{"role": "user", "content": text}]}
        for text in contest.questions(asks)
    ]
    key = os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else None
    address = f"{url.rstrip('/')}/chat/completions"
    said = await ask_all(address, questions, headers=headers, seconds=_SECONDS, at_once=_AT_ONCE)
    try:
        replies = [str(s["choices"][0]["message"]["content"]) for s in said]
    except (LookupError, TypeError):
        raise ConnectionError(f"{address} answers with no chat completion: {str(said[0])[:200]!r}") from None
    verdicts = [verdict(reply) for reply in replies]
    unclear = [r for r, v in zip(replies, verdicts, strict=True) if v is None]
    if len(unclear) > _NOT_UNDERSTOOD * len(replies):
        raise ValueError(
            f"{len(unclear)} of {len(replies)} verdicts of {model} end with none of A, B and C, "
            f"such as {unclear[0][-200:]!r}"
        )
    return contest.scores(verdicts)


def verdict(reply: str) -> float | None:
    """How much the first answer is preferred, by the last letter A, B or C that stands alone; None without one."""
    found = re.findall(r"(?<![A-Za-z'’])([ABC])(?![A-Za-z'’])", after_thinking(reply))
    return _VERDICTS[found[-1]] if found else None
