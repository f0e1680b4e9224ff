"""What the job scripts refuse in one line, before anything is trained; they run here without a scheduler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.conftest import ROOT

SCRIPTS = {"gpu.sbatch": {"SLURM_JOB_ID": "7"}, "bu.qsub": {"JOB_ID": "7", "SGE_TASK_ID": "undefined"}}
SCRIPTS |= {"vllm.sbatch": SCRIPTS["gpu.sbatch"], "vllm.qsub": SCRIPTS["bu.qsub"]}


@pytest.fixture(params=["gpu.sbatch", "bu.qsub"])
def script(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def error(script: str, clone: Path, *words: str, **env: str) -> str:
    """The one line that a script prints, with exit code 2."""
    env = os.environ | SCRIPTS[script] | env
    done = subprocess.run(["bash", str(clone / "slurm" / script), *words], cwd=clone, env=env, capture_output=True)
    out = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 2 and out.startswith("error: ") and out.count("\n") == 1, out
    return out


@pytest.mark.parametrize(
    "path", sorted([*(ROOT / "slurm").iterdir(), *Path(__file__).parent.glob("*.sh")]), ids=lambda p: p.name
)
def test_scripts_are_read_by_bash(path: Path) -> None:
    """Also those parts that only a node with GPUs runs."""
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


def test_the_recipe_comes_first(script: str, clone: Path) -> None:
    for words in ((), ("seed=1", "recipes/cartpole.yaml"), ("--smoke", "recipes/cartpole.yaml")):
        assert "the recipe comes first, for example: recipes/grpo.yaml optim.lr=1e-6" in error(script, clone, *words)


def test_another_folder_than_the_clone_is_named(script: str, clone: Path) -> None:
    (clone / "slurm/begin.sh").unlink()
    assert f"{clone} is not the folder of the clone" in error(script, clone, "recipes/cartpole.yaml")


def test_a_missing_environment_is_named(script: str, clone: Path) -> None:
    (clone / "slurm/site.sh").write_text(f"RLLAB_VENV={clone}/venv")
    expected = f"no environment in {clone}/venv. On the login node: RLLAB_VENV={clone}/venv ./lab --version"
    assert expected in error(script, clone, "recipes/cartpole.yaml")
    (clone / "venv/bin").mkdir(parents=True)
    (clone / "venv/bin/python").symlink_to("/share/pkg/python3/3.12/bin/python3")
    expected = "leads to /share/pkg/python3/3.12/bin/python3, which is not on this node: load its module"
    assert expected in error(script, clone, "recipes/cartpole.yaml")


def test_an_environment_of_another_python_is_named(script: str, clone: Path) -> None:
    """Its packages lie in a folder that is named by the version of the Python that built it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(clone / "venv")], check=True)
    (clone / "slurm/site.sh").write_text(f"RLLAB_VENV={clone}/venv")
    assert "venv has no PyTorch for Python 3." in error(script, clone, "recipes/cartpole.yaml")


def test_a_site_file_that_fails_is_named(script: str, clone: Path) -> None:
    (clone / "slurm/site.sh").write_text("return 3")
    assert "slurm/site.sh ended with 3" in error(script, clone, "recipes/cartpole.yaml")


def test_the_trainer_names_a_recipe_that_is_not_there(clone: Path) -> None:
    """Of Grid Engine's script, which needs no srun."""
    assert "nosuch.yaml" in error("bu.qsub", clone, "recipes/nosuch.yaml")


ARRAY = {
    "gpu.sbatch": {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"},
    "bu.qsub": {"JOB_ID": "7", "SGE_TASK_ID": "3"},
}
STAND_IN = """#!/bin/bash
while [[ $1 = --* ]]; do shift; done  # the options of srun
if [[ $1 = */python ]]; then shift; fi
if [ "$1" != -c ]; then echo "$RLLAB_AGAIN:" "${@:3}"; fi
"""


@pytest.mark.parametrize(
    ("words", "alone", "element"),
    [
        ("recipes/a.yaml x=1", "runs/a-job7/again: train recipes/a.yaml x=1 --name a-job7",
         "runs/a-job7_3/again: train recipes/a.yaml seed=3 x=1 --name a-job7_3"),
        ("train recipes x=1", "recipes/again: train recipes x=1", "recipes/again: train recipes seed=3 x=1"),
        (
            "--needs b=3 a.yaml x=1 --name c",
            "runs/c/again: train a.yaml x=1 --name c --name c",
            "runs/c/again: train a.yaml seed=3 x=1 --name c --name c",
        ),
        (
            "a.yaml seed=TASK-1",
            "",
            "runs/a-job7_3/again: train a.yaml seed=2 --name a-job7_3",
        ),
        ("run:a", "runs/.again-job7: train run:a", ""),
        ("sweep a.yaml lr=1,2", "runs/.again-job7: sweep a.yaml lr=1,2",
         "runs/.again-job7_3: sweep a.yaml lr=1,2 --array"),
        ("grade a.yaml b --out c", "runs/.again-job7: grade a.yaml b --out c",
         "runs/.again-job7_3: grade a.yaml b --out c"),
    ],
)  # fmt: skip
def test_the_first_word_may_be_a_verb(words: str, alone: str, element: str, script: str, clone: Path) -> None:
    """Python and srun are replaced by a script that prints its words."""
    replaced(clone, "srun")
    for job, expected in ((SCRIPTS, alone), (ARRAY, element)):
        if not expected:
            continue
        line = ["bash", str(clone / "slurm" / script), *words.split()]
        done = subprocess.run(line, cwd=clone, env=os.environ | job[script], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, f"{expected}\n"), done.stderr


def replaced(clone: Path, *programs: str) -> None:
    """Replaces Python and other programs by a script that prints its words."""
    for name in ("python", *programs):
        (clone / name).write_text(STAND_IN)
        (clone / name).chmod(0o755)
    (clone / "bin").symlink_to(clone)
    (clone / "slurm/site.sh").write_text(f"RLLAB_VENV={clone} PATH={clone}:$PATH")


@pytest.mark.parametrize(
    ("words", "trains", "serves"),
    [
        ("a.yaml x=1", "runs/a-job9/again: train a.yaml x=1 --name a-job9", "serve a.yaml x=1"),
        ("recipes x=1 --quiet", "recipes/again: train recipes x=1 --quiet", "serve recipes/recipe.yaml x=1"),
        ("run:a", "runs/.again-job9: train run:a", ""),
    ],
)
def test_a_job_with_a_server_has_two_steps(words: str, trains: str, serves: str, clone: Path) -> None:
    """The server's has the recipe and its settings, and a port by the number of the job. A stage needs no server."""
    replaced(clone, "srun", "scontrol")
    (clone / "scontrol").write_text("#!/bin/sh\necho node1; echo node2")
    late(clone / "srun")
    env = os.environ | {"SLURM_JOB_ID": "9", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4"}
    line = ["bash", str(clone / "slurm/vllm.sbatch"), *words.split()]
    done = subprocess.run(line, cwd=clone, env=env, capture_output=True, text=True)
    again = trains.partition(" ")[0]
    served = {f"{again} {serves} --port 10009 --tensor-parallel-size 4"} if serves else set()
    assert set(done.stdout.splitlines()) == {trains} | served, done.stderr


def late(program: Path) -> None:
    """Lets a stand-in train for half a second: its end ends the server."""
    program.write_text(STAND_IN + 'if [ "$3" = train ]; then sleep 0.5; fi\n')


def test_processes_of_grid_engine_have_ranks(clone: Path) -> None:
    """Two nodes with two GPUs each, and a server on a third one. A node is reached by a stand-in for qrsh."""
    replaced(clone, "qrsh", "qstat")
    (clone / "qrsh").write_text('#!/bin/bash\nNODE=$3 exec "${@:4}"\n')
    late(clone / "python")
    with open(clone / "python", "a") as python:
        python.write(
            'if [ "$1" != -c ]; then echo "$NODE $3 $RANK/$WORLD_SIZE $LOCAL_RANK $MASTER_ADDR $MASTER_PORT"; fi'
        )
    (clone / "hosts").write_text("a 4 gpu@a X\na 2 spare@a X\nb 4 gpu@b X\nc 4 gpu@c X\n")
    env = os.environ | {"JOB_ID": "7", "SGE_TASK_ID": "2", "CUDA_VISIBLE_DEVICES": "2,3", "NODE": "first"}
    env |= {"PE_HOSTFILE": str(clone / "hosts")}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        env.pop(name, None)
    for script, nodes in (("bu.qsub", ["first", "b", "c"]), ("vllm.qsub", ["first", "b"])):
        line = ["bash", str(clone / "slurm" / script), "a.yaml", "x='1 $2'"]
        done = subprocess.run(line, cwd=clone, env=env, capture_output=True, text=True)
        lines = done.stdout.splitlines()
        each = [
            f"{node} train {2 * n + k}/{2 * len(nodes)} {k} a 22025" for n, node in enumerate(nodes) for k in (0, 1)
        ]
        assert done.returncode == 0 and sorted(line for line in lines if "/again:" not in line) == sorted(each), done
        words = "runs/a-job7_2/again: train a.yaml seed=2 x='1 $2' --name a-job7_2"
        assert [line for line in lines if "/again:" in line] == [words] * len(each)
    served = (clone / "runs/a-job7_2/server.log").read_text()
    words = "serve a.yaml seed=2 x='1 $2' --port 12025 --tensor-parallel-size 2"
    assert served.startswith(f"runs/a-job7_2/again: {words}\nc serve "), served


def test_what_a_job_with_a_server_refuses(clone: Path) -> None:
    def refused(*words: str, **env: str) -> str:
        nodes = {"SLURM_JOB_NUM_NODES": "1", "CUDA_VISIBLE_DEVICES": "0", "PATH": f"{clone}:{os.environ['PATH']}"}
        return error("vllm.sbatch", clone, *words, **nodes | env)

    (clone / "scontrol").write_text("#!/bin/sh\necho node1")
    (clone / "scontrol").chmod(0o755)
    assert "need a GPU each: sbatch --nodes=2, or --gpus-per-node=2" in refused("recipes/grpo.yaml")
    assert "grade: this script trains" in refused("grade", "A.yaml", "DIR")
    assert "need a GPU each: qsub -l gpus=2" in error("vllm.qsub", clone, "recipes/grpo.yaml")
    assert "grade: this script trains" in error("vllm.qsub", clone, "grade", "A.yaml", "DIR")
