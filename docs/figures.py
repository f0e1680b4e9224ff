"""Draws two pictures of README.md from the runs of `./lab demo`; docs/figures.sh makes all of them.

    ./lab python docs/figures.py [RUNS]

docs/capstones.svg: the five capstones, each against what it must reach. docs/board.webp: the page of a run on the
board, photographed in chromium.
"""

import base64
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rllab.board.columns import Columns
from rllab.board.figures import COLOURS, STYLE
from rllab.cli.demo import CAPSTONES
from rllab.core.run import RunFolder
from rllab.core.runs import find_run
from rllab.evals.figures import canvas, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOCS = Path(__file__).resolve().parent
INCHES = (12.5, 3.2)
PANELS = {  # by recipe: the title of a panel, and what its vertical axis is
    "cartpole": ("DQN\nCartPole", "return"),
    "connect-four-quick": ("AlphaZero\nconnect four", "outcome kept"),
    "sft-lora": ("LoRA\na new word", "problems solved"),
    "rlhf": ("RLHF\na support agent", "gold score"),
    "grpo": ("GRPO\nreasoning", "problems solved"),
}
ON_BOARD = "demo-grpo"
WINDOW = {"width": 1280, "height": 888}


def draw_capstones(runs: Path, file: Path) -> None:
    """Draws a panel for each run of the demonstration: its evaluations over rounds, and what its recipe expects."""
    from matplotlib import rc_context

    with rc_context(STYLE | {"font.size": 12, "axes.titlesize": 13}):
        figure, panels = canvas(INCHES, len(CAPSTONES))
        for place, (axes, capstone) in enumerate(zip(panels, CAPSTONES, strict=True)):
            draw_panel(axes, find_run(f"demo-{capstone.recipe}", runs), *PANELS[capstone.recipe], COLOURS[place])
        figure.get_layout_engine().set(w_pad=0.1)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        save(figure, file)


def draw_panel(axes: "Axes", run: RunFolder, title: str, label: str, colour: str) -> None:
    """Draws the metric of a run's headline over rounds, what is expected of it, and what was measured at the end."""
    headline, expected = run.status()["headline"], run.status()["expect"][0]
    columns = Columns(run.path)
    columns.refresh()
    rounds, values = columns.curve(headline["name"])
    ends = [columns.curve(f"{headline['name']}_{end}") for end in ("low", "high")]
    if all(len(at) == len(rounds) for at, _ in ends):
        axes.fill_between(rounds, ends[0][1], ends[1][1], color=colour, alpha=0.2, linewidth=0)
    axes.plot(rounds, values, color=colour, linewidth=2, marker=".", label="evaluations")
    axes.axhline(expected["wanted"], color="#444", linestyle="--", linewidth=1.2, label="expected by the recipe")
    low, high = headline["interval"] or [headline["value"]] * 2
    bar = [[headline["value"] - low], [high - headline["value"]]]
    axes.errorbar([run.status()["step"]], [headline["value"]], bar, color="black", marker="D", markersize=5, capsize=3,
                  linestyle="", label="after training, on new draws: 95 % interval")  # fmt: skip
    axes.set_xlim(0, 1.06 * run.status()["step"])
    axes.set_title(title)
    axes.set_xlabel("training round")
    axes.set_ylabel(label)


def photograph_board(runs: Path, run: str, file: Path) -> None:
    """Starts the board, opens the page of a run, and writes what the window shows as WebP."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-c", "from rllab.cli import main; main()", "board", "--runs", str(runs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, sync_playwright() as p:
        try:
            assert server.stdout is not None
            address = next(word for line in server.stdout for word in line.split() if word.startswith("http://"))
            browser = p.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport=WINDOW, device_scale_factor=1.5, color_scheme="light")
            page.goto(address)
            page.goto(f"{address.partition('?')[0]}view?run={run}")
            page.locator("canvas").first.wait_for()
            page.wait_for_timeout(1000)  # for the last curve
            file.write_bytes(webp(page))
            browser.close()
        finally:
            server.terminate()


def webp(page: Any) -> bytes:
    """What the window of a page shows. Playwright itself writes PNG, which is three times as large."""
    settings = {"format": "webp", "quality": 80}
    return base64.b64decode(page.context.new_cdp_session(page).send("Page.captureScreenshot", settings)["data"])


if __name__ == "__main__":
    folder = Path(sys.argv[1] if sys.argv[1:] else "runs")
    draw_capstones(folder, DOCS / "capstones.svg")
    photograph_board(folder, ON_BOARD, DOCS / "board.webp")
