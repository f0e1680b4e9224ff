"""Losses and gradients compared with TRL's own trainers, on the same rows and weights."""

import copy
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from families import TALK, tokenizer
from rllab_envs.tasks import gsm8k, hh_rlhf, pocket, ticket_preferences
from torch import Tensor
from torch.nn.functional import rms_norm
from torch.nn.utils.rnn import pad_sequence
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from rllab.algos.dpo import DPO
from rllab.algos.grpo import GRPO
from rllab.algos.reward_model import RewardModel
from rllab.algos.rollouts import Group
from rllab.algos.sft import SFT
from rllab.core.algorithm import Batch
from rllab.core.engine import Engine
from rllab.core.names import Term
from rllab.core.recipe import Settings
from rllab.text.algorithm import TextAlgorithm
from rllab.text.chat import documents
from rllab.text.models import new_model
from rllab.text.packing import pack
from rllab.text.pairs import pack_pairs
from rllab.text.sampler import Completion

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
    """The algorithm set up in double precision, with weights as large as those of a trained model."""
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
    algorithm: Any, batch: Batch, trainer: Any, theirs: torch.nn.Module, rows: Any, within: float = 1e-6
) -> None:
    """Our loss and gradient are TRL's, on as many of the first rows of its data or on what it makes of them."""
    inputs = rows
    if isinstance(rows, int):
        inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(rows)])
    model = algorithm._lm.model
    model.zero_grad()
    loss, _ = algorithm.loss(batch | {"dropout_seed": torch.zeros(len(batch["weight"]), dtype=torch.long)})
    loss.backward()
    theirs.train()
    expected = trainer.compute_loss(theirs, inputs)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=within, abs=within / 10)
    gradient, expected_gradient = (
        torch.cat([p.grad.flatten() for p in m.parameters() if p.grad is not None]) for m in (model, theirs)
    )
    assert float((gradient - expected_gradient).abs().max()) < within * max(1.0, float(expected_gradient.abs().max()))


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
    answers = ("completion", "chosen", "rejected")
    short = (r for r in rows if sum(len(str(r.get(k, ""))) for k in ("prompt", *answers)) < 900)
    return list(itertools.islice((r for r in short if r.get("style", "free") == "free"), count))


BEHIND = {"gemma": "\n", "phi3": "<|endoftext|>", "qwen2.5-base": "\n"}  # what TRL learns behind the end of a turn


@pytest.mark.parametrize(
    "name", ["llama3", "gemma", "phi3", "mistral", "qwen2.5-base", "llama3-base", "gpt2", "marked"]
)
def test_sft_learns_trls_tokens(name: str, tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    words = tokenizer(name)
    row: dict[str, Any] = {"prompt": TALK[:1], "completion": TALK[1:2]}
    if name == "marked":
        row = {"messages": TALK}
    elif words.chat_template is None:
        row = {"prompt": "What is 0 plus 1?", "completion": " The answer is 1."}
    masked: Any = {"assistant_only_loss": True} if name == "marked" else {"completion_only_loss": True}
    model = new_model(SHAPE, words).model
    rows = datasets.Dataset.from_list([row])
    trainer = SFTTrainer(model, arguments(SFTConfig, tmp_path, **masked), train_dataset=rows, processing_class=words)
    batch = trainer.data_collator([trainer.train_dataset[0]])
    ids, labels = (batch[k][0].tolist() for k in ("input_ids", "labels"))
    (document,) = documents(words, [row])
    own = [t for t, yes in zip(document.completions[0], document.learned[0], strict=True) if yes]
    theirs = [t for t in labels if t != -100]
    assert own == theirs[: len(own)] and words.decode(theirs[len(own) :]) == BEHIND.get(name, "")
    assert document.prompt + document.completions[0] == ids[: document.size]


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

    made = ready(RewardModel(**settings(task, request), center_rewards_coefficient=center or 0.0))
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
    ("task", "loss_type"), [*((ticket_preferences, f) for f in ("sigmoid", "hinge", "ipo")), (hh_rlhf, "sigmoid")]
)
def test_dpo_is_trls(task: Any, loss_type: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    from trl import DPOConfig, DPOTrainer

    made = ready(DPO(**settings(task, request), loss_type=loss_type, beta=0.3))
    rows = rows_of(task)
    theirs, reference = copy.deepcopy(made._lm.model), copy.deepcopy(made._reference.model.double())
    config = arguments(DPOConfig, tmp_path, max_length=1024, beta=0.3, loss_type=[loss_type])
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


def grpo(**settings: Any) -> GRPO:
    term = Term("noise", 1.0, "rllab.rewards:noise", {}, None, False)
    rows = {"task": ticket_preferences, "shape": SHAPE, "length": 256, "reward": term, "max_new_tokens": 12}
    return GRPO(**rows | {"num_generations": 4, "batch_size": 3} | settings)


def groups_of(made: Any, seed: int) -> list[Group]:
    """Groups of random completions, with rewards of which one group's are all the same."""
    rng, prompts = np.random.default_rng(seed), documents(made._lm.tokenizer, rows_of(ticket_preferences, 3))
    groups = []
    for i, document in enumerate(prompts):
        sizes = rng.integers(1, 12, made.num_generations)
        completions = [
            Completion(i, j, rng.integers(10, len(made._lm.tokenizer), n).tolist(), [], True)
            for j, n in enumerate(sizes)
        ]
        scores = rng.normal(size=(made.num_generations, 1)) * (i != 1)
        groups.append(Group({}, i, document.prompt, completions, [""] * made.num_generations, [], scores))
    return groups


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dapo", "dr_grpo"])
@pytest.mark.parametrize(
    "more",
    [{}, {"epsilon_high": 0.4, "epsilon": 0.1}, {"importance_sampling_level": "sequence"}, {"beta": 0.3}],
    ids=str,
)
def test_grpo_is_trls(loss_type: Any, more: dict[str, Any], tmp_path: Path) -> None:
    from trl import GRPOConfig, GRPOTrainer

    made = ready(grpo(loss_type=loss_type, **more))
    groups, theirs = groups_of(made, 4), copy.deepcopy(made._lm.model)
    config = arguments(
        GRPOConfig,
        tmp_path,
        loss_type=loss_type,
        max_completion_length=12,
        num_generations=4,
        per_device_train_batch_size=12,
        steps_per_generation=1,
        **{k: v for k, v in more.items() if k != "beta"},
    )
    rows = datasets.Dataset.from_list([{"prompt": "Ana"}] * 12)
    trainer = GRPOTrainer(theirs, lambda **_: [0.0], config, train_dataset=rows, processing_class=made._lm.tokenizer)
    trainer.current_gradient_accumulation_steps, trainer.beta = 1, more.get("beta", 0.0)
    each = [(g.prompt, c) for g in groups for c in g.completions]
    completions = [torch.tensor(c.ids) for _, c in each]
    prompts = [torch.tensor(p) for p, _ in each]
    inputs = {
        "prompt_ids": pad_sequence(prompts, batch_first=True, padding_side="left"),
        "prompt_mask": pad_sequence([torch.ones_like(x) for x in prompts], batch_first=True, padding_side="left"),
        "completion_ids": pad_sequence(completions, batch_first=True),
        "completion_mask": pad_sequence([torch.ones_like(x) for x in completions], batch_first=True),
        "num_items_in_batch": torch.tensor(float(sum(map(len, completions)))),
    }
    now = transformers_logp(made._lm.model, inputs)
    old = now + 0.3 * torch.randn(now.shape, generator=torch.Generator().manual_seed(1), dtype=now.dtype)
    for (_, completion), logp in zip(each, old, strict=True):
        completion.logp.extend(logp[: len(completion.ids)].tolist())
    advantages = made._advantages(groups)
    (batch,) = made._batches(groups, advantages)
    batch = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    batch["old_logp"] = batch["sampled_logp"]
    if "beta" in more:
        batch = refer(made, batch)
        inputs["ref_per_token_logps"] = transformers_logp(made._reference.model, inputs)
    inputs |= {"old_per_token_logps": old, "advantages": torch.from_numpy(advantages).flatten()}
    assert (advantages[1] == 0).all() and batch["completion"].max() > 1
    check_same(made, batch, trainer, theirs, inputs)


def transformers_logp(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """log p of each token of the completions [N, M], by transformers' own forward pass."""
    ids, mask = (torch.cat([inputs[f"prompt_{k}"], inputs[f"completion_{k}"]], 1) for k in ("ids", "mask"))
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
    count = inputs["completion_ids"].shape[1]
    logp: Tensor = logits[:, -count - 1 : -1].log_softmax(-1)
    return logp.gather(-1, inputs["completion_ids"][..., None]).squeeze(-1)


def refer(made: Any, batch: Batch) -> Batch:
    """The batch with log-probabilities of a reference that is another model."""
    made._reference.model.double()
    for p in made._reference.model.parameters():
        torch.nn.init.normal_(p, 1.0 if p.ndim == 1 else 0.0, 0.1)
    return {**made._with_old(batch), "old_logp": batch["old_logp"]}
