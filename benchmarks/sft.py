"""Tokens per second of supervised fine-tuning in rllab and in TRL's SFTTrainer: same model, rows, precision, allocator.

    .venv/bin/python benchmarks/sft.py                  one thread, processor time; both precisions
    .venv/bin/python benchmarks/sft.py --threads 2      two threads, wall time

TRL's settings (sorted by length or not, packed) are measured first, and its fastest alternates with rllab. Both read
the same JSONL of word problems and train all weights with AdamW. Time is measured from the sixth optimizer step to the
last. Each token counts once, and padding does not count. `start` is the time from the start of the process to the
end of its first step.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BEGAN = time.time()
SHAPE = {
    "model_type": "qwen3",
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "intermediate_size": 384,
    "tie_word_embeddings": True,
    "max_position_embeddings": 512,
}
ROWS, WARM = 44, 5
TRLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "by length": {"train_sampling_strategy": "group_by_length"},
    "packed": {"packing": True, "max_length": 128, "per_device_train_batch_size": 18},
}
TRL_CONFIG: dict[str, Any] = {
    "per_device_train_batch_size": ROWS,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "gradient_checkpointing": False,
    "completion_only_loss": True,
    "use_cpu": True,
    "report_to": [],
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
    "max_length": 512,
    "optim": "adamw_torch_fused",
    "max_grad_norm": 0.0,
}
# Without these glibc returns buffers of 32 MB and more to the kernel at every free. Both sides use them.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


class Clock:
    """Measures processor and wall seconds from the end of step `warm` to the end, and when the first step ended."""

    warm = WARM

    def __init__(self) -> None:
        self.steps, self.first = 0, 0.0
        self.cpu = self.wall = 0.0

    def step(self) -> None:
        self.steps += 1
        if self.steps == 1:
            self.first = time.time() - BEGAN
        if self.steps == self.warm:
            self.cpu, self.wall = -time.process_time(), -time.perf_counter()

    def stop(self) -> dict[str, float]:
        return {
            "cpu": self.cpu + time.process_time(),
            "wall": self.wall + time.perf_counter(),
            "start": self.first,
            "steps": self.steps - self.warm,
        }


def ours(folder: Path, steps: int, precision: str, _: str) -> dict[str, float]:
    from rllab import Trainer

    (folder / "bench.yaml").write_text(
        f"algo: SFT\ntask: {folder / 'rows.jsonl'}\nmodel: {folder / 'model'}\ntotal_steps: {steps}\n"
        f"batch_size: {ROWS}\nlength: 128\nprecision: {precision}\ndevice: cpu\noptim: {{lr: 1e-3}}\n"
    )
    clock, rows = Clock(), []
    for row in Trainer(folder / "bench.yaml", folder / f"run-{os.getpid()}"):
        rows.append(row)
        clock.step()
        if clock.steps == steps:
            break
    done = clock.stop()
    return done | {"tokens": rows[-1]["data/tokens"] - rows[WARM - 1]["data/tokens"]}


def theirs(folder: Path, steps: int, precision: str, setting: str) -> dict[str, float]:
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    clock = Clock()

    class Watch(TrainerCallback):
        def on_step_end(self, *args: Any, **more: Any) -> None:
            clock.step()

    seen: list[int] = []
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(folder / "model"),
        SFTConfig(
            str(folder / f"trl-{os.getpid()}"), max_steps=steps, bf16=precision == "bf16", **TRL_CONFIG | TRLS[setting]
        ),
        train_dataset=datasets.load_dataset("json", data_files=str(folder / "rows.jsonl"), split="train"),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        callbacks=[Watch()],
    )
    collate = trainer.data_collator

    def counted(rows: list[dict[str, Any]]) -> Any:
        seen.append(sum(len(r["input_ids"]) for r in rows))
        return collate(rows)

    trainer.data_collator = counted
    trainer.train()
    return clock.stop() | {"tokens": float(sum(seen[WARM:steps]))}


def measure(who: str, folder: Path, args: argparse.Namespace, precision: str, setting: str = "") -> dict[str, float]:
    """Runs one side in a separate process."""
    threads = {k: str(args.threads) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    env = os.environ | ALLOCATOR | threads | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    line = [sys.executable, __file__, "--side", who, "--folder", str(folder), "--precision", precision]
    done = subprocess.run(
        [*line, "--setting", setting, "--steps", str(args.steps)], env=env, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{who} failed:\n{done.stderr[-3000:]}")
    measured: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured | {"speed": measured["tokens"] / measured["wall" if args.threads > 1 else "cpu"]}


def prepare(folder: Path) -> None:
    """Writes the rows and a model that both sides load."""
    import torch
    from rllab_envs.tasks.pocket import Pocket

    from rllab.text.models import new_model
    from rllab.text.tokenizers import tokenizer_for

    task = Pocket(tickets=0.0)
    rows = [task.row(i, "train") for i in range(6000)]
    kept = [{k: r[k] for k in ("prompt", "completion")} for r in rows]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in kept))
    torch.manual_seed(0)
    made = new_model(SHAPE, tokenizer_for(task))
    made.model.save_pretrained(folder / "model")
    made.tokenizer.save_pretrained(folder / "model")


def compare(folder: Path, args: argparse.Namespace, precision: str) -> None:
    tried = {s: measure("trl", folder, args, precision, s) for s in TRLS}
    best = max(tried, key=lambda s: tried[s]["speed"])
    print(f"{precision}: TRL " + ", ".join(f"{s} {t['speed']:,.0f}/s" for s, t in tried.items()))
    pairs = []
    for _ in range(args.pairs):
        pairs.append((measure("ours", folder, args, precision), measure("trl", folder, args, precision, best)))
        print(f"  ours {pairs[-1][0]['speed']:,.0f}/s, TRL ({best}) {pairs[-1][1]['speed']:,.0f}/s", flush=True)
    ratios = [a["speed"] / b["speed"] for a, b in pairs]
    starts = [a["start"] / b["start"] for a, b in pairs]
    result = {
        "name": f"sft-trl-{precision}-{args.threads}",
        "ours": round(statistics.median(a["speed"] for a, _ in pairs)),
        "peer": round(statistics.median(b["speed"] for _, b in pairs)),
        "ratio": round(statistics.median(ratios), 2),
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
        "start": [round(statistics.median(p[i]["start"] for p in pairs), 1) for i in (0, 1)],
        "start_ratio": round(statistics.median(starts), 2),
    }
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one pair, few steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="default: fp32, and bf16 where it is fast")
    parser.add_argument("--side", choices=["ours", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--setting", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    if args.side:
        side = {"ours": ours, "trl": theirs}[args.side]
        print(json.dumps(side(args.folder, args.steps, args.precision, args.setting)))
        return
    from rllab.core.machine import processor
    from rllab.core.precision import multiplies_bf16

    args.pairs, args.steps = (1, 15) if args.quick else (5, args.steps)
    print(f"{processor()}; {args.threads} threads, {args.steps} steps of {ROWS} rows, {args.pairs} pairs")
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for precision in [args.precision] if args.precision else ["fp32", *["bf16"] * multiplies_bf16()]:
            compare(Path(folder), args, precision)


if __name__ == "__main__":
    main()
