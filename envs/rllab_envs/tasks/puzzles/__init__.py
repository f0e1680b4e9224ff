"""The puzzles of 'The Illusion of Thinking': tasks with a size, simulators, solvers, and rewards for their answers."""

from collections.abc import Sequence
from typing import Any

from rllab.core.messages import last_text
from rllab_envs.tasks.puzzles.blocks import Blocks
from rllab_envs.tasks.puzzles.checkers import Checkers
from rllab_envs.tasks.puzzles.hanoi import Hanoi
from rllab_envs.tasks.puzzles.puzzle import Attempt, NotAllowed, Puzzle
from rllab_envs.tasks.puzzles.river import River

PUZZLES: dict[str, type[Puzzle[Any]]] = {puzzle.kind: puzzle for puzzle in (Hanoi, Checkers, River, Blocks)}
"""The puzzles by the `kind` of their rows."""

__all__ = ["PUZZLES", "Attempt", "Blocks", "Checkers", "Hanoi", "NotAllowed", "Puzzle", "River", "progress"]


def progress(completions: Sequence[Any], kind: Sequence[str], target: Sequence[str], **columns: Any) -> list[float]:
    """A reward, from 0 to 1: 1 for a solution, else half the share of moves before the first wrong one.

    The share is of the moves of the gold answer. A list that is not wrong but does not end at the goal has none, since
    moves to and fro would earn it. A recipe names it as `rllab_envs.tasks.puzzles:progress`.
    """
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    rewards = []
    for completion, name, gold, row in zip(completions, kind, target, rows, strict=True):
        attempt = PUZZLES[name].attempt(row, last_text(completion))
        right = attempt.first_wrong or 0
        rewards.append(1.0 if attempt.solved else 0.5 * min(1.0, right / (gold.count(";") + 1)))
    return rewards
