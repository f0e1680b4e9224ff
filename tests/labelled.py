"""Files of people's labels for tests: of replies to tickets, and of clips of CartPole."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rllab_envs.tasks import ticket_preferences

from rllab.control.clips import save_clips
from rllab.core.labels import LabelFile, pair_id

Row = dict[str, Any]


def label(content: Row, preferred: str, number: int, by: str = "ann") -> Row:
    """A label of a pair."""
    content = {"pair": pair_id(content)} | content
    return {
        "id": f"{by}-{number}",
        "preferred": preferred,
        "by": by,
        "time": "2026-11-30T12:00:00",
        "left": "a",
    } | content


def tickets(count: int) -> Iterator[tuple[Row, str]]:
    """(content, the better of its replies) of pairs of replies to tickets."""
    task = ticket_preferences()
    for i in range(count):
        row = task.row(i, "validation")
        better, worse = (row[c][0]["content"] for c in ("chosen", "rejected"))
        a, b = sorted([better, worse])
        gold = row["gold"] if a == better else row["gold"][::-1]
        yield {"prompt": row["prompt"], "a": a, "b": b, "gold": gold}, "a" if a == better else "b"


def write_tickets(path: Path, count: int) -> Path:
    """A file in which one labeler prefers the better reply to each ticket."""
    file = LabelFile(path)
    for i, (content, better) in enumerate(tickets(count)):
        file.append(label(content, better, i))
    return path


def poles(count: int, length: int = 8) -> dict[str, np.ndarray]:
    """Clips of a pole, whose score falls with its angle: `obs` [C, L, 4], `action` [C, L], `score` [C]."""
    rng = np.random.default_rng(0)
    obs = rng.normal(0, 0.05, (count, length, 4)).astype(np.float32)
    obs[:, :, 2] += rng.normal(0, 0.1, (count, 1))
    score = -np.abs(obs[:, :, 2]).sum(1)
    return {"obs": obs, "action": rng.integers(2, size=(count, length)), "score": score}


def write_poles(path: Path, count: int, length: int = 8) -> Path:
    """A file in which one labeler prefers the clip with the higher score; the last label is a tie."""
    arrays, file = poles(2 * count, length), LabelFile(path)
    name, score = save_clips(path.parent, arrays), arrays["score"]
    for i in range(count):
        a, b = 2 * i, 2 * i + 1
        better = "tie" if i == count - 1 else "a" if score[a] > score[b] else "b"
        content = {"clips": name, "a": a, "b": b, "gold": [float(score[a]), float(score[b])]}
        file.append(label(content, better, i))
    return path
