"""The figures of a report as files: what their labels say, where their curves lie, and that their bytes repeat."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_report import made_run

from rllab.board.bands import band_between
from rllab.board.columns import Store
from rllab.board.curves import charts
from rllab.board.figures import Drawn, _of_metric
from rllab.board.report import Report
from rllab.core.errors import Mistake
from rllab.core.run import RunFolder
from rllab.evals.run_groups import Group, read_groups

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of `a`, which differ in eval/accuracy by 0.1, and one of `b$x$` with an interval of its own."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(3):
        run = made_run(folder / f"a-s{seed}", seed)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        rows = [r | {"eval/accuracy": r["step"] / 100 + seed / 10} if r["step"] % 10 == 0 else r for r in rows]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = made_run(folder / "b$x$", beta=0.2)
    with open(run / "metrics.jsonl", "a") as file:
        row = {"eval/accuracy": 0.5, "eval/accuracy_low": 0.4, "eval/accuracy_high": 0.7, "data/tokens": 31_000}
        file.write(json.dumps({"step": 61} | row) + "\n")
    return folder


def test_every_curve_is_a_pdf_an_svg_and_a_png_that_repeat(runs: Path, tmp_path: Path) -> None:
    report = Report(*read_groups(["a", "seed=0..2", "b$x$"], runs, least=1))
    first = report.write_figures(tmp_path / "x")
    stems = {path.stem for path in first}
    assert {"eval-accuracy", "policy-kl", "reward-total-over-policy-kl"} <= stems and len(first) == 3 * len(stems)
    starts = {".pdf": b"%PDF-", ".svg": b"<?xml", ".png": b"\x89PNG"}
    assert all(path.read_bytes().startswith(starts[path.suffix]) for path in first)
    again = Report(*read_groups(["a", "seed=0..2", "b$x$"], runs, least=1)).write_figures(tmp_path / "y")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in first]


def test_labels_say_unit_number_of_seeds_and_interval(runs: Path, tmp_path: Path) -> None:
    Report(*read_groups(["a-s*", "b$x$"], runs, least=1)).write_figures(tmp_path, "data/tokens")
    text = (tmp_path / "eval-accuracy.svg").read_text()
    assert "<!-- eval/accuracy (share) -->" in text and "<!-- data/tokens (tokens) -->" in text
    assert "a-s*: interquartile mean of 3 seeds, 95 % bootstrap interval" in text
    assert "b$x$: 1 seed, no interval" in text and "30,000" in text
    text = (tmp_path / "reward-total-over-policy-kl.svg").read_text()
    assert "a-s*: 180 rounds of 3 seeds, a point a round" in text and "reward/total (reward)" in text


def test_curves_lie_where_they_were_measured(runs: Path) -> None:
    store = Store()
    columns = {name: store.of(runs / name) for name in ("a-s0", "a-s1", "a-s2", "b$x$")}
    drawn = Drawn(columns, {"a": ["a-s0", "a-s1", "a-s2"]}, {"eval/accuracy": "share"})
    middle = _of_metric(drawn, "eval/accuracy", "data/tokens").axes[0].lines[-1]
    np.testing.assert_allclose(middle.get_xdata(), 500 * np.arange(10, 61, 10))
    np.testing.assert_allclose(middle.get_ydata(), np.arange(10, 61, 10) / 100 + 0.1)
    (axes,) = _of_metric(drawn, "eval/accuracy", "step").axes
    low, high = (getattr(axes.collections[0].get_paths()[0].vertices[:, 1], end)() for end in ("min", "max"))
    assert (low, high) == pytest.approx((0.1, 0.8)) and axes.get_xlabel() == "training round"


def test_seeds_over_seconds_are_interpolated_at_places_of_their_own(tmp_path: Path) -> None:
    """One seed is twice as fast as the other: over rounds they are alike, over seconds one is ahead."""
    store, names = Store(), ["fast", "slow"]
    for name, seconds in zip(names, (1.0, 2.0), strict=True):
        rows = [{"step": n, "eval/return": n, "time/total": seconds * n, "env/steps": 10 * n} for n in range(1, 11)]
        made_run(tmp_path / name, rounds=1)
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {name: store.of(tmp_path / name) for name in names}
    figure = _of_metric(Drawn(columns, {"both": names}, {}), "eval/return", "time/total")
    middle = figure.axes[0].lines[-1]
    x, y = np.asarray(middle.get_xdata()), np.asarray(middle.get_ydata())
    assert (x[0], x[-1], len(x)) == (2, 10, 100)  # where both have values
    np.testing.assert_allclose(y, (x + x / 2) / 2)
    low, high = (getattr(figure.axes[0].collections[0].get_paths()[0].vertices[:, 1], end)() for end in ("min", "max"))
    assert (low, high) == pytest.approx((1, 10))  # of two seeds the interval reaches from one to the other
    assert "seeds interpolated" in figure.legends[0].texts[0].get_text()
    same = _of_metric(Drawn(columns, {"both": names}, {}), "eval/return", "env/steps")
    assert "interpolated" not in same.legends[0].texts[0].get_text()
    group = Group("both", tuple(RunFolder(tmp_path / name) for name in names))
    (chart,) = charts([group], store, ["eval/return"], 500)["metrics"].values()
    (label,) = chart["bands"]
    assert [*chart["between"]] == ["time/total"] and len(chart["bands"][label][0]) == 10
    np.testing.assert_allclose(chart["between"]["time/total"][label][:2], [x, y], rtol=1e-5)
    backwards = [(np.array([2.0, 1.0]), np.zeros(2)), (np.array([1.0, 2.0]), np.zeros(2))]
    assert band_between(backwards) is None and band_between([(np.array([1.0]), np.zeros(1))] * 2) is None


def test_the_interval_within_one_run_is_drawn(tmp_path: Path) -> None:
    run = made_run(tmp_path / "one", rounds=5)
    rows = [{"step": n, "eval/return": n, "eval/return_low": n - 0.5, "eval/return_high": n + 2} for n in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    drawn = Drawn({"one": Store().of(run)}, {"one": ["one"]}, {})
    figure = _of_metric(drawn, "eval/return", "step")
    assert figure.legends[0].texts[0].get_text() == "one: 1 seed, 95 % interval within its evaluations"
    vertices = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert (vertices.min(), vertices.max()) == (0.5, 4)


def test_what_cannot_be_drawn_is_refused_before_anything_is_written(runs: Path, tmp_path: Path) -> None:
    report = Report(*read_groups(["a-s*"], runs, least=1))
    with pytest.raises(Mistake, match="--over data/pairs: no run counts that; choose step, data/tokens, time/total"):
        report.check_figures(tmp_path / "x", "data/pairs")
    (tmp_path / "file").touch()
    with pytest.raises(Mistake, match="this is a file"):
        report.check_figures(tmp_path / "file", "step")
    hidden = "import sys; sys.modules['matplotlib'] = None; from rllab.cli import main; main()"
    command = [sys.executable, "-c", hidden, "report", "a-s*", "--runs", str(runs), "--figures", "x"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "--figures needs matplotlib: ./lab python -m pip install matplotlib" in done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"file"}
