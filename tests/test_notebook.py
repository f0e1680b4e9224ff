"""Notebooks: a run shows its page inline, and docs/notebook.ipynb runs from top to bottom in a real kernel."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import becomes, browser_page, chromium  # noqa: F401 - fixtures
from test_report import HOSTILE, made_run

import rllab
from rllab.core.errors import Mistake

NOTEBOOK = Path(__file__).parents[1] / "docs/notebook.ipynb"
SMALL = {
    '"cartpole", run=': 'rllab.load_recipe("cartpole", smoke=True), run=',
    '["total_steps=40"]': "smoke=True",
}


class Frames(HTMLParser):
    """The attributes of all elements of a text, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def test_a_page_is_one_frame_that_carries_the_report(tmp_path: Path) -> None:
    run = made_run(tmp_path / 'a"b', samples=8, text=HOSTILE)
    shown = rllab.show(run, height=321)
    ((tag, attributes),) = Frames(shown._repr_html_()).elements
    assert (tag, attributes["height"], attributes["sandbox"]) == ("iframe", "321", "allow-scripts")
    assert attributes["srcdoc"] == shown.html and attributes["title"] == 'Report of a"b'
    shown.save(tmp_path / "x.html")
    assert (tmp_path / "x.html").read_text("utf-8") == shown.html


def test_runs_are_named_as_for_the_report(tmp_path: Path) -> None:
    for seed in (0, 1):
        made_run(tmp_path / f"a-s{seed}", seed)
    made_run(tmp_path / "b", beta=0.5)
    shown = rllab.show("a-s*", "b", runs=tmp_path)
    assert shown.title == "a-s*, b" and all(f'data-run="{name}"' in shown.html for name in ("a-s0", "a-s1", "b"))
    with pytest.raises(Mistake, match="nowhere"):
        rllab.show("nowhere", runs=tmp_path)
    with pytest.raises(Mistake, match="height=0"):
        rllab.show("b", runs=tmp_path, height=0)


def test_showing_needs_no_torch(tmp_path: Path) -> None:
    made_run(tmp_path / "a")
    code = "import sys, rllab; print('rllab.board' in sys.modules); rllab.show('a', runs='.')"
    code += "; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_a_browser_draws_the_frame_and_hostile_text_is_inert(browser_page: Any, tmp_path: Path) -> None:  # noqa: F811
    shown = rllab.show(made_run(tmp_path / "a", samples=8, text=HOSTILE))
    (tmp_path / "cell.html").write_text(f"<!doctype html><title>notebook</title>{shown._repr_html_()}", "utf-8")
    page = browser_page()
    page.goto((tmp_path / "cell.html").as_uri())
    becomes(page, "document.querySelector('iframe') !== null")
    frame = page.frame_locator("iframe")
    frame.locator("canvas").first.wait_for()
    box = page.locator("iframe").bounding_box()
    assert (box["height"], box["width"] > 1000) == (602, True)
    assert page.title() == "notebook" and frame.locator("title").first.evaluate("() => document.title") != "taken"
    pixels = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(v => v)"
    assert frame.locator("canvas").first.evaluate(pixels)


def test_the_notebook_runs_in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells), "the notebook is kept without outputs"
    for full, small in SMALL.items():
        assert sum(full in cell.source for cell in cells) == 1, full
        for cell in cells:
            cell.source = cell.source.replace(full, small)
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    kinds = [set().union(*(output.get("data", {}) for output in cell.outputs)) for cell in cells]
    assert sum("image/png" in kind for kind in kinds) == 2, "the curve, and the angle of the pole"
    (shown,) = (o.data["text/html"] for c in cells for o in c.outputs if "text/html" in o.get("data", {}))
    assert shown.startswith("<iframe") and "pole" in shown
    assert "'visits': {'2': " in cells[-1].outputs[-1].data["text/plain"]
    assert (tmp_path / "runs/pole/metrics.jsonl").is_file() and (tmp_path / "runs/noughts/status.json").is_file()
