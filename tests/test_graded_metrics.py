"""The metrics `order` and `win_rate` of an assignment (rllab.evals.grading)."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import run
from evaluated import write
from safetensors.torch import load_file, save_file

from rllab.core.errors import FieldMistake, MachineFault, Mistake
from rllab.core.recipe import load_recipe
from rllab.evals.grading.order import AT_ONCE, Order
from rllab.evals.grading.part import Part, Place
from rllab.evals.grading.runs import model_folder_of
from rllab.evals.grading.win_rate import WinRate

PAIRS = [
    {
        "id": f"p{i}",
        "prompt": [{"role": "user", "content": f"How many clips did Natalia sell in May {i}?"}],
        "chosen": [{"role": "assistant", "content": f"{i} clips altogether in May"}],
        "rejected": [{"role": "assistant", "content": f"{i} clips"}],
    }
    for i in range(40)
]
LONGER = "def reward(prompts, completions, **columns):\n    return [len(c[0]['content']) for c in completions]\n"
CONSTANT = "def reward(prompts, completions, **columns):\n    return [1.0 for c in completions]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of an assignment."""
    write(tmp_path / "pairs.jsonl", PAIRS)
    return tmp_path


@pytest.fixture(scope="module")
def reward_runs(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of reward models from `qwen`: `whole`, and `adapters`."""
    folder = tmp_path_factory.mktemp("rewards")
    start = [f"model={qwen}", "shape={}", "length=2000", "total_steps=2"]
    run(load_recipe("reward-model", start, smoke=True), folder / "whole")
    run(load_recipe("reward-model", [*start, "lora={r: 2}"], smoke=True), folder / "adapters")
    return folder


def an_order(folder: Path, **settings: Any) -> Order:
    part = Order(points=1.0, **({"task": "pairs.jsonl"} | settings))
    part.prepare(folder, 0, False)
    return part


def place(path: Path, kind: Any, base: Any = None) -> Place:
    scratch = path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    return Place(path, kind, base, 0, 60.0, 4.0, scratch)


def measured(part: Part, where: Place) -> list[list[Any]]:
    """The batches of a part without its gold, which do not depend on one another."""
    part.forget_gold()
    facts, batches = part.inspect(where), list(part.measure(where, 0))
    assert json.loads(json.dumps([facts, batches])) == [facts, batches]
    assert list(part.measure(where, 1)) == batches[1:]
    return batches


def judged(part: Part, batches: list[list[Any]]) -> Any:
    return part.judge([row for batch in batches for row in batch])


@pytest.mark.parametrize(("code", "share"), [(LONGER, 1.0), (CONSTANT, 0.5), (LONGER.replace("len", "-len"), 0.0)])
def test_the_order_of_a_function_is_known(code: str, share: float, folder: Path) -> None:
    program = folder / "ann" / "reward.py"
    program.parent.mkdir()
    program.write_text(code)
    batches = measured(an_order(folder), place(program, "program"))
    result = judged(an_order(folder), batches)
    assert result.value == share and result.interval[0] <= share <= result.interval[1]
    assert set(result.credits.values()) == {share} and list(result.credits) == [row["id"] for row in PAIRS]
    assert result.facts["ties"] == (40 if share == 0.5 else 0)


def test_the_place_of_an_answer_is_a_function_of_the_answers_alone(folder: Path) -> None:
    """A function knows its pairs, and could compute any other draw."""
    part, other = an_order(folder), Order(points=1.0, task="swapped.jsonl")
    swapped = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in PAIRS]
    write(folder / "swapped.jsonl", swapped)
    other.prepare(folder, 0, False)
    assert other.content() == part.content()
    rows = [{"id": row["id"], "scores": [1.0, 0.0]} for row in PAIRS]
    assert part.judge(rows).value == 1 - other.judge(rows).value
    assert 0.25 < part.judge(rows).value < 0.75


def test_the_process_of_a_submission_does_not_know_which_answer_is_chosen(folder: Path) -> None:
    part = an_order(folder)
    part.forget_gold()
    assert "chosen" not in repr(vars(part)) and "rejected" not in repr(vars(part))
    text = json.dumps(part.content())
    assert "chosen" not in text and "rejected" not in text
    with pytest.raises(KeyError):
        part.judge([{"id": "p0", "scores": [1.0, 0.0]}])


def test_pairs_without_two_finite_scores_are_wrong_and_counted(folder: Path) -> None:
    part = an_order(folder)
    better = part._better
    rows: list[Any] = [{"id": ident, "scores": [1 - place, place]} for ident, place in better.items()]
    assert part.judge(rows).value == 1.0
    for forged in ([None, 1.0], [float("nan"), 0.0], [float("inf"), 0.0], ["9", 1.0], [1.0], 7, None, [True, False]):
        result = part.judge([rows[0] | {"scores": forged}, *rows[1:]])
        assert result.value == 39 / 40 and result.facts["without scores"] == 1, forged
        assert "1 pairs have no two finite scores" in result.remarks[0]
    assert part.judge(rows[1:]).value == 39 / 40
    with pytest.raises(Mistake, match="no pair has scores"):
        part.judge([{"id": ["p0"], "scores": [1.0, 0.0]}])


@pytest.mark.parametrize("name", ["whole", "adapters"])
def test_scores_are_those_of_the_reward_model(name: str, folder: Path, reward_runs: Path, qwen: Path) -> None:
    from rllab.rewards.trained import Trained
    from rllab.text.open import open_model

    part, base = an_order(folder), open_model(str(qwen))
    batches = measured(part, place(reward_runs / name, "run", base))
    assert [len(batch) for batch in batches] == [AT_ONCE, 40 - AT_ONCE]
    inside = model_folder_of(reward_runs / name)
    kind = "model" if name == "whole" else "adapter"
    assert list(part.measure(place(inside, kind, base), 1)) == batches[1:]
    pairs = part._pairs
    wanted = Trained(str(inside))([p.prompt for p in pairs for _ in "ab"], [a for p in pairs for a in p.answers])
    assert [s for batch in batches for row in batch for s in row["scores"]] == pytest.approx(wanted, abs=1e-5)
    assert 0 <= judged(an_order(folder), batches).value <= 1


def test_a_model_without_reward_head_is_refused(folder: Path, qwen: Path, tmp_path: Path) -> None:
    submitted = shutil.copytree(qwen, tmp_path / "submitted")
    with pytest.raises(Mistake, match="it has no reward head"):
        an_order(folder).inspect(place(submitted, "model"))
    with pytest.raises(Mistake, match="it has no reward head"):
        list(an_order(folder).measure(place(submitted, "model"), 0))


def test_a_reward_model_whose_weights_are_not_finite_is_refused(
    folder: Path, reward_runs: Path, tmp_path: Path
) -> None:
    submitted = shutil.copytree(model_folder_of(reward_runs / "whole"), tmp_path / "submitted")
    weights = load_file(submitted / "model.safetensors")
    save_file(weights | {"score.weight": weights["score.weight"] * float("nan")}, submitted / "model.safetensors")
    with pytest.raises(Mistake, match="its weights are not finite: score"):
        an_order(folder).inspect(place(submitted, "model"))


def test_adapters_need_a_base(folder: Path, reward_runs: Path) -> None:
    adapters = place(model_folder_of(reward_runs / "adapters"), "adapter")
    with pytest.raises(Mistake, match="the assignment names no base"):
        list(an_order(folder).measure(adapters, 0))


def test_a_function_is_given_the_columns_that_are_named_and_no_others(folder: Path) -> None:
    write(folder / "pairs.jsonl", [row | {"topic": f"t{i}", "score_chosen": 9} for i, row in enumerate(PAIRS)])
    code = "def mine(prompts, completions, **rest):\n    return [float(sorted(rest) == ['topic']) for _ in prompts]\n"
    program = folder / "ann" / "reward.py"
    program.parent.mkdir()
    program.write_text(code.replace("**rest", "completion_ids=None, **rest"))
    for columns, score in ((["topic"], 1.0), ([], 0.0)):
        batches = measured(an_order(folder, columns=columns, function="mine"), place(program, "program"))
        assert {s for row in batches[0] for s in row["scores"]} == {score}


@pytest.mark.parametrize(
    ("rows", "settings", "field", "why"),
    [
        ([], {}, "task", "has no rows"),
        (PAIRS[:1] * 2, {}, "task", r"pairs.jsonl:2: the id 'p0' comes twice"),
        ([{"prompt": "a", "completion": "b"}], {}, "task", r"pairs.jsonl:1: a row has prompt, chosen and rejected"),
        ([{"prompt": "a", "chosen": "b"}], {}, "task", r"pairs.jsonl:1: "),
        (PAIRS, {"task": "none.jsonl"}, "task", "cannot be read: No such file"),
        (PAIRS, {"columns": ["topic"]}, "columns", "'topic' is not in every row"),
    ],
)
def test_a_wrong_file_of_pairs_is_named(
    rows: list[Any], settings: dict[str, Any], field: str, why: str, folder: Path
) -> None:
    write(folder / "pairs.jsonl", rows)
    with pytest.raises(FieldMistake, match=why) as wrong:
        an_order(folder, **settings)
    assert wrong.value.field == field


def test_students_grade_with_the_public_pairs(folder: Path) -> None:
    write(folder / "public.jsonl", [row | {"id": f"public{i}"} for i, row in enumerate(PAIRS[:3])])
    part = Order(points=1.0, task="none.jsonl", public="public.jsonl")
    part.prepare(folder, 0, True)
    result = part.judge([{"id": f"public{i}", "scores": [0, 0]} for i in range(3)])
    assert result.value == 0.5 and [item.id for item in result.items] == ["public0", "public1", "public2"]
    assert "Natalia" in result.items[0].question and "second: assistant: " in result.items[0].question


PROMPTS: list[dict[str, Any]] = [
    {"id": f"w{i}", "prompt": [{"role": "user", "content": f"Clip {i}?"}]} for i in range(70)
]
JUDGE = """
from pathlib import Path


def letters(prompts, completions, *, by=1.0):
    with open(Path(__file__).parent / "calls", "a") as file:
        file.write("x")
    return [by * sum(m["content"].count("a") for m in c) if "none" not in str(c) else None for c in completions]
"""


@pytest.fixture
def contest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an assignment with prompts, a baseline's answers and a judge that counts the letter a."""
    monkeypatch.setenv("RLLAB_HOME", str(folder / "home"))
    write(folder / "prompts.jsonl", PROMPTS)
    write(folder / "other.jsonl", [{"id": row["id"], "completion": "a a"} for row in PROMPTS])
    (folder / "mine.py").write_text(JUDGE)
    return folder


def a_win_rate(folder: Path, **settings: Any) -> WinRate:
    given = {"task": "prompts.jsonl", "against": "other.jsonl", "by": "mine.py:letters"} | settings
    part = WinRate(points=1.0, **given)
    part.prepare(folder, 0, False)
    return part


def completions(folder: Path, answers: Sequence[str]) -> Place:
    rows = [{"id": row["id"], "completion": text} for row, text in zip(PROMPTS, answers, strict=False)]
    write(folder / "ann.jsonl", rows)
    return place(folder / "ann.jsonl", "completions")


@pytest.mark.parametrize(("answer", "share"), [("a a a", 1.0), ("a", 0.0), ("a a", 0.5), ("aa", 0.5), ("none", 0.0)])
def test_a_win_rate_is_the_share_of_preferred_answers(answer: str, share: float, contest: Path) -> None:
    part = a_win_rate(contest)
    batches = measured(part, completions(contest, [answer] * 70))
    assert [len(batch) for batch in batches] == [64, 6]
    result = judged(part, batches)
    assert result.value == share and list(result.credits) == [row["id"] for row in PROMPTS]
    assert result.facts["judge"] == "letters" and result.items[0].answer == answer


def test_the_settings_of_a_judge_are_used(contest: Path) -> None:
    part = a_win_rate(contest, by={"name": "mine.py:letters", "by": -1.0})
    assert judged(part, measured(part, completions(contest, ["a a a"] * 70))).value == 0.0


def test_a_missing_answer_is_lost_and_remarked(contest: Path) -> None:
    part = a_win_rate(contest, limit=4)
    place = completions(contest, ["a a a", "a a"])
    with open(place.path, "a") as file:
        file.write("no JSON\n")
    result = judged(part, measured(part, place))
    assert result.credits == {"w0": 1.0, "w1": 0.5, "w2": 0.0, "w3": 0.0} and result.facts["without answer"] == 2
    assert any("this line is not JSON" in remark for remark in result.remarks)
    with pytest.raises(Mistake, match="answers no prompt"):
        part.judge([{"id": "w0", "answer": 7, "other": "a"}])


def test_the_judge_is_asked_once_about_the_same_answers(contest: Path) -> None:
    part, calls = a_win_rate(contest), contest / "calls"
    batches = measured(part, completions(contest, ["a a a"] * 70))
    first = judged(part, batches)
    asked = len(calls.read_text())
    assert judged(a_win_rate(contest), batches) == first and len(calls.read_text()) == asked > 0
    judged(part, measured(part, completions(contest, ["a"] * 70)))
    assert len(calls.read_text()) > asked
    (contest / "mine.py").write_text(JUDGE.replace('count("a")', 'count("none")'))
    assert judged(a_win_rate(contest), batches).value == 0.5


def test_a_judge_that_fails_is_no_fault_of_the_submission(contest: Path) -> None:
    (contest / "mine.py").write_text(JUDGE.replace("    return", "    raise ValueError('no key')\n    return"))
    part = a_win_rate(contest)
    batches = measured(part, completions(contest, ["a a a"] * 70))
    with pytest.raises(MachineFault, match=r"the judge letters fails: .*no key"):
        judged(part, batches)


def test_models_answer_with_the_baseline_and_tie_with_themselves(contest: Path, qwen: Path) -> None:
    from rllab.text.open import open_model

    settings: Any = {"against": "base", "limit": 5, "max_new_tokens": 4}
    part, base = a_win_rate(contest, **settings), open_model(str(qwen))
    batches = measured(part, place(qwen, "model", base))
    assert all(row["answer"] == row["other"] for row in batches[0]) and any(row["answer"] for row in batches[0])
    assert judged(part, batches).value == 0.5
    recorded = measured(a_win_rate(contest, limit=5, max_new_tokens=4), place(qwen, "model", base))
    assert [row["answer"] for row in recorded[0]] == [row["answer"] for row in batches[0]]
    assert {row["other"] for row in recorded[0]} == {"a a"}
    with pytest.raises(MachineFault, match="the assignment names no base"):
        list(part.measure(place(qwen, "model"), 0))


def test_a_reward_model_judges(contest: Path, reward_runs: Path) -> None:
    shutil.copytree(reward_runs / "whole", contest / "runs" / "judge")
    part = a_win_rate(contest, by="run:judge", limit=6)
    batches = measured(part, completions(contest, [f"clips {i}" for i in range(6)]))
    result = judged(part, batches)
    assert set(result.credits.values()) <= {0.0, 1.0}
    assert judged(part, batches) == result


@pytest.mark.parametrize(
    ("settings", "field", "why"),
    [
        ({"task": "none.jsonl"}, "task", "cannot be read"),
        ({"task": "other.jsonl"}, "task", r"other.jsonl:1: a row has prompt or question"),
        ({"against": "prompts.jsonl"}, "against", "prompts.jsonl has no completions"),
        ({"against": "few.jsonl"}, "against", "few.jsonl has no completion of 'w1'"),
        ({"against": "run:none"}, "against", "no run 'none'"),
        ({"by": "mine.py:letter"}, "by", "has no 'letter'; did you mean 'letters'"),
        ({"by": {"name": "mine.py:letters", "bye": 1}}, "by", "no such setting; did you mean"),
        ({"style": "self-consistency"}, "style", "one answer is compared"),
    ],
)
def test_a_wrong_setting_of_a_win_rate_is_named(settings: dict[str, Any], field: str, why: str, contest: Path) -> None:
    write(contest / "few.jsonl", [{"id": "w0", "completion": "a"}])
    with pytest.raises(FieldMistake, match=why) as wrong:
        a_win_rate(contest, **settings)
    assert wrong.value.field == field


def test_what_is_asked_decides_the_identity(contest: Path) -> None:
    one = a_win_rate(contest).identity()
    assert a_win_rate(contest, by="brevity").identity() == one
    assert a_win_rate(contest, limit=3).identity() != one != a_win_rate(contest, max_new_tokens=5).identity()
    write(contest / "other.jsonl", [{"id": row["id"], "completion": "b"} for row in PROMPTS])
    assert a_win_rate(contest).identity() != one
