"""Submitted programs: what they print is read, and the hostile ones reach nothing and leave nothing."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rllab.core.errors import MachineFault, Mistake
from rllab.evals.grading.part import Place, Row
from rllab.evals.grading.programs import LONGEST, completions_of, scores_of
from rllab.sandbox import confine, program
from rllab.sandbox.script import ScriptOutcome, run_script

INSTALLED = Path(sys.prefix).parts[2:3] if Path(sys.prefix).is_relative_to("/tmp") else ()  # seen in a home then
QUESTIONS: list[Row] = [
    {"id": 3, "question": "1 + 1 <é>", "kind": "number", "target": "2"},
    {"id": "b", "question": "A or B?", "kind": "choice", "choices": ["x", "y"], "gold": "A"},
]
ANSWERS = """
import json, sys
for line in open(sys.argv[1]):
    row = json.loads(line)
    print(json.dumps({"id": row["id"], "completion": TEXT}))
"""


def answering(text: str) -> str:
    """A program that gives each question the completion of an expression, which may use its `row`."""
    return ANSWERS.replace("TEXT", text)


@dataclass
class Submitted:
    """A submission in a folder that all users can reach; its neighbour is a private file."""

    folder: Path
    private: Path
    scratch: Path
    limits: dict[str, Any] = field(default_factory=lambda: {"seconds": 20.0, "memory": 1.0})

    def place(self, text: str, name: str = "predict.py", **limits: Any) -> Place:
        (self.folder / name).write_text(text)
        where = {"seed": 0, "scratch": self.scratch, "folder": self.folder}
        return Place(path=self.folder / name, kind="program", base=None, **where | self.limits | limits)

    def run(self, text: str, *arguments: str, **limits: Any) -> ScriptOutcome:
        (self.folder / "predict.py").write_text(text)
        inputs = {"questions.jsonl": "asked\n"}
        limits = {"seconds": 20.0, "memory": 1024, "scratch": self.scratch} | limits
        return run_script(self.folder, "predict.py", ["questions.jsonl", *arguments], inputs, **limits)

    def tried(self, *expressions: str) -> list[str]:
        """What each expression gives in a program: its value, or the name of its exception."""
        lines = [f"try: print({e})\nexcept BaseException as error: print(type(error).__name__)\n" for e in expressions]
        outcome = self.run("import os, socket\n" + "".join(lines))
        assert outcome.fault == "", outcome
        return outcome.printed.splitlines()


@pytest.fixture
def submitted() -> Iterator[Submitted]:
    with tempfile.TemporaryDirectory() as name:
        folder, private, scratch = Path(name, "ann"), Path(name, "private.jsonl"), Path(name, "scratch")
        private.write_text("the gold")
        for path in (Path(name), folder, scratch):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
        submission = Submitted(folder, private, scratch)
        try:
            submission.run("")
        except MachineFault as fault:
            pytest.skip(str(fault))
        yield submission
        assert list(scratch.iterdir()) == []


def completions(rows: Sequence[Row]) -> dict[Any, str]:
    return {row["id"]: row["completion"] for row in rows if "id" in row}


def remarks(rows: Sequence[Row]) -> str:
    return "\n".join(row["remark"] for row in rows if "remark" in row)


def fault_of(place: Place) -> str:
    with pytest.raises(Mistake) as fault:
        completions_of(place, QUESTIONS)
    return str(fault.value)


def test_a_program_answers_questions_and_never_gets_the_gold(submitted: Submitted) -> None:
    rows = completions_of(submitted.place(answering("line")), QUESTIONS)
    given = {ident: json.loads(text) for ident, text in completions(rows).items()}
    assert given == {
        3: {"id": 3, "question": "1 + 1 <é>", "kind": "number"},
        "b": {"id": "b", "question": "A or B?", "kind": "choice", "choices": ["x", "y"]},
    }
    assert remarks(rows) == ""


def test_a_program_runs_as_in_its_own_folder(submitted: Submitted) -> None:
    (submitted.folder / "beside.py").write_text("from pathlib import Path\nX = Path(__file__).with_name('w.txt')")
    (submitted.folder / "w.txt").write_text("weights")
    (submitted.folder / "questions.jsonl").write_text("my own")
    outcome = submitted.run(
        "import os, sys, beside, numpy\nfrom pathlib import Path\n"
        "assert __name__ == '__main__' and sys.argv == ['predict.py', 'questions.jsonl']\n"
        "assert open('w.txt').read() == Path(__file__).with_name('w.txt').read_text() == beside.X.read_text()\n"
        "open('cache', 'w').write('mine')\nprint(open(sys.argv[1]).read(), *sorted(os.listdir()), numpy.ones(2).sum())"
    )
    listed = ["beside.py", "cache", "predict.py", "questions.jsonl", "w.txt"]
    assert outcome.printed.split() == ["asked", *sorted([*listed, *INSTALLED]), "2.0"], outcome


def test_torch_works_within_four_gib(submitted: Submitted) -> None:
    text = "import torch\nlinear = torch.nn.Linear(256, 256)\nprint(linear(torch.ones(8, 256)).shape[1])"
    outcome = submitted.run(text, memory=4096, seconds=100)
    assert (outcome.fault, outcome.printed) == ("", "256\n")
    outcome = submitted.run("import torch\ntorch.zeros(2 << 30)", memory=4096, seconds=100)
    assert (outcome.fault, outcome.words) == ("memory", "used more memory than 4 GiB")


def test_lines_that_are_no_answers_become_remarks(submitted: Submitted) -> None:
    lines = ["loading <b>\x1b[31m", "", "[1]", "{" * 5000, "[" * 100_000, '{"id": 9, "completion": "x"}']
    lines += ['{"id": 3, "prediction": 2}', '{"id": "3", "completion": "again"}', '{"id": "b", "completion": [1]}']
    lines += ['{"id": "b", "completion": "\\ud800<script>\\u001b[31m"}']
    place = submitted.place(f"print({chr(10).join(lines)!r})")
    rows = completions_of(place, QUESTIONS)
    assert completions(rows) == {3: "2", "b": "?<script>\x1b[31m"}
    assert remarks(rows).splitlines() == [
        "output of predict.py, line 1: it is no JSON object and was left out (and 3 more lines)",
        "output of predict.py, line 6: it has an id that no question has, and was left out",
        "output of predict.py, line 8: it has an id that came before, and was left out",
        "output of predict.py, line 9: it has no id, or no completion that is text, and was left out",
    ]


def test_a_completion_that_is_too_long_counts_as_an_empty_one(submitted: Submitted) -> None:
    rows = completions_of(submitted.place(answering(f"'é' * {LONGEST} + 'x' * (row['id'] == 3)")), QUESTIONS)
    assert completions(rows) == {3: "", "b": "é" * LONGEST}
    assert "line 1: its completion is longer than 100,000 characters and counts as an empty one" in remarks(rows)
    place = submitted.place(answering("'x' * 2_100_000"))
    assert "printed no JSON lines with id and completion" in fault_of(place)


def test_what_was_printed_before_an_exception_counts(submitted: Submitted) -> None:
    rows = completions_of(submitted.place(answering("row['choices'][1]").replace("in open", "in [*open").replace(
        "argv[1]):", "argv[1])][::-1]:")), QUESTIONS)  # fmt: skip
    assert completions(rows) == {"b": "y"}
    assert remarks(rows) == (
        "predict.py ended with an exception: KeyError: 'choices' (line 5 of predict.py); what it had printed counts"
    )


FAULTS = {  # program: why nothing counts
    "print('no\\x1b[31m', 'x' * 999)\nimport sys\nsys.stderr.write('why\\x07\\n')":
        "predict.py printed no JSON lines with id and completion; the first line that it printed is: no\\u001b[31m xxx",
    "": "predict.py printed no JSON lines with id and completion; it printed nothing",
    "import sys\nsys.exit(3)": "predict.py ended with exit code 3; it printed nothing",
    "import sys\nsys.exit('no weights\\x1b')": "predict.py ended with exit code 1: no weights\\u001b; it printed",
    "def f(): raise ValueError('<b>\\x1b' + 'x' * 999 + '\\nmore')\nf()":
        "predict.py ended with an exception: ValueError: <b>\\u001bxxxxx",
    "x = = 1": "predict.py ended with an exception: SyntaxError: invalid syntax (line 1 of predict.py)",
    "import ctypes\nctypes.string_at(0)": "predict.py was ended by the signal SIGSEGV",
    "print('\\n' * 1_000_002)": "predict.py printed more than 1,000,000 lines",
    "x = bytearray(2 << 30)": "predict.py used more memory than 1 GiB",
    "import numpy\nnumpy.ones(1 << 28)": "predict.py used more memory than 1 GiB",
}  # fmt: skip


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_is_named_in_words(text: str, submitted: Submitted) -> None:
    fault = fault_of(submitted.place(text))
    assert fault.startswith(FAULTS[text]) and len(fault) < 1000 and "\x1b" not in fault, fault
    if "stderr" in text:
        assert fault.endswith("; the last line of its error output is: why\\u0007")


def test_a_program_that_hangs_costs_its_time_limit_and_no_more(submitted: Submitted) -> None:
    place, start = submitted.place("import time\nwhile True: time.sleep(9)", seconds=1.0), time.monotonic()
    assert fault_of(place) == "predict.py did not end within 1 s"
    assert 1 <= time.monotonic() - start < 30


BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
ENDLESS = "while True:\n    try: print('x' * (1 << 20))\n    except OSError: pass"
AWAY = """
import os, time
for _ in range(5):
    if not os.fork():
        os.setsid()
        os.execvp('sleep', ['sleep', '77', *__import__('sys').argv[2:]])
time.sleep(0.3)
print(os.waitpid(-1, os.WNOHANG))
"""


def processes(mark: str) -> list[str]:
    """The command lines of running processes that hold a mark."""
    words = ["ps", "axww", "-o", "args"]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if mark in line and "bash" not in line]


@pytest.mark.parametrize("text", [BOMB, AWAY], ids=["bomb", "away"])
def test_no_process_of_a_script_is_left(text: str, submitted: Submitted) -> None:
    mark = f"0.00{time.time_ns()}"  # `sleep` takes it
    start = time.monotonic()
    outcome = submitted.run(text, mark, seconds=1.0 if text == BOMB else 30.0)
    assert outcome.fault == ("late" if text == BOMB else "") and time.monotonic() - start < 30, outcome
    assert outcome.printed == ("" if text == BOMB else "(0, 0)\n")  # all five were running
    assert processes(mark) == []


def test_the_same_program_prints_the_same(submitted: Submitted) -> None:
    text = "import os\nprint(hash('a'), os.listdir(), {'b', 'c', 'd'})"
    assert submitted.run(text).printed == submitted.run(text).printed != ""


def test_a_gigabyte_is_never_printed(submitted: Submitted) -> None:
    start = time.monotonic()
    place = submitted.place(ENDLESS, seconds=30.0)
    assert fault_of(place) == "predict.py printed more than 64 MiB" and time.monotonic() - start < 30
    outcome = submitted.run(ENDLESS.replace("'x' * (1 << 20)", "'x' * (1 << 20), file=sys.stderr").replace(
        "while", "import sys\nwhile"), output=1 << 20)  # fmt: skip
    assert (outcome.fault, outcome.words) == ("output", "printed more than 1 MiB")
    exactly = submitted.run("print(end='x' * (1 << 20))", output=1 << 20)
    assert exactly.fault == "" and len(exactly.printed) == 1 << 20
    sparse = submitted.run("import os\nos.ftruncate(1, 1 << 40)", output=1 << 20)
    assert sparse.fault == "exception" and "File too large" in sparse.words


@pytest.fixture(params=["both", "its own root alone"])
def layers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps a program from files: each layer holds without the other."""
    if request.param != "both":
        change = "from rllab.sandbox import confine\nconfine.confine = lambda *places, **named: False\ndel sys"
        monkeypatch.setattr("rllab.sandbox.program._START", program._START.replace("del sys", change))


def test_a_program_writes_nowhere_outside(submitted: Submitted, layers: None) -> None:
    outside = submitted.folder.parent / "written"
    for path in (submitted.folder, submitted.private):
        path.chmod(0o777)  # what keeps it from writing is not that the file is another user's
    names = [str(outside), str(submitted.private), str(submitted.folder / "predict.py"), __file__, sys.executable]
    names += [f"{confine.SUBMISSION}/new", f"{confine.SUBMISSION}/predict.py", "predict.py", "/usr/new", "/new"]
    before = {name: os.stat(name).st_mtime_ns for name in names if os.path.isfile(name) and name != "predict.py"}
    tried = submitted.tried(*(f"open({name!r}, 'w')" for name in names), f"os.remove({names[2]!r})")
    assert set(tried) <= {"OSError", "PermissionError", "FileNotFoundError"}, tried
    mode = submitted.tried(f"os.chmod({str(submitted.private)!r}, 0o700)", "os.chmod('predict.py', 0o700)")
    assert set(mode) <= {"OSError", "PermissionError", "FileNotFoundError"}, mode
    assert not outside.exists() and submitted.private.stat().st_mode & 0o777 == 0o777
    changed = {name for name, when in before.items() if os.stat(name).st_mtime_ns != when}
    assert changed <= {str(submitted.folder / "predict.py")}  # which `tried` has written


def test_a_program_reads_no_private_file(submitted: Submitted, layers: None) -> None:
    """By its absolute path, by a link in the submission, through the file system of another process."""
    (submitted.folder / "link").symlink_to(submitted.private)
    (submitted.folder / "up").symlink_to(submitted.folder.parent)
    names = [str(submitted.private), "link", f"{confine.SUBMISSION}/link", "up/private.jsonl", "/etc/shadow"]
    names += [f"{confine.SUBMISSION}/../private.jsonl", f"/proc/{os.getpid()}/root{submitted.private}", __file__]
    tried = submitted.tried(
        *(f"open({name!r}).read()" for name in names), f"os.listdir({str(Path(__file__).parent)!r})"
    )
    assert set(tried) <= {"PermissionError", "FileNotFoundError"} and len(tried) == len(names) + 1, tried


def test_a_program_has_no_network(submitted: Submitted) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(0.2)
        tcp.settimeout(0.2)
        connect = f"socket.create_connection({tcp.getsockname()!r}, 2)"
        send = f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', {udp.getsockname()!r})"
        assert set(submitted.tried(connect, send)) <= {"OSError", "PermissionError"}
        for wait in (tcp.accept, lambda: udp.recv(1)):
            with pytest.raises(TimeoutError):
                wait()


def test_a_program_without_a_folder_sees_no_other_submission(submitted: Submitted) -> None:
    (submitted.folder / "bob.py").write_text("X = 1")
    place = submitted.place(answering("' '.join(__import__('os').listdir())"), "ann.py")
    alone = Place(**vars(place) | {"folder": None})
    assert "bob.py" in completions(completions_of(place, QUESTIONS))[3]
    assert set(completions(completions_of(alone, QUESTIONS))[3].split()) == {"questions.jsonl", "ann.py", *INSTALLED}


@pytest.mark.skipif(os.getuid() != 0, reason="root runs programs as another user")
def test_files_that_only_their_owner_reads_are_read(submitted: Submitted) -> None:
    (submitted.folder / "w.txt").write_text("weights")
    (submitted.folder / "w.txt").chmod(0o600)
    assert submitted.run("print(open('w.txt').read())").printed == "weights\n"
    assert (submitted.folder / "w.txt").stat().st_mode & 0o777 == 0o600


GUARDS = {  # without the guard: what the machine lacks
    "confine.new_spaces = confine.without_sockets = lambda: False": "the network",
    "confine.new_root = confine.confine = lambda *places, **named: False": "other files",
    "confine.new_spaces, confine.become_nobody = lambda: False, lambda number: False": "lab runs as root",
}


@pytest.mark.parametrize("change", GUARDS)
def test_without_its_guards_a_program_is_not_run(
    change: str, submitted: Submitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    change += "; confine.python_is_readable = lambda: True"
    start = program._START.replace("del sys", f"from rllab.sandbox import confine\n{change}\ndel sys")
    monkeypatch.setattr("rllab.sandbox.program._START", start)
    with pytest.raises(MachineFault, match=f"submitted programs are not run here: .*{GUARDS[change.split(';')[0]]}"):
        submitted.run("print('it runs')")


CONTAINED = """
import os, sys
from pathlib import Path
from rllab.core.errors import MachineFault
from rllab.sandbox.script import run_script
try:
    print(run_script(Path(sys.argv[1]), "predict.py", sys.argv[2:], seconds=float(os.environ["SECONDS"]),
                     scratch=Path(sys.argv[1]).parent))
except MachineFault as refused:
    print(refused)
"""


def test_a_program_ends_with_the_grader(submitted: Submitted) -> None:
    """Also if the grader is killed, and its processes have left their group."""
    if "not on this machine: no network" in program.guards():
        pytest.skip("without name spaces only processes of the grader's group end with it")
    (submitted.folder / "predict.py").write_text(AWAY.replace("0.3", "99"))
    words, mark = [sys.executable, "-c", CONTAINED, str(submitted.folder), "-"], f"0.00{time.time_ns()}"
    with subprocess.Popen([*words, mark], env=os.environ | {"SECONDS": "60"}) as grader:
        while len([line for line in processes(mark) if line.startswith("sleep")]) < 5:
            assert grader.poll() is None
            time.sleep(0.1)
        grader.kill()
    end = time.monotonic() + 30
    while processes(mark) and time.monotonic() < end:
        time.sleep(0.1)
    assert processes(mark) == []
    for left in submitted.scratch.parent.glob("tmp*"):
        shutil.rmtree(left)


@pytest.mark.skipif(not shutil.which("setpriv") or os.getuid() != 0, reason="takes a capability from root")
@pytest.mark.parametrize("python", [sys.executable, "/usr/bin/python3"])
def test_root_of_a_container_runs_programs_by_other_guards(python: str, submitted: Submitted) -> None:
    """Without name spaces: Landlock, a user without rights, and no sockets; where these work, and else not at all."""
    (submitted.folder / "link").symlink_to(submitted.private)
    reads = [f"open({str(submitted.private)!r})", "open('link')", "open('predict.py', 'w')", "socket.socket()"]
    lines = [f"try: print({e})\nexcept OSError as error: print(type(error).__name__)\n" for e in reads]
    (submitted.folder / "predict.py").write_text("import os, socket\n" + "".join(lines) + AWAY)
    words, mark = ["setpriv", "--bounding-set=-sys_admin", python, "-c", CONTAINED], f"0.00{time.time_ns()}"
    source = {"PYTHONPATH": str(Path(confine.__file__).parents[2]), "SECONDS": "5"}
    done = subprocess.run(
        [*words, str(submitted.folder), "-", mark], env=os.environ | source, capture_output=True, text=True, timeout=60
    )
    if done.returncode and "Traceback" not in done.stderr:
        pytest.skip("setpriv fails, or there is no such Python")
    assert "PermissionError\\n" * 4 in done.stdout or "not run here" in done.stdout, done
    assert processes(mark) == []


def reward(submitted: Submitted, text: str, count: int = 3, function: str = "reward", **columns: Any) -> Any:
    place = submitted.place(text, "reward.py")
    return scores_of(place, ["p"] * count, [f"c{i}" for i in range(count)], columns, function)


@pytest.mark.parametrize(
    "text",
    [
        "def reward(prompts, completions, target, **columns): return [len(c) / t for c, t in zip(completions, target)]",
        "def reward(completions, completion_ids, target): return [2 / t for t in target]",
        "import numpy\ndef reward(completions, target, **columns): return 2 / numpy.array(target)",
        "async def reward(completions, target, **columns): return [2 / t for t in target]",
        "def reward(solution_str, ground_truth): return {'score': len(solution_str) / ground_truth}",
        "from beside import reward\nprint('{\"scores\": [9, 9, 9]}', flush=True)\nimport os\nos.write(1, b'[9]')",
    ],
)
def test_a_submitted_reward_gives_scores(text: str, submitted: Submitted) -> None:
    """With TRL's signature or verl's; and what the file prints is no score."""
    (submitted.folder / "beside.py").write_text("def reward(target, **columns): return [2 / t for t in target]")
    assert reward(submitted, text, target=[1, 2, 4]) == [2.0, 1.0, 0.5]


def test_a_score_may_be_none(submitted: Submitted) -> None:
    assert reward(submitted, "def mine(completions, **columns): return [None, True, 2]", function="mine") == [
        None,
        1,
        2,
    ]


RETURNED = "def reward(completions, **columns): return [0, 1, {}][:len(completions)]"
UNUSABLE = {  # file: what its writer reads
    RETURNED.format("float('nan')"): "reward.py: reward returned nan for completion 2 (counted from 0)",
    RETURNED.format("-float('inf')"): "reward.py: reward returned -inf for completion 2",
    RETURNED.format("'a\\x1b'"): "reward.py: reward returned 'a\\x1b' (str) for completion 2",
    "def reward(completions, **columns): return [1]": "reward.py: reward returned 1 scores for 3 completions",
    "def reward(completions, **columns): return 'ab'": "reward.py: reward returned 'ab' (str); a reward function",
    "def reward(completions, **columns): return 1": "reward.py: reward returned 1 (int); a reward function returns",
    "def reward(completions, **columns):\n    return [1 / (c != 'c1') for c in completions]":
        "reward.py: reward raised ZeroDivisionError: division by zero (line 2 of reward.py), at completion 1",
    "def reward(completions, **columns): raise SystemExit(0)": "reward.py: reward raised SystemExit: 0 (line 1 of",
    "def score(completions): pass\ndef other(): pass": "reward.py: reward has no function 'reward'; it has score, oth",
    "import missing": "reward.py: reward cannot be imported: raised ModuleNotFoundError: No module named 'missing'",
    "import os\ndef reward(completions, **columns): os._exit(0)": "reward.py ended before reward returned",
    "def reward(completions, **columns):\n    while True: pass": "reward.py did not end within 2 s",
    "def reward(completions, **columns): return bytearray(2 << 30)": "reward.py used more memory than 1 GiB",
}  # fmt: skip


@pytest.mark.parametrize("text", UNUSABLE)
def test_what_is_no_score_is_named_in_words(text: str, submitted: Submitted) -> None:
    submitted.limits["seconds"] = 2.0
    with pytest.raises(Mistake) as fault:
        reward(submitted, text)
    assert str(fault.value).startswith(UNUSABLE[text]), fault.value
