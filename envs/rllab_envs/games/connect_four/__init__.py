"""Connect four: the game, its exact solver, and solved positions."""

from rllab_envs.games.connect_four.game import ConnectFour as ConnectFour
