"""GRPO's completions per second in rllab and in TRL's GRPOTrainer: the same model, prompts, groups, tokens, allocator.

    .venv/bin/python benchmarks/grpo.py                  one thread, processor time
    .venv/bin/python benchmarks/grpo.py --threads 2      two threads, wall time
    .venv/bin/python benchmarks/grpo.py --shares         shares of sampling, rewards, learning and the rest in a round

A round samples 8 completions of up to 64 tokens for each of 32 prompts, rewards them, and trains on them in one step of
AdamW. The model is `run:pocket` in its thinking style. The reward is 0 or 1 at random, so that groups have advantages
and cannot be skipped. The learning rate is so small that both models keep their completion lengths. TRL is measured in
both precisions without gradient checkpointing, and its faster setting alternates with rllab. Its defaults (bf16 and
checkpointing) are measured once.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sft import ALLOCATOR, Clock

PROMPTS, GENERATIONS, TOKENS, WARM = 32, 8, 64, 2
TRLS: dict[str, dict[str, Any]] = {
    "fp32": {"bf16": False, "gradient_checkpointing": False},
    "bf16": {"bf16": True, "gradient_checkpointing": False},
    "defaults": {},
}


class Rounds(Clock):
    warm = WARM


def trainer(folder: Path, steps: int) -> Any:
    from rllab import Trainer

    (folder / "bench.yaml").write_text(
        f"algo: GRPO\ntask: {folder / 'rows.jsonl'}\nmodel: {folder / 'model'}\nreward: noise\ntotal_steps: {steps}\n"
        f"batch_size: {PROMPTS}\nnum_generations: {GENERATIONS}\nmax_new_tokens: {TOKENS}\nlength: 512\ndevice: cpu\n"
        "optim: {lr: 1e-9}\n"
    )
    return Trainer(folder / "bench.yaml", folder / f"run-{os.getpid()}")


def ours(folder: Path, steps: int, _: str) -> dict[str, float]:
    clock, tokens = Rounds(), list[float]()
    for row in trainer(folder, steps):
        clock.step()
        tokens.append(row["rollout/tokens"])
        if clock.steps == steps:
            break
    return clock.stop() | {"tokens": statistics.mean(tokens[WARM:])}


def shares(folder: Path, steps: int, _: str) -> dict[str, float]:
    """Returns the shares of a round's time: sampling, rewards, learning (forward, backward, optimizer), the rest."""
    import rllab.text.turns as turns
    from rllab.core.engine import Engine
    from rllab.rewards.scoring import Rewards

    spent = {"sampling": 0.0, "rewards": 0.0, "learning": 0.0}

    def timed(name: str, function: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **more)
            spent[name] += time.perf_counter() - start
            return result

        return call

    turns.generate = timed("sampling", turns.generate)
    Rewards.__call__ = timed("rewards", Rewards.__call__)  # type: ignore[method-assign]
    Engine.update = timed("learning", Engine.update)  # type: ignore[method-assign]
    for row in trainer(folder, steps):
        if row["step"] == WARM:
            start = time.perf_counter()
            spent.update(dict.fromkeys(spent, 0.0))
        if row["step"] == steps:
            break
    whole = time.perf_counter() - start
    return {k: v / whole for k, v in (spent | {"rest": whole - sum(spent.values())}).items()}


def coin(completions: list[Any], **_: Any) -> list[float]:
    return [float(random.random() < 0.5) for _ in completions]


def theirs(folder: Path, steps: int, setting: str) -> dict[str, float]:
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    clock, tokens = Rounds(), list[float]()

    class Watch(TrainerCallback):
        def on_step_end(self, *args: Any, **more: Any) -> None:
            clock.step()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
            if "completions/mean_length" in logs:
                tokens.append(logs["completions/mean_length"])

    config = GRPOConfig(
        str(folder / f"trl-{os.getpid()}"),
        max_steps=steps,
        per_device_train_batch_size=PROMPTS * GENERATIONS,
        num_generations=GENERATIONS,
        max_completion_length=TOKENS,
        learning_rate=1e-9,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        optim="adamw_torch_fused",
        **TRLS[setting],
    )
    rows = datasets.load_dataset("json", data_files=str(folder / "rows.jsonl"), split="train")
    model, tokenizer = (kind.from_pretrained(folder / "model") for kind in (AutoModelForCausalLM, AutoTokenizer))
    trainer = GRPOTrainer(model, coin, config, train_dataset=rows, processing_class=tokenizer, callbacks=[Watch()])
    trainer.train()
    return clock.stop() | {"tokens": statistics.mean(tokens[WARM:])}


def measure(who: str, folder: Path, args: argparse.Namespace, setting: str = "") -> dict[str, float]:
    """Runs one side in a separate process."""
    threads = {k: str(args.threads) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    env = os.environ | ALLOCATOR | threads | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    line = [sys.executable, __file__, "--side", who, "--folder", str(folder), "--setting", setting]
    done = subprocess.run([*line, "--steps", str(args.steps)], env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{who} failed:\n{done.stderr[-3000:]}")
    measured: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    if who == "shares":
        return measured
    seconds = measured["wall" if args.threads > 1 else "cpu"]
    return measured | {"speed": measured["steps"] * PROMPTS * GENERATIONS / seconds}


def prepare(folder: Path) -> None:
    """Writes the rows and the model that both sides load."""
    import shutil

    from rllab_envs.tasks.pocket import Pocket

    from rllab.core.load import model_folder

    shutil.copytree(model_folder("run:pocket"), folder / "model", ignore=shutil.ignore_patterns("trainer"))
    template = folder / "model" / "chat_template.jinja"
    opening = "<|think|><|assistant|>"  # TRL does not pass a style to the template
    template.write_text(template.read_text().replace("{{ '<|assistant|>' }}", f"{{{{ '{opening}' }}}}"))
    task = Pocket(tickets=0.0)
    rows = [{"prompt": task.row(i, "train")["prompt"]} for i in range(2000)]
    whole = [r | {"completion": [{"role": "assistant", "content": "#### 1"}]} for r in rows]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in whole))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one pair, few rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shares", action="store_true", help="only the shares of a round of rllab")
    parser.add_argument("--side", choices=["ours", "trl", "shares"], help=argparse.SUPPRESS)
    parser.add_argument("--setting", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    if args.side:
        side = {"ours": ours, "trl": theirs, "shares": shares}[args.side]
        print(json.dumps(side(args.folder, args.steps, args.setting)))
        return
    from rllab.core.machine import processor

    args.pairs, args.steps = (1, 6) if args.quick else (5, args.steps)
    print(
        f"{processor()}; {args.threads} threads, {args.steps} rounds of {PROMPTS} x {GENERATIONS}, {args.pairs} pairs"
    )
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        prepare(folder)
        if args.shares:
            print(", ".join(f"{k} {v:.1%}" for k, v in measure("shares", folder, args).items()))
            return
        tried = {s: measure("trl", folder, args, s) for s in TRLS}
        best = max((s for s in TRLS if s != "defaults"), key=lambda s: tried[s]["speed"])
        print("TRL: " + ", ".join(f"{s} {t['speed']:.1f}/s of {t['tokens']:.1f} tokens" for s, t in tried.items()))
        pairs = []
        for _ in range(args.pairs):
            pairs.append((measure("ours", folder, args), measure("trl", folder, args, best)))
            a, b = pairs[-1]
            print(f"  ours {a['speed']:.1f}/s of {a['tokens']:.1f} tokens, TRL ({best}) {b['speed']:.1f}/s", flush=True)
    ratios = [a["speed"] / b["speed"] for a, b in pairs]
    result = {
        "name": f"grpo-trl-{args.threads}",
        "ours": round(statistics.median(a["speed"] for a, _ in pairs), 1),
        "peer": round(statistics.median(b["speed"] for _, b in pairs), 1),
        "ratio": round(statistics.median(ratios), 2),
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
        "over_defaults": round(statistics.median(a["speed"] for a, _ in pairs) / tried["defaults"]["speed"], 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
