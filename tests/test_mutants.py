"""The tests of the tests: every mutant of the core must be found by the contract of a recipe's smoke size."""

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from forked import call
from mutants import MUTANTS

ROOT = Path(__file__).resolve().parents[1]


def verdict(source: Path) -> str:
    """What the contract of cartpole says of other sources, in a process that has all libraries loaded."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(240)
        os.write(writes, checked(source).encode())
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as said:
        found = said.read()
    os.waitpid(child, 0)
    return found


def checked(source: Path) -> str:
    for name in [n for n in sys.modules if n.partition(".")[0] in ("rllab", "rllab_envs")]:
        del sys.modules[name]
    sys.path.insert(0, str(source))
    torch.set_num_threads(1)
    try:
        from rllab.core.recipe import load_recipe
        from rllab.testing import Broken, check_algorithm

        assert str(source) in str(sys.modules["rllab"].__file__)
    except Exception as found:
        return f"not loaded: {found!r}"
    try:
        # learning rates that move, so that a schedule that forgets its step is seen
        check_algorithm(load_recipe("cartpole", ["optim.decay=linear"], smoke=True), source.parent / "runs")
    except Broken as found:
        return f"found: {found}"
    except Exception as found:
        return f"failed: {found!r}"
    return "survived"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    return tmp_path / "src"


@pytest.mark.filterwarnings("ignore:This process")  # Python 3.12 warns of forking beside threads
def test_without_a_mutant_all_is_well(copy: Path) -> None:
    assert verdict(copy) == "survived"


def fails(tests: Iterable[str], source: Path) -> bool:
    """Whether one of some tests of the clone fails against other sources."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [source, ROOT / "envs"])), "OMP_NUM_THREADS": "1"}
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore::pytest.PytestAssertRewriteWarning")
    done = call("-m", "pytest", *options, *(str(ROOT / "tests" / test) for test in tests), cwd=ROOT, env=env)
    failed = re.search(r"^\d+ failed", done.stdout, re.M) is not None
    assert done.returncode == int(failed), done.stdout + done.stderr
    return failed


def test_without_a_mutant_the_named_tests_pass(copy: Path) -> None:
    assert not fails(sorted({test for *_, test in MUTANTS if test}), copy)


@pytest.mark.filterwarnings("ignore:This process")
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m[0])
def test_mutant_is_found(mutant: tuple[str, str, str, str, str], copy: Path) -> None:
    name, file, old, new, test = mutant
    path = copy / "rllab" / file
    text = path.read_text()
    assert text.count(old) == 1, f"{name}: the line that it changes is not there any more"
    path.write_text(text.replace(old, new))
    if test:
        assert fails([test], copy), f"{test} does not notice that {name}"
    else:
        assert verdict(copy).startswith(("found:", "failed:")), f"nothing notices that {name}"
