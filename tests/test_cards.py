"""Model folders for the hub: their cards are read by the hub's own parser, and their snippets load the models."""

import contextlib
import io
import re
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from conftest import run as train
from huggingface_hub import EvalResult, ModelCard
from typer.testing import CliRunner

from rllab.board.cards import base_of, card, known_numbers, origin
from rllab.cli import app
from rllab.core.errors import Mistake
from rllab.core.recipe import load_recipe
from rllab.core.run import RunFolder
from rllab.stats import wilson

HUB = "tiny/qwen"
LORA = {"shape": {}, "model": HUB, "length": 512, "total_steps": 2, "save_every": 1, "eval_every": 1, "keep": 9}
LORA |= {"retention_task": None}


def export(*words: str) -> Any:
    return CliRunner().invoke(app, ["export", *words, "--to", "hf"])


def snippet(folder: Path) -> str:
    """What the Python in a card prints, in the folder above."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.S)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "README.md", "exec"), {})
    return out.getvalue()


@pytest.fixture
def hub(qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the hub with one model, and no network."""
    from huggingface_hub import constants

    repository = tmp_path / "hub" / "models--tiny--qwen"
    shutil.copytree(qwen, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("abc")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def test_a_whole_model_with_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("pocket", {"save_every": 2, "keep": 9, "eval_every": 2, "total_steps": 4}, smoke=True)
    folder = train(recipe, tmp_path / "runs/x").folder
    assert export("x", "-o", "mine").exit_code == 0
    loaded = ModelCard.load(Path("mine/README.md"))
    data, written = cast(Any, loaded.data), Path("mine/README.md").read_text("utf-8")
    assert (data.library_name, data.pipeline_tag, data.license, data.base_model) == (
        "transformers", "text-generation", None, None,
    )  # fmt: skip
    assert data.tags == ["rllab", "sft"] and "\nlicense:  # to be filled in" in written
    headline = folder.status()["headline"]
    first: EvalResult = data.eval_results[0]
    assert (first.dataset_name, first.dataset_split, first.metric_value) == ("pocket", "test", headline["value"])
    low, high = headline["interval"]
    assert first.metric_name == f"{headline['name']}, 95 % interval {low:.4g} to {high:.4g}"
    assert not any(word in written for word in (str(tmp_path), "vm", folder.status()["time"][:10]))
    (text,) = re.findall(r"```yaml\n(.*?)```", written, re.S)
    assert load_recipe(_written(tmp_path / "again.yaml", text)).plain == recipe.plain
    assert snippet(Path("mine"))
    files = {p.name for p in Path("mine").iterdir()}
    assert {"model.safetensors", "config.json", "README.md"} <= files and not files & {"trainer", "manifest.json"}
    assert export("x", "-o", "mine").exception is not None and isinstance(export("x", "-o", "mine").exception, Mistake)


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_card_has_the_numbers_that_were_known_at_its_checkpoint(tmp_path: Path) -> None:
    changes = {"save_every": 2, "keep": 9, "eval_every": 2, "total_steps": 4, "eval_rows": 4}
    folder = train(load_recipe("pocket", changes, smoke=True), tmp_path / "runs/x").folder
    early, late = known_numbers(folder, 2), known_numbers(folder, 4)
    rows = {row["step"]: row for row in folder.rows()}
    assert (early.step, late.step) == (2, 4)
    assert {n.name: n.value for n in early.each} == {k: v for k, v in rows[2].items() if k.startswith("eval/")}
    assert {n.split for n in early.each} == {"validation"} and late.each[0].split == "test"
    share = next(n for n in early.each if n.name == "eval/cot")
    assert share.interval == wilson(round(4 * share.value), 4) and share.rows == 4
    recipe = tmp_path / "runs/x/recipe.yaml"
    recipe.write_text(re.sub("(eval|headline)_rows: .*", r"\1_rows: 1000", recipe.read_text()))
    fewer = known_numbers(folder, 4).each  # than were asked for
    assert {n.rows for n in fewer if n.rows} == {4}
    assert fewer[0].interval == late.each[0].interval and late.each[0].rows and not fewer[0].rows
    assert next(n for n in early.each if n.name == "eval/nll").interval is None
    model = tmp_path / "runs/x/checkpoints/00000002"
    assert origin(model) is not None and origin(tmp_path) is None
    assert card(folder, 2, model, "x") == card(folder, 2, model, "x") != card(folder, 4, model, "x")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # in peft
def test_adapters_stay_adapters_of_their_base(hub: None) -> None:
    train(load_recipe("sft-lora", LORA, smoke=True), Path("runs/x"))
    result = export("x@1", "-o", "mine")
    assert result.exit_code == 0, result.exception
    data: Any = ModelCard.load(Path("mine/README.md")).data
    assert (data.base_model, data.base_model_relation, data.library_name) == (HUB, "adapter", "peft")
    assert "lora" in data.tags and all(r.dataset_split == "validation" for r in data.eval_results)
    assert Path("mine/adapter_model.safetensors").is_file() and not Path("mine/model.safetensors").exists()
    assert "model [tiny/qwen](https://huggingface.co/tiny/qwen), revision abc" in Path("mine/README.md").read_text()
    assert isinstance(snippet(Path("mine")), str)
    merged = CliRunner().invoke(app, ["merge", "x", "--out", "whole"])
    assert merged.exit_code == 0, merged.exception
    data = ModelCard.load(Path("whole/README.md")).data
    assert (data.base_model, data.base_model_relation, data.library_name) == (HUB, "finetune", "transformers")
    assert snippet(Path("whole")) is not None


def test_adapters_on_a_folder_are_refused(qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(load_recipe("sft-lora", LORA | {"model": str(qwen), "total_steps": 1}, smoke=True), Path("runs/x"))
    assert "rllab merge x@1 --out mine" in str(export("x", "-o", "mine").exception)
    assert base_of(RunFolder(Path("runs/x"))) is None


def test_a_reward_model_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(load_recipe("reward-model", {"total_steps": 1}, smoke=True), tmp_path / "runs/x")
    assert export("x", "-o", "mine").exit_code == 0
    data: Any = ModelCard.load(Path("mine/README.md")).data
    assert data.pipeline_tag == "text-classification" and "reward-model" in data.tags
    float(snippet(Path("mine")))


def test_what_is_no_language_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(load_recipe("cartpole", {"total_steps": 1}, smoke=True), tmp_path / "runs/x")
    assert "is a run of DQN and holds no language model" in str(export("x", "-o", "mine").exception)
    assert "writes the model of one run into a folder" in str(export("x").exception)
    assert yaml.safe_load((tmp_path / "runs/x/recipe.yaml").read_text())["track"] == []
