"""`rllab eval` on models: what was sampled before is kept, and no model hides or changes another."""

import json
import os
import shutil
import time
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Any

import pytest
import torch
from conftest import run
from evaluated import Here
from forked import Program, call
from safetensors.torch import load_file, save_file

from rllab.core.errors import Mistake
from rllab.core.recipe import load_recipe
from rllab.evals.replies import Call, Replies
from rllab.text import template
from rllab.text.open import open_model
from rllab.text.sampler import Sampling


def result(*words: str, cwd: Path) -> dict[str, Any]:
    """The object that the command prints, in a process of its own."""
    done = call("-m", "rllab", "eval", *words, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_what_was_sampled_is_not_sampled_again(place: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLLAB_HOME", str(place / "home"))
    words = ["--task", "sums.jsonl", "--style", "direct"]
    assert here("chat", *words, "--limit", "60")[0]["sampled"] == 60
    (whole,) = here("chat", *words)
    assert (whole["sampled"], whole["cached"]) == (40, 60)
    assert here("plain", *words)[0]["cached"] == 0  # no answer is shared with a model of another template
    (again,) = here("chat", *words)
    assert again["sampled"] == 0 and again["accuracy"] == whole["accuracy"]
    assert here("chat", *words, "--no-cache")[0]["sampled"] == 100


@pytest.mark.parametrize("number", [SIGKILL, SIGTERM])
def test_stopped_at_any_moment(number: Signals, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLLAB_HOME", str(place / number.name))
    words = ["chat", "--task", "sums.jsonl", "--style", "direct", "--max-new-tokens", "150", "--temperature", "1"]
    again = place / number.name / "again"  # asks the script of a job to start it again
    program = Program(["-m", "rllab", "eval", *words], cwd=place, env=os.environ | {"RLLAB_AGAIN": str(again)})
    end = time.monotonic() + 60
    while not sum(f.read_bytes().count(b"\n") for f in (place / number.name).rglob("*.jsonl")):
        assert time.monotonic() < end and program.poll() is None
        time.sleep(0.01)
    program.send_signal(number)
    err = program.communicate(timeout=60)[1]
    assert number == SIGKILL or (program.returncode == 99 and "the same command samples what is missing" in err)
    assert again.is_file() == (number == SIGTERM) and (number == SIGKILL or again.read_text() == "0\n")
    (file,) = (place / number.name).rglob("*.jsonl")
    lines = file.read_bytes().count(b"\n")
    file.write_bytes(file.read_bytes() + b'{"key": "torn')
    row = result(*words, cwd=place)
    assert (row["cached"], row["sampled"]) == (lines, 100 - lines)


def test_two_models_never_share_a_reply(place: Path, tmp_path: Path) -> None:
    lm, calls = open_model(str(place / "chat")), [Call((1, 2, 3), sample, 6) for sample in range(3)]
    one = Replies(lm, "one", tmp_path)
    replies = one(calls, Sampling(temperature=1.0))
    assert one.sampled == 3 and len({tuple(r.ids) for r in replies}) > 1
    for content, settings in (("other", {}), ("one", {"top_p": 0.5}), ("one", {"stop": ("x",)})):
        other = Replies(lm, content, tmp_path)
        other(calls, Sampling(**({"temperature": 1.0} | settings)))
        assert other.cached == 0
    more = Replies(lm, "one", tmp_path)
    again = more([*calls, Call((1, 2, 3), 3, 6), Call((1, 2, 3), 0, 5)], Sampling(temperature=1.0))
    assert (more.cached, more.sampled) == (3, 2) and again[:3] == replies


def test_what_is_wrong_with_one_model_hides_no_other(here: Here) -> None:
    with pytest.raises(Mistake, match="nowhere/model"):
        here("nowhere/model", "chat", "--task", "sums.jsonl", "--limit", "2")
    assert [row["model"] for row in here.rows] == ["chat"]


def test_a_generation_config_changes_nothing(place: Path, here: Here) -> None:
    shutil.copytree(place / "chat", place / "configured")
    ends = {"eos_token_id": list(range(400)), "stop_strings": [" "], "num_beams": 4, "repetition_penalty": 9.0}
    (place / "configured" / "generation_config.json").write_text(json.dumps(ends | {"max_new_tokens": 2}))
    words = ["--task", "sums.jsonl", "--style", "direct", "--limit", "20"]
    (plain,), (configured,) = here("chat", *words), here("configured", *words, "--no-cache")
    same = ("content", "accuracy", "tokens", "unanswered", "truncated")
    assert [plain[k] for k in same] == [configured[k] for k in same] and plain["tokens"] > 2


def test_hostile_models_are_reported_and_the_others_evaluated(
    place: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nan", "loop", "bare"):
        shutil.copytree(place / "chat", place / name)
    weights = load_file(place / "nan" / "model.safetensors")
    save_file({k: torch.full_like(v, torch.nan) for k, v in weights.items()}, place / "nan" / "model.safetensors")
    bomb = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    (place / "loop" / "chat_template.jinja").write_text(bomb)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (place / "bare" / file).unlink()
    monkeypatch.setattr(template, "DEADLINE", 3.0)
    with pytest.raises(Mistake) as failed:
        here("nan", "loop", "bare", "chat", "--task", "sums.jsonl", "--style", "direct", "--limit", "2")
    nan, loop, bare = str(failed.value).splitlines()
    assert "nan" in nan and "not" in nan and "chat template does not end" in loop and "tokenizer" in bare
    assert [row["model"] for row in here.rows] == ["chat"]


def test_checkpoints_of_a_run_are_models(place: Path, here: Here) -> None:
    run(load_recipe("pocket", {"save_every": 2, "keep": 2}, smoke=True), place / "runs" / "small")
    rows = here("small@*", "--task", "pocket", "--limit", "2")
    assert [row["model"] for row in rows] == ["small@2", "small@4"] and rows[0]["content"] != rows[1]["content"]
