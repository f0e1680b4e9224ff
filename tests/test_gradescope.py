"""The scripts of a Gradescope autograder, in a folder that stands for /autograder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_grades import part
from test_house import ROOT

from rllab.evals.grading.grade import Grade, PartGrade
from rllab.evals.grading.gradescope import results

SCRIPT = ROOT / "docs/assignment/run_autograder"
ASSIGNMENT = "roster: roster.csv\nparts:\n  sums: {metric: accuracy, task: private.jsonl, points: 10}\n"


@pytest.fixture
def autograder(tmp_path: Path) -> Path:
    for name in ("source", "submission", "results"):
        (tmp_path / name).mkdir()
    source = tmp_path / "source"
    (source / "assignment.yaml").write_text(ASSIGNMENT)
    (source / "roster.csv").write_text("id\nsomebody\n")
    rows = [{"id": i, "question": f"{i} + 1?", "target": str(i + 1), "kind": "number"} for i in range(4)]
    (source / "private.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [{"id": i, "completion": f"#### {max(2, i + 1)}"} for i in range(4)]
    (tmp_path / "submission/answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    (tmp_path / "results/results.json").write_text("of an earlier run")
    return tmp_path


def run(autograder: Path, *folders: Path) -> subprocess.CompletedProcess[str]:
    path = ":".join(map(str, [*folders, Path(sys.executable).parent, os.environ["PATH"]]))
    env = os.environ | {"AUTOGRADER": str(autograder), "PATH": path}
    return subprocess.run([SCRIPT], env=env, cwd=autograder, capture_output=True, text=True)


def test_a_submission_is_graded(autograder: Path) -> None:
    done = run(autograder)
    assert done.returncode == 0, done.stderr
    form = json.loads((autograder / "results/results.json").read_text())
    assert (form["score"], form["tests"][0]["max_score"]) == (7.5, 10) and "0 + 1?" in form["tests"][0]["output"]


def test_a_submission_that_is_not_graded_has_no_results(autograder: Path, tmp_path: Path) -> None:
    """`rllab` is a script here that leaves what the command leaves when a measurement could not be made."""
    form = json.dumps(results(Grade("student", "not graded", [PartGrade(part(), 0.0, None)])), indent=1)
    (tmp_path / "bin").mkdir()
    command = f'mkdir -p "$5/results"\ncat > "$5/results/student.json" <<< \'{form}\''
    (tmp_path / "bin/rllab").write_text(f"#!/bin/bash\n{command}\n")
    (tmp_path / "bin/rllab").chmod(0o755)
    done = run(autograder, tmp_path / "bin")
    assert done.returncode == 1 and "is not graded" in done.stderr
    assert not (autograder / "results/results.json").exists()


def test_a_mistake_in_the_assignment_gives_no_results(autograder: Path) -> None:
    (autograder / "source/assignment.yaml").write_text(ASSIGNMENT.replace("private", "privat"))
    done = run(autograder)
    assert done.returncode == 2 and "privat.jsonl" in done.stderr
    assert not (autograder / "results/results.json").exists()


@pytest.mark.parametrize("name", ["run_autograder", "setup.sh"])
def test_the_scripts_can_be_run(name: str) -> None:
    path = ROOT / "docs/assignment" / name
    assert os.access(path, os.X_OK) and subprocess.run(["bash", "-n", path]).returncode == 0
