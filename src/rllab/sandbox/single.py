"""Rewards of single completions, with the signature of verl's `compute_score`."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from rllab.core.messages import last_text
from rllab.core.names import SINGLE, accepted

Scores = list[Any] | Awaitable[list[Any]]


def of_each(function: Callable[..., Any]) -> Callable[..., Scores]:
    """Returns a reward that calls verl's `compute_score` for each completion, as verl's reward manager does.

    `solution_str` is the text of the completion. `ground_truth` is the row's column of that name, or that in its
    `reward_model`, or its `target`. `data_source` and `extra_info` are columns; they are "" and {} in rows without.
    A result that is a dict holds the score as `score`.

    Raises:
        KeyError: when the reward is called, if the rows have no ground truth.
    """

    def reward(completions: Sequence[Any], **columns: Sequence[Any]) -> Scores:
        rows = [{k: v[i] for k, v in columns.items()} for i in range(len(completions))]
        scores = [
            function(**accepted(function, _arguments(last_text(completion), row)))
            for completion, row in zip(completions, rows, strict=True)
        ]
        return _awaited(scores) if any(map(inspect.isawaitable, scores)) else list(map(_score, scores))

    return reward


def _arguments(text: str, row: Mapping[str, Any]) -> dict[str, Any]:
    values = (row.get("data_source") or "", text, _ground_truth(row), row.get("extra_info") or {})
    return dict(zip(SINGLE, values, strict=True))


def _ground_truth(row: Mapping[str, Any]) -> Any:
    model = row.get("reward_model")
    for columns in (row, model if isinstance(model, Mapping) else {}, {"ground_truth": row.get("target")}):
        if columns.get("ground_truth") is not None:
            return columns["ground_truth"]
    raise KeyError(f"the rows have no ground_truth, reward_model or target; their columns are {', '.join(row)}")


async def _awaited(scores: Sequence[Any]) -> list[Any]:
    import asyncio

    each = await asyncio.gather(*scores)
    return list(map(_score, each))


def _score(result: Any) -> Any:
    return result["score"] if isinstance(result, Mapping) and "score" in result else result
