"""The page on which a run's greedy episodes are watched."""

from collections.abc import Callable

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from rllab.board.pages import render
from rllab.board.server import Board, number_of
from rllab.board.workers import Workers, streamed
from rllab.core.run import RunFolder

SCRIPTS = ["stream.js", "scenes.js", "watch.js"]
_PLAIN = {"content-encoding": "identity"}  # lines are sent as they come, and not collected to be compressed


def routes(workers: Workers) -> Callable[[Board], list[BaseRoute]]:
    """Makes the routes of a board: `watch` is the page of a run, `episode?run=&seed=&checkpoint=` gives the lines."""

    def make(board: Board) -> list[BaseRoute]:
        def watch(request: Request) -> Response:
            query = request.query_params
            run = board.run(query.get("run", ""))
            shown = {"name": run.path.name, "checkpoints": steps(run), "checkpoint": _step(query), "seed": _seed(query)}
            return HTMLResponse(render("watch.html", scripts=SCRIPTS, **shown))

        def episode(request: Request) -> Response:
            query = request.query_params
            wanted = {"do": "episode", "seed": _seed(query), "checkpoint": _step(query)}
            lines = workers.ask(board.run(query.get("run", "")).path.name, wanted)
            return StreamingResponse(streamed(lines), media_type="application/x-ndjson", headers=_PLAIN)

        return [Route("/watch", watch), Route("/episode", episode)]

    return make


def steps(run: RunFolder) -> list[int]:
    """The steps of a run's checkpoints, the newest first."""
    names = (path.name for path in (run.path / "checkpoints").glob("[0-9]*"))
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def _seed(query: QueryParams) -> int:
    return number_of(query, "seed", 0, 0, 2**31 - 1)


def _step(query: QueryParams) -> int | None:
    return number_of(query, "checkpoint", 0, 0, 10**9) if query.get("checkpoint") else None
