"""A service that scores completions: whatever runs behind an address."""

from collections.abc import Sequence
from typing import Any

from rllab.rewards.remote import ask_all


async def http(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]],
    *,
    url: str,
    seconds: float = 30.0,
    batch: int = 64,
    at_once: int = 4,
    **columns: Sequence[Any],
) -> list[Any]:
    """What a service answers to {"prompts": [...], "completions": [...], "completion_ids": [...], each column: [...]}.

    It answers with a list of numbers (null where it does not apply), or {"rewards": [...]}. So many completions go with
    one request, and so many requests at the same time; seconds: for one of them. A busy service (429, 5xx) is asked
    again. `url` may name a user and password, but is kept in the recipe.

    Raises:
        ConnectionError: the service does not answer, or with something else.
    """
    every = {"prompts": prompts, "completions": completions, "completion_ids": completion_ids} | columns
    parts = [{k: list(v[i : i + batch]) for k, v in every.items()} for i in range(0, len(prompts), batch)]
    scores: list[Any] = []
    for part, answer in zip(parts, await ask_all(url, parts, seconds=seconds, at_once=at_once), strict=True):
        found = answer.get("rewards") if isinstance(answer, dict) else answer
        if not isinstance(found, list) or len(found) != len(part["prompts"]):
            raise ConnectionError(
                f"{url} answers {str(answer)[:200]!r}; expected {len(part['prompts'])} numbers in a list, or in "
                '{"rewards": [...]}'
            )
        scores += found
    return scores
