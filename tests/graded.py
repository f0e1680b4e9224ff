"""An assignment with submissions of every kind, for the tests of `rllab grade`."""

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from evaluated import write
from forked import Piped
from safetensors.torch import save_file

from rllab.cli import app

ITEMS = [{"id": f"q{i}", "question": f"What is {i} plus {3 * i % 7}?", "kind": "number"} for i in range(30)]
GOLD = [item | {"target": str(i + 3 * i % 7)} for i, item in enumerate(ITEMS)]
POINTS = {"linear": {0: 0, 1: 10}}


class Course:
    """A folder with an assignment, a base model and submissions. `grade` runs the command in this process."""

    def __init__(self, folder: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.out, self.submissions = folder, folder / "out", folder / "submissions"
        self._capsys, self.err = capsys, ""
        shutil.copytree(base, folder / "base")
        write(folder / "private.jsonl", GOLD)
        self.submissions.mkdir()
        self.assign(sums={"task": "private.jsonl", "max_new_tokens": 4, "points": POINTS})

    def assign(self, seconds: float = 60, **parts: dict[str, Any]) -> None:
        """Writes the assignment."""
        settings = {"title": "Sums", "base": "base", "seconds": seconds, "memory": 2, "parts": parts}
        (self.folder / "assignment.yaml").write_text(yaml.safe_dump(settings))

    def grade(self, *words: str) -> dict[str, Any]:
        """Returns the grades by id, as `--json` prints them."""
        call = ["grade", str(self.folder / "assignment.yaml"), str(self.submissions), "--out", str(self.out), "--json"]
        try:
            app([*call, *words], standalone_mode=False)
        finally:
            out, self.err = self._capsys.readouterr()
            self.grades = {grade["id"]: grade for grade in json.loads(out)} if out else {}
        return self.grades

    def rows(self) -> dict[str, dict[str, str]]:
        """The rows of grades.csv by id."""
        with open(self.out / "grades.csv", newline="", encoding="utf-8") as file:
            return {row["id"]: row for row in csv.DictReader(file)}

    def records(self, ident: str) -> list[Path]:
        """The records of a submission."""
        return sorted(p for p in (self.out / "records" / ident).glob("*.jsonl") if p.name != "grades.jsonl")

    def recorded(self, name: str, right: int = 30, **more: Any) -> Path:
        """Submits a file of completions of which the first `right` are right."""
        rows = [{"id": g["id"], "completion": g["target"] if i < right else "none"} for i, g in enumerate(GOLD)]
        write(self.submissions / f"{name}.jsonl", [row | more for row in rows])
        return self.submissions / f"{name}.jsonl"

    def model(self, name: str) -> Path:
        """Submits the base model."""
        return Path(shutil.copytree(self.folder / "base", self.submissions / name))

    def adapter(self, name: str, scale: float = 0.5, base: Path | None = None, seed: int = 0) -> Path:
        """Submits adapters with random weights."""
        from rllab.text.lora import Lora
        from rllab.text.open import add_adapters, open_model

        lm = add_adapters(open_model(str(base or self.folder / "base")), Lora(r=2))
        assert lm.adapters is not None
        chance = torch.Generator().manual_seed(seed)
        state = {
            k: scale * torch.randn(v.shape, generator=chance) if "lora_B" in k else v.clone()
            for k, v in lm.adapters.state_dict().items()
        }
        folder = self.submissions / name
        folder.mkdir()
        save_file(state, folder / "adapter_model.safetensors")
        lm.adapters.write_files(folder)
        return folder


@pytest.fixture(autouse=True, scope="session")
def forked_server() -> Iterator[None]:
    """The processes that measure are forked with their libraries. Those of `rllab grade` in test_grade.py are not."""
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(os, "fork"):
            patch.setattr(
                "rllab.evals.grading.measuring.subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": Piped})
            )
        yield


@pytest.fixture
def course(qwen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Course:
    return Course(tmp_path, qwen, capsys)
