"""Model folders for the Hugging Face hub: the files of a checkpoint's model, with a model card as their README.md.

A card says the same whenever it is written of the same checkpoint, and names no machine, path or time. What it cannot
know is the licence, whose line is left to be filled in.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rllab.core.errors import Mistake
from rllab.core.files import read_json
from rllab.core.recipe import NOT_TRAINED
from rllab.core.run import RunFolder
from rllab.stats import wilson

ADAPTERS = "adapter_config.json"
OF_ROWS = ("accuracy", "direct", "cot", "free", "think_share", "truncated")  # shares of the rows of an evaluation
_NO_MODEL = ("manifest.json", "trainer")
_LICENSE = "license:  # to be filled in, as in apache-2.0; that of the base and of the data may bind you"

_WHOLE = """from transformers import {auto}, AutoTokenizer

name = "{name}"  # a folder, or its name on the hub
tokenizer = AutoTokenizer.from_pretrained(name)
model = {auto}.from_pretrained(name)
"""
_ADAPTERS = """from peft import {auto}
from transformers import AutoTokenizer

name = "{name}"  # a folder, or its name on the hub
tokenizer = AutoTokenizer.from_pretrained(name)
model = {auto}.from_pretrained(name{more})
"""
_CHAT = """messages = [{"role": "user", "content": "What is 3 + 4?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
"""
_PLAIN = """inputs = tokenizer("What is 3 + 4?", return_tensors="pt", return_token_type_ids=False)
"""
_ANSWER = """answer = model.generate(**inputs, max_new_tokens=64)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""
_SCORE = """print(model(**inputs).logits.item())  # the higher, the better
"""


@dataclass(frozen=True)
class Number:
    """A measured value. interval: of 95 %; rows: how many it was measured on. None where they are not known."""

    name: str
    value: float
    split: str
    interval: Sequence[float] | None = None
    rows: int | None = None


@dataclass(frozen=True)
class Numbers:
    """What is known of a checkpoint: the newest evaluation at it, and the final measurement if the run ended there."""

    step: int = 0  # of the evaluation; 0: there is none
    each: list[Number] = field(default_factory=list)


def origin(model: Path) -> tuple[RunFolder, int] | None:
    """The run and the round of a model folder in a checkpoint; None for another folder."""
    for folder in (model.resolve(), *model.resolve().parents):
        if folder.parent.name == "checkpoints" and folder.name.isdigit():
            run = RunFolder(folder.parents[1])
            return (run, int(folder.name)) if run.exists else None
    return None


def write_model(model: Path, out: Path) -> None:
    """Writes the model of a checkpoint with its card into the new folder `out`, ready for `hf upload`.

    model: its folder in the checkpoint.

    Raises:
        Mistake: `out` exists, the folder holds no language model of a run, or adapters whose base is not on the hub.
    """
    run, step = origin(model) or (None, 0)
    if run is None:
        raise Mistake(f"{model} is no model of a run; --to hf takes RUN or RUN@STEP")
    if out.exists():
        raise Mistake(f"{out} is there already; name another folder")
    if not any((model / name).is_file() for name in ("config.json", ADAPTERS)):
        algorithm = run.plain()["algo"]
        raise Mistake(f"{run.path} is a run of {algorithm} and holds no language model, which --to hf is for")
    if (model / ADAPTERS).is_file() and not _hub_name(str(read_json(model / ADAPTERS)["base_model_name_or_path"])):
        raise Mistake(
            f"{run.path} holds adapters on a base that is on this machine alone, so nobody else could load them; "
            f"rllab merge {run.path.name}@{step} --out {out} writes the whole model, with its card"
        )
    text, aside = card(run, step, model, out.name), out.with_name(f".{out.name}.{os.getpid()}")
    try:
        shutil.copytree(model, aside, ignore=shutil.ignore_patterns(*_NO_MODEL))
        (aside / "README.md").write_text(text, encoding="utf-8")
        os.replace(aside, out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def card(run: RunFolder, step: int, folder: Path, name: str) -> str:
    """The model card of a folder with the model of checkpoint `step`. name: of the model."""
    plain, numbers = run.plain(), known_numbers(run, step)
    hub = read_json(run.path / "env.json").get("hub", {})
    base = base_of(run)
    return "\n".join(
        [
            "---",
            _metadata(folder, name, plain, numbers, base, [n.removeprefix("datasets/") for n in hub if _is_data(n)]),
            f"---\n\n# {name}\n",
            f"{_kind(folder)} by {plain['algo'].rpartition(':')[2]}"
            + (f" from [{base}](https://huggingface.co/{base})" if base else "")
            + f", after round {step} of {plain['total_steps']}.\n",
            f"## How to load it\n\n```python\n{_snippet(folder, name)}```\n",
            f"## What it was trained on\n\n{_data(plain, hub)}\n",
            f"## What it reaches\n\n{_table(numbers)}\n",
            f"## How it was made\n\nBy `rllab train` with this recipe:\n\n```yaml\n{_recipe(plain)}```\n",
            _versions(run),
        ]
    )


def known_numbers(run: RunFolder, step: int) -> Numbers:
    """The newest evaluation of a run up to round `step`, and its headline if the run ended there."""
    plain, status = run.plain(), run.status()
    rows = (row for row in run.metrics.backward() if row["step"] <= step and any(k.startswith("eval/") for k in row))
    row = next(rows, {"step": 0})
    count = _evaluated(run, row["step"]) or None
    each = [_number(k, v, count) for k, v in row.items() if k.startswith("eval/")]
    headline = status.get("headline")
    if headline and status.get("state") == "done" and status.get("step") == step:
        final = _number(headline["name"], headline["value"], plain.get("headline_rows"), "test")
        # a test split with fewer rows than were asked for has another interval
        of_all = final.interval is not None and np.allclose(final.interval, headline["interval"])
        each = [replace(final, interval=headline["interval"], rows=final.rows if of_all else None), *each]
    return Numbers(row["step"], each)


def _evaluated(run: RunFolder, step: int) -> int:
    """On how many rows round `step` was evaluated: those of its samples, since a task may have fewer than eval_rows."""
    samples = run.samples_of(step, lambda s: s.get("split", "validation") == "validation")
    return max(Counter(str(sample.get("style")) for sample in samples).values(), default=0)


def _number(name: str, value: float, rows: int | None, split: str = "validation") -> Number:
    """A metric of an evaluation; a share of rows has an interval. rows: None if their number is not known."""
    right = value * (rows or 0)
    if rows is None or name.removeprefix("eval/") not in OF_ROWS or abs(right - round(right)) > 1e-6:
        return Number(name, value, split)
    return Number(name, value, split, wilson(round(right), rows), rows)


def base_of(run: RunFolder) -> str | None:
    """The model on the hub with which a run, or the run that made its model, began; None for a new model."""
    seen = set[Path]()
    while (model := str(run.plain().get("model") or "")) and run.path not in seen:
        if name := _hub_name(model):
            return name
        seen.add(run.path)
        run = next((RunFolder(p) for p in Path(model).parents if (p / "recipe.yaml").is_file()), run)
    return None


def _hub_name(model: str) -> str:
    """The name of a model on the hub, without its revision; "" for a folder."""
    name, path = model.partition("@")[0], Path(model)
    return "" if path.is_dir() or path.is_absolute() or name.startswith((".", "run:")) else name


def _is_data(name: str) -> bool:
    return name.startswith("datasets/")


def _is_reward(folder: Path) -> bool:
    if (folder / ADAPTERS).is_file():
        return bool(read_json(folder / ADAPTERS).get("task_type") == "SEQ_CLS")
    return any("SequenceClassification" in a for a in read_json(folder / "config.json").get("architectures") or [])


def _kind(folder: Path) -> str:
    model = "reward model" if _is_reward(folder) else "language model"
    return f"Adapters (LoRA) for a {model}, trained" if (folder / ADAPTERS).is_file() else f"A {model}, trained"


def _metadata(
    folder: Path, name: str, plain: Mapping[str, Any], numbers: Numbers, base: str | None, datasets: list[str]
) -> str:
    """The YAML block of the card."""
    from huggingface_hub import EvalResult, ModelCardData

    adapters, reward = (folder / ADAPTERS).is_file(), _is_reward(folder)
    pipeline = "text-classification" if reward else "text-generation"
    task = _task_name(plain)
    results = [
        EvalResult(
            task_type=pipeline,
            dataset_type=datasets[0] if len(datasets) == 1 else task,
            dataset_name=task,
            dataset_split=number.split,
            metric_type=number.name.removeprefix("eval/"),
            metric_name=f"{number.name}{_interval(number, ', 95 % interval ')}",
            metric_value=number.value,
        )
        for number in numbers.each
    ]
    algorithm = plain["algo"].rpartition(":")[2].lower()
    tags = ["rllab", algorithm, *(["lora"] if adapters else []), *(["reward-model"] if reward else [])]
    relation: dict[str, Any] = {"base_model_relation": "adapter" if adapters else "finetune"} if base else {}
    data = ModelCardData(
        base_model=base,
        library_name="peft" if adapters else "transformers",
        pipeline_tag=pipeline,
        tags=tags,
        datasets=datasets or None,
        model_name=name,
        eval_results=results or None,
        **relation,
    )
    return f"{_LICENSE}\n{data.to_yaml()}"


def _snippet(folder: Path, name: str) -> str:
    """Python that loads the model and uses it once."""
    adapters, reward = (folder / ADAPTERS).is_file(), _is_reward(folder)
    auto = f"Auto{'Peft' if adapters else ''}ModelFor{'SequenceClassification' if reward else 'CausalLM'}"
    text = (_ADAPTERS if adapters else _WHOLE).format(auto=auto, name=name, more=", num_labels=1" if reward else "")
    chat = (folder / "chat_template.jinja").is_file()
    chat = chat or "chat_template" in read_json(folder / "tokenizer_config.json")
    return f"{text}\n{_CHAT if chat else _PLAIN}{_SCORE if reward else _ANSWER}"


def _task_name(plain: Mapping[str, Any]) -> str:
    task = plain.get("task")
    name = str(task.get("name", "")) if isinstance(task, Mapping) else str(task or "")
    return Path(name).name or "unknown"


def _data(plain: Mapping[str, Any], hub: Mapping[str, str]) -> str:
    """The task, the rewards, and what was read from the hub, a line each."""
    lines = [f"- {key}: `{_in_a_line(plain[key])}`" for key in ("task", "reward") if plain.get(key)]
    for name, commit in hub.items():
        kind = "data set" if _is_data(name) else "model"
        path = name.partition("@")[0]
        lines.append(f"- {kind} [{path.removeprefix('datasets/')}](https://huggingface.co/{path}), revision {commit}")
    return "\n".join(lines)


def _in_a_line(value: Any) -> str:
    text = yaml.safe_dump(_portable(value), default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _interval(number: Number, before: str = "") -> str:
    if number.interval is None:
        return ""
    low, high = number.interval
    return f"{before}{low:.4g} to {high:.4g}"


def _table(numbers: Numbers) -> str:
    """The numbers as a table."""
    if not numbers.each:
        return "Nothing was measured before this checkpoint."
    lines = ["| metric | value | 95 % interval | split | rows |", "|---|---|---|---|---|"]
    for n in numbers.each:
        lines.append(f"| `{n.name}` | {n.value:.4g} | {_interval(n)} | {n.split} | {n.rows or ''} |")
    return "\n".join([*lines, "", f"Those of the validation split were measured after round {numbers.step}."])


def _recipe(plain: Mapping[str, Any]) -> str:
    settings = {k: _portable(v) for k, v in plain.items() if k not in NOT_TRAINED}
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def _portable(value: Any) -> Any:
    """A setting without folders of a machine: a checkpoint as `run:RUN@STEP`, another path as its last part."""
    if isinstance(value, Mapping):
        return {k: _portable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_portable(v) for v in value]
    if not isinstance(value, str) or not value.startswith("/"):
        return value
    parts = Path(value).parts
    if "checkpoints" in parts[1:-1]:
        at = parts.index("checkpoints")
        stage = re.fullmatch(r"(.+)-[0-9a-f]{12}", parts[at - 1])
        return f"run:{stage[1]}" if stage else f"run:{parts[at - 1]}@{parts[at + 1].lstrip('0')}"
    return Path(value).name


def _versions(run: RunFolder) -> str:
    """The versions that the run began with, in a line."""
    packages = read_json(run.path / "env.json").get("packages", {})
    each = ", ".join(f"{n} {packages[n]}" for n in ("rllab", "torch", "transformers", "peft") if packages.get(n))
    return f"Versions: {each}.\n" if each else ""
