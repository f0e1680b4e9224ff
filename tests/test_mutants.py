"""The tests of the tests: every mutant of the core must be found by the contract of a recipe's smoke size."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[1]
CHECK = """
import sys, tempfile
from pathlib import Path
from rllab.core.recipe import load_recipe
from rllab.testing import Broken, check_algorithm
try:
    with tempfile.TemporaryDirectory() as folder:
        # learning rates that move, so that a schedule that forgets its step is seen
        check_algorithm(load_recipe("cartpole", ["optim.decay=linear"], smoke=True), Path(folder))
except Broken as found:
    print("found:", found)
except Exception as found:
    print("failed:", type(found).__name__, found)
else:
    print("survived")
"""


def verdict(source: Path) -> str:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [source, ROOT / "envs"])), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", CHECK], env=env, capture_output=True, text=True, timeout=240)
    return done.stdout.strip() or done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    return tmp_path / "src"


def test_without_a_mutant_all_is_well(copy: Path) -> None:
    assert verdict(copy) == "survived"


def fails(test: str, source: Path) -> bool:
    """Whether a test of the clone fails against other sources."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [source, ROOT / "envs"])), "OMP_NUM_THREADS": "1"}
    line = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        str(ROOT / "tests" / test),
    ]
    done = subprocess.run(line, env=env, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.returncode == 1


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m[0])
def test_mutant_is_found(mutant: tuple[str, str, str, str, str], copy: Path) -> None:
    name, file, old, new, test = mutant
    path = copy / "rllab" / file
    text = path.read_text()
    assert text.count(old) == 1, f"{name}: the line that it changes is not there any more"
    path.write_text(text.replace(old, new))
    if test:
        assert fails(test, copy), f"{test} does not notice that {name}"
    else:
        assert verdict(copy).startswith(("found:", "failed:")), f"nothing notices that {name}"
