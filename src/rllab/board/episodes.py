"""Greedy episodes of a run in its environment, for the page and for videos.

They are played by the lab's own evaluation: with the wrappers, masks and running statistics of the run.
"""

import base64
import io
from collections.abc import Generator, Mapping
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from rllab.board.loaded import LoadedRun
from rllab.board.scenes import Frame, fps_of, kind_of, rendered, state_of, world_of
from rllab.control.algorithm import Control
from rllab.control.episodes import OneEpisode
from rllab.control.vector import Transition
from rllab.core.algorithm import Algorithm
from rllab.core.errors import Mistake

MOST_FRAMES = 3000  # pictures of an episode that the page keeps
_SMALL = 256 * 256  # pixels up to which a picture is sent without loss
INSTALL = "./lab python -m pip install"  # without a clone: pip install
_MOST_SEED = 2**31 - 1


def episode(run: LoadedRun, request: Mapping[str, Any]) -> Generator[dict[str, Any], None, dict[str, Any]]:
    """Plays an episode of a run, and yields what the page shows of it.

    The request has `seed` and `index`, whose sum is the seed of the environment's `reset`, and `checkpoint`: a step, or
    None for the newest.

    First comes `{"env", "kind", "fps", "seed", "checkpoint"}`, with the first state; then for each step `{"action",
    "return"}`, with the state after it. A state is `"state"`, numbers as in `scenes.state_of`, with `"world"` at the
    start; or `"image"`, a data URL. Returned are `{"return", "steps", "why"}`.

    Raises:
        Mistake: the run does not act in an environment, or it cannot be shown.
    """
    algorithm = controls(run.name, run.algorithm(_whole(request, "checkpoint", None)))
    seed = _whole(request, "seed", 0) + _whole(request, "index", 0)
    if seed > _MOST_SEED:
        raise Mistake(f"seed {seed} is too large; the largest is {_MOST_SEED}")
    envs = algorithm.single(seed)
    name = algorithm.env.rpartition(":")[2]  # without the file that registers it
    about: dict[str, Any] = {"env": name, "kind": kind_of(envs), "fps": fps_of(envs), "seed": seed}
    about["checkpoint"], limit = run.step, algorithm.eval_max_steps
    if about["kind"]:
        about["world"], look = world_of(envs), partial(_numbers, envs)
    else:
        envs.env.close()
        envs, frame = rendered(algorithm, seed)
        look, limit = partial(_image, frame), min(limit, MOST_FRAMES)
    yield about | look()
    why = f"shown up to step {limit}"
    with closing(envs.env):
        for step in algorithm.greedy_steps(envs):
            yield {"action": step.action[0].tolist(), "return": return_of(envs)} | look()
            why = why_over(step) or why
            if envs.lengths[0] >= limit:
                break
    return {"return": return_of(envs), "steps": int(envs.lengths[0]), "why": why}


def _numbers(envs: OneEpisode) -> dict[str, Any]:
    return {"state": state_of(envs)}


def _image(frame: Frame) -> dict[str, Any]:
    return {"image": data_url(frame())}


def controls(name: str, algorithm: Algorithm) -> Control:
    """The algorithm of a run that acts in an environment.

    Raises:
        Mistake: it does not.
    """
    if not isinstance(algorithm, Control):
        raise Mistake(f"{name} is a run of {type(algorithm).__name__}, which acts in no environment")
    return algorithm


def return_of(envs: OneEpisode) -> float:
    """The sum of the environment's own rewards so far."""
    return float(envs.returns[0])


def why_over(step: Transition) -> str:
    """Why an episode has ended with a step; '' if it has not."""
    return "terminated" if step.terminated[0] else "truncated" if step.truncated[0] else ""


def data_url(picture: np.ndarray) -> str:
    """A picture uint8 [H, W, 3] as a data URL: PNG if it is small, else JPEG.

    Raises:
        Mistake: Pillow is not installed.
    """
    form = "png" if picture.shape[0] * picture.shape[1] <= _SMALL else "jpeg"
    file = io.BytesIO()
    pillow().fromarray(picture).save(file, form, quality=85)
    return f"data:image/{form};base64,{base64.b64encode(file.getvalue()).decode()}"


def pillow() -> Any:
    """Pillow's module of images.

    Raises:
        Mistake: it is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise Mistake(
            "pictures need Pillow: pip install pillow (in a clone: ./lab python -m pip install pillow)"
        ) from None
    return Image


def _whole(request: Mapping[str, Any], name: str, default: Any) -> Any:
    """A whole number from 0 in a request, or the default if it is missing or None."""
    value = request.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Mistake(f"{name} must be a whole number from 0")
    return value
