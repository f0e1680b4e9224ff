"""The board in a real browser: what it shows of runs while they are trained, and whom it answers."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import TOKEN, axe, becomes, board, browser_page, chromium, ink, overflow  # noqa: F401 - fixtures
from test_report import HOSTILE, made_run

from rllab.board.serve import addresses, listen
from rllab.core.errors import Mistake


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed in range(3):
        made_run(tmp_path / f"runs/small-s{seed}", seed, samples=48)
    made_run(tmp_path / "runs/large", samples=48, beta=0.5)
    return tmp_path / "runs"


def request(address: str, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> tuple[int, str]:
    """Status and text of an answer. The path is sent as it is."""
    with closing(http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)) as connection:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def cookie(address: str) -> str:
    return f"rllab-board-{urlsplit(address).port}={TOKEN}"


def append(run: Path, *rows: dict[str, Any]) -> None:
    with open(run / "metrics.jsonl", "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def drawn(page: Any, metric: str) -> int:
    """The number of points that the chart of a metric shows."""
    return int(page.get_attribute(f"figure[data-metric='{metric}']", "data-drawn"))


def until_drawn(page: Any, metric: str, points: str) -> None:
    becomes(page, f"Number(document.querySelector(\"figure[data-metric='{metric}']\")?.dataset.drawn) {points}")


def test_nothing_is_answered_without_the_token(runs: Path, board: Callable[..., str]) -> None:  # noqa: F811
    address = board(runs)
    for path in ("/", "/table", "/view?run=large", "/curves.json?run=large&metric=x", "/static/style.css", "/none"):
        for wrong in ({}, {"Cookie": cookie(address) + "x"}, {"Cookie": f"other={TOKEN}"}):
            assert request(address, path, **wrong)[0] == 403
    status, text = request(address, "/?token=wrong")
    assert status == 403 and "open the address that `rllab board` has printed" in text and "large" not in text
    assert request(address, "/", Cookie=cookie(address))[0] == 200


def test_paths_outside_of_the_runs_are_refused(runs: Path, board: Callable[..., str]) -> None:  # noqa: F811
    address = board(runs)
    made_run(runs.parent / "secret")
    shutil.copy(runs.parent / "secret/recipe.yaml", runs.parent)  # so that `..` is a run
    for name in (
        "../secret",
        "..%2Fsecret",
        "/etc",
        "",
        ".",
        "..",
        "%00",
        str(runs.parent / "secret").replace("/", "%2F"),
    ):
        for page in ("view", "samples", "curves.json", "exchange.json"):
            assert request(address, f"/{page}?run={name}", Cookie=cookie(address))[0] == 404
    for path in ("/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2fserver.py", "/static//etc/passwd"):
        assert request(address, path, Cookie=cookie(address))[0] == 404
    many = "&".join(f"run={i}" for i in range(51))
    assert request(address, f"/view?{many}", Cookie=cookie(address)) == (
        400,
        "51 runs are too many for a page: choose at most 50\n",
    )
    for page in ("samples?run=large&first=", "curves.json?run=large&span="):
        assert request(address, f"/{page}{'9' * 5000}", Cookie=cookie(address))[0] == 400
    assert request(address, f"/samples?run=large&step={'9' * 5000}", Cookie=cookie(address))[0] == 200
    status, _ = request(address, "/view?run=large", "POST", b"run=large", Cookie=cookie(address))
    assert status == 415, "a form of another page"


def test_the_table_is_filtered_sorted_and_live(runs: Path, board: Any, browser_page: Any) -> None:  # noqa: F811
    page = browser_page()
    page.goto(board(runs))
    assert page.url.endswith("/") and page.inner_text("#count") == "4 of 4 runs"
    page.fill("#filter", "small done")
    assert page.inner_text("#count") == "3 of 4 runs" and page.locator("tbody tr:visible").count() == 3
    page.get_by_role("button", name="seed").click()
    page.get_by_role("button", name="seed").click()
    seeds = [row.split("\t")[3] for row in page.locator("tbody tr:visible").all_inner_texts()]
    assert seeds == ["2", "1", "0"] and page.get_attribute("thead th:nth-child(4)", "aria-sort") == "descending"
    page.fill("#filter", "")
    made_run(runs / "new", note=HOSTILE)
    (runs / "broken").mkdir()
    (runs / "broken/recipe.yaml").write_text("\x00")
    becomes(page, "document.getElementById('count').textContent === '6 of 6 runs'")
    assert "damaged" in page.inner_text("tr[data-run=broken]")
    shutil.rmtree(runs / "new")
    becomes(page, "document.getElementById('count').textContent === '5 of 5 runs'")
    page.check("input[value=large]")
    page.check("input[value=small-s1]")
    page.click("#show")
    page.wait_for_url("**/view?run=large&run=small-s1")
    values = page.locator("tr:has(th:text('beta')) td")
    values.first.wait_for()
    assert values.all_inner_texts() == ["0.5", "0.1"]


def test_curves_follow_a_run(runs: Path, board: Any, browser_page: Any) -> None:  # noqa: F811
    page = browser_page()
    page.goto(board(runs))
    page.click("a:text('large')")
    until_drawn(page, "reward/total", "=== 60")
    assert ink(page, "figure[data-metric='reward/total']") > 300
    run = runs / "large"
    assert "the KL" not in page.inner_text("#diagnosis")
    append(run, *({"step": s, "reward/total": 5.0, "policy/kl": 3.0, "loss/kl": 4.0} for s in range(61, 71)))
    until_drawn(page, "reward/total", "=== 70")
    becomes(
        page, "document.getElementById('diagnosis').textContent.includes('the KL to the reference model is 4 nats')"
    )
    with open(run / "metrics.jsonl", "a") as file:
        file.write('garbage\n{"step": 71, "reward/to')
    page.wait_for_timeout(2500)
    assert drawn(page, "reward/total") == 70, "a half-written line is not read"
    with open(run / "metrics.jsonl", "a") as file:
        file.write('tal": 5.0}\n')
    until_drawn(page, "reward/total", "=== 71")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:40]))  # killed, and resumed from a checkpoint
    until_drawn(page, "reward/total", "=== 40")
    append(run, {"step": 41, "reward/total": 5.0})
    until_drawn(page, "reward/total", "=== 41")
    (run / "metrics.jsonl").write_text("")  # as before, and the metric comes later than the checkpoint
    until_drawn(page, "reward/total", "=== 0")
    for step in range(1, 4):  # drawn without a point again and again
        append(run, {"step": step, "policy/kl": 3.0})
        until_drawn(page, "policy/kl", f"=== {step}")
    append(run, {"step": 4, "reward/total": 5.0})
    until_drawn(page, "reward/total", "=== 1")
    shutil.rmtree(run)
    becomes(page, "document.getElementById('problem').textContent.includes(\"no run 'large'\")")
    page.close()
    page.problems[:] = [p for p in page.problems if "404" not in p]


def test_a_run_is_followed_while_it_is_trained_killed_and_resumed(
    tmp_path: Path,
    board: Any,  # noqa: F811
    browser_page: Any,  # noqa: F811
) -> None:
    settings = ["total_steps=40", "save_every=4", "until={}", "batch_size=512", "--name", "live"]
    train = [sys.executable, "-m", "rllab", "train", "cartpole", *settings]
    page, log = browser_page(), tmp_path / "runs/live/metrics.jsonl"
    address = board(tmp_path / "runs")
    page.goto(address)
    with subprocess.Popen(train, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not log.is_file() or log.read_text().count("\n") < 10:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    becomes(page, "document.querySelector('tr[data-run=live] .state')?.textContent === 'killed'")
    assert "live killed: to go on: rllab train" in page.inner_text("#table .note")
    rounds = int(log.read_text().splitlines()[-1].split(",")[0].split(":")[1])
    page.click("a:text('live')")
    becomes(page, "Number(document.querySelector(\"figure[data-metric='loss/total']\")?.dataset.drawn) > 0")
    assert rounds < 40
    subprocess.run(train, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    becomes(page, "document.querySelector('#state .state').textContent === 'done'")
    until_drawn(page, "eval/return", "=== 4")
    assert page.inner_text("#state td:nth-child(5)") == "40/40"


def test_axes_smoothing_and_zoom(runs: Path, board: Any, browser_page: Any) -> None:  # noqa: F811
    page = browser_page()
    address = board(runs)
    page.goto(address)
    page.goto(address.split("?")[0] + "view?run=small-s0&run=small-s1&run=small-s2")
    until_drawn(page, "reward/total", "> 100")
    page.wait_for_selector("#comparison table")  # above the charts, which it moves
    assert "small*: interquartile mean of 3 seeds" in page.inner_text("#legend")
    figure = page.locator("figure[data-metric='reward/total']")

    def readout() -> str:
        figure.locator(".u-over").hover(position={"x": 150, "y": 60})
        return str(figure.locator(".readout").inner_text())

    before = readout()
    page.select_option("#span", "20")
    deadline = time.monotonic() + 60
    while readout() == before:
        assert time.monotonic() < deadline
    page.select_option("#over", "time/total")
    becomes(
        page,
        "document.querySelector(\"figure[data-metric='reward/total'] .plot\").ariaLabel.includes('over time/total')",
    )
    assert readout().startswith("time/total")
    with page.expect_response("**/curves.json*"):  # the chart is made anew
        page.check("#log-x")
    page.wait_for_timeout(100)
    figure.scroll_into_view_if_needed()
    box = figure.locator(".u-over").bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 120, box["y"] + 50, steps=3)
    page.mouse.up()
    page.click("#whole:not([disabled])")
    assert page.is_disabled("#whole")
    page.click("summary:text('data')")
    until_drawn(page, "data/tokens", "> 100")


def test_samples_are_searched_and_inert(runs: Path, board: Any, browser_page: Any) -> None:  # noqa: F811
    made_run(runs / "bad", samples=45, text=HOSTILE)
    page = browser_page()
    page.goto(board(runs))
    page.click("a:text('bad')")
    page.click("a:text('samples of bad')")
    assert "45 samples, 1 to 20 are shown" in page.inner_text("main")
    page.click("a:text('next')")
    assert "21 to 40 are shown" in page.inner_text("main")
    page.select_option("[name=order]", "worst")
    page.fill("[name=text]", "what is 1")
    page.click("form button")
    assert "11 samples" in page.inner_text("main")
    meters = page.locator("meter").evaluate_all("all => all.map(m => m.value)")
    assert meters == sorted(meters) and meters[0] == 0 and meters[-1] == 1
    page.locator(".thinking summary").first.click()
    assert "<img src=x onerror" in page.locator(".thinking").first.inner_text()
    assert page.locator("img").count() == 0 and page.title() == "rllab: samples of bad"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_can_be_read_by_all(runs: Path, board: Any, browser_page: Any, scheme: str) -> None:  # noqa: F811
    address = board(runs)
    for width in (1280, 390):
        page = browser_page(width, scheme=scheme)
        page.goto(address)
        for path in ("", "view?run=small-s0&run=small-s1&run=large", "view?run=large", "samples?run=small-s0"):
            page.goto(address.split("?")[0] + path)
            if path.startswith("view"):
                until_drawn(page, "reward/total", "> 0")
            assert overflow(page) <= 0, f"{path} is wider than {width} pixels"
            assert axe(page) == [], path


def test_it_works_behind_a_proxy(runs: Path, board: Any, browser_page: Any) -> None:  # noqa: F811
    page = browser_page()
    page.goto(board(runs, prefix="/rnode/scc-q01/8000"))
    assert urlsplit(page.url).path == "/rnode/scc-q01/8000/"
    page.click("a:text('small-s0')")
    until_drawn(page, "reward/total", "=== 60")
    page.click("a:text('samples of small-s0')")
    page.click("a:text('all runs')")
    becomes(page, "document.getElementById('count')?.textContent === '4 of 4 runs'")


def test_a_port_in_use_is_named() -> None:
    with listen(0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(Mistake, match=f"--port {port} is in use: choose another"):
            listen(port)
        with listen(0) as other:
            assert other.getsockname()[1] != port
    (line, ssh) = addresses(8123, "t", "watch?run=a")
    assert "http://127.0.0.1:8123/watch?run=a&token=t" in line and "ssh -N -L 8123:127.0.0.1:8123" in ssh


def test_the_server_imports_no_torch(runs: Path) -> None:
    code = "import sys, rllab.board.serve, rllab.board.server, rllab.cli.pages; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_verb_prints_its_address_and_ends(runs: Path) -> None:
    command = [sys.executable, "-m", "rllab", "board", "--runs", str(runs)]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = line.split()[1]
        token = address.partition("token=")[2]
        assert line.startswith("board: http://127.0.0.1:") and len(token) >= 20
        assert request(address, f"/?token={token}")[0] == 303 and request(address, "/")[0] == 403
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
