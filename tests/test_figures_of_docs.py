"""docs/figures.py: the pictures of README.md are drawn from runs."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from browser import CHROMIUM
from test_report import made_run

from rllab.cli.demo import CAPSTONES
from rllab.core.names import import_file

FIGURES = import_file(Path(__file__).parents[1] / "docs/figures.py")
WANTED = 0.5


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The five runs of the demonstration, as records without checkpoints."""
    for seed, capstone in enumerate(CAPSTONES):
        run = made_run(tmp_path / f"demo-{capstone.recipe}", seed, samples=8)
        status = json.loads((run / "status.json").read_text())
        status["expect"] = [{"metric": "eval/accuracy", "wanted": WANTED, "value": 0.75, "met": True}]
        (run / "status.json").write_text(json.dumps(status))
    return tmp_path


def test_each_capstone_has_a_panel_with_what_it_must_reach(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.svg"
    FIGURES.draw_capstones(runs, file)
    text = file.read_text("utf-8")
    panels = [e for e in ET.fromstring(text).iter() if e.get("id", "").startswith("axes_")]
    assert len(panels) == len(FIGURES.PANELS) == 5
    assert all(f"<!-- {line} -->" in text for title, _ in FIGURES.PANELS.values() for line in title.split("\n"))
    assert text.count("stroke-dasharray") >= 5
    again = tmp_path / "y.svg"
    FIGURES.draw_capstones(runs, again)
    assert again.read_bytes() == file.read_bytes()


def test_the_board_is_photographed(runs: Path, tmp_path: Path) -> None:
    pytest.importorskip("playwright", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    FIGURES.photograph_board(runs, "demo-grpo", tmp_path / "x.webp")
    data = (tmp_path / "x.webp").read_bytes()
    assert data[8:12] == b"WEBP" and 10_000 < len(data) < 200_000
