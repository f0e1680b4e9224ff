"""A real browser for tests of pages: Debian's chromium, driven by Playwright."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rllab.board.serve import listen
from rllab.board.server import application

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TOKEN = "a-token"
AXE = Path(__file__).parents[1] / "build/node_modules/axe-core/axe.min.js"  # .ci/run installs it


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser; tests that need it are skipped where there is none.

    Each file has its own: Playwright has an event loop, of which there may be one, and others need theirs afterwards.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def browser_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages. The test fails if one of them has an error in its console, or asks another host for anything."""
    contexts, problems = [], list[str]()

    def open_page(width: int = 1280, height: int = 900, scheme: str = "light", **settings: Any) -> Any:
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce", **settings
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: problems.append(str(e)))
        page.on("request", lambda r: problems.append(r.url) if not _is_own(r.url) else None)
        page.on("response", lambda r: problems.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        page.problems = problems  # a test that provokes one takes it out
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems, problems


def _is_own(address: str) -> bool:
    return address.startswith(("http://127.0.0.1:", "file:", "data:", "blob:", "about:"))


@pytest.fixture
def board() -> Iterator[Callable[..., str]]:
    """Starts boards in this process: the folder of runs -> the address with the token."""
    import uvicorn

    servers = []

    def start(runs: Path, *others: Any, prefix: str = "") -> str:
        listener = listen(0)
        port = listener.getsockname()[1]
        app = application(runs, TOKEN, port, *others)
        if prefix:
            app = behind(prefix, app)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        servers.append((server, thread, listener))
        return f"http://127.0.0.1:{port}{prefix}/?token={TOKEN}"

    yield start
    for server, thread, listener in servers:
        server.should_exit = True
        thread.join(60)
        listener.close()


def behind(prefix: str, app: Any) -> Any:
    """An application behind a proxy that takes a prefix off the path before it passes a request on."""

    async def passed(scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"].startswith(prefix), f"{scope['path']} leaves the proxy"
        path = scope["path"].removeprefix(prefix)
        await app(scope | {"path": path, "raw_path": path.encode()}, receive, send)

    return passed


def becomes(page: Any, expression: str, seconds: float = 60.0) -> None:
    """Waits until an expression of JavaScript is true; `wait_for_function` needs an `eval` that pages forbid."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"not true after {seconds:g} s: {expression}"
        page.wait_for_timeout(20)


def overflow(page: Any) -> int:
    """By how many pixels a page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def ink(page: Any, selector: str) -> int:
    """The number of pixels with a colour of their own (no grey, not transparent) in the canvas of an element."""
    return int(
        page.locator(selector).first.evaluate(
            """element => {
                const canvas = element.matches("canvas") ? element : element.querySelector("canvas");
                const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
                let count = 0;
                for (let i = 0; i < data.length; i += 4) {
                    const [r, g, b, a] = data.slice(i, i + 4);
                    if (a > 40 && Math.max(r, g, b) - Math.min(r, g, b) > 40) count++;
                }
                return count;
            }"""
        )
    )


def axe(page: Any) -> list[str]:
    """What axe finds wrong with a page: names without a text, low contrast, what the keyboard does not reach."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm install --prefix build axe-core")
    # the page's own policy lets no other script in; this one comes from outside of it
    page.evaluate(AXE.read_text(encoding="utf-8"))
    violations = page.evaluate("axe.run().then(results => results.violations)")
    return [f"{v['id']}: {node['html'][:200]} {node['failureSummary']}" for v in violations for node in v["nodes"]]
