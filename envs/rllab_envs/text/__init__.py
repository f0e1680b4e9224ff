"""Verifiable tasks in text (`rllab.core.protocols.Task`); a bare name in a recipe is an attribute of this module."""

from rllab_envs.text.dataset import Dataset as dataset
from rllab_envs.text.pocket import Pocket as pocket
from rllab_envs.text.preferences import TicketPreferences as ticket_preferences
from rllab_envs.text.published import GSM8K as gsm8k
from rllab_envs.text.published import HHRLHF as hh_rlhf
from rllab_envs.text.published import LLMBar as llmbar
from rllab_envs.text.tickets import Tickets as tickets

__all__ = ["dataset", "gsm8k", "hh_rlhf", "llmbar", "pocket", "ticket_preferences", "tickets"]
