"""Losses and gradients compared with TRL's own trainers, on the same rows and weights."""

import copy
import itertools
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from families import CALLING, CHATS, TALK, WEATHER, by_hand, tokenizer, turns
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
    made = task()
    rows = (made.row(i, "train") for i in range(200))
    answers = ("completion", "chosen", "rejected")
    short = (r for r in rows if sum(len(str(r.get(k, ""))) for k in ("prompt", *answers)) < 900)
    return list(itertools.islice((r for r in short if r.get("style", "free") == "free"), count))


CALLS: dict[str, Any] = {"prompt": CALLING[:1], "tools": json.dumps([WEATHER])}
ROWS: dict[str, dict[str, Any]] = {
    "one turn": {"prompt": TALK[:1], "completion": TALK[1:2]},
    "three turns": {"prompt": TALK[:5], "completion": TALK[5:]},
    "a user's message": {"prompt": TALK[:1], "completion": TALK[1:4]},
    "a call": {**CALLS, "completion": CALLING[1:2]},
    "a call and its result": {**CALLS, "completion": CALLING[1:4]},
}
# what TRL learns behind the end of the last turn: a template writes it, and no policy samples it
BEHIND = {"gemma": "\n", "phi3": "<|endoftext|>", "qwen2.5": "\n", "qwen2.5-base": "\n", "qwen3": "\n", "marked": "\n"}
RESULTS = {  # the result of a tool, from the end of the call to the begin of the answer
    "llama3": '<|start_header_id|>ipython<|end_header_id|>\n\n"{\\"sun\\": true}"<|eot_id|>'
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": '[TOOL_RESULTS]  {"content": {"sun": true}, "call_id": "call00001"}[/TOOL_RESULTS]',
    "qwen2.5": '\n<|im_start|>user\n<tool_response>\n{"sun": true}\n</tool_response><|im_end|>\n'
    "<|im_start|>assistant\n",
}
RESULTS |= dict.fromkeys(("qwen2.5-base", "qwen3"), RESULTS["qwen2.5"])
PLAIN = ("llama3-base", "gpt2", "opt", "bloom")


def tokens_of_trl(name: str, rows: Sequence[dict[str, Any]], path: Path, **masked: Any) -> list[list[tuple[int, bool]]]:
    """The tokens of rows in TRL's own data path, and whether each is learned."""
    from trl import SFTConfig, SFTTrainer

    words = tokenizer(name)
    dataset, config = (
        datasets.Dataset.from_list(list(rows)),
        arguments(SFTConfig, path, shuffle_dataset=False, **masked),
    )
    trainer = SFTTrainer(new_model(SHAPE, words).model, config, train_dataset=dataset, processing_class=words)
    each = []
    for i in range(len(rows)):
        batch = trainer.data_collator([trainer.train_dataset[i]])
        labels = [label != -100 for label in batch["labels"][0].tolist()]
        each.append(list(zip(batch["input_ids"][0].tolist(), labels, strict=True)))
    return each


def only_trls(name: str, row: dict[str, Any], theirs: list[tuple[int, bool]]) -> list[str]:
    """The text of each run of tokens that TRL learns and the lab does not; all else is the same."""
    words = tokenizer(name)
    (document,) = documents(words, [row])
    ours = [(token, False) for token in document.prompt]
    ours += zip(document.completions[0], document.learned[0], strict=True)
    assert [token for token, _ in ours] == [token for token, _ in theirs[: len(ours)]]
    ours += [(token, False) for token, _ in theirs[len(ours) :]]
    assert all(yes for (_, mine), (_, yes) in zip(ours, theirs, strict=True) if mine)
    both = zip(ours, theirs, strict=True)
    runs = itertools.groupby(both, key=lambda pair: pair[1][1] and not pair[0][1])
    return [str(words.decode([token for (token, _), _ in run])) for only, run in runs if only]


def between(name: str) -> str:
    """The user's message in "a user's message": all that stands between the two turns of the assistant."""
    written = turns(name, ROWS["a user's message"]["prompt"] + ROWS["a user's message"]["completion"])
    ids, learned = by_hand(tokenizer(name), written)
    first = learned.index(True)
    start = learned.index(False, first)
    return str(tokenizer(name).decode(ids[start : learned.index(True, start)]))


@pytest.mark.parametrize("name", [n for n in CHATS if n != "r1"])
def test_sft_learns_trls_tokens(name: str, tmp_path: Path) -> None:
    """But for what stands behind the last turn, and for messages of the user and of tools in a completion."""
    tools = ["a call", "a call and its result"] if name in RESULTS else []
    for kinds in (["one turn", "three turns", "a user's message"], tools):
        rows = [ROWS[kind] for kind in kinds]
        for kind, row, theirs in zip(kinds, rows, tokens_of_trl(name, rows, tmp_path) if rows else [], strict=True):
            more = {"a user's message": between, "a call and its result": RESULTS.get}.get(kind)
            expected = [more(name)] if more else []
            assert only_trls(name, row, theirs) == expected + [BEHIND[name] for _ in range(name in BEHIND)], kind


@pytest.mark.parametrize("name", ["marked", "smollm3"])
def test_sft_learns_trls_tokens_of_the_assistant(name: str, tmp_path: Path) -> None:
    """Where a template marks them, with assistant_only_loss: also of completions of several messages."""
    for rows in ([{"messages": TALK}, {"messages": TALK[:2]}], [ROWS["a user's message"]]):
        for row, theirs in zip(rows, tokens_of_trl(name, rows, tmp_path, assistant_only_loss=True), strict=True):
            assert only_trls(name, row, theirs) == []


def test_trl_refuses_conversations_with_a_template_that_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="chat template is not training-compatible"):
        tokens_of_trl("gemma", [{"messages": TALK}], tmp_path, assistant_only_loss=True)


@pytest.mark.parametrize("name", PLAIN)
def test_sft_learns_trls_tokens_of_texts(name: str, tmp_path: Path) -> None:
    row = {"prompt": "What is 0 plus 1?", "completion": " The answer is 1."}
    (theirs,) = tokens_of_trl(name, [row], tmp_path)
    assert only_trls(name, row, theirs) == []


def test_thinking_that_r1s_template_leaves_out_is_not_learned_by_trl(tmp_path: Path) -> None:
    """The template opens the thinking in the prompt and drops it from messages: TRL learns answers without it."""
    words, answer = tokenizer("r1"), "The answer is 1.<｜end▁of▁sentence｜>"
    row = {"prompt": TALK[:1], "completion": [TALK[1] | {"content": "<think>\nwe add\n</think>\n\nThe answer is 1."}]}
    ((*tokens,),) = tokens_of_trl("r1", [row], tmp_path)
    texts = [str(words.decode([token for token, learned in tokens if learned is yes])) for yes in (False, True)]
    (document,) = documents(words, [row])
    prompt = str(words.decode(document.prompt))
    assert prompt == texts[0] + "<think>\n" and texts[1] == "\n\n" + answer
    assert words.decode(document.completions[0]) == "we add\n</think>\n\n" + answer


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
