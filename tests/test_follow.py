"""A log that is followed while it is written: half-written lines, garbage, a file that is cut, replaced or deleted."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rllab.board.columns import Columns
from rllab.board.sinks import numbers
from rllab.core.follow import Follower
from rllab.core.logs import Log


def write(path: Path, text: str, mode: str = "a") -> None:
    with open(path, mode, encoding="utf-8") as file:
        file.write(text)


def steps(follower: Follower) -> list[int]:
    return [row["step"] for row in follower.rows()]


def lines(*numbers: int, value: float = 0.5) -> str:
    return "".join(json.dumps({"step": n, "loss/total": value}) + "\n" for n in numbers)


def test_rows_come_once_and_a_half_written_line_comes_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    follower = Follower(path)
    assert follower.rows() == [] and follower.offset == 0
    write(path, lines(1, 2) + '{"step": 3, "na')
    assert steps(follower) == [1, 2] and follower.offset == len(lines(1, 2))
    assert steps(follower) == []
    write(path, 'me": "Grüße"}\n')
    assert follower.rows() == [{"step": 3, "name": "Grüße"}]
    assert (follower.offset, follower.restarts, follower.unreadable) == (path.stat().st_size, 0, 0)


def test_garbage_is_counted_and_costs_its_lines_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(lines(1).encode() + b'\xff\xfe\n\n[1]\n{"loss": 1}\n' + b"[" * 100_000 + b"\n" + lines(2).encode())
    follower = Follower(path)
    assert steps(follower) == [1, 2] and follower.unreadable == 5


def test_numbers_that_nothing_can_hold_are_garbage(tmp_path: Path) -> None:
    """They are JSON, and a whole number in Python has no largest one."""
    path, huge = tmp_path / "metrics.jsonl", "9" * 400
    write(path, f'{lines(1)}{{"step": 2, "loss/total": {huge}}}\n{{"step": {huge}}}\n{{"step": {2**63}}}\n{lines(3)}')
    columns = Columns(tmp_path)
    columns.refresh()
    assert columns.curve("loss/total")[0].tolist() == [1, 3] and columns.unreadable == 3
    assert list(numbers({"step": 4, "a": 2**63})) == [("a", 2.0**63)], "a large one is kept"


def test_a_curve_is_read_while_another_thread_refreshes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, columns, failed = tmp_path / "metrics.jsonl", Columns(tmp_path), list[BaseException]()
    write(path, lines(1, 2))
    columns.refresh()
    monkeypatch.setattr(threading, "excepthook", lambda about: failed.append(about.exc_value))
    other, copied = threading.Thread(target=columns.refresh), np.array

    def slow(values: Any, kind: Any) -> np.ndarray:
        with memoryview(values):  # as numpy holds it while it copies
            if other.ident is None:
                write(path, lines(3))
                other.start()
            other.join(0.2)
            return copied(values, kind)

    monkeypatch.setattr(np, "array", slow)
    assert [len(part) for part in columns.curve("loss/total")] == [2, 2]
    other.join()
    assert not failed and [len(part) for part in columns.curve("loss/total")] == [3, 3]


def test_one_can_begin_at_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, lines(1, 2, 3))
    follower = Follower(path, len(lines(1)))
    assert steps(follower) == [2, 3] and follower.restarts == 0
    within = Follower(path, len(lines(1)) + 3)  # no end of a line: the file is another one
    assert steps(within) == [1, 2, 3] and within.restarts == 1


@pytest.mark.parametrize("again", [(3,), (3, 4, 5, 6, 7)], ids=["shorter", "longer"])
def test_a_log_that_is_cut_and_written_anew_is_read_anew(again: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, lines(1, 2, 3, 4, 5))
    follower = Follower(path)
    assert steps(follower) == [1, 2, 3, 4, 5]
    Log(path).cut(2)
    write(path, lines(*again, value=0.7))
    assert [(r["step"], r["loss/total"]) for r in follower.rows()] == [(1, 0.5), (2, 0.5), *((n, 0.7) for n in again)]
    assert follower.restarts == 1 and steps(follower) == []


def test_a_replaced_and_a_deleted_log(tmp_path: Path) -> None:
    path, other = tmp_path / "metrics.jsonl", tmp_path / "other"
    write(path, lines(1, 2))
    follower = Follower(path)
    assert steps(follower) == [1, 2]
    write(other, lines(1, 2, 3))
    os.replace(other, path)
    assert steps(follower) == [1, 2, 3] and follower.restarts == 1
    path.unlink()
    assert follower.rows() == [] and follower.restarts == 1
    write(path, lines(1))
    assert steps(follower) == [1] and follower.restarts == 2
    assert Follower(path / "below").rows() == []
