"""A folder with models and tasks for the tests of `rllab eval`, and the command in this process."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rllab.cli import app


class Here:
    """The command in this process, in a folder. `rows` are the objects that it printed, `err` its messages."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self.err = capsys, ""
        monkeypatch.chdir(folder)

    def __call__(self, *words: str, verb: str = "eval") -> list[Any]:
        try:
            app([verb, *words, "--json"], standalone_mode=False)
        finally:
            out, self.err = self._capsys.readouterr()
            self.rows = [json.loads(line) for line in out.splitlines()]
        return self.rows


@pytest.fixture
def here(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    return Here(place, capsys, monkeypatch)


@pytest.fixture(scope="module")
def place(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models (`chat`; `plain`, which has no chat template) and tasks."""
    folder = tmp_path_factory.mktemp("eval")
    for name in ("chat", "plain"):
        shutil.copytree(qwen, folder / name)
    (folder / "plain" / "chat_template.jinja").unlink()
    rows = [
        {"id": f"q{i}", "question": f"What is {i} plus {3 * i % 7}?" + " Think." * (i % 5), "kind": "number"}
        | {"target": str(i + 3 * i % 7)}
        for i in range(100)
    ]
    write(folder / "sums.jsonl", rows)
    listed = [
        {"id": i, "question": f"Which is {i}? Answer Choices: (A) {i + 1} (B) {i} (C) {i + 2}", "kind": "choice"}
        | {"target": "B", "choices": [str(i + 1), str(i), str(i + 2)]}
        for i in range(6)
    ]
    write(folder / "listed.jsonl", listed)
    cloze = [
        {"prompt": f"May {i}: How", "choices": [" many", " clips sell", " April"], "answer": i % 3} for i in range(7)
    ]
    write(folder / "cloze.jsonl", cloze)
    write(folder / "texts.jsonl", [{"text": "How many clips did Natalia sell?"}, {"text": "48 + 24 = 72"}])
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
