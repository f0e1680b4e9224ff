"""Distillation: which answers pass, what the student learns from them, and a killed and resumed chain of runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import read_jsonl, run
from test_grpo import groups

from rllab.algos.rollouts import Group
from rllab.core.engine import Engine
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import load_recipe
from rllab.text.chat import documents
from rllab.text.evaluation import held_out_nll
from rllab.text.open import open_model
from rllab.text.packing import pack

NAN = float("nan")


def ready(**changes: Any) -> Any:
    recipe = load_recipe("r1-distill", changes, smoke=True)
    recipe.algorithm.setup(Engine(recipe.settings, True).context(recipe.settings))
    return recipe.algorithm


def answered(scores: list[Any], lengths: list[int]) -> Group:
    """A group with the completions `a0`, `a1`, ...; those of 6 tokens are cut off."""
    (group,) = groups([scores], [lengths])
    prompt = [{"role": "user", "content": "Work out (1+2) step by step."}]
    texts = [f"a{i}" for i in range(len(scores))]
    return replace(group, row={"prompt": prompt, "style": "think", "target": "3"}, texts=texts)


def passed(rows: list[dict[str, Any]]) -> list[str]:
    return [row["completion"][0]["content"] for row in rows]


def test_the_best_completions_above_the_threshold_pass() -> None:
    made = ready(max_kept=2, threshold=1.0)
    assert passed(made._passed(answered([1.0, 3.0, 0.5], [2, 3, 4]))) == ["a1", "a0"]
    assert passed(made._passed(answered([1.0, 1.0, 1.0], [2, 3, 4]))) == ["a0", "a1"], "of equal ones the first"
    assert passed(ready(max_kept=None, threshold=1.0)._passed(answered([1.0, 0.0, 2.0], [2, 3, 4]))) == ["a2", "a0"], (
        "all that pass"
    )
    assert passed(made._passed(answered([0.9, NAN, 1.0], [2, 3, 4]))) == ["a2"], (
        "a completion without a reward does not pass"
    )
    assert passed(made._passed(answered([2.0, 0.0, 1.0], [6, 3, 6]))) == [], (
        "a completion that is cut off does not pass"
    )
    assert passed(made._passed(answered([3.0, 2.0, 1.0], [6, 3, 4]))) == ["a1", "a2"], "it does not count for max_kept"
    (row,) = ready()._passed(answered([0.0, 0.0, 1.0], [2, 2, 2]))
    assert row.keys() == {"prompt", "style", "completion"}, "the target is no part of a training row"


def test_answers_of_several_turns_are_learned_as_a_conversation() -> None:
    turns = [
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]
    group = replace(answered([1.0], [2]), turns=[turns])
    assert ready()._passed(group)[0]["messages"] == [*group.row["prompt"], *turns]


def test_the_loss_is_that_of_fine_tuning_on_the_passed_answers() -> None:
    made = ready()
    rows = [made._task.row(i, "train") for i in range(5)]
    batch = made._batch(rows[:3], answered([1.0], [2]))
    loss, _ = made.loss(made.on_device(batch, 0))
    each = held_out_nll(made._lm, rows[:3], made.length)
    tokens = [len(d.completions[0]) for d in documents(made._lm.tokenizer, rows[:3])]
    assert loss.item() == pytest.approx(np.average(each, weights=tokens), rel=1e-5)
    nothing = made._batch([], answered([1.0], [2]))
    assert nothing["weight"].sum() == 0 and nothing["learned"].sum() > 0, "a rank without answers yields all the same"


def test_rows_of_other_kinds_are_mixed_in() -> None:
    made = ready(supervised={"task": {"name": "paren_sums", "operands": [2, 2], "salt": 5}, "batch_size": 2})
    other = [made.supervised_rows.rows.row(i) for i in range(2)]
    batch = made._batch([made._task.row(0, "train")], answered([1.0], [2]))
    expected, _ = pack(documents(made._lm.tokenizer, [made._task.row(0, "train"), *other]), made.length)
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert batch["weight"].sum() == pytest.approx(1.0)


def test_completions_of_a_teacher_with_another_tokenizer_are_passed_as_text(qwen: Path, tmp_path: Path) -> None:
    recipe = load_recipe("r1-distill", {"teacher": str(qwen), "reward": "brevity", "threshold": 0.0}, smoke=True)
    trainer = run(recipe, tmp_path / "a")
    rollouts = [r for r in read_jsonl(tmp_path / "a/samples.jsonl") if "split" not in r]
    teacher = open_model(str(qwen)).tokenizer
    known = set(trainer.algorithm._lm.tokenizer.get_vocab())  # type: ignore[attr-defined]
    foreign = [t for r in rollouts for t in teacher.tokenize(r["completion"]) if t not in known]
    assert len(foreign) > 20, "a teacher that spells byte by byte says what the student has no words for"
    assert trainer.folder.rows()[-1]["data/tokens"] == sum(r["tokens"] for r in rollouts)


def test_nothing_to_learn_stops_before_the_first_step() -> None:
    made = ready(batch_size=16, preflight_stops=True, threshold=2.0, max_new_tokens=60)
    with pytest.raises(
        FieldMistake, match=r"none of the teacher's whole answers to the first 16 prompts has a score of 2,"
    ):
        next(made.collect(0))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"max_kept": 0}, "max_kept must be at least 1"),
        ({"num_minibatches": 0}, "num_minibatches must be at least 1"),
        ({"mixed": "pocket"}, "mixed is now supervised"),
        ({"mixed_rows": 1}, "mixed_rows is now supervised.batch_size"),
    ],
)
def test_bad_settings_are_errors(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(Mistake, match=fault):
        load_recipe("r1-distill", changes)
