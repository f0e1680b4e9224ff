"""The program of a process that answers requests about one run: `python -m rllab.board.worker RUN`.

Requests and answers are lines of JSON. A request is `{"number": n, "request": {"do": name, ...}}`. Each line of its
answer has the same number: any lines with "more", then one with "end", or with "error" and a text. `{"stop": n}` ends
request n at its next line. The process ends when its standard input is closed, also in the middle of a request.

What a request does is a generator function `(run: LoadedRun, request: dict) -> values of "more", returning that of
"end"`. It has a file of its own, and stands in `REQUESTS`. It may raise a Mistake, whose text is the error.
"""

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rllab.core.errors import RllabError
from rllab.core.names import find

if TYPE_CHECKING:
    from rllab.board.loaded import LoadedRun

REQUESTS = {
    "episode": "rllab.board.episodes:episode",
    "search": "rllab.board.positions:search",
    "replay": "rllab.board.positions:replayed",
    "reply": "rllab.board.talk:reply",
}
Answer = Generator[Any, None, Any]


def main() -> None:
    """Answers requests until the standard input ends. What other code prints goes to the standard error."""
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    inbox: queue.Queue[dict[str, Any]] = queue.Queue()
    stops: dict[int, threading.Event] = {}
    threading.Thread(target=_read, args=(requests, inbox, stops), daemon=True).start()
    while True:
        message = inbox.get()
        number = message["number"]
        _answer(message["request"], partial(_write, answers, number), stops[number])
        del stops[number]


def _write(answers: TextIO, number: int, line: Mapping[str, Any]) -> None:
    answers.write(json.dumps({"number": number, **line}, allow_nan=False) + "\n")
    answers.flush()


def _read(requests: TextIO, inbox: "queue.Queue[dict[str, Any]]", stops: dict[int, threading.Event]) -> None:
    """Puts requests into the inbox while others are answered; ends the process with the input."""
    for line in requests:
        message = json.loads(line)
        if "request" in message:
            stops[message["number"]] = threading.Event()
            inbox.put(message)
        elif stop := stops.get(message["stop"]):
            stop.set()
    os._exit(0)


@cache
def _run() -> "LoadedRun":
    """The run of this process. It imports torch, which takes seconds, in which the process can be stopped already."""
    from rllab.board.loaded import LoadedRun

    return LoadedRun(Path(sys.argv[1]))


def _answer(request: dict[str, Any], write: Callable[[Mapping[str, Any]], None], stopped: threading.Event) -> None:
    """Writes the lines of an answer, until it is stopped."""
    try:
        if (name := request.get("do")) not in tuple(REQUESTS):
            write({"error": f"no request {name!r}; there are {', '.join(REQUESTS)}"})
            return
        lines: Answer = find(REQUESTS[name], "", Path())(_run(), request)
        while not stopped.is_set():
            try:
                more = next(lines)
            except StopIteration as done:
                write({"end": done.value})
                return
            write({"more": more})
        lines.close()
        write({"end": None})
    except RllabError as error:
        write({"error": str(error)})
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        write({"error": f"{type(error).__name__}: {error}\n{_place(error)}"})


def _place(error: BaseException) -> str:
    """Where an error was raised: the innermost line of its traceback."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}, in {frame.name}"


if __name__ == "__main__":
    main()
