"""What a recipe needs of the hub and of packages is known without a network and without loading weights."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from rllab_envs import tasks
from rllab_envs.tasks import published

from rllab.cluster.fetch import Need, missing, needs
from rllab.core import hub
from rllab.core.recipe import Recipe, load_recipe, read_recipe, recipe_names, recipes_folder

HUB_NAME = re.compile(r"(?<![\w./-])([A-Za-z][\w.-]+/[A-Za-z][\w.-]+)(?![\w./-]|\s*:)")
NO_HUB = ("rllab/", "runs/", "recipes/", "src/", "docs/", "envs/")
"""Beginnings of other names with a slash."""


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache of the hub, and no folder RLLAB_DATA. Returns the cache."""
    monkeypatch.delenv("RLLAB_DATA", raising=False)
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)
    return cache


def recipe(folder: Path, **settings: Any) -> Recipe:
    text = json.dumps({"algo": "SFT", "task": "pocket", "total_steps": 1} | settings)
    return read_recipe(text, "mine.yaml", folder, "mine")


def of_hub(found: list[Need]) -> set[tuple[str, str]]:
    return {(need.kind, need.name) for need in found if need.is_absent}


def written_in(name: str) -> set[str]:
    """The names of the hub in the text of a recipe and of its stages, and those of the published tasks."""
    text = (recipes_folder() / f"{name}.yaml").read_text("utf-8")
    text = re.sub(r"(^|\s)#.*", "", text, flags=re.M)
    names = {n for n in HUB_NAME.findall(text) if not n.startswith(NO_HUB)}
    own = Path(published.__file__).read_text("utf-8")
    for cls, set_ in re.findall(r"class (\w+)\(Dataset\).*?here\(.*?, \"([^\"]*)\"\)", own, re.S):
        alias = next(a for a in ("gsm8k", "math500", "hh_rlhf", "llmbar") if getattr(tasks, a).__name__ == cls)
        names |= {set_} if re.search(rf"\b{alias}\b", text) else set()
    stages = set(re.findall(r"run:([\w-]+)", text))
    return names.union(*(written_in(stage) for stage in stages))


@pytest.mark.parametrize("name", recipe_names())
def test_all_that_a_recipe_names_of_the_hub_is_seen(name: str, tmp_path: Path) -> None:
    assert {n for _, n in of_hub(needs(load_recipe(name), tmp_path))} == written_in(name)


def test_the_names_in_recipes_are_found() -> None:
    """The test above cannot pass because it sees nothing."""
    assert written_in("gsm8k-r1-distill") == {"openai/gsm8k", "Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-1.5B"}
    assert written_in("rlhf-hh") == {"Anthropic/hh-rlhf", "Qwen/Qwen2.5-0.5B-Instruct"}


def test_every_way_to_name_something_of_the_hub(tmp_path: Path, qwen: Path) -> None:
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    (tmp_path / "mine.py").write_text(
        "import datasets\ndef Task():\n    datasets.load_dataset('org/mine')\n"
    )  # of its own, not by the lab's functions
    rows = {"name": "dataset", "path": "org/rows", "config": "main"}
    each = {
        ("model", "org/base"): {"model": str(tmp_path / "adapters")},
        ("model", "org/model@v2"): {"model": "org/model@v2"},
        ("tokenizer", "org/words"): {"shape": {"model_type": "qwen2"}, "tokenizer": "org/words"},
        ("dataset", "org/rows"): {"model": str(qwen), "task": rows},
        ("model", "org/teacher"): {
            "algo": "Distill", "model": str(qwen), "reward": "accuracy", "teacher": "org/teacher",
        },
        ("model", "org/verifier"): {
            "algo": "GRPO", "model": str(qwen), "reward": [{"name": "proving", "verifier": "org/verifier"}],
        },
        ("model", "org/scorer"): {
            "algo": "GRPO", "model": str(qwen),
            "reward": ["accuracy", {"name": "rllab.rewards.trained:Trained", "model": "org/scorer"}],
        },
    }  # fmt: skip
    for expected, settings in each.items():
        assert of_hub(needs(recipe(tmp_path, **settings))) == {expected}
    mixed = recipe(tmp_path, algo="Distill", model=str(qwen), reward="accuracy", supervised={"task": rows})
    (sentence,) = missing(mixed)
    assert sentence == (
        "mine.yaml:1: supervised: the data set org/rows is not in the hub's cache; on a node with a network: "
        "rllab fetch RECIPE"
    )
    (sentence,) = missing(recipe(tmp_path, model=str(qwen), task="mine.py:Task"))
    assert "mine.yaml:1: task: " in sentence and "org/mine" in sentence


def test_what_a_name_at_an_api_or_on_the_disk_is_needs_nothing(tmp_path: Path, qwen: Path) -> None:
    judge = {"name": "judge", "url": "http://localhost:1/v1", "model": "org/judge"}
    assert needs(recipe(tmp_path, algo="GRPO", model=str(qwen), reward=judge)) == []
    assert missing(load_recipe("cartpole")) == []


@pytest.mark.parametrize(
    ("settings", "where", "why"),
    [
        ({"model": "./nowhere"}, "model", "there is no such folder"),
        ({"model": "run:nowhere-1"}, "model", "nowhere-1"),
        ({"model": "QWEN", "task": {"name": "reasoning_gym", "dataset": "nothing"}}, "task", "has no dataset"),
        ({"model": "QWEN", "task": {"name": "llmbar"}}, "task", "llmbar is read from RLLAB_DATA/llmbar"),
        ({"model": "QWEN", "task": "none.jsonl"}, "task", "no such file"),
        ({"model": "QWEN", "lora": {"quantize": "nf4"}}, "lora", "bitsandbytes, which is not installed"),
        ({"algo": "DQN", "env": "nowhere:Maze-v0"}, "env", "no module 'nowhere'"),
        ({"algo": "DQN", "env": "rllab/CartPole-v1", "model": "org/model"}, "model", "there is no such folder"),
    ],
)
def test_what_is_not_of_the_hub_is_named_as_well(
    settings: dict[str, Any], where: str, why: str, tmp_path: Path, qwen: Path
) -> None:
    settings = {k: str(qwen) if v == "QWEN" else v for k, v in settings.items()}
    if settings.get("algo") == "DQN":
        text = json.dumps({"total_steps": 1} | settings)
        found = missing(read_recipe(text, "mine.yaml", tmp_path, "mine"))
    else:
        found = missing(recipe(tmp_path, **settings))
    assert len(found) == 1 and found[0].startswith(f"mine.yaml:1: {where}: ") and why in found[0], found


def test_a_snapshot_is_there_when_it_is_whole(empty: Path, qwen: Path, tmp_path: Path) -> None:
    of_cache = recipe(tmp_path, model="org/tiny")
    snapshot = empty / "models--org--tiny" / "snapshots" / ("a" * 40)
    shutil.copytree(qwen, snapshot)
    (empty / "models--org--tiny" / "refs").mkdir()
    (empty / "models--org--tiny" / "refs" / "main").write_text("a" * 40)
    assert [(n.kind, n.name, n.fault) for n in needs(of_cache)] == [("model", "org/tiny", "")]
    for file in ("model.safetensors", "tokenizer.json", "config.json"):
        (snapshot / file).rename(tmp_path / file)
        assert len(missing(of_cache)) == 1, file
        (tmp_path / file).rename(snapshot / file)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    (snapshot / "model.safetensors").rename(snapshot / "model-1.safetensors")
    assert of_hub(needs(of_cache)) == {("model", "org/tiny")}


def test_the_hub_is_asked_again_afterwards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with hub.offline(), hub.offline():
        assert hub.is_offline() and huggingface_hub.constants.HF_HUB_OFFLINE and datasets.config.HF_HUB_OFFLINE
    assert not (hub.is_offline() or huggingface_hub.constants.HF_HUB_OFFLINE or datasets.config.HF_HUB_OFFLINE)
