"""Verifiable text tasks (`rllab.core.protocols.Task`). A bare task name in a recipe is an attribute of this module."""

from typing import Any

from rllab.core.errors import Mistake
from rllab_envs.tasks.calculator import Calculator as calculator
from rllab_envs.tasks.countdown import Countdown as countdown
from rllab_envs.tasks.dataset import Dataset as dataset
from rllab_envs.tasks.earth import Earth as earth
from rllab_envs.tasks.earth import Planets as planets
from rllab_envs.tasks.guessing import Guessing as guessing
from rllab_envs.tasks.paren_sums import ParenSums as paren_sums
from rllab_envs.tasks.pocket import Pocket as pocket
from rllab_envs.tasks.pocket_replies import PocketPreferences as pocket_preferences
from rllab_envs.tasks.pocket_replies import PocketVerification as pocket_verification
from rllab_envs.tasks.preferences import TicketPreferences as ticket_preferences
from rllab_envs.tasks.proving import Proving as proving
from rllab_envs.tasks.proving import Verification as verification
from rllab_envs.tasks.published import GSM8K as gsm8k
from rllab_envs.tasks.published import HHRLHF as hh_rlhf
from rllab_envs.tasks.published import MATH as math500
from rllab_envs.tasks.published import LLMBar as llmbar
from rllab_envs.tasks.puzzles import Blocks as blocks
from rllab_envs.tasks.puzzles import Checkers as checkers
from rllab_envs.tasks.puzzles import Hanoi as hanoi
from rllab_envs.tasks.puzzles import River as river
from rllab_envs.tasks.reasoning_gym import ReasoningGym as reasoning_gym
from rllab_envs.tasks.symbolic import CoinFlip as coin_flip
from rllab_envs.tasks.symbolic import LastLetters as last_letters
from rllab_envs.tasks.symbolic import Sorting as sorting
from rllab_envs.tasks.tickets import Tickets as tickets
from rllab_envs.tasks.verifiers import Verifiers as verifiers

__all__ = [
    "blocks",
    "calculator",
    "checkers",
    "coin_flip",
    "countdown",
    "dataset",
    "earth",
    "gsm8k",
    "guessing",
    "hanoi",
    "hh_rlhf",
    "last_letters",
    "llmbar",
    "math500",
    "paren_sums",
    "planets",
    "pocket",
    "pocket_preferences",
    "pocket_verification",
    "proving",
    "reasoning_gym",
    "river",
    "sorting",
    "ticket_preferences",
    "tickets",
    "verification",
    "verifiers",
]


def __getattr__(name: str) -> Any:
    """Refuses benchmarks by name where a recipe names a task.

    Raises:
        Mistake: a benchmark has this name, or it is the file of a definition.
        AttributeError: there is no such task.
    """
    from rllab_envs.tasks.definitions import is_benchmark

    if is_benchmark(name):
        raise Mistake(
            f"{name} is a benchmark, whose rows are for tests alone: train on another task, and evaluate with "
            f"rllab eval MODEL --task {name}"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
