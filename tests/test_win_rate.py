"""Win rates: known answers, and tiny runs compared by every kind of reward and judge."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Server
from typer.testing import CliRunner

from rllab.algos.rollouts import Group
from rllab.cli import app
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.evals.win_rate import both, play, preferred

ORDERLY = '''
def first(prompts, completions):
    """Prefers the answer to a prompt that it sees first."""
    return [float(prompt not in prompts[:i]) for i, prompt in enumerate(prompts)]


def nothing(completions):
    return [None for _ in completions]
'''


def test_ties_are_half_a_win_and_pairs_without_scores_do_not_count() -> None:
    scores = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 1.0], [np.nan, 1.0]])
    assert preferred(scores).tolist() == [1.0, 0.0, 0.5]


def test_two_answers_to_a_prompt_are_a_group() -> None:
    row = {"prompt": "p"}
    one, two = (Group(row, 3, [1], [], [text], gold=[gold], turns=[[]]) for text, gold in (("a", 1.0), ("b", 2.0)))
    pair = both(one, two)
    assert (pair.texts, pair.gold, pair.draw) == (["a", "b"], [1.0, 2.0], 3)
    assert one.texts == ["a"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    list(Trainer(load_recipe("sft-full", smoke=True), folder / "began"))
    (folder / "mine.py").write_text(ORDERLY)
    for name, start in (("dpo", "began"), ("reward-model", "began")):
        words = [f"model={newest(folder / start)}", "shape={}", "optim.lr=0.05"]
        list(Trainer(load_recipe(name, words, smoke=True), folder / name))
    list(Trainer(load_recipe("cartpole", smoke=True), folder / "cartpole"))
    return folder


def newest(run: Path) -> Path:
    return sorted((run / "checkpoints").iterdir())[-1]


def win_rates(runs: Path, *words: str) -> Any:
    done = CliRunner().invoke(app, ["winrate", *words, "--runs", str(runs), "--prompts", "6", "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_run_is_compared_with_its_initial_model(runs: Path) -> None:
    scorers = ("gold", "run:reward-model", f"{runs / 'mine.py'}:first")
    rows = win_rates(runs, "dpo", *(word for name in scorers for word in ("--by", name)))
    assert [(r["model"], r["against"], r["prompts"]) for r in rows] == [("dpo", "began", 6)] * 3
    assert rows[2]["win_rate"] == 1.0 and rows[2]["interval"] == pytest.approx([0.6097, 1.0], abs=1e-4)
    pairs = play("dpo", "", 6, 0, runs).pairs
    gold = [0.5 + 0.5 * np.sign(a - b) for a, b in (pair.gold for pair in pairs)]
    assert rows[0]["win_rate"] == pytest.approx(np.mean(gold)) and rows[0]["ties"] == np.mean(np.array(gold) == 0.5)
    assert [rows[0][k] for k in ("tokens", "tokens_against")] == [
        np.mean([len(pair.completions[i].ids) for pair in pairs]) for i in (0, 1)
    ]
    assert any(a != b for a, b in (pair.texts for pair in pairs))


def test_judges_see_both_answers_in_both_orders(runs: Path, server: Server, qwen: Path) -> None:
    def longer(body: Any) -> tuple[int, Any]:
        asked = body["messages"][0]["content"]
        first, second = asked.partition("[Answer A]")[2].split("[Answer B]")
        letter = "A" if len(first.strip()) >= len(second.partition("Which answer is better?")[0].strip()) else "B"
        return 200, {"choices": [{"message": {"content": letter}}]}

    server.answer = longer
    service = f"{{name: judge, url: '{server.url}/v1', model: m}}"
    (row,) = win_rates(runs, "dpo", "--by", service)
    pairs = play("dpo", "", 6, 0, runs).pairs
    lengths = [(len(a.strip()), len(b.strip())) for a, b in (pair.texts for pair in pairs)]
    assert row["win_rate"] == pytest.approx(np.mean([0.5 + 0.5 * np.sign(a - b) for a, b in lengths]))
    assert len(server.asked) == 2 * sum(a != b for a, b in (pair.texts for pair in pairs))
    list(Trainer(load_recipe("dpo", [f"model={qwen}", "shape={}"], smoke=True), runs / "lettered"))
    (own,) = win_rates(runs, "lettered", "--by", "self_judge")
    assert own["prompts"] == 6 and 0.0 <= own["interval"][0] <= own["win_rate"] <= own["interval"][1] <= 1.0


def test_a_figure_shows_every_row(runs: Path, tmp_path: Path) -> None:
    figure = tmp_path / "wins.svg"
    win_rates(runs, "dpo", "--by", "gold", "--by", "brevity", "--figure", str(figure))
    assert figure.read_text().count('<g id="ytick_') == 2


def test_a_model_ties_with_itself_and_other_seeds_draw_other_answers(runs: Path) -> None:
    (row,) = win_rates(runs, "dpo", "--against", "dpo")
    assert (row["win_rate"], row["ties"]) == (0.5, 1.0) and row["interval"] == pytest.approx([0.1876, 0.8124], abs=1e-4)
    assert win_rates(runs, str(runs / "dpo"), "--against", "dpo") == [row]
    one, two = (play("dpo", "", 6, seed, runs).pairs for seed in (0, 1))
    assert [p.texts for p in one] != [p.texts for p in two]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["cartpole"], "which trains no language model that answers"),
        (["reward-model"], "which trains no language model that answers"),
        (["began"], "began with no model, but made a new one: name the model to compare it with by --against"),
        (["dpo", "--by", "mine.py:nothing"], "applies to no pair of answers"),
        (["dpo", "--by", "self_judge"], "this model's tokenizer has no such letters"),
        (["nobody"], "no run 'nobody'"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(
    runs: Path, words: list[str], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs)
    done = CliRunner().invoke(app, ["winrate", *words, "--runs", str(runs), "--prompts", "2"])
    assert done.exit_code != 0 and fault in str(done.exception or done.output) + done.output
