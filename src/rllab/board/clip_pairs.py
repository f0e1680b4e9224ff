"""Pairs of clips of a control run, for people to compare: episodes are played, cut into clips, and kept in a file.

In each episode an action is random with a probability that is drawn from 0 to 1 for the episode, and the policy's best
one otherwise. So the clips show play of every quality (Brown et al. 2020).

Beside what `rllab.control.clips` names, the file has what the page shows: `about` (JSON: how it is drawn), `world` [C]
(which of the worlds in `about`), and `state` [C, L + 1, S], or `picture` (data URLs, one behind the other) with
`picture_end` [C, L + 1].
"""

import json
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rllab.board.episodes import controls, data_url
from rllab.board.loaded import LoadedRun
from rllab.board.pairs import Pairs
from rllab.board.scenes import fps_of, kind_of, rendered, state_of, world_of
from rllab.control.algorithm import Control
from rllab.control.clips import Arrays, clips, save_clips
from rllab.control.episodes import OneEpisode
from rllab.core.errors import Mistake
from rllab.core.labels import pair_id

_PATIENCE = 200  # episodes in a row without a clip, after which no more are played
_MOST_STEPS = 200_000  # of all episodes
_WIDE = 240  # pixels of a picture that is kept
Look = Callable[[], Any]
"""() -> the present state [S], or the present picture as bytes of a data URL."""


def of_control_run(path: Path, step: int | None, count: int, length: int | None, seed: int, folder: Path) -> Pairs:
    """`count` pairs of clips of a run; the file of its clips is written into a folder.

    step: of the checkpoint; by default the newest. length: steps of a clip; by default as in the run's own, or 32.

    Raises:
        Mistake: the run does not act in an environment, cannot be shown, or its episodes are shorter than clips.
            Where there are a few clips alone, there are fewer pairs, as `notes` says.
    """
    run = LoadedRun(path)
    algorithm = controls(run.name, run.algorithm(step))
    arrays = _clips(algorithm, 2 * count, length or int(getattr(algorithm, "clip_length", 32)), seed)
    name = save_clips(folder, arrays)
    order = np.random.default_rng(seed).permutation(len(arrays["obs"]))
    rows = []
    for a, b in zip(order[::2].tolist()[:count], order[1::2].tolist(), strict=False):
        content = {"clips": name, "a": a, "b": b}
        scores = [float(arrays["score"][i]) for i in (a, b)]
        rows.append({"pair": pair_id(content)} | content | {"gold": scores, "from": [run.name, run.name]})
    few = f"{len(rows)} pairs instead of {count}: few episodes are as long as a clip; --length makes clips shorter"
    return Pairs(rows, [few] if len(rows) < count else [])


def _clips(algorithm: Control, count: int, length: int, seed: int) -> Arrays:
    """At least `count` clips, of as many whole episodes as that takes, or as many as there are."""
    shots: list[dict[str, Any]] = []
    worlds: list[Any] = []
    about: dict[str, Any] = {}
    episode = steps_played = last = 0
    while len(shots) < count and episode - last < _PATIENCE and steps_played < _MOST_STEPS:
        about, played, looks = _episode(algorithm, seed, episode)
        episode, steps_played = episode + 1, steps_played + len(played["score"])
        steps, _ = clips(np.zeros((len(played["score"]), 1), bool), length)
        if len(steps):
            last = episode
            if about["world"] not in worlds:
                worlds.append(about["world"])
        for t in steps:
            shot = {k: v[t] for k, v in played.items()} | {"looks": looks[t[0] : t[-1] + 2]}
            shots.append(shot | {"world": worlds.index(about["world"])})
    if len(shots) < 2:
        raise Mistake(f"{episode} episodes have {len(shots)} clips of {length} steps: make --length smaller")
    arrays = {k: np.stack([s[k] for s in shots]) for k in ("obs", "action", "world")}
    arrays["score"] = np.array([s["score"].sum() for s in shots])
    text = json.dumps({k: about[k] for k in ("env", "kind", "fps")} | {"worlds": worlds})
    return arrays | _shown([s["looks"] for s in shots]) | {"about": np.frombuffer(text.encode(), np.uint8)}


def _shown(looks: list[list[Any]]) -> Arrays:
    """What is shown of clips, as arrays."""
    if not isinstance(looks[0][0], bytes):
        return {"state": np.array(looks, np.float64)}
    sizes = np.array([[len(picture) for picture in own] for own in looks])
    joined = b"".join(picture for own in looks for picture in own)
    return {"picture": np.frombuffer(joined, np.uint8), "picture_end": sizes.cumsum().reshape(sizes.shape)}


def _episode(algorithm: Control, seed: int, episode: int) -> tuple[dict[str, Any], Arrays, list[Any]]:
    """(how an episode is drawn, what was played [T, ...], what is shown of each of its T + 1 states)."""
    rng = np.random.default_rng([seed, episode])
    chance, own = rng.random(), int(rng.integers(2**31))
    about, envs, look = _seen(algorithm, own)
    envs.action_space.seed(own)
    algorithm.reset_policy(np.ones(1, bool))
    rows, looks, penalty = list[dict[str, Any]](), [look()], float(getattr(algorithm, "end_penalty", 0.0))
    with closing(envs.env):
        while not envs.finished and len(rows) < algorithm.eval_max_steps:
            action = _random(envs, rng) if rng.random() < chance else _best(algorithm, envs)
            row, before = {"obs": envs.obs[0].copy(), "action": action[0]}, float(envs.returns[0])
            step = envs.step(action)
            algorithm.observe(step)
            score = float(envs.returns[0]) - before - penalty * bool(step.terminated[0])
            rows.append(row | {"score": score})
            looks.append(look())
    return about, {k: np.stack([row[k] for row in rows]) for k in rows[0]}, looks


def _seen(algorithm: Control, seed: int) -> tuple[dict[str, Any], OneEpisode, Look]:
    """(how an environment is drawn, the environment, what is shown of its present state)."""
    envs = algorithm.single(seed)
    about: dict[str, Any] = {"env": algorithm.env.rpartition(":")[2], "kind": kind_of(envs), "fps": fps_of(envs)}
    if about["kind"]:
        return about | {"world": world_of(envs)}, envs, partial(state_of, envs)
    envs.env.close()
    envs, frame = rendered(algorithm, seed)

    def picture() -> bytes:
        whole = frame()
        every = -(-whole.shape[1] // _WIDE)
        return data_url(np.ascontiguousarray(whole[::every, ::every])).encode()

    return about | {"world": {}}, envs, picture


def _best(algorithm: Control, envs: OneEpisode) -> np.ndarray:
    with torch.inference_mode():
        mask = None if envs.mask is None else algorithm.tensor(envs.mask)
        return algorithm.greedy(algorithm.tensor(envs.obs), mask).cpu().numpy()


def _random(envs: OneEpisode, rng: np.random.Generator) -> np.ndarray:
    """A random action [1, ...], among the allowed ones."""
    if envs.mask is not None and envs.mask.ndim == 2:
        return np.array([rng.choice(np.flatnonzero(envs.mask[0]))])
    return np.asarray(envs.action_space.sample())[None]
