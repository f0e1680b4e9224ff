"""Tests of the tests: each mutant must be detected by the contract test of the cartpole recipe, or by a named test."""

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


def check_contract(source: Path) -> str:
    """Runs the contract test of cartpole on other sources, in a fork of this process, where the libraries are loaded.

    Returns its outcome, which starts with 'survived', 'detected:', 'failed:' or 'not loaded:'.
    """
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(240)
        os.write(writes, contract_outcome(source).encode())
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as pipe:
        outcome = pipe.read()
    os.waitpid(child, 0)
    return outcome


def contract_outcome(source: Path) -> str:
    for name in [n for n in sys.modules if n.partition(".")[0] in ("rllab", "rllab_envs")]:
        del sys.modules[name]
    sys.path.insert(0, str(source))
    torch.set_num_threads(1)
    try:
        from rllab.core.recipe import load_recipe
        from rllab.testing import Broken, check_algorithm

        assert str(source) in str(sys.modules["rllab"].__file__)
    except Exception as error:
        return f"not loaded: {error!r}"
    try:
        # a learning rate that changes, to detect a schedule that ignores the step
        check_algorithm(load_recipe("cartpole", ["optim.decay=linear"], smoke=True), source.parent / "runs")
    except Broken as error:
        return f"detected: {error}"
    except Exception as error:
        return f"failed: {error!r}"
    return "survived"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources with what Python and numba have compiled of them, which holds for files of equal time and size."""
    being_written = shutil.ignore_patterns("*.pyc.*", "*.tmp.*")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=being_written)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    return tmp_path / "src"


@pytest.mark.filterwarnings("ignore:This process")  # Python 3.12 warns of forking beside threads
def test_without_a_mutant_the_contract_holds(copy: Path) -> None:
    assert check_contract(copy) == "survived"


def fails(tests: Iterable[str], source: Path) -> bool:
    """Whether any of the given tests of this clone fails on other sources."""
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
def test_mutant_is_detected(mutant: tuple[str, str, str, str, str], copy: Path) -> None:
    name, file, old, new, test = mutant
    path = copy / "rllab" / file
    text = path.read_text()
    assert text.count(old) == 1, f"{name}: the source that it replaces must occur exactly once in {file}"
    path.write_text(text.replace(old, new))
    if test:
        assert fails([test], copy), f"{test} does not detect the mutant: {name}"
    else:
        assert check_contract(copy).startswith(("detected:", "failed:")), f"no check detects the mutant: {name}"
