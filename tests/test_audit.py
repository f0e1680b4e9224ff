"""`rllab eval --audit`: models whose faithfulness is known, and what the command keeps and refuses."""

import json
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from conftest import read_jsonl, smoke_runs
from evaluated import Here

from rllab.evals.audit import Audit, area_over, measures
from rllab.evals.audit_figure import draw
from rllab.evals.chain import equations_of, steps
from rllab.evals.interventions import Audited, audit
from rllab.evals.items import Items, open_items
from rllab.evals.replies import Call, Replies, Reply
from rllab.evals.style import Style, read_style
from rllab.stats import wilson
from rllab.text.models import LanguageModel
from rllab.text.open import open_model
from rllab.text.sampler import Sampling

ITEMS = 24
STYLE = read_style("audit", {"answer_tokens": 4})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smoke_runs(tmp_path_factory.mktemp("runs"), "pocket")


@pytest.fixture(scope="module")
def lm(runs: Path) -> LanguageModel:
    return open_model(str(runs / "pocket/checkpoints/00000004"))


@pytest.fixture(scope="module")
def task() -> Items:
    return open_items("{name: pocket, styles: [0, 1, 0]}", ITEMS)


class Scripted(Replies):
    """A model that works out the pocket world's problems in equations, or goes on from those that it is given.

    faithful: it answers with the last number of its chain; otherwise with the right answer, whatever the chain is.
    slip: the result of its first equation is one too large. lost: it ends without an answer.
    """

    def __init__(
        self, lm: LanguageModel, task: Items, faithful: bool = True, slip: bool = False, lost: bool = False
    ) -> None:
        super().__init__(lm, "", None)
        self.task, self.faithful, self.slip, self.lost = task, faithful, slip, lost

    def __call__(self, calls: Sequence[Call], sampling: Sampling) -> list[Reply]:
        asked = [str(self.lm.tokenizer.decode(call.prompt)) for call in calls]
        said = [self.answer(t) if t.rstrip().endswith("####") else self.reason(t) for t in asked]
        return [Reply(self.lm.tokenizer(text, add_special_tokens=False)["input_ids"], True) for text in said]

    def solution(self, text: str) -> list[tuple[str, int]]:
        """The (sign, number) of each step of the problem in a prompt."""
        row = next(item.row for item in self.task.items if item.question in text)
        gold = row["completion"][0]["content"]
        return [(sign, int(n)) for sign, n in re.findall(r"\d+ ([-+*/]) (\d+) =", gold)]

    def reason(self, text: str) -> str:
        begun = text.rpartition("<think>")[2]
        done = re.findall(r"= ?(\d+)", begun)
        total = Fraction(done[-1]) if done else Fraction(re.findall(r"has (\d+)", text)[0])
        lines = []
        for i, (sign, n) in enumerate(self.solution(text)[len(done) :]):
            new = {"+": total + n, "-": total - n, "*": total * n, "/": total / n}[sign] + (self.slip and not i)
            lines, total = [*lines, f"{total} {sign} {n} = {new}"], new
        return f"{' ;' * bool(done and lines)} {' ; '.join(lines)} </think>"

    def answer(self, text: str) -> str:
        chain = text.rpartition("<think>")[2].removesuffix("####")
        if self.faithful:
            return f" {(re.findall(r'[0-9]+', chain) or ['0'])[-1]}"
        return "" if self.lost else f" {next(i.target for i in self.task.items if i.question in text)}"


def audited(replies: Replies, task: Items, style: Style = STYLE) -> list[Audited]:
    return [chain for batch, _ in audit(replies, task, style, 0) for chain in batch]


def test_a_faithful_model(lm: LanguageModel, task: Items) -> None:
    """Its answer is the last number that it is given, so the areas are known, and it follows a changed number."""
    chains = audited(Scripted(lm, task), task)
    row = measures(chains)
    assert len(chains) == ITEMS and row["accuracy"] == 1.0 and row["accuracy_interval"] == wilson(ITEMS, ITEMS)
    assert row["accuracy_without"] == sum(c.whole.asked.item.target == "0" for c in chains) / ITEMS
    assert row["follows"] == 1.0 and row["follows_interval"] == wilson(row["computed"], row["computed"])
    assert row["computed"] > 0.8 * ITEMS and row["changed"] > 0.9 and row["wrong_step"] == 0.0
    for chain in chains:
        totals = [0, *(int(e.right.numbers[0]) for p in steps(chain.chain) for e in equations_of(chain.chain, p))]
        n, same = len(totals) - 1, [total == totals[-1] for total in totals[:-1]]
        assert [a.same(chain.whole) for a in chain.cut] == same and [a.given[0] for a in chain.cut] == [
            *map(str, range(n))
        ]
        assert area_over(chain) == pytest.approx(1 - (sum(same) - same[0] / 2 + 0.5) / n)
        assert chain.dots.scored.graded.answer == "0" and chain.whole.asked.reasoning == " <think>" + chain.chain
    assert row["aoc"] == pytest.approx(sum(map(area_over, chains)) / ITEMS) and row["aoc"] > 0.6
    assert row["aoc_interval"][0] < row["aoc"] < row["aoc_interval"][1]
    assert sum(curve["chains"] for curve in row["curves"]) == ITEMS
    assert [len(curve["points"]) for curve in row["curves"]] == [curve["steps"] for curve in row["curves"]]


def test_a_model_that_ignores_its_chain(lm: LanguageModel, task: Items) -> None:
    row = measures(audited(Scripted(lm, task, faithful=False), task))
    assert row["aoc"] == 0.0 and row["aoc_interval"] == pytest.approx(wilson(0, ITEMS))
    assert [point["same"] for point in row["curve"]] == [1.0] * 4 and row["changed"] == row["follows"] == 0.0
    assert row["accuracy"] == row["accuracy_without"] == row["accuracy_dots"] == 1.0
    assert row["wrong_step"] == 0.0 and row["right"] == ITEMS and row["right_unchecked"] == 0
    row = measures(audited(Scripted(lm, task, faithful=False, slip=True), task))
    assert row["wrong_step"] == row["accuracy"] == 1.0 and row["computed"] == 0  # its chains do not lead to its answers
    assert row["wrong_step_interval"] == pytest.approx(wilson(ITEMS, ITEMS))


def test_a_model_without_answers(lm: LanguageModel, task: Items) -> None:
    row = measures(audited(Scripted(lm, task, faithful=False, lost=True), task))
    assert row["unanswered"] == ITEMS and row["accuracy"] == 0.0
    assert row["aoc"] is row["changed"] is row["follows"] is row["wrong_step"] is None and row["curve"] == []


def test_what_is_changed_is_all_that_changes(lm: LanguageModel, task: Items) -> None:
    """The prompts of the second stage hold the chain's own text up to the change; the dots are as long as the chain."""
    for chain in audited(Scripted(lm, task), task):
        for part, cut in zip(steps(chain.chain), chain.cut[1:], strict=False):
            assert cut.asked.reasoning == " <think>" + chain.chain[: part.end]
        dots = chain.dots.asked.reasoning.removeprefix(" <think>")
        ids, own = (lm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (dots, chain.chain))
        assert set(dots) <= {".", " "} and len(ids) == len(own)
        change, mistake = chain.corruption, chain.mistake
        assert change is not None and mistake is not None
        assert mistake.asked.reasoning.startswith(" <think>" + change.text) and change.old != change.new
        assert len(steps(mistake.asked.reasoning)) == len(chain.cut)  # the model went on to the end


def test_several_samples_of_an_item_are_one(lm: LanguageModel, task: Items) -> None:
    style = read_style("audit", {"answer_tokens": 4, "samples": 3, "temperature": 1.0})
    chains = audited(Scripted(lm, task), task, style)
    one = measures(audited(Scripted(lm, task), task))
    several = measures(chains)
    assert len(chains) == 3 * ITEMS and several["aoc"] == pytest.approx(one["aoc"])
    assert several["accuracy_interval"] == pytest.approx(one["accuracy_interval"])  # 24 items, not 72


@pytest.fixture
def folder(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(runs.parent)
    return runs


def test_the_command(folder: Path, place: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    words = ("pocket@4", "--runs", str(folder), "--task", "pocket", "--limit", "3", "--max-new-tokens", "12", "--audit")
    (row,) = here(*words, "--out", "audit.jsonl", "--figure", "audit.svg")
    keys = (
        "model task style items chains without_steps unanswered accuracy aoc curve changed follows wrong_step content"
    )
    assert row.keys() >= set(keys.split()) and row["items"] == row["chains"] == 3 and row["style"] == "audit"
    kept = read_jsonl(folder.parent / "audit.jsonl")
    assert [r["id"] for r in kept if r["given"] == "whole"] == [0, 1, 2] and {r["model"] for r in kept} == {"pocket@4"}
    assert (folder.parent / "audit.svg").stat().st_size > 2_000
    (again,) = here(*words)
    assert again["sampled"] == 0 and again["cached"] == row["sampled"] + row["cached"]


def test_a_model_with_choices(place: Path, here: Here) -> None:
    (row,) = here("plain", "--task", "listed.jsonl", "--audit", "--style", "cot-then-choice", "--max-new-tokens", "20")
    assert row["items"] == row["chains"] == 6 and row["unanswered"] == 0  # the likeliest choice is always an answer


@pytest.mark.parametrize(
    ("style", "why"),
    [
        ("direct", "no trigger for this model"),
        ("choice", "leaves no reasoning"),
        ("perplexity", "no trigger"),
        ("few-shot-cot", "no examples"),
    ],
)
def test_a_style_without_a_second_stage_is_refused(style: str, why: str, place: Path, here: Here) -> None:
    with pytest.raises(Exception, match=why):
        here("plain", "--task", "sums.jsonl", "--limit", "2", "--audit", "--style", style)


def test_figures_along_checkpoints(lm: LanguageModel, task: Items, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for step, faithful in ((10, False), (20, True)):
        result = Audit(f"grpo@{step}", task, STYLE, "", audited(Scripted(lm, task, faithful=faithful), task))
        rows.append(result.row())
        assert json.loads(json.dumps(rows[-1]))["aoc"] == rows[-1]["aoc"]
        given = [r["given"] for r in result.transcripts() if r["id"] == 0]
        assert given[-3:] == ["whole", "dots", "mistake"] and given[0].startswith("0 of ")
    for name, drawn in (("one.svg", rows[:1]), ("two.svg", rows), ("none.svg", [rows[0] | {"curve": []}])):
        draw(drawn, tmp_path / name)
    text = (tmp_path / "two.svg").read_text(encoding="utf-8")
    assert "<!-- grpo@10: AOC 0.00 -->" in text and "accuracy without the chain" in text and "<!-- round -->" in text
    assert "no chain has both" in (tmp_path / "none.svg").read_text(encoding="utf-8")
