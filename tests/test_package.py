"""What `pip install .` and a wheel bring: both source roots, the recipes, and the metadata."""

import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    build = "from hatchling.build import build_sdist, build_wheel; import sys; print({}(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build.format("build_sdist"), folder], cwd=ROOT, check=True)
    subprocess.run(["tar", "-xzf", next(folder.glob("*.tar.gz")).name], cwd=folder, check=True)
    source = next(p for p in folder.iterdir() if p.is_dir())
    subprocess.run([sys.executable, "-c", build.format("build_wheel"), folder], cwd=source, check=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_metadata(wheel: zipfile.ZipFile) -> None:
    text = wheel.read(next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))).decode()
    metadata = Parser().parsestr(text)
    assert (
        metadata["Name"] == "rllab"
        and metadata["Requires-Python"] == ">=3.11"
        and metadata["License-Expression"] == "MIT"
    )
    needs = metadata.get_all("Requires-Dist") or []
    assert {"torch>=2.11", "transformers>=5.17", "numba>=0.65", "numpy>=2.3"} <= set(needs)


def test_wheel_brings_the_exam_of_games(wheel: zipfile.ZipFile) -> None:
    files = [p.relative_to(ROOT / "envs").as_posix() for p in (ROOT / "envs/rllab_envs/games").rglob("*.txt")]
    assert files and set(files) <= set(wheel.namelist())


def test_wheel_brings_the_definitions_of_benchmarks(wheel: zipfile.ZipFile) -> None:
    files = [p.relative_to(ROOT / "envs").as_posix() for p in (ROOT / "envs/rllab_envs/benchmarks").rglob("*.yaml")]
    assert len(files) > 15 and set(files) <= set(wheel.namelist())


def test_wheel_brings_the_pages_of_grading(wheel: zipfile.ZipFile) -> None:
    files = [p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src/rllab/evals/grading/pages").glob("*.html")]
    assert "rllab/evals/grading/pages/student.html" in files and set(files) <= set(wheel.namelist())


def test_wheel_trains_its_own_recipes(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    wheel.extractall(site)
    recipes = {p.name for p in (site / "rllab/_recipes").glob("*.yaml")}
    assert recipes == {p.name for p in (ROOT / "recipes").glob("*.yaml")}
    words = "import rllab, sys; from rllab.cli import main; print(rllab.__file__); sys.argv[1:] = {}; main()"
    for line in (["list"], ["train", "cartpole", "total_steps=2", "eval_every=0", "until={}", "expect={}"]):
        done = subprocess.run(
            [sys.executable, "-c", words.format(line)],
            cwd=elsewhere,
            env=os.environ | {"PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(str(site / "rllab")) and "cartpole" in done.stdout
