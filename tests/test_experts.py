"""The load-balancing loss of mixture-of-experts models: TRL's values, and the same gradient of a split batch."""

import copy
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rllab_envs.tasks import pocket, ticket_preferences
from test_trl import arguments, check_same, columns, groups_of, grpo, ready, rows_of
from torch.nn.functional import rms_norm
from transformers.models.mixtral.modeling_mixtral import MixtralRMSNorm
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeRMSNorm

from rllab.algos.dpo import DPO
from rllab.algos.sft import SFT
from rllab.core.algorithm import split
from rllab.core.engine import Engine
from rllab.core.errors import FieldMistake
from rllab.core.recipe import Settings
from rllab.text.chat import documents
from rllab.text.packing import pack

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
SHAPES: dict[str, Any] = {
    "mixtral": SIZES | {"intermediate_size": 24, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": SIZES | {"moe_intermediate_size": 24, "num_experts": 5, "num_experts_per_tok": 3},
}
COEF = 0.5


@pytest.fixture(autouse=True)
def in_doubles(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """transformers rounds the norms of a model of doubles to fp32."""
    for norm in (MixtralRMSNorm, Qwen3MoeRMSNorm):
        monkeypatch.setattr(norm, "forward", lambda m, x: rms_norm(x, x.shape[-1:], m.weight, m.variance_epsilon))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TRL's and accelerate's own
        yield


def sft(name: str = "mixtral") -> Any:
    """SFT of a new mixture of experts, whose model is in double precision."""
    return opened(SFT(task=pocket, shape={"model_type": name} | SHAPES[name], length=256, router_aux_loss_coef=COEF))


def opened(algorithm: Any) -> Any:
    made = ready(algorithm)
    made._lm.model.set_experts_implementation("eager")  # the grouped product takes no doubles
    if made._reference is not None:
        made._reference.model.set_experts_implementation("eager")
    return made


def packed(made: Any, count: int = 8) -> dict[str, torch.Tensor]:
    rows = rows_of(pocket, count)
    batch, _ = pack(documents(made._lm.tokenizer, rows), 256)
    batch["weight"] = batch["learned"].double() / batch["learned"].sum()
    return batch


@pytest.mark.parametrize("name", SHAPES)
def test_sft_is_trls(name: str, tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    made = sft(name)
    rows = rows_of(pocket)
    theirs = copy.deepcopy(made._lm.model)
    more = {"max_length": 256, "completion_only_loss": True, "shuffle_dataset": False, "router_aux_loss_coef": COEF}
    trainer = SFTTrainer(
        theirs,
        arguments(SFTConfig, tmp_path, **more),
        train_dataset=columns(rows, "prompt", "completion"),
        processing_class=made._lm.tokenizer,
    )
    batch = made._balancing.measured(packed(made, 6))
    assert len(batch["weight"]) < 6  # rows hold several documents
    check_same(made, batch, trainer, theirs, 6)
    assert made._balancing.metrics()["experts/aux_loss"] > 0.5


def gradient(made: Any, pieces: list[Any]) -> torch.Tensor:
    made._lm.model.zero_grad()
    for piece in pieces:
        made.loss(piece | {"dropout_seed": torch.zeros(len(piece["weight"]), dtype=torch.long)})[0].backward()
    return torch.cat([p.grad.flatten() for p in made._lm.model.parameters() if p.grad is not None])


def test_a_split_batch_has_the_same_gradient(tmp_path: Path) -> None:
    made = sft()
    batch = made._balancing.measured(packed(made, 12))
    whole, pieces = gradient(made, [batch]), list(split(batch, 1))
    assert len(pieces) > 2 and float((gradient(made, pieces) - whole).abs().max()) < 1e-12
    alone = [made._balancing.measured({k: v for k, v in p.items() if k != "expert_load"}) for p in pieces]
    assert float((gradient(made, alone) - whole).abs().max()) > 1e-3  # each with a statistic of its own


def test_two_ranks_have_the_gradient_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made = sft()
    batch = packed(made, 12)
    whole = gradient(made, [made._balancing.measured(batch)])
    halves, sums = list(split(batch, (len(batch["weight"]) + 1) // 2)), []
    for keep in (sums.append, lambda x: None):  # each rank's sums; then their total, as an all-reduce gives it
        made._balancing._ctx = replace(made.ctx, sum_over_ranks=lambda x: keep(x) or sum(sums))  # noqa: B023
        measured = [made._balancing.measured(half) for half in halves]
    assert len(sums) == 2 and float((gradient(made, measured) - whole).abs().max()) < 1e-12


def test_checkpointed_layers_have_the_same_gradient() -> None:
    made = sft()
    batch = made._balancing.measured(packed(made))
    whole = gradient(made, [batch])
    made._lm.enable_gradient_checkpointing()
    assert float((gradient(made, [batch]) - whole).abs().max()) < 1e-12


def test_dpo_is_trls(tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    shape = {"model_type": "mixtral"} | SHAPES["mixtral"]
    made = opened(DPO(task=ticket_preferences, shape=shape, length=256, beta=0.3, router_aux_loss_coef=COEF))
    rows = rows_of(ticket_preferences, 4)
    theirs, reference = copy.deepcopy(made._lm.model), copy.deepcopy(made._reference.model.double())
    trainer = DPOTrainer(
        theirs,
        reference,
        arguments(DPOConfig, tmp_path, max_length=256, beta=0.3, router_aux_loss_coef=COEF),
        train_dataset=columns(rows, "prompt", "chosen", "rejected"),
        processing_class=made._lm.tokenizer,
    )
    batch = made.batch(rows)
    batch["weight"] = batch["weight"] / batch["weight"].sum()
    check_same(made, made._balancing.measured(batch), trainer, theirs, len(rows))


def test_grpo_reads_all_completions_for_it() -> None:
    """A group in which all rewards are equal has no other gradient."""
    with_loss, without = (
        opened(grpo(shape={"model_type": "mixtral"} | SHAPES["mixtral"], router_aux_loss_coef=coef))
        for coef in (COEF, 0)
    )
    groups = groups_of(with_loss, 4)
    for group in groups:
        for completion in group.completions:
            completion.logp = [0.0] * len(completion.ids)
    sizes = []
    for made in (with_loss, without):
        (batch,) = made._batches(groups, made._advantages(groups))
        sizes.append(int((batch["document"] >= 0).sum()))
        loss, _ = made.loss(made._balancing.measured(batch) | {"dropout_seed": torch.zeros(len(batch["weight"]))})
        assert np.isfinite(loss.item()) and ("expert_load" in made._balancing.measured(batch)) == (made is with_loss)
    assert sizes[0] > sizes[1]


def test_models_without_such_routers_are_refused() -> None:
    context = Engine(Settings(algo="x", total_steps=1, device="cpu")).context(Settings(algo="x", total_steps=1))
    for shape in ({"model_type": "llama", "intermediate_size": 24}, {"model_type": "mixtral", **SHAPES["mixtral"]}):
        made = SFT(task=pocket, shape=SIZES | shape, router_aux_loss_coef=COEF)
        if shape["model_type"] == "mixtral":
            made.setup(context)
        else:
            with pytest.raises(FieldMistake, match=r"the model \(llama\) is no mixture of experts"):
                made.setup(context)
