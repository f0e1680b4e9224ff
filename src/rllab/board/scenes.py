"""What is shown of an environment: numbers from which the page draws it, or the pictures that it renders.

Five of Gymnasium's environments and the racing car are drawn from their exact states, in the browser and without a
display. Every other one that has `render_mode="rgb_array"` is shown by its pictures.
"""

import os
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from rllab.control.algorithm import Control
from rllab.control.copies import Copies, fault
from rllab.control.episodes import OneEpisode
from rllab.core.errors import Mistake

Frame = Callable[[], np.ndarray]
"""() -> the picture of the present state, uint8 [H, W, 3]."""
_GYMNASIUM, _LAB = "gymnasium.envs.classic_control.", "rllab_envs.control."
KINDS = {  # the class of an environment: how it is drawn
    f"{_GYMNASIUM}cartpole.CartPoleEnv": "cartpole",
    f"{_GYMNASIUM}acrobot.AcrobotEnv": "acrobot",
    f"{_GYMNASIUM}mountain_car.MountainCarEnv": "mountaincar",
    f"{_GYMNASIUM}continuous_mountain_car.Continuous_MountainCarEnv": "mountaincar",
    f"{_GYMNASIUM}pendulum.PendulumEnv": "pendulum",
    "gymnasium.envs.box2d.lunar_lander.LunarLander": "lunarlander",
    f"{_LAB}cartpole.CartPole": "cartpole",
    f"{_LAB}acrobot.Acrobot": "acrobot",
    f"{_LAB}mountaincar.MountainCar": "mountaincar",
    f"{_LAB}pendulum.Pendulum": "pendulum",
    f"{_LAB}racing.env.Racing": "racing",
    f"{_LAB}racing.overtake.Overtaking": "racing",
}
_FPS = {"cartpole": 50, "acrobot": 15, "mountaincar": 30, "pendulum": 30, "racing": 10}  # of Gymnasium's classes
_USUAL_FPS = 30.0
_WORLDS: dict[str, dict[str, tuple[str, float]]] = {  # what does not move: name -> (attribute, Gymnasium's value)
    "cartpole": {"limit": ("x_threshold", 2.4), "half_length": ("length", 0.5)},
    "acrobot": {"length_1": ("LINK_LENGTH_1", 1.0), "length_2": ("LINK_LENGTH_2", 1.0)},
    "mountaincar": {"left": ("min_position", -1.2), "right": ("max_position", 0.6), "goal": ("goal_position", 0.5)},
    "pendulum": {"torque": ("max_torque", 2.0)},
}


def inner(envs: OneEpisode) -> Any:
    """The environment itself, below all wrappers; of a batched one the array program."""
    return envs.env.envs[0].unwrapped if isinstance(envs.env, Copies) else envs.env.unwrapped


def kind_of(envs: OneEpisode) -> str:
    """How an environment is drawn from its state; '' if it is shown by its pictures.

    A class that is derived from one of Gymnasium's may draw itself in another way, so it is shown by its pictures.
    """
    own = type(inner(envs))
    return KINDS.get(f"{own.__module__}.{own.__qualname__}", "")


def fps_of(envs: OneEpisode) -> float:
    """How many steps the environment shows in a second."""
    env = inner(envs)
    fps = env.metadata.get("render_fps") or _FPS.get(kind_of(envs)) or _USUAL_FPS
    return float(fps)


def world_of(envs: OneEpisode) -> dict[str, Any]:
    """What does not move in the episode, for an environment that is drawn from its state."""
    env, kind = inner(envs), kind_of(envs)
    if kind == "racing":
        world: dict[str, Any] = env.scene()[0]
        return world
    if kind != "lunarlander":
        return {k: float(getattr(env, name, usual)) for k, (name, usual) in _WORLDS[kind].items()}
    corners = [env.sky_polys[0][0], *(polygon[1] for polygon in env.sky_polys)]
    return {
        "size": [env.sky_polys[-1][1][0], env.sky_polys[0][2][1]],
        "terrain": [[float(x), float(y)] for x, y in corners],
        "pad": [float(env.helipad_x1), float(env.helipad_x2), float(env.helipad_y)],
        "lander": _outline(env.lander),
        "leg": _outline(env.legs[0]),
        "continuous": bool(env.continuous),
    }


def _outline(body: Any) -> list[list[float]]:
    """The corners (x, y) of a body, as it lies at angle 0 in the origin."""
    return [[float(x), float(y)] for x, y in body.fixtures[0].shape.vertices]


def state_of(envs: OneEpisode) -> list[float]:
    """The state of an environment that is drawn from it.

    cartpole: x, its speed, the pole's angle, its speed. acrobot: two angles, their speeds. mountaincar: position,
    speed. pendulum: angle from upright, speed. lunarlander: x, y, angle of the lander, of its first and its second leg.
    racing: `Racing.scene`.
    """
    env = inner(envs)
    if kind_of(envs) == "racing":
        state: list[float] = env.scene()[1]
        return state
    if kind_of(envs) == "lunarlander":
        bodies = (env.lander, *env.legs)
        return [float(value) for body in bodies for value in (body.position.x, body.position.y, body.angle)]
    numbers = np.asarray(env.state, np.float64)
    return [float(value) for value in (numbers if isinstance(envs.env, Copies) else numbers[:, 0])]


def rendered(algorithm: Control, seed: int) -> tuple[OneEpisode, Frame]:
    """An environment for one episode, with a function that returns its picture.

    Raises:
        Mistake: the environment cannot render.
    """
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pictures need no display
    envs = algorithm.single(seed)
    if kind_of(envs) in _WORLDS and not isinstance(envs.env, Copies):
        return envs, _twin(envs)
    metadata = getattr(type(inner(envs)), "metadata", {})
    if "rgb_array" not in (modes := metadata.get("render_modes") or []):
        raise Mistake(
            f"{envs.spec.env} cannot be shown: its render_modes are {list(modes)}, without 'rgb_array'. In an "
            "environment of your own, add it to metadata['render_modes'], and let render() return uint8 [H, W, 3]"
        )
    envs.env.close()
    envs = algorithm.single(seed, render_mode="rgb_array")
    return envs, lambda: _picture(envs.spec.env, envs.env.envs[0] if isinstance(envs.env, Copies) else envs.env)


def _twin(envs: OneEpisode) -> Frame:
    """The pictures of a batched environment: Gymnasium's own environment renders its state."""
    twin: Any = gym.make(envs.spec.registered(), render_mode="rgb_array")
    twin.reset(seed=0)

    def frame() -> np.ndarray:
        twin.unwrapped.state = inner(envs).state[:, 0].copy()
        return _picture(envs.spec.env, twin)

    return frame


def _picture(name: str, env: Any) -> np.ndarray:
    """What an environment renders, uint8 [H, W, 3].

    Raises:
        Mistake: it fails, or renders something else.
    """
    try:
        picture = env.render()
    except Exception as error:
        raise Mistake(f"{name} cannot be shown: render: {fault(error)}") from error
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape[2:] != (3,):
        what = f"{picture.dtype} {list(picture.shape)}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise Mistake(f"{name} cannot be shown: render returned {what}; rgb_array is uint8 [H, W, 3]")
    return picture
