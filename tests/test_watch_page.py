"""Episodes in a real browser: what is drawn is where the state says, it moves, and keys and buttons work."""

import base64
import io
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from browser import TOKEN, axe, becomes, board, browser_page, chromium, overflow  # noqa: F401 - fixtures
from conftest import TESTS, run, smoke_runs
from odd_env import HANGS, RAISES
from test_workers import ODD

from rllab.board import watch
from rllab.board.workers import Workers
from rllab.core.recipe import read_recipe

Image: Any = pytest.importorskip("PIL.Image", reason="the extra video is not installed")
HOSTILE = "<img src=x onerror=alert(1)>&"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = smoke_runs(tmp_path_factory.mktemp("runs"), "cartpole", "lunarlander")
    for name in ("odd", HOSTILE):
        run(read_recipe(ODD, "odd.yaml", TESTS, name), folder / name)
    return folder


@pytest.fixture(scope="module")
def workers(runs: Path) -> Iterator[Workers]:
    with Workers(runs) as asked:
        yield asked


@pytest.fixture
def opened(runs: Path, workers: Workers, board: Any, browser_page: Any) -> Callable[..., Any]:  # noqa: F811
    """opened("cartpole", seed=3): the page of a run's episodes, with an episode that is there as a whole."""

    def open_page(name: str, width: int = 1280, scheme: str = "light", prefix: str = "", **query: Any) -> Any:
        page = browser_page(width, scheme=scheme)
        address = board(runs, watch.routes(workers), prefix=prefix)
        page.goto(address.replace("/?", f"/watch?{urllib.parse.urlencode({'run': name, **query})}&"))
        becomes(page, "end !== null || problem.textContent !== ''")
        return page

    return open_page


def picture(page: Any) -> np.ndarray:
    """The pixels of the canvas, uint8 [H, W, 3]."""
    png = page.evaluate("canvas.toDataURL('image/png').split(',')[1]")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))


def states(workers: Workers, name: str, seed: int) -> list[list[float]]:
    return [line["more"]["state"] for line in workers.ask(name, {"do": "episode", "seed": seed}) if "more" in line]


def blue(shown: np.ndarray) -> np.ndarray:
    """Where a picture has the colour of the cart or the lander [H, W]."""
    r, g, b = np.moveaxis(shown.astype(int), 2, 0)
    return (b > r + 60) & (b > g + 20)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_cart_is_drawn_where_its_state_says(opened: Any, workers: Workers, scheme: str) -> None:
    page, shown = opened("cartpole", scheme=scheme, seed=3), []
    expected = states(workers, "cartpole", 3)
    for step in (0, 3, len(expected) - 1):
        page.evaluate(f"go({step})")
        shown.append(picture(page))
        assert shown[-1].shape == (400, 600, 3)
        columns = np.flatnonzero(blue(shown[-1])[285:315].any(0))  # the cart, 50 wide, from 85 to 115 above the ground
        x, _, angle, _ = expected[step]
        assert columns.mean() + 0.5 == pytest.approx(300 + x * 125, abs=1) and 48 <= len(columns) <= 52
        r, _, b = np.moveaxis(shown[-1].astype(int), 2, 0)
        row = 200  # of the pole, 92.5 above its axle
        pole = np.flatnonzero((r > b + 40)[row])
        assert pole.mean() + 0.5 == pytest.approx(300 + x * 125 + 92.5 * np.tan(angle), abs=1.5)
    assert (shown[0] != shown[1]).any() and (shown[1] != shown[2]).any()
    assert shown[0].mean() > 150 if scheme == "light" else shown[0].mean() < 110
    assert page.locator("#readout").inner_text().endswith("terminated")


def test_it_moves_at_its_speed_and_follows_keys(opened: Any) -> None:
    page = opened("cartpole", seed=3)
    last = page.evaluate("shots.length - 1")
    assert last > 5 and "cartpole" in page.title()
    before, canvas = picture(page), page.locator("#scene")
    assert page.evaluate("[at, since]") == [0, None]  # it rests, for the browser asks for reduced motion
    page.select_option("#speed", "0.25")
    begun = time.monotonic()
    canvas.focus()
    page.keyboard.press(" ")
    becomes(page, f"at === {last} && since === null")
    assert time.monotonic() - begun > 0.9 * last / 12.5
    assert (picture(page) != before).any()
    for key, step in {"Home": 0, "ArrowRight": 1, "End": last, "ArrowLeft": last - 1}.items():
        page.keyboard.press(key)
        assert page.evaluate("at") == step and f"step {step} of {last}" in page.locator("#readout").inner_text()
    page.locator("#step").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("at") == 1 and "reward so far 1 ·" in page.locator("#readout").inner_text()
    page.get_by_role("button", name="one step on").click()
    assert "push " in page.locator("#readout").inner_text() and page.evaluate("at") == 2
    page.get_by_role("button", name="next episode").click()
    becomes(page, "end !== null && about.seed === 4")
    assert page.locator("#seed").input_value() == "4" and "reset(seed=4)" in page.locator("#about").inner_text()
    assert canvas.get_attribute("aria-label").startswith("rllab/CartPole-v1, checkpoint 5, step 0")


def test_the_lander_and_its_ground_are_drawn(opened: Any, workers: Workers) -> None:
    page, expected = opened("lunarlander", width=390, prefix="/node/h/80", seed=1), states(workers, "lunarlander", 1)
    for step in (0, len(expected) // 2):
        page.evaluate(f"go({step})")
        shown = picture(page)
        rows, columns = np.nonzero(blue(shown))
        x, y, _ = expected[step][:3]
        assert columns.mean() == pytest.approx(30 * x, abs=6) and 400 - rows.mean() == pytest.approx(30 * y, abs=12)
    terrain = page.evaluate("about.world.terrain")
    for x, y in terrain[1:-1]:  # a little above is sky, below is ground
        column, row = round(30 * x), 400 - round(30 * y)
        assert (shown[row + 8, column] != shown[5, 5]).any()
    assert overflow(page) <= 0
    assert axe(page) == []


def coloured(shown: np.ndarray) -> np.ndarray:
    """Where a picture is neither grey, white nor black [H, W]."""
    return np.ptp(shown.astype(int), axis=2) > 60


def test_scenes_agree_with_gymnasiums_pictures(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    page = opened("cartpole", seed=3)
    worlds = {"acrobot": {"length_1": 1, "length_2": 1}, "pendulum": {"torque": 2}}
    worlds["mountaincar"] = {"left": -1.2, "right": 0.6, "goal": 0.5}  # type: ignore[dict-item]
    cases = [("acrobot", "Acrobot-v1", [0.5, 1.0, 0, 0]), ("acrobot", "Acrobot-v1", [-2.0, 0.7, 0, 0])]
    cases += [("pendulum", "Pendulum-v1", [0.8, 0]), ("pendulum", "Pendulum-v1", [-2.0, 0])]
    for kind, name, state in cases:
        twin: Any = gym.make(name, render_mode="rgb_array")
        twin.reset(seed=0)
        twin.unwrapped.state = np.array(state)
        about = json.dumps({"kind": kind, "world": worlds[kind]})
        page.evaluate(f"drawScene(canvas, {about}, {json.dumps({'state': state})})")
        drawn, rendered = coloured(picture(page)), coloured(twin.render())
        assert (drawn & rendered).sum() > 0.75 * (drawn | rendered).sum() > 0, (kind, state)  # our joints are grey
    for x in (-1.0, -0.5, 0.45):
        about = json.dumps({"kind": "mountaincar", "world": worlds["mountaincar"]})
        page.evaluate(f"drawScene(canvas, {about}, {json.dumps({'state': [x, 0]})})")
        rows, columns = np.nonzero(blue(picture(page)))
        height = (np.sin(3 * x) * 0.45 + 0.55) * 600 / 1.8
        assert columns.mean() == pytest.approx((x + 1.2) * 600 / 1.8, abs=12)  # the car stands above its wheels
        assert 400 - rows.mean() == pytest.approx(height + 20, abs=6)


def test_pictures_are_shown_and_faults_named(opened: Any) -> None:
    page = opened("odd", seed=40)
    page.evaluate("go(7)")
    assert picture(page)[0, 0].tolist() == [7, 40, 0] and "action" in page.locator("#readout").inner_text()
    page.fill("#seed", str(RAISES))
    page.get_by_role("button", name="show").click()
    becomes(page, "problem.textContent !== ''")
    assert "the motor is broken" in page.locator("#problem").inner_text()
    page.fill("#seed", "41")
    page.keyboard.press("Enter")
    becomes(page, "end !== null")
    assert page.locator("#problem").inner_text() == "" and page.evaluate("shots.length") == 11


def test_a_hostile_name_does_nothing(opened: Any) -> None:
    page = opened(HOSTILE, seed=40)
    assert page.evaluate("shots.length") == 11 and page.locator("h1").inner_text() == f"Watch {HOSTILE}"
    assert not page.locator("main img").count()
    page.goto(page.url.replace("/watch?", "/view?run=odd&").partition("&seed")[0])
    page.get_by_role("link", name=f"watch {HOSTILE}").click()
    becomes(page, "typeof end !== 'undefined' && end !== null")


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("watch?run=none", 404),
        ("watch?run=..", 404),
        ("watch", 404),
        ("episode?run=../odd", 404),
        ("episode?run=odd&seed=x", 400),
        ("episode?run=odd&checkpoint=-1", 400),
        ("watch?run=odd&seed=99999999999999&checkpoint=77", 200),
    ],
)
def test_bad_addresses_are_refused(address: str, status: int, runs: Path, workers: Workers, board: Any) -> None:  # noqa: F811
    base = board(runs, watch.routes(workers)).partition("?")[0]
    port = base.rsplit(":", 1)[1].strip("/")
    request = urllib.request.Request(base + address, headers={"cookie": f"rllab-board-{port}={TOKEN}"})
    try:
        assert urllib.request.urlopen(request).status == status == 200
    except urllib.error.HTTPError as error:
        assert error.code == status and error.read()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(base + address)


def test_the_command_serves_the_page_and_ends_at_once(runs: Path) -> None:
    words = ["-m", "rllab", "watch", "odd@1", "--seed", str(HANGS), "--runs", str(runs)]
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[1]
        assert f"/watch?run=odd&seed={HANGS}&checkpoint=1&token=" in address
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        text = opener.open(address).read().decode()
        assert "<option selected>1</option>" in text and f'value="{HANGS}"' in text
        with opener.open(f"{address.partition('/watch')[0]}/episode?run=odd&seed={HANGS}") as answer:
            first = json.loads(answer.readline())
            assert first["more"]["seed"] == HANGS and [json.loads(answer.readline()) for _ in range(2)]
            process.send_signal(signal.SIGINT)  # while the environment hangs
            begun = time.monotonic()
            assert "has ended" in json.loads(answer.readline())["error"]
        process.wait(60)
        assert time.monotonic() - begun < 30
