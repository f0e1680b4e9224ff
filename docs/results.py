"""Collects what finished runs reached in docs/results.jsonl, from which docs/generate.py writes the tables.

    ./lab python docs/results.py runs/cartpole-*    # adds these runs

A run counts if it is done and differs from its recipe in nothing but the seed. A newer run of the same recipe and seed
replaces the older one. Every number comes from the run's status.json, env.json and metrics.jsonl.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from rllab.core.recipe import Recipe, load_recipe, recipe_names
from rllab.core.run import RunFolder

DOCS = Path(__file__).parent
RECORDS = DOCS / "results.jsonl"
CAPSTONES = {
    "cartpole": "DQN on CartPole",
    "connect-four-quick": "AlphaZero on connect four",
    "sft-lora": "LoRA fine-tuning",
    "rlhf": "RLHF with a reward model",
    "grpo": "GRPO: reasoning from rewards",
}

Record = dict[str, Any]


def record(folder: Path) -> Record:
    """One line of results.jsonl for a finished run.

    Raises:
        SystemExit: the run is not done, or it differs from its recipe in more than the seed.
    """
    run = RunFolder(folder)
    status, recipe, environment = run.status(), run.recipe(), json.loads((folder / "env.json").read_text("utf-8"))
    if status.get("state") != "done":
        raise SystemExit(f"{folder}: its state is {status.get('state')}, and only finished runs count")
    name = recipe_of(recipe)
    if name is None:
        raise SystemExit(f"{folder}: its settings are those of no recipe; a run counts if it differs in the seed alone")
    return {
        "recipe": name,
        "algorithm": type(recipe.algorithm).__name__,
        "seed": recipe.settings.seed,
        "headline": status["headline"],
        "expect": {e["metric"]: e["wanted"] for e in status["expect"]},
        "seconds": round(run.rows()[-1]["time/total"], 1),
        "processor": environment["processor"],
    }


def recipe_of(run: Recipe) -> str | None:
    """The recipe of a run: the one that differs from it in nothing but the seed, and in the folder of a `run:NAME`."""
    names = [n for n in recipe_names() if run.name.startswith(n)]
    for name in sorted(names, key=len, reverse=True):
        plain = load_recipe(name, [f"seed={run.settings.seed}"]).plain
        differing = {k for k in {*plain, *run.plain} if plain.get(k) != run.plain.get(k)}
        if all(str(plain.get(k)).startswith("run:") for k in differing):
            return name
    return None


def read_records() -> list[Record]:
    return [json.loads(line) for line in RECORDS.read_text("utf-8").splitlines()] if RECORDS.exists() else []


def add(folders: list[Path]) -> None:
    """Adds runs to results.jsonl."""
    records = {(r["recipe"], r["seed"]): r for r in read_records()}
    records |= {(r["recipe"], r["seed"]): r for r in map(record, folders)}
    RECORDS.write_text("".join(json.dumps(records[k], ensure_ascii=False) + "\n" for k in sorted(records)), "utf-8")


def _interval(low: float, high: float) -> str:
    """Where all episodes have the same return, resampling them gives no interval."""
    return f"{number(low)} to {number(high)}" if low < high else "none (all equal)"


def results_table(records: list[Record]) -> str:
    """Markdown: a row a recipe, in the order of algorithms and names."""
    lines = [
        "| recipe | algorithm | metric | expects | reached, by seed | 95 % intervals | training, median |",
        "|---|---|---|---|---|---|---|",
    ]
    recipes = sorted({r["recipe"] for r in records}, key=lambda n: (_of(records, n)[0]["algorithm"], n))
    for name in recipes:
        runs = _of(records, name)
        metric = runs[0]["headline"]["name"]
        cells = [
            f"`{name}`",
            runs[0]["algorithm"],
            f"`{metric}`",
            number(runs[0]["expect"][metric]),
            ", ".join(f"{number(r['headline']['value'])} ({r['seed']})" for r in runs),
            ", ".join(_interval(*r["headline"]["interval"]) for r in runs),
            f"{statistics.median(r['seconds'] for r in runs):.0f} s",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    processors = sorted({r["processor"] for r in records})
    return "\n".join([*lines, "", f"Measured on: {'; '.join(processors)}."])


def capstones_table(records: list[Record]) -> str:
    """Markdown: the five capstones, with the file to read and what the recipe reached."""
    lines = ["| capstone | algorithm | recipe | expects | reached (seed) |", "|---|---|---|---|---|"]
    for name, title in CAPSTONES.items():
        recipe, runs = load_recipe(name), _of(records, name)
        file = Path(sys.modules[type(recipe.algorithm).__module__].__file__ or "").name
        metric, wanted = next(iter(recipe.settings.expect.items()))
        reached = ", ".join(f"{number(r['headline']['value'])} ({r['seed']})" for r in runs)
        source, yaml = f"[{file}](src/rllab/algos/{file})", f"[{name}](recipes/{name}.yaml)"
        lines.append(f"| {title} | {source} | {yaml} | `{metric}` {number(wanted)} | {reached} |")
    return "\n".join(lines)


def number(value: float | str) -> str:
    """Three significant digits. What a recipe expects may be a text, such as '<= 0.2'."""
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def tables() -> dict[str, str]:
    """The generated tables by name."""
    records = read_records()
    return {"results": results_table(records), "capstones": capstones_table(records)}


def _of(records: list[Record], recipe: str) -> list[Record]:
    return sorted((r for r in records if r["recipe"] == recipe), key=lambda r: r["seed"])


if __name__ == "__main__":
    add([Path(a) for a in sys.argv[1:]])
