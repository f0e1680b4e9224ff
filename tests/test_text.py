"""Language models: the forward pass and sampler against transformers', packing, and the pocket world."""

import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rllab_envs.tasks.pocket import Pocket
from rllab_envs.tasks.tickets import Tickets, score
from safetensors import safe_open

import rllab
from rllab.answers import grade
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.text.attention import Packed
from rllab.text.chat import documents, prompt_ids
from rllab.text.decode import Decoder
from rllab.text.forward import hidden_states
from rllab.text.logprobs import _logp, next_token_logp, token_logp
from rllab.text.lora import Lora
from rllab.text.models import LanguageModel, native_shape, new_model
from rllab.text.open import add_adapters, open_model
from rllab.text.packing import Document, attention_mask, completion_ends, pack, sum_per_completion
from rllab.text.sampler import Completion, Sampling, choose_tokens, generate
from rllab.text.tokenizers import tokenizer_for

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
YARN = {"rope_type": "yarn", "rope_theta": 5e5, "factor": 4.0, "original_max_position_embeddings": 32}
KINDS: dict[str, dict[str, Any]] = {
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 4},
    "llama": {"model_type": "llama", "num_key_value_heads": 1, "rope_parameters": YARN},
}
ROWS = [Pocket().row(i, "train") for i in range(12)]


@pytest.fixture(params=KINDS)
def lm(request: pytest.FixtureRequest) -> LanguageModel:
    torch.manual_seed(1)
    made = new_model(SMALL | KINDS[request.param], tokenizer_for(Pocket()))
    for p in made.model.parameters():  # weights as a trained model's, with biases and norms that are not 0 and 1
        torch.nn.init.normal_(p, 1.0 if p.ndim == 1 else 0.0, 0.2)
    return made


def in_transformers(lm: LanguageModel) -> LanguageModel:
    """The same model with transformers' own forward pass."""
    return replace(lm, shape=None)


def test_the_forward_pass_is_transformers(lm: LanguageModel) -> None:
    assert lm.shape is not None
    batch, _ = pack(documents(lm.tokenizer, ROWS), 160)
    real, mask = batch["document"] >= 0, attention_mask(batch)
    with torch.no_grad():
        hidden = hidden_states(
            lm.model, lm.shape, batch["input_ids"][real], batch["position_ids"][real], Packed(real, mask)
        )
        theirs = lm.model(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], attention_mask=mask, use_cache=False
        ).logits
    torch.testing.assert_close(lm.model.lm_head(hidden), theirs[real], rtol=1e-4, atol=1e-4)


def shared_and_apart() -> tuple[list[Document], list[Document]]:
    """Documents with one to four completions of a prompt, and the same with one each."""
    rng = np.random.default_rng(0)
    draw = lambda n: rng.integers(10, 200, n).tolist()  # noqa: E731
    sizes = (2, 1, 3, 1, 4)
    shared = [Document(draw(rng.integers(1, 20)), [draw(rng.integers(1, 12)) for _ in range(k)]) for k in sizes]
    return shared, [Document(d.prompt, [c]) for d in shared for c in d.completions]


def test_completions_of_a_shared_prompt_do_not_see_each_other(lm: LanguageModel) -> None:
    shared, apart = shared_and_apart()
    batch, places = pack(shared, 128)
    assert (batch["document"] >= 0).sum() < sum(d.size for d in apart)
    weight, gradients = torch.linspace(-1.0, 1.0, len(apart)), list[torch.Tensor]()
    for way in (lm, in_transformers(lm)):
        sums = sum_per_completion(next_token_logp(way, batch), batch)
        together = [
            sums[row, first + k]
            for d, (row, first) in zip(shared, places, strict=True)
            for k in range(len(d.completions))
        ]
        alone = [next_token_logp(way, pack([d], 64)[0]).sum() for d in apart]
        torch.testing.assert_close(torch.stack(together), torch.stack(alone), rtol=1e-4, atol=1e-4)
        for each in (together, alone):
            gradients.append(torch.autograd.grad((torch.stack(each) * weight).sum(), way.model.lm_head.weight)[0])
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], rtol=1e-3, atol=1e-4)


def test_positions_of_the_ends_of_completions() -> None:
    shared, _ = shared_and_apart()
    batch, places = pack(shared, 128)
    last = completion_ends(batch)
    for document, (row, first) in zip(shared, places, strict=True):
        for k, completion in enumerate(document.completions):
            assert batch["input_ids"][row, last[row, first + k]] == completion[-1]


def test_packed_documents_do_not_see_each_other(lm: LanguageModel) -> None:
    tokenized = documents(lm.tokenizer, ROWS)
    batch, places = pack(tokenized, 160)
    assert len(batch["learned"]) < len(tokenized) and len(places) == len(tokenized)
    alone = torch.stack([next_token_logp(lm, pack([d], d.size)[0]).sum() for d in tokenized])
    for way in (lm, in_transformers(lm)):
        sums = sum_per_completion(next_token_logp(way, batch), batch)
        together = torch.stack([sums[row, first] for row, first in places])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_loss_and_gradient_are_transformers(lm: LanguageModel) -> None:
    (document,) = documents(lm.tokenizer, ROWS[:1])
    ids = torch.tensor([document.prompt + document.completions[0]])
    labels = ids.clone()
    labels[:, : len(document.prompt)] = -100
    theirs = lm.model(input_ids=ids, labels=labels).loss
    theirs.backward()
    gradients = {n: p.grad.clone() for n, p in lm.model.named_parameters() if p.grad is not None}
    batch, _ = pack([document], document.size)
    for way in (lm, in_transformers(lm)):
        lm.model.zero_grad()
        loss = -next_token_logp(way, batch).sum() / batch["learned"].sum()
        loss.backward()
        assert loss.item() == pytest.approx(theirs.item(), rel=1e-6)
        for name, p in lm.model.named_parameters():
            torch.testing.assert_close(p.grad, gradients[name], rtol=1e-3, atol=1e-6)


def test_gradient_checkpointing_changes_no_gradient(lm: LanguageModel) -> None:
    batch, _ = pack(documents(lm.tokenizer, ROWS), 160)
    gradients = []
    for _ in range(2):
        lm.model.zero_grad()
        next_token_logp(lm, batch).sum().backward()
        gradients.append([p.grad.clone() for p in lm.model.parameters() if p.grad is not None])
        lm.enable_gradient_checkpointing()
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


def test_a_model_that_only_looks_known_is_left_to_transformers() -> None:
    torch.manual_seed(0)
    made = new_model(SMALL | KINDS["llama"], tokenizer_for(Pocket()))
    made.model.config.rms_norm_eps = 1.0  # transformers' modules keep the one that they were made with
    with pytest.warns(UserWarning, match=r"llama: the native forward pass differs .* transformers' own is used"):
        assert native_shape(made.model) is None


def test_log_probabilities_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, head = torch.randn(50, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    tokens = torch.randint(0, 30, (50,))
    whole = torch.autograd.grad(_logp(hidden, head, tokens).sum(), (hidden, head))
    monkeypatch.setattr("rllab.text.logprobs._LOGITS", 7 * 30)
    pieces = token_logp(hidden, head, tokens)
    torch.testing.assert_close(pieces, hidden.detach().mm(head.detach().T).log_softmax(1)[range(50), tokens])
    for gradient, expected in zip(torch.autograd.grad(pieces.sum(), (hidden, head)), whole, strict=True):
        torch.testing.assert_close(gradient, expected)


def test_greedy_is_transformers_generate(lm: LanguageModel) -> None:
    prompts = prompt_ids(lm.tokenizer, ROWS[:6])
    ours = generate(lm, prompts, Sampling(max_new_tokens=12))
    for prompt, completion in zip(prompts, ours, strict=True):
        theirs = lm.model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0, len(prompt) :]
        assert completion.ids == theirs.tolist()
        assert completion.finished == (completion.ids[-1] == lm.tokenizer.eos_token_id)


@pytest.mark.parametrize("dora", [False, True])
def test_the_decode_step_is_the_forward_pass(dora: bool, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rearranged weights of a CPU sample the same completions as `hidden_states`, with and without drops."""
    prompts, sampling = prompt_ids(lm.tokenizer, ROWS), Sampling(max_new_tokens=50, temperature=1.0)
    steps = list[int]()
    vars(lm)["stop_ids"] = frozenset(range(0, len(lm.tokenizer), 40))  # some completions end early

    def sampled() -> list[Completion]:
        return generate(lm, prompts, sampling, 2, lambda r, s: np.random.default_rng([r, s]).random(50))

    step = Decoder.__call__
    monkeypatch.setattr(Decoder, "__call__", lambda self, tokens: steps.append(len(tokens)) or step(self, tokens))  # type: ignore[func-returns-value]
    fused = sampled()
    assert len(steps) > 20 and min(steps) < max(steps) == 2 * len(ROWS)
    monkeypatch.setattr(Decoder, "fits", lambda model: False)
    plain = sampled()
    assert [c.ids for c in fused] == [c.ids for c in plain]
    for a, b in zip(fused, plain, strict=True):
        np.testing.assert_allclose(a.logp, b.logp, rtol=1e-4, atol=2e-5)
    monkeypatch.undo()
    assert Decoder.fits(lm.model) and not Decoder.fits(deepcopy(lm.model).bfloat16())
    adapted = add_adapters(lm, Lora(use_dora=dora))
    assert adapted.adapters is not None and Decoder.fits(adapted.model) == (not dora)
    with adapted.adapters.noise():
        ours, theirs = (generate(m, prompts, Sampling(max_new_tokens=9)) for m in (adapted, in_transformers(adapted)))
    assert (
        [c.ids for c in ours]
        == [c.ids for c in theirs]
        != [c.ids for c in generate(lm, prompts, Sampling(max_new_tokens=9))]
    )


def test_sampled_tokens_depend_on_nothing_else_in_the_batch(lm: LanguageModel) -> None:
    prompts = prompt_ids(lm.tokenizer, ROWS[:5])
    hot = Sampling(max_new_tokens=20, temperature=1.3, top_p=0.9, top_k=40)

    def uniforms(row: int, sample: int) -> np.ndarray:
        return np.random.default_rng([row, sample]).random(20)

    together = generate(lm, prompts, hot, samples=3, uniforms=uniforms)
    theirs = generate(in_transformers(lm), prompts, hot, samples=3, uniforms=uniforms, at_once=4)
    assert [c.ids for c in theirs] == [c.ids for c in together]
    assert [c.logp for c in theirs] == [pytest.approx(c.logp, rel=1e-3, abs=1e-3) for c in together]
    assert [(c.row, c.sample) for c in together] == [(r, s) for r in range(5) for s in range(3)]
    assert len({tuple(c.ids) for c in together}) > 10
    for row in range(5):
        alone = generate(lm, prompts[row : row + 1], hot, samples=3, uniforms=lambda r, s, row=row: uniforms(row, s))
        assert [c.ids for c in alone] == [c.ids for c in together[3 * row : 3 * row + 3]]


def test_sampled_log_probabilities_are_the_models(lm: LanguageModel) -> None:
    prompts = prompt_ids(lm.tokenizer, ROWS[:4])
    rng = np.random.default_rng(0)
    for completion in generate(lm, prompts, Sampling(max_new_tokens=9, temperature=1.0), 2, lambda r, s: rng.random(9)):
        document = Document(prompts[completion.row], [completion.ids])
        batch, _ = pack([document], document.size)
        logp = next_token_logp(lm, batch)[batch["learned"] > 0]
        torch.testing.assert_close(torch.tensor(completion.logp), logp.detach(), rtol=1e-4, atol=1e-4)


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(4000, -1)
    uniform = (torch.arange(4000) + 0.5) / 4000

    def shares(**how: float) -> list[float]:
        chosen, _ = choose_tokens(logits, Sampling(temperature=1.0, **how), uniform)  # type: ignore[arg-type]
        return (torch.bincount(chosen, minlength=4) / 4000).tolist()

    p = torch.tensor([2.0, 1.0, 0.0, -1.0]).softmax(0)
    assert shares() == pytest.approx(p.tolist(), abs=1e-3)
    assert shares(top_k=2) == pytest.approx([*(p[:2] / p[:2].sum()).tolist(), 0, 0], abs=1e-3)
    assert shares(top_p=0.6) == [1.0, 0, 0, 0] and sum(shares(top_p=0.7)[2:]) == 0
    assert choose_tokens(logits, Sampling(), None)[0].unique().tolist() == [0]


def test_documents_longer_than_a_row_are_refused() -> None:
    with pytest.raises(Mistake, match="a document has 5 tokens; a row holds 4"):
        pack([Document([1, 2], [[3, 4, 5]])], 4)


def test_a_checkpoint_is_a_hugging_face_folder(tmp_path: Path) -> None:
    trainer = Trainer(load_recipe("pocket", smoke=True), tmp_path / "run")
    for _ in trainer:
        pass
    folder = trainer.checkpoints.newest().folder  # type: ignore[union-attr]
    with safe_open(folder / "model.safetensors", "pt") as saved:
        assert "lm_head.weight" not in saved.keys()  # noqa: SIM118 - tied, and saved once
    again = open_model(str(folder))
    batch, _ = pack(documents(again.tokenizer, ROWS), 160)
    with torch.no_grad():
        trained = next_token_logp(trainer.algorithm._lm, batch)  # type: ignore[attr-defined]
        torch.testing.assert_close(next_token_logp(again, batch), trained)
    loaded = rllab.load(tmp_path / "run")
    reply = loaded.generate("Ana has 20 books. How many books does Ana have?", style="think", max_new_tokens=5)
    assert isinstance(reply, str)
    more = load_recipe("pocket", {"shape": {}, "model": str(folder)}, smoke=True)
    for row in Trainer(more, tmp_path / "more"):
        assert row["loss/total"] > 0
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(FieldMistake, match="cannot be loaded"):
        open_model(str(folder))
    shutil.rmtree(folder)
    with pytest.raises(FieldMistake, match="cannot be loaded"):
        open_model(str(folder))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"model": "run:pocket"}, "model or shape"),
        ({"model": "run:pocket", "shape": {}, "tokenizer": "run:pocket"}, "tokenizer: only a new model of `shape`"),
        ({"shape": {}}, "model or shape"),
        ({"shape": {"model_type": "qwen9"}}, "transformers cannot make this model"),
        ({"length": 20}, r"rows that were checked are longer .* make `length` larger, or set too_long: cut"),
        ({"length": 1000}, "the model's context has 512 tokens"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], fault: str, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=fault):
        for _ in Trainer(load_recipe("pocket", changes, smoke=True), tmp_path / "run"):
            pass


def test_the_chat_template_has_three_styles(lm: LanguageModel) -> None:
    def text(style: str) -> str:
        return lm.tokenizer.decode(prompt_ids(lm.tokenizer, [ROWS[0] | {"style": style}])[0])

    assert text("direct").endswith("<|direct|><|assistant|>") or text("direct").endswith("<|direct|> <|assistant|>")
    assert "<|think|>" in text("think") and "<|think|>" not in text("free") and "<|direct|>" not in text("free")


def test_pocket_problems_are_right_and_apart() -> None:
    task, seen = Pocket(tickets=0.0), dict[str, set[str]]()
    unknown = tokenizer_for(task)
    for split in ("train", "validation", "test", "longer"):
        rows = [task.row(i, split) for i in range(300)]
        assert rows == [task.row(i, split) for i in range(300)]
        seen[split] = {r["prompt"][0]["content"] for r in rows}
        for row in rows:
            assert grade(task.gold(row), row["target"], row["kind"]).correct
            assert _worked_out(row["prompt"][0]["content"]) == int(row["target"])
        for row, document in zip(rows, documents(unknown, rows), strict=True):
            assert unknown.unk_token_id not in document.prompt + document.completions[0]
            assert unknown.decode(document.completions[0][:-1]) == task.gold(row)
        steps = {r["steps"] for r in rows}
        assert steps == ({6, 7} if split == "longer" else {1, 2, 3, 4, 5})
    assert not seen["train"] & seen["test"] and not seen["test"] & seen["validation"]
    assert Pocket(salt=1).row(0, "test") != task.row(0, "test")


def _worked_out(problem: str) -> int:
    """The answer to a problem, from its sentences alone."""
    gains = {"buys", "finds", "gets", "wins", "zibs", "glims"}
    first, *others = problem.split(". ")
    total = int(first.split()[2])
    for sentence in others[:-1]:
        words = sentence.split()
        if words[0] == "Then":
            total = total * 2 if words[-1] == "doubles" else total // 2
        else:
            total += int(words[2]) if words[1] in gains else -int(words[2])
    return total


def test_tickets_are_scored_as_customers_want() -> None:
    task = Tickets()
    tokenizer = tokenizer_for(Pocket())
    rows = [task.row(i, "train") for i in range(400)]
    for document in documents(tokenizer, rows):
        assert tokenizer.unk_token_id not in document.prompt + document.completions[0]
    replies = [r["completion"][0]["content"] for r in rows]
    scores = [score(r["problem"], reply) for r, reply in zip(rows, replies, strict=True)]
    assert 0.0 < np.mean(scores) < 0.7 and np.std(scores) > 0.5
    assert all(score(r["problem"], task.gold(r)) == 3.0 for r in rows) and max(scores) <= 3.0
    best = task.gold(rows[0])
    problem = rows[0]["problem"]
    assert score(problem, f"{best} {best}") == pytest.approx(3.0 - 3 * 0.7 - 2 * 0.4)
    assert score(problem, "Banana.") == -1.0 and score(problem, "") == 0.0
    assert score(problem, "Please wait. That is your own fault.") == pytest.approx(-2.2)
    decoded = tokenizer.decode(tokenizer(best)["input_ids"])
    assert score(problem, decoded) == 3.0
    tests = {r["prompt"][0]["content"] for r in (task.row(i, "test") for i in range(200))}
    assert not tests & {r["prompt"][0]["content"] for r in rows}
    mixed = [Pocket().row(i, "train") for i in range(300)]
    assert 0.07 < np.mean(["problem" in r for r in mixed]) < 0.18
    assert not any("problem" in Pocket().row(i, "test") for i in range(50))
