"""What every algorithm owes to the trainer, for those who write one.

`rllab check mine.yaml` runs this on the recipe's `smoke` size; in a test of your own call `check_algorithm`. Each check
first makes sure that something moved: a run in which nothing happens resumes perfectly.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rllab.core.algorithm import Metrics, Update, split
from rllab.core.checkpoint import Checkpoints, Segment
from rllab.core.recipe import Recipe
from rllab.core.run import RunFolder
from rllab.core.stop import Stop
from rllab.core.trainer import Trainer
from rllab.testing.broken import Broken


def check_algorithm(recipe: Recipe, folder: Path) -> list[str]:
    """Runs every check on a recipe, in runs below `folder`; returns what was checked, a line each.

    Raises:
        Broken: says what does not hold, and where to look.
    """
    whole = finish(recipe, folder / "whole")
    return [
        check_moves(recipe, folder / "whole"),
        check_split(recipe, folder / "split"),
        *(check_resume(recipe, whole, folder / f"cut-{cut}", cut) for cut in range(1, recipe.settings.total_steps)),
        check_seeds(recipe, whole, folder / "seed"),
        check_evaluate(recipe, folder / "evaluate"),
    ]


def finish(recipe: Recipe, folder: Path) -> tuple[str, list[Metrics]]:
    """Runs a recipe to its end: (digest of all its state, rows without times)."""
    trainer = Trainer(recipe, folder)
    for _ in trainer:
        pass
    return outcome(trainer)


def outcome(trainer: Trainer) -> tuple[str, list[Metrics]]:
    """What must repeat exactly: a digest of weights, optimizers and state, and the rows without their times."""
    checkpoint = trainer.checkpoints.newest()
    if checkpoint is None:
        raise Broken(f"{trainer.folder.path} has no checkpoint")
    shared = checkpoint.state("state")
    state = {
        "parts": {name: checkpoint.part(name) for name in trainer.algorithm.parts()},
        "optim": shared["optim"],
        "own": checkpoint.state(f"rank-{trainer.engine.rank}"),
    }
    rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in trainer.folder.rows()]
    return digest(state), rows


def check_moves(recipe: Recipe, folder: Path) -> str:
    """Training changes every part's weights, and at least one optimizer step has a gradient."""
    trainer = Trainer(recipe, folder.with_name("start"))
    trainer.restore()
    start = {name: digest(dict(part.state_dict())) for name, part in trainer.algorithm.parts().items()}
    checkpoint = Checkpoints(folder / "checkpoints").newest()
    assert checkpoint is not None
    still = [name for name, before in start.items() if digest(checkpoint.part(name)) == before]
    if still:
        raise Broken(f"the part {still[0]!r} has not changed; in {recipe.name}'s smoke size nothing is learned")
    return "every part is trained"


def check_resume(recipe: Recipe, whole: tuple[str, list[Metrics]], folder: Path, cut: int) -> str:
    """A run stopped after round `cut`, or killed some rounds later, and started again ends as one left alone."""
    stop = Stop()
    for row in Trainer(recipe, folder, stop=stop):
        if row["step"] == cut:
            stop.reason = "check_resume"
    _compare(finish(recipe, folder), whole, f"stopped after round {cut} and resumed")
    _pretend_killed(folder, cut)
    _compare(finish(recipe, folder), whole, f"killed after the checkpoint of round {cut} and resumed")
    return f"stopped or killed after round {cut} it resumes to the same"


def _pretend_killed(folder: Path, cut: int) -> None:
    """Leaves a finished run as a kill would have: only the checkpoint of `cut`, its row missing or newer ones there."""
    run = RunFolder(folder)
    for step in Checkpoints(folder / "checkpoints").steps():
        if step > cut:
            shutil.rmtree(folder / "checkpoints" / f"{step:08d}")
    if cut % 2:
        run.cut(cut - 1)
    run.write_status("running", {"step": cut})


def _compare(found: tuple[str, list[Metrics]], whole: tuple[str, list[Metrics]], how: str) -> None:
    for mine, its in zip(found[1], whole[1], strict=False):
        if different := _different(mine, its):
            raise Broken(f"{how}, {different} in round {mine['step']}: a draw or a state was lost")
    if len(found[1]) != len(whole[1]):
        raise Broken(f"{how}, the run has {len(found[1])} rows instead of {len(whole[1])}")
    if found[0] != whole[0]:
        raise Broken(f"{how}, the final state differs; the rows are the same")


def check_seeds(recipe: Recipe, whole: tuple[str, list[Metrics]], folder: Path) -> str:
    """Another seed makes another run."""
    recipe.settings.seed += 1
    recipe.plain["seed"] = recipe.settings.seed
    try:
        other = finish(recipe, folder)
    finally:
        recipe.settings.seed -= 1
        recipe.plain["seed"] = recipe.settings.seed
    if other[0] == whole[0]:
        raise Broken("two seeds give the same run: draw from ctx.rng or ctx.generator")
    return "two seeds differ"


def check_split(recipe: Recipe, folder: Path) -> str:
    """A batch in pieces has the gradient of the whole batch, for every loss of a round."""
    checked = 0
    for trainer, update in updates(recipe, folder):
        whole = _gradient(trainer, update, None)
        if not any(g.abs().sum() > 0 for g in whole.values()):
            continue
        checked += 1
        terms = {name: torch.zeros_like(g) for name, g in whole.items()}  # a sum is as exact as its terms
        for entry in split(update.batch, 1):
            for name, g in _gradient(trainer, replace(update, batch=entry), None).items():
                terms[name] += g.abs()
        for size in (1, 3):
            for name, g in _gradient(trainer, update, size).items():
                if float((g - whole[name]).abs().max()) > 1e-5 * max(float(terms[name].max()), 1e-6):
                    raise Broken(
                        f"split in pieces of {size}, {name} has another gradient: the loss must be a sum of weight x "
                        "loss over entries, and draw nothing"
                    )
    if not checked:
        raise Broken("no update of the run had a gradient")
    return f"split batches have the same gradient ({checked} updates)"


def check_evaluate(recipe: Recipe, folder: Path) -> str:
    """Evaluating changes nothing, and says the same twice."""
    trainer = Trainer(recipe, folder)
    for _ in trainer:
        pass
    before = digest(trainer.algorithm.state()), _weights(trainer)
    first, second = trainer.algorithm.evaluate(trainer.step), trainer.algorithm.evaluate(trainer.step)
    if (digest(trainer.algorithm.state()), _weights(trainer)) != before:
        raise Broken("evaluate changes the state or the weights of its algorithm")
    if different := _different(first, second):
        raise Broken(f"evaluated twice, {different}: draw from ctx.rng, with the step as index")
    return "evaluating changes nothing"


def updates(recipe: Recipe, folder: Path) -> Iterator[tuple[Trainer, Update]]:
    """Every update of a run, before it is done."""
    trainer = Trainer(recipe, folder)
    engine, seen = trainer.engine, list[Update]()
    do = engine.update

    def spy(update: Update, optimizers: Any) -> Any:
        seen.append(update)
        return do(update, optimizers)

    engine.update = spy  # type: ignore[method-assign]
    for _ in trainer:
        for update in seen:
            yield trainer, update
        seen.clear()


def _gradient(trainer: Trainer, update: Update, size: int | None) -> dict[str, Tensor]:
    parts = {n: p for n, p in trainer.algorithm.parts().items() if n in update.parts}
    named = {f"{n}.{k}": p for n, part in parts.items() for k, p in part.named_parameters() if p.requires_grad}
    for p in named.values():
        p.grad = None
    engine, usual = trainer.engine, (trainer.engine.micro_batch, trainer.engine.precision)
    engine.micro_batch, engine.precision = size, "fp32"  # what bf16 rounds is larger than what would be found
    engine.backward(update)
    engine.micro_batch, engine.precision = usual
    return {k: torch.zeros_like(p) if p.grad is None else p.grad.clone() for k, p in named.items()}


def _weights(trainer: Trainer) -> str:
    return digest({n: dict(p.state_dict()) for n, p in trainer.algorithm.parts().items()})


def _different(a: Metrics, b: Metrics) -> str:
    """'loss/total is 0.1 instead of 0.2' for the first metric in which two rows differ; '' where none does."""
    for key in [*b, *(k for k in a if k not in b)]:
        x, y = a.get(key), b.get(key)
        if x != y and not (isinstance(x, float) and isinstance(y, float) and math.isnan(x) and math.isnan(y)):
            return f"{key} is {x} instead of {y}"
    return ""


def digest(tree: Any) -> str:
    """A checksum of nested dicts and lists of numbers, text, arrays and tensors, to the last bit."""
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
