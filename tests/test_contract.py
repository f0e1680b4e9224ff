"""Every recipe's smoke size keeps the trainer's contract, and broken algorithms fail it."""

from pathlib import Path

import pytest

from rllab.core.recipe import load_recipe, recipe_names
from rllab.testing import Broken, check_algorithm


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_keeps_the_contract(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, smoke=True)
    if getattr(recipe.algorithm, "env", "") == "rllab/Atari-v0":
        pytest.importorskip("ale_py", reason="the extra atari is not installed")
    checked = check_algorithm(recipe, tmp_path)
    assert len(checked) == 5
    assert recipe.settings.expect, f"{name} says nothing of what it must reach"


@pytest.mark.parametrize("algo", ["Regression", "TwoParts"])
def test_toys_keep_the_contract(toy, algo: str, tmp_path: Path) -> None:
    check_algorithm(toy("total_steps=5", algo=algo), tmp_path)


def test_muon_and_sgd_resume_exactly(toy, tmp_path: Path) -> None:
    check_algorithm(toy("optim={name: muon, lr: 0.01}", "total_steps=3"), tmp_path / "muon")
    check_algorithm(toy("optim={name: sgd, lr: 0.01, momentum: 0.9}", "total_steps=3"), tmp_path / "sgd")


@pytest.mark.parametrize(
    ("algo", "finding"),
    [
        ("Drawing", "has another gradient"),
        ("Averaging", "has another gradient"),
        ("Stateful", "resumed"),
    ],
)
def test_broken_algorithms_fail(toy, algo: str, finding: str, tmp_path: Path) -> None:
    with pytest.raises(Broken, match=finding):
        check_algorithm(toy("total_steps=3", "eval_every=0", algo=algo), tmp_path)


def test_a_run_in_which_nothing_moves_proves_nothing(toy, tmp_path: Path) -> None:
    with pytest.raises(Broken, match="has not changed"):
        check_algorithm(toy("updates=0", "total_steps=3"), tmp_path)
