"""The contract between an algorithm and the trainer, as checks for authors of algorithms.

`rllab check mine.yaml` runs this on the recipe's `smoke` size; in a test of your own call `check_algorithm`. Each check
first makes sure that the weights changed, because a run in which nothing changes always resumes exactly.
"""

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rllab.core.algorithm import Metrics, Update, split
from rllab.core.engine import frozen
from rllab.core.errors import Broken, Mistake
from rllab.core.fused import kernels_of, unfused
from rllab.core.recipe import Recipe
from rllab.core.run import RunFolder
from rllab.core.state import Segment
from rllab.core.stop import Stop
from rllab.core.trainer import Trainer


def check_algorithm(recipe: Recipe, folder: Path) -> list[str]:
    """Runs every check on a recipe, in run folders below `folder`; returns what was checked, a line each.

    Raises:
        Broken: A check fails. The message names the check and the metric, part or parameter.
        Mistake: The recipe does not repeat itself, so that there is nothing to compare.
    """
    if unrepeatable := recipe.algorithm.unrepeatable:
        raise Mistake(f"the trainer's contract cannot be checked on {unrepeatable}: let `smoke` do without them")
    trainer = Trainer(recipe, folder / "whole")
    checked, first = check_updates(trainer)
    whole = outcome(trainer)
    return [
        *checked,
        check_evaluate(trainer),
        check_resume(recipe, whole, folder / "cut"),
        check_seeds(recipe, first, folder / "seed"),
    ]


def finish(recipe: Recipe, folder: Path) -> tuple[str, list[Metrics]]:
    """Runs a recipe to its end; returns its `outcome`."""
    trainer = Trainer(recipe, folder)
    for _ in trainer:
        pass
    return outcome(trainer)


def outcome(trainer: Trainer) -> tuple[str, list[Metrics]]:
    """What must repeat exactly: (digest of weights, optimizers and state; the rows without their times)."""
    checkpoint = trainer.checkpoints.newest()
    if checkpoint is None:
        raise Broken(f"{trainer.folder.path} has no checkpoint")
    shared = checkpoint.state("state")
    state = {
        "parts": {name: checkpoint.part(name) for name in trainer.algorithm.parts()},
        "optim": shared["optim"],
        "own": checkpoint.state(f"rank-{trainer.engine.rank}"),
    }
    return digest(state), _rows(trainer.folder)


def _rows(folder: RunFolder) -> list[Metrics]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in folder.rows()]


def check_updates(trainer: Trainer) -> tuple[list[str], str]:
    """Runs to the end and checks every update before it is applied.

    A batch in pieces must have the gradient of the whole batch, for every loss of a round. Every part must change.
    Returns (what was checked, the digest of state and weights after the first round).
    """
    parts, do, start, checked = trainer.algorithm.parts, trainer.engine.update, dict[str, str](), 0
    first = ""

    def look(update: Update, optimizers: Any) -> Any:
        nonlocal checked
        start.update({name: digest(dict(part.state_dict())) for name, part in parts().items() if name not in start})
        checked += check_split(trainer, update)
        return do(update, optimizers)

    trainer.engine.update = look  # type: ignore[method-assign]
    for _ in trainer:
        first = first or _now(trainer)
    still = [name for name, part in parts().items() if start.get(name) in (None, digest(dict(part.state_dict())))]
    if still:
        raise Broken(f"the part {still[0]!r} has not changed; at this size nothing is learned")
    if not checked:
        raise Broken("no update of the run had a gradient")
    return ["every part is trained", f"split batches have the same gradient ({checked} updates)"], first


def check_resume(recipe: Recipe, whole: tuple[str, list[Metrics]], folder: Path) -> str:
    """Stops or kills a run after every round and resumes it. It must end exactly as an uninterrupted run.

    Three cases alternate: it is stopped, it is killed before its last row is written, and it is killed after rows were
    written that are newer than its checkpoint.
    """
    uninterrupted = RunFolder(folder.with_name("whole"))
    for cut in range(1, len(whole[1])):
        stop = Stop()
        trainer = Trainer(recipe, folder, stop=stop)
        for row in trainer:
            if row["step"] == cut:
                stop.reason = "check_resume"
        _compare(_rows(trainer.folder), whole[1][:cut], f"resumed in round {cut}")
        if cut % 3 == 2:
            trainer.folder.cut(cut - 1)
        if cut % 3 == 0:
            newer = next(r for r in uninterrupted.rows() if r["step"] == cut + 1)
            trainer.folder.append(newer, [s for s in uninterrupted.samples() if s["step"] == cut + 1])
            trainer.folder.close()
    digest_resumed, rows = finish(recipe, folder)
    _compare(rows, whole[1], "resumed in the last round")
    if digest_resumed != whole[0]:
        raise Broken("resumed after every round, the final state differs; the rows are the same")
    return f"stopped or killed after each of {len(rows) - 1} rounds it resumes to the same"


def _compare(rows: list[Metrics], expected: list[Metrics], how: str) -> None:
    for row, expected_row in zip(rows, expected, strict=False):
        if different := _different(row, expected_row):
            raise Broken(f"{how}, {different} in round {row['step']}: a random state or other state was lost")
    if len(rows) != len(expected):
        raise Broken(f"{how}, the run has {len(rows)} rows instead of {len(expected)}")


def check_seeds(recipe: Recipe, first: str, folder: Path) -> str:
    """Runs a round of the recipe with another seed. State and weights must differ from `first`, as `check_updates`
    returns it.
    """
    seed = recipe.settings.seed
    recipe.settings.seed = recipe.plain["seed"] = seed + 1
    try:
        trainer = Trainer(recipe, folder)
        for _ in trainer:
            break
    finally:
        recipe.settings.seed = recipe.plain["seed"] = seed
    if _now(trainer) == first:
        raise Broken("two seeds give the same run: draw from ctx.rng or ctx.generator")
    return "two seeds differ"


def check_split(trainer: Trainer, update: Update) -> bool:
    """Checks that a batch in pieces has the gradient of the whole batch; returns whether that gradient is not 0."""
    whole = _gradient(trainer, update, None)
    if not any(g.abs().sum() > 0 for g in whole.values()):
        return False
    check_kernel(trainer, update, whole)
    alone = {name: torch.zeros_like(g) for name, g in whole.items()}
    terms = {name: torch.zeros_like(g) for name, g in whole.items()}  # a sum is as exact as its terms
    for entry in split(update.batch, 1):
        for name, g in _gradient(trainer, replace(update, batch=entry), None).items():
            alone[name] += g
            terms[name] += g.abs()
    largest = {name: float(g.max()) for name, g in terms.items()}
    # within an entry terms may cancel as well, as those of a bias do in the difference of two rewards
    least = 0.01 * max(largest.values())
    for size, pieces in ((1, alone), (3, _gradient(trainer, update, 3))):
        for name, g in pieces.items():
            if float((g - whole[name]).abs().max()) > 1e-5 * max(largest[name], least):
                raise Broken(
                    f"split in pieces of {size}, {name} has another gradient: the loss must be a sum of weight x "
                    "loss over entries, and draw no random numbers"
                )
    return True


def check_kernel(trainer: Trainer, update: Update, gradient: dict[str, Tensor]) -> None:
    """Checks that the gradient [...] of each parameter is autograd's, where a kernel (`core/fused.py`) computed it."""
    if not kernels_of(trainer.algorithm):
        return
    with unfused():
        expected = _gradient(trainer, update, None)
    largest = max(float(g.abs().max()) for g in expected.values())
    for name, g in gradient.items():
        if float((g - expected[name]).abs().max()) > 1e-5 * largest:
            raise Broken(f"with its kernel {name} has another gradient than by autograd")


def check_evaluate(trainer: Trainer) -> str:
    """Evaluates a finished run twice. State and weights must not change, and both results must be equal."""
    before = _now(trainer)
    first, second = trainer.algorithm.evaluate(trainer.step), trainer.algorithm.evaluate(trainer.step)
    if _now(trainer) != before:
        raise Broken("evaluate changes the state or the weights of its algorithm")
    if different := _different(first, second):
        raise Broken(f"evaluated twice, {different}: draw from ctx.rng, with the step as index")
    return "evaluating changes nothing"


def _gradient(trainer: Trainer, update: Update, size: int | None) -> dict[str, Tensor]:
    parts = {n: p for n, p in trainer.algorithm.parts().items() if n in update.parts}
    named = {f"{n}.{k}": p for n, part in parts.items() for k, p in part.named_parameters() if p.requires_grad}
    for p in named.values():
        p.grad = None
    engine, usual = trainer.engine, (trainer.engine.micro_batch, trainer.engine.precision)
    engine.micro_batch, engine.precision = size, "fp32"  # rounding in bf16 would hide a difference
    with frozen([o for name, o in trainer.optimizers.items() if name not in update.parts]):
        engine.backward(update)
    engine.micro_batch, engine.precision = usual
    return {k: torch.zeros_like(p) if p.grad is None else p.grad.clone() for k, p in named.items()}


def _now(trainer: Trainer) -> str:
    """The digest of an algorithm's state and weights."""
    weights = {n: dict(p.state_dict()) for n, p in trainer.algorithm.parts().items()}
    return digest({"state": trainer.algorithm.state(), "weights": weights})


def _different(a: Metrics, b: Metrics) -> str:
    """Such as 'loss/total is 0.1 instead of 0.2', for the first metric in which two rows differ; '' if none does."""
    for key in [*b, *(k for k in a if k not in b)]:
        x, y = a.get(key), b.get(key)
        if x != y and not (isinstance(x, float) and isinstance(y, float) and math.isnan(x) and math.isnan(y)):
            return f"{key} is {x} instead of {y}"
    return ""


def digest(tree: Any) -> str:
    """The SHA-256 of nested dicts and lists of numbers, texts, arrays [...] and tensors [...], to the last bit."""
    sha = hashlib.sha256()
    _feed(sha, tree)
    return sha.hexdigest()


def _feed(sha: Any, tree: Any) -> None:
    if isinstance(tree, dict):
        for key in sorted(tree):
            sha.update(f"{key}:".encode())
            _feed(sha, tree[key])
    elif isinstance(tree, (list, tuple)):
        for value in tree:
            _feed(sha, value)
    elif isinstance(tree, Segment):
        _feed(sha, tree.arrays)
    elif isinstance(tree, (np.ndarray, Tensor)):
        array = tree.detach().cpu().contiguous().numpy() if isinstance(tree, Tensor) else np.ascontiguousarray(tree)
        sha.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    else:
        sha.update(json.dumps(tree.item() if isinstance(tree, np.generic) else tree).encode())
