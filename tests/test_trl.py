"""Losses and gradients beside TRL's own trainers, on the same rows and weights."""

import copy
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from rllab_envs.text import gsm8k, hh_rlhf, pocket, ticket_preferences
from torch.nn.functional import rms_norm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
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
    for norm in (Qwen2RMSNorm, Qwen3RMSNorm):
        monkeypatch.setattr(norm, "forward", lambda m, x: rms_norm(x, x.shape[-1:], m.weight, m.variance_epsilon))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TRL's and accelerate's own
        yield


def ready(algorithm: TextAlgorithm) -> Any:
    """The algorithm set up in double precision, with weights as a trained model's."""
    algorithm.setup(Engine(Settings(algo="x", total_steps=1, device="cpu")).context(Settings(algo="x", total_steps=1)))
    tokenizer = algorithm._lm.tokenizer  # TRL learns what a template puts behind the end, and we do not
    tokenizer.chat_template = str(tokenizer.chat_template).replace("<|im_end|>\n", "<|im_end|>")
    torch.manual_seed(3)
    algorithm._lm.model.double()
    for p in algorithm._lm.model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.ndim == 1 else 0.0, 0.1)
    return algorithm


def columns(rows: list[dict[str, Any]], *names: str) -> datasets.Dataset:
    return datasets.Dataset.from_list([{k: r[k] for k in names} for r in rows])


def check_same(
    algorithm: Any, batch: Batch, trainer: Any, theirs: torch.nn.Module, count: int, within: float = 1e-6
) -> None:
    """Our loss and gradient are TRL's on the first `count` rows of its data."""
    inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(count)])
    model = algorithm._lm.model
    model.zero_grad()
    loss, _ = algorithm.loss(batch | {"noise": torch.zeros(len(batch["weight"]), dtype=torch.long)})
    loss.backward()
    theirs.train()
    expected = trainer.compute_loss(theirs, inputs)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=within)
    found, wanted = (
        torch.cat([p.grad.flatten() for p in m.parameters() if p.grad is not None]) for m in (model, theirs)
    )
    assert float((found - wanted).abs().max()) < within * max(1.0, float(wanted.abs().max()))


def arguments(kind: Any, tmp_path: Path, **more: Any) -> Any:
    return kind(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], gradient_checkpointing=False, **more)


def settings(task: Any, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A task and a model that can read it: words for our own rows, a tokenizer of bytes for published ones."""
    published = task in (gsm8k, hh_rlhf)
    if published:
        request.getfixturevalue("data")
    model = {"model": str(request.getfixturevalue("qwen"))} if published else {"shape": SHAPE}
    return {"task": task, "length": 1024, "too_long": "cut"} | model


def rows_of(task: Any, count: int = 6) -> list[dict[str, Any]]:
    """Rows to train on, of a length that a test has time for; TRL hands no style on."""
    rows = (task().row(i, "train") for i in range(200))
    said = ("completion", "chosen", "rejected")
    short = (r for r in rows if sum(len(str(r.get(k, ""))) for k in ("prompt", *said)) < 900)
    return list(itertools.islice((r for r in short if r.get("style", "free") == "free"), count))


@pytest.mark.parametrize("task", [pocket, gsm8k])
def test_sft_is_trls(task: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    from trl import SFTConfig, SFTTrainer

    sft = ready(SFT(**settings(task, request)))
    rows = rows_of(task)
    theirs = copy.deepcopy(sft._lm.model)
    config = arguments(SFTConfig, tmp_path, max_length=1024, completion_only_loss=True, shuffle_dataset=False)
    trainer = SFTTrainer(
        theirs, config, train_dataset=columns(rows, "prompt", "completion"), processing_class=sft._lm.tokenizer
    )
    batch, _ = pack(documents(sft._lm.tokenizer, rows), 1024)
    batch["weight"] = batch["learned"] / batch["learned"].sum()
    check_same(sft, batch, trainer, theirs, len(rows))


@pytest.mark.parametrize(("task", "center"), [(ticket_preferences, None), (ticket_preferences, 0.01), (hh_rlhf, None)])
def test_reward_model_is_trls(task: Any, center: float | None, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    from trl import RewardConfig, RewardTrainer

    made = ready(RewardModel(**settings(task, request), center=center or 0.0))
    rows = rows_of(task)
    theirs = copy.deepcopy(made._lm.model)
    config = arguments(RewardConfig, tmp_path, max_length=1024, center_rewards_coefficient=center)
    trainer = RewardTrainer(
        theirs, config, train_dataset=columns(rows, "prompt", "chosen", "rejected"), processing_class=made._lm.tokenizer
    )
    batch = pack_pairs(made._lm.tokenizer, rows, 1024)
    batch["weight"] = batch["weight"] / batch["weight"].sum()
    check_same(made, batch, trainer, theirs, len(rows))


@pytest.mark.parametrize(
    ("task", "form"), [*((ticket_preferences, f) for f in ("sigmoid", "hinge", "ipo")), (hh_rlhf, "sigmoid")]
)
def test_dpo_is_trls(task: Any, form: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    from trl import DPOConfig, DPOTrainer

    made = ready(DPO(**settings(task, request), form=form, beta=0.3))
    rows = rows_of(task)
    theirs, reference = copy.deepcopy(made._lm.model), copy.deepcopy(made._copy.model.double())
    config = arguments(DPOConfig, tmp_path, max_length=1024, beta=0.3, loss_type=[form])
    trainer = DPOTrainer(
        theirs,
        reference,
        config,
        train_dataset=columns(rows, "prompt", "chosen", "rejected"),
        processing_class=made._lm.tokenizer,
    )
    batch = made.batch(rows)
    batch["weight"] = batch["weight"] / batch["weight"].sum()
    # TRL's fused head gives log-probabilities in fp32, which shows where hundreds of them are added up
    check_same(made, batch, trainer, theirs, len(rows), within=1e-5 if task is hh_rlhf else 1e-6)
