"""The set-up script `lab`, run on a small stand-in project that installs in seconds."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

LAB = Path(__file__).resolve().parents[1] / "lab"
pytestmark = pytest.mark.skipif(os.name != "posix", reason="the lock and the signals of the tests are POSIX's")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of a project that prints its arguments, in a path with a space. Its build needs no package index."""
    home = tmp_path / "my clone"
    (home / "src/rllab").mkdir(parents=True)
    shutil.copy(LAB, home)
    backend = """
import os, zipfile
def get_requires_for_build_editable(config_settings=None): return []
def build_editable(folder, config_settings=None, metadata_directory=None):
    import time
    time.sleep(float(os.environ.get("STAND_IN_SLOW", 0)))
    name = "rllab-0.1-py3-none-any.whl"
    info = "rllab-0.1.dist-info"
    metadata = "Metadata-Version: 2.1\\nName: rllab\\nVersion: 0.1\\nProvides-Extra: test\\n"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        wheel.writestr("rllab.pth", os.path.abspath("src"))
        wheel.writestr(info + "/METADATA", metadata + os.environ.get("STAND_IN_NEEDS", ""))
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
    return name
"""
    backend += "build_wheel, get_requires_for_build_wheel = build_editable, get_requires_for_build_editable\n"
    (home / "backend.py").write_text(backend)
    (home / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (home / "constraints.txt").write_text("# nothing\n")
    (home / "src/rllab/__init__.py").write_text("")
    (home / "src/rllab/__main__.py").write_text("import json, sys; print(json.dumps([sys.prefix, *sys.argv[1:]]))")
    return home


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("RLLAB_VENV", "PYTHONPATH", "VIRTUAL_ENV")}
    return kept | more


def call(lab: Path, *words: str, python: str = sys.executable, **more: object) -> subprocess.CompletedProcess[str]:
    env = environment(**more.pop("env", {}))  # type: ignore[arg-type]
    return subprocess.run([python, str(lab), *words], capture_output=True, text=True, env=env, timeout=120, **more)  # type: ignore[call-overload,no-any-return]


def test_first_call_installs_and_passes_every_argument(clone: Path) -> None:
    words = ["train", "a b", "optim.lr=1e-3", "'", ""]
    first = call(clone / "lab", *words)
    assert first.returncode == 0, first.stderr
    prefix, *arguments = json.loads(first.stdout)
    assert (Path(prefix), arguments) == (clone / ".venv", words)
    assert "GB to download" in first.stderr and "GB on the disk" in first.stderr
    second = call(clone / "lab", "list")
    assert second.stderr == "" and json.loads(second.stdout)[1:] == ["list"]


def test_python_and_shell_are_those_of_the_lab(clone: Path, tmp_path: Path) -> None:
    (clone / "src/rllab/name.py").write_text("NAME = 'the lab'")
    (tmp_path / "mine.py").write_text(
        "import json, sys, rllab.name as n; print(json.dumps([n.NAME, sys.prefix, *sys.argv]))"
    )
    first = call(clone / "lab", "python", "mine.py", "a b", "--help", cwd=tmp_path)
    assert json.loads(first.stdout) == ["the lab", str(clone / ".venv"), "mine.py", "a b", "--help"], first.stderr
    assert "./lab python FILE" in first.stderr.splitlines()[-1] and "./lab shell" in first.stderr.splitlines()[-1]
    failed = call(clone / "lab", "python", "-c", "raise SystemExit(7)")
    assert (failed.returncode, failed.stderr) == (7, "")
    for shell in ("/bin/sh", "/bin/bash"):
        inside = call(clone / "lab", "shell", env={"SHELL": shell}, cwd=tmp_path, input="python mine.py; exit 5")
        assert json.loads(inside.stdout) == ["the lab", str(clone / ".venv"), "mine.py"], inside.stderr
        assert inside.returncode == 5 and "`exit` leaves it" in inside.stderr


def test_a_start_up_file_does_not_hide_the_labs_programs(clone: Path, tmp_path: Path) -> None:
    """An interactive bash reads ~/.bashrc, in which conda puts its own Python first on PATH."""
    import pty

    call(clone / "lab")
    (tmp_path / ".bashrc").write_text("PATH=/conda/bin:$PATH\nalias hello='echo read'\n")
    terminal, inner = pty.openpty()
    env = environment(HOME=str(tmp_path), SHELL="/bin/bash", TERM="dumb")
    line = [sys.executable, str(clone / "lab"), "shell"]
    process = subprocess.Popen(line, env=env, stdin=inner, stdout=inner, stderr=inner, start_new_session=True)
    os.close(inner)
    os.write(terminal, b"hello; echo first:${PATH%%:*}:; exit\n")
    output = b""
    while chunk := _read(terminal):
        output += chunk
    os.close(terminal)
    assert process.wait(timeout=120) == 0
    lines = output.decode().split("\r\n")
    assert "read" in lines and f"first:{clone / '.venv/bin'}:" in lines, output


def _read(terminal: int) -> bytes:
    """The next output of a terminal; b"" after its programs have ended."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


def test_through_a_symlink_from_elsewhere(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(clone / "lab")
    called = call(tmp_path / "link", "list", cwd="/")
    assert json.loads(called.stdout)[0] == str(clone / ".venv"), called.stderr


def test_one_environment_for_a_class(clone: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared" / "venv"
    assert json.loads(call(clone / "lab", env={"RLLAB_VENV": str(shared)}).stdout) == [str(shared)]
    other = tmp_path / "other clone"
    shutil.copytree(clone, other)
    (other / "src/rllab/__main__.py").write_text("print('the other clone')")
    called = call(other / "lab", env={"RLLAB_VENV": str(shared)})
    assert (called.stdout, called.stderr) == ("the other clone\n", "")


def test_set_up_after_a_killed_set_up(clone: Path) -> None:
    """The unfinished environment is deleted, after the orphaned pip has ended."""
    line, env = [sys.executable, str(clone / "lab")], environment(STAND_IN_SLOW="3")
    process = subprocess.Popen(line, env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    for message in process.stderr:
        if "installing the lab" in message:
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    (clone / ".venv/left-behind").write_text("")
    again = call(clone / "lab", "list")
    assert again.returncode == 0, again.stderr
    assert "waiting for it" in again.stderr
    assert json.loads(again.stdout)[1:] == ["list"] and not (clone / ".venv/left-behind").exists()


def test_two_calls_at_the_same_time(clone: Path) -> None:
    line, env = [sys.executable, str(clone / "lab"), "list"], environment(STAND_IN_SLOW="1")
    both = [
        subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = [p.communicate(timeout=120) for p in both]
    assert [p.returncode for p in both] == [0, 0], outputs
    assert sorted("waiting for it" in err for _, err in outputs) == [False, True]
    assert sum("creating the environment" in err for _, err in outputs) == 1


def test_without_network(clone: Path) -> None:
    offline = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
        "PIP_FIND_LINKS": "",
        "PIP_NO_CACHE_DIR": "1",
    }
    called = call(clone / "lab", env=offline | {"STAND_IN_NEEDS": "Requires-Dist: no-such-package\n"})
    last = called.stderr.splitlines()[-1]
    assert called.returncode == 3 and called.stdout == ""
    assert last.startswith("lab: ") and "http://127.0.0.1:9/simple cannot be reached; connect to the network" in last
    assert all(line.startswith("lab: ") for line in called.stderr.splitlines())


def tiny_wheel(folder: Path, name: str) -> None:
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"NAME = {name!r}")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_a_wheelhouse_is_all_that_a_machine_without_a_network_needs(clone: Path, tmp_path: Path) -> None:
    index, wheels = tmp_path / "index", tmp_path / "my wheels"
    index.mkdir()
    for name in ("hatchling", "editables", "tiny"):
        tiny_wheel(index, name)
    needs = {"STAND_IN_NEEDS": "Requires-Dist: tiny\n"}
    online = needs | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    made = call(clone / "lab", "wheelhouse", str(wheels), env=online)
    assert made.returncode == 0, made.stderr
    assert "3 wheels" in made.stderr and f"RLLAB_WHEELHOUSE='{wheels}' ./lab --version" in made.stderr
    files = {p.name for p in wheels.iterdir()}
    assert files == {"wheelhouse.json", *(p.name for p in index.iterdir())}, "the lab itself comes from the clone"
    offline = needs | {"RLLAB_WHEELHOUSE": str(wheels), "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    tiny = wheels / "tiny-1.0-py3-none-any.whl"
    tiny.rename(tmp_path / tiny.name)
    lacking = call(clone / "lab", "list", env=offline)
    assert lacking.returncode == 3 and f"tiny is not in {wheels}; complete it on a machine" in lacking.stderr
    (tmp_path / tiny.name).rename(tiny)
    done = call(clone / "lab", "python", "-c", "import tiny; print(tiny.NAME)", env=offline)
    assert (done.returncode, done.stdout) == (0, "tiny\n"), done.stderr


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("python", "3.9", "are for Python 3.9, and this is 3."),
        ("system", "linux riscv64", "are for linux riscv64 with glibc"),
        ("libc", [99, 1], "with glibc 99.1, and this is"),
        ("versions", "other", "are for another version of the lab; on a machine with a network: ./lab wheelhouse"),
        ("", None, "is no wheelhouse, or one that was not finished"),
    ],
)
def test_a_wheelhouse_for_another_machine_is_refused(
    key: str, value: object, why: str, clone: Path, tmp_path: Path
) -> None:
    code = "import json, runpy; lab = runpy.run_path('lab'); print(json.dumps(lab['machine']() | "
    code += "{'cpu': True, 'versions': lab['fingerprint']()}))"
    here = subprocess.run([sys.executable, "-c", code], cwd=clone, capture_output=True, text=True, check=True).stdout
    (tmp_path / ("wheelhouse.json" if key else "other.json")).write_text(json.dumps(json.loads(here) | {key: value}))
    refused = call(clone / "lab", "list", env={"RLLAB_WHEELHOUSE": str(tmp_path)})
    assert refused.returncode == 2 and why in refused.stderr and not (clone / ".venv").exists()


def test_a_wheelhouse_needs_a_folder(clone: Path) -> None:
    for words in ([], ["a", "b"], ["--help"]):
        refused = call(clone / "lab", "wheelhouse", *words)
        assert refused.returncode == 2 and "name one folder" in refused.stderr


def test_changed_versions_are_brought_up_to_date(clone: Path) -> None:
    call(clone / "lab")
    (clone / ".venv/kept").write_text("")
    (clone / "constraints.txt").write_text("# renewed\n")
    called = call(clone / "lab", "list")
    assert "versions have changed" in called.stderr and json.loads(called.stdout)[1:] == ["list"]
    assert (clone / ".venv/kept").exists()
    assert call(clone / "lab").stderr == ""


def test_unwritable_environment_is_an_error(clone: Path) -> None:
    called = call(clone / "lab", env={"RLLAB_VENV": "/proc/venv"})
    assert called.returncode == 3 and "set RLLAB_VENV to a folder that you may write to" in called.stderr
    assert len(called.stderr.splitlines()) == 1


def test_started_by_another_python(clone: Path, tmp_path: Path) -> None:
    """Under a Python that is too old the script searches PATH for a newer one and skips those that do not run."""
    here = f"3.{sys.version_info.minor}"
    wrapper = tmp_path / "old.py"  # pretends to be an old Python
    wrapper.write_text(
        "import sys, runpy\nsys.version_info = (3, 8, 0)\n"
        f"sys.argv = [{str(clone / 'lab')!r}, *sys.argv[1:]]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    bins = tmp_path / "bin"
    bins.mkdir()
    (bins / "python3.13").write_text("#!/bin/sh\necho 'no such version is installed' >&2\nexit 127\n")  # a shim
    (bins / "python3.13").chmod(0o755)
    (bins / f"python{here}").unlink(missing_ok=True)
    if here != "3.13":
        (bins / f"python{here}").symlink_to(Path(sys.base_prefix) / f"bin/python{here}")
    called = call(wrapper, "list", env={"PATH": f"{bins}:/usr/bin:/bin"})
    if here != "3.13":
        assert called.returncode == 0, called.stderr
        assert json.loads(called.stdout)[1:] == ["list"]
    alone = call(wrapper, "list", env={"PATH": "/nothing", "RLLAB_VENV": str(tmp_path / "none")})
    assert alone.returncode == 3 and "this is 3.8; install one, or on a cluster: module load" in alone.stderr


def test_the_script_parses_on_old_pythons() -> None:
    import ast

    ast.parse(LAB.read_text(), feature_version=(3, 6))


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_the_lab_installs_from_a_wheelhouse_without_a_network(tmp_path: Path) -> None:
    """The lab with the CPU build of PyTorch: 0.4 GB from the package index, then a namespace without a network."""
    isolated = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    if subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("no namespace can be made here")
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in ("/usr/local/bin", "/usr/bin", "/bin"):  # without a scheduler, which would ask for the GPU build
        for program in Path(folder).iterdir():
            if program.name not in ("sbatch", "qsub", "nvidia-smi") and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    subprocess.run(["git", "clone", "-q", str(LAB.parent), str(tmp_path / "clone")], check=True)
    lab, wheels = [getattr(sys, "_base_executable", sys.executable), "lab"], tmp_path / "wheels"
    env = environment(PATH=str(programs))
    subprocess.run([*lab, "wheelhouse", str(wheels)], cwd=tmp_path / "clone", env=env, check=True)
    offline = env | {"RLLAB_WHEELHOUSE": str(wheels)}
    for words in (["--version"], ["train", "pocket", "--smoke", "-q"]):
        done = subprocess.run(
            [*isolated, *lab, *words], cwd=tmp_path / "clone", env=offline, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert "pocket-1: done after" in done.stdout
