"""The exception that contract tests raise."""

from rllab.core.errors import Mistake


class Broken(Mistake):
    """An algorithm, a task or a game breaks its contract."""
