"""Rewards from a service over HTTP."""

from collections.abc import Sequence
from typing import Any

from rllab.core.ranges import Count, Positive


async def http(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]],
    *,
    url: str,  # the service's address
    seconds: Positive = 30.0,  # deadline of one request
    batch: Count = 64,  # completions of a request
    at_once: Count = 4,  # requests at the same time
    **columns: Sequence[Any],
) -> list[Any]:
    """Scores from a service, to which the texts and the columns of their rows are posted.

    A request is {"prompts": [...], "completions": [...], "completion_ids": [...], each column: [...]}.
    The service replies with a list of numbers (null where it does not apply), or {"rewards": [...]}.

    seconds: for one request. batch: completions of a request. at_once: requests at the same time. A busy service (429,
    5xx) is tried again. `url` may contain a user and password, but is stored in the recipe.

    Raises:
        ConnectionError: the service does not answer, or not with such a list.
    """
    from rllab.rewards.remote import ask_all  # not above: each process of a reward would import an HTTP client

    every = {"prompts": prompts, "completions": completions, "completion_ids": completion_ids} | columns
    parts = [{k: list(v[i : i + batch]) for k, v in every.items()} for i in range(0, len(prompts), batch)]
    scores: list[Any] = []
    for part, answer in zip(parts, await ask_all(url, parts, seconds=seconds, at_once=at_once), strict=True):
        values = answer.get("rewards") if isinstance(answer, dict) else answer
        if not isinstance(values, list) or len(values) != len(part["prompts"]):
            raise ConnectionError(
                f"{url} answers {str(answer)[:200]!r}; expected {len(part['prompts'])} numbers in a list, or in "
                '{"rewards": [...]}'
            )
        scores += values
    return scores
