"""Programs and their unit tests: right ones, wrong ones, and those that try to pass without a solution."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_rewards import rewards, scores_of

from rllab.core.errors import MachineFault
from rllab.rewards.code import code, program
from rllab.sandbox import confine, supervisor
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


EVERYTHING = "class E:\n    def __getattr__(self, name): return E()\n"
EVERYTHING += "for n in 'eq le lt ge gt ne contains bool sub rsub'.split():\n"
EVERYTHING += "    setattr(E, f'__{n}__', lambda self, *other: True)\n"
FROM_FRAMES = """
import ast, gc, re, sys
def double(x):
    frame = sys._getframe(1)
    while frame:
        for value in (*frame.f_locals.values(), *frame.f_globals.values(), *frame.f_code.co_consts, *gc.get_objects()):
            match = re.search(rf"double\\({x}\\)\\]? == \\[?(\\d+)", value) if isinstance(value, str) else None
            if match:
                return int(match[1])
        frame = frame.f_back
"""
FROM_PIPES = """
import os, select
def double(x):
    for fd in range(64):
        try:
            os.write(fd, b'11')
            os.write(fd, b'{"value": 9, "changed": []}\\n' * 3)
        except OSError: pass
    if b'assert' in b''.join(os.read(fd, 1 << 16) for fd in select.select([0], [], [], 0)[0]): return 4
"""
CHEATS = {
    "leaves early": "import os\nos._exit(0)",
    "exits": "raise SystemExit(0)",
    "exits in the test": "def double(x): raise SystemExit(0)",
    "equals everything": EVERYTHING + "def double(x): return E()",
    "borrows what equals everything": "from unittest.mock import ANY\ndef double(x): return ANY",
    "borrows it from Python's tests": "from test.support import ALWAYS_EQ\ndef double(x): return ALWAYS_EQ",
    "is a number that equals all": EVERYTHING.replace("class E:", "class E(int):") + "def double(x): return E(7)",
    "is a class that equals all": EVERYTHING.replace("class E:", "class E(type):") + "def double(x): return E",
    "says that it passed": "import os\nfor i in range(64):\n    try: os.write(i, b'111111')\n    except OSError: 0",
    "answers for itself": FROM_PIPES,
    "looks for the tests": FROM_FRAMES,
    "ends its supervisor": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\ndef double(x): return 9",
    "changes what runs it": "import builtins\nbuiltins.exec = builtins.compile = lambda *a, **k: 0\ndef double(x): 0",
    "changes what compares": "import builtins, operator, json, ast\nclass E:\n    def __eq__(s, o): return True\n"
    "def double(x): return E()\nbuiltins.isinstance = operator.eq = json.loads = ast.parse = lambda *a, **k: True",
    "changes types": EVERYTHING + "import builtins\nbuiltins.type = lambda x: int\ndef double(x): return E()",
    "catches assertions": "import builtins\nbuiltins.AssertionError = KeyError\ndef double(x): return 0",
    "shadows what tests use": "def abs(x): return 0\nclass math:\n    isclose = lambda *a: 1\ndef double(x): return 9",
}  # fmt: skip
CHECKED = [*TEST, "assert abs(double(2) - 4) < 1e-6", "assert math.isclose(double(3), 6)", "assert 4 in [double(2)]"]
CHECKED += ["assert 3.9 < double(2) < 4.1", "assert str(double(2)) == '4'", "assert double(5) == 10"]


@pytest.mark.parametrize("cheat", CHEATS)
def test_programs_that_cheat_pass_no_test(cheat: str) -> None:
    assert not any(run(CHEATS[cheat], CHECKED, seconds=5).passed)


@pytest.mark.parametrize("kind", ["int", "__import__('numpy').int64", "__import__('fractions').Fraction"])
def test_an_honest_program_passes_whatever_its_numbers_are(kind: str) -> None:
    outcome = run(f"def double(x): return {kind}(2 * x)", CHECKED)
    assert all(outcome.passed), outcome.complained


def test_a_program_never_sees_what_is_expected() -> None:
    """The arguments of its functions reach a program; what is compared with their results does not."""
    spies = "seen = []\nclass E:\n"
    spies += "".join(f"    def __{n}__(s, o): seen.append(o); return True\n" for n in ("eq", "lt", "sub", "contains"))
    tests = ["assert double(2) == 41", "assert double(2) < 42", "assert 43 in double(2)", "assert double(2) - 44 == 0"]
    outcome = run(spies + "def double(x): seen.append(x); return E()", [*tests, "assert seen == [2, 2, 2, 2]"])
    assert outcome.passed == [False] * 4 + [True], outcome.complained


BEHAVIOUR = {  # program: tests that pass
    "def f(xs): xs.sort()\ndef g(m): m[0][0] = 9":
        ["xs = [3, 1]; f(xs)\nassert xs == [1, 3]", "m = [[1]]; g(m); assert m == [[9]]"],
    "class S:\n    def __init__(s): s.v = []\n    def push(s, x): s.v.append(x)\n    def __len__(s): return len(s.v)":
        ["s = S(); s.push(3)\nassert len(s) == 1 and s.v == [3] and isinstance(s, S) and not isinstance(3, S)"],
    "def apply(f, x): return f(x) + 1": ["assert apply(lambda v: 2 * v, 3) == 7"],
    "class Bad(ValueError): pass\ndef f(x): raise Bad(x) if x else KeyError('k')":
        ["try: f(1)\nexcept Bad as e: assert str(e) == '1'", "try: f(0)\nexcept KeyError as e: assert 'k' in e.args"],
    "def f(n):\n    for i in range(n): yield i": ["assert list(f(3)) == [0, 1, 2] and 2 in f(3)"],
    "def sum(a, b): return a * b": ["assert sum(3, 4) == 12"],
    "import enum\nclass C(enum.IntEnum): A = 3\ndef f(): return {(C.A, 2): [b'x', {10 ** 5000}]}":
        ["assert [*f().values()] == [[b'x', {10 ** 5000}]] and [*f()][0][0] == 3"],
    "from collections import namedtuple\ndef f(): return namedtuple('P', 'x y')(1, 2)":
        ["assert f().x == 1 and f() == (1, 2)"],
    "import numpy\ndef f(): return numpy.arange(3)": ["assert (f() == np.array([0, 1, 2])).all()"],
    "def f(t): return t.v + t.left.v":
        ["class T:\n    def __init__(s, v, l=0): s.v = v; s.left = l\nassert f(T(1, T(2))) == 3"],
    "class V:\n    def __init__(s, x): s.x = x\n    def __add__(s, o): return V(s.x + o.x)\n"
    "    def __eq__(s, o): return s.x == o.x": ["assert V(1) + V(2) == V(3) and V(1) != V(2)"],
    "import sys\ndef f(): return 1\nsys.exit()": ["assert f() == 1"],
    "import multiprocessing\ndef twice(x): return 2 * x\ndef f(x):\n    with multiprocessing.Pool(2) as pool:\n"
    "        return pool.map(twice, x)": ["assert f([1, 2]) == [2, 4]"],
}  # fmt: skip


@pytest.mark.parametrize("program", BEHAVIOUR)
def test_tests_use_programs_as_if_they_were_beside_them(program: str) -> None:
    outcome = run(program, BEHAVIOUR[program])
    assert all(outcome.passed), outcome.complained


def test_a_test_keeps_its_own_functions_and_names_to_itself() -> None:
    spy = "def f(g): return g.__globals__\ndef h(g): return g.__self__"
    assert (
        run(spy, ["def own(): return 4\nassert f(own)", "assert h([4].index)", "assert f('x'.format)"]).passed
        == [False] * 3
    )
    close = "def close(a, b): return abs(a - b) < 1e-6"
    cheat = "def close(a, b): return True\ndef f(): return 9"
    assert run(cheat, ["assert close(f(), 3)"], setup=close).passed == [False]
    head = "def poly(x): return x - 2\n\ndef root():\n    'Where poly is 0.'\n"
    check = {"test": ["def check(candidate): assert poly(candidate()) == 0"], "entry_point": ["root"]}
    answers = ["    return 2", head + "    return 2", "    return 9\ndef poly(x): return 0"]
    assert code([head] * 3, answers, **{k: v * 3 for k, v in check.items()}) == [1.0, 1.0, 0.0]


def test_equality_of_pythons_own_classes_counts() -> None:
    counts = "from collections import Counter\nfrom fractions import Fraction\nfrom dataclasses import dataclass\n"
    counts += "@dataclass\nclass P:\n    x: int\n"
    tests = ["assert Counter('aab') == {'a': 2, 'b': 1}", "assert Fraction(1, 2) == 0.5", "assert P(1) == P(1)"]
    assert run(counts, [*tests, "assert P(1) == P(2)", "assert 1 == 1 == 1"]).passed == [True, True, True, False, True]


def test_time_memory_and_output_are_bounded() -> None:
    start = time.monotonic()
    outcome = run("while True: pass", TEST, seconds=1)
    assert outcome.late and not outcome.ran and outcome.passed == [False, False] and time.monotonic() - start < 30
    assert "MemoryError" in run("x = bytearray(3 << 30)", memory=512).complained
    endless = run("while True: print('x' * 1000)", seconds=8)
    assert not endless.ran and "File too large" in endless.complained
    assert run("def double(x):\n    while x > 2: pass\n    return 2 * x", TEST, seconds=1).passed == [True, False]
    assert run("import numpy\nprint(numpy.ones(3).sum(), input())", stdin="and 4").printed == "3.0 and 4\n"


def test_no_process_of_a_program_is_left(tmp_path: Path) -> None:
    name = f"left-{os.getpid()}"
    away = f"os.setsid(); os.execvp('sleep', ['{name}', '77'])"
    run(f"import os, time\nfor _ in range(5):\n    if not os.fork(): {away}\ntime.sleep(0.3)", seconds=30)
    assert name not in subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ranks what it kills where memory runs out")
def test_where_memory_runs_out_programs_are_killed_first() -> None:
    """The memory of each process is bounded; of many together the kernel kills these, not the trainer."""
    seen = set[str]()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, "import time\ntime.sleep(1.5)", seconds=8)
        while not running.done():
            for name in Path("/proc/self/task").glob("*/children"):
                with contextlib.suppress(OSError):  # a process or thread that has just ended
                    seen |= {
                        Path(f"/proc/{child}/oom_score_adj").read_text().strip() for child in name.read_text().split()
                    }
            time.sleep(0.05)
    assert "1000" in seen


def probe(*expressions: str) -> list[str]:
    """What each expression gives in a program: its value, or the name of its exception."""
    lines = [f"try: print({e})\nexcept BaseException as error: print(type(error).__name__)\n" for e in expressions]
    return run("import os, socket, time\n" + "".join(lines), seconds=8).printed.splitlines()


def test_python_may_be_installed_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also below /tmp, which a program has as its home."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        venv.create(folder, symlinks=True)
        monkeypatch.setattr("rllab.sandbox.program.sys.executable", f"{folder}/bin/python")
        outcome = run("open('mine', 'w').write('2')\ndef f(): return int(open('mine').read())", ["assert f() == 2"])
    assert outcome.passed == [True], outcome.complained


def test_a_sandbox_that_cannot_be_made_is_no_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> bool:
        raise OSError("No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(confine, "adopts_orphans", lambda: True)
    monkeypatch.setattr(confine, "new_spaces", full)
    with pytest.raises(SystemExit, match="refused: its file system cannot be made") as error:
        supervisor._supervise({"stdin": ""})
    monkeypatch.setattr("rllab.sandbox.program._START", f"import sys; sys.exit({str(error.value)!r})")
    with pytest.raises(MachineFault, match=r"cannot be made \(No space left on device\)"):
        run("", ["assert True"])


def test_a_program_has_no_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/reward.md claims; what a machine may lack, where `guards` says that it has it."""
    mine, guarded = tmp_path / "mine", guards()
    mine.write_text("mine")
    monkeypatch.setenv("A_SECRET", "x")
    assert probe("os.getuid() == 0", "'A_SECRET' in os.environ") == ["False", "False"]
    if sys.platform == "linux":
        rights = ["socket.sethostname('x')", "time.clock_settime(0, 1.0)", "os.setuid(0)", "os.chroot('/')"]
        assert set(probe(*rights)) <= {"PermissionError", "OSError"}
    if "not on this machine: no changes" not in guarded:
        paths = (str(mine), "/etc/shadow", "/proc/1/environ", __file__)
        opened = [f"open({p!r}{mode}).read(1)" for p in paths for mode in ("", ", 'w'")]
        failed = {*probe(*opened, f"os.remove({str(mine)!r})", f"os.listdir({str(tmp_path)!r})")}
        assert failed <= {"PermissionError", "FileNotFoundError", "OSError"} and mine.read_text() == "mine"
    if "not on this machine: no network" not in guarded:
        assert probe("socket.create_connection(('127.0.0.1', 22), 2)") in (["OSError"], ["PermissionError"])
    if "not on this machine: 64 MiB" not in guarded:
        full = run("for i in range(200): open(f'f{i}', 'wb').write(bytes(1 << 20))\n")
        assert not full.ran and "No space left on device" in full.complained
    many = run("import os, time\nfor i in range(300):\n    print(i, flush=True)\n    if not os.fork(): time.sleep(60)")
    assert not many.ran and int(many.printed.split()[-1]) <= 64


WITHOUT = """
from rllab.core.errors import MachineFault
from rllab.sandbox.program import guards, run
try:
    print(guards(), run(PROGRAM, ["assert double(2) == 4"]))
except MachineFault as refused:
    print(refused)
"""


@pytest.mark.skipif(not shutil.which("setpriv") or os.getuid() != 0, reason="takes a capability from root")
@pytest.mark.parametrize("python", [sys.executable, "/usr/bin/python3"])
def test_root_that_may_not_make_name_spaces_is_confined_or_refused(python: str) -> None:
    """Where nobody can read Python (it lies in /root), there is no user to become, and the program is not run."""
    program = "import os\ndef double(x): return 2 * x\ntry: print(open('/etc/shadow').read(), os.getuid())\n"
    program += "except PermissionError: print('no file', os.getuid() == 0)"
    words = ["setpriv", "--bounding-set=-sys_admin", python, "-c", WITHOUT.replace("PROGRAM", repr(program))]
    source = {"PYTHONPATH": str(Path(confine.__file__).parents[2])}
    done = subprocess.run(words, env=os.environ | source, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode and "Traceback" not in done.stderr:
        pytest.skip("setpriv fails, or there is no such Python")
    if "run the lab as another user" not in done.stdout:
        assert "not on this machine: no network" in done.stdout and "passed=[True]" in done.stdout, done
        assert "printed='no file False" in done.stdout or "not on this machine: no changes" in done.stdout, done


def test_code_is_a_reward(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reward = rewards("[{name: code, partial: true, seconds: 2}]", tmp_path)
    assert scores_of(reward, ["def double(x): return 4"], tests=[TEST]).tolist() == [[0.5]]
    assert "apart from their tests: bounded time, memory" in capfd.readouterr().err
