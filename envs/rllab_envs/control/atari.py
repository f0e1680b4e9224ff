"""Atari 2600 games (Arcade Learning Environment, Bellemare et al. 2013), stepped by ale-py's C++ vector environment.

An agent sees what Mnih et al. (2015) show it. A step repeats its action for `frameskip` frames. The picture is the
maximum of the last two of them, since the console draws some objects in every other frame. It is grey, scaled to
84 x 84, and an observation is a stack of the last `stack_num` pictures. An episode is a whole game. It begins with up
to `noop_max` - 1 frames without an action, one of which presses FIRE with `use_fire_reset`.

Axes: N environments, S pictures of a stack, H height, W width.
"""

import os
import weakref
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rllab.core.errors import FieldMistake
from rllab.core.names import did_you_mean

INSTALL = "./lab python -m pip install 'ale-py>=0.12' (pip install 'rllab[atari]' without a clone)"
RANGES = {
    "frameskip": (1, 64),
    "stack_num": (1, 64),
    "noop_max": (0, 10_000),
    "max_num_frames_per_episode": (1, 2**31 - 1),
    "img_height": (8, 210),
    "img_width": (8, 160),
    "repeat_action_probability": (0.0, 1.0),
    "num_threads": (0, 1024),
}
SWITCHES = ("maxpool", "grayscale", "full_action_space", "use_fire_reset")
SCALE = 4  # pixels of a rendered picture for each pixel that the agent sees


class Atari(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`num_envs` copies of a game; observations uint8 [N, S, H, W], the newest picture last.

    The settings are RANGES and SWITCHES, those of `ale_py.vector_env.AtariVectorEnv`; and two that only learning sees:

    - episodic_life: a lost life ends what is learned of (`info["life_lost"]` [N]), and the game goes on.
    - reward_clipping: rewards are -1, 0 or 1; `info["own_reward"]` [N] is the change of the score.

    game: a ROM of ale-py, such as `pong`, `breakout`, `space_invaders`.
    repeat_action_probability: of repeating the last action in a frame ("sticky actions", Machado et al. 2018).
    num_threads: threads that step the copies; 0: as many as there are cores. Results do not depend on it.

    Raises:
        FieldMistake: ale-py is not installed, there is no such game, or a setting is out of its range.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}

    def __init__(
        self,
        num_envs: int = 1,
        game: str = "",
        episodic_life: bool = False,
        reward_clipping: bool = False,
        num_threads: int = 0,
        render_mode: str | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        **settings: Any,
    ) -> None:
        check_game(game)
        check_settings({"num_threads": num_threads, **settings})
        from ale_py.vector_env import AtariVectorEnv

        self.num_envs, self.render_mode, self.autoreset_mode = num_envs, render_mode, AutoresetMode(autoreset_mode)
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            raise ValueError("autoreset in the same step is not offered")
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.episodic_life, self.reward_clipping = episodic_life, reward_clipping
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = num_threads or min(cores, num_envs)
        self.ale = AtariVectorEnv(
            game, num_envs, num_threads=threads, reward_clipping=False, **{"use_fire_reset": False, **settings}
        )
        weakref.finalize(self, vars(self.ale).clear)  # at the latest at exit, where nanobind reports what is left
        self.single_observation_space = self.ale.single_observation_space
        self.single_action_space = self.ale.single_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._lives = np.zeros(num_envs, np.int32)
        self._picture = np.zeros((84, 84), np.uint8)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins games in all environments, or where `options["reset_mask"]` [N]. Returns (observations, infos).

        seed: environment i gets `seed + i`, or `seed[i]` of a list. The emulator is loaded anew with it, so that a
        game is a function of its seed and its actions. With None its chance goes on.
        """
        mask = np.ones(self.num_envs, bool) if options is None else options["reset_mask"]
        each = seed if isinstance(seed, list) else [None if seed is None else seed + i for i in range(self.num_envs)]
        seeds = np.array([-1 if s is None else s % 2**31 for s in each])[mask]
        obs, info = self.ale.reset(seed=seeds, options={"reset_mask": mask})
        self._lives = info["lives"]
        self._picture = obs[0, -1]
        return obs, self._info(np.zeros(self.num_envs, bool), np.zeros(self.num_envs, np.float32))

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps every game by actions [N]; returns observations [N, S, H, W], then the rest [N]."""
        obs, score, terminated, truncated, info = self.ale.step(np.asarray(actions))
        own = score.astype(np.float32)
        lost = (info["lives"] < self._lives) & ~terminated & self.episodic_life
        self._lives, self._picture = info["lives"], obs[0, -1]
        return obs, np.sign(own) if self.reward_clipping else own, terminated, truncated, self._info(lost, own)

    def render(self) -> np.ndarray:  # type: ignore[override]  # one picture, where Gymnasium has one of each copy
        """What the agent sees of the first game, enlarged: uint8 [H, W, 3]."""
        large = self._picture.repeat(SCALE, 0).repeat(SCALE, 1)
        return large if large.ndim == 3 else np.repeat(large[..., None], 3, 2)

    def _info(self, life_lost: np.ndarray, own_reward: np.ndarray) -> dict[str, Any]:
        """What each environment reports [N], in Gymnasium's form."""
        own = {"lives": self._lives, "life_lost": life_lost, "own_reward": own_reward}
        return own | {f"_{k}": np.ones(self.num_envs, bool) for k in own}


class AtariGame(gym.Env[np.ndarray, np.int64]):
    """One game, as `Atari` has it."""

    metadata = Atari.metadata

    def __init__(self, game: str = "", render_mode: str | None = None, **settings: Any) -> None:
        self.games = Atari(1, game, render_mode=render_mode, **settings)
        self.render_mode = render_mode
        self.observation_space = self.games.single_observation_space
        self.action_space = self.games.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new game: (observation [S, H, W], info)."""
        super().reset(seed=seed)
        obs, info = self.games.reset(seed=seed)
        return obs[0], self._own(info)

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step: (observation [S, H, W], reward, terminated, truncated, info)."""
        obs, reward, terminated, truncated, info = self.games.step(np.array([action]))
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), self._own(info)

    def render(self) -> np.ndarray:
        """What the agent sees, enlarged: uint8 [H, W, 3]."""
        return self.games.render()

    @staticmethod
    def _own(info: dict[str, Any]) -> dict[str, Any]:
        return {k: v[0] for k, v in info.items() if not k.startswith("_")}


def check_game(game: str) -> None:
    """Refuses what is no game.

    Raises:
        FieldMistake: ale-py is not installed, or has no such game.
    """
    try:
        from ale_py import roms
    except ImportError as error:
        raise FieldMistake("env", f"Atari's games need ale-py ({error}): {INSTALL}") from None
    games = roms.get_all_rom_ids()
    if game not in games:
        hint = did_you_mean(game, games) or f"; there are {', '.join(sorted(games))}"
        raise FieldMistake("env_kwargs", f"game: ale-py has no ROM {game!r}{hint}")


def check_settings(settings: dict[str, Any]) -> None:
    """Refuses settings that the emulator has not, or would take although they are out of their range.

    Raises:
        FieldMistake: there is such a setting.
    """
    for name, value in settings.items():
        if name in RANGES:
            low, high = RANGES[name]
            kind = int if isinstance(low, int) else (int, float)
            good = isinstance(value, kind) and not isinstance(value, bool) and low <= value <= high
            wanted = f"a {'whole ' * (kind is int)}number from {low} to {high}"
        elif name in SWITCHES:
            good, wanted = isinstance(value, bool), "true or false"
        else:
            names = ("game", "episodic_life", "reward_clipping", *RANGES, *SWITCHES)
            raise FieldMistake("env_kwargs", f"{name} is no setting of Atari's games{did_you_mean(name, names)}")
        if not good:
            raise FieldMistake("env_kwargs", f"{name} is {wanted}, got {value!r}")
