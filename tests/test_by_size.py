"""`rllab eval` over the size of puzzles: what was cut off, the first wrong move, equal tokens, tables and figure."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pytest
from conftest import read_jsonl
from evaluated import Here

from rllab.cli.evaluation import show
from rllab.evals.asked import Asked
from rllab.evals.asking import Chain, _asked
from rllab.evals.by_size import Row, equal_tokens, of_one_task
from rllab.evals.items import Items, open_items
from rllab.evals.outcome import Outcome
from rllab.evals.outcome_figure import draw
from rllab.evals.prompts import Prompt, prompts
from rllab.evals.style import read_style
from rllab.text.open import open_model

TASK = "{name: hanoi, sizes: [1, 3], rules: false}"


@pytest.fixture(scope="module")
def task() -> Items:
    return open_items(TASK, 6)  # two items of each size


def outcome(task: Items, style: str, replies: Sequence[Sequence[str]], tokens: int, cut: Sequence[int] = ()) -> Outcome:
    """The outcome of given replies to each item. cut: the items whose replies the limit of tokens ended."""
    reached = Outcome("made", task, read_style(style), "")
    for n, (item, own) in enumerate(zip(task.items, replies, strict=True)):
        spent = {"tokens": tokens * item.row["size"], "thinking": tokens // 2, "finished": n not in cut}
        reached.add([Asked(item, k, *reached.style.points[-1], "?", text, **spent) for k, text in enumerate(own)])
    return reached


def golds(task: Items) -> list[str]:
    return [f"#### {item.target}" for item in task.items]


def test_what_the_limit_cut_off_is_not_wrong(task: Items) -> None:
    """Of size 3 one list ends in its fifth move; of size 2 a solution was followed by text up to the limit."""
    replies = golds(task)
    replies[2] = replies[2].rpartition(";")[0].rpartition(";")[0] + "; 1"
    first, *rest = replies[5].removeprefix("#### ").split(" ; ")
    replies[5] = "#### " + " ; ".join([first, first, *rest])
    made = outcome(task, "direct", [[r] for r in replies], 10, cut=[1, 2])
    one, two, three = made.row()["sizes"]
    assert [s["size"] for s in (one, two, three)] == [1, 2, 3] and three["moves"] == 7
    assert (two["accuracy"], two["cut_off"], two["wrong"]) == (1, 0, 0) and two["first_wrong"] is None
    assert (three["accuracy"], three["cut_off"], three["wrong"]) == (0, 0.5, 0.5)
    assert three["first_wrong"]["replies"] == 1 and three["first_wrong"]["quartiles"] == [1, 1, 1]
    assert three["first_wrong"]["share_quartiles"] == pytest.approx([1 / 7] * 3)
    assert three["tokens_quartiles"] == [30, 30, 30] and three["thinking_quartiles"] == [5, 5, 5]
    by_id = {row["id"]: row for row in made.transcripts()}
    assert by_id[2]["cut_off"] and by_id[2]["first_wrong"] is None and "cut off after 5 moves" in by_id[2]["problem"]
    assert by_id[5]["size"] == 3 and by_id[5]["moves"] == 8 and by_id[5]["first_wrong"] == 1
    assert not by_id[5]["cut_off"] and by_id[5]["problem"] == by_id[5]["reason"] != ""


def test_an_item_without_room_is_neither_wrong_nor_cut_off(task: Items) -> None:
    made = outcome(task, "direct", [[g] for g in golds(task)], 10)
    item = task.items[2]
    made.add([Asked(item, 1, *made.style.points[-1], "?", too_long=True)])
    three = made.sizes[-1]
    assert three["too_long"] == pytest.approx(1 / 3) and three["accuracy"] == pytest.approx(2 / 3)
    assert three["cut_off"] == 0 and three["wrong"] == pytest.approx(0)


def test_equal_tokens(task: Items) -> None:
    """Thinking takes 35 tokens where a direct reply takes 10, so three direct replies are compared with one."""
    wrong = [f"#### {item.target} ; 9 A B" for item in task.items]
    right = [[0], [1, 3], [0, 1, 2, 3], [2], [], [0, 3]]
    replies = [[g if k in own else w for k in range(4)] for g, w, own in zip(golds(task), wrong, right, strict=True)]
    direct = outcome(task, "direct", replies, 10)
    thinking = outcome(task, "zero-shot-cot", [[g] for g in golds(task)], 35)
    (group,) = of_one_task([direct.row(), thinking.row()])
    for place, point in enumerate(equal_tokens(group)):
        own, other = point["styles"]
        assert point["tokens"] == 35 * point["size"] and own["tokens"] == 30 * point["size"]
        assert (own["k"], own["wanted"], other["k"], other["pass_at_k"]) == (3, 3, 1, 1)
        some = [[any(k in r for k in chosen) for chosen in combinations(range(4), 3)] for r in right[place::3]]
        assert own["pass_at_k"] == pytest.approx(sum(map(sum, some)) / 8)
        assert own["interval"][0] <= own["pass_at_k"] <= own["interval"][1]
    fewer = outcome(task, "direct", [r[:2] for r in replies], 10).row()
    assert [(p["styles"][0]["k"], p["styles"][0]["wanted"]) for p in equal_tokens([fewer, group[1]])] == [(2, 3)] * 3
    assert of_one_task([direct.row(), thinking.row() | {"model": "another"}]) == []


def test_tables_and_figure(task: Items, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = [
        outcome(task, "direct", [[g, "#### 1 A"] for g in golds(task)], 10, cut=[2, 5]),
        outcome(task, "zero-shot-cot", [[g, f"{g} ; 9 A B"] for g in golds(task)], 45),
    ]
    made[1].measured["equal_tokens"] = equal_tokens([m.row() for m in made])
    rows: list[Row] = [m.row() for m in made]
    show(made, rows)
    table = capsys.readouterr().out
    assert "direct, by size" in table and "zero-shot-cot, by size" in table and "pass@k with as many tokens" in table
    (line,) = [line for line in table.partition("direct, by size")[2].splitlines() if line.startswith("3 ")][:1]
    assert line.split()[:2] == ["3", "2"] and "50.0 [" in line and "0.0    50.0" in line  # wrong, cut off
    assert "(k = 2 of 4)" in table and "take --samples 4" in table
    third = rows[1] | {"style": "think"}
    show(made, [*rows, third | {"equal_tokens": equal_tokens([*rows, third])}])
    assert capsys.readouterr().out.count("pass@k with as many tokens") == 1  # of all three styles
    draw(rows, tmp_path / "sizes.svg")
    drawn = (tmp_path / "sizes.svg").read_text(encoding="utf-8")
    for label in ("solved", "not solved", "cut off by the limit of tokens", "ended and wrong", "tokens of a reply",
                  "of them thinking, median", "first wrong move, of replies with one", "moves of the solution",
                  "solved by one of k, at equal tokens", "2 of 4", "direct", "zero-shot-cot", "size"):  # fmt: skip
        assert f"<!-- {label} -->" in drawn, label
    draw([row | {"sizes": [{k: v for k, v in s.items() if k not in ("moves", "first_wrong")} for s in row["sizes"]]}
          for row in rows[:1]], tmp_path / "plain.svg")  # fmt: skip
    plain = (tmp_path / "plain.svg").read_text(encoding="utf-8")
    assert "first wrong" not in plain and "equal tokens" not in plain and "<!-- tokens of a reply -->" in plain


def test_the_command_measures_sizes(place: Path, here: Here) -> None:
    """A model that knows nothing of puzzles: its replies are cut off, and no list of moves is in them."""
    words = ["chat", "--task", TASK, "--style", "direct,zero-shot-cot", "--limit", "6", "--samples", "2"]
    direct, thinking = here(*words, "--max-new-tokens", "6", "--out", "h.jsonl", "--figure", "h.svg")
    for row in (direct, thinking):
        assert [s["size"] for s in row["sizes"]] == [1, 2, 3] and all(s["replies"] == 4 for s in row["sizes"])
        for s in row["sizes"]:
            assert s["accuracy"] + s["wrong"] + s["cut_off"] + s["too_long"] == pytest.approx(1)
    assert "equal_tokens" not in direct and [p["size"] for p in thinking["equal_tokens"]] == [1, 2, 3]
    transcripts = read_jsonl(place / "h.jsonl")
    names = {"size", "moves", "first_wrong", "problem", "cut_off", "thinking"}
    assert len(transcripts) == 24 and all(names <= row.keys() for row in transcripts)
    assert "<!-- not solved -->" in (place / "h.svg").read_text(encoding="utf-8")


def test_an_answer_of_a_second_stage_is_cut_off(here: Here) -> None:
    (row,) = here("plain", "--task", TASK, "--limit", "3", "--style", "{name: budget, budgets: [0], answer_tokens: 3}")
    assert row["truncated"] == 0 and [s["cut_off"] for s in row["sizes"]] == [1, 1, 1]


def test_every_model_is_told_how_moves_are_written(place: Path) -> None:
    for folder, end in (("chat", "the moves.<|im_end|>"), ("plain", "the moves.\nA: The answer is")):
        (given,) = prompts(open_model(str(place / folder)), read_style("direct"), open_items("hanoi", 1))
        assert "separate moves by semicolons. End with #### and " in given.text and end in given.text


@pytest.mark.parametrize(
    ("begin", "behind"),
    [("<think> 1 + 1 = 2 </think>", " #### 2"), ("<think> 1 + 1", ""), ("", "#### 2"), ("<think> 3 </think>", "")],
)
def test_tokens_of_thinking(begin: str, behind: str, place: Path) -> None:
    lm = open_model(str(place / "plain"))
    ids = [lm.tokenizer(text)["input_ids"] for text in ("What?", begin, behind)]
    item = open_items(TASK, 1).items[0]
    chain = Chain(item, Prompt("What?", ids[0], "", ""), 0, 99, ids[1] + ids[2], sampled=len(ids[1] + ids[2]))
    assert _asked(lm, (99, 0), chain).thinking == len(ids[1])
