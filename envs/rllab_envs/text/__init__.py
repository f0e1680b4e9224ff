"""Verifiable tasks in text (`rllab.core.protocols.Task`); a bare name in a recipe is an attribute of this module."""

from rllab_envs.text.pocket import Pocket

__all__ = ["Pocket", "pocket"]

pocket = Pocket
