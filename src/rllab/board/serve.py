"""Serves the board on this machine, and says how to reach it."""

import errno
import getpass
import os
import platform
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rllab.core.errors import MachineFault, Mistake

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from rllab.board.server import Board

Pages = Callable[["Board"], "list[BaseRoute]"]
PORT = 8000  # the first that is tried
TRIES = 100


def serve(
    runs: Path, port: int, page: str = "", say: Callable[[str], None] = print, others: Sequence[Pages] = ()
) -> None:
    """Serves the board of a folder of runs until it is interrupted.

    port: 0 for a free one. page: the first address. others: make the routes of further pages, as in `application`.

    Raises:
        Mistake: the port is in use.
    """
    import uvicorn

    from rllab.board import chat, play, watch
    from rllab.board.server import application
    from rllab.board.workers import Workers

    runs = runs.absolute()
    with listen(port) as listener, Workers(runs) as workers:
        port = listener.getsockname()[1]
        token = secrets.token_urlsafe(18)
        for line in addresses(port, token, page):
            say(line)
        if not runs.is_dir():
            say(f"there is no folder {runs} yet; runs are shown as soon as they are there")
        own = [page.routes(workers) for page in (watch, play, chat)]
        app = application(runs, token, port, *own, *others)

        class Server(uvicorn.Server):
            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                workers.close()  # or it would wait for their answers
                await super().shutdown(sockets)

        with suppress(KeyboardInterrupt):  # Ctrl-C is how it ends
            Server(uvicorn.Config(app, log_level="warning", lifespan="off")).run(sockets=[listener])


def listen(port: int) -> socket.socket:
    """A socket that listens on a port of 127.0.0.1; for port 0 on the first free one from `PORT` on.

    Raises:
        Mistake: that port is in use.
        MachineFault: none of `TRIES` ports is free.
    """
    for number in [port] if port else range(PORT, PORT + TRIES):
        listener = socket.socket()
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", number))
            listener.listen(128)
            return listener
        except OSError as error:
            listener.close()
            if port and error.errno == errno.EADDRINUSE:
                raise Mistake(f"--port {port} is in use: choose another, or leave it out for a free one") from None
            if port:
                raise Mistake(f"--port {port}: {error.strerror}") from None
    raise MachineFault(f"no port from {PORT} to {PORT + TRIES - 1} is free")


def addresses(port: int, token: str, page: str) -> list[str]:
    """The lines that say how to open the board, here and from another machine."""
    address = f"http://127.0.0.1:{port}/{page}{'&' if '?' in page else '?'}token={token}"
    host = f"{getpass.getuser()}@{platform.node()}"
    lines = [f"board: {address}   (Ctrl-C ends it)"]
    return [*lines, f"from another machine, first: ssh -N -L {port}:127.0.0.1:{port} {host}"]
