"""Opens a data set of recorded steps: the replay buffer of a run, Minari's format, or steps of a random policy."""

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces

from rllab.control.bounded import Bounded
from rllab.control.masks import choices
from rllab.control.recorded import Recorded, joined, of_replay
from rllab.control.replay import Replay
from rllab.control.vector import Envs
from rllab.core.algorithm import Context
from rllab.core.checkpoint import Checkpoint
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.run import RunFolder
from rllab.core.stages import checkpoint_of

if TYPE_CHECKING:
    from rllab.control.algorithm import Control

FORMS = "run:NAME, the folder of a run or checkpoint, minari:NAME, a folder of Minari's, or random:STEPS"


def open_data(data: str, algorithm: "Control", bounds: Bounded | None) -> Recorded:
    """The data set with a name, for an algorithm that has made its environments.

    data: one of `FORMS`; `run:NAME` is resolved before. bounds: those of continuous actions.

    Raises:
        FieldMistake: there is no such data set, or it is not one of this environment.
    """
    if random := re.fullmatch(r"random:(\d+)", data.replace("_", "")):
        recorded = of_random_policy(int(random[1]), algorithm, bounds)
    elif data.startswith("minari:") or _is_minari(Path(data)):
        recorded = of_minari(_minari_folder(data), algorithm, bounds)
    else:
        recorded = of_run(Path(data), algorithm)
    recorded.check(algorithm.envs.observation_space, algorithm.envs.action_space)
    return recorded


def of_random_policy(steps: int, algorithm: "Control", bounds: Bounded | None) -> Recorded:
    """At least so many steps of a policy that takes each allowed action with equal probability."""
    ctx = Context(algorithm.ctx.seed, algorithm.ctx.device)
    envs, rng = Envs(algorithm.envs.spec, algorithm.num_envs, ctx, "random data"), ctx.rng("random data")
    replay = Replay(steps, envs.num_envs)
    while len(replay) < replay.capacity:
        if bounds is None:
            (size,) = choices(envs.action_space) or [0]
            chance = rng.random((envs.num_envs, size))
            action = (chance if envs.mask is None else np.where(envs.mask, chance, -1.0)).argmax(1)
            rows = envs.step(action).rows()
        else:
            drawn = rng.uniform(-1, 1, (envs.num_envs, bounds.size)).astype(np.float32)
            rows = envs.step(bounds.to_env(torch.from_numpy(drawn)).numpy()).rows() | {"action": drawn}
        replay.add(rows)
    return of_replay(f"random:{steps}", replay)


def of_run(path: Path, algorithm: "Control") -> Recorded:
    """The replay buffers that all ranks of a run have saved in a checkpoint.

    path: the folder of the checkpoint, or of the run, whose newest is taken.

    Raises:
        FieldMistake: there is none, or the run had another environment.
    """
    checkpoint, run = _checkpoint(path)
    source = run.recipe().algorithm
    name = type(source).__name__
    for field in ("env", "env_kwargs", "wrappers", "reward"):
        theirs, own = (_shown(getattr(a, field, None)) for a in (source, algorithm))
        if theirs != own:
            raise FieldMistake(
                "data", f"{run.path} has {field}: {theirs}, and this recipe {own}: set {field} to the same"
            )
    states = [checkpoint.own_state(rank) for rank in range(checkpoint.world)]
    parts = []
    for state in states:
        if "replay" not in state:
            raise FieldMistake("data", f"{run.path} is a run of {name}, which keeps no replay buffer; DQN and SAC do")
        replay = Replay(source.buffer_size, source.num_envs)  # type: ignore[attr-defined]  # those with a replay have it
        replay.load_state_dict(state["replay"])
        if not len(replay):
            raise FieldMistake("data", f"{checkpoint.folder}: its replay buffer is empty")
        parts.append(of_replay(str(checkpoint.folder), replay))
    return joined(str(checkpoint.folder), parts)


def _checkpoint(path: Path) -> tuple[Checkpoint, RunFolder]:
    """The checkpoint with a folder, or the newest of the run with that folder; and the run."""
    folder = path.resolve()
    try:
        if RunFolder(folder).exists:
            return checkpoint_of(RunFolder(folder), None), RunFolder(folder)
        if folder.parent.name == "checkpoints" and folder.name.isdigit() and folder.is_dir():
            run = RunFolder(folder.parents[1])
            return checkpoint_of(run, int(folder.name)), run
    except Mistake as error:
        raise FieldMistake("data", str(error)) from error
    raise FieldMistake("data", f"{path} is neither a run, a checkpoint, nor a data set; write {FORMS}")


def _shown(value: Any) -> Any:
    """A setting for comparison and messages: functions by name with their arguments."""
    if isinstance(value, functools.partial):
        return {"name": _shown(value.func), **value.keywords}
    if isinstance(value, list):
        return [_shown(v) for v in value]
    return getattr(value, "__qualname__", value)


def _is_minari(folder: Path) -> bool:
    return any((f / "metadata.json").is_file() for f in (folder, folder / "data"))


def _minari_folder(data: str) -> Path:
    """The folder of a data set of Minari's, with its metadata.json."""
    minari = _import_minari()
    name = data.removeprefix("minari:")
    path = Path(name) if _is_minari(Path(name)) else Path(minari.storage.get_dataset_path(name))
    if not _is_minari(path):
        raise FieldMistake("data", f"there is no {path}; minari download {name} fetches a data set of its hub")
    return path if (path / "metadata.json").is_file() else path / "data"


def _import_minari() -> Any:
    try:
        import h5py  # noqa: F401 - Minari's storage needs it
        import minari
    except ImportError as error:
        raise FieldMistake("data", f"{error.name} is not installed: pip install 'rllab[offline]'") from None
    return minari


def of_minari(folder: Path, algorithm: "Control", bounds: Bounded | None) -> Recorded:
    """A data set in Minari's format (Younis et al. 2024), from the folder with its metadata.json.

    Raises:
        FieldMistake: it cannot be read, or was recorded in another environment or in other spaces; or the recipe has
            wrappers, through which the recorded observations have not passed.
    """
    minari = _import_minari()
    try:
        dataset = minari.MinariDataset(folder)
        episodes = list(dataset.iterate_episodes())
    except Exception as error:
        raise FieldMistake("data", f"{folder} cannot be read: {type(error).__name__}: {error}") from error
    _check_minari(folder, dataset, algorithm)
    parts = [Recorded(str(folder), _minari_rows(folder, e, algorithm.envs, bounds), np.zeros(1, np.int64),
                      np.ones(1, bool)) for e in episodes]  # fmt: skip
    if not parts:
        raise FieldMistake("data", f"{folder} has no episodes")
    return joined(str(folder), parts)


def _check_minari(folder: Path, dataset: Any, algorithm: "Control") -> None:
    """Checks that a data set of Minari's was recorded in the environment of an algorithm."""
    others = [w for w in algorithm.wrappers if getattr(w, "__name__", "") != "TimeLimit"]
    for field, value in (("wrappers", others), ("reward", algorithm.reward)):
        if value:
            raise FieldMistake(field, f"{folder} was recorded without {_shown(value)}: leave {field} out")
    spec = dataset.spec.env_spec
    own = algorithm.env.rpartition(":")[2].removeprefix("rllab/")
    if spec is not None:
        kwargs = {k: v for k, v in spec.kwargs.items() if k != "render_mode"}
        if spec.id != own:
            raise FieldMistake("data", f"{folder} was recorded in {spec.id}, and env is {algorithm.env}")
        if kwargs != algorithm.env_kwargs:
            raise FieldMistake("data", f"{folder} was recorded with env_kwargs: {kwargs}, not {algorithm.env_kwargs}")
    envs = algorithm.envs
    for what, theirs, ours in (
        ("observations", dataset.observation_space, envs.observation_space),
        ("actions", dataset.action_space, envs.action_space),
    ):
        if not _alike(theirs, ours):
            raise FieldMistake("data", f"{folder}: its {what} are {theirs}, and those of {algorithm.env} {ours}")


def _alike(a: Any, b: Any) -> bool:
    """Whether two spaces have the same elements, up to the bounds and the precision of a Box."""
    if isinstance(a, spaces.Box) and isinstance(b, spaces.Box):
        return a.shape == b.shape and a.dtype.kind == b.dtype.kind
    if isinstance(a, spaces.Dict) and isinstance(b, spaces.Dict):
        return a.spaces.keys() == b.spaces.keys() and all(_alike(a[k], b[k]) for k in a.spaces)
    if isinstance(a, spaces.Tuple) and isinstance(b, spaces.Tuple):
        return len(a.spaces) == len(b.spaces) and all(map(_alike, a.spaces, b.spaces))
    return bool(a == b)


def _minari_rows(folder: Path, episode: Any, envs: Envs, bounds: Bounded | None) -> dict[str, np.ndarray]:
    """An episode of Minari's as rows [T, ...]; it has one observation more than it has steps."""
    steps = len(episode.rewards)
    seen = [envs.one(obs) for obs in _each(episode.observations, steps + 1)]
    obs = np.stack([np.asarray(s) for s, _ in seen])
    obs = obs.astype(np.float32) if obs.dtype == np.float64 else obs
    action = np.asarray(episode.actions)
    rows = {
        "obs": obs[:-1],
        "action": action.astype(np.int64) if bounds is None else bounds.from_env(action),
        "reward": np.asarray(episode.rewards, np.float32),
        "next_obs": obs[1:],
        "terminated": np.asarray(episode.terminations, bool),
        "truncated": np.asarray(episode.truncations, bool),
    }
    if any(len(v) != steps for v in rows.values()) or not steps:
        lengths = ", ".join(f"{len(v)} of {k}" for k, v in rows.items())
        raise FieldMistake("data", f"{folder}, episode {episode.id}: its arrays have different lengths: {lengths}")
    if all(mask is not None for _, mask in seen):
        rows["next_mask"] = np.stack([mask for _, mask in seen])[1:].astype(bool)
    return rows


def _each(tree: Any, steps: int) -> Iterator[Any]:
    """The observations of an episode, one by one, from a tree of dictionaries and tuples with arrays [T + 1, ...]."""
    for t in range(steps):
        yield _at(tree, t)


def _at(tree: Any, t: int) -> Any:
    if isinstance(tree, Mapping):
        return {k: _at(v, t) for k, v in tree.items()}
    return tuple(_at(v, t) for v in tree) if isinstance(tree, tuple) else tree[t]
