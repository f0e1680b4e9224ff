"""Losses and gradients beside TRL's own trainers, on the same rows and weights."""

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from rllab_envs.text import pocket, ticket_preferences
from torch.nn.functional import rms_norm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from rllab.algos.dpo import DPO
from rllab.algos.reward_model import RewardModel
from rllab.algos.sft import SFT
from rllab.core.algorithm import Batch
from rllab.core.engine import Engine
from rllab.core.recipe import Settings
from rllab.text.algorithm import TextAlgorithm
from rllab.text.chat import documents
from rllab.text.packing import pack
from rllab.text.preferences import pack_pairs

SHAPE: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # transformers rounds its norms to fp32 also in a model of doubles, which would hide what else differs
    monkeypatch.setattr(Qwen3RMSNorm, "forward", lambda m, x: rms_norm(x, x.shape[-1:], m.weight, m.variance_epsilon))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TRL's and accelerate's own
        yield


def ready(algorithm: TextAlgorithm) -> Any:
    """The algorithm set up in double precision, with weights as a trained model's."""
    algorithm.setup(Engine(Settings(algo="x", total_steps=1, device="cpu")).context(Settings(algo="x", total_steps=1)))
    torch.manual_seed(3)
    algorithm._lm.model.double()
    for p in algorithm._lm.model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.ndim == 1 else 0.0, 0.1)
    return algorithm


def columns(rows: list[dict[str, Any]], *names: str) -> datasets.Dataset:
    return datasets.Dataset.from_list([{k: r[k] for k in names} for r in rows])


def check_same(algorithm: Any, batch: Batch, trainer: Any, theirs: torch.nn.Module, count: int) -> None:
    """Our loss and gradient are TRL's on the first `count` rows of its data."""
    inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(count)])
    model = algorithm._lm.model
    model.zero_grad()
    loss, _ = algorithm.loss(batch | {"noise": torch.zeros(len(batch["weight"]), dtype=torch.long)})
    loss.backward()
    theirs.train()
    expected = trainer.compute_loss(theirs, inputs)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    found, wanted = (
        torch.cat([p.grad.flatten() for p in m.parameters() if p.grad is not None]) for m in (model, theirs)
    )
    assert float((found - wanted).abs().max()) < 1e-6 * max(1.0, float(wanted.abs().max()))


def arguments(kind: Any, tmp_path: Path, **more: Any) -> Any:
    return kind(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], gradient_checkpointing=False, **more)


def test_sft_is_trls(tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    sft = ready(SFT(task=pocket, shape=SHAPE))
    rows = [r for i in range(30) if (r := pocket().row(i, "train"))["style"] == "free"][:6]  # TRL hands no style on
    theirs = copy.deepcopy(sft._lm.model)
    config = arguments(SFTConfig, tmp_path, max_length=512, completion_only_loss=True, shuffle_dataset=False)
    trainer = SFTTrainer(
        theirs, config, train_dataset=columns(rows, "prompt", "completion"), processing_class=sft._lm.tokenizer
    )
    batch, _ = pack(documents(sft._lm.tokenizer, rows), 256)
    batch["weight"] = batch["learned"] / batch["learned"].sum()
    check_same(sft, batch, trainer, theirs, len(rows))


@pytest.mark.parametrize("center", [None, 0.01])
def test_reward_model_is_trls(center: float | None, tmp_path: Path) -> None:
    from trl import RewardConfig, RewardTrainer

    made = ready(RewardModel(task=ticket_preferences, shape=SHAPE, center=center or 0.0))
    rows = [ticket_preferences().row(i, "train") for i in range(6)]
    theirs = copy.deepcopy(made._lm.model)
    config = arguments(RewardConfig, tmp_path, max_length=512, center_rewards_coefficient=center)
    trainer = RewardTrainer(
        theirs, config, train_dataset=columns(rows, "prompt", "chosen", "rejected"), processing_class=made._lm.tokenizer
    )
    batch = pack_pairs(made._lm.tokenizer, rows, 256)
    batch["weight"] = batch["weight"] / batch["weight"].sum()
    check_same(made, batch, trainer, theirs, len(rows))


@pytest.mark.parametrize("form", ["sigmoid", "hinge", "ipo"])
def test_dpo_is_trls(form: str, tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    made = ready(DPO(task=ticket_preferences, shape=SHAPE, form=form, beta=0.3))  # type: ignore[arg-type]
    rows = [ticket_preferences().row(i, "train") for i in range(6)]
    theirs, reference = copy.deepcopy(made._lm.model), copy.deepcopy(made._copy.model.double())
    config = arguments(DPOConfig, tmp_path, max_length=512, beta=0.3, loss_type=[form])
    trainer = DPOTrainer(
        theirs,
        reference,
        config,
        train_dataset=columns(rows, "prompt", "chosen", "rejected"),
        processing_class=made._lm.tokenizer,
    )
    batch = made.batch(rows)
    batch["weight"] = batch["weight"] / batch["weight"].sum()
    check_same(made, batch, trainer, theirs, len(rows))
