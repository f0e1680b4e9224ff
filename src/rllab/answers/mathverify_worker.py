"""The process that math-verify runs in, so that whatever it does (hang, raise, take an alarm) costs one row.

It reads requests as JSON lines, `[answer, target]`, and answers each with `true`, `false` or a text that says why not.
Where the system can fork, the packages are loaded once and a child serves; killed, it is replaced in milliseconds.
"""

import json
import os
import signal
import sys

MEMORY = 2 << 30  # bytes
SECONDS = 0.6  # of the processor, for one comparison; ordinary ones take milliseconds, whatever else the machine does


def serve() -> None:
    """Says `ready` with the process to kill, then answers requests until they end."""
    print(json.dumps({"ready": os.getpid()}), flush=True)
    while line := sys.stdin.readline():
        try:
            answer, target = json.loads(line)
            _end_after(SECONDS)
            said: bool | str = same(answer, target)
        except BaseException as error:  # math-verify's time-out is no Exception
            said = f"math-verify: {type(error).__name__}"
        _end_after(0)
        print(json.dumps(said), flush=True)


def _end_after(seconds: float) -> None:
    """The system ends this process after so many seconds of computing, also where nobody is left to do it; 0: never."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def same(answer: str, target: str) -> bool:
    """Whether two LaTeX texts are the same by math-verify; only its LaTeX grammar reads them, never an evaluator."""
    from math_verify import LatexExtractionConfig, parse, verify

    latex = [LatexExtractionConfig()]
    gold, mine = (parse(f"${text}$", latex, parsing_timeout=None) for text in (target, answer))
    return bool(gold) and bool(mine) and bool(verify(gold, mine, allow_set_relation_comp=True, timeout_seconds=None))


def main() -> None:
    """Serves, in a child where that is possible."""
    import logging

    logging.disable()
    same("x+1", "1+x")  # what the first comparison loads is there before children are made
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
