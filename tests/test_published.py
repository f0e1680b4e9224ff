"""Published datasets, and the recipes for a GPU on a local folder of the same architecture in small."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from rllab.answers import judge
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer

QWEN = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMALL = {"batch_size": 4, "micro_batch": 2, "eval_rows": 4, "headline_rows": 4, "eval_every": 2, "total_steps": 2}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 in small, with a byte-level BPE tokenizer and Qwen's chat format, as the hub has them."""
    folder = tmp_path_factory.mktemp("qwen")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    text = ["How many clips did Natalia sell altogether in April and May? 48 + 24 = 72\n"] * 20
    tokenizer.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = QWEN
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(fast),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def test_gsm8k(data: Path) -> None:
    from rllab_envs.text import gsm8k

    task = gsm8k()
    assert task.size("test") == 1319 and task.size("train") + task.size("validation") == 7473
    for i in range(0, 1319, 7):
        row = task.row(i, "test")
        assert "<<" not in row["completion"][0]["content"]
        assert judge(row["completion"][0]["content"], row["target"], row["kind"]).correct


def test_llmbar(data: Path) -> None:
    from rllab_envs.text import llmbar

    sizes = [
        sum(llmbar(part=p).size(s) for s in ("train", "validation", "test"))
        for p in ("natural", "adversarial_gptinst", "adversarial_gptout", "adversarial_manual", "adversarial_neighbor")
    ]
    assert sizes == [100, 92, 47, 46, 134]
    first = [llmbar().row(i, "train") for i in range(20)]
    assert all(r["chosen"][0]["content"] != r["rejected"][0]["content"] for r in first)


@pytest.mark.parametrize(
    ("recipe", "settings", "metric"),
    [
        ("gsm8k-lora", {"max_new_tokens": 8, "length": 2048}, "eval/cot"),
        ("gsm8k-full", {"max_new_tokens": 8, "length": 2048}, "eval/nll"),
        ("reward-hh", {"length": 1024}, "eval/length_bias"),
        ("dpo-ultrafeedback", {"task": "hh_rlhf", "length": 1024}, "eval/accuracy"),
    ],
)
def test_recipes_for_a_gpu_run_in_small(
    recipe: str, settings: dict[str, Any], metric: str, data: Path, qwen: Path, tmp_path: Path
) -> None:
    read = load_recipe(recipe, SMALL | settings | {"model": str(qwen), "device": "cpu", "optim.warmup": 0})
    trainer = Trainer(read, tmp_path / "run")
    *_, last = list(trainer)
    assert metric in last and last["loss/total"] > 0 and trainer.headline is not None
    told = trainer.algorithm.preflight()
    assert told["rows looked at"] > 1900 and "tokens of a row" in told
