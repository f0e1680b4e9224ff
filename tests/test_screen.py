"""On a terminal of 80 columns nothing breaks inside a word."""

import fcntl
import io
import os
import pty
import random
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from conftest import smoke_runs

from rllab.cli.screen import Screen, break_lines
from rllab.cli.tables import table
from rllab.core.run import RunFolder

WIDTH = 80


def on_terminal(*words: str, cwd: Path) -> str:
    """What a command prints on a terminal of 80 columns, without control sequences."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, WIDTH, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"} | {"TERM": "xterm"}
    command = [sys.executable, "-m", "rllab", *words]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=environment):
        os.close(theirs)
        output = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux's end of a terminal that nobody holds
                break
            if not part:
                break
            output += part
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode()).replace("\r\n", "\n")


def test_lines_are_broken_between_words() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        text = " " * rng.randrange(3) + "".join(rng.choices("ab  ", k=rng.randrange(60))).lstrip()
        width = rng.randint(4, 20)
        column = rng.randint(0, width)
        first, *others = break_lines(text, width, column).split("\n")
        assert " ".join([first, *others]).split() == text.split(), text
        assert all(len(line.rstrip()) <= width or len(line.split()) == 1 for line in others), text
        assert len(first.rstrip()) <= width - column or len(first.split()) <= 1, text


def test_text_that_fits_stays_as_it_is() -> None:
    assert break_lines("a  b\n    c\n", 6) == "a  b\n    c\n"
    assert break_lines("  one two three", 9) == "  one two\n  three"
    assert break_lines("/a/long/path/that/has/no/space and more", 10) == "/a/long/path/that/has/no/space\nand more"


def test_a_line_may_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    stream = io.StringIO()
    screen: Any = Screen(stream)
    print("one two", "three", "four five", file=screen)
    print("\x1b[2Ka b c d e f g h", end="\r", file=screen)
    assert stream.getvalue() == "one two \nthree four\nfive\n\x1b[2Ka b c d e f g h\r"


ROW = {"run": "a-name-that-is-long", "state": "done", "why": "a sentence of several words, which is long enough " * 2}


@pytest.mark.parametrize("width", [30, 40, 80, 200])
def test_tables_fit_the_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    table([ROW, ROW | {"run": "b"}], as_json=False)
    assert len(capsys.readouterr().out.splitlines()) == 3  # in a pipe a row is a line
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    table([ROW, ROW | {"run": "b"}], as_json=False)
    text = capsys.readouterr().out
    assert set(text.split()) == set(" ".join([*ROW, *ROW.values(), "b"]).split())
    assert width == 30 or max(map(len, text.splitlines())) <= width
    assert (len(text.splitlines()) == 3) == (width == 200)


def test_verbs_on_a_terminal(tmp_path: Path) -> None:
    runs = smoke_runs(tmp_path / "runs", "cartpole", "pocket")
    reason = "the rewards of the environment have become infinite, as they do where nobody has set bounds to them"
    RunFolder(runs / "cartpole").write_status("failed", {"step": 3}, reason=reason)
    listed = on_terminal("runs", cwd=tmp_path)
    assert all(
        word in listed.split() for word in [*f"{reason};".split(), "cartpole", "pocket", "DQN", "SFT", "failed:"]
    )
    wrong = on_terminal(
        "train", "cartpole", "optim.learning_rate_of_the_optimizer=3", "network.hidden_sizes=4", cwd=tmp_path
    )
    assert "no such setting" in " ".join(wrong.split())
    trained = on_terminal(
        "train", "cartpole", "--smoke", "--name", "a-run-with-a-long-name-for-a-long-line", cwd=tmp_path
    )
    assert "done after" in " ".join(trained.split())
    for text in (listed, wrong):
        assert all(len(line) <= WIDTH or len(line.split()) == 1 for line in text.splitlines()), text
