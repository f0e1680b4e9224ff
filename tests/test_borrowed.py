"""Tasks of other packages. Their scorers never run on a model's text in this process."""

from pathlib import Path
from typing import Any

import pytest
import rllab_envs.tasks as text

from rllab.core.errors import Mistake
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.sandbox.program import guards
from rllab.testing import check_task

SUMS = """
import verifiers.v1 as vf
class Data(vf.TaskData):
    answer: str = ""
class Sum(vf.Task[Data]):
    @vf.reward
    async def right(self, trace) -> float:
        if trace.last_reply == "broken": raise RuntimeError("no")
        return float(trace.last_reply.endswith(self.data.answer))
    @vf.reward(weight=0.1)
    async def evaluates(self, trace) -> float:
        return float(eval(trace.last_reply) == int(self.data.answer))
class Sums(vf.Taskset[Sum]):
    def load(self):
        for i in range(200):
            yield Sum(Data(prompt=f"{i} + {i}?", answer=str(2 * i), system_prompt="Add."), self.config.task)
__all__ = ["Sums"]
"""


def test_reasoning_gym_by_name() -> None:
    pytest.importorskip("reasoning_gym")
    task = text.reasoning_gym(dataset="countdown", settings={"min_numbers": 3, "max_numbers": 3})
    check_task(task, 10)
    rows = [task.row(i, split) for split in ("train", "validation", "test") for i in range(5)]
    assert len({r["prompt"][0]["content"] for r in rows}) == 15 and task.row(2, "test") == rows[12]
    assert text.reasoning_gym(dataset="countdown", salt=1).row(0, "train") != rows[0]
    assert task.correct(rows[0], task.gold(rows[0])) and task.correct(rows[0], f"<think>x</think> {task.gold(rows[0])}")
    assert not task.correct(rows[0], rows[0]["target"]) and not task.correct(rows[0], "<answer>1 + 1</answer>")
    assert 0 < task.score(rows[0], "<answer>1 + 1</answer>") < 1  # it gives partial credit
    assert not task.correct(rows[0], f"<think>{task.gold(rows[0])}</think> <answer></answer>")
    assert not task.correct(rows[0], f"<think> {task.gold(rows[0])}")  # the thinking is not closed
    with pytest.raises(Mistake, match="no dataset 'countdwn'; did you mean 'countdown'"):
        text.reasoning_gym(dataset="countdwn")
    with pytest.raises(Mistake, match=r"does not make countdown with \{'mx': 3\}"):
        text.reasoning_gym(dataset="countdown", settings={"mx": 3})


def test_an_answer_that_is_a_program_changes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("reasoning_gym")
    if "not on this machine: no changes" in guards():
        pytest.skip("this kernel has no Landlock")
    task = text.reasoning_gym(dataset="countdown")
    row, file = task.row(0, "train"), tmp_path / "written"
    attack = f'<answer>__import__("os").system("touch {file}; echo ran >&2")</answer>'
    assert not task.correct(row, attack) and not file.exists()
    assert task.correct(row, task.gold(row))  # the next answer finds a scorer that works


def test_a_scorer_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("reasoning_gym")
    monkeypatch.setattr("rllab_envs.tasks.scorers._SECONDS", 2.0)
    task = text.reasoning_gym(dataset="countdown")
    row = task.row(0, "train")
    assert task.score(row, "<answer>9**9**9**9</answer>") == 0.0 and task.correct(row, task.gold(row))


def test_reasoning_gym_trains(qwen: Path, tmp_path: Path) -> None:
    pytest.importorskip("reasoning_gym")
    changes: dict[str, Any] = {"task": {"name": "reasoning_gym", "dataset": "chain_sum"}, "model": str(qwen)}
    recipe = load_recipe("grpo", changes | {"shape": {}, "reward": "accuracy", "length": 512}, smoke=True)
    rows = list(Trainer(recipe, tmp_path / "run"))
    assert rows[-1]["eval/accuracy"] >= 0.0


@pytest.fixture
def taskset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("verifiers", reason="verifiers is not installed")
    (tmp_path / "some_sums.py").write_text(SUMS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "some_sums"


def test_a_taskset_of_verifiers_by_name(taskset: str, tmp_path: Path) -> None:
    task = text.verifiers(taskset=taskset)
    check_task(task, 5)
    sizes = [task.size(s) for s in ("train", "validation", "test")]
    assert sum(sizes) == 200 and sizes[0] > 150 and min(sizes) > 0 and task.fingerprint
    row = task.row(3, "train")
    assert [m["role"] for m in row["prompt"]] == ["system", "user"] and task.gold(row) == row["target"]
    assert task.score(row, task.gold(row)) == pytest.approx(1.1) and task.correct(row, task.gold(row))
    assert not task.correct(row, "0") and not task.correct(row, "broken")  # the scorer fails on this answer only
    file = tmp_path / "written"
    assert not task.correct(row, f"__import__('os').system('touch {file}')")
    assert not file.exists() or "not on this machine: no changes" in guards()
    assert text.verifiers(taskset=taskset, most=50).size("train") < 60
    with pytest.raises(Mistake, match="nowhere_at_all is not installed"):
        text.verifiers(taskset="nowhere_at_all")
    with pytest.raises(Mistake, match="does not load some_sums with"):
        text.verifiers(taskset=taskset, settings={"unknown": 3})


def test_a_scorer_that_fails_on_the_gold_answer_is_reported() -> None:
    from rllab_envs.tasks.scorers import Scorer

    scorer = Scorer("json:loads", {})  # making it fails in the process
    with pytest.raises(Mistake, match="the scorer json:loads fails on the gold answer '5'"):
        scorer.score("4", "5", {})
