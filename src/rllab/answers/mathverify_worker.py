"""The process that runs math-verify. Whatever math-verify does (hang, raise, use the alarm) costs one row.

It reads requests as JSON lines, `[answer, target]`. It replies to each with `true`, `false`, or a text that says why
there is no verdict. Where the system can fork, the packages are loaded once and a child serves; a child that was killed
is replaced in milliseconds.
"""

import json
import os
import signal
import sys
from typing import Any

MEMORY = 2 << 30  # bytes
DIGITS = 40  # to which numbers with roots or π are computed
SECONDS = 0.6  # of processor time for one comparison; most take milliseconds


def serve() -> None:
    """Writes `ready` with the id of this process, then replies to requests until they end."""
    print(json.dumps({"ready": os.getpid()}), flush=True)
    while line := sys.stdin.readline():
        try:
            answer, target = json.loads(line)
            _end_after(SECONDS)
            verdict: bool | str = same(answer, target)
        except BaseException as error:  # math-verify's time-out is no Exception
            verdict = f"math-verify: {type(error).__name__}"
        _end_after(0)
        print(json.dumps(verdict), flush=True)


def _end_after(seconds: float) -> None:
    """Has the system end this process after `seconds` of processor time, also where its parent is gone; 0: never."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def same(answer: str, target: str) -> bool:
    """Returns whether two LaTeX texts are equal by math-verify. It parses them as LaTeX and never runs them as code.

    math-verify compares numbers to six decimals where one is a decimal number, and to an absolute error of 1e-15 else,
    so that 0.333333 equals 1/3, and 1/2^98 equals 1/2^99. Numbers that it finds equal are therefore compared again.
    """
    from math_verify import LatexExtractionConfig, parse, verify

    latex = [LatexExtractionConfig()]
    gold, own = (parse(f"${text}$", latex, parsing_timeout=None) for text in (target, answer))
    if not gold or not own or not verify(gold, own, allow_set_relation_comp=True, timeout_seconds=None):
        return False
    return _same_number(gold[0], own[0])


def _same_number(a: Any, b: Any) -> bool:
    """Returns whether two sympy objects are equal as numbers: exactly, or to 40 digits where a root or π is in them.

    True for what is no number: sets, matrices, equations, formulas with variables.
    """
    from sympy import Expr, Rational, UnevaluatedExpr, nsimplify

    if not all(isinstance(x, Expr) and not x.free_symbols and not x.has(UnevaluatedExpr) for x in (a, b)):
        return True
    a, b = (nsimplify(x.doit(), rational=True) for x in (a, b))
    if isinstance(a, Rational) and isinstance(b, Rational):
        return bool(a == b)
    size = max(abs(a.evalf(DIGITS)), abs(b.evalf(DIGITS)))
    return bool(abs((a - b).evalf(DIGITS)) <= size * Rational(10) ** (2 - DIGITS))


def main() -> None:
    """Serves, in a child process where the system can fork."""
    import logging

    logging.disable()
    same("x+1", "1+x")  # loads what the first comparison needs before children are made
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
