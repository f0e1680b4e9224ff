"""A verifier as the reward of a prover, and measurements of grading and refining, with known answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import smoke_runs
from rllab_envs import tasks
from rllab_envs.tasks.derivations import Problem, Step, examine, read
from typer.testing import CliRunner

from rllab import rewards
from rllab.cli import app
from rllab.core.errors import Mistake
from rllab.core.recipe import load_recipe
from rllab.core.stages import resolve_models
from rllab.core.trainer import train
from rllab.evals.proofs import balanced_accuracy, refine, verify
from rllab.rewards.self_verification import BETA, read_evaluation
from rllab.stats import wilson

ROW = {"problem": "Start with 12. Add 5. Double.", "start": 12, "moves": [["+", 5], ["*", 2]]}
PROBLEM = Problem(12, (Step("+", 5), Step("*", 2)))
RIGHT = "Proof: 1: 12 + 5 = 17; 2: 17 * 2 = 34. Evaluation: 12 + 5 = 17 yes; 17 * 2 = 34 yes. No line is wrong. #### 1"
WRONG = "Proof: 1: 12 + 5 = 17; 2: 17 * 2 = 44. Evaluation: 12 + 5 = 17 yes; 17 * 2 = 34 no. Line 2 is wrong. #### 0"
BLIND = "Proof: 1: 12 + 5 = 17; 2: 17 * 2 = 44. Evaluation: 12 + 5 = 17 yes; 17 * 2 = 44 yes. No line is wrong. #### 1"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smoke_runs(tmp_path_factory.mktemp("runs"), "verifier", "prover")


def folder_of(recipe: Any) -> str:
    return str(recipe.algorithm.reward.settings["verifier"])


def test_a_recipe_names_the_verifier_in_a_setting_of_its_reward(runs: Path) -> None:
    asked = load_recipe("prover", {"model": str(runs / "prover")})
    resolved = resolve_models(asked, runs, train)
    assert folder_of(asked) == folder_of(resolved) == str((runs / "verifier/checkpoints/00000004").resolve())
    assert resolved.plain["reward"] == {"name": "proving", "verifier": folder_of(resolved)}


def test_a_prover_is_rewarded_by_the_verdict_of_the_verifier(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = rewards.proving(verifier=str(runs / "verifier/checkpoints/00000004"), max_new_tokens=4)
    assert reward(["", "Proof: 1: 12 + 5 = 17. #### 1"], [ROW["problem"]] * 2) == [
        0.0,
        0.0,
    ]  # without a call
    with pytest.raises(
        ValueError, match=r"evaluates 2 of 2 proofs not in the required form, such as .*: it is not a trained verifier"
    ):
        reward([RIGHT, WRONG], [ROW["problem"]] * 2)
    with pytest.raises(Mistake, match="does not know 45% of the tokens"):
        reward(
            [RIGHT], ["It was a dark and stormy night, and the rain fell in torrents, except at occasional intervals"]
        )
    asked = list[str]()

    def by_rule(texts: list[str]) -> dict[str, Any]:
        asked.extend(texts)
        proofs = {text: text.removeprefix(f"{ROW['problem']} ") for text in texts}
        return {text: read_evaluation(str(examine(PROBLEM, read(proof) or []))) for text, proof in proofs.items()}

    monkeypatch.setattr(reward, "verdicts", by_rule)
    texts = [RIGHT, WRONG, BLIND, "Proof: 1: 12 + 5 = 17. #### 1", ""]
    assert reward(texts, [ROW["problem"]] * 5) == pytest.approx([1.0, BETA, 0.0, 0.0, 0.0])
    assert asked[0] == f"{ROW['problem']} Proof: 1: 12 + 5 = 17; 2: 17 * 2 = 34." and len(asked) == 3


class Scripted:
    """Returns scripted texts for each turn, the same for all problems; the last turn repeats."""

    task = tasks.proving()

    def __init__(self, rows: list[dict[str, Any]], *turns: list[str]) -> None:
        self.kept, self.turns, self.asked = rows, turns, list[int]()

    def rows(self, count: int, needs: str) -> list[dict[str, Any]]:
        assert needs in self.kept[0]
        return self.kept[:count]

    def texts(self, rows: list[dict[str, Any]], turn: int, samples: int = 1) -> list[str]:
        self.asked.append(len(rows) * samples)
        texts = self.turns[min(turn, len(self.turns) - 1)]
        return (texts * len(rows) * samples)[: len(rows) * samples]


def test_refining_goes_on_until_the_model_grades_its_proof_1() -> None:
    sampler: Any = Scripted([ROW] * 20, [WRONG, RIGHT], [WRONG, RIGHT, RIGHT, RIGHT])
    rows = list(refine(sampler, rounds=2, problems=20, samples=2))
    assert [r["gold"] for r in rows] == pytest.approx([0.5, 0.875, 1 - 2 / 40]) and sampler.asked == [40, 20, 5]
    assert rows[0]["gain"] == 0.0 and rows[1]["gain"] == pytest.approx(0.375) and rows[1]["interval"][0] > 0
    assert [r["content"] for r in rows] == [r["gold"] for r in rows] and {r["honest"] for r in rows} == {1.0}
    assert rows[0]["best by itself"] == rows[0]["best by oracle"] == 1.0


def test_a_model_that_grades_all_of_its_proofs_1_gains_nothing() -> None:
    sampler: Any = Scripted([ROW] * 4, [BLIND, RIGHT], [RIGHT])
    rows = list(refine(sampler, rounds=1, problems=4, samples=2))
    assert [r["gold"] for r in rows] == [0.5, 0.5] and sampler.asked == [8]
    assert rows[1]["honest"] == 0.5 and rows[1]["content"] == 1.0 and rows[1]["interval"] == (0.0, 0.0)
    assert rows[1]["best by oracle"] == 1.0


def test_verification_is_counted_by_steps_and_grades() -> None:
    task = tasks.verification()
    rows = [task.row(i, "validation") for i in range(30)]

    class Lenient(Scripted):
        def texts(self, rows: list[dict[str, Any]], turn: int, samples: int = 1) -> list[str]:
            return ["Evaluation: 1 + 1 = 2 yes. No line is wrong. #### 1" for _ in rows]

    sampler: Any = Lenient(rows)
    whole = verify(sampler, 30)[-1]
    assert whole["accuracy"] == pytest.approx(1 / 3) and whole["interval"][0] < 0.3 < 0.36 < whole["interval"][1]
    assert whole["wrong"] == whole["gaps"] == 0.0 and whole["R_V"] == pytest.approx((1 + 0.5) / 3)
    table = verify(sampler, 30)
    assert [r["steps"] for r in table] == [1, 2, 3, 4, 5, "all"] and table[0]["gaps"] is None
    assert sum(r["rows"] for r in table[:-1]) == 30

    class Gold(Scripted):
        def texts(self, rows: list[dict[str, Any]], turn: int, samples: int = 1) -> list[str]:
            return [task.gold(r) for r in rows]

    perfect: Any = Gold(rows)
    assert {k: verify(perfect, 30)[-1][k] for k in ("accuracy", "wrong", "gaps", "R_V")} == dict.fromkeys(
        ("accuracy", "wrong", "gaps", "R_V"), pytest.approx(1.0)
    )


def test_balanced_accuracy_gives_a_rare_class_full_weight() -> None:
    value, interval = balanced_accuracy([0.0] * 90 + [1.0] * 10, [True] * 90 + [False] * 5 + [True] * 5)
    assert value == pytest.approx(0.75) and interval[0] < 0.65 < 0.85 < interval[1]
    assert balanced_accuracy([1.0, 1.0], [True, False])[0] == 0.5
    assert balanced_accuracy([1.0] * 20, [True] * 20) == (1.0, pytest.approx(wilson(20, 20)))  # one class: Wilson's own
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        right = [*(rng.random(12) < 0.95), *(rng.random(30) < 0.8)]
        low, high = balanced_accuracy([0.0] * 12 + [1.0] * 30, right)[1]
        hits += low < (0.95 + 0.8) / 2 < high
    assert 0.92 < hits / 400 < 0.99


def as_json(*words: object) -> Any:
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_commands_sample_the_models_of_runs(runs: Path) -> None:
    rows = as_json("verify", "verifier", "--rows", 9, "--runs", runs)
    assert rows[-1]["rows"] == 9 and rows == as_json("verify", "verifier@4", "--rows", 9, "--runs", runs)
    rows = as_json("refine", "prover", "--rounds", 1, "--samples", 2, "--problems", 3, "--runs", runs)
    assert [r["refined"] for r in rows] == [0, 1] and np.isfinite([r["gold"] for r in rows]).all()


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("verify", "prover"), "the task of prover has no column 'line', but prompt"),
        (("refine", "verifier"), "the task of verifier has no column 'problem', but prompt"),
        (("verify", "nobody"), "nobody"),
        (("refine", "prover", "--base"), "prover began with no model"),
    ],
)
def test_runs_of_other_tasks_are_refused(runs: Path, words: tuple[str, ...], fault: str) -> None:
    done = CliRunner().invoke(app, [*words, "--runs", str(runs)])
    assert done.exit_code != 0 and fault in str(done.exception)
