"""Action masks, and the choices of discrete actions."""

from typing import Any

import numpy as np
from gymnasium import spaces

from rllab.control.copies import Wrong


def action_mask(given: Any, space: Any, ended: bool = False) -> np.ndarray:
    """An environment's action mask as bool [A]; A sums the choices of all components of an action.

    ended: whether the episode has ended, after which no action need be allowed.

    Raises:
        Wrong: the mask has another size or other values, or it allows no action.
    """
    if (sizes := choices(space)) is None:
        raise Wrong(f"info['action_mask'] is given, but actions are {space}; masks need discrete actions")
    mask = np.asarray(given)
    if mask.shape != (sum(sizes),) or not np.isin(mask, (0, 1)).all():
        raise Wrong(f"info['action_mask'] must be {sum(sizes)} bools for {space}, got {given!r}")
    mask = mask.astype(bool)
    if not ended and not all(part.any() for part in np.split(mask, np.cumsum(sizes)[:-1])):
        raise Wrong("info['action_mask'] allows no action, and the episode goes on; `terminated` must be true then")
    return mask


def choices(space: Any) -> list[int] | None:
    """The numbers of choices of the components of a discrete action; None for a space with other actions."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.reshape(-1)]
    return [2] * int(np.prod(space.shape)) if isinstance(space, spaces.MultiBinary) else None
