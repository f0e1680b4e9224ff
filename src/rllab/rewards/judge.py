"""A language model behind an API as the judge of which answer is better (Zheng et al. 2023)."""

import os
import re
from collections.abc import Sequence
from typing import Any

from rllab.core.messages import after_thinking
from rllab.core.ranges import Count
from rllab.rewards.pairwise import ASKS, contest_of

_AT_ONCE, _SECONDS = 16, 120.0
_VERDICTS = {"A": 1.0, "B": 0.0, "C": 0.5}
_NOT_UNDERSTOOD = 0.2  # the most verdicts of a call without a letter, as a share


async def judge(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    *,
    url: str,  # the judge's address, up to /v1
    model: str,  # the judge's name at that address
    asks: str = ASKS,  # the question to the judge
    opponents: Count = 2,  # others of its group that each completion is compared with
    against: str = "",  # a column with one answer that all completions are compared with instead
    **columns: Sequence[Any],
) -> list[float | None]:
    """The share of comparisons that a completion wins. The judge has OpenAI's interface (vLLM, SGLang, a provider).

    url: up to `/v1`. asks: the question to the judge. opponents: how many others of its group each completion is
    compared with. against: a column with one answer, which all completions are compared with instead. The key is read
    from OPENAI_API_KEY.

    Raises:
        ConnectionError: the judge does not answer.
        ValueError: too many of its answers contain none of A, B and C.
    """
    contest = contest_of(prompts, completions, opponents, against, columns)
    questions = [
        {"model": model, "temperature": 0, "messages": [{"role": "user", "content": text}]}
        for text in contest.questions(asks)
    ]
    from rllab.rewards.remote import ask_all  # not above: each process of a reward would import an HTTP client

    key = os.environ.get("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else None
    address = f"{url.rstrip('/')}/chat/completions"
    responses = await ask_all(address, questions, headers=headers, seconds=_SECONDS, at_once=_AT_ONCE)
    try:
        replies = [str(r["choices"][0]["message"]["content"]) for r in responses]
    except (LookupError, TypeError):
        raise ConnectionError(f"{address} answers with no chat completion: {str(responses[0])[:200]!r}") from None
    verdicts = [verdict(reply) for reply in replies]
    unclear = [r for r, v in zip(replies, verdicts, strict=True) if v is None]
    if len(unclear) > _NOT_UNDERSTOOD * len(replies):
        raise ValueError(
            f"{len(unclear)} of {len(replies)} verdicts of {model} end with none of A, B and C, "
            f"such as {unclear[0][-200:]!r}"
        )
    return contest.scores(verdicts)


def verdict(reply: str) -> float | None:
    """How much the first answer is preferred, by the last separate letter A, B or C; None without one."""
    letters = re.findall(r"(?<![A-Za-z'’])([ABC])(?![A-Za-z'’])", after_thinking(reply))
    return _VERDICTS[letters[-1]] if letters else None
