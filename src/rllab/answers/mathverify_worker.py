"""The process that math-verify runs in, so that whatever it does (hang, raise, take an alarm) costs one row.

It reads requests as JSON lines, `[answer, target]`, and answers each with `true`, `false` or a text that says why not.
Where the system can fork, the packages are loaded once and a child serves; killed, it is replaced in milliseconds.
"""

import json
import os
import signal
import sys

MEMORY = 2 << 30  # bytes
LAST_RESORT = 5  # seconds


def serve() -> None:
    """Says `ready` with the process to kill, then answers requests until they end."""
    print(json.dumps({"ready": os.getpid()}), flush=True)
    while line := sys.stdin.readline():
        try:
            answer, target = json.loads(line)
            _end_after(LAST_RESORT)
            said: bool | str = same(answer, target)
        except BaseException as error:  # math-verify's time-out is no Exception
            said = f"math-verify: {type(error).__name__}"
        _end_after(0)
        print(json.dumps(said), flush=True)


def _end_after(seconds: int) -> None:
    """The system ends this process after so many seconds, also where nobody is left to kill it; 0: no longer."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def same(answer: str, target: str) -> bool:
    """Whether two LaTeX texts are the same by math-verify; only its LaTeX grammar reads them, never an evaluator."""
    from math_verify import LatexExtractionConfig, parse, verify

    latex = [LatexExtractionConfig()]
    gold, mine = (parse(f"${text}$", latex, parsing_timeout=None) for text in (target, answer))
    return bool(gold) and bool(mine) and bool(verify(gold, mine, allow_set_relation_comp=True, timeout_seconds=None))


def main() -> None:
    """Serves, in a child where that is possible."""
    import logging

    import math_verify  # noqa: F401 - loaded before children are made

    logging.disable()
    if not hasattr(os, "fork"):
        return serve()
    while True:
        child = os.fork()
        if not child:
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            serve()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return


if __name__ == "__main__":
    main()
