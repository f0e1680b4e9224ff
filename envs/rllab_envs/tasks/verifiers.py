"""Installed tasksets of verifiers (Brown 2025, version 1) by name, if a model answers them in one turn.

Their rewards run in a confined process. Tasksets that need tools, a container or a user who replies are not supported;
they need the harnesses of verifiers.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

from rllab.core.errors import FieldMistake
from rllab_envs.tasks.draws import split_of
from rllab_envs.tasks.scorers import Scorer


class Verifiers:
    """The tasks of a taskset as rows. By a hash, 1 in 20 is in validation and 2 in 20 are in test.

    taskset: an installed package or a module that contains a taskset. settings: of its config. most: the most tasks
    that are read. enough: the sum of rewards from which an answer counts as right.

    Raises:
        FieldMistake: the taskset is not installed, is empty, or is not supported.
    """

    def __init__(
        self, *, taskset: str, settings: dict[str, Any] | None = None, most: int = 100_000, enough: float = 1.0
    ) -> None:
        self._named: dict[str, Any] = {"taskset": taskset, "settings": settings or {}, "most": most}
        self._enough = enough
        rows = [_row(task, place, taskset) for place, task in enumerate(_tasks(**self._named))]
        if not rows:
            raise FieldMistake("task", f"{taskset} has no tasks")
        texts = [json.dumps({k: v for k, v in row.items() if k != "place"}, sort_keys=True) for row in rows]
        self.fingerprint = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
        self._rows: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
        for row, text in zip(rows, texts, strict=True):
            self._rows[split_of(text)].append(row)

    def size(self, split: str) -> int:
        """Returns the number of rows of a split: `train`, `validation` or `test`."""
        return len(self._rows[split])

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row: `prompt`, `target` (the task's `answer`, or ""), `kind`, and `place` in the taskset."""
        return dict(self._rows[split][index])

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns the task's answer; "" if it has none."""
        return str(row["target"])

    def correct(self, row: Mapping[str, Any], completion: str) -> bool:
        """Returns whether the sum of the taskset's weighted rewards is at least `enough`."""
        return self.score(row, completion) >= self._enough

    def score(self, row: Mapping[str, Any], completion: str) -> float:
        """Returns the sum of the taskset's weighted rewards."""
        return self._scorer.score(completion, row["target"], {"place": row["place"]})

    @cached_property
    def _scorer(self) -> Scorer:
        return Scorer("rllab_envs.tasks.verifiers:Scores", self._named)


class Scores:
    """The rewards of a taskset, to be run in a confined process."""

    def __init__(self, taskset: str, settings: dict[str, Any], most: int) -> None:
        self._tasks = _tasks(taskset, settings, most)

    def __call__(self, completions: Sequence[str], place: Sequence[int]) -> list[float]:
        """Returns the summed rewards of each answer to the task at a place of the taskset."""
        return [asyncio.run(_scored(self._tasks[at], text)) for text, at in zip(completions, place, strict=True)]


async def _scored(task: Any, completion: str) -> float:
    """Returns the summed rewards of a rollout that consists of the task's prompt and one reply."""
    from verifiers.v1.configs.agent import AgentConfig
    from verifiers.v1.graph import MessageNode
    from verifiers.v1.trace import AgentInfo, Trace, TraceTask
    from verifiers.v1.types import AssistantMessage

    prompt = [MessageNode(message=m, parent=i - 1 if i else None) for i, m in enumerate(_messages(task.data))]
    reply = MessageNode(message=AssistantMessage(content=completion), parent=len(prompt) - 1, sampled=True)
    traced = TraceTask(type=type(task).__name__, data=task.data)
    trace = Trace(
        task=traced, agent=AgentInfo(config=AgentConfig()), nodes=[*prompt, reply], is_completed=True, ok=True
    )
    await task.score(trace)
    if not trace.rewards:
        raise ValueError("it has no reward that depends on the reply alone")
    return float(trace.reward)


def _tasks(taskset: str, settings: Mapping[str, Any], most: int) -> list[Any]:
    try:
        from verifiers.v1.utils.loaders import load_taskset, taskset_config_type

        tasks = load_taskset(taskset_config_type(taskset)(id=taskset, **settings))
    except ImportError as error:
        raise FieldMistake("task", f"{taskset} is not installed ({error}): pip install verifiers and it") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise FieldMistake("task", f"verifiers does not load {taskset} with {dict(settings)}: {error}") from None
    return list(islice(tasks, most))


def _messages(data: Any) -> list[Any]:
    from verifiers.v1.types import SystemMessage, UserMessage

    first = [SystemMessage(content=data.system_prompt)] if data.system_prompt else []
    return first + ([UserMessage(content=data.prompt)] if isinstance(data.prompt, str) else list(data.prompt))


def _row(task: Any, place: int, taskset: str) -> dict[str, Any]:
    if task.NEEDS_CONTAINER or task.toolsets(task.config) or task.data.prompt is None:
        raise FieldMistake("task", f"{taskset} needs tools, a container or a user who speaks first; use verifiers")
    if not all(isinstance(m.content, str) for m in _messages(task.data)):
        raise FieldMistake("task", f"{taskset} has messages that are not text")
    return {
        "prompt": [{"role": m.role, "content": m.content} for m in _messages(task.data)],
        "target": str(getattr(task.data, "answer", "")),
        "kind": "verifiers",
        "place": place,
    }
