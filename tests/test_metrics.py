"""The glossary of metrics is complete: docs/metrics.yaml has what runs write, and nothing else."""

from pathlib import Path

import pytest
from conftest import run

from rllab import algos
from rllab.core.names import import_file
from rllab.core.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGE = import_file(ROOT / "docs/metrics.py")
RECIPES = (
    "cartpole cartpole-ppo pendulum-sac rlhf-control tictactoe peg-solitaire othello6 supervised-c4 adversary-c4 "
    "pocket sft-lora reward-model dpo rlhf grpo grpo-calculator r1-rejection verifier prover"
)
# settings that switch on more metrics
CHANGES = {
    "peg-solitaire": ["gate=0.5", "gate_every=2", "gate_games=4"],
    "grpo": ["beta=0.1"],
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, type], str]:
    """(metric, algorithm) -> a recipe whose smallest run writes it."""
    folder, written = tmp_path_factory.mktemp("runs"), dict[tuple[str, type], str]()
    for name in RECIPES.split():
        trainer = run(load_recipe(name, CHANGES.get(name, []), smoke=True), folder / name)
        for row in trainer.folder.rows():
            written |= {(metric, type(trainer.algorithm)): name for metric in row}
    return written


def test_the_runs_cover_all_algorithms(written: dict[tuple[str, type], str]) -> None:
    assert {algorithm.__name__ for _, algorithm in written} == set(algos.__all__)


def test_every_metric_has_an_entry(written: dict[tuple[str, type], str]) -> None:
    entries = PAGE.read_metrics()
    missing = [f"{m} of {a.__name__}" for m, a in written if PAGE.entry_for(m, a, entries) is None]
    assert not missing, f"add lines to docs/metrics.yaml (name, of, unit, meaning) for: {', '.join(sorted(missing))}"


def test_every_entry_is_written_by_a_run(written: dict[tuple[str, type], str]) -> None:
    entries = PAGE.read_metrics()
    used = [PAGE.entry_for(*metric_and_algorithm, entries) for metric_and_algorithm in written]
    unused = [f"{m.name} of {', '.join(m.of)}" for m in entries if m not in used and not m.when]
    assert not unused, f"no run writes these; remove their lines from docs/metrics.yaml, or add when: {unused}"


@pytest.mark.parametrize(
    ("name", "algorithm", "pattern"),
    [
        ("reward/total", algos.GRPO, "reward/total"),
        ("reward/accuracy", algos.GRPO, "reward/NAME"),
        ("eval/reward/accuracy", algos.RLHF, "eval/reward/NAME"),
        ("reward/accuracy", algos.DQN, None),
        ("optim/lr_value", algos.RLHF, "optim/lr_PART"),
        ("eval/rewards", algos.GRPO, None),
    ],
)
def test_an_exact_name_comes_before_a_pattern(name: str, algorithm: type, pattern: str | None) -> None:
    entry = PAGE.entry_for(name, algorithm, PAGE.read_metrics())
    assert (entry and entry.name) == pattern


def test_an_own_entry_comes_before_that_of_the_base() -> None:
    entries = PAGE.read_metrics()
    own, base = (PAGE.entry_for("eval/score", a, entries) for a in (algos.Adversary, algos.AlphaZero))
    assert "against the opponent" in own.meaning and "against UCT" in base.meaning
