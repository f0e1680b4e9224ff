"""What a contract test raises."""

from rllab.core.errors import Mistake


class Broken(Mistake):
    """An algorithm, a task or a game does not keep its side of the contract."""
