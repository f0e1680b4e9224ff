"""Rewards from other models: an HTTP service, a judge behind OpenAI's interface, the policy as its own judge."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Server
from test_rewards import rewards, scores_of
from transformers import AutoModelForCausalLM

from rllab.core.errors import Mistake
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.rewards.http import http
from rllab.rewards.judge import judge, verdict
from rllab.rewards.own import SelfJudge
from rllab.rewards.pairwise import Contest
from rllab.rewards.scoring import RewardFailed
from rllab.testing import check_algorithm
from rllab.text.open import open_model


def ask(server: Server, completions: list[str], **settings: Any) -> list[Any]:
    return asyncio.run(
        http(["p"] * len(completions), completions, [[1]] * len(completions), url=server.url, **settings)
    )


def test_a_service_is_asked_in_parts_with_the_columns(server: Server) -> None:
    server.answer = lambda body: (
        200,
        {"rewards": [len(c) + n for c, n in zip(body["completions"], body["n"], strict=True)]},
    )
    assert ask(server, ["a", "bb", "ccc"], n=[10, 20, 30], batch=2) == [11, 22, 33]
    assert sorted(len(body["prompts"]) for _, _, body in server.asked) == [1, 2]
    server.answer = lambda body: (200, [None] * len(body["prompts"]))
    scores = scores_of(rewards(f"{{name: http, url: '{server.url}'}}", Path()), ["a"], kind=["number"])
    assert np.isnan(scores).all() and server.asked[-1][2]["kind"] == ["number"]


def test_a_busy_service_is_asked_again(server: Server) -> None:
    codes = iter([429, 503, 200])
    server.answer = lambda body: (next(codes), [1.0])
    assert ask(server, ["a"]) == [1.0] and len(server.asked) == 3


@pytest.mark.parametrize(
    ("status", "reply", "message", "asked"),
    [
        (401, "who are you?", "answers 401 Unauthorized: 'who are you\\?'", 1),
        (500, "broken", "answers 500 Internal Server Error: 'broken'", 5),
        (200, "<html>", "answers with something that is not JSON: '<html>'", 1),
        (200, [1.0, 2.0], "expected 1 numbers in a list", 1),
        (200, {"score": 3}, "expected 1 numbers in a list", 1),
    ],
)
def test_errors_of_a_service_are_reported(server: Server, status: int, reply: Any, message: str, asked: int) -> None:
    server.answer = lambda body: (status, reply)
    with pytest.raises(ConnectionError, match=f"{server.url} .*{message}"):
        ask(server, ["a"])
    assert len(server.asked) == asked


def test_a_service_that_is_away_stops_the_run_before_the_step(server: Server) -> None:
    server.close()
    with pytest.raises(ConnectionError, match="does not answer"):
        ask(server, ["a"])
    with pytest.raises(RewardFailed, match=r"ConnectionError: http://127.0.0.1:.* does not answer"):
        scores_of(rewards(f"{{name: http, url: '{server.url}'}}", Path()), ["a"])


def test_answers_meet_around_a_circle_in_both_orders() -> None:
    contest = Contest(["p"] * 4 + ["q"], ["a", "b", "c", "c", "alone"], 1)
    assert {tuple(p) for p in contest.pairs} == {(0, 1), (1, 0), (1, 2), (2, 1), (0, 3), (3, 0)}
    first = contest.scores([1.0] * 6)  # the first place always wins: nobody is better
    assert first == [0.5, 0.5, 0.5, 0.5, None]
    better = contest.scores([float(p.first < p.second) for p in contest.pairs])
    assert better == [1.0, 0.5, 0.25, 0.25, None]  # equal answers are a tie that nobody is asked about
    assert contest.scores([None] * 6) == [None, None, 0.5, 0.5, None]
    assert len(Contest(["p"] * 4, list("abcd"), 3).pairs) == len(Contest(["p"] * 4, list("abcd"), 99).pairs) == 12
    talk: Any = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert "system: s\n\nuser: u" in Contest([talk] * 2, ["a", "b"], 1).questions("?")[0]
    assert Contest(["p", "q"], ["a", "b"], 1, against=["x", "b"]).scores([1.0, 0.0]) == [1.0, 0.5]


def test_the_verdict_is_the_last_letter() -> None:
    scores = {
        "A": 1.0,
        "It is **B**.": 0.0,
        "<think>A?</think> Neither: C": 0.5,
        "<think>A": None,  # the thinking is not closed
        "A Bad one": 1.0,
        "none": None,
        "": None,
    }
    assert {k: verdict(k) for k in scores} == scores


def prefers(better: Callable[[str, str], str]) -> Callable[[Any], tuple[int, Any]]:
    def answer(body: Any) -> tuple[int, Any]:
        text = body["messages"][0]["content"]
        one, other = (text.split(f"[Answer {x}]\n")[1].split("\n\n")[0] for x in "AB")
        return 200, {"choices": [{"message": {"content": better(one, other)}}]}

    return answer


def test_a_judge_compares_the_answers_of_a_group(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server.answer = prefers(lambda one, other: "So: A" if len(one) > len(other) else "So: B")
    name = f"{{name: judge, url: '{server.url}/v1/', model: some, opponents: 2, asks: 'Which is longer?'}}"
    assert scores_of(rewards(name, Path()), ["a", "bbb", "cc"]).T.tolist() == [[0.0, 1.0, 0.5]]
    path, headers, body = server.asked[0]
    assert path == "/v1/chat/completions" and body["model"] == "some" and body["temperature"] == 0
    assert headers["authorization"] == "Bearer secret" and "Which is longer?" in body["messages"][0]["content"]
    server.answer = prefers(lambda one, other: "A")
    assert scores_of(rewards(name, Path()), ["a", "bbb", "cc"]).T.tolist() == [[0.5, 0.5, 0.5]]
    against = name.replace("opponents: 2", "against: ours")
    server.answer = prefers(lambda one, other: "A" if "good" in one else "B")
    assert scores_of(rewards(against, Path()), ["good", "bad"], ours=["bad", "good"]).T.tolist() == [[1.0, 0.0]]


def test_errors_of_a_judge_are_reported(server: Server) -> None:
    def of(completions: list[str], **settings: Any) -> Any:
        return asyncio.run(judge(["p"] * len(completions), completions, url=server.url, model="some", **settings))

    server.answer = prefers(lambda one, other: "I cannot say")
    with pytest.raises(ValueError, match="2 of 2 verdicts of some end with none of A, B and C, such as 'I cannot say'"):
        of(["a", "b"])
    server.answer = lambda body: (200, {"error": "no such model"})
    with pytest.raises(ConnectionError, match=r"answers with no chat completion: .*no such model"):
        of(["a", "b"])
    with pytest.raises(ValueError, match="against: rows have no 'gold'; they have target"):
        of(["a", "b"], against="gold", target=["x", "y"])


def test_the_policy_judges_by_how_likely_it_finds_the_letters(qwen: Path) -> None:
    lm = open_model(str(qwen))
    own = SelfJudge(asks="Which?", opponents=1)
    own.begin(lm)
    scores = own(["How many?"] * 2, ["seventy two clips", "no"])
    model = AutoModelForCausalLM.from_pretrained(qwen)
    chances = []
    for text in Contest(["How many?"] * 2, ["seventy two clips", "no"], 1).questions("Which?"):
        prompt = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        with torch.no_grad():
            logits = model(torch.tensor([lm.tokenizer.encode(prompt)])).logits[0, -1]
        a, b = (logits[lm.tokenizer.encode(letter)[0]] for letter in "AB")
        chances.append(float(torch.sigmoid(a - b)))
    first = (chances[0] + 1 - chances[1]) / 2
    assert scores == pytest.approx([first, 1 - first], abs=1e-4) and scores[0] != pytest.approx(0.5, abs=1e-6)


def test_a_policy_that_judges_itself_trains(qwen: Path, tmp_path: Path) -> None:
    changes = {"model": str(qwen), "shape": {}, "reward": ["self_judge", "brevity"], "length": 512}
    check_algorithm(load_recipe("grpo", changes, smoke=True), tmp_path / "contract")
    with pytest.raises(Mistake, match="this model's tokenizer has no such letters"):
        list(Trainer(load_recipe("grpo", {"reward": "self_judge"}, smoke=True), tmp_path / "words"))
