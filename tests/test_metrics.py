"""The glossary of metrics is complete: evals/metrics.yaml has what runs write, and nothing else."""

import pytest
from conftest import run

from rllab import algos
from rllab.core.recipe import load_recipe
from rllab.evals.glossary import EXTENDED, entry_for, read_metrics, unit

RECIPES = (
    "cartpole cartpole-ppo pendulum-sac rlhf-control tictactoe peg-solitaire othello6 supervised-c4 adversary-c4 "
    "racing pocket sft-lora reward-model dpo rlhf grpo grpo-calculator r1-rejection verifier prover frozenlake "
    "a2c recall reinforce pendulum-td3 racing-overtake "
    "offline-bc offline-cql offline-iql decision-transformer cooling"
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


def lineage(algorithm: type) -> list[str]:
    return [c.__name__ for c in algorithm.__mro__]


def test_what_algorithms_extend_is_what_their_classes_extend() -> None:
    named = {name for m in read_metrics() for name in m.of} - {"Algorithm"}
    classes = {name: lineage(getattr(algos, name)) for name in algos.__all__}
    assert {name: tuple(c for c in each[1:] if c in named) for name, each in classes.items()} == EXTENDED


def test_units() -> None:
    units = {name: unit("eval/return", name) for name in ("DQN", "PrefPPO", "Imitation")}
    assert units == {"DQN": "reward", "PrefPPO": "reward", "Imitation": "from -1 to 1"}
    assert unit("reward/mine", "GRPO") == "reward" and unit("rollout/tokens", "mine.py:Algo") == "tokens"
    assert unit("eval/return", "mine.py:Algo") == "", "two algorithms measure it in two units"


def test_the_runs_cover_all_algorithms(written: dict[tuple[str, type], str]) -> None:
    assert {algorithm.__name__ for _, algorithm in written} == set(algos.__all__)


def test_every_metric_has_an_entry(written: dict[tuple[str, type], str]) -> None:
    entries = read_metrics()
    missing = [f"{m} of {a.__name__}" for m, a in written if entry_for(m, lineage(a), entries) is None]
    assert not missing, (
        f"add lines to src/rllab/evals/metrics.yaml (name, of, unit, meaning) for: {', '.join(sorted(missing))}"
    )


def test_every_entry_is_written_by_a_run(written: dict[tuple[str, type], str]) -> None:
    entries = read_metrics()
    used = [entry_for(name, lineage(a), entries) for name, a in written]
    unused = [f"{m.name} of {', '.join(m.of)}" for m in entries if m not in used and not m.when]
    assert not unused, (
        f"no run writes these; remove their lines from src/rllab/evals/metrics.yaml, or add when: {unused}"
    )


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
    entry = entry_for(name, lineage(algorithm), read_metrics())
    assert (entry and entry.name) == pattern


def test_an_own_entry_comes_before_that_of_the_base() -> None:
    entries = read_metrics()
    own, base = (entry_for("eval/score", lineage(a), entries) for a in (algos.Adversary, algos.AlphaZero))
    assert "against the opponent" in own.meaning and "against UCT" in base.meaning
