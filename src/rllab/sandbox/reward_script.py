"""The script that calls a submitted reward function. It is run in the sandbox, so it has the standard library alone.

The file named by its argument holds the request as JSON: `file`, `function`, `prompts`, `completions`, `columns`. It
prints {"scores": [...]}, each a number, None or a text that describes any other value; or {"fault": TEXT}, in words for
whoever wrote the function, without the name of the file. What the submitted code prints goes to the standard error.
"""

import asyncio
import importlib.util
import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_SEARCH = 5.0  # seconds to look for the completion on which a function fails


Columns = Mapping[str, Sequence[Any]]


class Fault(Exception):
    """Something is wrong with the submitted file."""


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    result: dict[str, Any]
    try:
        result = {"scores": scores(request)}
    except Fault as error:
        result = {"fault": str(error)}
    json.dump(result, results)
    results.flush()
    sys.stderr.flush()
    os._exit(0)  # what the submitted code has left running ends with this process


def scores(request: Mapping[str, Any]) -> list[float | str | None]:
    """Returns the scores of all completions."""
    function = function_of(request["file"], request["function"])
    prompts, completions, columns = request["prompts"], request["completions"], request["columns"]
    try:
        return listed(called(function, prompts, completions, columns))
    except (Exception, SystemExit) as error:
        which = failing(function, prompts, completions, columns)
        raise Fault(f"{described(error, request['file'])}{which}") from None


def function_of(file: str, name: str) -> Callable[..., Any]:
    """Returns the function of a file with this name."""
    spec = importlib.util.spec_from_file_location("submitted", file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise Fault(f"cannot be imported: {described(error, file)}") from None
    function = getattr(module, name, None)
    if not callable(function):
        own = [k for k, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == spec.name]
        raise Fault(f"has no function {name!r}; it has {', '.join(own) or 'none'}")
    return function  # type: ignore[no-any-return]


def called(function: Callable[..., Any], prompts: list[Any], completions: list[Any], columns: Columns) -> Any:
    """Returns what a reward function returns; one with the signature of verl's `compute_score` is called for each."""
    known = inspect.signature(function).parameters
    if {"solution_str", "ground_truth"} <= known.keys():
        rows = [{k: v[i] for k, v in columns.items()} for i in range(len(completions))]
        return [single(function, known, text, row) for text, row in zip(completions, rows, strict=True)]
    arguments = {"prompts": prompts, "completions": completions, "completion_ids": None, **columns}
    if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        arguments = {k: v for k, v in arguments.items() if k in known}
    return awaited(function(**arguments))


def single(function: Callable[..., Any], known: Mapping[str, Any], text: Any, row: Mapping[str, Any]) -> Any:
    """Returns the score of one completion."""
    gold = row.get("ground_truth", row.get("target"))
    values = (row.get("data_source") or "", text, gold, row.get("extra_info") or {})
    arguments = dict(zip(("data_source", "solution_str", "ground_truth", "extra_info"), values, strict=True))
    score = awaited(function(**{k: v for k, v in arguments.items() if k in known}))
    return score["score"] if isinstance(score, dict) and "score" in score else score


def awaited(value: Any) -> Any:
    """Returns a value, or what an awaitable gives."""

    async def wait() -> Any:
        return await value

    return asyncio.run(wait()) if inspect.isawaitable(value) else value


def listed(values: Any) -> list[float | str | None]:
    """Returns what a reward function returned as a list."""
    values = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(values, (str, bytes, dict, set, frozenset)) or not hasattr(values, "__iter__"):
        raise Fault(f"returned {short(values)}; a reward function returns a list with a number for each completion")
    return [value if value is None else number(value) for value in values]


def number(value: Any) -> float | str:
    if not isinstance(value, (str, bytes)):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):  # the last: torch's, of several numbers
            pass
    return short(value)


def short(value: Any) -> str:
    return f"{repr(value)[:60]} ({type(value).__name__})"


def described(error: BaseException, file: str) -> str:
    """Returns an exception in a line, with the line of the file that raised it.

    Raises:
        MemoryError: it is one, which ends the script.
    """
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, Fault):
        return str(error)
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if os.path.basename(f.filename) == file]
    line = traceback.format_exception_only(type(error), error)[-1].strip()
    return f"raised {line}" + (f" (line {lines[-1]} of {file})" if lines else "")


def failing(function: Callable[..., Any], prompts: list[Any], completions: list[Any], columns: Columns) -> str:
    """Returns which completion is the first on which the function fails if it is called with it alone, as text."""
    end = time.monotonic() + _SEARCH
    for i in range(len(completions)):
        try:
            own = {name: [values[i]] for name, values in columns.items()}
            listed(called(function, prompts[i : i + 1], completions[i : i + 1], own))
        except (Exception, SystemExit):
            return f", at completion {i} (counted from 0)"
        if time.monotonic() > end:
            break
    return ""


if __name__ == "__main__":
    main()
