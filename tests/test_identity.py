"""The hash of a model, and what is refused when one is opened to be evaluated."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rllab.core.errors import FieldMistake, Mistake
from rllab.text import template
from rllab.text.identity import content_hash
from rllab.text.lora import Lora
from rllab.text.models import without_generation_config
from rllab.text.open import add_adapters, open_model
from rllab.text.sampler import Sampling, generate

Change = Callable[[Path], object]
WEIGHT = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def model(qwen: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen, tmp_path / "model"))


def one_byte(name: str) -> Change:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[-2] ^= 1
        (folder / name).write_bytes(content)

    return change


def write(name: str, text: str) -> Change:
    return lambda folder: (folder / name).write_text(text)


def weights(edit: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def change(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        edit(state)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    return change


@pytest.mark.parametrize(
    "change",
    [
        *map(one_byte, ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")),
        one_byte("config.json"),
        write("special_tokens_map.json", "{}"),
        lambda folder: (folder / "chat_template.jinja").unlink(),
    ],
)
def test_what_decides_an_answer_changes_the_hash(change: Change, model: Path, qwen: Path) -> None:
    assert content_hash(str(model)) == content_hash(str(qwen)) and len(content_hash(str(qwen))) == 64
    change(model)
    assert content_hash(str(model)) != content_hash(str(qwen))


@pytest.mark.parametrize("name", ["generation_config.json", "README.md", "trainer/optim.safetensors", "manifest.json"])
def test_what_decides_no_answer_does_not(name: str, model: Path, qwen: Path) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text('{"num_beams": 16}')
    assert content_hash(str(model)) == content_hash(str(qwen))


def test_a_file_is_read_again_only_where_it_may_have_changed(
    model: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, file, read = content_hash(str(model)), model / "model.safetensors", list[Path]()
    open_file = Path.open
    monkeypatch.setattr("builtins.open", lambda path, *a: read.append(Path(path)) or open_file(Path(path), *a))
    assert content_hash(str(model)) == first and file not in read
    os.utime(file, ns=(1, 1))
    assert content_hash(str(model)) == first and file in read


def test_large_files_are_hashed_in_parts(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rllab.text.identity._PART", 1000)
    os.utime(model / "model.safetensors", ns=(1, 1))
    first = content_hash(str(model))
    for place in (0, 999, 1000, -1):
        content = bytearray((model / "model.safetensors").read_bytes())
        content[place] ^= 1
        (model / "model.safetensors").write_bytes(content)
        assert content_hash(str(model)) != first
        content[place] ^= 1
        (model / "model.safetensors").write_bytes(content)
        assert content_hash(str(model)) == first


def adapters(base: Path, folder: Path) -> Path:
    lm = add_adapters(open_model(str(base)), Lora(r=2))
    folder.mkdir()
    save_file(lm.part.state_dict(), folder / "adapter_model.safetensors")
    lm.write_files(folder)
    return folder


def edit_config(folder: Path, **values: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_adapters_are_hashed_with_their_base(model: Path, tmp_path: Path) -> None:
    folder = adapters(model, tmp_path / "adapters")
    first = content_hash(str(folder))
    assert first != content_hash(str(model))
    moved = tmp_path / "elsewhere"
    shutil.copytree(model, moved)
    edit_config(folder, base_model_name_or_path=str(moved))
    assert content_hash(str(folder)) == first
    edit_config(folder, lora_alpha=77)
    assert content_hash(str(folder)) != first
    edit_config(folder, lora_alpha=json.loads((folder / "adapter_config.json").read_text())["lora_alpha"])
    second = content_hash(str(folder))
    weights(lambda state: state[WEIGHT].add_(1.0))(moved)
    assert content_hash(str(folder)) != second
    with pytest.raises(FieldMistake, match="trained on other weights"):
        open_model(str(folder))
    edit_config(folder, base_model_name_or_path=str(folder))
    with pytest.raises(FieldMistake, match="are their own base"):
        content_hash(str(folder))


def without_tokenizer(folder: Path) -> None:
    for file in (*folder.glob("tokenizer*"), folder / "chat_template.jinja"):
        file.unlink()


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


LOOPS = "".join(f"{{% for a{i} in range(99999) %}}" for i in range(6)) + "x" + "{% endfor %}" * 6
ENDLESS = write("chat_template.jinja", LOOPS)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (without_tokenizer, "has no tokenizer.json"),
        (lambda folder: os.truncate(folder / "model.safetensors", 5000), "a safetensors file is damaged"),
        (weights(lambda state: state.pop(WEIGHT)), f"its weights lack {WEIGHT}"),
        (weights(lambda state: state.update({WEIGHT: torch.zeros(2, 3)})), "other shapes than its config.json says"),
        (weights(lambda state: state[WEIGHT].fill_(torch.nan)), "its outputs are not numbers"),
        (weights(lambda state: state[WEIGHT].fill_(torch.inf)), "its outputs are not numbers"),
        (pickled, "its weights are pickled"),
        (ENDLESS, "its chat template does not end within 1 seconds"),
        (write("config.json", "{"), "config.json"),
    ],
)
def test_a_model_that_cannot_be_evaluated_is_refused_in_one_line(
    change: Change, fault: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if change is ENDLESS:
        monkeypatch.setattr(template, "DEADLINE", 1.0)
    change(model)
    with pytest.raises(Mistake) as error:
        content_hash(str(model))
        generate(without_generation_config(open_model(str(model))), [[5, 6]], Sampling(max_new_tokens=2))
    assert fault in str(error.value) and str(model) in str(error.value) and "\n" not in str(error.value)


def test_a_generation_config_of_another_form_is_ignored(model: Path) -> None:
    (model / "generation_config.json").write_text('{"cache_implementation": "none", "eos_token_id": 5}')
    with pytest.warns(UserWarning, match=r"its generation_config\.json is ignored"):
        lm = without_generation_config(open_model(str(model)))
    assert 5 not in lm.stop_ids


def test_names_that_are_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FieldMistake, match="there is no such folder"):
        content_hash(str(tmp_path / "missing"))
    with pytest.raises(FieldMistake, match=r"no config\.json"):
        content_hash(str(tmp_path))
