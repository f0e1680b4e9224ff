"""The command line: arguments, exit codes, output."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from forked import call
from typer.testing import CliRunner

from rllab import algos, rewards
from rllab.cli import app, settings
from rllab.core.run import RunFolder
from rllab.rewards.trained import Trained

ROOT = Path(__file__).resolve().parents[1]


def rllab(*words: str, cwd: Path | str = ".", **env: str) -> subprocess.CompletedProcess[str]:
    return call("-m", "rllab", *words, cwd=cwd, env=os.environ | env)


def started(*words: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """The same in a new Python process."""
    line = [sys.executable, "-m", "rllab", *words]
    return subprocess.run(line, cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=240)


def verbs() -> dict[str, Any]:
    """The commands by name."""
    return typer.main.get_command(app).commands  # type: ignore[attr-defined,no-any-return]


def test_help_lists_the_verbs_by_group() -> None:
    groups = dict(re.findall(r"^(\w[\w ]+):\n((?:  .*\n)+)", started("--help").stdout, re.M))
    words = {group: re.findall(r"^  (\w+) ", lines, re.M) for group, lines in groups.items() if group != "Options"}
    assert list(words) == ["Train", "Look", "Language models", "Games", "Score and grade"]
    assert "train" in words["Train"] and "runs" in words["Look"] and "strength" in words["Games"]
    assert sorted(verb for group in words.values() for verb in group) == sorted(verbs())
    assert re.fullmatch(r"rllab \d+\.\d+\.\d+\n", rllab("--version").stdout)


@pytest.mark.parametrize("verb", ["", *verbs()])
def test_help_fits_80_columns_uncut(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, [verb, "--help"] if verb else ["--help"]).stdout
    assert shown.startswith("Usage: ") and max(map(len, shown.splitlines())) <= 80
    letters = "".join(shown.split())  # without the breaks of lines
    for each in [verbs()[verb]] if verb else verbs().values():
        summary, *details = (each.help or "").split("\n\n")
        assert summary and len(summary) <= 62, "one line beside the longest verb"
        for paragraph in [summary, *details] if verb else [summary]:
            assert "".join(paragraph.split()) in letters
    for parameter in verbs()[verb].params if verb else []:
        assert parameter.name in ("help", "context") or parameter.help, f"{verb} {parameter.name} has no help"
        assert "".join((parameter.help or "").split()) in letters


def test_json_is_a_flag_and_a_file_is_out(tmp_path: Path) -> None:
    row = {"id": "1", "question": "q", "target": "18", "kind": "number", "completion": "The answer is 18."}
    (tmp_path / "r.jsonl").write_text(json.dumps(row) + "\n")
    for words in (["--json", "out.jsonl"], ["--json=out.jsonl"]):
        for verb in ("score", "analyse"):
            refused = rllab(verb, "r.jsonl", *words, cwd=tmp_path)
            assert refused.returncode == 2 and "--out out.jsonl" in refused.stderr, refused.stderr
    done = rllab("score", "r.jsonl", "--out", "out.jsonl", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)[0]["accuracy"] == 1.0 and json.loads(done.stdout)[0]["items"] == 1
    assert json.loads((tmp_path / "out.jsonl").read_text())["correct"] is True
    assert json.loads(rllab("compare", "--json", "out.jsonl", "out.jsonl", cwd=tmp_path).stdout)["gained"] == 0
    for name, command in verbs().items():
        for parameter in command.params:
            assert "--json" not in parameter.opts or parameter.is_flag, name


def test_list_groups_recipes_and_wraps(tmp_path: Path) -> None:
    group = {r["recipe"]: r["group"] for r in json.loads(started("list", "--json").stdout)}
    assert {group[n] for n in ("cartpole", "lunarlander", "pendulum-sac", "rlhf-control")} == {"control"}
    assert {group[n] for n in ("tictactoe", "go5", "supervised-c4", "adversary-c4")} == {"games"}
    assert {group[n] for n in ("pocket", "dpo", "grpo", "prover")} == {"language models"}
    assert {group[n] for n in ("go9", "gsm8k-lora", "connect-four-gpu")} == {"needs a GPU"}
    shown = rllab("list", COLUMNS="80").stdout.splitlines()
    assert [line for line in shown if not line.startswith(" ")] == [
        f"{g}:" for g in dict.fromkeys(("control", "games", "language models", "needs a GPU"))
    ]
    assert max(map(len, shown)) <= 80 and {line.split()[0] for line in shown} >= set(group)
    assert rllab("show", "cartpole").stdout == (ROOT / "recipes/cartpole.yaml").read_text()


def test_show_all_explains_every_setting(tmp_path: Path) -> None:
    shown = rllab("show", "cartpole", "--all", COLUMNS="200").stdout
    assert re.search(r"^buffer_size: 20000 +# transitions.* \(default 10000\)$", shown, re.M)
    assert re.search(r"^optim.lr: 0.005 +# learning rate \(default 0.001\)$", shown, re.M)
    assert re.search(r"^keep: 2 +# number of checkpoints kept", shown, re.M)
    assert re.search(r"^lora.r: 8", rllab("show", "GRPO", "--all").stdout, re.M)
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom rllab.algos import DQN\n@dataclass(kw_only=True)\n"
        "class Mine(DQN):\n    depth: int = 3  # layers of mine\n    gamma: float = 0.5\n"
    )
    own = rllab("show", "mine.py:Mine", "--all", cwd=tmp_path)
    assert re.search(r"^depth: 3 +# layers of mine$", own.stdout, re.M), own.stderr
    assert re.search(r"^gamma: 0.5 +# discount", own.stdout, re.M)


def test_show_all_wraps_at_the_terminals_width() -> None:
    wide = rllab("show", "verifier", "--all", COLUMNS="300").stdout
    narrow = rllab("show", "verifier", "--all", COLUMNS="80").stdout
    assert max(map(len, wide.splitlines())) > 100 and max(map(len, narrow.splitlines())) <= 80
    assert "meta: true" in narrow, "settings of rewards are listed"
    words = [[w for w in text.split() if w != "#"] for text in (wide, narrow)]
    assert words[0] == words[1], "no word is lost"


def test_every_setting_of_the_labs_own_has_an_explanation() -> None:
    """A trailing comment behind the field or keyword-only parameter; it stands in docs/settings.md and `show --all`."""
    algorithms = [getattr(algos, name) for name in algos.__all__]
    own = [(f"{a.__name__}: {title}", s) for a in algorithms for title, rows in settings.sections(a) for s in rows]
    named = [(name, getattr(rewards, name)) for name in rewards.__all__] + [("run:NAME", Trained)]
    own += [(f"reward {name}", s) for name, reward in named for s in settings.of_function(reward)]
    missing = sorted({f"{s.owner or where}: {s.name}" for where, s in own if not s.explanation})
    assert not missing, f"add a comment behind these fields that says what they mean: {', '.join(missing)}"
    assert len(own) > 300 and any(s.name == "partial" for _, s in own)


def test_the_progress_line_shows_what_the_algorithm_learns_from(tmp_path: Path) -> None:
    from rllab.cli.progress import line
    from rllab.core.trainer import Trainer

    trainer = Trainer("grpo", tmp_path / "a", model="", shape={"model_type": "qwen3"})
    row = {"loss/total": -0.7, "reward/total": 0.5, "eval/accuracy": 0.25, "time/samples_per_second": 9.0}
    assert line(trainer, row) == "a  round 0/60  eval/accuracy 0.25  reward/total 0.5  9 samples/s"


def test_a_run_says_that_until_ended_it(tmp_path: Path) -> None:
    done = rllab("train", "cartpole", "--smoke", "until={eval/return: 1}", cwd=tmp_path)
    assert "done after 2 rounds of 5, since `until` is reached (eval/return 1.0)" in done.stdout, done.stderr


def test_a_newcomers_path(tmp_path: Path) -> None:
    """Copy a recipe, train it, train it again, look at it, fork it; with every table as JSON."""
    (tmp_path / "mine.yaml").write_text(rllab("show", "cartpole").stdout)
    first = started("train", "mine.yaml", "--smoke", "--name", "a", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "a  round 4/5" in first.stdout and "eval/return" in first.stdout and "steps/s" in first.stdout
    assert re.search(
        r"runs/a: done after 5 rounds; eval/return [\d.]+ \[[\d.]+, [\d.]+\]; .* expected 475.0: missed", first.stdout
    )
    again = rllab("train", "mine.yaml", "--smoke", "--name", "a", cwd=tmp_path)
    assert again.returncode == 0 and again.stdout == first.stdout.splitlines(keepends=True)[-1]
    status = json.loads(rllab("train", "mine.yaml", "--smoke", "--name", "a", "--json", cwd=tmp_path).stdout)
    assert status["state"] == "done" and status["expect"][0]["met"] is False
    assert rllab("train", "mine.yaml", "--smoke", "--name", "a", "--strict", "-q", cwd=tmp_path).returncode == 4
    other = rllab("train", "mine.yaml", "--smoke", "--name", "a", "gamma=0.5", cwd=tmp_path)
    assert other.returncode == 2 and "gamma: 0.99 in the run, 0.5 now" in other.stderr
    fork = rllab(
        "train", "mine.yaml", "--smoke", "--name", "b", "--from", "a@5", "total_steps=6", "gamma=0.5", cwd=tmp_path
    )
    assert fork.returncode == 0, fork.stderr
    (tmp_path / "runs/killed").mkdir()
    for name in ("recipe.yaml", "env.json"):
        shutil.copy(tmp_path / "runs/a" / name, tmp_path / "runs/killed")
    (tmp_path / "runs/killed/status.json").write_text('{"state": "running", "step": 3}')
    table = {r["run"]: r for r in json.loads(rllab("runs", "--json", cwd=tmp_path).stdout)}
    assert {k: r["state"] for k, r in table.items()} == {"a": "done", "b": "done", "killed": "killed"}
    assert table["b"]["step"] == "6/6" and table["a"]["expect"] == "missed"
    shown = rllab("runs", cwd=tmp_path).stdout.splitlines()
    assert shown[0].split() == ["run", "algo", "seed", "state", "step", "result"] and shown[1].endswith(", missed")


def test_several_seeds(tmp_path: Path) -> None:
    done = rllab("train", "cartpole-ppo", "--smoke", "seed=3..4", "total_steps=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "over 2 seeds: mean" in done.stdout
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["cartpole-ppo-s3", "cartpole-ppo-s4"]
    both = json.loads(
        rllab("train", "cartpole-ppo", "--smoke", "seed=3..4", "total_steps=2", "--json", cwd=tmp_path).stdout
    )
    assert len(both) == 2 and both[0]["headline"]["value"] != both[1]["headline"]["value"]
    backwards = rllab("train", "cartpole", "seed=4..3", cwd=tmp_path)
    assert backwards.returncode == 2 and "the last seed comes before the first" in backwards.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "Did you mean 'train'"),
        (["train", "cartpol"], "no recipe named 'cartpol'; did you mean 'cartpole'?"),
        (["train", "cartpole", "lr=1"], "lr: no such setting; did you mean 'optim.lr'?"),
        (["train", "cartpole", "--from", "nothing"], "no run 'nothing' in runs"),
        (["train", "cartpole", "env=rllab/CartPoel-v1"], "CartPoel"),
        (["train", "cartpole", "--smoke", "total_steps=1", "RLLAB"], "expected key=value"),
    ],
)
def test_mistakes_exit_with_2_and_no_traceback(words: list[str], message: str, tmp_path: Path) -> None:
    done = rllab(*words, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_device_that_is_not_there_exits_with_3(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = rllab("train", "cartpole", "device=cuda", cwd=tmp_path)
    assert done.returncode == 3 and "torch sees no GPU here; use device=cpu" in done.stderr


def test_check_finds_a_good_and_a_bad_algorithm(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests/toys.py", tmp_path)
    for algo, code in (("Regression", 0), ("Averaging", 2)):
        (tmp_path / "r.yaml").write_text(f"algo: toys.py:{algo}\ntotal_steps: 9\nsmoke: {{total_steps: 3}}\n")
        done = rllab("check", "r.yaml", cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert ("ok  two seeds differ" in done.stdout) == (code == 0)
        assert ("another gradient" in done.stderr) == (code == 2)
    (tmp_path / "r.yaml").write_text("algo: toys.py:Regression\ntotal_steps: 9\nsmoke: {total_steps: 3}\n")
    report = json.loads(rllab("check", "r.yaml", "--json", cwd=tmp_path).stdout)
    assert list(report) == ["preflight", "checked"] and "two seeds differ" in " ".join(report["checked"])
    report = json.loads(rllab("check", "tictactoe", "--json", cwd=tmp_path).stdout)["preflight"]
    assert report["a position"] == {"planes": [2, 3, 3], "actions": 9} and report["a round"]["positions"] > 100


def test_check_of_ones_own_model(qwen: Path, tmp_path: Path) -> None:
    """The contract is checked on a small new model with the tokenizer of the model that is named."""
    row = {"messages": [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "It is 72."}]}
    lines = [json.dumps(row).replace("How many", f"How many in May {i}") + "\n" for i in range(40)]
    (tmp_path / "mine.jsonl").write_text("".join(lines))
    own = [f"model={qwen}", "task=mine.jsonl", "retention_task=null"]
    done = rllab("check", "sft-lora", *own, cwd=tmp_path)
    assert "⟦It is 72.<|im_end|>⟧" in done.stdout and "ok  two seeds differ" in done.stdout, done.stderr
    (tmp_path / "mine.yaml").write_text("algo: SFT\ntotal_steps: 1000\n")
    done = rllab("check", "mine.yaml", *own[:2], cwd=tmp_path)
    assert done.returncode == 0 and "not checked: the trainer's contract" in done.stderr and "ok  " not in done.stdout


def test_doctor(tmp_path: Path) -> None:
    report = json.loads(started("doctor", "--json", cwd=tmp_path).stdout)
    assert {"rllab", "python", "system", "gpu", "precision", "scheduler", "runs"} <= report.keys()
    assert "torch 2." in report["rllab"] and "writable" in report["runs"]


def test_the_demo_resumes_and_ends_with_a_summary(tmp_path: Path) -> None:
    stopped = started("demo", "--smoke", cwd=tmp_path, RLLAB_STOP_AFTER="0:01")
    assert stopped.returncode == 99 and "the same command continues from there" in stopped.stderr, stopped.stderr
    begun = len(list((tmp_path / "runs").iterdir()))
    assert begun < 5
    done = rllab("demo", "--smoke", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = [f"demo-{name}" for name in ("cartpole", "connect-four-quick", "sft-lora", "rlhf", "grpo")]
    text, _, last = done.stdout.rpartition("to copy and change.\n\n")[2].partition("\n\n")
    table = text.splitlines()
    assert [line.split()[0] for line in table] == ["run", *runs]
    assert all(f" {run}" in line for run, line in zip(runs, table[1:], strict=True)), "what to type next names the run"
    kept = {run: RunFolder(tmp_path / "runs" / run).status() for run in runs}
    assert all(
        f"{status['headline']['value']:.3g} " in line for status, line in zip(kept.values(), table[1:], strict=True)
    )
    page = (tmp_path / last.strip().rpartition(": ")[2]).read_text("utf-8")
    assert all(f'data-run="{run}"' in page for run in runs) and "nothing in common" not in page


def test_the_pole_is_drawn() -> None:
    from rllab.cli.demo import draw

    drawn = draw([0.0, 0.0, 0.0, 0.0], 21)
    assert drawn.splitlines()[-1] == "-" * 8 + "[===]" + "-" * 8
    assert [line.strip() for line in drawn.splitlines()[:-1]] == ["|"] * 5
    assert "/" in draw([0.0, 0.0, 0.2, 0.0], 21) and "\\" in draw([0.0, 0.0, -0.2, 0.0], 21)
