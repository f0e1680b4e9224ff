"""Several runs in report and board: verdicts first, values over seeds, settings that differ; the result of one run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import board, browser_page, chromium, overflow  # noqa: F401 - fixtures
from test_report import HOSTILE, made_run

from rllab.board.comparison import Comparisons, compared
from rllab.board.outcomes import outcome
from rllab.board.report import Report, report
from rllab.core.errors import Mistake
from rllab.core.run import RunFolder
from rllab.evals.run_groups import by_seed, read_groups
from rllab.evals.seeds import mean_interval


def made_seeds(folder: Path, name: str, values: list[float], **settings: Any) -> list[RunFolder]:
    """Runs NAME-s0 and so on, whose headline, eval/accuracy, has these values."""
    runs = []
    for seed, value in enumerate(values):
        run = made_run(folder / f"{name}-s{seed}", seed, rounds=20, **settings)
        status = json.loads((run / "status.json").read_text())
        status["headline"]["value"] = value
        (run / "status.json").write_text(json.dumps(status))
        runs.append(RunFolder(run))
    return runs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    made_seeds(tmp_path, "a", [0.50, 0.52, 0.54], task="pocket")
    made_seeds(tmp_path, "b", [0.80, 0.83, 0.86], task="pocket", beta=0.7)
    made_seeds(tmp_path, "c", [0.9], task="tickets")
    return tmp_path


def test_verdicts_warnings_and_settings_of_groups(runs: Path) -> None:
    groups, notes = read_groups(["a", "seed=0..2", "b-s*", "c-s0"], runs, least=1)
    shown = compared(groups, notes)
    assert shown is not None
    assert any(line.startswith("B reaches higher eval/accuracy than A: +0.31 [") for line in shown["verdicts"])
    assert "too few seeds to tell whether C and A differ in eval/accuracy (+0.38)" in shown["verdicts"]
    warnings = "\n".join(shown["warnings"])
    assert "C has one seed; its spread between seeds is unknown -> rllab train" in warnings
    assert "A and C have different tasks (task pocket; task tickets)" in warnings and "A and B have" not in warnings
    values = {row["metric"]: row for row in shown["tables"]["values"]}["eval/accuracy (headline)"]
    low, high = mean_interval(np.array([0.5, 0.52, 0.54])) or (0, 0)
    assert values["A"] == f"0.52 [{low:.4g}, {high:.4g}]"
    assert {"setting": "beta", "A": "0.1", "B": "0.7", "C": "0.1"} in shown["tables"]["settings"]


def test_runs_that_differ_in_their_seed_alone_are_one_group(runs: Path) -> None:
    seeds = [RunFolder(runs / f"a-s{n}") for n in range(3)]
    shown = compared(by_seed(seeds))
    assert shown is not None and not shown["verdicts"] and shown["tables"]["groups"][0]["runs"] == "a* (3 runs)"
    assert shown["notes"] == ["means over runs, intervals of 95 % over seeds by Student's t"]
    assert compared(by_seed(seeds[:1])) is None
    (runs / "a-s0/recipe.yaml").write_text("{")
    assert any("a-s0" in line for line in (compared(by_seed(seeds)) or {})["warnings"])
    with pytest.raises(Mistake, match="a report shows whole runs"):
        Report(*read_groups(["a-s1@10"], runs, least=1))


def test_a_comparison_is_made_anew_where_a_run_has_changed(runs: Path) -> None:
    groups, kept = by_seed([RunFolder(runs / name) for name in ("a-s0", "c-s0")]), Comparisons()
    first = kept.of(groups)
    assert kept.of(groups) is first
    with open(runs / "a-s0/metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 21, "eval/accuracy": 0.3}) + "\n")
    assert kept.of(groups) is not first


def test_the_page_begins_with_the_verdict(runs: Path, browser_page: Any) -> None:  # noqa: F811
    made_run(runs / "d", samples=1, note=HOSTILE)
    names = ["a", "seed=0..2", "b-s*", "d"]
    (runs / "report.html").write_text(Report(*read_groups(names, runs, least=1)).page())
    page = browser_page(390)
    page.goto((runs / "report.html").as_uri())
    heads = page.locator("h2").all_inner_texts()
    assert heads[:4] == ["Comparison", "Settings that differ", "Results", "Curves"] and overflow(page) <= 0
    assert "B reaches higher eval/accuracy than A" in page.inner_text("ul.verdicts")
    assert "0.52 [0.4703, 0.5697]" in page.inner_text("[aria-label='values']")
    assert "<img src=" in page.inner_text("[aria-label='settings that differ']")
    assert page.title().startswith("rllab: 7 runs") and page.locator("img").count() == 0


def test_the_board_compares_the_chosen_runs(runs: Path, board: Any, browser_page: Any) -> None:  # noqa: F811
    page = browser_page()
    page.goto(board(runs))
    for name in ("a-s0", "a-s1", "a-s2", "b-s0", "b-s1", "b-s2"):
        page.check(f"input[value='{name}']")
    page.click("#show")
    page.wait_for_selector("ul.verdicts")
    assert "B reaches higher eval/accuracy than A" in page.inner_text("ul.verdicts")
    assert "beta" in page.inner_text("[aria-label='settings that differ']")
    page.wait_for_selector("figure[data-metric='eval/accuracy'][data-drawn]")
    assert "a*: interquartile mean of 3 seeds" in page.inner_text("#legend")


def test_a_run_is_held_against_what_its_recipe_expects(tmp_path: Path) -> None:
    run = made_run(tmp_path / "a")
    judged = [{"metric": "eval/accuracy", "wanted": 0.5, "value": 0.75, "met": True}]
    judged.append({"metric": "policy/kl", "wanted": "<= 0.3", "value": 0.4, "met": False})
    status = json.loads((run / "status.json").read_text()) | {"expect": judged}
    (run / "status.json").write_text(json.dumps(status))
    (run / "sources").mkdir()
    (run / "sources/<b>mine.py").write_text("x = 1")
    assert outcome(RunFolder(run)) == [
        "eval/accuracy is 0.75 (95 % interval 0.7 to 0.8 within the run). Its recipe expects at least 0.5: reached.",
        "policy/kl is 0.4. Its recipe expects at most 0.3: missed.",
    ]
    text = report([RunFolder(run)])
    assert "expects at most 0.3: missed." in text and "<code>&lt;b&gt;mine.py</code>" in text
    assert "To train it again: <code>rllab train grpo seed=0</code>" in text
    (run / "status.json").write_text(json.dumps({"state": "stopped", "step": 60}))
    (line,) = outcome(RunFolder(run))
    assert line.startswith("Its recipe expects eval/accuracy to be at least 0.5; the run is stopped at round 60/60")
    (run / "status.json").write_text(json.dumps({"expect": [1]}))
    assert outcome(RunFolder(run)) == []
