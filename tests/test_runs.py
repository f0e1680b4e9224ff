"""Runs that failed, were damaged or lost a file: what a corrected command does, and what the tables still show."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from conftest import TESTS, run
from forked import call

from rllab.core.begin import next_run
from rllab.core.errors import InUse, MachineFault, Mistake
from rllab.core.logs import Log, backward, ranges
from rllab.core.recipe import load_recipe
from rllab.core.run import RunFolder
from rllab.core.runs import find_run
from rllab.core.trainer import Trainer
from rllab.testing import outcome


def rllab(*words: str, cwd: Path) -> tuple[int, str]:
    """The exit code and the output of a command."""
    done = call("-m", "rllab", *words, cwd=cwd, env=os.environ)
    return done.returncode, done.stdout + done.stderr


def test_a_failed_run_gives_way_to_the_corrected_command(toy, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="cannot be saved"):
        run(toy(algo="Forgetful"), tmp_path / "a")
    status = RunFolder(tmp_path / "a").status()
    assert status["state"] == "failed" and "Forgetful.pool is a object" in status["reason"] and status["time"]
    assert outcome(run(toy(), tmp_path / "a")) == outcome(run(toy(), tmp_path / "b"))
    assert RunFolder(tmp_path / "a").status()["reason"] is None
    with pytest.raises(Mistake, match="other settings"):
        Trainer(toy("noise=0.2"), tmp_path / "a")


def test_rounds_without_a_checkpoint_are_dropped_with_a_warning(toy, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="round 4"):
        run(toy("poison=4"), tmp_path)
    with pytest.warns(UserWarning, match="had no checkpoint; its rounds are dropped"):
        trainer = run(toy(), tmp_path)
    assert [r["step"] for r in trainer.folder.rows()] == [1, 2, 3, 4, 5, 6] and not (tmp_path / "failed").exists()


def test_a_corrected_file_replaces_the_copy_of_a_run_that_failed(tmp_path: Path) -> None:
    source = (TESTS / "toys.py").read_text()
    (tmp_path / "mine.py").write_text(source.replace("self.seen = 0", "self.sen = 0"))
    (tmp_path / "r.yaml").write_text("algo: mine.py:Regression\ntotal_steps: 2\n")
    with pytest.raises(AttributeError):
        run(load_recipe(tmp_path / "r.yaml"), tmp_path / "a")
    (tmp_path / "mine.py").write_text(source)
    assert run(load_recipe(tmp_path / "r.yaml"), tmp_path / "a").folder.state == "done"


def test_a_failed_number_is_used_again(toy, tmp_path: Path) -> None:
    for algo in ("Forgetful", "Forgetful", "Regression"):
        trainer = Trainer(toy(algo=algo), runs=tmp_path)
        if algo == "Forgetful":
            with pytest.raises(Mistake):
                next(iter(trainer))
    assert [p.name for p in tmp_path.iterdir()] == ["toy-1"] and trainer.recipe.plain["algo"].endswith("Regression")
    held = iter(Trainer(toy(algo="Forgetful"), runs=tmp_path))  # another recipe, while toy-1 may still begin
    with pytest.raises(Mistake):
        next(held)
    assert RunFolder(tmp_path / "toy-2").state == "failed"


def test_a_failed_number_is_used_by_one_of_several_commands(toy, tmp_path: Path) -> None:
    with pytest.raises(Mistake):
        next(iter(Trainer(toy(algo="Forgetful"), runs=tmp_path)))
    folders = [next_run(toy(f"seed={seed}"), tmp_path) for seed in range(3)]  # at once: none has been created yet
    assert [f.path.name for f in folders] == ["toy-1", "toy-2", "toy-3"]


@pytest.mark.parametrize("state", ["failed", "stopped", "running", "", "damaged"])
def test_the_same_command_goes_on_whatever_ended_the_run(state: str, toy, tmp_path: Path) -> None:
    folder = Trainer(toy("save_every=1"), runs=tmp_path).folder
    run(toy("save_every=1"), folder.path, stop_after=3)
    Trainer(toy("noise=0.3"), runs=tmp_path)  # a newer run with other settings
    status = folder.path / "status.json"
    status.unlink()
    if state:
        status.write_text("{" if state == "damaged" else json.dumps({"state": state, "step": 3}))
    again = Trainer(toy("save_every=1"), runs=tmp_path)
    assert again.folder.path == folder.path and [r["step"] for r in again] == [4, 5, 6]
    assert Trainer(toy("save_every=1"), runs=tmp_path).folder.path.name == "toy-3", "a finished run is not continued"


def test_a_reward_that_failed_goes_on_with_the_same_command(tmp_path: Path) -> None:
    source = (TESTS / "toys.py").read_text()
    fails = "        assert step < 4 or __import__('pathlib').Path('service').exists(), 'no answer'\n"
    broken = source.replace("        total = 0.0\n", "        total = 0.0\n" + fails)
    (tmp_path / "mine.py").write_text(broken)
    (tmp_path / "r.yaml").write_text("algo: mine.py:Regression\ntotal_steps: 6\nsave_every: 1\n")
    assert rllab("train", "r.yaml", cwd=tmp_path)[0] == 1
    code, shown = rllab("runs", cwd=tmp_path)
    assert code == 0 and "no answer" in shown.splitlines()[-1]
    (tmp_path / "service").touch()
    assert rllab("train", "r.yaml", cwd=tmp_path)[0] == 0
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["r-1"]


@pytest.mark.parametrize("lost", ["folder", "metrics.jsonl", "recipe.yaml", "replaced", "emptied"])
def test_a_record_that_is_lost_in_mid_run_ends_it_with_a_machine_fault(lost: str, toy, tmp_path: Path) -> None:
    trainer = Trainer(toy("save_every=2"), tmp_path / "a")
    with pytest.raises(MachineFault, match=r"(metrics.jsonl|recipe.yaml) was deleted"):
        for row in trainer:
            if row["step"] == 3 and lost == "folder":
                shutil.rmtree(tmp_path / "a")
            elif row["step"] == 3 and lost == "replaced":
                shutil.copytree(tmp_path / "a", tmp_path / "b")
                shutil.rmtree(tmp_path / "a")
                (tmp_path / "b").rename(tmp_path / "a")
            elif row["step"] == 3 and lost == "emptied":
                os.truncate(tmp_path / "a/metrics.jsonl", 0)
            elif row["step"] == 3:
                (tmp_path / "a" / lost).unlink()
    assert RunFolder(tmp_path / "a").state != "done" and (tmp_path / "a").exists() == (lost != "folder")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="becomes another user for a moment")
def test_another_users_run_can_be_seen_and_not_disturbed(toy, tmp_path: Path) -> None:
    folder = run(toy(), tmp_path).folder
    for path in (tmp_path, *tmp_path.parents):
        if path == Path(tempfile.gettempdir()):
            break
        path.chmod(0o755)
    held = folder.lock()
    os.seteuid(65534)
    try:
        assert RunFolder(tmp_path).is_running
        with pytest.raises(InUse, match="a process of another user trains this run"):
            RunFolder(tmp_path).lock()
        os.seteuid(0)
        held.__exit__(None, None, None)
        os.seteuid(65534)
        assert not RunFolder(tmp_path).is_running
        with pytest.raises(PermissionError):
            RunFolder(tmp_path).lock()
    finally:
        os.seteuid(0)


def test_a_run_that_was_given_other_settings_meanwhile_does_not_begin(toy, tmp_path: Path) -> None:
    first = Trainer(toy(), tmp_path)
    Trainer(toy("noise=0.3"), tmp_path)
    with pytest.raises(Mistake, match="another process has given this run other settings"):
        next(iter(first))


def test_missing_and_unreadable_rows_are_named_on_resume(toy, tmp_path: Path) -> None:
    whole = outcome(run(toy(), tmp_path / "whole"))
    run(toy(), tmp_path / "a", stop_after=5)
    log = tmp_path / "a/metrics.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + b"\0\0\xff{\n" + lines[3])
    with pytest.warns(UserWarning) as warned:
        again = run(toy(), tmp_path / "a")
    texts = " ".join(str(w.message) for w in warned)
    assert "lacks the rows of round 2 to 3" in texts and f"{log}: line 2 is not a row of JSON" in texts
    with pytest.warns(UserWarning, match="line 2"):
        weights, rows = outcome(again)
    assert weights == whole[0] and [r["step"] for r in rows] == [1, 4, 5, 6]


def test_both_logs_are_flushed_to_the_disk_before_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, flushed = RunFolder(tmp_path), list[int]()
    (tmp_path / "recipe.yaml").touch()
    folder.append({"step": 1}, [{"completion": "x"}])
    monkeypatch.setattr("os.fsync", lambda file: flushed.append(os.fstat(file).st_ino))
    folder.flush()
    folder.close()
    assert set(flushed) == {(tmp_path / name).stat().st_ino for name in ("metrics.jsonl", "samples.jsonl")}


def test_a_log_is_cut_at_its_end(tmp_path: Path) -> None:
    log = Log(tmp_path / "x.jsonl")
    log.append([{"step": i // 3, "text": "ä" * 5000} for i in range(300)])
    log.close()
    whole = log.path.read_bytes()
    with open(log.path, "ab") as file:
        file.write(b'{"step": 100, "te')
    with open(log.path, "rb") as file:
        assert [line for _, line in backward(file)] == whole.split(b"\n")[-2::-1]
    assert log.last()["step"] == 99
    log.cut(41)
    assert [r["step"] for r in log.rows()] == [i // 3 for i in range(126)] and whole.startswith(log.path.read_bytes())
    log.cut(-1)
    assert log.path.read_bytes() == b"" and log.last() == {} and ranges([3, 1, 2, 9]) == "1 to 3, 9"


@pytest.fixture
def damaged(toy, tmp_path: Path) -> Path:
    """A folder with the run `good`, and others whose name says which file has which damage."""
    good = run(toy("expect={eval/error: 1}"), tmp_path / "runs/good").folder.path
    status = json.loads((good / "status.json").read_text())
    cases = {"empty": "", "list": "[1]", "cut": '{"state": "do', "null": "null", "bytes": "\0\0\0"}
    cases |= {"half": '{"state": "done"}', "odd": json.dumps(status | {"headline": 3, "expect": {"a": 1}})}
    cases |= {"steps": json.dumps(status | {"step": "many"}), "odd_expect": json.dumps(status | {"expect": [1]})}
    for name, text in cases.items():
        shutil.copytree(good, tmp_path / "runs" / f"status-{name}")
        (tmp_path / "runs" / f"status-{name}" / "status.json").write_text(text)
        shutil.copytree(good, tmp_path / "runs" / f"recipe-{name}")
        (tmp_path / "runs" / f"recipe-{name}" / "recipe.yaml").write_text(text)
        shutil.copytree(good, tmp_path / "runs" / f"metrics-{name}")
        (tmp_path / "runs" / f"metrics-{name}" / "metrics.jsonl").write_text(text + "\n")
    shutil.copytree(good, tmp_path / "runs/status-missing")
    (tmp_path / "runs/status-missing/status.json").unlink()
    (tmp_path / "runs/recipe-tabs").mkdir()
    (tmp_path / "runs/recipe-tabs/recipe.yaml").write_text("a: [1\n\tb: !!python/object:os.system {}\n")
    return tmp_path


def test_one_damaged_file_hides_no_other_run(damaged: Path) -> None:
    names = [p.name for p in (damaged / "runs").iterdir()]
    code, out = rllab("runs", "--json", cwd=damaged)
    table = {r["run"]: r for r in json.loads(out)}
    assert code == 0 and sorted(table) == sorted(names)
    assert table["good"]["state"] == "done" and not table["good"]["problem"]
    for name in names:
        file = {"status": "status.json", "recipe": "recipe.yaml"}.get(name.partition("-")[0])
        if file and name not in ("status-missing", "status-half"):
            assert table[name]["state"] == "damaged" and f"runs/{name}/{file}" in table[name]["problem"], name
    code, out = rllab("runs", cwd=damaged)
    assert code == 0 and "Traceback" not in out and "recipe-tabs damaged: runs/recipe-tabs/recipe.yaml:" in out
    code, out = rllab("curves", "last", cwd=damaged)
    assert "Traceback" not in out and code in (0, 2)
    code, out = rllab("curves", "good", "metrics-cut", "metrics-list", cwd=damaged)
    assert code == 0 and len([line for line in out.splitlines() if line.startswith("good ")]) == 3, out
    assert "warning: runs/metrics-cut/metrics.jsonl: line 1 is not" in out and "left out: runs/metrics-list has" in out
    code, out = rllab("curves", "metrics-cut", cwd=damaged)
    assert code == 2 and "Traceback" not in out
    for verb in ("samples", "diagnose"):
        assert "Traceback" not in rllab(verb, "metrics-cut", cwd=damaged)[1]
    assert find_run("last", damaged / "runs").exists


def test_damaged_runs_do_not_stop_a_new_one(toy, tmp_path: Path) -> None:
    first = run(toy(), tmp_path / "toy-1").folder
    (first.path / "recipe.yaml").write_text("{")
    assert Trainer(toy(), runs=tmp_path).folder.path.name == "toy-2"
    with pytest.raises(Mistake, match=r"toy-1/recipe.yaml:\d is damaged"):
        Trainer(toy(), first.path)
    (first.path / "recipe.yaml").unlink()
    with pytest.raises(Mistake, match=r"toy-1 has checkpoints, but no recipe.yaml"):
        Trainer(toy(), first.path)
