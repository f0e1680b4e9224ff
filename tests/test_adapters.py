"""LoRA: adapters are trained, saved without their base, resumed and merged."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rllab_envs.tasks import pocket

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.testing import check_algorithm
from rllab.text.chat import documents
from rllab.text.logprobs import next_token_logp
from rllab.text.lora import Lora
from rllab.text.models import LanguageModel, new_model
from rllab.text.open import add_adapters, merge, open_adapter, open_model
from rllab.text.packing import pack
from rllab.text.tokenizers import tokenizer_for

SMOKE = load_recipe("sft-lora", smoke=True)
SHAPE = SMOKE.plain["shape"]
ROWS = [pocket().row(i, "train") for i in range(6)]


def save(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    made = new_model(SHAPE, tokenizer_for(pocket()))
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save(tmp_path / "base", 0)


def trained(base: Path, folder: Path, **settings: Any) -> Trainer:
    recipe = load_recipe("sft-lora", {"shape": {}, "model": str(base), "optim.lr": 0.05} | settings, smoke=True)
    trainer = Trainer(recipe, folder)
    for _ in trainer:
        pass
    return trainer


def logp(lm: LanguageModel) -> torch.Tensor:
    """Log-probabilities of `ROWS`, packed [B, L]."""
    with torch.no_grad():
        return next_token_logp(lm, pack(documents(lm.tokenizer, ROWS), 160)[0])


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"use_rslora": True}, {"lora_dropout": 0.3}])
def test_variants_keep_the_contract(lora: dict[str, Any], tmp_path: Path) -> None:
    check_algorithm(load_recipe("sft-lora", {f"lora.{k}": v for k, v in lora.items()}, smoke=True), tmp_path)


def test_dropout_masks_differ_between_rounds_and_are_off_in_evaluation(tmp_path: Path) -> None:
    trainer = Trainer(load_recipe("sft-lora", {"lora.lora_dropout": 0.5}, smoke=True), tmp_path)
    trainer.restore()
    algorithm: Any = trainer.algorithm
    for p in algorithm.parts()["model"].parameters():
        torch.nn.init.normal_(p, 0.0, 0.3)
    batch, _ = pack(documents(algorithm._lm.tokenizer, ROWS), 128)
    batch["weight"] = batch["learned"]
    losses = [algorithm.loss(algorithm.on_device(batch, step))[0].item() for step in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(logp(algorithm._lm), logp(algorithm._lm))


def test_new_adapters_change_nothing_and_trained_ones_do(base: Path, tmp_path: Path) -> None:
    lm = open_model(str(base))
    ids = torch.arange(20)[None]
    before = logp(lm)
    adapted = add_adapters(lm, Lora(r=4))
    assert adapted.adapters is not None and torch.equal(logp(adapted), before)
    with pytest.warns(UserWarning, match="the adapters on .* change nothing"):
        assert adapted.adapters.largest_change(adapted.model, ids) == 0.0
    rows = trained(base, tmp_path / "run").folder.rows()
    assert rows[-1]["lora/largest_change"] > 0.01 and 0 < rows[-1]["lora/share"] < 0.5


def test_only_adapters_are_saved_and_they_merge(base: Path, tmp_path: Path) -> None:
    trainer = trained(base, tmp_path / "run")
    folder = trainer.checkpoints.newest().folder  # type: ignore[union-attr]
    assert not (folder / "model.safetensors").exists() and (folder / "adapter_config.json").is_file()
    trained_logp = logp(trainer.algorithm._lm)  # type: ignore[attr-defined]
    assert not torch.allclose(trained_logp, logp(open_model(str(base))))
    torch.testing.assert_close(logp(open_adapter(str(folder))), trained_logp)
    torch.testing.assert_close(logp(open_model(str(folder))), trained_logp, rtol=1e-4, atol=1e-4)
    assert merge(str(folder), tmp_path / "whole") < 1e-4
    torch.testing.assert_close(logp(open_model(str(tmp_path / "whole"))), trained_logp, rtol=1e-4, atol=1e-4)
    with pytest.raises(Mistake, match="is there already"):
        merge(str(folder), tmp_path / "whole")
    with pytest.raises(FieldMistake, match="holds no adapters"):
        merge(str(base), tmp_path / "other")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_adapters_are_pefts(base: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    trainer = trained(base, tmp_path / "run")
    folder = trainer.checkpoints.newest().folder  # type: ignore[union-attr]
    theirs = AutoPeftModelForCausalLM.from_pretrained(folder)
    lm = trainer.algorithm._lm  # type: ignore[attr-defined]
    ids = torch.tensor([documents(lm.tokenizer, ROWS[:1])[0].prompt])
    with torch.no_grad():
        torch.testing.assert_close(theirs(input_ids=ids).logits, lm.model(input_ids=ids).logits)


def test_adapters_on_adapters(base: Path, tmp_path: Path) -> None:
    first = trained(base, tmp_path / "first").checkpoints.newest().folder  # type: ignore[union-attr]
    second = trained(first, tmp_path / "second")
    folder = second.checkpoints.newest().folder  # type: ignore[union-attr]
    torch.testing.assert_close(logp(open_model(str(folder))), logp(second.algorithm._lm), rtol=1e-4, atol=1e-4)  # type: ignore[attr-defined]


def test_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    folder = trained(base, tmp_path / "run").checkpoints.newest().folder  # type: ignore[union-attr]
    shutil.rmtree(base)
    with pytest.raises(FieldMistake, match="there is no such folder"):
        open_model(str(folder))
    save(base, 1)
    with pytest.raises(FieldMistake, match="were trained on other weights than"):
        open_model(str(folder))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(FieldMistake, match="pickled adapters are not read"):
        open_model(str(folder))


@pytest.mark.parametrize(
    ("lora", "fault"),
    [
        ({"target_modules": ["nothing"]}, "lora: .*nothing.* not found in the base model"),
        ({"r": 0}, "r must be at least 1"),
        ({"quantize": "nf4"}, r"lora: quantize: nf4 needs a GPU, and torch finds none"),
    ],
)
def test_bad_settings_are_refused(lora: dict[str, Any], fault: str, base: Path, tmp_path: Path) -> None:
    if "quantize" in lora and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(Mistake, match=fault):
        trained(base, tmp_path / "run", **{f"lora.{k}": v for k, v in lora.items()})


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "it has no weights"),
        (
            lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
            r"pickled \(pytorch_model.bin\), and a pickle",
        ),
        (lambda f: (f / "config.json").unlink(), "it has no config.json"),
        (lambda f: (f / "model.safetensors").write_bytes(b"nonsense"), "cannot be loaded"),
        (lambda f: (f / "tokenizer.json").unlink(), "cannot be loaded|no tokenizer.json"),
        (lambda f: remote_code(f), "cannot be loaded"),
    ],
)
def test_broken_folders_are_refused(spoil: Any, fault: str, base: Path) -> None:
    spoil(base)
    with pytest.raises(FieldMistake, match=fault):
        open_model(str(base))


def remote_code(folder: Path) -> None:
    """A model that comes with code, which must not run."""
    config = json.loads((folder / "config.json").read_text()) | {
        "model_type": "surprise",
        "auto_map": {"AutoConfig": "surprise.Config", "AutoModelForCausalLM": "surprise.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "surprise.py").write_text("raise SystemExit('it ran')")


def test_a_tokenizer_without_a_pad_token_pads_with_its_end_token(base: Path) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (base / name).is_file():
            settings = json.loads((base / name).read_text())
            settings.pop("pad_token", None)
            (base / name).write_text(json.dumps(settings))
    tokenizer = open_model(str(base)).tokenizer
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
