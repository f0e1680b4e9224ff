"""Curves of several runs: the metrics, the metric that they are shown over, and the message where one is missing."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import read_jsonl, smoke_runs
from typer.testing import CliRunner

from rllab.cli import app


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smoke_runs(tmp_path_factory.mktemp("runs"), "r1-zero", "r1-distill", "r1-cold-start")


def curves(runs: Path, *words: str) -> Any:
    return CliRunner().invoke(app, ["curves", *words, "--runs", str(runs)])


def test_two_runs_are_shown_over_tokens(runs: Path, tmp_path: Path) -> None:
    figure = tmp_path / "curves.svg"
    asked = ("--of", "rollout/tokens", "--of", "rollout/think_share", "--over", "data/tokens")
    done = curves(runs, "r1-zero", "r1-distill", *asked, "--figure", str(figure), "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [r["run"] for r in rows] == ["r1-zero"] * 4 + ["r1-distill"] * 4
    kept = [r for name in ("r1-zero", "r1-distill") for r in read_jsonl(runs / name / "metrics.jsonl")]
    for row, measured in zip(rows, kept, strict=True):
        assert {k: v for k, v in row.items() if k != "run"} == {k: measured[k] for k in row if k != "run"}
    tokens = [r["data/tokens"] for r in rows[:4]]
    assert tokens == sorted(tokens) and tokens[0] == pytest.approx(9 * rows[0]["rollout/tokens"])
    assert figure.stat().st_size > 5_000


def test_by_default_the_expected_metric_of_the_recipe_is_shown(runs: Path) -> None:
    done = curves(runs, "r1-zero")
    assert done.exit_code == 0 and done.stdout.splitlines()[0].split() == ["run", "step", "eval/accuracy"]
    assert [line.split()[1] for line in done.stdout.splitlines()[1:]] == ["2", "4"]


def test_runs_with_other_expected_metrics_show_those_of_the_first(runs: Path) -> None:
    done = curves(runs, "r1-distill", "r1-cold-start")
    assert done.exit_code == 0, done.output
    assert (
        done.stdout.splitlines()[0].split() == ["run", "step", "eval/accuracy"] and len(done.stdout.splitlines()) == 5
    )


def test_a_metric_that_was_not_measured_is_reported_with_those_that_were(runs: Path) -> None:
    done = curves(runs, "r1-zero", "--of", "rollout/tokns")
    assert done.exit_code != 0 and "has no round with step, rollout/tokns; it measured" in str(done.exception)
    assert "rollout/tokens" in str(done.exception)
