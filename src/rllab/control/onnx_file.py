"""Writes a run's greedy policy as ONNX, after ONNX Runtime has chosen what the run itself chooses."""

import importlib.util
import json
import logging
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rllab.control.algorithm import Control
from rllab.control.episodes import OneEpisode
from rllab.control.exported import MASK, MEMORY, ExportedPolicy
from rllab.control.normalized import NormalizeObservation
from rllab.control.wrapped import OwnReward, chain
from rllab.core.errors import Mistake

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
LARGEST = {"action": 1e-5, "next_memory": 1e-4}  # differences; relative where the outputs are above 1
EPISODES, STEPS = 5, 1000  # at most, of the check

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Written:
    """What was written. inputs: name -> type and shape, N for the batch. left: wrappers that the file does not hold.

    steps: observations on which the file was checked. difference: the largest between its actions and the run's.
    """

    inputs: dict[str, str]
    left: list[str]
    steps: int
    difference: float


def check_packages() -> None:
    """Checks that the packages which write and run ONNX are installed.

    Raises:
        Mistake: they are not; the message has the line that installs them.
    """
    if absent := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        line = f"./lab python -m pip install {' '.join(PACKAGES)}"
        raise Mistake(f"--to onnx needs {' and '.join(absent)}: {line}, or pip install 'rllab[onnx]' without a clone")


def write_onnx(algorithm: Control, path: Path, about: dict[str, Any]) -> Written:
    """Writes the greedy policy of a loaded run to a file. about: plain data that is written into it.

    Raises:
        Mistake: the policy cannot be exported, or the file would not choose what the run chooses; nothing is written.
    """
    policy = ExportedPolicy(algorithm)
    inputs, outputs = played(policy)
    content = _translate(policy, inputs, about | {"wrappers_to_apply": policy.left})
    differences = _differences(content, inputs, outputs)
    for name, difference in differences.items():
        if not difference <= LARGEST[name]:
            raise Mistake(
                f"ONNX Runtime computes another {name} than the run: the largest difference on {len(outputs[name])} "
                f"observations is {difference:.2g}, and at most {LARGEST[name]:g} is allowed; nothing is written"
            )
    aside = path.with_name(f".{path.name}.new")
    aside.write_bytes(content)
    aside.replace(path)
    forms = {k: f"{dtype} [{', '.join(map(str, ('N', *shape)))}]" for k, (dtype, shape) in policy.inputs.items()}
    return Written(forms, policy.left, len(outputs["action"]), differences["action"])


def played(policy: ExportedPolicy) -> tuple[Arrays, Arrays]:
    """Greedy episodes of the run: (inputs of the module, its outputs by the run itself), each [steps, ...]."""
    inputs, outputs = list[Arrays](), list[Arrays]()
    algorithm = policy.algorithm
    for seed in range(EPISODES):
        envs, memory = _recorded(policy, seed), torch.zeros(1, algorithm.memory_size)
        steps = algorithm.greedy_steps(envs)
        for _ in range(STEPS // EPISODES):
            if envs.finished:
                break
            given = policy.arrays(_own_observation(envs))
            if envs.mask is not None:
                given.setdefault(MASK, envs.mask)
            mask = None if envs.mask is None else torch.from_numpy(envs.mask)
            inputs.append(given | ({MEMORY: memory.numpy()} if MEMORY in policy.inputs else {}))
            taken = next(steps)
            outputs.append({"action": taken.action})
            if MEMORY in policy.inputs:
                with torch.inference_mode():
                    _, memory = algorithm.greedy_from(algorithm.tensor(taken.obs), mask, memory)
                outputs[-1]["next_memory"] = memory.numpy()
    return _stacked(inputs), _stacked(outputs)


def _recorded(policy: ExportedPolicy, seed: int) -> OneEpisode:
    """An environment as evaluation has it, with a recorder where observations enter the module."""
    spec, algorithm = policy.spec, policy.algorithm
    if not spec.batched:
        spec = replace(spec, wrappers=[*spec.wrappers[: policy.place], OwnReward, *spec.wrappers[policy.place :]])
    return OneEpisode(spec, seed, algorithm.ctx.device, algorithm.envs)


def _own_observation(envs: OneEpisode) -> Any:
    if envs.spec.batched:
        return next((w.own_obs for w in chain(envs.env) if isinstance(w, NormalizeObservation)), envs.obs)[0]
    return next(env.obs for env in chain(envs.env.envs[0]) if isinstance(env, OwnReward))


def _stacked(rows: list[Arrays]) -> Arrays:
    return {k: np.concatenate([row[k] for row in rows]) for k in rows[0]}


def _translate(policy: ExportedPolicy, inputs: Arrays, about: dict[str, Any]) -> bytes:
    """The module as ONNX, for any number of observations.

    Raises:
        Mistake: torch cannot export it.
    """
    two = tuple(torch.from_numpy(np.resize(inputs[k], (2, *inputs[k].shape[1:]))) for k in policy.inputs)
    names = ["action", "next_memory"][: 1 + (MEMORY in policy.inputs)]
    any_number = ({0: torch.export.Dim("N")},) * len(two)
    quiet = logging.getLogger("torch.onnx._internal.exporter._registration")
    quiet.setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch to its own developers
        try:
            graph = torch.export.export(policy, two, dynamic_shapes={"inputs": any_number}, strict=False)
            program = torch.onnx.export(
                graph, dynamo=True, input_names=list(policy.inputs), output_names=names, verbose=False
            )
        except Exception as error:
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            raise Mistake(
                f"the policy of {type(policy.algorithm).__name__} is no function of tensors alone, so ONNX cannot hold "
                f"it: {type(error).__name__}: {reason}"
            ) from error
    assert program is not None
    model = program.model_proto
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    content: bytes = model.SerializeToString()
    return content


def _differences(content: bytes, inputs: Arrays, outputs: Arrays) -> dict[str, float]:
    """The largest difference of each output, between ONNX Runtime and the run, over single observations and a batch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    largest = dict.fromkeys(outputs, 0.0)
    for rows in (slice(0, 1), slice(1, 4), slice(None)):
        given = {k: v[rows] for k, v in inputs.items()}
        for name, other in zip(outputs, session.run([*outputs], given), strict=True):
            own = outputs[name][rows]
            if own.shape != other.shape or own.dtype != other.dtype:
                return dict.fromkeys(outputs, np.inf)
            a, b = own.astype(np.float64), other.astype(np.float64)
            away = np.abs(a - b) / np.maximum(1.0, np.abs(a))
            largest[name] = max(largest[name], float(away.max(initial=0.0)))
    return largest
