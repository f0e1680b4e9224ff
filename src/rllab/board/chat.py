"""The page on which people chat with a language model of a run, and with its base beside it."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from rllab.board.pages import render
from rllab.board.play import asking
from rllab.board.server import Board
from rllab.board.watch import steps
from rllab.board.workers import Workers

SCRIPTS = ["stream.js", "chat.js"]


def routes(workers: Workers) -> Callable[[Board], list[BaseRoute]]:
    """Makes the routes of a board: `chat` is the page of a run, and `reply` answers lines of JSON."""

    def make(board: Board) -> list[BaseRoute]:
        def chat(request: Request) -> Response:
            run = board.run(request.query_params.get("run", ""))
            return HTMLResponse(render("chat.html", scripts=SCRIPTS, name=run.path.name, checkpoints=steps(run)))

        return [Route("/chat", chat), Route("/reply", asking(board, workers, "reply"), methods=["POST"])]

    return make
