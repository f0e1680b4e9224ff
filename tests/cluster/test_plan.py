"""What `rllab submit` plans, refuses and says before a job is queued; without a scheduler."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TESTS

from cluster.test_submit import FIRST, SECOND
from rllab.cli import app, train
from rllab.cli.doctor import examine
from rllab.cluster import checks, disk, gpus, rounds
from rllab.cluster.chain import Chain
from rllab.cluster.gpus import memory_remark
from rllab.cluster.schedulers import GridEngine, Request, Slurm, scheduler_of
from rllab.cluster.submit import Queue
from rllab.core import needs
from rllab.core.algorithm import Line
from rllab.core.errors import Mistake
from rllab.core.machine import memory_bytes
from rllab.core.needs import check_made
from rllab.core.recipe import load_recipe
from rllab.core.run import RunFolder
from rllab.core.stages import stage
from rllab.core.trainer import Trainer

ROOT = TESTS.parent
CUDA = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]  # as of PyTorch's builds for CUDA 13


def own(folder: Path, name: str, *lines: str) -> str:
    """A recipe of the user's own; with a line `model: ...` it needs one."""
    (folder / "toys.py").write_text((TESTS / "toys.py").read_text() + SECOND)
    kind = "Second" if any(line.startswith("model") for line in lines) else "Regression"
    (folder / f"{name}.yaml").write_text(FIRST.replace("Regression", kind) + "\n".join(lines))
    return f"{name}.yaml"


def lines(script: str, flags: list[str], *sources: str, changes: tuple[str, ...] = ()) -> list[str]:
    """The lines of a dry run."""
    printed = list[str]()
    scheduler = scheduler_of(Path("slurm") / script, flags)
    Queue(scheduler, {}, printed.append, dry=True).add_all(Chain(sources, changes, [], Path("runs")).jobs)
    return printed


def test_stages_come_first_and_once_whatever_the_order(here: Path) -> None:
    expected = [
        "job1=$(sbatch --parsable --account=x slurm/gpu.sbatch run:pocket)",
        "job2=$(sbatch --parsable --account=x --dependency=afterok:$job1 --kill-on-invalid-dep=yes slurm/gpu.sbatch "
        "--needs pocket=$job1 run:reward-model)",
        "sbatch --parsable --account=x --array=0-2 --dependency=afterok:$job1:$job2 --kill-on-invalid-dep=yes "
        "slurm/gpu.sbatch --needs pocket=$job1,reward-model=$job2 rlhf total_steps=9",
    ]
    for sources in (["rlhf"], ["pocket", "rlhf", "recipes/reward-model.yaml"], ["run:reward-model", "rlhf"]):
        assert lines("gpu.sbatch", ["--account=x"], *sources, changes=("seed=0..2", "total_steps=9")) == expected
    two = lines("bu.qsub", ["-P", "ds542"], "grpo", "dpo")
    assert two == [
        "job1=$(qsub -terse -w e -P ds542 slurm/bu.qsub run:pocket)",
        *(f"qsub -terse -w e -P ds542 -hold_jid $job1 slurm/bu.qsub --needs pocket=$job1 {r}" for r in ("grpo", "dpo")),
    ]


def test_own_recipes_are_stages_by_the_names_of_their_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = own(here, "first"), own(here, "second", "model: run:first")
    with pytest.raises(Mistake, match=r"second.yaml:4: model: no run 'first' in runs"):
        lines("gpu.sbatch", [], second)
    expected = [
        "job1=$(sbatch --parsable slurm/gpu.sbatch first.yaml --name first)",
        "sbatch --parsable -a 3 --dependency=afterok:$job1 --kill-on-invalid-dep=yes slurm/gpu.sbatch "
        "--needs first=$job1 second.yaml",
    ]
    assert lines("gpu.sbatch", ["-a", "3"], second, first) == expected
    app(["submit", "--dry-run", "slurm/gpu.sbatch", "-a3", "--", second, first], standalone_mode=False)
    assert capsys.readouterr().out.splitlines() == [line.replace("-a 3", "-a3") for line in expected]
    for _ in Trainer(load_recipe(first), Path("runs/first")):
        pass
    made = "sbatch --parsable slurm/gpu.sbatch --needs first= second.yaml"
    assert lines("gpu.sbatch", [], second, first) == lines("gpu.sbatch", [], second) == [made]
    own(here, "first", "expect: {eval/loss: <= 9}")
    assert lines("gpu.sbatch", [], second, first) == [made]
    (here / first).write_text((here / first).read_text().replace("total_steps: 4", "total_steps: 5"))
    assert len(lines("gpu.sbatch", [], second, first)) == 2
    own(here, "first", "noise: 0.5")
    with pytest.raises(Mistake, match=r"runs/first holds a run with other settings than first.yaml \(noise\)"):
        lines("gpu.sbatch", [], second, first)


def test_models_of_an_evaluation_come_first_as_well(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "run:pocket", "cartpole-1", "--task", "gsm8k", "--limit", "9"]
    app(["submit", "--dry-run", "slurm/bu.qsub", "--", *words], standalone_mode=False)
    assert capsys.readouterr().out.splitlines() == [
        "job1=$(qsub -terse -w e slurm/bu.qsub run:pocket)",
        f"qsub -terse -w e -hold_jid $job1 slurm/bu.qsub --needs pocket=$job1 {' '.join(words)}",
    ]


def test_a_circle_and_a_name_with_two_meanings_are_refused(here: Path) -> None:
    one, two = own(here, "one", "model: run:two"), own(here, "two", "model: run:one")
    with pytest.raises(Mistake, match="needs run:"):
        lines("gpu.sbatch", [], one, two)
    pocket, other = own(here, "pocket"), own(here, "other", "model: run:pocket")
    with pytest.raises(Mistake, match=r"other.yaml:4: model: run:pocket is the recipe pocket of the lab, not pocket"):
        lines("gpu.sbatch", [], pocket, other)


def test_seeds_of_grid_engine_are_never_others(here: Path) -> None:
    for seeds, words in (("0..4", ["-t 1-5", "cartpole seed=TASK-1 batch_size=8"]), ("2..3", ["-t 2-3", "cartpole b"])):
        (line,) = lines("bu.qsub", [], "cartpole", changes=(f"seed={seeds}", "batch_size=8"))
        assert all(word in line for word in words), line


def refused(*words: str) -> str:
    """The message of `rllab submit` for words that it refuses."""
    with pytest.raises(Mistake) as error:
        app(["submit", *words], standalone_mode=False)
    return str(error.value)


def test_what_is_wrong_is_named_before_anything_is_queued(here: Path) -> None:
    (here / "plain.sh").write_text("#!/bin/bash\nrllab train x\n")
    (here / "own.sbatch").write_text("#!/bin/bash\n#SBATCH --time=1\npython train.py\n")
    assert "plain.sh has no line of either" in refused("plain.sh", "--", "cartpole")
    assert "own.sbatch does not source slurm/begin.sh" in refused("own.sbatch", "--", "cartpole")
    assert "nosuch.sh is no file" in refused("nosuch.sh", "--", "cartpole")
    script = "slurm/gpu.sbatch"
    assert "put -- between" in refused(script, "cartpole")
    assert "no recipe is named" in refused(script, "--", "seed=1")
    assert "no recipe named 'cartpol'" in refused(script, "--", "cartpol")
    assert "lrr" in refused(script, "--", "cartpole", "optim.lrr=1")
    assert "--name: behind -- stand recipes" in refused(script, "--", "cartpole", "--name", "x")
    assert "both make an array" in refused(script, "--array=0-3", "--", "cartpole", "seed=0..1")
    assert "the folder of submissions, is not there" in refused(
        script, "--", "grade", "docs/assignment/assignment.yaml", "nosuch"
    )
    (here / "slurm/site.sh").write_text(f"export RLLAB_VENV={here}/none")
    assert "a job would end at once: no environment in" in refused(script, "--", "cartpole")


def test_without_the_scheduler_its_login_node_is_named(here: Path) -> None:
    env = os.environ | {"PATH": f"{here}/bin"}
    (here / "bin").mkdir()
    for name in ("bash", "env", "basename", "cat", "rm", "readlink"):
        (here / "bin" / name).symlink_to(str(shutil.which(name)))
    line = [sys.executable, "-m", "rllab", "submit", "slurm/bu.qsub", "--", "cartpole"]
    done = subprocess.run(line, cwd=here, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and "qsub is not on this machine, and slurm/bu.qsub is for Grid Engine" in done.stderr


def test_the_environment_of_a_job_decides_what_is_made(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """slurm/site.sh sets RLLAB_HOME for jobs; the shell of the user need not have it."""
    (here / "slurm/site.sh").write_text(f"export RLLAB_VENV={sys.prefix} RLLAB_HOME={here}/elsewhere")
    folder = here / "elsewhere/runs" / stage("pocket")[1].path.name
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps({"state": "done"}))
    with pytest.raises(Mistake, match="has no checkpoint"):
        app(["submit", "slurm/gpu.sbatch", "--dry-run", "--", "grpo"], standalone_mode=False)
    assert f"run:pocket is made already, in {folder}" in capsys.readouterr().err


def test_a_full_disk_and_a_used_quota_are_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need = {Path("runs"): 5000.0, here / "home/runs": 500.0}
    checks.check_disk({Path("runs"): 1.0}, Path("runs"))
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9e9, 0, 5400 << 20))
    with pytest.raises(Mistake, match=r"take 5,500 MB, and 5,400 MB are free"):
        checks.check_disk(need, Path("runs"))
    monkeypatch.undo()
    (here / "quota").write_text(
        "#!/bin/bash\necho 'Disk quotas for user ann (uid 7):'\n"
        "echo '     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace'\n"
        "echo '  nfs:/home 9216000* 9000000 10240000   6days    1000       0       0'\n"
    )
    (here / "quota").chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}:{os.environ['PATH']}")
    assert disk.quota_left(here) == (9000000 - 9216000) / 1024
    with pytest.raises(Mistake, match="MB are left of your quota"):
        checks.check_disk({here / "runs": 8.0}, Path("runs"))


def test_requests_are_read_from_the_script_and_the_options(here: Path) -> None:
    slurm = Slurm(here / "slurm/gpu.sbatch", ["-t", "1-0", "--gres=gpu:v100:2", "--export=ALL,RLLAB_WARNING=9"])
    assert slurm.request() == Request(86400.0, 300.0, True, ("v100",), None, {"RLLAB_WARNING": "9"})
    sge = GridEngine(here / "slurm/bu.qsub", ["-l", "h_rt=600,gpu_type=A40", "-v", "RLLAB_WARNING=9"])
    assert sge.request() == Request(600.0, None, True, ("A40",), 8.0, {"RLLAB_WARNING": "9"})
    assert Slurm(here / "slurm/gpu.sbatch", ["--gpus-per-node=0"]).request().gpus is False
    asked = GridEngine(here / "slurm/bu.qsub", ["-l", "gpus=2", "-l", "gpu_memory=40G"]).request()
    assert (asked.memory, asked.ranks) == (40 * 2**30, 2)


def test_a_gpu_with_too_little_memory_is_named() -> None:
    """`gpu_memory` is the least that each GPU has; half a GB of it is CUDA's."""
    lines = {"memory of an update": Line("", gpu=44.0 * 1024)}
    asked = Request(gpus=True, memory=40 * 2**30, ranks=2)
    text = memory_remark("grpo", lines, asked)
    assert re.search("grpo needs about 44 GB .* on each of 2 GPUs .* 40 GB or more: ask for -l gpu_memory=49G", text)
    assert memory_remark("grpo", lines, replace(asked, memory=45 * 2**30)) == ""
    assert memory_remark("grpo", lines, replace(asked, memory=None)) == memory_remark("grpo", {}, asked) == ""


@pytest.mark.parametrize(
    ("engine", "request_", "built", "part"),
    [
        ("Grid Engine", Request(gpus=True, capability=8.0), CUDA, ""),
        ("Grid Engine", Request(gpus=True, capability=7.0), CUDA, "gpu_c=7 may give a GPU .*: ask for -l gpu_c=7.5"),
        ("Grid Engine", Request(gpus=True), CUDA, "ask for -l gpu_c=7.5"),
        ("Grid Engine", Request(gpus=True, kinds=("V100",)), CUDA, "no code for the V100: ask for -l gpu_c=7.5"),
        ("Grid Engine", Request(gpus=True, kinds=("A40",)), CUDA, ""),
        ("Slurm", Request(gpus=True), CUDA, ""),
        ("Slurm", Request(gpus=True, kinds=("v100",)), CUDA, "no code for the v100: ask for one of .* 7.5 or more"),
        ("Slurm", Request(gpus=True, kinds=("h100",)), ["sm_70", "sm_80"], "no code for the h100"),
        ("Slurm", Request(gpus=True, kinds=("h100",)), ["sm_70", "compute_70"], ""),
        ("Slurm", Request(gpus=True), [], "built without CUDA, and jobs would train on the CPU"),
        ("Slurm", Request(), [], ""),
    ],
)
def test_gpus_that_pytorch_has_no_code_for_are_named(
    engine: str, request_: Request, built: list[str], part: str
) -> None:
    lines = gpus.remarks(request_, built, engine)
    assert len(lines) == bool(part) and all(re.search(part, line) for line in lines), lines


def test_a_round_that_outlasts_the_warning_is_foreseen(here: Path) -> None:
    recipe = load_recipe(own(here, "slow", "noise: 0.3"))
    assert rounds.usual_round(recipe, Path("runs")) is None
    for _ in Trainer(load_recipe("slow.yaml", ["seed=3"]), Path("runs/a")):
        pass
    log = Path("runs/a/metrics.jsonl")
    rows = [json.loads(line) | {"time/round": 400.0 + k} for k, line in enumerate(log.read_text().splitlines())]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    usual = rounds.usual_round(recipe, Path("runs"))
    assert usual is not None and 402 < usual.seconds <= 403 and usual.run == Path("runs/a")
    assert rounds.usual_round(load_recipe("slow.yaml", ["noise=0.2"]), Path("runs")) is None
    line = rounds.remark("slow", usual, "Slurm", Request(14400.0, 300.0))
    assert "takes 403 s (runs/a, on " in line and "--signal=USR1@600 --export=ALL,RLLAB_WARNING=540" in line
    given = Request(14400.0, 600.0, variables={"RLLAB_WARNING": "540"})
    assert rounds.remark("slow", usual, "Slurm", given) == ""
    assert rounds.remark("slow", usual, "Slurm", Request(14400.0, 300.0, variables=given.variables)) != ""
    assert rounds.remark("slow", usual, "Grid Engine", Request(43200.0)) == ""
    with pytest.raises(Mistake, match="the job has 300 s: give it more by -l h_rt"):
        rounds.remark("slow", usual, "Grid Engine", Request(300.0))


def test_check_and_doctor_say_what_jobs_should_ask_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "slurm/old.qsub").write_text((here / "slurm/bu.qsub").read_text().replace("gpu_c=8.0", "gpu_c=7.0"))
    monkeypatch.setattr(gpus, "architectures", lambda: CUDA)
    text = examine(Path("runs"))["gpu build"]
    assert "of compute capability 7.5 and more" in text and text.count("slurm/") == 1
    assert "slurm/old.qsub: gpu_c=7 may give a GPU" in text
    monkeypatch.setattr(train, "which", lambda name: name == "qsub")
    monkeypatch.setattr(rounds, "usual_round", lambda *_: rounds.Round(700.0, Path("runs/a"), "node7"))
    expected = r"a round of toy takes 12 min \(runs/a, on node7\), and a warning leaves 10 min: .* -v RLLAB_WARNING=900"
    with pytest.warns(UserWarning, match=expected):
        train._warn_of_long_rounds(load_recipe(own(here, "toy")))


def test_the_memory_of_a_job_is_what_slurm_says(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = memory_bytes()
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "100")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "4")
    assert memory_bytes() == 400 * 2**20 < whole
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "300")
    assert memory_bytes() == 300 * 2**20


def test_a_job_whose_inputs_others_make_is_a_failure_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_made("a", RunFolder(tmp_path))
    monkeypatch.setenv("RLLAB_NEEDS", "a=12,b=")
    monkeypatch.setattr(needs, "PATIENCE", 0.0)
    check_made("c", RunFolder(tmp_path))
    with pytest.raises(Mistake, match=r"job 12 was to make it, .* It was not begun, in .* the log of job 12 says why"):
        check_made("a", RunFolder(tmp_path))
    with pytest.raises(Mistake, match="run:b was finished when this job was queued, and is not there any more"):
        check_made("b", RunFolder(tmp_path))
    (tmp_path / "status.json").write_text('{"state": "stopped", "reason": "SIGTERM"}')
    with pytest.raises(Mistake, match=r"It is stopped \(SIGTERM\), in"):
        check_made("a", RunFolder(tmp_path))
    monkeypatch.setattr(needs, "PATIENCE", 60.0)  # a network file system shows late what another node has written
    late = 'import sys, time; time.sleep(1.5); open(sys.argv[1], "w").write("{\\"state\\": \\"done\\"}")'
    writer = subprocess.Popen([sys.executable, "-c", late, str(tmp_path / "status.json")])
    check_made("a", RunFolder(tmp_path))
    check_made("b", RunFolder(tmp_path))
    assert writer.wait() == 0
