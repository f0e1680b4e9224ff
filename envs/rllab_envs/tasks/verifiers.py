"""Tasksets of verifiers (Brown 2025, its v1) by name: whatever is installed, where a model answers in one turn.

Their rewards run in a process that is confined. Tasksets that need tools, a container or a user who replies belong to
verifiers' own harnesses.
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
    """A taskset's tasks as rows; one in twenty is held out to validate, two in twenty for the test, by a hash.

    taskset: the name of an installed package, or a module, that has one. settings: of its config. most: how many of its
    tasks are read. enough: the sum of rewards from which an answer counts as right.

    Raises:
        FieldMistake: it is not installed, or is not of this kind.
    """

    def __init__(
        self, *, taskset: str, settings: dict[str, Any] | None = None, most: int = 100_000, enough: float = 1.0
    ) -> None:
        self._named: dict[str, Any] = {"taskset": taskset, "settings": settings or {}, "most": most}
        self._enough = enough
        rows = [_row(task, place, taskset) for place, task in enumerate(_tasks(**self._named))]
        if not rows:
            raise FieldMistake("task", f"{taskset} has no tasks")
        told = [json.dumps({k: v for k, v in row.items() if k != "place"}, sort_keys=True) for row in rows]
        self.fingerprint = hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
        self._rows: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
        for row, text in zip(rows, told, strict=True):
            self._rows[split_of(text)].append(row)

    def size(self, split: str) -> int:
        """Rows of `train`, `validation`, `test`."""
        return len(self._rows[split])

    def row(self, index: int, split: str) -> dict[str, Any]:
        """`prompt` as a conversation, `target` (its task's `answer`, if any), `kind`, and `place` in the taskset."""
        return dict(self._rows[split][index])

    def gold(self, row: Mapping[str, Any]) -> str:
        """The task's answer, where it has one."""
        return str(row["target"])

    def correct(self, row: Mapping[str, Any], completion: str) -> bool:
        """Whether the sum of the taskset's weighted rewards is enough."""
        return self.score(row, completion) >= self._enough

    def score(self, row: Mapping[str, Any], completion: str) -> float:
        """The sum of the taskset's weighted rewards."""
        return self._scorer.score(completion, row["target"], {"place": row["place"]})

    @cached_property
    def _scorer(self) -> Scorer:
        return Scorer("rllab_envs.tasks.verifiers:Scores", self._named)


class Scores:
    """The rewards of a taskset, for a process that is confined."""

    def __init__(self, taskset: str, settings: dict[str, Any], most: int) -> None:
        self._tasks = _tasks(taskset, settings, most)

    def __call__(self, completions: Sequence[str], place: Sequence[int]) -> list[float]:
        """What each answer to the task at a place is worth."""
        return [asyncio.run(_scored(self._tasks[at], text)) for text, at in zip(completions, place, strict=True)]


async def _scored(task: Any, completion: str) -> float:
    """The task's rewards of a rollout that consists of its prompt and one reply."""
    from verifiers.v1.configs.agent import AgentConfig
    from verifiers.v1.graph import MessageNode
    from verifiers.v1.trace import AgentInfo, Trace, TraceTask
    from verifiers.v1.types import AssistantMessage

    prompt = [MessageNode(message=m, parent=i - 1 if i else None) for i, m in enumerate(_messages(task.data))]
    reply = MessageNode(message=AssistantMessage(content=completion), parent=len(prompt) - 1, sampled=True)
    told = TraceTask(type=type(task).__name__, data=task.data)
    trace = Trace(task=told, agent=AgentInfo(config=AgentConfig()), nodes=[*prompt, reply], is_completed=True, ok=True)
    await task.score(trace)
    if not trace.rewards:
        raise ValueError("it has no reward that can be told from the reply alone")
    return float(trace.reward)


def _tasks(taskset: str, settings: Mapping[str, Any], most: int) -> list[Any]:
    try:
        from verifiers.v1.utils.loaders import load_taskset, taskset_config_type

        found = load_taskset(taskset_config_type(taskset)(id=taskset, **settings))
    except ImportError as error:
        raise FieldMistake("task", f"{taskset} is not here ({error}): pip install verifiers and the taskset") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise FieldMistake("task", f"verifiers does not load {taskset} with {dict(settings)}: {error}") from None
    return list(islice(found, most))


def _messages(data: Any) -> list[Any]:
    from verifiers.v1.types import SystemMessage, UserMessage

    first = [SystemMessage(content=data.system_prompt)] if data.system_prompt else []
    return first + ([UserMessage(content=data.prompt)] if isinstance(data.prompt, str) else list(data.prompt))


def _row(task: Any, place: int, taskset: str) -> dict[str, Any]:
    if task.NEEDS_CONTAINER or task.toolsets(task.config) or task.data.prompt is None:
        raise FieldMistake("task", f"{taskset} needs tools, a container or a user who speaks first; see verifiers' own")
    if not all(isinstance(m.content, str) for m in _messages(task.data)):
        raise FieldMistake("task", f"{taskset} shows something other than text")
    return {
        "prompt": [{"role": m.role, "content": m.content} for m in _messages(task.data)],
        "target": str(getattr(task.data, "answer", "")),
        "kind": "verifiers",
        "place": place,
    }
