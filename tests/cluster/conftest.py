"""The clusters of the tests, started once a session by each process of the tests; and a clone to submit from."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.jobs import undisturbed
from cluster.namespaces import Cluster, missing

ROOT = Path(__file__).resolve().parents[2]


def started(script: str, programs: tuple[str, ...], factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if why := missing(*programs):
        pytest.skip(why)
    cluster = Cluster(script, factory.mktemp(script.partition(".")[0]))
    yield cluster
    cluster.stop()


SLURM = ("slurm.sh", ("slurmctld", "slurmd", "munged", "ip"))


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Slurm cluster of two nodes."""
    yield from started(*SLURM, tmp_path_factory)


@pytest.fixture
def fragile_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The same for a test that breaks it."""
    yield from started(*SLURM, tmp_path_factory)


@pytest.fixture(scope="session")
def grid_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Grid Engine cluster of two nodes."""
    yield from started("grid_engine.sh", ("sge_qmaster", "sge_execd", "qsub", "ip"), tmp_path_factory)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of jobs.RECIPE that nobody has warned."""
    return undisturbed(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder like a clone of the repository, with runs of its own and the Python of the tests."""
    for name in ("src", "envs", "recipes", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "slurm").mkdir()
    for path in (ROOT / "slurm").iterdir():
        (tmp_path / "slurm" / path.name).symlink_to(path)
    site = f"export RLLAB_VENV={sys.prefix} RLLAB_HOME={tmp_path}/home OMP_NUM_THREADS=1"
    (tmp_path / "slurm/site.sh").write_text(site)
    return tmp_path


def copy_sources(clone: Path) -> None:
    """Gives a clone sources of its own, so that the recipes beside them are its own as well."""
    (clone / "src").unlink()
    half_written = shutil.ignore_patterns("*.pyc.*")
    shutil.copytree(ROOT / "src", clone / "src", ignore=half_written)  # with what Python has compiled


@pytest.fixture
def here(clone: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The clone as working directory, for `rllab submit` in this process, which takes over variables of jobs."""
    monkeypatch.chdir(clone)
    monkeypatch.setenv("RLLAB_HOME", str(clone / "home"))
    before = dict(os.environ)
    yield clone
    os.environ.clear()
    os.environ.update(before)
