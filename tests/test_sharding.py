"""`shard: true`: several ranks that hold a part of each weight train as one that holds them all."""

import json
from pathlib import Path

import pytest
import torch
from rllab_envs.tasks.pocket import Pocket
from safetensors.torch import load_file, save_file
from test_ranks import rows, start

from rllab.core.checkpoint import weights_of
from rllab.core.errors import Mistake
from rllab.core.load import model_folder, preflight
from rllab.core.recipe import load_recipe
from rllab.text.models import new_model
from rllab.text.tokenizers import tokenizer_for

TRAIN = ("-m", "rllab", "train")
SETTINGS = ("--smoke", "precision=fp32", "batch_size=7", "seed=3", "shard=true")
SHAPE = "shape={model_type: qwen3, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, "
SHAPE += "num_key_value_heads: 2, head_dim: 8, intermediate_size: 32}"
ADAMW = "optim={name: adamw, lr: 0.001, max_grad_norm: 0.5}"


BY_LAYER = (
    "-c",
    "import runpy, sys; import rllab.core.sharding as s; import rllab.text.open as o; s._WHOLE = 0.0\n"
    "if '--world-1' not in sys.argv: o._open_whole = None\n"
    "sys.argv = ['rllab', 'train', *(w for w in sys.argv[1:] if w != '--world-1')]\n"
    "runpy.run_module('rllab', run_name='__main__')",
)
"""Trains with a model that is never read whole, and without whole weights on a rank while it samples."""


def train(
    runs: Path, name: str, worlds: list[int], *words: str, program: tuple[str, ...] = TRAIN
) -> dict[str, torch.Tensor]:
    """Trains four rounds, the last two of them by another number of ranks if two are given; returns the weights."""
    for world, steps in zip(worlds, [2, 4][-len(worlds) :], strict=True):
        settings = ("--runs", str(runs), "--name", name, f"total_steps={steps}")
        alone = ("--world-1",) if world == 1 and program is not TRAIN else ()
        done = start(world, *alone, *words, *SETTINGS, ADAMW, *settings, program=program)
        assert all(code == 0 for code, _ in done), done
    (file,) = Path(model_folder(name, runs)).glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize(
    ("worlds", "words"),
    [
        ([2, 1], ("pocket", SHAPE, "micro_batch=1", "gradient_checkpointing=true")),
        ([3, 2], ("grpo", "reward=[brevity, format]", "beta=0.05", "num_iterations=2", "num_minibatches=2")),
        ([1, 2], ("sft-lora", "lora={r: 2, lora_alpha: 4}")),
    ],
    ids=["sft", "grpo", "lora"],
)
def test_sharded_ranks_train_as_one(worlds: list[int], words: tuple[str, ...], tmp_path: Path) -> None:
    """One rank holds whole weights. What ranks have saved in parts any number of ranks reads."""
    one, several = train(tmp_path, "one", [1], *words), train(tmp_path, "several", worlds, *words)
    for name, w in one.items():
        assert float((several[name] - w).norm()) <= 1e-5 * float(w.norm()), name
    for a, b in zip(rows(tmp_path / "one"), rows(tmp_path / "several"), strict=True):
        assert b == pytest.approx(a, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("words", [("beta=0.05",), ("lora={r: 2, lora_alpha: 4}",)], ids=["reference", "lora"])
def test_no_rank_holds_whole_weights(words: tuple[str, ...], tmp_path: Path) -> None:
    """A model is split as it is read; ranks sample layer by layer, with other numbers of prompts and of tokens."""
    shape = load_recipe("grpo", smoke=True).algorithm.shape | {"num_hidden_layers": 2}
    torch.manual_seed(0)
    lm = new_model(shape, tokenizer_for(Pocket()))
    (tmp_path / "model").mkdir()
    save_file(weights_of(lm.model), tmp_path / "model/model.safetensors", {"format": "pt"})
    lm.write_files(tmp_path / "model")
    given = ("grpo", f"model={tmp_path / 'model'}", "shape={}", "reward=[brevity, format]", *words)
    one = train(tmp_path, "one", [1], *given)
    several = train(tmp_path, "several", [2, 1], *given, program=BY_LAYER)
    for name, w in one.items():
        assert float((several[name] - w).norm()) <= 1e-5 * float(w.norm()), name
    for a, b in zip(rows(tmp_path / "one"), rows(tmp_path / "several"), strict=True):
        assert b == pytest.approx(a, rel=1e-3, abs=1e-5)
    config = Path(model_folder("several", tmp_path)) / "config.json"
    assert not config.exists() or json.loads(config.read_text())["architectures"] == ["Qwen3ForCausalLM"]


def test_a_stopped_sharded_run_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    """The moments are saved by the rank that has them, as safetensors alone; a damaged part is noticed."""
    words = ("pocket", SHAPE, "micro_batch=1", "save_every=2", "keep=2")
    whole = train(tmp_path, "whole", [2], *words)
    cut = train(tmp_path, "cut", [2, 2], *words)
    assert all(torch.equal(cut[k], w) for k, w in whole.items())
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    folder = tmp_path / "whole/checkpoints/00000004/trainer/split"
    parts = [load_file(f) for f in sorted(folder.iterdir())]
    moments = sum(w.numel() for p in parts for k, w in p.items() if k.endswith("exp_avg"))
    assert len(parts) == 2 and moments == sum(w.numel() for w in whole.values())
    assert all(0.4 * moments < sum(w.numel() for w in p.values()) / 2 < 0.6 * moments for p in parts)
    assert {f.suffix for f in folder.parents[1].rglob("*") if f.is_file()} == {".json", ".jinja", ".safetensors"}
    next(folder.iterdir()).write_bytes(b"damaged")
    done = start(
        2, *words, *SETTINGS, ADAMW, "--runs", str(tmp_path), "--name", "whole", "total_steps=5", program=TRAIN
    )
    assert all(code == 0 for code, _ in done) and "is damaged (trainer/split/" in done[0][1]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["pocket", "optim.name=muon"], "shard: muon needs whole matrices"),
        (["grpo", "precision=fp16"], "shard: fp16 is not sharded"),
        (["cartpole"], "shard: DQN cannot be sharded, only language models can: set it to false"),
        (["grpo", "shape={model_type: gpt2, n_layer: 1, n_embd: 8, n_head: 1}"], "a model of type gpt2 is not sharded"),
    ],
)
def test_what_cannot_be_sharded_is_refused_before_training(words: list[str], fault: str, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=fault):
        preflight(load_recipe(words[0], [*words[1:], "shard=true"], smoke=True), tmp_path)
