"""LaTeX: the formula that was answered, and whether it equals the target, by math-verify in a process of its own."""

import atexit
import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from functools import lru_cache

from rllab.answers.number import DANGLING, REFUSED
from rllab.answers.number import placed as number_placed
from rllab.answers.numerals import number
from rllab.answers.parts import NotCommitted
from rllab.core.errors import MachineFault

DEADLINE = 0.6  # seconds for one comparison; ordinary ones take milliseconds
_START = 60.0  # seconds for the process to load sympy
_LONGEST = 1000  # characters; a longer answer is compared as text alone

_SPACING = re.compile(
    r"(?<!\\)\\(?:left|right|displaystyle|,|;|!|:| |quad|qquad)(?![a-zA-Z])|(?<=[^a-zA-Z\\])\s+|\s+(?=[^a-zA-Z])"
)
_UNITS = re.compile(r"(?<=[\d})])\s*\\(?:text|mathrm|mbox)\s*\{\s*[^{}]*\}(?:\s*\^\s*\{?\d\}?)?$|\s*\^\s*\{?\\circ\}?$")
_NAMED = re.compile(r"^\s*[a-zA-Z]\s*=\s*(?=[^=]+$)|(?<=\d)\\?%$|\\\$|^\\text\{([^{}]*)\}$")

_MATHS = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.S)


def marked(segment: str) -> str | None:
    """The first formula behind a mark, or its sentence."""
    text = segment[:2000].strip()
    if REFUSED.search(text.split("\n")[0]):
        raise NotCommitted("it refuses to answer")
    formula = _MATHS.search(text)
    if formula and formula.start() < 40:
        return next(g for g in formula.groups() if g).strip()
    end = re.search(r"[.!?](?=\s|$)|\n", text)
    return (text[: end.start()] if end else text).strip(" *_`\"'") or None


def placed(part: str) -> str | None:
    """The last formula, else the last number, else a text that is short."""
    if DANGLING.search(part.rstrip()[-20:]):
        raise NotCommitted("cut off")
    formulas = list(_MATHS.finditer(part))
    if formulas:
        return next(g for g in formulas[-1].groups() if g).strip()
    if len(part.strip()) < 60 and "\n" not in part.strip():
        return part.strip().rstrip(".") or None
    return number_placed(part)


def equal(answer: str, target: str) -> tuple[bool, str]:
    """Whether the answer equals the target; and why not, where that is not their difference.

    math-verify is asked only where the two are neither the same text nor numbers.
    """
    mine, its = _normal(answer), _normal(target)
    if mine == its:
        return True, ""
    a, b = number(mine), number(its)
    if a and b:
        return a.same(b), ""
    if max(len(answer), len(target)) > _LONGEST:
        return False, "too long to compare"
    said = _worker().ask(mine, its)
    return said is True, "" if isinstance(said, bool) else said


def _normal(latex: str) -> str:
    latex = latex.strip().strip("$").strip().rstrip(".")
    latex = _SPACING.sub("", latex)
    latex = re.sub(r"\\[dt]frac", r"\\frac", latex)
    latex = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", latex).replace("{,}", "")
    return _NAMED.sub(lambda m: m[1] or "", _UNITS.sub("", latex))


class Worker:
    """A math-verify process; `ask` kills what serves when it is late, and the next question finds another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._said: queue.Queue[str] = queue.Queue()
        self._serving = 0

    def ask(self, answer: str, target: str) -> bool | str:
        """True, False, or why there is no verdict."""
        with self._lock:
            self._ready()
            assert self._process is not None and self._process.stdin is not None
            try:
                self._process.stdin.write(json.dumps([answer, target]) + "\n")
                self._process.stdin.flush()
                said = json.loads(self._said.get(timeout=DEADLINE) or "null")
            except (queue.Empty, BrokenPipeError):
                self._kill()
                return f"math-verify took longer than {DEADLINE} s"
            if said is None:
                self._serving = 0
                return "math-verify ended"
            if isinstance(said, dict):  # what served was killed for its memory, and another is ready
                self._serving = said["ready"]
                return "math-verify ran out of memory"
            return said  # type: ignore[no-any-return]

    def _ready(self) -> None:
        """Starts the process where there is none, and waits for the one that serves."""
        if self._process is None or self._process.poll() is not None:
            self._serving, self._said = 0, queue.Queue()
            env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") or k == "PYTHONPATH"}
            line = [sys.executable, "-m", "rllab.answers.latex_worker"]
            self._process = subprocess.Popen(line, stdin=-1, stdout=-1, stderr=-3, text=True, encoding="utf-8", env=env)
            threading.Thread(target=_read, args=(self._process, self._said), daemon=True).start()
            atexit.register(self._process.kill)
        while not self._serving:
            try:
                said = json.loads(self._said.get(timeout=_START) or "null")
            except queue.Empty:
                said = None
            if said is None:
                raise MachineFault("math-verify does not start; try: python -m rllab.answers.latex_worker")
            self._serving = said["ready"] if isinstance(said, dict) else 0

    def _kill(self) -> None:
        with contextlib.suppress(OSError):
            os.kill(self._serving, getattr(signal, "SIGKILL", signal.SIGTERM))
        self._serving = 0


def _read(process: "subprocess.Popen[str]", said: "queue.Queue[str]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        said.put(line)
    said.put("")


@lru_cache(1)
def _worker() -> Worker:
    return Worker()
