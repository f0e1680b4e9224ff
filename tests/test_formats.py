"""Rows as people publish them: conversions into conversations, prompts and completions, and refusals with the row."""

import json
from pathlib import Path
from typing import Any

import pytest
from rllab_envs.tasks import pocket, tables
from rllab_envs.tasks.dataset import Dataset
from rllab_envs.tasks.draws import split_of
from rllab_envs.tasks.formats import canonical, filled
from rllab_envs.tasks.messages import RowFault
from rllab_envs.tasks.tables import SPLITS

from rllab.core.errors import FieldMistake, Mistake
from rllab.text.chat import documents
from rllab.text.tokenizers import tokenizer_for


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text} | more


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return str(path)


Q, A, B = user("2 + 3?"), assistant("5"), assistant("6")
TOKENIZER = tokenizer_for(pocket())
EMPTY = {"role": "assistant", "content": None}
SHAREGPT = [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]
CALL = [{"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 3}}}]


@pytest.mark.parametrize(
    ("row", "made"),
    [
        ({"conversations": SHAREGPT, "id": "0"}, {"messages": [Q, A]}),
        ({"conversations": SHAREGPT, "system": "Add."}, {"messages": [{"role": "system", "content": "Add."}, Q, A]}),
        ({"messages": SHAREGPT}, {"messages": [Q, A]}),
        (
            {
                "conversations": [
                    SHAREGPT[0],
                    {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2, "b": 3}}'},
                    {"from": "observation", "value": "5"},
                    SHAREGPT[1],
                ]
            },
            {"messages": [Q, assistant("", tool_calls=CALL), {"role": "tool", "content": "5"}, A]},
        ),
        (
            {"messages": [Q, {"role": "tool", "content": {"sum": 5}}, EMPTY | {"refusal": "No."}]},
            {"messages": [Q, {"role": "tool", "content": '{"sum": 5}'}, assistant("No.")]},
        ),
        ({"instruction": "Add.", "input": "2, 3", "output": "5"}, {"prompt": [user("Add.\n2, 3")], "completion": [A]}),
        ({"instruction": "2 + 3?", "input": "", "output": 5, "text": "all"}, {"prompt": [Q], "completion": [A]}),
        (
            {"instruction": "2 + 3?", "input": "", "output": "5", "history": [["Hello", "Hi"]], "system": "Add."},
            {"prompt": [{"role": "system", "content": "Add."}, user("Hello"), assistant("Hi"), Q], "completion": [A]},
        ),
        ({"prompt": "2 + 3?", "response": "5", "helpfulness": 4}, {"prompt": [Q], "completion": [A]}),
        (
            {"prompt": "2 + 3?", "response_1": "6", "response_2": "5", "preference_strength": 2},
            {"prompt": [Q], "completions": [[B], [A]], "ranks": [1.0, 0.0]},
        ),
        (
            {"context": [Q], "response1": "5", "response2": "6", "overall_preference": -1},
            {"prompt": [Q], "completions": [[A], [B]], "ranks": [0.0, 1.0]},
        ),
        (
            {"prompt": "2 + 3?", "chosen": [Q, A], "rejected": [Q, B], "messages": [Q, A]},
            {"prompt": [Q], "chosen": [A], "rejected": [B]},
        ),
        (
            {"prompt": "2 + 3?", "chosen": [A], "rejected": [B]},
            {"prompt": [Q], "chosen": [A], "rejected": [B]},
        ),
        (
            {"prompt": "2 + 3?", "completion": [Q, A], "not_learned": [Q, B], "messages": [Q, A]},
            {"prompt": [Q], "completion": [A]},
        ),
        ({"prompt": "2 + 3?", "messages": [Q, A]}, {"prompt": [Q], "messages": [Q, A]}),
        (
            {"chosen": "\n\nHuman: 2 + 3?\n\nAssistant: 5", "rejected": "\n\nHuman: 2 + 3?\n\nAssistant: 6"},
            {"prompt": [Q], "chosen": [A], "rejected": [B]},
        ),
        (  # the conversations part at a user's message: the assistant's before it belongs to both completions
            {"chosen": [Q, A, user("Why?"), A], "rejected": [Q, A, user("Sure?"), B]},
            {"prompt": [Q], "chosen": [A, user("Why?"), A], "rejected": [A, user("Sure?"), B]},
        ),
        (
            {"chosen": "2 + 3 is 5", "rejected": "2 + 3 is 55"},
            {"prompt": "2 + 3 is", "chosen": " 5", "rejected": " 55"},
        ),
        ({"prompt": "2 + 3?", "completion": 5}, {"prompt": "2 + 3?", "completion": "5"}),
        ({"prompt": 2, "completion": 0.5}, {"prompt": "2", "completion": "0.5"}),
        ({"prompt": "2 + 3?", "completion": A}, {"prompt": [Q], "completion": [A]}),
        (
            {"messages": [user([{"type": "text", "text": "2 +"}, {"type": "text", "text": " 3?"}]), assistant(5)]},  # type: ignore[arg-type]
            {"messages": [Q, A]},
        ),
        (
            {"messages": [Q, A | {"weight": 0}, Q, A | {"weight": 1}, Q | {"train": False}, A | {"train": False}]},
            {"messages": [Q, A | {"weight": 0}, Q, A, Q, A | {"weight": 0}]},
        ),
        (  # as a columnar file returns it: every key of any row is there
            {
                "messages": [Q | {"tool_calls": None, "weight": None}, EMPTY | {"tool_calls": CALL}],
                "text": None,
            },
            {"messages": [Q, assistant("", tool_calls=CALL)]},
        ),
    ],
)
def test_published_forms_become_the_labs_own(row: dict[str, Any], made: dict[str, Any]) -> None:
    result = canonical(row)
    assert {k: result[k] for k in made} == made
    learned = {"messages", "completion", "completions", "chosen", "rejected", "text"}
    assert learned & result.keys() == learned & made.keys()


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"messages": [A, Q, A]}, "begins with the assistant, whose message answers nothing: put a user's message"),
        ({"conversations": [SHAREGPT[1], *SHAREGPT]}, "begins with the assistant"),
        (
            {"messages": [Q, {"role": "assistant", "content": None}]},
            r"message 2 of its messages \(assistant\) has no con",
        ),
        ({"messages": [Q, {"role": "assistant"}]}, "message 2 of its messages .* has no content"),
        (
            {"messages": [Q, {"role": "oracle", "content": "5"}]},
            "message 2 .* has the role 'oracle'; roles are",
        ),
        ({"messages": [{"content": "5"}]}, "message 1 of its messages has the role None"),
        ({"messages": ["5"]}, "message 1 of its messages is '5', not an object with role and content"),
        ({"messages": "[]"}, "its messages is empty"),
        ({"prompt": "2", "completion": "5", "tools": [{"name": "add"}]}, "it has tools, and its prompt is a text"),
        ({"prompt": [Q, A]}, "its prompt ends with a message of the assistant"),
        ({"conversations": [{"from": "system", "value": "x"}, *SHAREGPT], "system": "y"}, "another system message"),
        ({"messages": "[{'role': 'user'}]"}, "a list that is no JSON: write it with json.dumps"),
        (
            {"prompt": "2", "completion": "[{'role': 'user', 'content': 'a'}]"},
            "its completion is .* a list that is no JSON",
        ),
        ({"prompt": "2", "completion": float("nan")}, "its completion is nan, not a text"),
        ({"messages": [Q, assistant("")]}, r"message 2 of its messages \(assistant\) is empty: write its text"),
        ({"prompt": [Q], "completion": [assistant(" ")]}, r"message 1 of its completion \(assistant\) is empty"),
        ({"messages": [Q, assistant(None, tool_calls=[])]}, r"message 2 of its messages \(assistant\) "),
        ({"messages": [user([{"type": "text", "text": None}]), A]}, "a part of type text without a text"),  # type: ignore[arg-type]
        ({"chosen": [Q, A, Q, B], "rejected": [Q, A]}, "one of its chosen and rejected is the beginning of the other"),
        ({"messages": [user([{"type": "image"}]), A]}, "message 1 .* has a part of type image"),  # type: ignore[arg-type]
        ({"messages": [Q, A | {"weight": 0.5}]}, "message 2 .* has weight 0.5: a message is learned"),
        ({"messages": [Q, A | {"weight": 0}]}, "all messages of the assistant have weight 0"),
        ({"messages": [Q | {"train": True}, A]}, r"message 1 .* \(user\) has train True: the assistant's"),
        (
            {"conversations": [SHAREGPT[0], {"from": "function_call", "value": "add"}]},
            "is a function_call",
        ),
        ({"instruction": "2", "output": "5", "history": ["3"]}, "its history is '3', not a question and its answer"),
        ({"instruction": "2", "output": "5", "history": True}, "its history is True, not a list"),
        ({"prompt": "2", "completions": ["5", "6"], "ranks": [0]}, "it has 2 completions and 1 ranks"),
        ({"prompt": "2", "completions": ["5", "6"], "ranks": [0, "1"]}, "one of its ranks is '1', not a number"),
        ({"prompt": "2", "chosen": "5", "rejected": "6", "margin": "wide"}, "its margin is 'wide', not a number"),
        ({"messages": [Q, A], "prompt": "other"}, "has messages and prompt, and they do not begin alike: rename"),
        ({"messages": [Q, A], "text": "5"}, "has messages and text, and one of them is learned: rename the other"),
        ({"prompt": "2", "text": "5"}, "has text and prompt"),
        ({"prompt": "2", "completion": "5", "chosen": "5", "rejected": "6"}, "has chosen and completion"),
        ({"prompt": "2", "chosen": "5"}, "it has chosen, and lacks rejected"),
        ({"prompt": "2", "completions": ["5", "6"]}, "it has completions, and lacks ranks"),
        ({"prompt": "2", "completion": True}, "its completion is True, not a text"),
        ({"prompt": "2", "completion": " "}, "its completion is empty"),
        ({"prompt": "2", "completion": []}, "its completion is empty"),
        ({"prompt": "2", "completions": ["5", ""], "ranks": [0, 1]}, "its completions is empty"),
        (
            {"prompt": "other", "chosen": [Q, A], "rejected": [Q, B]},
            "chosen begins with a message of the user",
        ),
        ({"prompt": "2", "chosen": [A], "rejected": "6"}, "chosen and rejected are texts and conversations"),
        ({"chosen": "5", "rejected": "6"}, "do not begin alike, so they have no prompt: give it"),
        ({"chosen": [Q, A], "rejected": "6"}, "one is a conversation and the other is a text"),
        ({"prompt": "2", "response_1": "5", "response_2": "6", "preference_strength": "1"}, "is '1', not a number"),
    ],
)
def test_rows_that_cannot_be_learned_are_refused(row: dict[str, Any], fault: str) -> None:
    with pytest.raises(RowFault, match=fault):
        canonical(row)


def test_turns_of_weight_0_are_read_and_not_learned(tmp_path: Path) -> None:
    row = {"messages": [Q, A | {"weight": 0}, user("5 + 1?"), B, user("6 - 1?"), A | {"train": False}]}
    task = Dataset(write(tmp_path / "mine.jsonl", [row]))
    (document,) = documents(
        TOKENIZER, [task.row(i, s) for s in ("train", "validation", "test") for i in range(task.size(s))]
    )
    decoded = [
        TOKENIZER.decode(
            [t for t, yes in zip(document.completions[0], document.learned[0], strict=True) if yes is which]
        )
        for which in (True, False)
    ]
    read = TOKENIZER.decode(document.prompt).split() + decoded[1].split()
    assert decoded[0].split() == ["6", "<|end|>"] and read.count("5") == 3


def test_templates_join_columns(tmp_path: Path) -> None:
    row = {"a": "x", "b": "", "c": 3, "d": None}
    assert filled("{a}\n{b}\n## {c}: {a}\n\n{d} {b}\nend {{}}", row) == "x\n## 3: x\n\nend {}"
    rows = [{"instruction": "Add.", "input": f"{i}, 1" if i % 2 else "", "output": i + 1} for i in range(60)]
    file = write(tmp_path / "mine.jsonl", rows)
    task = Dataset(file, prompt="{instruction}\n{input}\n=")
    joined = {(r["prompt"], r["completion"]) for r in (task.row(i, "train") for i in range(task.size("train")))}
    assert all(p == (f"Add.\n{int(c) - 1}, 1\n=" if int(c) % 2 == 0 else "Add.\n=") for p, c in joined)
    assert Dataset(file, prompt="{instruction}", completion="{input}={output}").row(0, "train")["completion"].count("=")
    with pytest.raises(FieldMistake, match=r"mine.jsonl:1: its columns are instruction, input, output, and .* 'task'"):
        Dataset(file, prompt="{task}")
    for wrong in ("no names", "{}", "{a", "{a:>3}", "{a!r}"):
        with pytest.raises(FieldMistake, match=r"prompt: .*names columns in braces"):
            Dataset(file, prompt=wrong)
    with pytest.raises(FieldMistake, match=r"mine.jsonl:2: its input is not used: join the columns"):
        Dataset(file, columns={"instruction": "prompt", "output": "completion"})


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("mine.jsonl", "", r"mine\.jsonl has no rows"),
        ("mine.jsonl", "\n \n", r"mine\.jsonl has no rows"),
        ("mine.json", "", r"mine\.json has no rows"),
        ("mine.json", "[]", r"mine\.json has no rows"),
        ("mine.csv", "", r"mine\.csv has no rows"),
        ("mine.csv", "prompt,completion\n", r"mine\.csv has no rows"),
        ("mine.parquet", "", r"mine\.parquet has no rows"),
        ("mine.parquet", "no", r"mine\.parquet cannot be read: .*arquet"),
        ("mine.json", '[{"prompt": "a"}, 5]', r"mine\.json, row 2: this is not a JSON object"),
        ("mine.json", '[{"prompt": "a"}', r"mine\.json cannot be read: Expecting"),
        ("mine.json", '{"prompt": "a"}\n{"prompt": 1, "target": 2}', r"mine\.json:2: its target has no kind"),
        ("mine.jsonl", '{"prompt": "a"}\n\n{"prompt": "\xff"}\n', r"mine\.jsonl:3: this line is not UTF-8"),
        ("mine.csv", "prompt,completion\na,b\nc,\n", r"mine\.csv, row 2: .*completion"),
        ("mine.jsonl.gz", "no", r"mine\.jsonl\.gz cannot be read: Not a gzipped file"),
    ],
)
def test_broken_files_are_refused(name: str, text: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(FieldMistake, match=fault):
        Dataset(str(tmp_path / name))


def test_the_thousandth_row_is_named(tmp_path: Path) -> None:
    rows: list[Any] = [{"messages": [user(str(i)), A]} for i in range(1200)]
    rows[999]["messages"] = [user("?"), EMPTY]
    rows[1100] = rows[1100] | {"text": "both"}
    with pytest.raises(FieldMistake, match=r"mine.jsonl:1000: message 2 .*\n.*:1101: it has messages and"):
        Dataset(write(tmp_path / "mine.jsonl", rows))


def test_small_files_have_held_out_rows(tmp_path: Path) -> None:
    drawn = [
        {"prompt": f"row {i}", "completion": "5"}
        for i in range(200)
        if split_of(json.dumps({"completion": "5", "prompt": f"row {i}"}, sort_keys=True)) == "train"
    ]
    for count, sizes in ((19, (18, 0, 1)), (20, (17, 1, 2)), (60, (51, 3, 6)), (100, (85, 5, 10))):
        task = Dataset(write(tmp_path / "mine.jsonl", drawn[:count]))
        assert tuple(map(task.size, SPLITS)) == sizes and sum(sizes) == count
        rows = [task.row(i, s)["prompt"] for s in SPLITS for i in range(task.size(s))]
        assert sorted(rows) == sorted(r["prompt"] for r in drawn[:count])
    task = Dataset(write(tmp_path / "mine.jsonl", drawn[:1] * 60 + drawn[1:12]))  # equal rows are in one split
    held = [{task.row(i, s)["prompt"] for i in range(task.size(s))} for s in SPLITS]
    assert not held[0] & held[1] and not held[0] & held[2] and not held[1] & held[2] and held[0]
    assert Dataset(write(tmp_path / "mine.jsonl", drawn[:1] * 60)).size("train") == 60


def test_ratings_become_rankings(tmp_path: Path) -> None:
    """Neighbouring rows of a prompt, as HelpSteer has them; two prompts that are equal and apart stay apart."""
    rows = [
        {"prompt": f"row {i // 3 % 20}", "response": f"answer {i}", "helpfulness": i % 3, "verbosity": 9}
        for i in range(120)
    ]
    task = Dataset(write(tmp_path / "mine.jsonl", rows), rank_by="helpfulness")
    every = [task.row(i, s) for s in SPLITS for i in range(task.size(s))]
    assert len(every) == 40 and all(r["ranks"] == [0.0, -1.0, -2.0] for r in every)
    row = next(r for r in every if r["completions"][0] == [assistant("answer 0")])
    assert row["completions"] == [[assistant(f"answer {i}")] for i in range(3)] and row["prompt"] == [user("row 0")]
    assert "completion" not in row and task.place(0, "train").endswith((":1", ":4", ":7", ":10"))
    alone = [*rows[:6], {"prompt": "alone", "response": "5", "helpfulness": 1}, rows[9] | {"helpfulness": "good"}]
    with pytest.raises(FieldMistake, match=r"jsonl:7: its prompt has one completion: .*\n.*jsonl:8: .* is 'good', not"):
        Dataset(write(tmp_path / "mine.jsonl", alone), rank_by="helpfulness")
    with pytest.raises(FieldMistake, match=r"jsonl:1: its helpful is None, not a number to rank by; its columns are"):
        Dataset(write(tmp_path / "mine.jsonl", rows), rank_by="helpful")
    with pytest.raises(
        FieldMistake, match=r"jsonl:4: this line is not JSON: .*\n.*jsonl:5: message 1 of its prompt has the"
    ):
        broken = {"prompt": [{"role": "x"}], "response": "5", "helpfulness": 1}
        Dataset(write(tmp_path / "mine.jsonl", [*rows[:3], "{", broken, *rows[3:6]]), rank_by="helpfulness")


def test_places_of_rows(tmp_path: Path) -> None:
    texts = [json.dumps({"prompt": str(i)}) + ("\n\n" if i % 7 == 0 else "") for i in range(90)]
    task = Dataset(write(tmp_path / "mine.jsonl", texts))
    lines = (tmp_path / "mine.jsonl").read_text().split("\n")
    for split in ("train", "test"):
        for i in range(task.size(split)):
            line = int(task.place(i, split).rpartition(":")[2])
            assert json.loads(lines[line - 1]) == task.row(i, split)


def test_columns_that_are_nowhere_or_twice_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.jsonl", [{"prompt": "a", "answer": "b", "completion": "c"}] * 3)
    with pytest.raises(FieldMistake, match=r"columns: no row of .*mine.jsonl has anser"):
        Dataset(file, columns={"anser": "target"})
    with pytest.raises(FieldMistake, match=r"mine.jsonl:1: its answer is renamed completion, and it has another"):
        Dataset(file, columns={"answer": "completion"})
    assert Dataset(file, columns={"answer": "completion", "completion": "old"}).row(0, "train")["old"] == "c"


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.jsonl.gz", "mine.parquet"])
def test_a_large_file_is_read_in_place(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": f"row {i}", "completion": "x" * (i % 50 + 1)} for i in range(300)]
    if name.endswith("parquet"):
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / name))
    else:
        write(tmp_path / "mine.jsonl", rows)
        if name.endswith("gz"):
            import gzip

            (tmp_path / name).write_bytes(gzip.compress((tmp_path / "mine.jsonl").read_bytes()))
    held = Dataset(str(tmp_path / name))
    monkeypatch.setattr(tables, "IN_MEMORY", 100)
    placed = Dataset(str(tmp_path / name))
    assert placed.fingerprint == held.fingerprint
    for split in ("train", "validation", "test"):
        assert placed.size(split) == held.size(split) > 0
        assert [placed.row(i, split) for i in range(placed.size(split))] == [
            held.row(i, split) for i in range(held.size(split))
        ]
    if name == "mine.jsonl":
        write(tmp_path / name, rows[1:])
        assert held.row(5, "train")["prompt"]
        with pytest.raises(Mistake, match=r"mine\.jsonl has changed since it was opened"):
            placed.row(5, "train")


def test_null_arguments_of_calls_are_data_but_in_columnar_files(tmp_path: Path) -> None:
    """A columnar file has the arguments of all calls in each call, and the missing ones are null."""
    import datasets

    given: list[dict[str, Any]] = [{"a": 2, "b": None, "more": [{"x": None}]}, {"city": "Paris"}]
    calls = [{"type": "function", "function": {"name": "add", "arguments": each}} for each in given]
    rows = [{"messages": [Q, assistant("", tool_calls=[call])]} for call in calls] * 2
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "mine.parquet"))
    wanted = {"mine.jsonl": given, "mine.parquet": [{"a": 2, "more": [{}]}, {"city": "Paris"}]}
    for name, arguments in wanted.items():
        task = Dataset(str(tmp_path / name))
        read = [task.row(i, "train")["messages"][1]["tool_calls"][0] for i in range(2)]
        assert [call["function"]["arguments"] for call in read] == arguments
