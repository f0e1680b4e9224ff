"""GRPO with rollouts from a server that speaks vLLM's protocol: a stand-in on the CPU, over real HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TESTS
from forked import Program
from served import StandIn, as_vllm
from test_ranks import start
from test_turns import Echo, talks
from transformers import AutoModelForCausalLM

from rllab.cli import app
from rllab.core.checkpoint import Checkpoints
from rllab.core.engine import Engine
from rllab.core.errors import MachineFault, Mistake, Stopped
from rllab.core.recipe import Recipe, load_recipe
from rllab.core.run import RunFolder
from rllab.core.stop import Stop
from rllab.core.trainer import Trainer
from rllab.testing import check_algorithm
from rllab.text.open import open_model
from rllab.text.sampler import Sampling
from rllab.text.server import RolloutServer

SERVED = {"shape": {}, "use_vllm": True, "importance_sampling_clip_max": 2.0, "vllm_server_timeout": 20}
SAMPLING = Sampling(max_new_tokens=6, temperature=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model."""
    path = tmp_path_factory.mktemp("model")
    lm = ready(load_recipe("grpo", smoke=True))._lm
    lm.model.save_pretrained(path)
    lm.write_files(path)
    return path


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    server = StandIn(folder).start()
    monkeypatch.setenv("RLLAB_SERVER", server.url)
    monkeypatch.setenv("RLLAB_SERVER_WEIGHTS", str(tmp_path / "weights"))
    yield server
    server.http.shutdown()
    server.http.server_close()


def served(folder: Path, **changes: Any) -> Recipe:
    return load_recipe("grpo", SERVED | {"model": str(folder)} | changes, smoke=True)


def ready(recipe: Recipe) -> Any:
    """The recipe's algorithm after its `setup`."""
    recipe.algorithm.setup(Engine(recipe.settings, True).context(recipe.settings))
    return recipe.algorithm


def client(server: StandIn, tmp_path: Path, seconds: float = 20.0) -> RolloutServer:
    """A client that has found the server up."""
    made = RolloutServer(server.url, seconds, Stop(), tmp_path / "server.log", tmp_path)
    (tmp_path / "server.log").write_text("".join(f"line {i}\n" for i in range(30)))
    made.wait(server.lm, 64)
    return made


def numbers(row: int, sample: int) -> Any:
    return torch.linspace(0.1 * (row + 1), 0.9, 6).numpy()


def test_a_run_samples_from_the_server_and_learns(folder: Path, server: StandIn, tmp_path: Path) -> None:
    """Each round the server gets the weights, and each prompt a seed of its own."""
    trained = list(Trainer(served(folder), tmp_path / "run"))
    assert server.pushes == len(trained) == 4
    questions = [q for path, q in server.asked if path == "/v1/completions"]
    assert len(questions) == 4 * 3 and len({q["seed"] for q in questions}) == 12
    assert all(row["loss/sampler_kl"] < 1e-6 for row in trained)
    assert [path for path, _ in server.asked if path != "/v1/completions"] == [
        "/health",
        "/v1/models",
        *["/collective_rpc", "/reset_prefix_cache"] * 4,
    ]
    assert not list((tmp_path / "weights").rglob("*.safetensors"))
    assert list(Trainer(served(folder, use_vllm=False), tmp_path / "own"))[-1]["step"] == 4
    records = [json.loads((tmp_path / run / "env.json").read_text())["unrepeatable"] for run in ("run", "own")]
    assert records[0].startswith("completions to learn from, which a vLLM server samples") and records[1] == ""
    before, last = open_model(str(folder)).model.state_dict(), Checkpoints(tmp_path / "run/checkpoints").newest()
    assert last and any(not torch.equal(w, before[name]) for name, w in last.part("model").items())


def test_a_gradient_is_corrected_for_what_the_server_sampled_from(folder: Path, server: StandIn) -> None:
    """The reference: transformers' log-probabilities of the trainer's and of the server's weights."""
    server.noise = 0.05
    algorithm = ready(served(folder, importance_sampling_clip_max=50.0))
    algorithm._served.renew(algorithm._lm)
    groups, _ = algorithm.sample_groups()
    advantages = algorithm._advantages(groups)
    reference = AutoModelForCausalLM.from_pretrained(folder)
    tokens, loss = sum(len(c.ids) for g in groups for c in g.completions), torch.zeros(())
    for group, of_group in zip(groups, advantages, strict=True):
        for completion, advantage in zip(group.completions, of_group, strict=True):
            ids = torch.tensor([group.prompt + completion.ids])
            logps = [m(ids).logits.log_softmax(-1)[0, :-1] for m in (reference, server.lm.model)]
            p, q = (x.gather(1, ids[0, 1:, None])[-len(completion.ids) :, 0] for x in logps)
            assert torch.allclose(q, torch.tensor(completion.logp), atol=1e-5)
            loss = loss - ((p - q).detach().exp() * float(advantage) * p).sum() / tokens
    loss.backward()
    wanted = torch.cat([w.grad.flatten() for w in reference.parameters()])

    def gradient(clip_max: float | None) -> torch.Tensor:
        algorithm.importance_sampling_clip_max = clip_max
        (batch,) = [algorithm._with_old(b) for b in algorithm._batches(groups, advantages)]
        algorithm._lm.model.zero_grad()
        algorithm.loss(algorithm.on_device(batch, 0))[0].backward()
        return torch.cat([w.grad.flatten() for w in algorithm._lm.model.parameters()])

    assert (gradient(50.0) - wanted).norm() < 1e-4 * wanted.norm()
    assert (gradient(None) - wanted).norm() > 0.02 * wanted.norm()


def test_old_weights_show_in_the_metrics_and_other_weights_stop_the_run(
    folder: Path, server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reload, counts = server.reload, iter(range(9))
    monkeypatch.setattr(server, "reload", lambda path: reload(path) if next(counts) % 2 == 0 else None)
    kl = [row["loss/sampler_kl"] for row in Trainer(served(folder, optim={"lr": 0.01}), tmp_path / "a")]
    assert kl[0] < 1e-6 and 100 * kl[2] < kl[1] and min(kl[1], kl[3]) > 1e-4
    monkeypatch.setattr(server, "reload", reload)
    server.noise = 1.0
    with pytest.raises(MachineFault, match=r"samples from another model: .* nats a token from the trainer's"):
        list(Trainer(served(folder), tmp_path / "b"))
    assert json.loads((tmp_path / "b/status.json").read_text())["state"] == "failed"


def test_adapters_are_merged_for_the_server_and_stay_apart_here(folder: Path, server: StandIn, tmp_path: Path) -> None:
    lora = {"lora": {"r": 2, "lora_alpha": 8}, "optim": {"lr": 0.02}}
    trainer = Trainer(served(folder, **lora), tmp_path / "run")
    base = {k: v.clone() for k, v in open_model(str(folder)).model.state_dict().items()}
    rows = list(trainer)
    assert all(row["loss/sampler_kl"] < 1e-6 for row in rows)
    lm = trainer.algorithm._lm
    kept = {k.replace(".base_layer", ""): v for k, v in lm.adapters.peft.get_base_model().state_dict().items()}
    assert all(torch.equal(kept[k], w) for k, w in base.items())
    assert max(float((server.lm.model.state_dict()[k] - w).abs().max()) for k, w in base.items()) > 0.05


def test_conversations_of_several_turns(folder: Path, server: StandIn, tmp_path: Path) -> None:
    """A turn's request has the tokens before it as prompt, and the rest of the budget as its length."""
    with torch.no_grad():  # so that turns end
        weight = server.lm.model.get_input_embeddings().weight
        weight[server.lm.tokenizer.eos_token_id] = weight.mean(0) * 40
    lm = replace(server.lm, server=client(server, tmp_path))
    prompts, each = talks(lm, Echo(), 40)
    turns = [q for path, q in server.asked if path == "/v1/completions"]
    assert len(turns) > len(prompts) and max(len(c.messages) for c in each) == 5
    for turn in turns[len(prompts) :]:
        begun = [
            c.completion for c in each if prompts[c.completion.row] == turn["prompt"][: len(prompts[c.completion.row])]
        ]
        assert any(turn["prompt"] == prompts[c.row] + c.ids[: 40 - turn["max_tokens"]] for c in begun)
        assert turn["n"] == 1


def test_what_is_asked_and_read(server: StandIn, tmp_path: Path) -> None:
    """The tokens are those that the model samples with the same random numbers, up to the end by the lab's rule."""
    ours, prompts = client(server, tmp_path), [[5, 6, 7], [8, 9]]
    each = ours.generate(server.lm, prompts, SAMPLING, 3, numbers, [6, 2])
    assert [(c.row, c.sample) for c in each] == [(r, s) for r in range(2) for s in range(3)]
    assert sorted(q["seed"] for _, q in server.asked[-2:]) == [int(numbers(r, 0)[0] * 2**53) for r in range(2)]
    assert all(len(c.ids) == len(c.logp) <= (6, 2)[c.row] for c in each)
    again = ours.generate(server.lm, prompts, SAMPLING, 3, numbers, [6, 2])
    assert [(c.ids, c.logp) for c in again] == [(c.ids, c.logp) for c in each]
    text = server.lm.tokenizer.decode([each[0].ids[1]])
    stopping = Sampling(max_new_tokens=6, temperature=1.0, stop=(text,))
    (stopped, _) = ours.generate(server.lm, prompts, stopping, 1, numbers, [6, 6])
    assert text in server.asked[-1][1]["stop"] and not text.isspace()
    assert (stopped.ids, stopped.finished) == (each[0].ids[:2], True)


def few(choices: list[dict[str, Any]]) -> Any:
    return choices[:-1]


def changed(**values: Any) -> Callable[[list[dict[str, Any]]], Any]:
    """Answers in which the first completion has other values."""
    return lambda choices: [choices[0] | values, *choices[1:]]


LOGPS: dict[str, Any] = {"tokens": [], "top_logprobs": []}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (few, "1 completions, and 2 were asked for"),
        (lambda choices: None, "0 completions"),
        (changed(index=1), "completions numbered"),
        (lambda choices: ["one", "two"], "completions numbered"),
        (changed(prompt_token_ids=[0, 5, 6, 7]), "other tokens than the prompt's"),
        (changed(token_ids=[3, 100_000]), "a token that the model does not have: .* the highest is 100000"),
        (changed(token_ids=[3, -1]), "a token that the model does not have"),
        (changed(token_ids=[]), "token_ids are "),
        (changed(token_ids=[3] * 7), "expected from 1 to 6"),
        (changed(logprobs=None), "log-probabilities are None"),
        (changed(token_ids=[3] * 6, logprobs=LOGPS | {"token_logprobs": [-1.0] * 5}), "one for each of 6 tokens"),
        (changed(token_ids=[3] * 2, logprobs=LOGPS | {"token_logprobs": [-1.0, float("nan")]}), r"none: \[nan\]"),
        (changed(token_ids=[3] * 2, logprobs=LOGPS | {"token_logprobs": [-1.0, None]}), r"none: \[None\]"),
        (changed(token_ids=[3] * 2, logprobs=LOGPS | {"token_logprobs": [-1.0, -9999.0]}), r"none: \[-9999.0\]"),
        (changed(token_ids=[3] * 2, logprobs=LOGPS | {"token_logprobs": [-1.0, 0.7]}), r"none: \[0.7\]"),
        (
            changed(token_ids=[3] * 2, logprobs=LOGPS | {"token_logprobs": [-1.0] * 2}, finish_reason="length"),
            "ended after 2 of 6 tokens and without a stop token, by 'length'",
        ),
    ],
)
def test_a_wrong_answer_is_an_error(
    change: Callable[[Any], Any], message: str, server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, choices = client(server, tmp_path), server.choices
    monkeypatch.setattr(server, "choices", lambda question: change(choices(question)))
    with pytest.raises(MachineFault, match=f"answers wrongly to prompt 1 of 1: .*{message}") as caught:
        ours.generate(server.lm, [[5, 6, 7]], SAMPLING, 2, numbers, [6])
    lines = str(caught.value).splitlines()
    assert "The last checkpoint is intact" in lines[0] and lines[1:] == [f"  line {i}" for i in range(10, 30)]


@pytest.mark.parametrize(
    ("path", "answer", "message"),
    [
        ("/collective_rpc", (500, {"error": "size mismatch"}), "answers /collective_rpc with 500: .*size mismatch"),
        ("/collective_rpc", (404, {}), "has no /collective_rpc: start it with rllab serve"),
        ("/reset_prefix_cache", (200, {"success": False}), "cannot forget"),
        ("/collective_rpc", (200, ["what"]), "answers /collective_rpc with .*what"),
    ],
)
def test_weights_that_do_not_arrive_are_an_error(
    path: str, answer: Any, message: str, server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, usual = client(server, tmp_path), server.answer
    monkeypatch.setattr(server, "answer", lambda p, q: answer if p == path else usual(p, q))
    with pytest.raises(MachineFault, match=message):
        ours.push({k: v.clone() for k, v in server.lm.model.state_dict().items()})
    assert not list(tmp_path.rglob("weights-*"))


def test_a_server_that_hangs_or_is_not_up_is_an_error(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, usual = client(server, tmp_path, seconds=0.3), server.answer
    monkeypatch.setattr(server, "answer", lambda p, q: (time.sleep(1), usual(p, q))[1])
    with pytest.raises(MachineFault, match=r"has not answered /v1/completions after 0.3 seconds \(vllm_server_timeout"):
        ours.generate(server.lm, [[5, 6, 7]], SAMPLING, 2, numbers, [6])
    monkeypatch.setattr(server, "answer", lambda p, q: (503, {}))
    with pytest.raises(MachineFault, match=r"is not up after 0.3 seconds .*: /health answers 503"):
        ours.wait(server.lm, 64)
    nobody = RolloutServer("http://127.0.0.1:9", 0.3, Stop(), None, tmp_path)
    with pytest.raises(MachineFault, match=r"is not up after 0.3 seconds .*refused"):
        nobody.wait(server.lm, 64)


def test_a_stop_ends_the_wait_and_one_that_took_the_server_along_is_no_failure(server: StandIn, tmp_path: Path) -> None:
    """Slurm ends all steps of a job that is preempted, the server's first."""
    stop = Stop()
    ours = RolloutServer("http://127.0.0.1:9", 20.0, stop, None, tmp_path)
    stop.reason = "SIGTERM"
    with pytest.raises(Stopped, match="by SIGTERM, while it waited for the vLLM server"):
        ours.wait(server.lm, 64)
    with pytest.raises(Stopped, match="by SIGTERM, and the vLLM server with it"):
        ours.generate(server.lm, [[5, 6, 7]], SAMPLING, 2, numbers, [6])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "", "shape": {"model_type": "qwen3"}}, "a server cannot load a new model of `shape`"),
        ({"top_p": 0.9}, "unset both"),
        ({"top_k": 5}, "unset both"),
        ({"importance_sampling_clip_max": None}, "set importance_sampling_clip_max"),
        ({"lora": {"quantize": "nf4"}}, "which a quantized base does not allow"),
    ],
)
def test_settings_that_a_server_cannot_keep_are_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Mistake, match=message):
        served(folder, **changes)


def test_a_check_tells_what_is_not_repeated_and_needs_no_server(folder: Path, tmp_path: Path) -> None:
    lines = ready(served(folder)).preflight()
    assert "completions to learn from, which a vLLM server samples" in lines["not repeated"]
    with pytest.raises(Mistake, match="cannot be checked on completions to learn from"):
        check_algorithm(served(folder), tmp_path)
    assert "not repeated" not in ready(served(folder, use_vllm=False)).preflight()


def test_another_server_is_refused_before_training(
    folder: Path, server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def message(**changes: Any) -> str:
        with pytest.raises(Mistake) as caught:
            list(Trainer(served(folder, **changes), tmp_path / "run"))
        return str(caught.value)

    server.max_model_len = 100
    assert "length: the server at" in (text := message()) and "--max-model-len 512" in text
    server.name = "Qwen/Qwen3-0.6B"
    assert f"serves Qwen/Qwen3-0.6B; for this recipe: rllab serve {folder}" in message()
    for url in ("http://0.0.0.0:8000", "node2:8000"):
        monkeypatch.setenv("RLLAB_SERVER", url)
        assert f"use_vllm: RLLAB_SERVER={url}: expected an address" in message()
    monkeypatch.delenv("RLLAB_SERVER")
    assert "use_vllm: RLLAB_SERVER is not set" in message()


@pytest.mark.nightly
def test_a_server_that_dies_ends_the_run_within_seconds_and_the_same_command_goes_on(
    folder: Path, server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of its own, which dies in the middle of the third round."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    words = (str(TESTS / "served.py"), "serve", str(folder), "--host", "127.0.0.1", "--port", port)
    program = Program(words, env=os.environ | {"STANDIN_DIES": "3"})
    recipe = served(folder, save_every=1, vllm_server_timeout=60)
    with monkeypatch.context() as patch, pytest.raises(MachineFault) as caught:
        patch.setenv("RLLAB_SERVER", f"http://127.0.0.1:{port}")
        patch.setenv("RLLAB_SERVER_LOG", str(program.errors))
        list(Trainer(recipe, tmp_path / "run"))
    assert time.time() - program.errors.stat().st_mtime < 60 and program.communicate(60)
    assert "is gone: /v1/completions" in str(caught.value)
    assert str(caught.value).endswith("torch.OutOfMemoryError: CUDA out of memory (a stand-in for it)")
    checkpoint = Checkpoints(tmp_path / "run/checkpoints").newest()
    assert checkpoint and checkpoint.step == 2
    assert [row["step"] for row in Trainer(recipe, tmp_path / "run")] == [3, 4]


@pytest.mark.nightly
def test_rllab_serve_becomes_the_server_of_trl(folder: Path, tmp_path: Path) -> None:
    """The real `trl vllm-serve`, and the stand-in for the vLLM that it starts; both ignore a scheduler's warning."""
    (tmp_path / "mine.yaml").write_text((TESTS.parent / "recipes/grpo.yaml").read_text())
    path = f"{as_vllm(tmp_path / 'vllm')}:{os.environ.get('PYTHONPATH', '')}"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    words = ["serve", "mine.yaml", f"model={folder}", "--host", "127.0.0.1", "--port", port, "--max-model-len", "512"]
    log, env = tmp_path / "server.log", os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    with log.open("w") as out:
        line = [sys.executable, "-m", "rllab", *words]
        process = subprocess.Popen(line, cwd=tmp_path, env=env, stdout=out, stderr=out)
    try:
        ours = RolloutServer(f"http://127.0.0.1:{port}", 60.0, Stop(), log, tmp_path)
        ours.wait(lm := open_model(str(folder)), 512)
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGUSR2)
        assert len(ours.generate(lm, [[5, 6, 7]], SAMPLING, 2, numbers, [6])) == 2
    finally:
        process.kill()
        process.wait()
    assert "--max-model-len 512" in log.read_text() and "--logprobs-mode processed_logprobs" in log.read_text()
    assert "'VLLM_SERVER_DEV_MODE': '1'" in log.read_text() and "'HF_HUB_OFFLINE': '1'" in log.read_text()


def test_what_rllab_serve_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def message(*words: str) -> str:
        with pytest.raises(Mistake) as caught:
            app(["serve", *words], standalone_mode=False)
        return str(caught.value)

    before = [signal.getsignal(n) for n in (signal.SIGUSR1, signal.SIGUSR2)]
    try:
        assert "has no vLLM and TRL" in (text := message(str(tmp_path))) and "RLLAB_SERVER_VENV=FOLDER" in text
        monkeypatch.setenv("RLLAB_SERVER_VENV", "/nowhere")
        assert message(str(tmp_path)).startswith("/nowhere/bin/python has no vLLM")
        assert "the recipe names no `model`" in message("pocket")
        assert "is a model and no recipe" in message(str(tmp_path), "seed=1")
        (tmp_path / "adapter_config.json").write_text("{}")
        assert "holds adapters alone" in message(str(tmp_path))
    finally:
        for number, handler in zip((signal.SIGUSR1, signal.SIGUSR2), before, strict=True):
            signal.signal(number, handler)


@pytest.mark.nightly
def test_two_ranks_ask_for_what_one_asks(folder: Path, server: StandIn, tmp_path: Path) -> None:
    """Each asks for the answers to its own prompts, with the same seeds; the first alone gives the weights."""
    (tmp_path / "mine.py").write_text("def first(completion_ids): return [float(c[0] % 7) for c in completion_ids]")
    text = (TESTS.parent / "recipes/grpo.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("reward: noise", "reward: mine.py:first"))
    changes = [f"model={folder}", "shape={}", "use_vllm=true", "importance_sampling_clip_max=2.0", "total_steps=2"]
    words = ("-m", "rllab", "train", str(tmp_path / "mine.yaml"), "--smoke", "--quiet", *changes)
    rows, seeds = [], []
    for world in (1, 2):
        server.pushes, server.asked = 0, []
        done = start(world, "--runs", str(tmp_path), "--name", str(world), program=words)
        assert [code for code, _ in done] == [0] * world and server.pushes == 2, done
        rows.append([r["reward/total"] for r in RunFolder(tmp_path / str(world)).rows()])
        seeds.append(sorted(q["seed"] for path, q in server.asked if path == "/v1/completions"))
    assert rows[0] == pytest.approx(rows[1]) and len(rows[0]) == 2
    assert seeds[0] == seeds[1] and len(set(seeds[0])) == 6
