"""Contract tests as public functions, for authors of algorithms, text tasks and board games."""

from rllab.core.errors import Broken
from rllab.testing.algorithms import (
    check_algorithm,
    check_evaluate,
    check_resume,
    check_seeds,
    check_split,
    check_updates,
    digest,
    finish,
    outcome,
)
from rllab.testing.games import check_game, compare_speed
from rllab.testing.tasks import check_task

__all__ = [
    "Broken",
    "check_algorithm",
    "check_evaluate",
    "check_game",
    "check_resume",
    "check_seeds",
    "check_split",
    "check_task",
    "check_updates",
    "compare_speed",
    "digest",
    "finish",
    "outcome",
]
