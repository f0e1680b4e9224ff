"""A verifier as the reward of a prover, and what grading and refining are worth, with known answers."""

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
    found = resolve_models(asked, runs, train)
    assert folder_of(asked) == folder_of(found) == str((runs / "verifier/checkpoints/00000004").resolve())
    assert found.plain["reward"] == {"name": "proving", "verifier": folder_of(found)}


def test_a_prover_is_paid_by_what_the_verifier_says(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pays = rewards.proving(verifier=str(runs / "verifier/checkpoints/00000004"), max_new_tokens=4)
    assert pays(["", "Proof: 1: 12 + 5 = 17. #### 1"], [ROW["problem"]] * 2) == [0.0, 0.0]  # of these it is not asked
    with pytest.raises(
        ValueError, match=r"evaluates 2 of 2 proofs in no due form, such as .*: it is no trained verifier"
    ):
        pays([RIGHT, WRONG], [ROW["problem"]] * 2)
    with pytest.raises(Mistake, match="does not know 45% of the tokens"):
        pays([RIGHT], ["It was a dark and stormy night, and the rain fell in torrents, except at occasional intervals"])
    asked = list[str]()

    def by_rule(texts: list[str]) -> dict[str, Any]:
        asked.extend(texts)
        proofs = {text: text.removeprefix(f"{ROW['problem']} ") for text in texts}
        return {text: read_evaluation(str(examine(PROBLEM, read(proof) or []))) for text, proof in proofs.items()}

    monkeypatch.setattr(pays, "verdicts", by_rule)
    said = [RIGHT, WRONG, BLIND, "Proof: 1: 12 + 5 = 17. #### 1", ""]
    assert pays(said, [ROW["problem"]] * 5) == pytest.approx([1.0, BETA, 0.0, 0.0, 0.0])
    assert asked[0] == f"{ROW['problem']} Proof: 1: 12 + 5 = 17; 2: 17 * 2 = 34." and len(asked) == 3


class Scripted:
    """Says to each problem what is written for it, turn by turn; the last again and again."""

    task = tasks.proving()

    def __init__(self, rows: list[dict[str, Any]], *turns: list[str]) -> None:
        self.kept, self.turns, self.asked = rows, turns, list[int]()

    def rows(self, count: int, needs: str) -> list[dict[str, Any]]:
        assert needs in self.kept[0]
        return self.kept[:count]

    def says(self, rows: list[dict[str, Any]], turn: int, samples: int = 1) -> list[str]:
        self.asked.append(len(rows) * samples)
        said = self.turns[min(turn, len(self.turns) - 1)]
        return (said * len(rows) * samples)[: len(rows) * samples]


def test_refining_goes_on_until_the_author_is_content() -> None:
    speaker: Any = Scripted([ROW] * 20, [WRONG, RIGHT], [WRONG, RIGHT, RIGHT, RIGHT])
    told = list(refine(speaker, rounds=2, problems=20, samples=2))
    assert [r["gold"] for r in told] == pytest.approx([0.5, 0.875, 1 - 2 / 40]) and speaker.asked == [40, 20, 5]
    assert told[0]["gain"] == 0.0 and told[1]["gain"] == pytest.approx(0.375) and told[1]["interval"][0] > 0
    assert [r["content"] for r in told] == [r["gold"] for r in told] and {r["honest"] for r in told} == {1.0}
    assert told[0]["best by itself"] == told[0]["best by oracle"] == 1.0


def test_an_author_who_claims_that_all_is_right_gains_nothing() -> None:
    speaker: Any = Scripted([ROW] * 4, [BLIND, RIGHT], [RIGHT])
    told = list(refine(speaker, rounds=1, problems=4, samples=2))
    assert [r["gold"] for r in told] == [0.5, 0.5] and speaker.asked == [8]
    assert told[1]["honest"] == 0.5 and told[1]["content"] == 1.0 and told[1]["interval"] == (0.0, 0.0)
    assert told[1]["best by oracle"] == 1.0


def test_verification_is_counted_by_steps_and_grades() -> None:
    task = tasks.verification()
    rows = [task.row(i, "validation") for i in range(30)]

    class Lenient(Scripted):
        def says(self, rows: list[dict[str, Any]], turn: int, samples: int = 1) -> list[str]:
            return ["Evaluation: 1 + 1 = 2 yes. No line is wrong. #### 1" for _ in rows]

    speaker: Any = Lenient(rows)
    whole = verify(speaker, 30)[-1]
    assert whole["accuracy"] == pytest.approx(1 / 3) and whole["interval"] == pytest.approx((1 / 3, 1 / 3))
    assert whole["wrong"] == whole["gaps"] == 0.0 and whole["R_V"] == pytest.approx((1 + 0.5) / 3)
    told = verify(speaker, 30)
    assert [r["steps"] for r in told] == [1, 2, 3, 4, 5, "all"] and told[0]["gaps"] is None
    assert sum(r["rows"] for r in told[:-1]) == 30

    class Gold(Scripted):
        def says(self, rows: list[dict[str, Any]], turn: int, samples: int = 1) -> list[str]:
            return [task.gold(r) for r in rows]

    perfect: Any = Gold(rows)
    assert {k: verify(perfect, 30)[-1][k] for k in ("accuracy", "wrong", "gaps", "R_V")} == dict.fromkeys(
        ("accuracy", "wrong", "gaps", "R_V"), pytest.approx(1.0)
    )


def test_balanced_accuracy_gives_a_rare_class_its_full_say() -> None:
    value, interval = balanced_accuracy([0.0] * 90 + [1.0] * 10, [True] * 90 + [False] * 5 + [True] * 5)
    assert value == pytest.approx(0.75) and interval[0] < 0.65 < 0.85 < interval[1]
    assert balanced_accuracy([1.0, 1.0], [True, False])[0] == 0.5


def told(*words: object) -> Any:
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_commands_ask_the_models_of_runs(runs: Path) -> None:
    rows = told("verify", "verifier", "--rows", 9, "--runs", runs)
    assert rows[-1]["rows"] == 9 and rows == told("verify", "verifier@4", "--rows", 9, "--runs", runs)
    rows = told("refine", "prover", "--rounds", 1, "--samples", 2, "--problems", 3, "--runs", runs)
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
def test_runs_of_other_tasks_are_told(runs: Path, words: tuple[str, ...], fault: str) -> None:
    done = CliRunner().invoke(app, [*words, "--runs", str(runs)])
    assert done.exit_code != 0 and fault in str(done.exception)
