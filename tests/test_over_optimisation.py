"""Reward and gold score over the KL to the reference: best-of-n with known answers, and evaluations of runs."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import smoke_runs
from typer.testing import CliRunner

from rllab.cli import app
from rllab.evals.over_optimisation import expected_best


def test_the_best_of_n_is_the_mean_over_all_choices_of_n() -> None:
    rng = np.random.default_rng(0)
    reward, gold = rng.random((3, 6)), rng.random((3, 6))
    for n in range(1, 7):
        each = [
            gold[row, max(some, key=lambda i: reward[row, i])] for row in range(3) for some in combinations(range(6), n)
        ]
        assert expected_best(reward, gold, n) == pytest.approx(np.mean(each))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smoke_runs(tmp_path_factory.mktemp("runs"), "rlhf", "rlhf-rloo", "grpo", "pocket")


def table(runs: Path, *words: str) -> Any:
    done = CliRunner().invoke(app, ["overoptimise", *words, "--runs", str(runs), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_runs_are_compared_with_the_best_of_n(runs: Path, tmp_path: Path) -> None:
    figure = tmp_path / "curve.svg"
    rows = table(runs, "rlhf", "rlhf-rloo", "--best-of", "5", "--prompts", "3", "--figure", str(figure))
    assert [(r["model"], r["round or n"]) for r in rows] == [
        ("rlhf", 2), ("rlhf", 4), ("rlhf-rloo", 2), ("rlhf-rloo", 4), *(("best of n", n) for n in (1, 2, 4)),
    ]  # fmt: skip
    kept = [json.loads(line) for line in (runs / "rlhf" / "metrics.jsonl").read_text().splitlines()]
    assert rows[1]["kl"] == kept[-1]["eval/kl"] and rows[1]["gold"] == kept[-1]["eval/gold"]
    best = rows[-3:]
    assert best[0]["kl"] == 0.0 and best[2]["kl"] == pytest.approx(np.log(4) - 3 / 4)
    assert best[0]["reward"] < best[1]["reward"] < best[2]["reward"]  # a coin: the best of more is higher
    assert figure.read_text().lstrip().startswith("<?xml") and figure.stat().st_size > 5_000


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["grpo"], "has no evaluation with rewards and a KL"),
        (["pocket"], "has no evaluation with rewards and a KL"),
        (["rlhf", "--figure", "curve.docx"], "--figure curve.docx"),
        (["nobody"], "nobody"),
    ],
)
def test_runs_without_such_evaluations_are_refused(runs: Path, words: list[str], fault: str) -> None:
    done = CliRunner().invoke(app, ["overoptimise", *words, "--runs", str(runs)])
    assert done.exit_code != 0 and fault in str(done.exception or done.output) + done.output
