"""Reports: what a file shows of runs, and that it loads nothing and runs nothing that is not its own."""

import io
import json
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import board, browser_page, chromium, ink, overflow  # noqa: F401 - fixtures

from rllab.board.bands import band
from rllab.board.columns import Columns, smooth, thin
from rllab.board.export import write_csv
from rllab.board.report import report
from rllab.board.samples import Samples
from rllab.core.errors import Mistake
from rllab.core.run import RunFolder
from rllab.evals.curves import of_runs
from rllab.evals.diagnosis import diagnose
from rllab.stats import interquartile_mean

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">\x1b[31m"


def made_run(folder: Path, seed: int = 0, rounds: int = 60, samples: int = 0, text: str = "5", **settings: Any) -> Path:
    """A finished run's record, as the trainer writes it."""
    folder.mkdir(parents=True)
    draw = random.Random(seed)
    plain = {"algo": "GRPO", "seed": seed, "total_steps": rounds, "expect": {"eval/accuracy": 0.5}, "beta": 0.1}
    plain |= {"reward": "accuracy"}
    (folder / "recipe.yaml").write_text(json.dumps(plain | settings))
    headline = {"name": "eval/accuracy", "value": 0.75, "interval": [0.7, 0.8]}
    status = {"state": "done", "step": rounds, "headline": headline, "expect": [{"met": True}], "reason": None}
    (folder / "status.json").write_text(json.dumps(status))
    record = {"command": ["/x/rllab", "train", "grpo", f"seed={seed}"]}
    (folder / "env.json").write_text(json.dumps(record | {"signs": {"rising": [], "contrast": "group"}}))
    with open(folder / "metrics.jsonl", "w") as file:
        for step in range(1, rounds + 1):
            row = {"step": step, "reward/total": step / rounds + draw.random() / 5, "policy/kl": step / 900}
            row |= {"data/tokens": 500 * step, "time/total": 2.0 * step, "rollout/with_signal": draw.random()}
            if step % 10 == 0:
                row["eval/accuracy"] = step / rounds * 0.8
            file.write(json.dumps(row) + "\n")
    with open(folder / "samples.jsonl", "w") as file:
        for i in range(samples):
            sample = {"step": 10 * (1 + i // 8), "row": i // 4, "sample": i % 4, "prompt": f"what is {i}?"}
            sample |= {"completion": f"<think> so {text} </think> #### {i}", "rewards": {"accuracy": i % 3 / 2}}
            file.write(
                json.dumps(sample | {"score": i % 3 / 2, "tokens": 7, "finish": "stop"}, ensure_ascii=False) + "\n"
            )
    return folder


def test_thinning_keeps_the_extremes_of_every_pixel() -> None:
    draw = np.random.default_rng(0)
    for count in (10, 801, 10_000):
        x, y = np.arange(1, count + 1), draw.standard_normal(count)
        y[count // 3] = 50.0
        thin_x, thin_y = thin((x, y), 400)
        assert len(thin_x) <= 1602 and (np.diff(thin_x) > 0).all() and 50.0 in thin_y
        assert (thin_x[0], thin_x[-1]) == (1, count) and (y[thin_x - 1] == thin_y).all()
        part = np.minimum((x - 1) * 400 // max(1, count - 1), 399)
        if count > 800:
            for one in range(400):
                own = np.isin(thin_x, x[part == one])
                assert (thin_y[own].min(), thin_y[own].max()) == (y[part == one].min(), y[part == one].max())


def test_smoothing_is_the_mean_of_the_newest_values() -> None:
    values = np.array([1.0, 2, 6, 3, 10])
    assert smooth(values, 3).tolist() == pytest.approx([1, 1.5, 3, 11 / 3, 19 / 3])
    assert smooth(values, 1).tolist() == values.tolist() and smooth(values, 99)[-1] == values.mean()
    assert smooth(np.array([1e17, 1, 1, 1]), 2)[2:].tolist() == [1, 1], "a peak costs later values no digits"


def test_the_band_of_seeds_is_their_interquartile_mean() -> None:
    curves = [(np.array([10, 20, 30]), np.array([1.0, 2, 3]) * k) for k in (1, 2, 3, 40)]
    curves[0] = (np.array([10, 20]), np.array([1.0, 2]))  # a run that is not so far
    of = band(curves)
    assert of is not None and of.x.tolist() == [10, 20]
    assert of.middle.tolist() == [interquartile_mean(np.array([1.0, 2, 3, 40]) * k) for k in (1, 2)] == [2.5, 5.0]
    assert (of.low < of.middle).all() and (of.middle < of.high).all()
    assert band(curves[:1]) is None


def test_rounds_that_a_resumed_run_repeats_count_once(tmp_path: Path) -> None:
    def rows(*steps: int) -> str:
        return "".join(
            json.dumps({"step": s, "loss/total": s + 0.5, "eval/x": None, "bad": float("nan")}) + "\n" for s in steps
        )

    path = tmp_path / "metrics.jsonl"
    path.write_text(rows(1, 2, 3, 4) + '{"step": 5, "loss/total": 9')
    columns = Columns(tmp_path)
    columns.refresh()
    assert columns.curve("loss/total")[0].tolist() == [1, 2, 3, 4] and columns.names == ["loss/total"]
    columns.refresh()
    assert columns.rows == 4, "nothing was written"
    path.write_text(rows(1, 2) + "garbage\n" + rows(3))
    columns.refresh()
    assert columns.curve("loss/total")[1].tolist() == [1.5, 2.5, 3.5] and columns.unreadable == 1
    with open(path, "a") as file:
        file.write(rows(2, 3, 4))
    columns.refresh()
    assert columns.curve("loss/total")[0].tolist() == [1, 2, 3, 4]


def test_samples_are_found(tmp_path: Path) -> None:
    run = made_run(tmp_path / "a", samples=40, text='Ünï "quoted"')
    samples = Samples(run)
    matches = samples.find(count=3)
    assert (
        matches.total == 40
        and [s["row"] for s in matches.samples] == [9, 9, 9]
        and matches.steps == [10, 20, 30, 40, 50]
    )
    assert [s["score"] for s in samples.find(20, "worst", count=8).samples] == sorted([i % 3 / 2 for i in range(8, 16)])
    assert samples.find(20, "best", count=1).samples[0]["score"] == 1.0
    assert samples.find(text="WHAT IS 13?").samples[0]["prompt"] == "what is 13?"
    assert samples.find(text='ünï "QUOTED"').total == 40 and samples.find(text="nowhere").total == 0
    with open(run / "samples.jsonl", "a") as file:
        file.write(json.dumps({"step": 60, "completion": "new"}) + "\n" + "no json\n" + '{"step": 61, "compl')
    assert samples.find(count=1).samples == [{"step": 60, "completion": "new"}] and samples.unreadable == 1


def test_a_report_of_five_runs_is_small_and_loads_nothing(tmp_path: Path, browser_page: Any) -> None:  # noqa: F811
    runs = [RunFolder(made_run(tmp_path / f"r-s{seed}", seed, 2000, samples=200)) for seed in range(5)]
    path = tmp_path / "report.html"
    path.write_text(report(runs))
    assert path.stat().st_size < 1_000_000
    page = browser_page()
    page.goto(path.as_uri())
    page.wait_for_selector("figure[data-metric='eval/accuracy'][data-drawn]")
    assert ink(page, "figure[data-metric='eval/accuracy']") > 300 and overflow(page) <= 0
    assert "interquartile mean of 5 seeds" in page.inner_text("#legend")
    page.hover("figure[data-metric='eval/accuracy'] .u-over")
    assert "[" in page.inner_text("figure[data-metric='eval/accuracy'] .readout")
    page.select_option("#over", "data/tokens")
    assert "over data/tokens" in page.get_attribute("figure[data-metric='eval/accuracy'] .plot", "aria-label")
    assert page.locator("figure[data-exchange] canvas").count() == 1


def test_hostile_texts_do_nothing(tmp_path: Path, browser_page: Any) -> None:  # noqa: F811
    run = made_run(tmp_path / "a", samples=4, text=HOSTILE, note=HOSTILE)
    path = tmp_path / "report.html"
    path.write_text(report([RunFolder(run)]))
    page = browser_page()
    page.goto(path.as_uri())
    page.locator(".thinking summary").first.click()
    assert "<img src=x onerror" in page.locator(".thinking").first.inner_text() and page.title() == "rllab: a"
    assert page.locator("img").count() == 0


def test_a_report_without_scripts_shows_numbers(tmp_path: Path, browser_page: Any) -> None:  # noqa: F811
    path = tmp_path / "report.html"
    path.write_text(report([RunFolder(made_run(tmp_path / "a"))]))
    page = browser_page(java_script_enabled=False)
    page.goto(path.as_uri())
    assert "drawn by JavaScript" in page.inner_text("main") and page.is_hidden(".controls")
    assert "eval/accuracy" in page.inner_text("details.group[open]")


def test_the_verb(tmp_path: Path) -> None:
    made_run(tmp_path / "runs/a")
    command = [sys.executable, "-m", "rllab", "report"]
    done = subprocess.run([*command, "a", "-o", "x.html"], cwd=tmp_path, capture_output=True, text=True)
    assert (
        done.returncode == 0
        and "x.html: 1 run, " in done.stdout
        and "eval/accuracy" in (tmp_path / "x.html").read_text()
    )
    done = subprocess.run([*command, "b"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "no run 'b'" in done.stderr


def test_runs_of_one_name_are_refused(tmp_path: Path) -> None:
    """One would take the other's place in every table and figure."""
    for folder in ("mine", "theirs"):
        made_run(tmp_path / folder / "a")
    runs = [RunFolder(tmp_path / folder / "a") for folder in ("mine", "theirs")]
    for do in (report, partial(write_csv, file=io.StringIO()), partial(of_runs, metrics=["loss/total"])):
        with pytest.raises(Mistake, match=r"mine/a and .*theirs/a have the same name"):
            do(runs)
    report([runs[0], runs[0]])


def test_samples_that_are_not_those_of_a_run_cost_the_diagnosis_alone(tmp_path: Path) -> None:
    run = RunFolder(made_run(tmp_path / "a", samples=4))
    (run.path / "samples.jsonl").write_text('{"step": 60, "row": 0, "sample": 0, "completion": "5"}\n')
    assert "its samples are not those of a run" in report([run])
    with pytest.raises(Mistake, match="not those of a run"):
        diagnose(run)
