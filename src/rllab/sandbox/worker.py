"""The program of the process in which a borrowed function runs. If the function hangs, exits or runs out of memory, the
training goes on.

Requests and responses are lines of JSON. The first request names the function; each other one holds the arguments of a
call. A second process, the warden, ends it and all that it started: when it ends, when it is asked to by SIGTERM, and
when the process that calls dies.
"""

import contextlib
import functools
import importlib
import inspect
import json
import os
import random
import signal
import sys
import traceback
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, TextIO

from rllab.core.names import accepted, find, takes_single
from rllab.sandbox.confine import adopts_orphans, confine, dies_with_parent, kill_children
from rllab.sandbox.single import of_each

MEMORY = 4 << 30  # bytes of data that this process may allocate


def main() -> None:
    """Answers requests until the standard input ends. What the function prints goes to the standard error."""
    if hasattr(os, "fork"):
        _guard(int(sys.argv[1]))
    requests, responses = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    _limit_memory()
    reward = None
    for line in requests:
        if reward is None:
            reward = _respond(responses, _load, json.loads(line))
            continue
        _respond(responses, functools.partial(_scores, reward), json.loads(line))


def _guard(caller: int) -> None:
    """Continues in a child process; this process becomes its warden. caller: the process that must be alive."""
    watched = {signal.SIGCHLD, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, {*watched, signal.SIGINT})
    dies_with_parent(signal.SIGTERM)  # is asked to end, so that it can end the others
    adopts_orphans()
    warden, child = os.getpid(), os.fork()
    if child == 0:
        dies_with_parent(signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, watched)
        if os.getppid() != warden:
            os._exit(1)
        return
    for stream in (0, 1):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)  # the pipes close when the child ends
    code = None
    while code is None and os.getppid() == caller and signal.sigwait(watched) == signal.SIGCHLD:
        code = _ended(child)
    kill_children(lambda: {child} if code is None else set())
    os._exit(0 if code is None else code if code >= 0 else 128 - code)


def _ended(child: int) -> int | None:
    """The exit code of the child; None while it runs. Orphans that have ended are taken away."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                return os.waitstatus_to_exitcode(ended[1])
    return None


def _respond(responses: TextIO, handle: Any, request: dict[str, Any]) -> Any:
    """Handles a request and writes the response: the scores, or the error with its traceback. Returns the result."""
    try:
        result = handle(request)
        response: dict[str, Any] = {"scores": result if isinstance(result, list) else []}
    except BaseException as error:  # SystemExit too
        result, response = None, {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    responses.write(json.dumps(response) + "\n")
    responses.flush()
    return result


def _load(request: dict[str, Any]) -> Any:
    """Imports the function at an address and binds its settings. The result is called with the rows' columns."""
    function = find(request["address"], "", Path())
    reward = function(**request["settings"]) if request["made"] else functools.partial(function, **request["settings"])
    if not request["made"] and takes_single(function):
        reward = of_each(reward)
    if request["confined"] and not confine(None):
        print(f"{request['address']}: this kernel has no Landlock; its process is not confined", file=sys.stderr)
    return lambda **columns: reward(**accepted(reward, columns))


def _scores(reward: Any, request: dict[str, Any]) -> list[Any]:
    """Calls the function. Each score is a number, None, or a text that describes any other value."""
    random.seed(request["seed"])
    if "numpy" in sys.modules:
        importlib.import_module("numpy").random.seed(request["seed"] % (1 << 32))
    scores = reward(**request["arguments"])
    if inspect.isawaitable(scores):
        import asyncio  # not above: it costs each process 40 milliseconds

        scores = asyncio.run(_awaited(scores))
    return listed(scores)


def listed(scores: Any) -> list[float | str | None]:
    """What a reward returned as a list, in its order. Each score is a number, None, or a text that describes it.

    Raises:
        TypeError: it is no list or array, but a set, a mapping or a text, which have no order of scores.
    """
    if hasattr(scores, "tolist"):
        scores = scores.tolist()
    if isinstance(scores, (str, bytes, Mapping, Set)) or not hasattr(scores, "__iter__"):
        raise TypeError(f"it returned {_short(scores)}; a reward returns a list with a number for each completion")
    return [s if s is None else _number(s) for s in scores]


async def _awaited(scores: Any) -> Any:
    return await scores


def _number(score: Any) -> float | str:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if not isinstance(score, (str, bytes)):
            return float(score)
    return _short(score)


def _short(value: Any) -> str:
    return f"{repr(value)[:60]} ({type(value).__name__})"


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not every system has this limit
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


if __name__ == "__main__":
    main()
