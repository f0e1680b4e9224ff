"""Verifiable tasks in text (`rllab.core.protocols.Task`); a bare name in a recipe is an attribute of this module."""

from rllab_envs.text.calculator import Calculator as calculator
from rllab_envs.text.countdown import Countdown as countdown
from rllab_envs.text.dataset import Dataset as dataset
from rllab_envs.text.guessing import Guessing as guessing
from rllab_envs.text.paren_sums import ParenSums as paren_sums
from rllab_envs.text.pocket import Pocket as pocket
from rllab_envs.text.preferences import TicketPreferences as ticket_preferences
from rllab_envs.text.proving import Proving as proving
from rllab_envs.text.proving import Verification as verification
from rllab_envs.text.published import GSM8K as gsm8k
from rllab_envs.text.published import HHRLHF as hh_rlhf
from rllab_envs.text.published import MATH as math500
from rllab_envs.text.published import LLMBar as llmbar
from rllab_envs.text.reasoning_gym import ReasoningGym as reasoning_gym
from rllab_envs.text.symbolic import CoinFlip as coin_flip
from rllab_envs.text.symbolic import LastLetters as last_letters
from rllab_envs.text.symbolic import Sorting as sorting
from rllab_envs.text.tickets import Tickets as tickets
from rllab_envs.text.verifiers import Verifiers as verifiers

__all__ = [
    "calculator",
    "coin_flip",
    "countdown",
    "dataset",
    "gsm8k",
    "guessing",
    "hh_rlhf",
    "last_letters",
    "llmbar",
    "math500",
    "paren_sums",
    "pocket",
    "proving",
    "reasoning_gym",
    "sorting",
    "ticket_preferences",
    "tickets",
    "verification",
    "verifiers",
]
