"""Whether a program passes its unit tests; it runs in the sandbox."""

import functools
import json
import os
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from rllab.core.messages import last_text
from rllab.core.ranges import Count, Positive
from rllab.sandbox.program import guards, run

_BLOCK = re.compile(r"```(?:python|py|Python)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


class _Problem(NamedTuple):
    """The tests of a program.

    before: code in front of the program. setup: code in front of the program, and in front of its tests. tests:
    assertions. streams: pairs of input and output. entry: the function that is tested, where that is known.
    """

    before: str = ""
    setup: str = ""
    tests: Sequence[str] = ()
    streams: Sequence[tuple[str, str]] = ()
    entry: str = ""


def code(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    *,
    seconds: Positive = 5.0,  # time limit of a program with its tests, or with one input
    memory: Count = 1024,  # memory limit of a program in MiB
    partial: bool = False,  # reward the share of tests that pass; else 1 if all pass
    **columns: Sequence[Any],
) -> list[float | None]:
    """1 where a completion's program passes all its tests, else 0, or with `partial` the share that it passes.

    The program is the last fenced block, or all of the text where there is none. Its tests are in the row, as
    benchmarks have them: a list of assertions (`tests` or MBPP's `test_list`, with `test_setup_code` or
    `test_imports`), HumanEval's `test` with `entry_point`, or `input_output` (also as `tests`), APPS's
    {"inputs": [...], "outputs": [...]} or its text: compared by what the program prints, word by word, or, with
    "fn_name", by what a function returns. None where a row has no tests.

    seconds: for a program with its tests, or with one input; choose `reward_seconds` so that a round in which all
    programs hang fits into it. memory: MiB.

    Raises:
        ValueError: a row's tests are none of these.
    """
    _print_guards()
    rows = [{k: v[i] for k, v in columns.items()} for i in range(len(completions))]
    problems = [_problem(row, prompt) for row, prompt in zip(rows, prompts, strict=True)]

    def share(problem: _Problem | None, text: str) -> float | None:
        if problem is None:
            return None
        passed = _passed(problem, program(text), seconds, memory)
        return sum(passed) / len(passed) if partial else float(all(passed))

    with ThreadPoolExecutor(_cores()) as pool:
        return list(pool.map(share, problems, map(last_text, completions)))


def program(text: str) -> str:
    """The program in a text: its last fenced block, or all of it."""
    blocks = _BLOCK.findall(text)
    return str(blocks[-1]) if blocks else text


def _passed(problem: _Problem, written: str, seconds: float, memory: int) -> list[bool]:
    passed = []
    if problem.tests:
        whole, known = f"{problem.before}\n{written}", {"setup": problem.setup, "entry": problem.entry}
        passed = run(whole, problem.tests, **known, seconds=seconds, memory=memory).passed
    for given, wanted in problem.streams:
        output = run(written, stdin=given, seconds=seconds, memory=memory)
        passed.append(output.ran and _lines(output.printed) == _lines(wanted))
    return passed


def _lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


def _problem(row: dict[str, Any], prompt: Any) -> _Problem | None:
    setup = "\n".join([row.get("test_setup_code") or "", *(row.get("test_imports") or [])])
    if row.get("test") and (entry := row.get("entry_point")):
        checks = [f"{row['test']}\ncheck({entry})"]
        if not isinstance(prompt, str) or f"def {entry}" not in prompt:
            return _Problem(setup=setup, tests=checks, entry=entry)
        # the completion continues the prompt; tests may call what else the prompt defines
        return _Problem(prompt, prompt if _compiles(prompt) else setup, checks, entry=entry)
    tests: Any = next((row[k] for k in ("tests", "test_list", "input_output") if row.get(k)), None)
    if isinstance(tests, str) and tests.lstrip().startswith(("{", "[")):
        tests = json.loads(tests)
    if isinstance(tests, dict):
        return _pairs(tests, setup)
    tests = [tests] if isinstance(tests, str) else tests
    if tests and not all(isinstance(t, str) for t in tests):
        raise ValueError(f"tests are assertions as texts, or inputs with outputs; a row has {str(tests)[:80]}")
    return _Problem(setup=setup, tests=list(tests)) if tests else None


def _compiles(source: str) -> bool:
    try:
        compile(source, "<prompt>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def _pairs(tests: dict[str, Any], setup: str) -> _Problem:
    if not {"inputs", "outputs"} <= tests.keys() or len(tests["inputs"]) != len(tests["outputs"]):
        raise ValueError(f"tests need as many inputs as outputs; a row has the keys {', '.join(tests)}")
    pairs = list(zip(tests["inputs"], tests["outputs"], strict=True))
    if not (name := tests.get("fn_name")):
        return _Problem(streams=[(_stream(given), _stream(wanted)) for given, wanted in pairs])
    call = f"(Solution().{name} if 'Solution' in globals() else {name})"
    check = "found = {}(*{!r})\nassert found == {!r} or [found] == {!r}"  # some data sets wrap the result in a list
    return _Problem(
        setup=setup, tests=[check.format(call, given, wanted, wanted) for given, wanted in pairs], entry=name
    )


def _stream(lines: Any) -> str:
    return lines if isinstance(lines, str) else "\n".join(map(str, lines))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _print_guards() -> None:
    line = f"code: programs run in a sandbox, apart from their tests: {guards()}"
    print(line, file=sys.stderr)
