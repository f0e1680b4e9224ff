"""The page on which a run's board game is played against it, and on which lists of moves are replayed."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from rllab.board.pages import render
from rllab.board.server import Board
from rllab.board.watch import steps
from rllab.board.workers import Workers, streamed

SCRIPTS = ["stream.js", "grid.js", "play.js"]
MOST_BYTES = 1_000_000  # of a request
_PLAIN = {"content-encoding": "identity"}  # lines are sent as they come, and not collected to be compressed


def routes(workers: Workers) -> Callable[[Board], list[BaseRoute]]:
    """Makes the routes of a board: `play` is the page of a run; `search` and `replay` answer lines of JSON."""

    def make(board: Board) -> list[BaseRoute]:
        def play(request: Request) -> Response:
            run = board.run(request.query_params.get("run", ""))
            return HTMLResponse(render("play.html", scripts=SCRIPTS, name=run.path.name, checkpoints=steps(run)))

        asks = {"/search": "search", "/replay": "replay"}
        lines = [Route(path, asking(board, workers, do), methods=["POST"]) for path, do in asks.items()]
        return [Route("/play", play), *lines]

    return make


def asking(board: Board, workers: Workers, do: str) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint that passes a request's JSON on to the process of a run, and sends the lines of its answer."""

    async def endpoint(request: Request) -> Response:
        run = board.run(request.query_params.get("run", ""))
        lines = workers.ask(run.path.name, await _body(request) | {"do": do})
        return StreamingResponse(streamed(lines), media_type="application/x-ndjson", headers=_PLAIN)

    return endpoint


async def _body(request: Request) -> dict[str, Any]:
    parts, size = list[bytes](), 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise HTTPException(413, "the request is too large")
        parts.append(part)
    try:
        body = json.loads(b"".join(parts))
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise HTTPException(400, "the request is no JSON object")
    return body
