"""Curves of several runs: the metrics, the metric that they are shown over, and the message where one is missing."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import read_jsonl, smoke_runs
from typer.testing import CliRunner

from rllab.cli import app
from rllab.evals.curves import draw


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


def test_a_long_run_is_shown_on_one_screen(tmp_path: Path) -> None:
    smoke_runs(tmp_path, "cartpole")
    rows = "".join(json.dumps({"step": i, "eval/return": float(i)}) + "\n" for i in range(1, 10_001))
    (tmp_path / "cartpole/metrics.jsonl").write_text(rows)
    done = curves(tmp_path, "cartpole", "cartpole", "--of", "eval/return")
    lines = done.stdout.splitlines()
    assert len(lines) <= 45 and lines[1].split()[1:] == ["1", "1"] and lines[-1].split()[1] == "10000"
    assert "--all shows every row" in done.stderr
    assert len(curves(tmp_path, "cartpole", "--of", "eval/return", "--all").stdout.splitlines()) == 10_001


def test_seeds_are_drawn_as_their_interquartile_mean_with_an_interval(tmp_path: Path) -> None:
    from rllab.core.run import RunFolder
    from rllab.evals.run_groups import by_seed, names_of

    smoke_runs(tmp_path, "cartpole")
    for seed in (1, 2):
        shutil.copytree(tmp_path / "cartpole", tmp_path / f"cartpole-s{seed}")
        recipe = tmp_path / f"cartpole-s{seed}/recipe.yaml"
        recipe.write_text(recipe.read_text().replace("seed: 0", f"seed: {seed}"))
    names = ("cartpole-s1", "cartpole", "cartpole-s2")
    assert names_of(by_seed([RunFolder(tmp_path / n) for n in names])) == {"cartpole*": list(names)}
    figure = tmp_path / "curves.svg"
    done = curves(tmp_path, *names, "--of", "eval/return", "--figure", str(figure))
    assert done.exit_code == 0 and f"{figure} is written" in done.stderr
    text = figure.read_text()
    assert "interquartile mean of 3 seeds, 95 % interval" in text and "cartpole*: eval/return over step" in text
    assert "FillBetween" in text


def test_seeds_have_a_mean_over_an_axis_on_which_they_share_nothing(tmp_path: Path) -> None:
    """Over seconds every run has places of its own, and the curves are interpolated."""
    from rllab.evals.curves import _together

    one, two = np.array([[1.0, 3, 5], [0, 2, 4]]), np.array([[2.0, 4, 6], [10, 20, 30]])
    x, values = _together([one, two], shared=False)
    assert x.tolist() == [2, 3, 4, 5] and values.tolist() == [[1, 10], [2, 15], [3, 20], [4, 25]]
    assert not len(_together([one, two], shared=True)[0])
    assert not len(_together([one, two[:, ::-1]], shared=False)[0]), "it is no axis"
    rows = [{"run": n, "time/total": x, "a": y} for n, c in (("p", one), ("q", two)) for x, y in c.T.tolist()]
    draw(rows, {"seeds": ["p", "q"]}, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "interquartile mean of 2 seeds" in text and "FillBetween" in text
    draw([r | {"time/total": -r["time/total"]} for r in rows], {"seeds": ["p", "q"]}, tmp_path / "a.svg")
    assert "2 seeds, which have no place in common" in (tmp_path / "a.svg").read_text()
