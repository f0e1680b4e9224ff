"""Leases: exactly one process holds a folder, on one host and on several, whatever becomes of its owner."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster.namespaces import UNSHARE, missing, until
from conftest import TESTS, run

from rllab.core import lease, owner
from rllab.core.errors import InUse, MachineFault
from rllab.core.lease import Newest, Watch, look, take
from rllab.core.lock import Lock
from rllab.core.owner import Owner
from rllab.testing import outcome

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
Elsewhere = Callable[[Path], int]


def forked(work: Callable[[], object]) -> int:
    """A child that does some work and ends with 0, or with 1 where that fails."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def hold(folder: Path) -> None:
    """Holds the lock of a folder until it is killed."""
    held = Lock(folder).acquire()
    (folder / "held").touch()
    signal.pause()
    held.__exit__(None, None, None)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Elsewhere]:
    """Starts a child that holds the lock of a folder, and cannot be seen from here: it says that its system is another.

    It beats five times a second, so that its lease expires after 1.5 seconds.
    """
    children = list[int]()

    def start(folder: Path) -> int:
        def other() -> None:
            lease.BEAT = 0.2
            owner._system = lambda: ("another", "another")
            hold(folder)

        children.append(forked(other))
        until((folder / "held").exists, "the child holds the lock")
        return children[-1]

    yield start
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def work(folder: Path, turns: int) -> None:
    """Works `turns` times in a folder, where nobody else may be meanwhile."""
    while turns:
        try:
            held = Lock(folder).acquire()
        except InUse:
            time.sleep(0.0005)
            continue
        inside = os.open(folder / "inside", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        with open(folder / "turns", "a") as file:
            file.write("x")
        os.close(inside)
        os.unlink(folder / "inside")
        turns -= 1
        if turns:
            held.__exit__(None, None, None)  # the last time it ends and still holds the lock


@pytest.mark.parametrize("links", [True, False])
def test_of_many_processes_one_at_a_time_holds_the_lock(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refused)
        monkeypatch.setattr(lease, "BEAT", 0.02)  # a reader may find a lease half written, and waits for a beat
    children = [forked(lambda: work(tmp_path, 12)) for _ in range(8)]
    assert [code(child) for child in children] == [0] * 8
    assert len((tmp_path / "turns").read_text()) == 8 * 12
    assert [p.name for p in tmp_path.glob(".lease-*")] == [f".lease-{8 * 12}"]


def test_who_looks_too_late_takes_nothing(tmp_path: Path) -> None:
    """It saw lease 2, was suspended, and meanwhile 3 and 4 came and 3 was removed."""
    with Lock(tmp_path).acquire():
        (tmp_path / ".lease-1").rename(tmp_path / ".lease-4")
        assert take(tmp_path, 2) is None and take(tmp_path, 3) is None
        assert [p.name for p in tmp_path.iterdir()] == [".lease-4"]


def test_a_new_owner_removes_only_older_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was suspended as soon as it had its lease, until that expired and another process had the next one."""
    numbers = iter([[1], [1], [1, 2]])

    def suspended(folder: Path) -> list[int]:
        (folder / ".lease-2").touch()
        return next(numbers)

    monkeypatch.setattr(lease, "_numbers", suspended)
    held = take(tmp_path, 0)
    monkeypatch.undo()
    assert held and sorted(p.name for p in tmp_path.iterdir()) == [".lease-1", ".lease-2"]
    with pytest.raises(MachineFault, match="a process has taken over"):
        held.check()


def test_on_the_same_host_a_dead_owner_is_seen_at_once(tmp_path: Path) -> None:
    child = forked(lambda: hold(tmp_path))
    until((tmp_path / "held").exists, "the child holds the lock")
    with pytest.raises(InUse, match=rf"another process trains this run; wait until process {child} on \S+ ends, or"):
        Lock(tmp_path).acquire()
    os.kill(child, signal.SIGSTOP)  # a suspended one is not dead
    assert Lock(tmp_path).is_held
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # its parent has not asked for its end yet
    start = time.monotonic()
    assert not Lock(tmp_path).is_held
    Lock(tmp_path).acquire().__exit__(None, None, None)
    assert time.monotonic() - start < 30 and code(child) == -signal.SIGKILL


def test_a_number_that_another_process_has_now_is_no_owner() -> None:
    this = Owner.this()
    assert this.is_here and not this.has_ended
    assert Owner(this.host, this.boot, this.space, this.pid, this.started - 1).has_ended
    assert not Owner(this.host, "another boot", this.space, 2**22 + 1).has_ended, "nothing is known of it"


def test_an_owner_on_another_host_is_refused_while_it_beats(elsewhere: Elsewhere, tmp_path: Path) -> None:
    child = elsewhere(tmp_path)
    lock = Lock(tmp_path)
    for _ in range(14):  # longer than a lease without a beat lasts
        with pytest.raises(InUse, match=f"wait until process {child} on"):
            lock.acquire(lambda: time.sleep(0.05))
        time.sleep(0.1)
    for seconds in (0, 4e9):  # its clock is some decades wrong
        os.utime(tmp_path / ".lease-1", (seconds, seconds))
        with pytest.raises(InUse):
            Lock(tmp_path).acquire(lambda: time.sleep(0.05))


def test_a_lease_without_beats_expires(elsewhere: Elsewhere, tmp_path: Path) -> None:
    child = elsewhere(tmp_path)
    os.kill(child, signal.SIGSTOP)
    os.waitid(os.P_PID, child, os.WSTOPPED | os.WNOWAIT)
    start = time.monotonic()
    with pytest.warns(UserWarning, match=f"process {child} on .* trains this run, but gives no sign of life"):
        held = Lock(tmp_path).acquire(lambda: time.sleep(0.02))
    assert 1.4 < time.monotonic() - start < 60
    os.kill(child, signal.SIGCONT)
    time.sleep(0.5)  # it beats, and has nothing to beat
    assert [p.name for p in tmp_path.glob(".lease*")] == [".lease-2"] and Lock(tmp_path).owner == look(tmp_path).owner
    held.__exit__(None, None, None)
    assert not Lock(tmp_path).is_held


def test_time_that_a_look_took_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, newest = Watch(), Newest(3, Owner(), beat=7)
    clock = iter([0, 1000, 2000, *range(2000, 3000, 2)])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    for _ in range(3):
        watch.see(newest)
    assert watch.silent == newest.every and not watch.is_over(newest)
    for _ in range(35):
        watch.see(newest)
    assert watch.is_over(newest)
    watch.see(Newest(3, Owner(), beat=8))
    assert watch.silent == 0 and watch.beats
    watch.see(Newest(4, Owner(), beat=8))
    assert not watch.beats, "a new lease has shown no beat yet"


def test_a_lease_is_released_by_its_own_process_alone(tmp_path: Path) -> None:
    held = take(tmp_path, 0)
    assert held
    assert code(forked(held.release)) == 0 and look(tmp_path).owner
    other = take(tmp_path, 1)
    assert other
    held.release()
    assert look(tmp_path).number == 2 and look(tmp_path).owner
    (tmp_path / ".lease-1").write_text("of a folder that was begun anew")
    held.release()
    assert (tmp_path / ".lease-1").read_text() == "of a folder that was begun anew"
    (tmp_path / ".lease-1").unlink()
    lease.release_all()
    assert look(tmp_path) == Newest(2, None, look(tmp_path).beat)


@pytest.mark.parametrize("text", ["", "{", "[]", "0", "[1]", '{"pid": "x", "every": 1e999, "host": 3}', "\0\0\0"])
def test_a_damaged_lease_is_held_until_it_expires(text: str, tmp_path: Path) -> None:
    (tmp_path / ".lease-7").write_text(text)
    newest = look(tmp_path)
    assert newest.number == 7 and newest.owner == Owner() and Lock(tmp_path).is_held and newest.every == lease.BEAT
    os.utime(tmp_path / ".lease-7", (1e9, 1e9))
    assert not Lock(tmp_path).is_held


TRAINED = """
import sys
from conftest import TESTS, TOY
from rllab.core import lease
from rllab.core.errors import RllabError
from rllab.core.recipe import read_recipe
from rllab.core.trainer import Trainer
lease.BEAT = 0.1
try:
    for row in Trainer(read_recipe(TOY.format(algo="Regression"), "toy.yaml", TESTS, "toy", sys.argv[2:]), sys.argv[1]):
        pass
except RllabError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("when", ["rows", pytest.param("checkpoint", marks=pytest.mark.nightly)])
def test_a_suspended_trainer_that_comes_back_finds_its_run_taken(when: str, toy, tmp_path: Path) -> None:
    """It is in name spaces of its own, like a node that freezes. Another process goes on in its place."""
    if why := missing("unshare"):
        pytest.skip(why)
    words = ["slow=0.05", "total_steps=24", "threads=1", *(["save_every=1"] if when == "checkpoint" else [])]
    line = [*UNSHARE, sys.executable, "-c", TRAINED, str(tmp_path / "a"), *words]
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    frozen = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path})
    log = tmp_path / "a/metrics.jsonl"
    until(lambda: frozen.poll() is not None or (log.is_file() and log.read_bytes().count(b"\n") > 5), "it trains")
    assert frozen.poll() is None, frozen.communicate()
    inner = int(Path(f"/proc/{frozen.pid}/task/{frozen.pid}/children").read_text())
    os.kill(inner, signal.SIGSTOP)
    until(lambda: owner._state_and_start(inner)[0] == "T", "it is suspended")
    with pytest.warns(UserWarning, match="gives no sign of life"):
        trainer = run(toy(*words), tmp_path / "a")
    assert outcome(trainer) == outcome(run(toy(*words, "slow=0"), tmp_path / "whole"))
    before = {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    os.kill(inner, signal.SIGCONT)
    _, shown = frozen.communicate(timeout=120)
    assert frozen.returncode == 3 and "another process had taken over, because this process gave no sign" in shown
    assert {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()} == before


def test_another_node_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setattr("platform.node", lambda: "node9")
    with Lock(tmp_path, "grades into this folder", "name another --out").acquire():
        text = rf"grades into this folder; wait until process {os.getpid()} on node9 of job 7_3 ends, or name"
        with pytest.raises(InUse, match=text):
            Lock(tmp_path, "grades into this folder", "name another --out").acquire()
    content = json.loads((tmp_path / ".lease-1").read_text())
    shutil.rmtree(tmp_path)
    assert content == {} and not Lock(tmp_path).is_held
