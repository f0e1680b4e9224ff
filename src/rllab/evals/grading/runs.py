"""Opens what a submitted run has trained. Its recipe.yaml is somebody else's: it is read as data, and runs nothing.

Two things are taken from it: the name of the algorithm, one of the lab's own, and the settings in `OWN`, which make its
networks and choose among moves. Everything else is the assignment's: the environment or game with its wrappers and
limits. Weights are safetensors. A network that is too large meets the limits of the process that opens it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rllab.core.errors import FieldMistake, MachineFault, Mistake, RllabError
from rllab.core.names import find, is_in_file
from rllab.core.nodes import compose, pairs, plain
from rllab.core.recipe import Recipe, load_recipe
from rllab.core.typed import Reader, dataclass_settings, renamed

if TYPE_CHECKING:
    from rllab.core.algorithm import Algorithm
    from rllab.core.checkpoint import Checkpoint

AGENTS = ("A2C", "DQN", "PPO", "PrefPPO", "RecurrentPPO", "Reinforce", "SAC", "TD3")
"""The algorithms whose runs act in an environment."""
PLAYERS = ("AlphaZero", "Imitation")
"""The algorithms whose runs play a board game; an Adversary searches with its opponent, which is not in its run."""
OWN = (
    "hidden", "units", "quantiles", "dueling", "noisy", "reward_hidden", "predictors", "network", "channels", "blocks",
    "search", "c_puct", "fpu",
)  # fmt: skip
WORLD = ("env", "env_kwargs", "wrappers", "game")  # a run of another world is refused
LIMITS = ("eval_max_steps", "eval_views", "eval_env_kwargs", "eval_wrappers", "eval_epsilon")  # the assignment's too
SMALL = {"num_envs": 1, "buffer_size": 1, "num_games": 1}  # these are used in training alone, and take memory
MOST_BYTES = 100_000  # of a recipe


def assigned_recipe(name: str, folder: Path) -> Recipe:
    """Returns the recipe of an assignment in `folder`: one of the lab's by its name, or a YAML file.

    Raises:
        FieldMistake: there is none, or it has mistakes.
    """
    try:
        return load_recipe(folder / name if name.endswith((".yaml", ".yml")) else name)
    except Mistake as error:
        raise FieldMistake("recipe", str(error)) from error


def world_of(recipe: Recipe) -> dict[str, Any]:
    """Returns the settings of a recipe that decide what is measured, and the texts of the files that it names."""
    settings = {k: recipe.plain[k] for k in (*WORLD, *LIMITS) if k in recipe.plain}
    return settings | {"files": {k: p.read_text("utf-8", "replace") for k, p in recipe.files.items()}}


def open_run(run: Path, algorithms: Sequence[str], assigned: Recipe, seed: int) -> "Algorithm":
    """Opens the newest intact checkpoint of a submitted run in the world of the assignment's recipe, on the CPU.

    algorithms: the names that are allowed.

    Raises:
        Mistake: it is a run of something else, its recipe or its weights cannot be used, or they are too large.
    """
    import torch

    from rllab.core.algorithm import Context

    algorithm = _algorithm(run, algorithms, assigned)
    try:
        algorithm.setup(Context(seed, torch.device("cpu")))
    except (RuntimeError, MemoryError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else "out of memory"
        raise Mistake(f"its networks cannot be made, they may need more memory than this part has: {reason}") from None
    _load(algorithm, newest(run))
    return algorithm


def model_folder_of(run: Path) -> Path:
    """Returns the folder of the language model in the newest intact checkpoint of a submitted run.

    Raises:
        Mistake: it has no checkpoint.
    """
    from rllab.core.stages import model_of

    return model_of(newest(run))


def newest(run: Path) -> "Checkpoint":
    """Returns the newest intact checkpoint of a submitted run.

    Raises:
        Mistake: it has none.
    """
    from rllab.core.checkpoint import Checkpoints

    checkpoints = Checkpoints(run / "checkpoints", weights_alone=True)
    try:
        checkpoint = checkpoints.newest()
    except MachineFault:
        step = checkpoints.steps()[-1]
        damage = checkpoints.damage(step)
        raise Mistake(f"its checkpoint {step:08d} is damaged ({damage}): submit it again") from None
    except RllabError as error:
        raise Mistake(str(error).replace(f"{run}/", "")) from None
    except (LookupError, TypeError, ValueError, AttributeError, OSError) as error:
        raise Mistake(f"its checkpoint cannot be read: {type(error).__name__}: {error}") from None
    if checkpoint is None:
        raise Mistake("it has no checkpoint: submit the whole folder of the run, with checkpoints/")
    return checkpoint


def weights_hash(algorithm: "Algorithm") -> str:
    """Returns a hash of the weights of all parts."""
    digest = hashlib.sha256()
    for part, module in algorithm.parts().items():
        for name, weight in module.state_dict().items():
            digest.update(f"{part} {name} {tuple(weight.shape)}".encode())
            digest.update(weight.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _algorithm(run: Path, algorithms: Sequence[str], assigned: Recipe) -> "Algorithm":
    """Returns the algorithm of a run, with the settings that it may have of its own, before `setup`."""
    given = _settings(run)
    name = str(plain(given["algo"])) if "algo" in given else ""
    if name not in algorithms:
        known = ", ".join(algorithms)
        raise Mistake(
            f"its algo is {name!r}; runs of {known} are graded here, and code that comes with a run never runs"
        )
    kind: Any = find(name, "rllab.algos", Path())
    known_settings, reader = dataclass_settings(kind), Reader("recipe.yaml", run)
    _check_world(given, assigned)
    world = {k: getattr(assigned.algorithm, k) for k in (*WORLD, *LIMITS) if hasattr(assigned.algorithm, k)}
    values = {k: v for k, v in (world | SMALL).items() if k in known_settings}
    own = {k: node for k, node in given.items() if k in OWN and k in known_settings}
    values |= {k: reader.read(node, known_settings[k][0], k) for k, node in own.items()}
    reader.raise_mistakes()
    try:
        algorithm: Algorithm = kind(**values)
    except ValueError as error:
        raise Mistake(f"recipe.yaml: {error}") from None
    return algorithm


def _settings(run: Path) -> dict[str, yaml.Node]:
    """Returns the settings in a run's recipe.yaml, as nodes.

    Raises:
        Mistake: it is not there, too large, or no YAML of plain values.
    """
    path = run / "recipe.yaml"
    try:
        if path.stat().st_size > MOST_BYTES:
            raise Mistake(f"recipe.yaml has more than {MOST_BYTES:,} bytes, and is not read")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"recipe.yaml cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    node, reader = compose(text, "recipe.yaml"), Reader("recipe.yaml", run)
    if not isinstance(node, yaml.MappingNode):
        raise Mistake("recipe.yaml has not the settings of a run")
    reader.repeats(node)
    reader.raise_mistakes()
    return {key: value for key, _, value in pairs(node)}


def _check_world(given: Mapping[str, yaml.Node], assigned: Recipe) -> None:
    """Refuses a run that was trained in another world than the assignment's."""
    for name in WORLD:
        wanted = _written(assigned.plain.get(name))
        own = _written(plain(given[name])) if name in given else _written(None)
        if name in assigned.plain and own != wanted:
            raise Mistake(f"it was trained with {name}: {own!r}, and this part measures with {name}: {wanted!r}")


def _written(value: Any) -> Any:
    """Returns a setting as it is compared: files by their names alone, and without the prefix of batched copies."""

    def name(text: str) -> str:
        return Path(text).name if is_in_file(text) else text.removeprefix("rllab/")

    value = renamed(value, name)
    if isinstance(value, dict) and value.keys() == {"name"}:
        return value["name"]
    return value or None


def _load(algorithm: "Algorithm", checkpoint: "Checkpoint") -> None:
    """Loads the weights of a checkpoint, and what its parts keep beside them.

    Raises:
        Mistake: they do not fit, or are not finite.
    """
    from safetensors import SafetensorError

    from rllab.core.checkpoint import load_parts

    parts = algorithm.parts()
    try:
        load_parts(parts, checkpoint)
        for name in parts:
            beside = checkpoint.folder / name
            algorithm.read_files(name, beside if beside.is_dir() else checkpoint.folder)
    except Mistake as error:
        raise Mistake(str(error).replace(f"{checkpoint.folder}/", "")) from None
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()[:300]
        raise Mistake(f"its weights are those of another network than its recipe.yaml makes: {reason}") from None
    except (SafetensorError, LookupError, TypeError, ValueError, AttributeError, OSError) as error:
        raise Mistake(f"its weights cannot be read: {type(error).__name__}: {str(error)[:300]}") from None
    if not all(bool(weight.isfinite().all()) for part in parts.values() for weight in part.state_dict().values()):
        raise Mistake("its weights are not finite")
