"""Board games (`rllab.core.protocols.Game`); a bare name in a recipe is an attribute of this module."""

from rllab_envs.games.connect_four.game import ConnectFour as connect_four
from rllab_envs.games.go import Go as go
from rllab_envs.games.open_spiel import OpenSpiel as open_spiel
from rllab_envs.games.othello import Othello as othello
from rllab_envs.games.peg_solitaire import PegSolitaire as peg_solitaire
from rllab_envs.games.tictactoe import TicTacToe as tictactoe

__all__ = ["connect_four", "go", "open_spiel", "othello", "peg_solitaire", "tictactoe"]
