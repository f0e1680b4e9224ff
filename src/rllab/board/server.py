"""The board: the pages of the runs in a folder, live, for whoever has the token.

A login node is shared by its users, and 127.0.0.1 with it, so nothing is answered without the token that was printed.
All addresses are relative, and the pages work behind proxies that put a path in front (Open OnDemand, Jupyter).
"""

import hmac
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rllab.board.columns import Store
from rllab.board.comparison import Comparisons
from rllab.board.curves import charts, exchange, numbers, panels, version
from rllab.board.diagnosis import Diagnoses
from rllab.board.pages import records, render, reward_ranges, table_rows
from rllab.board.samples import ORDERS, Samples
from rllab.board.summaries import settings
from rllab.core.errors import Mistake
from rllab.core.run import RunFolder
from rllab.core.runs import list_runs
from rllab.evals.run_groups import by_seed

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
COUNT = 20  # samples on a page
DIGITS = 18  # of a number in an address
MOST_SAMPLED = 20  # runs whose samples are found again without reading them anew
MOST_RUNS = 50  # on a page; more curves cannot be told apart, and their columns do not fit into a small memory


@dataclass
class Board:
    """What the pages of a board share: the folder of the runs, and what was read of them."""

    runs: Path
    store: Store = field(default_factory=Store)
    samples: dict[Path, Samples] = field(default_factory=dict)
    diagnoses: Diagnoses = field(default_factory=Diagnoses)
    comparisons: Comparisons = field(default_factory=Comparisons)

    def run(self, name: str) -> RunFolder:
        """The run with a name.

        Raises:
            HTTPException: there is none. A path is no name.
        """
        if name in ("", "..") or Path(name).name != name or not (self.runs / name / "recipe.yaml").is_file():
            raise HTTPException(404, f"there is no run {name!r} in {self.runs}")
        return RunFolder(self.runs / name)

    def samples_of(self, run: RunFolder) -> Samples:
        """Where the samples of a run lie, which is kept of some runs: one of 100,000 samples takes 3 MB."""
        samples = self.samples.setdefault(run.path, Samples(run.path))
        for path in list(self.samples)[:-MOST_SAMPLED]:
            self.samples.pop(path, None)
        return samples

    def chosen(self, query: QueryParams) -> list[RunFolder]:
        """The runs that an address names.

        Raises:
            HTTPException: it names none, more than `MOST_RUNS`, or one that is not there.
        """
        names = list(dict.fromkeys(query.getlist("run")))
        if not names:
            raise HTTPException(404, "the address names no run")
        if len(names) > MOST_RUNS:
            raise HTTPException(400, f"{len(names)} runs are too many for a page: choose at most {MOST_RUNS}")
        return [self.run(name) for name in names]


def application(runs: Path, token: str, port: int, *others: Callable[[Board], list[BaseRoute]]) -> ASGIApp:
    """The board of the runs in a folder. others: make the routes of further pages."""
    board = Board(runs)
    static = StaticFiles(packages=[("rllab.board", "static")])
    routes = [*_routes(board), *(route for make in others for route in make(board)), Mount("/static", static)]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(GZipMiddleware, minimum_size=2000)],
        exception_handlers={HTTPException: _refused, Mistake: _mistake},
    )
    return Guard(app, token, f"rllab-board-{port}")


class Guard:
    """Answers those alone who have the token, in the address of their first visit and then in a cookie."""

    def __init__(self, app: ASGIApp, token: str, cookie: str) -> None:
        self._app, self._token, self._cookie = app, token, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        given, kept = request.query_params.get("token", ""), request.cookies.get(self._cookie, "")
        if given and self._is_token(given):
            await self._enter(request)(scope, receive, _with_headers(send))
        elif not self._is_token(kept):
            text = "this board answers with its token alone: open the address that `rllab board` has printed\n"
            await PlainTextResponse(text, 403)(scope, receive, _with_headers(send))
        elif request.method == "POST" and not request.headers.get("content-type", "").startswith("application/json"):
            # a form of another page cannot send JSON without asking first, and it is never allowed to
            await PlainTextResponse("expected JSON\n", 415)(scope, receive, _with_headers(send))
        else:
            await self._app(scope, receive, _with_headers(send))

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self._token.encode())

    def _enter(self, request: Request) -> Response:
        """Keeps the token in a cookie, and leads to the same page without it in the address."""
        rest = urlencode([(k, v) for k, v in request.query_params.multi_items() if k != "token"])
        page = request.url.path.rpartition("/")[2] or "./"
        response = RedirectResponse(page + f"?{rest}" * bool(rest), 303)
        response.set_cookie(self._cookie, self._token, httponly=True, samesite="lax")
        return response


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in message["headers"]}
            message["headers"] += [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in own]
        await send(message)

    return sending


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail}\n", error.status_code)


def _mistake(request: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{error}\n", 400)


def number_of(query: QueryParams, name: str, default: int, least: int, most: int) -> int:
    """A whole number in an address, within bounds.

    Raises:
        HTTPException: it is no number.
    """
    text = query.get(name) or str(default)
    if not text.isdecimal() or len(text) > DIGITS:
        raise HTTPException(400, f"{name}={text} is no whole number")
    return max(least, min(most, int(text)))


def _routes(board: Board) -> list[BaseRoute]:
    pages = {"/": _index, "/table": _table, "/view": _view, "/state": _state, "/samples": _samples}
    pages |= {"/diagnosis": _diagnosis, "/comparison": _comparison}
    data = {"/curves.json": _curves, "/exchange.json": _exchange}
    return [Route(path, _endpoint(board, answer)) for path, answer in (pages | data).items()]


def _endpoint(board: Board, answer: Callable[[Board, QueryParams], Response]) -> Callable[[Request], Response]:
    return lambda request: answer(board, request.query_params)


def _index(board: Board, query: QueryParams) -> Response:
    rows, scripts = table_rows(list_runs(board.runs)), ["live.js", "runs.js"]
    return HTMLResponse(render("runs.html", rows=rows, folder=str(board.runs), scripts=scripts))


def _table(board: Board, query: QueryParams) -> Response:
    return HTMLResponse(render("runs_table", rows=table_rows(list_runs(board.runs)), links=True))


def _view(board: Board, query: QueryParams) -> Response:
    runs = board.chosen(query)
    shown = panels(runs, board.store)
    text = render(
        "view.html",
        names=[run.path.name for run in runs],
        rows=table_rows(runs),
        panels=shown,
        numbers=numbers(runs, board.store, shown.first),
        records=records(runs),
        pages=_pages(runs),
        scripts=["uplot/uPlot.iife.min.js", "charts.js", "live.js", "view.js"],
    )
    return HTMLResponse(text)


def _state(board: Board, query: QueryParams) -> Response:
    return HTMLResponse(render("runs_table", rows=table_rows(board.chosen(query))))


def _curves(board: Board, query: QueryParams) -> Response:
    runs = board.chosen(query)
    if query.get("version") == version(runs):
        return Response(status_code=304)
    span, pixels = number_of(query, "span", 1, 1, 10_000), number_of(query, "pixels", 400, 20, 4000)
    return JSONResponse(charts(by_seed(runs), board.store, query.getlist("metric"), pixels, span))


def _exchange(board: Board, query: QueryParams) -> Response:
    return JSONResponse(exchange(board.chosen(query), board.store, query.get("x", ""), query.get("y", "")))


def _diagnosis(board: Board, query: QueryParams) -> Response:
    return HTMLResponse(render("sentences", lines=board.diagnoses.of(board.chosen(query)[0])))


def _comparison(board: Board, query: QueryParams) -> Response:
    return HTMLResponse(render("comparison", compared=board.comparisons.of(by_seed(board.chosen(query)))))


def _pages(runs: list[RunFolder]) -> list[tuple[str, str]]:
    """(address, text) of the other pages of some runs."""
    pages = []
    for run in runs:
        name, query = run.path.name, urlencode({"run": run.path.name})
        if (run.path / "samples.jsonl").is_file():
            pages.append((f"samples?{query}", f"samples of {name}"))
        with suppress(Mistake):  # a damaged recipe, which the page names elsewhere
            if "env" in settings(run):
                pages.append((f"watch?{query}", f"watch {name}"))
            if "game" in settings(run):
                pages.append((f"play?{query}", f"play {name}"))
        if _talks(run):
            pages.append((f"chat?{query}", f"chat with {name}"))
    return pages


def _talks(run: RunFolder) -> bool:
    """Whether the newest checkpoint of a run has a language model, or adapters of one."""
    newest = max((run.path / "checkpoints").glob("[0-9]*"), default=run.path)
    for folder in (newest, newest / "model"):
        for file, kind in (("config.json", "ForCausalLM"), ("adapter_config.json", "CAUSAL_LM")):
            with suppress(OSError, UnicodeDecodeError):
                if kind in (folder / file).read_text(encoding="utf-8"):
                    return True
    return False


def _samples(board: Board, query: QueryParams) -> Response:
    run = board.run(query.get("run", ""))
    samples = board.samples_of(run)
    step, first = query.get("step", "")[:DIGITS], number_of(query, "first", 0, 0, 10**9)
    order = query.get("order", "newest") if query.get("order") in ORDERS else "newest"
    matches = samples.find(int(step) if step.isdecimal() else None, order, query.get("text", ""), first, COUNT)
    here: dict[str, Any] = {"run": run.path.name, "step": step, "order": order, "text": query.get("text", "")}
    text = render(
        "samples.html",
        name=run.path.name,
        matches=matches,
        ranges=reward_ranges(matches.samples),
        step=int(step) if step.isdecimal() else None,
        order=order,
        orders=ORDERS,
        text=here["text"],
        first=first,
        unreadable=samples.unreadable,
        before=urlencode(here | {"first": max(0, first - COUNT)}),
        after=urlencode(here | {"first": first + COUNT}),
    )
    return HTMLResponse(text)
