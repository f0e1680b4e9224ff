"""Adapters as peft trains and saves them: on embeddings and heads, with new tokens, in folders made elsewhere."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from rllab.core.errors import FieldMistake
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.testing import check_algorithm
from rllab.text import models
from rllab.text.logprobs import next_token_logp
from rllab.text.lora import Lora
from rllab.text.models import LanguageModel, new_model
from rllab.text.open import add_adapters, merge, open_adapter, open_model
from rllab.text.packing import Document, pack
from rllab.text.sampler import Sampling, generate

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),
    pytest.mark.filterwarnings("ignore:(?s).*tie_word_embeddings"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`"),
]
PLACES: dict[str, dict[str, Any]] = {
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embeddings": {"target_modules": ["embed_tokens", "down_proj"]},
    "both": {"target_modules": ["embed_tokens", "lm_head"], "use_rslora": True},
    "dora": {"target_modules": ["o_proj", "lm_head"], "use_dora": True},
    "whole": {"target_modules": ["k_proj"], "modules_to_save": ["embed_tokens", "lm_head", "norm"]},
}
both = pytest.mark.parametrize("base", ["tied", "untied"], indirect=True)
DOCUMENTS = [Document([5, 9, 13, 40], [[7, 22, 31], [64, 8]]), Document([11, 12], [[90, 3, 17, 44, 51]])]


@pytest.fixture(autouse=True)
def templates_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates are not rendered in a process of their own first, which takes a second."""
    monkeypatch.setattr("rllab.text.load.checked_template", lambda *_: nullcontext())


@pytest.fixture
def base(request: pytest.FixtureRequest, qwen: Path, tmp_path: Path) -> str:
    """The tiny Qwen2, or with the parameter "untied" the same with a head of its own."""
    if getattr(request, "param", "tied") == "tied":
        return str(qwen)
    model: Any = AutoModelForCausalLM.from_pretrained(qwen)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().flip(0).clone())
    model.config.tie_word_embeddings = False
    model.save_pretrained(tmp_path / "untied")
    AutoTokenizer.from_pretrained(qwen).save_pretrained(tmp_path / "untied")
    return str(tmp_path / "untied")


def with_noise(module: Any) -> Any:
    torch.manual_seed(3)
    for p in module.parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p.data, 0.0, 0.2)
    return module


def row_by_row(model: Any, temperature: float = 1.0) -> torch.Tensor:
    """The log-probability of each completion of `DOCUMENTS` in transformers, one row at a time."""
    sums = []
    for document in DOCUMENTS:
        for completion in document.completions:
            ids = torch.tensor([document.prompt + completion])
            logp = (model(input_ids=ids).logits[0, :-1] / temperature).log_softmax(-1)
            sums.append(logp[len(document.prompt) - 1 :].gather(1, ids[0, len(document.prompt) :, None]).sum())
    return torch.stack(sums)


def packed(lm: LanguageModel, temperature: float = 1.0) -> torch.Tensor:
    """The same from packed rows, with a shared prompt."""
    batch, places = pack(DOCUMENTS, 32)
    logp = next_token_logp(lm, batch, temperature)
    return torch.stack(
        [
            logp[row][batch["completion"][row] == first + k].sum()
            for document, (row, first) in zip(DOCUMENTS, places, strict=True)
            for k in range(len(document.completions))
        ]
    )


@both
@pytest.mark.parametrize("place", PLACES)
def test_adapters_anywhere_are_pefts(place: str, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = add_adapters(open_model(base), Lora(r=4, **PLACES[place]))
    assert lm.shape is not None
    with_noise(lm.part)
    gradients = []
    for sums in (row_by_row(lm.model, 0.7), packed(lm, 0.7), packed(replace(lm, shape=None), 0.7)):
        gradients.append(torch.autograd.grad((sums * torch.tensor([1.0, -0.5, 2.0])).sum(), trained(lm)))
        torch.testing.assert_close(sums, row_by_row(lm.model, 0.7), atol=2e-5, rtol=0)
    monkeypatch.setattr("rllab.text.logprobs._LOGITS", 900)  # chunks of two tokens
    gradients.append(torch.autograd.grad((packed(lm, 0.7) * torch.tensor([1.0, -0.5, 2.0])).sum(), trained(lm)))
    for own in gradients[1:]:
        for ours, theirs in zip(own, gradients[0], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)
    assert all(g.abs().max() > 0 for g in gradients[0])
    prompt, sampling = DOCUMENTS[1].prompt, Sampling(max_new_tokens=5, temperature=1.0)
    (sampled,) = generate(lm, [prompt], sampling, uniforms=lambda *_: np.full(5, 0.5))
    batch, _ = pack([Document(prompt, [sampled.ids])], 8)
    learner = next_token_logp(lm, batch)[batch["learned"] != 0].tolist()
    assert sampled.logp == pytest.approx(learner, abs=2e-4)
    prompt = [5, 9, 13]
    (completion,) = generate(lm, [prompt], Sampling(max_new_tokens=8))
    theirs = lm.model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=2)  # type: ignore[operator]
    assert completion.ids == theirs[0, 3:].tolist()


def test_a_forward_pass_that_misses_adapters_is_not_used(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """New adapters change nothing before they are trained, so they are compared with noise on them."""
    lm, plain = open_model(base), open_model(base).model
    own = models.hidden_states
    monkeypatch.setattr(models, "hidden_states", lambda _, *arguments: own(plain, *arguments))
    with pytest.warns(UserWarning, match="the native forward pass differs from transformers'"):
        adapted = add_adapters(lm, Lora(r=4))
    assert adapted.shape is None
    torch.testing.assert_close(row_by_row(adapted.model), row_by_row(plain))


def trained(lm: LanguageModel) -> list[torch.nn.Parameter]:
    return [p for p in lm.part.parameters() if p.requires_grad]


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
SMALL |= {"intermediate_size": 48}
KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "gpt2": ({"n_embd": 32, "n_layer": 2, "n_head": 4}, "wte"),
    "gemma2": (SMALL | {"head_dim": 8}, "embed_tokens"),
    "phi3": (SMALL, "embed_tokens"),
    "mixtral": (SMALL | {"num_local_experts": 4}, "embed_tokens"),
    "bloom": ({"hidden_size": 32, "n_layer": 2, "n_head": 4}, "word_embeddings"),
    "mamba": ({"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, "embeddings"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_on_any_architecture_are_pefts(kind: str) -> None:
    shape, embeddings = KINDS[kind]
    torch.manual_seed(0)
    made = new_model({"model_type": kind} | shape, families.tokenizer("mistral"))
    lm = add_adapters(made, Lora(r=4, target_modules=[embeddings, "lm_head"]))
    assert lm.shape is None
    with_noise(lm.part)
    theirs, ours = row_by_row(lm.model), packed(lm)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)
    for a, b in zip(*(torch.autograd.grad(x.sum(), trained(lm)) for x in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
        assert b.abs().max() > 0


@both
@pytest.mark.parametrize("place", ["both", "whole"])
def test_a_merged_folder_is_the_adapted_model(place: str, base: str, tmp_path: Path) -> None:
    lm = add_adapters(open_model(base), Lora(r=4, **PLACES[place]))
    with_noise(lm.part).peft.save_pretrained(tmp_path / "adapters")
    with torch.no_grad():
        wanted, plain = row_by_row(lm.model), row_by_row(open_model(base).model)
        assert merge(str(tmp_path / "adapters"), tmp_path / "whole") < 1e-3
        whole: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
        torch.testing.assert_close(row_by_row(whole), wanted, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(packed(open_model(str(tmp_path / "adapters"))), wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(wanted, plain, atol=0.01)


@both
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "auto"])
def test_a_merged_folder_needs_no_code_of_the_lab(dtype: str, base: str, elsewhere: Any, tmp_path: Path) -> None:
    """transformers reads all of it: weights in the dtype, tied or not, tokenizer, chat template, stop tokens."""
    folder, adapted = elsewhere(target_modules=["q_proj", "embed_tokens", "lm_head"])
    spare = tmp_path / "spare"
    shutil.copytree(base, spare)
    (spare / "tokenizer.model").write_bytes(b"read by converters")
    GenerationConfig(eos_token_id=[2, 77]).save_pretrained(spare)
    AutoModelForCausalLM.from_pretrained(spare, dtype=torch.float16).save_pretrained(spare)
    config = json.loads((Path(folder) / "adapter_config.json").read_text())
    (Path(folder) / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(spare)}))
    merge(folder, tmp_path / "whole", dtype)
    whole: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "whole")
    written = load_file(tmp_path / "whole" / "model.safetensors")
    expected = torch.float16 if dtype == "auto" else getattr(torch, dtype)
    assert {w.dtype for w in written.values()} == {expected} == {whole.dtype}
    assert ("lm_head.weight" in written) and not whole.config.tie_word_embeddings
    assert whole.config.architectures == ["Qwen2ForCausalLM"] and whole.config.vocab_size == len(tokenizer) == 315
    assert whole.generation_config.eos_token_id == [2, 77]
    assert (tmp_path / "whole" / "tokenizer.model").read_bytes() == b"read by converters"
    assert (
        tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "<new0>a<|im_end|><new1>"
    )
    with torch.no_grad():
        torch.testing.assert_close(row_by_row(whole.float()), row_by_row(adapted), atol=0.3, rtol=0.02)
    if dtype == "float32":
        ours = generate(open_model(str(tmp_path / "whole")), [[5, 313, 9]], Sampling(max_new_tokens=20))[0].ids
        assert whole.generate(torch.tensor([[5, 313, 9]]), max_new_tokens=20)[0, 3:].tolist() == ours


def test_dropout_on_a_head_is_the_same_in_parts_of_a_batch(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = add_adapters(open_model(base), Lora(r=4, lora_dropout=0.5, target_modules=["v_proj", "lm_head"]))
    with_noise(lm.part)
    batch, _ = pack([Document([4, 5], [[6, 7, 8]]), Document([9], [[10, 11]]), Document([3, 3], [[5]])], 5)
    batch["dropout_seed"] = torch.arange(len(batch["learned"])) + 7

    def logp(rows: slice, lm: LanguageModel = lm) -> torch.Tensor:
        part = {k: v[rows] for k, v in batch.items()}
        lm.seed_dropout(part)
        return next_token_logp(lm, part).detach()

    whole = logp(slice(None))
    torch.testing.assert_close(torch.cat([logp(slice(0, 1)), logp(slice(1, None))]), whole)
    without = add_adapters(open_model(base), Lora(r=4, target_modules=["v_proj", "lm_head"]))
    assert not torch.allclose(logp(slice(None), replace(without, adapters=with_noise(without.part))), whole)
    monkeypatch.setattr("rllab.text.logprobs._LOGITS", 400)
    torch.testing.assert_close(logp(slice(None)), whole)


@pytest.fixture
def elsewhere(base: str, tmp_path: Path) -> Iterator[Any]:
    """elsewhere(settings): (a folder of adapters that peft saved with a tokenizer of two more tokens, peft's model)."""

    def make(save: Any = "auto", tokens: int = 2, **settings: Any) -> tuple[str, Any]:
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.add_tokens([f"<new{i}>" for i in range(tokens)])
        tokenizer.chat_template = "{% for m in messages %}<new0>{{ m['content'] }}<|im_end|>{% endfor %}<new1>"
        torch.manual_seed(1)
        model: Any = AutoModelForCausalLM.from_pretrained(base)
        if tokens:
            model.resize_token_embeddings(len(tokenizer))
        model = with_noise(get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, **settings)))
        model.save_pretrained(tmp_path / "elsewhere", save_embedding_layers=save)
        tokenizer.save_pretrained(tmp_path / "elsewhere")
        return str(tmp_path / "elsewhere"), model.train(False)

    yield make


@both
@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
        {
            "target_modules": ["q_proj"],
            "trainable_token_indices": {"embed_tokens": [7, 313, 314], "lm_head": [313, 314]},
        },
    ],
    ids=["projections", "whole", "low rank", "tokens"],
)
def test_a_folder_of_peft_has_its_own_tokenizer_and_embeddings(settings: dict[str, Any], elsewhere: Any) -> None:
    folder, theirs = elsewhere(**settings)
    with torch.no_grad():
        wanted = theirs(input_ids=torch.tensor([[5, 313, 9, 314]])).logits
        for lm in (open_adapter(folder), open_model(folder)):
            ours = lm.model(input_ids=torch.tensor([[5, 313, 9, 314]])).logits
            torch.testing.assert_close(ours, wanted, atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(packed(lm), row_by_row(theirs), atol=2e-5, rtol=1e-4)
            assert lm.tokenizer.convert_tokens_to_ids("<new1>") == 314 and "<new0>" in str(lm.tokenizer.chat_template)


def test_adapters_on_the_hub_are_adapters(elsewhere: Any, tmp_path: Path) -> None:
    """A repository of adapters, in the hub's cache."""
    folder, theirs = elsewhere(target_modules=["q_proj"])
    repository = tmp_path / "hub" / "models--someone--adapters"
    shutil.copytree(folder, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    code = (
        "import torch; from rllab.text.open import open_adapter, open_model\n"
        "ids = torch.tensor([[5, 313, 9, 314]])\n"
        "for lm in (open_adapter('someone/adapters'), open_model('someone/adapters')):\n"
        "    print(lm.name, lm.adapters is None, lm.model(input_ids=ids).logits.double().sum().item())"
    )
    env = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    expected = theirs(input_ids=torch.tensor([[5, 313, 9, 314]])).logits.double().sum().item()
    for line, merged in zip(done.stdout.splitlines(), ("False", "True"), strict=True):
        name, adapters, total = line.split()
        assert (name, adapters) == ("someone/adapters", merged), done.stderr
        assert float(total) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_adapters_without_their_new_tokens_are_refused(elsewhere: Any) -> None:
    folder, _ = elsewhere(save=False, target_modules=["q_proj"])
    with pytest.raises(FieldMistake, match="its tokenizer has 2 tokens that the base does not have, and its adapters"):
        open_model(folder)


def test_other_kinds_and_other_bases_are_refused(elsewhere: Any, base: str, tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    other = get_peft_model(model, IA3Config(task_type="CAUSAL_LM", target_modules=["q_proj"], feedforward_modules=[]))
    other.save_pretrained(tmp_path / "ia3")
    with pytest.raises(FieldMistake, match="of the kind IA3, and only LoRA is read; merge them"):
        open_model(str(tmp_path / "ia3"))
    folder, _ = elsewhere(tokens=0, target_modules=["q_proj"])
    weights = load_file(Path(folder) / "adapter_model.safetensors")
    for spoilt in ({k: v for k, v in weights.items() if "layers.1" not in k}, {k: v[:2] for k, v in weights.items()}):
        save_file({k: v.contiguous() for k, v in spoilt.items()}, Path(folder) / "adapter_model.safetensors")
        with pytest.raises(FieldMistake, match="its adapters do not fit"):
            open_model(folder)
    with pytest.raises(FieldMistake, match=r"quantize: .* holds adapters, which are merged before they are quantized"):
        open_model(folder, quantize=True)
    config = json.loads((Path(folder) / "adapter_config.json").read_text())
    (Path(folder) / "adapter_config.json").write_text(json.dumps(config | {"revision": "v2"}))
    with pytest.raises(FieldMistake, match=r"trained on revision 'v2' of .*, and a folder has no revisions"):
        open_model(folder)


FURTHER = {"shape": {}, "retention_task": None, "length": 2048, "lora": {"create_new_adapter": False}, "optim.lr": 0.05}


def test_adapters_are_trained_further(elsewhere: Any, base: str, tmp_path: Path) -> None:
    """The same adapters go on, with peft's gradients; the reference is the model that training began with."""
    folder, _ = elsewhere(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    theirs = PeftModel.from_pretrained(open_model_resized(base), folder, is_trainable=True)
    trainer = Trainer(load_recipe("sft-lora", FURTHER | {"model": folder}, smoke=True), tmp_path / "run")
    trainer.restore()
    algorithm: Any = trainer.algorithm
    ours: dict[str, Any] = dict(algorithm._lm.adapters.peft.named_parameters())
    packed(algorithm._lm).sum().backward()
    row_by_row(theirs).sum().backward()
    for name, p in theirs.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(ours[name].grad, p.grad, atol=1e-4, rtol=1e-3)
    for _ in trainer:
        pass
    last = trainer.checkpoints.newest().folder  # type: ignore[union-attr]
    with torch.no_grad(), algorithm.reference() as lm:
        first = packed(lm)
    torch.testing.assert_close(first, row_by_row(theirs), atol=2e-5, rtol=1e-4)
    now = packed(open_adapter(str(last))).detach()
    assert not torch.allclose(now, first, atol=0.01)
    torch.testing.assert_close(packed(algorithm._lm).detach(), now)
    again: Any = PeftModel.from_pretrained(open_model_resized(base), last)
    torch.testing.assert_close(row_by_row(again).detach(), now, atol=2e-5, rtol=1e-4)
    assert again.peft_config["default"].base_model_name_or_path == base


def open_model_resized(base: str) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(315)
    return model


def test_training_further_keeps_the_contract(elsewhere: Any, tmp_path: Path) -> None:
    folder, _ = elsewhere(tokens=0, target_modules=["q_proj", "lm_head"])
    check_algorithm(
        load_recipe(
            "dpo", {"shape": {}, "model": folder, "length": 2048} | {"lora": {"create_new_adapter": False}}, smoke=True
        ),
        tmp_path / "runs",
    )


@pytest.mark.parametrize(
    ("lora", "fault"),
    [
        ({"create_new_adapter": False, "r": 16}, "r: the adapters have 4; leave it out"),
        ({"create_new_adapter": False, "target_modules": ["v_proj"]}, "target_modules: the adapters have .*q_proj"),
        ({"modules_to_save": ["nothing"]}, "modules_to_save: the model has no module named 'nothing'"),
    ],
)
def test_bad_settings_are_refused(lora: dict[str, Any], fault: str, elsewhere: Any, tmp_path: Path) -> None:
    folder, _ = elsewhere(tokens=0, target_modules=["q_proj"])
    recipe = load_recipe("sft-lora", {"shape": {}, "model": folder, "lora": lora, "retention_task": None}, smoke=True)
    with pytest.raises(FieldMistake, match=fault):
        Trainer(recipe, tmp_path / "run").restore()


def test_whole_models_are_not_adapters(base: str, tmp_path: Path) -> None:
    recipe = load_recipe("sft-lora", FURTHER | {"model": base}, smoke=True)
    with pytest.raises(FieldMistake, match="create_new_adapter: false needs a `model` that is a folder of adapters"):
        Trainer(recipe, tmp_path / "run").restore()


def test_new_tokens_of_a_tokenizer_get_embeddings(base: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["<new0>", "<new1>"])
    grown = tmp_path / "grown"
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(grown)
    tokenizer.save_pretrained(grown)
    with pytest.raises(FieldMistake, match="its tokenizer has 315 tokens, and the model embeddings for 313; train it"):
        open_model(str(grown))
    settings = {"shape": {}, "model": str(grown), "optim.lr": 0.01, "length": 2048, "retention_task": None}
    with pytest.raises(FieldMistake, match=r"no embeddings for \(<new0>, <new1>\), and nothing would train them"):
        Trainer(load_recipe("sft-lora", settings, smoke=True), tmp_path / "refused").restore()
    whole = {"lora.modules_to_save": ["embed_tokens", "lm_head"]}
    for name, more in {"adapters": whole, "full": {"lora": None}}.items():
        trainer = Trainer(load_recipe("sft-lora", settings | more, smoke=True), tmp_path / name)
        for _ in trainer:
            pass
        lm: Any = trainer.algorithm._lm  # type: ignore[attr-defined]
        opened = open_model(str(trainer.checkpoints.newest().folder))  # type: ignore[union-attr]
        ids = torch.tensor([[5, 313, 9, 314]])
        with torch.no_grad():
            torch.testing.assert_close(
                opened.model(input_ids=ids).logits, lm.model(input_ids=ids).logits, atol=1e-4, rtol=1e-4
            )
