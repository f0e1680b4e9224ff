"""Benchmarks as data: every bundled definition, sets in the hub's format, sets of one's own, and mistakes in them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import read_jsonl
from rllab_envs.tasks.benchmark import Benchmark, expand, names, open_benchmark
from rllab_envs.tasks.columns import KINDS as KINDS_OF_ROWS
from rllab_envs.tasks.definitions import bundled, find_definition

from rllab.answers import KINDS, check_target, grade
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.names import find
from rllab.core.recipe import load_recipe

PUBLISHED = {
    "addsub": 395, "aime24": 30, "amc23": 40, "aqua": 254, "coin_flip": 500, "commonsenseqa": 1221, "gsm8k": 1319,
    "date_understanding": 369, "last_letters": 500, "math500": 500, "multiarith": 600, "shuffled_objects": 750,
    "singleeq": 508, "strategyqa": 2290, "svamp": 1000,
}  # fmt: skip
SMALLER = {"bbh_causal_judgement": 187, "bbh_penguins_in_a_table": 146, "bbh_snarks": 178}
BBH = expand("bbh")
DEFINITION = """
local: rows.jsonl
question: "{problem}"
target: answer
kind: number
"""


def rows_of(task: Any) -> list[dict[str, Any]]:
    return [task.row(i, "test") for i in range(task.size("test"))]


def letters(row: dict[str, Any]) -> str:
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(row.get("choices", []))]


def test_bundled_benchmarks_are_known() -> None:
    assert set(names()) == {*PUBLISHED, *BBH, "mmlu_pro"} and len(BBH) == 27
    assert expand("gsm8k") == ["gsm8k"] and "bbh_navigate" in BBH
    assert set(KINDS_OF_ROWS) == set(KINDS)
    for name, definition in bundled().items():
        assert definition.about and definition.rows, f"{name} does not say where it comes from, or how many rows it has"


@pytest.mark.parametrize("name", [*PUBLISHED, *BBH])
def test_a_benchmark_is_the_published_set_and_its_targets_are_right(name: str, data: Path) -> None:
    task = open_benchmark(name)
    rows = rows_of(task)
    assert len(rows) == PUBLISHED.get(name, SMALLER.get(name, 250))
    assert task.size("train") == task.size("validation") == 0
    assert len({row["id"] for row in rows}) == len(rows)
    kinds = {row["kind"] for row in rows}
    for row in rows:
        check_target(row["target"], row["kind"])
        assert row["prompt"] == [{"role": "user", "content": row["question"]}]
        assert all(f"({a}) {c}" in row["question"] for a, c in zip(letters(row), row.get("choices", []), strict=True))
        assert ("choices" in row) == (row["kind"] == "choice")
        answer = f"\\boxed{{{row['target']}}}" if row["kind"] == "latex" else row["target"]
        assert grade(f"The answer is {answer}.", row["target"], row["kind"], letters(row)).correct, row
    assert len(kinds) == 1 or name in ("bbh_movie_recommendation", "bbh_ruin_names")


@pytest.mark.parametrize(
    "name", ["gsm8k", "multiarith", "addsub", "singleeq", "strategyqa", "commonsenseqa", "last_letters"]
)
def test_questions_and_targets_are_those_of_recorded_transcripts(name: str, data: Path) -> None:
    """Of Kojima et al. 2022, whose program read the same sets."""
    file = "commonsensqa" if name == "commonsenseqa" else name
    recorded = read_jsonl(data / f"recorded_zero_shot_cot/{file}.zero_shot.jsonl")
    ours = {(row["question"], row["target"]) for row in rows_of(open_benchmark(name))}
    assert ours == {(row["question"], row["target"].replace(",", "")) for row in recorded}


def test_a_missing_prompt_is_told_when_it_is_asked_for(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bbh").mkdir()
    (tmp_path / "bbh/navigate.json").symlink_to(data / "bbh/navigate.json")
    monkeypatch.setenv("RLLAB_DATA", str(tmp_path))
    task = open_benchmark("bbh_navigate")
    with pytest.raises(FieldMistake, match=r"no file bbh/navigate.cot_prompt.txt in .* or below RLLAB_DATA"):
        _ = task.exemplars


def test_the_right_choice_is_not_always_the_first(data: Path) -> None:
    targets = [row["target"] for row in rows_of(open_benchmark("date_understanding"))]
    assert all(30 < targets.count(letter) < 100 for letter in "ABCDEF")
    choices = [row["choices"]["ABCDEF".index(row["target"])] for row in rows_of(open_benchmark("date_understanding"))]
    examples = json.loads((data / "date_understanding/task.json").read_text())["examples"]
    assert choices == [next(a for a, s in example["target_scores"].items() if s) for example in examples]


@pytest.mark.parametrize("name", [name for name, definition in bundled().items() if definition.exemplars])
def test_exemplars_are_right_and_not_in_the_test(name: str, data: Path) -> None:
    task = open_benchmark(name)
    if name in BBH:
        prompt = (data / f"bbh/{name.removeprefix('bbh_')}.cot_prompt.txt").read_text()
        assert prompt.startswith(f"{prompt.partition('-----')[0]}-----\n{task.instruction}\n\nQ: ")
    count = {"aqua": 4, "commonsenseqa": 7, "last_letters": 4}.get(name, 8)
    assert len(task.exemplars) == (3 if name in BBH else count)
    kind = task.row(0, "test")["kind"]
    questions = {row["question"] for row in rows_of(task)}
    for e in task.exemplars:
        target = check_target(e["answer"], kind)
        assert grade(f"{e['chain']} The answer is {e['answer']}.", target, kind).correct
        assert e["question"] not in questions and e["chain"] and "answer is" not in e["chain"]


def test_a_set_of_the_hub_is_read_in_its_own_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders in the form of the hub's sets stand for them; the bundled definitions name their columns."""
    import datasets

    forms: dict[str, dict[str, list[dict[str, Any]]]] = {
        "commonsenseqa": {"validation": [{
            "id": "a1", "question": "Where is a fish?", "answerKey": "B",
            "choices": {"label": ["A", "B"], "text": ["tree", "sea"]},
        }]},
        "multiarith": {
            "train": [{"question": " 1 + 1? ", "final_ans": "2"}],
            "test": [{"question": "2 + 2?", "final_ans": "4"}],
        },
        "mmlu_pro": {"test": [{
            "question_id": 70, "question": "Which?", "options": ["x", "y", "z"], "answer": "C", "answer_index": 2,
        }]},
        "aqua": {"test": [{
            "question": "21?", "options": ["A)21", "B)22"], "rationale": "", "correct": "A",
        }]},
        "aime24": {"train": [{"id": 60, "problem": "3 + 3?", "solution": "", "answer": "006"}]},
        "bbh_navigate": {"test": [{"input": "Is it?", "target": "Yes"}]},
    }  # fmt: skip
    rows = {}
    monkeypatch.setenv("RLLAB_DATA", str(tmp_path / "nowhere"))
    for name, splits in forms.items():
        folder = tmp_path / name
        folder.mkdir()
        for split, of_split in splits.items():
            datasets.Dataset.from_list(of_split).to_parquet(folder / f"{split}-00000-of-00001.parquet")
        definition, place = find_definition(name)
        _, hub = definition.sources()
        assert hub is not None
        here = replace(definition, hub=replace(hub, path=str(folder)), rows=None)
        rows[name] = rows_of(Benchmark(here, place, name))
    assert [row["question"] for row in rows["multiarith"]] == ["1 + 1?", "2 + 2?"]
    assert [row["target"] for name in rows for row in rows[name]] == ["B", "2", "4", "C", "A", "006", "yes"]
    assert rows["commonsenseqa"][0]["question"] == "Where is a fish? Answer Choices: (A) tree (B) sea"
    assert rows["mmlu_pro"][0]["id"] == 70 and rows["mmlu_pro"][0]["choices"] == ["x", "y", "z"]
    assert rows["aqua"][0]["choices"] == ["21", "22"]


def test_a_set_that_is_nowhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLLAB_DATA", str(tmp_path))
    with pytest.raises(FieldMistake, match=r"no file addsub/AddSub.json in .* or below RLLAB_DATA; .*zero_shot_cot"):
        open_benchmark("addsub")
    with pytest.raises(FieldMistake, match=r"(?s)no file gsm8k/test.jsonl in .*RLLAB_DATA.*openai/gsm8k is no file"):
        open_benchmark("gsm8k")
    with pytest.raises(Mistake, match="no benchmark is named 'gms8k'; did you mean 'gsm8k'"):
        open_benchmark("gms8k")
    with pytest.raises(Mistake, match="bbh is not one benchmark; there are bbh_boolean_expressions, "):
        open_benchmark("bbh")
    with pytest.raises(Mistake, match="bbh_navigat is no benchmark"):
        open_benchmark("bbh_navigat")


def written(folder: Path, definition: str, *rows: Any) -> str:
    (folder / "rows.jsonl").write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    (folder / "mine.yaml").write_text(definition)
    return str(folder / "mine.yaml")


def test_a_definition_of_ones_own(tmp_path: Path) -> None:
    subsets = "kinds: {0: number}\nsubsets:\n  easy: {}\n  hard: {target: other, kinds: {0: yesno}}\n"
    mine = written(tmp_path, DEFINITION + subsets, {"problem": "1 + 1?", "answer": "1,002.0", "other": True})
    assert expand(mine) == [f"{mine}:easy", f"{mine}:hard"]
    assert [open_benchmark(f"{mine}:{s}").row(0, "test")["target"] for s in ("easy", "hard")] == ["1002", "yes"]
    with pytest.raises(Mistake, match=r"mine.yaml:medium is no benchmark; there are .*mine.yaml:easy, "):
        open_benchmark(f"{mine}:medium")
    written(tmp_path, DEFINITION, {"problem": 10**400, "answer": -(10**400)})
    assert open_benchmark(mine).row(0, "test")["question"] == "1" + "0" * 400
    written(tmp_path, DEFINITION + subsets, {"problem": "1 + 1?", "answer": "1,002.0", "other": True})
    first = open_benchmark(f"{mine}:easy")
    assert first.fingerprint == open_benchmark(f"{mine}:easy").fingerprint
    written(tmp_path, DEFINITION + subsets, {"problem": "1 + 1?", "answer": "2", "other": True})
    assert first.fingerprint != open_benchmark(f"{mine}:easy").fingerprint


CHOICES = DEFINITION.replace("number", "choice") + "choices: c"
GOOD = {"problem": "1 + 1?", "answer": 2}


@pytest.mark.parametrize(
    ("definition", "rows", "fault"),
    [
        (DEFINITION, [GOOD, "{broken"], "rows.jsonl:2: this line is not JSON"),
        (DEFINITION, [GOOD, {"problem": "2"}], "rows.jsonl:2: it has no 'answer'; its columns are problem"),
        (DEFINITION, [GOOD, {"problem": " ", "answer": 1}], "rows.jsonl:2: its columns problem are empty"),
        (DEFINITION, [{"problem": "?", "answer": "two"}], "rows.jsonl:1: its target 'two' is no number"),
        (DEFINITION + "id: nr", [GOOD | {"nr": 1}, GOOD | {"nr": 1}], "jsonl:2: its id 1 is that of .*jsonl:1"),
        (DEFINITION + "rows: 3", [GOOD], "rows.jsonl has 1 rows; 3 are expected"),
        (DEFINITION + "after: '####'", [GOOD], "rows.jsonl:1: its target has no '####': '2'"),
        (DEFINITION, [], "mine.yaml: rows.jsonl has 0 rows"),
        (DEFINITION.replace("{problem}", "{probelm}"), [GOOD], "rows.jsonl:1: it has no 'probelm'; its columns are"),
        (DEFINITION.replace("number", "choice"), [GOOD], "rows.jsonl:1: its kind is choice and it lists no choices"),
        (DEFINITION.replace("number", "yesno"), [GOOD], "rows.jsonl:1: its target '2' is neither yes nor no"),
        (DEFINITION.replace("number", "numbr"), [GOOD], "mine.yaml:5: kind: expected one of .*did you mean 'number'"),
        (DEFINITION.replace("kind: number", ""), [GOOD], "rows.jsonl:1: it has no 'kind'"),
        (DEFINITION.replace("target", "tarqet"), [GOOD], "mine.yaml:4: tarqet: no such setting; did you mean 'target'"),
        (DEFINITION.replace("target: answer", ""), [GOOD], "target: must be set"),
        (DEFINITION.replace("{problem}", "{problem"), [GOOD], "mine.yaml:3: question: '{problem': names columns"),
        (DEFINITION.replace("local: rows.jsonl", ""), [GOOD], "local or hub: name the file"),
        (DEFINITION + "hub: {path: a/b, split: dev}", [GOOD], "split: train, validation, test, or several"),
        (DEFINITION + "!!x hub: a/b", [GOOD], "mine.yaml:6: !!x is not a value of a recipe"),
        (DEFINITION + "twin: {name: coin_flip}", [GOOD], "rows: must be set beside a twin"),
        (DEFINITION + "twin: {name: coinflip}", [GOOD], "mine.yaml:6: twin: .*did you mean 'coin_flip'"),
        (CHOICES, [GOOD | {"c": ["1", "3"]}], "is 2: no letter"),
        (CHOICES, [GOOD | {"c": ["1", "2", "3"]}], "target is 2: it names B and C"),
        (CHOICES, [GOOD | {"c": 4}], "its choices are 4, not a list"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(tmp_path: Path, definition: str, rows: list[Any], fault: str) -> None:
    with pytest.raises(Mistake, match=fault):
        open_benchmark(written(tmp_path, definition, *rows))


def test_rows_without_a_definition(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    example = [{"question": "1 + 0?", "chain": "1 + 0 = 1.", "answer": "1"}]
    first = {"id": "a", "question": "1 + 1?", "target": 2, "kind": "number", "exemplars": example}
    second = {"id": "b", "question": "Sea?", "target": "B", "kind": "choice", "choices": ["dry", "wet"], "more": 1}
    file.write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    task = open_benchmark(str(file))
    assert task.exemplars == example and [row["target"] for row in rows_of(task)] == ["2", "B"]
    assert task.row(1, "test")["question"] == "Sea? Answer Choices: (A) dry (B) wet"
    second["exemplars"] = [example[0] | {"answer": "2"}]
    file.write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    with pytest.raises(FieldMistake, match=r"mine.jsonl: its rows differ in their exemplars"):
        open_benchmark(str(file))
    with pytest.raises(FieldMistake, match=r"no file nowhere\.jsonl"):
        open_benchmark("nowhere.jsonl")


def test_a_recipe_does_not_train_on_a_benchmark(tmp_path: Path) -> None:
    for name in ("aime24", "bbh_navigate", "bbh", "mine.yaml"):
        with pytest.raises(Mistake, match=f"{name} is a benchmark, whose rows are for tests alone"):
            load_recipe("grpo", [f"task={name}"])
    with pytest.raises(Mistake, match=r"rllab_envs\.tasks has no 'aime25'"):
        find("aime25", "rllab_envs.tasks", tmp_path)
    mine = open_benchmark(written(tmp_path, DEFINITION, GOOD))
    with pytest.raises(FieldMistake, match="is a benchmark, which has test rows alone, not 'train'"):
        mine.row(0, "train")
