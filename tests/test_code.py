"""Programs and their unit tests: right ones, wrong ones, and those that try to pass without a solution."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_rewards import rewards, scores_of

from rllab.rewards.code import code, program
from rllab.sandbox.program import guards, run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the sandbox needs fork and limits on resources")
TEST = ["assert double(2) == 4", "assert [double(3)] == [6]"]


def test_a_program_that_passes_its_tests_has_reward_1() -> None:
    right, half = "Here:\n```python\ndef double(x):\n    return 2 * x\n```\nDone.", "def double(x): return 4"
    prose = "I do not know."
    assert code(["p"] * 3, [right, half, prose], tests=[TEST] * 3) == [1.0, 0.0, 0.0]
    assert code(["p"] * 3, [right, half, prose], tests=[TEST] * 3, partial=True) == [1.0, 0.5, 0.0]
    assert code(["p"], [right], tests=[None]) == [None]
    assert code(["p"], [[{"role": "assistant", "content": right}]], tests=[TEST[0]]) == [1.0]
    assert program("```\na\n```\n```py\nb\n```") == "b\n" and program("```python\ncut off") == "cut off"


def test_it_reads_the_formats_of_benchmarks() -> None:
    mbpp = {"test_list": [["assert math.isclose(half(3), 1.5)"]], "test_imports": [["import math"]]}
    assert code(["p"], ["def half(x): return x / 2"], **mbpp) == [1.0]
    assert code(
        ["p"], ["def half(x): return x / 2"], test_list=[["assert half(3) == Y"]], test_setup_code=["Y = 1.5"]
    ) == [1]
    head = "from math import pi\n\ndef area(r):\n    '''Of a circle.'''\n"
    checks = {
        "test": ["def check(candidate):\n    assert abs(candidate(1) - 3.14159) < 1e-4\n"],
        "entry_point": ["area"],
    }
    assert code([head], ["    return pi * r * r"], **checks) == [1.0]
    assert code([head], [head + "    return pi * r"], **checks) == [1.0] and code(
        [head], ["    return 3"], **checks
    ) == [0]
    assert code(["Write area."], ["def area(r): return 3.14159"], **checks) == [1.0]
    streams = json.dumps({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]})
    summed = "a, b = map(int, input().split())\nprint(a + b)"
    threads = "from threading import Thread\nThread(target=lambda: print(sum(map(int, input().split())))).start()"
    assert code(["p"], [threads], input_output=[streams]) == [1.0]
    assert code(["p"] * 2, [summed, "print(3)"], input_output=[streams] * 2, partial=True) == [1.0, 0.5]
    calls = {"inputs": [[[1, 2]], [[]]], "outputs": [[3], [0]], "fn_name": "total"}
    method = "class Solution:\n    def total(self, xs): return sum(xs)"
    assert code(["p"] * 3, [method, "total = sum", "total = len"], tests=[calls] * 3) == [1.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="a row has the keys inputs"):
        code(["p"], ["x"], tests=[{"inputs": []}])
    with pytest.raises(ValueError, match="tests are assertions as texts"):
        code(["p"], ["x"], tests=[[1]])


CHEATS = {
    "leaves early": "import os\nos._exit(0)",
    "exits": "raise SystemExit(0)",
    "exits in the test": "def double(x): raise SystemExit(0)",
    "equals everything": "class A:\n    def __eq__(self, other): return True\ndef double(x): return A()",
    "borrows what equals everything": "from unittest.mock import ANY\ndef double(x): return ANY",
    "says that it passed": "import os\nfor i in range(64):\n    try: os.write(i, b'ran1111')\n    except OSError: 0",
    "ends its supervisor": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\ndef double(x): return 4",
    "changes what runs it": "import builtins\nbuiltins.exec = builtins.compile = lambda *a, **k: 0\ndef double(x): 0",
    "catches assertions": "import builtins\nbuiltins.AssertionError = KeyError\ndef double(x): return 0",
}  # fmt: skip


@pytest.mark.parametrize("cheat", CHEATS)
def test_programs_that_cheat_pass_no_test(cheat: str) -> None:
    assert not any(run(CHEATS[cheat], TEST, seconds=5).passed)


def test_equality_of_pythons_own_classes_counts() -> None:
    counts = "from collections import Counter\nfrom fractions import Fraction\nfrom dataclasses import dataclass\n"
    counts += "@dataclass\nclass P:\n    x: int\n"
    tests = ["assert Counter('aab') == {'a': 2, 'b': 1}", "assert Fraction(1, 2) == 0.5", "assert P(1) == P(1)"]
    assert run(counts, [*tests, "assert P(1) == P(2)", "assert 1 == 1 == 1"]).passed == [True, True, True, False, True]


def test_time_memory_and_output_are_bounded() -> None:
    start = time.monotonic()
    outcome = run("while True: pass", TEST, seconds=1)
    assert outcome.late and not outcome.ran and outcome.passed == [False, False] and time.monotonic() - start < 8
    assert "MemoryError" in run("x = bytearray(3 << 30)", memory=512).complained
    endless = run("while True: print('x' * 1000)", seconds=8)
    assert not endless.ran and "File too large" in endless.complained
    assert run("def double(x):\n    while x > 2: pass\n    return 2 * x", TEST, seconds=1).passed == [True, False]
    assert run("import numpy\nprint(numpy.ones(3).sum(), input())", stdin="and 4").printed == "3.0 and 4\n"


def test_no_process_of_a_program_is_left(tmp_path: Path) -> None:
    name = f"left-{os.getpid()}"
    away = f"os.setsid(); os.execvp('sleep', ['{name}', '77'])"
    run(f"import os, time\nfor _ in range(5):\n    if not os.fork(): {away}\ntime.sleep(0.3)", seconds=3)
    assert name not in subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout


def test_a_program_reaches_no_network_and_changes_no_files(tmp_path: Path) -> None:
    guarded = guards()
    if "not on this machine: no network" not in guarded:
        outcome = run("import socket\nsocket.create_connection(('127.0.0.1', 22), 2)")
        assert "unreachable" in outcome.complained or "PermissionError" in outcome.complained
    if "not on this machine: no changes" not in guarded:
        (tmp_path / "mine").write_text("mine")
        script = f"import os\nopen('here', 'w').write('fine')\nos.remove({str(tmp_path / 'mine')!r})"
        assert "PermissionError" in run(script).complained and (tmp_path / "mine").exists()
    os.environ["A_SECRET"] = "x"
    assert run("import os\nprint('A_SECRET' in os.environ)").printed == "False\n"


def test_code_is_a_reward(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reward = rewards("[{name: code, partial: true, seconds: 2}]", tmp_path)
    assert scores_of(reward, ["def double(x): return 4"], tests=[TEST]).tolist() == [[0.5]]
    assert "guards against accidents, not against malice: bounded time, memory" in capfd.readouterr().err
