"""Language models in use: chat, samples, merge and perplexity, from the command line."""

import json
import math
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forked import call
from rllab_envs.tasks import pocket

from rllab.cli.samples import samples, shown
from rllab.cli.talk import fold, talk
from rllab.core.errors import Mistake
from rllab.core.messages import after_thinking, last_text, thinks, visible
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.evals.likelihood import perplexity
from rllab.text.models import LanguageModel
from rllab.text.open import open_model
from rllab.text.reply import growing_reply, reply
from rllab.text.sampler import Sampling, _Batch


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    for _ in Trainer(load_recipe("pocket", smoke=True), folder):
        pass
    return folder


@pytest.fixture(scope="module")
def tuned(run: Path) -> Path:
    base = run / "checkpoints" / "00000004"
    settings = {"model": str(base), "shape": {}, "optim.lr": 0.05}
    for _ in Trainer(load_recipe("sft-lora", settings, smoke=True), run.parent / "tuned"):
        pass
    return run.parent / "tuned"


def rllab(*words: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return call("-m", "rllab", *words, cwd=cwd, stdin=stdin)


def test_thinking_is_folded() -> None:
    assert fold("<think> 2 + 3 = 5 </think> #### 5") == ("[thought 5 words] #### 5", "2 + 3 = 5")
    assert fold("<think> 2 + 3") == ("[thought 3 words, and did not finish]", "2 + 3")
    assert fold("#### 5") == ("#### 5", "")


def test_channels_are_folded_as_tags_are() -> None:
    thought, final = (
        "<|channel|>analysis<|message|>2 + 3 = 5<|end|>",
        "<|start|>assistant<|channel|>final<|message|>#### 5",
    )
    assert fold(thought + final) == ("[thought 5 words] #### 5", "2 + 3 = 5")
    assert fold(thought) == fold(thought[:-7]) == ("[thought 5 words, and did not finish]", "2 + 3 = 5")
    assert fold(final + "<|return|>") == ("#### 5", "") and fold("<|channel|>fin") == ("<|channel|>fin", "")
    call = "<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{}<|call|>"
    says = "<|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
    assert fold(thought + says + call) == ("[thought 5 words] I look. to=functions.f {}", "2 + 3 = 5")
    assert after_thinking(thought + final) == "#### 5" and after_thinking(thought) == "" == after_thinking(call)
    assert thinks(thought) and not thinks(final) and thinks(final.replace("final", "poem"))


def test_the_answer_follows_the_thinking() -> None:
    for text, answer in {
        "#### 5": "#### 5",
        "<think> #### 4 </think> #### 5": " #### 5",
        "<think> a </think> b <think> c </think> d": " d",
        "it must be 5 </think> #### 5": " #### 5",  # the template began the thinking
        "<think> #### 4": "",
        "<think> a </think> b <think> #### 4": " b ",
    }.items():
        assert after_thinking(text) == answer and thinks(text) == ("<think>" in text)
    messages = [{"role": "user", "content": "2 + 3"}, {"role": "assistant", "content": "5"}]
    assert last_text(messages) == last_text("5") == "5"


def test_chat_beside_the_base(tuned: Path) -> None:
    lines = "Ana has 20 books.\n/think\nAna has 5 cups.\n/thoughts\n/new\n/what\n/quit\nAna has 7 cups.\n"
    done = rllab(
        "chat", "tuned", "--base", "--max-new-tokens", "5", "--runs", str(tuned.parent), cwd=tuned, stdin=lines
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model: ") == 3 and done.stdout.count("base:  ") == 3  # two replies and one thought
    assert done.stdout.count("/thoughts shows") == 2  # at first, and for a command that there is not


@pytest.mark.parametrize("own", [True, False], ids=["native", "transformers"])
def test_a_reply_that_grows_is_the_reply_in_the_end(run: Path, own: bool) -> None:
    lm = open_model(str(run / "checkpoints" / "00000004"))
    lm = lm if own else replace(lm, shape=None)
    messages, sampling = [{"role": "user", "content": "Ana has 20 books."}], Sampling(max_new_tokens=60)
    growing, seen = growing_reply(lm, messages, "free", sampling, each=0.001), list[str]()
    while True:
        try:
            seen.append(next(growing))
        except StopIteration as done:
            whole = done.value
            break
    assert whole == reply(lm, messages, "free", sampling) and len(seen) > 5
    assert all(whole.startswith(text) for text in seen) and seen == sorted(seen, key=len)


def test_a_reply_that_nobody_reads_ends(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append, steps = _Batch.append, list[None]()
    monkeypatch.setattr(_Batch, "append", lambda *tokens: [steps.append(None), append(*tokens)][1])
    lm, before = open_model(str(run / "checkpoints" / "00000004")), set(threading.enumerate())
    messages = [{"role": "user", "content": "Ana has 20 books."}]
    growing = growing_reply(lm, messages, "free", Sampling(max_new_tokens=400), each=0.001)
    started = next(growing)
    growing.close()
    ended = len(steps)
    whole = reply(lm, messages, "free", Sampling(max_new_tokens=400))
    assert len(whole) > 4 * len(started) and 0 < ended < 0.5 * (len(steps) - ended)
    assert not set(threading.enumerate()) - before


def test_a_conversation_that_is_too_long_is_refused(run: Path) -> None:
    printed: list[str] = []
    long = "Ana has 20 books. " * 200
    talk(str(run / "checkpoints" / "00000004"), False, "free", 4, iter([long, "Ana has 2 cups."]), printed.append)
    assert "tokens, and the model's context has 512" in printed[1] and len(printed) == 3


def test_samples_worst_first(run: Path) -> None:
    done = rllab("samples", "small", "--worst", "-n", "2", "--runs", str(run.parent), cwd=run)
    assert done.returncode == 0 and done.stdout.count("completion:") == 2, done.stderr
    rows = samples("small", run.parent, True, 3, 2)
    assert [s["step"] for s in rows] == [2, 2, 2] and "prompt: " in shown(rows[0])
    with pytest.raises(Mistake, match="has no samples of round 3; it has: 2, 4"):
        samples("small", run.parent, False, 3, 3)


def test_control_characters_of_a_model_reach_no_terminal(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, harmless = "\x1b]0;own\x07 \x1b[2J\r\x9b31m \x08\u202eabc\tä\n", "\\u001b]0;own\\u0007"
    assert harmless in visible(text) and visible(text).isprintable() is False and "\tä\n" in visible(text)
    assert not set("\x1b\x07\r\x9b\x08\u202e") & set(visible(text)) and visible("a\r\nb") == "a\nb"
    said: list[str] = []
    monkeypatch.setattr("rllab.cli.talk.reply", lambda *_: "<think>" + text + "</think>" + text)
    talk(str(run / "checkpoints" / "00000004"), False, "free", 4, iter(["a", "/thoughts"]), said.append)
    sample = {"step": 1, "prompt": text, "completion": text, "kind": text}
    assert not set("\x1b\x07\x9b") & set("".join([*said, shown(sample)])) and harmless in said[-1]
    written = run / "samples.jsonl"
    kept = written.read_text()
    written.write_text(json.dumps({"step": 9} | sample | {"step": 9}) + "\n")
    for words in ([], ["--json"]):
        done = rllab("samples", "small", *words, "--runs", str(run.parent), cwd=run)
        assert done.returncode == 0 and not set("\x1b\x07\x9b") & set(done.stdout), done.stderr
    assert json.loads(done.stdout)["completion"] == text
    written.write_text(kept)


def test_samples_of_a_resumed_run_are_those_of_a_whole_one(run: Path, tmp_path: Path) -> None:
    trainer = Trainer(load_recipe("pocket", {"save_every": 1}, smoke=True), tmp_path / "run")
    for row in trainer:
        if row["step"] == 3:
            break
    trainer.folder.append({"step": 4}, [{"prompt": "newer than the checkpoint"}])
    trainer.folder.close()
    for _ in Trainer(load_recipe("pocket", {"save_every": 1}, smoke=True), tmp_path / "run"):
        pass
    assert trainer.folder.samples() == [json.loads(s) for s in (run / "samples.jsonl").read_text().splitlines()]


def test_merge_from_the_command_line(tuned: Path, tmp_path: Path) -> None:
    done = rllab("merge", str(tuned), "--out", str(tmp_path / "whole"), cwd=tmp_path)
    assert "merged; the largest difference of a logit is" in done.stdout, done.stderr
    assert open_model(str(tmp_path / "whole")).adapters is None
    report = json.loads(rllab("merge", str(tuned), "--out", str(tmp_path / "b"), "--json", cwd=tmp_path).stdout)
    assert report.keys() == {"out", "largest_difference"} and 0 <= report["largest_difference"] < 1e-3


def reference(lm: LanguageModel, prompt: str, completion: str) -> float:
    """log p(completion | prompt) by transformers alone."""
    ids = [lm.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (prompt, completion)]
    with torch.no_grad():
        logp = lm.model(torch.tensor([ids[0] + ids[1]])).logits.log_softmax(-1)[0]
    return float(sum(logp[len(ids[0]) + i - 1, token] for i, token in enumerate(ids[1])))


def test_perplexity(run: Path) -> None:
    lm = open_model(str(run / "checkpoints" / "00000004"))
    texts = [pocket().row(i, "test")["prompt"][0]["content"] for i in range(40)]
    completed = [{"prompt": t, "completion": "books ."} for t in texts]
    nats = -sum(reference(lm, t, "books .") for t in texts)
    measured = perplexity(lm, completed)
    assert measured["nats_per_token"] == pytest.approx(nats / 80, rel=1e-4)
    assert measured["bits_per_byte"] == pytest.approx(nats / math.log(2) / (40 * 7), rel=1e-4)
    assert perplexity(lm, [{"text": t} for t in texts])["tokens"] > 400
