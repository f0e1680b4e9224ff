"""The process that a function of others runs in: what it does to itself (hang, exit, eat memory) costs no training.

Requests and answers are JSON lines. The first request says which function; the others are the arguments of its calls.
"""

import asyncio
import contextlib
import functools
import importlib
import inspect
import json
import os
import random
import sys
import traceback
from pathlib import Path
from typing import Any, TextIO

from rllab.core.names import accepted, find
from rllab.sandbox.supervisor import confine

MEMORY = 4 << 30  # bytes of its own


def main() -> None:
    """Answers requests until they end. What the function prints goes to the standard error."""
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    _limit_memory()
    reward = None
    for line in requests:
        if reward is None:
            reward = _said(answers, _load, json.loads(line))
            continue
        _said(answers, functools.partial(_scores, reward), json.loads(line))


def _said(answers: TextIO, do: Any, request: dict[str, Any]) -> Any:
    """What `do` makes of a request; whether that went well is told."""
    try:
        made = do(request)
        said: dict[str, Any] = {"scores": made if isinstance(made, list) else []}
    except BaseException as error:  # a reward that exits, too
        made, said = None, {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    answers.write(json.dumps(said) + "\n")
    answers.flush()
    return made


def _load(request: dict[str, Any]) -> Any:
    """The function at an address, with its settings, as something that is called with the rows' columns."""
    found = find(request["address"], "", Path())
    reward = found(**request["settings"]) if request["made"] else functools.partial(found, **request["settings"])
    if request["confined"] and not confine(None):
        print(f"{request['address']}: this kernel has no Landlock; its process is not confined", file=sys.stderr)
    return lambda **columns: reward(**accepted(reward, columns))


def _scores(reward: Any, request: dict[str, Any]) -> list[Any]:
    """A call: numbers, None, or what stands there in their place as text."""
    random.seed(request["seed"])
    if "numpy" in sys.modules:
        importlib.import_module("numpy").random.seed(request["seed"] % (1 << 32))
    scores = reward(**request["arguments"])
    if inspect.isawaitable(scores):
        scores = asyncio.run(_awaited(scores))
    if hasattr(scores, "tolist"):
        scores = scores.tolist()
    if isinstance(scores, (str, bytes, dict)) or not hasattr(scores, "__iter__"):
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
    with contextlib.suppress(ImportError, ValueError, OSError):  # not every system can
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


if __name__ == "__main__":
    main()
