"""Games of OpenSpiel (Lanctot et al. 2019) by name: sequential, deterministic, with perfect information.

The package is optional: pip install open_spiel.
"""

import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from rllab.core.errors import FieldMistake
from rllab.core.names import did_you_mean

STONES = {  # the planes of the first player's stones and of the second's, as the first player sees them
    "tic_tac_toe": (2, 1),
    "mnk": (2, 1),
    "othello": (1, 2),
    **dict.fromkeys(["connect_four", "breakthrough", "go", "clobber", "lines_of_action", "y", "havannah"], (0, 1)),
}
"""In these games players take turns at every move, and the name of an action does not depend on the position."""
LONGEST = 32_767  # moves, and as many actions


class Position(NamedTuple):
    """A state of OpenSpiel, and the mover, 0 or 1. If the state has the other player to move, the mover must pass."""

    state: Any
    mover: int


class OpenSpiel:
    """A game of OpenSpiel, one board at a time. game: as for `pyspiel.load_game`, for example `go(board_size=5)`.

    Planes: the mover's stones, the other's (both empty in games not in `STONES`), the other planes of OpenSpiel's
    observation tensor from the mover's side, and 1 everywhere if the first player is to move. For one player: the
    tensor alone. In games not in `STONES`, actions are named by their numbers, and an action `pass` is added for a
    player who waits while the other moves again. Rewards are scaled to lie from -1 to 1.
    """

    def __init__(self, *, game: str) -> None:
        self.rules = _loaded(game)
        short, self.players = self.rules.get_type().short_name, self.rules.num_players()
        relative = self.rules.get_parameters().get("egocentric_obs_tensor")
        self._stones = None if relative else STONES.get(short)
        known, actions = self._stones is not None, self.rules.num_distinct_actions()
        waits = self.players == 2 and not known
        self.names = _names(self.rules) if known else [*map(str, range(actions)), *(["pass"] if waits else [])]
        self.longest = min(LONGEST, self.rules.max_game_length() * (2 if waits else 1))
        self._pass = actions
        self._scale = max(1.0, abs(self.rules.min_utility()), abs(self.rules.max_utility()))
        self._shape = _planes(self.rules.observation_tensor_shape())

    def start(self) -> Position:
        return Position(self.rules.new_initial_state(), 0)

    def legal(self, position: Position) -> list[int]:
        actions: list[int] = position.state.legal_actions()
        return [self._pass] if self.waits(position) else actions

    def waits(self, position: Position) -> bool:
        """Whether the mover must pass, as the other player moves again."""
        return bool(position.state.current_player() != position.mover)

    def play(self, position: Position, action: int) -> tuple[Position, float, bool]:
        state, mover = position
        following = (mover + 1) % self.players
        if self.waits(position):
            return Position(state, following), 0.0, False
        after = state.child(action)
        return Position(after, following), after.rewards()[mover] / self._scale, after.is_terminal()

    def observe(self, position: Position) -> np.ndarray:
        state, mover = position
        seen = np.array(state.observation_tensor(0 if self._stones else mover), np.float32).reshape(self._shape)
        if self.players == 1:
            return seen
        sides = list(self._stones or ())
        stones = seen[sides] if sides else np.zeros((2, *self._shape[1:]), np.float32)
        first = np.full((1, *self._shape[1:]), mover == 0, np.float32)
        return np.concatenate([stones[::-1] if mover else stones, np.delete(seen, sides, 0), first])

    def show(self, position: Position) -> str:
        """OpenSpiel's picture; in games not in `STONES` with the meaning of each legal action."""
        state, mover = position
        if self._stones or state.is_terminal() or self.waits(position):
            return str(state)
        actions = ", ".join(f"{a} {state.action_to_string(mover, a)}" for a in state.legal_actions())
        return f"{state}\n{actions}"


def _loaded(game: str) -> Any:
    """The game with this name in OpenSpiel.

    Raises:
        FieldMistake: there is no such game, or it cannot be searched; the message says why.
    """
    try:
        import pyspiel
    except ImportError as error:
        raise FieldMistake("game", f"open_spiel is not installed ({error}): pip install open_spiel") from None
    short = game.partition("(")[0].strip()
    if short not in pyspiel.registered_names():
        raise FieldMistake("game", f"OpenSpiel has no game {short!r}{did_you_mean(short, pyspiel.registered_names())}")
    try:
        rules = pyspiel.load_game(game)
    except pyspiel.SpielError as error:
        raise FieldMistake("game", f"OpenSpiel cannot make {game}: {error}") from None
    if why := _unsupported(rules, pyspiel.GameType):
        raise FieldMistake("game", f"OpenSpiel's {game} cannot be searched here: {', '.join(why)}")
    return rules


def _unsupported(rules: Any, types: Any) -> list[str]:
    """The reasons why a game cannot be searched here."""
    kind, players = rules.get_type(), rules.num_players()
    length, actions = rules.max_game_length(), rules.num_distinct_actions()
    reasons = {
        "its players move at the same time": kind.dynamics != types.Dynamics.SEQUENTIAL,
        "it has chance moves": kind.chance_mode != types.ChanceMode.DETERMINISTIC,
        "its information is imperfect": kind.information != types.Information.PERFECT_INFORMATION,
        f"it is for {players} players, and not for 1 or 2": players > 2,
        "it is not zero-sum": players == 2 and kind.utility != types.Utility.ZERO_SUM,
        "it has no observation tensor as a network's input": not kind.provides_observation_tensor,
        "its rewards are not bounded": not math.isfinite(rules.max_utility() - rules.min_utility()),
        f"{actions:,} actions are more than {LONGEST:,}": actions > LONGEST,
        f"{length:,} moves are more than {LONGEST:,}": length > LONGEST,
    }
    return [why for why, holds in reasons.items() if holds]


def _names(rules: Any) -> list[str]:
    """The names of actions for either player; a number where several actions have the same name."""
    state = rules.new_initial_state()
    each = [[state.action_to_string(p, a) for p in (0, 1)] for a in range(rules.num_distinct_actions())]
    names = ["".join(c for c, d in zip(*both, strict=True) if c == d).strip().lower() for both in each]
    count = Counter(names)
    return [name if count[name] == 1 else str(a) for a, name in enumerate(names)]


def _planes(shape: list[int]) -> tuple[int, int, int]:
    """The shape [C, H, W] of an observation of any shape."""
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    channels, height, width = [*shape, 1, 1][:3] if len(shape) < 3 else [math.prod(shape[:-2]), *shape[-2:]]
    return channels, height, width
