"""Verifiable tasks in text (`rllab.core.protocols.Task`); a bare name in a recipe is an attribute of this module."""

from rllab_envs.text.dataset import Dataset as dataset
from rllab_envs.text.pocket import Pocket as pocket
from rllab_envs.text.preferences import TicketPreferences as ticket_preferences
from rllab_envs.text.tickets import Tickets as tickets

__all__ = ["dataset", "pocket", "ticket_preferences", "tickets"]
