"""The peak of the memory of training on a CPU, by phase; with `--estimate` beside what `rllab check` tells beforehand.

    ./lab python benchmarks/memory.py --shard            a model over two ranks: plain data parallel, and `shard: true`
    ./lab python benchmarks/memory.py --estimate         six algorithms and two sizes of a model, on one rank
    ./lab python benchmarks/memory.py WORDS...           one recipe with settings, as for `rllab train`

A figure is the resident memory of a rank above that of its imports, in MB. Each phase is measured from its begin:
`/proc/self/clear_refs` sets the peak that the kernel counts to what is resident then. Linux alone has it.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MB = 1 << 20
HERE = Path(__file__).resolve()


def shape(width: int, layers: int, kind: str = "qwen3") -> dict[str, Any]:
    """A new model's shape: heads of 64, three times the width in the feed-forward layers."""
    return {
        "model_type": kind,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "num_key_value_heads": width // 64,
        "head_dim": 64,
        "intermediate_size": 3 * width,
        "max_position_embeddings": 512,
    }


class Peaks:
    """The peak of each phase, in MB above the beginning. A phase that is within another one counts for both."""

    def __init__(self) -> None:
        self.base, self.rest, self.of = self._now("VmRSS"), 0.0, {"all": 0.0}
        self._open: list[str] = ["all"]
        self._reset()

    @staticmethod
    def _now(name: str) -> float:
        text = Path("/proc/self/status").read_text()
        line = re.search(rf"^{name}:\s+(\d+) kB", text, re.M)
        assert line is not None
        return int(line[1]) / 1024

    def _reset(self) -> None:
        """Counts the peak so far for all open phases, and begins a new one."""
        peak = self._now("VmHWM") - self.base
        for name in self._open:
            self.of[name] = max(self.of.get(name, 0.0), peak)
        Path("/proc/self/clear_refs").write_text("5")

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._reset()
        self._open.append(name)
        try:
            yield
        finally:
            self._reset()
            self._open.pop()

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Makes each call of a method a phase."""
        call: Callable[..., Any] = getattr(owner, method)

        def watched(*args: Any, **more: Any) -> Any:
            with self.phase(name):
                return call(*args, **more)

        setattr(owner, method, watched)

    def end(self) -> dict[str, float]:
        self._reset()
        return self.of | {"at rest": self._now("VmRSS") - self.base, "imports": self.base}


def child(words: list[str], runs: Path, by_layer: bool) -> None:
    """Trains a recipe in this process, and prints the peaks as JSON."""
    import torch.distributed.fsdp
    import torch.distributed.tensor  # noqa: F401 - a part of the imports
    from peft import PeftModel  # noqa: F401

    from rllab import Trainer
    from rllab.algos.online import Policy
    from rllab.core import checkpoint, engine, sharding, trainer
    from rllab.core.recipe import load_recipe
    from rllab.text.algorithm import TextAlgorithm

    if by_layer:
        sharding._WHOLE = 0.0
    recipe = load_recipe(words[0], words[1:])
    peaks = Peaks()
    peaks.watch(TextAlgorithm, "begin", "load")
    peaks.watch(Policy, "_sample", "sample")
    peaks.watch(engine.Engine, "backward", "forward and backward")
    peaks.watch(engine.Engine, "_step", "optimizer step")
    peaks.watch(checkpoint.Checkpoints, "save", "save")
    peaks.watch(trainer, "load_parts", "resume")
    began = time.perf_counter()
    for _ in Trainer(recipe, runs / "run"):
        pass
    print(json.dumps(peaks.end() | {"seconds": time.perf_counter() - began}))


def measure(
    words: list[str], world: int = 1, runs: Path | None = None, more: tuple[str, ...] = ()
) -> list[dict[str, float]]:
    """The peaks of each rank of a training."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as s:
        s.bind(("localhost", 0))
        base = os.environ | {"MASTER_ADDR": "localhost", "MASTER_PORT": str(s.getsockname()[1]), "OMP_NUM_THREADS": "1"}
        s.close()
        line = [sys.executable, str(HERE), "--child", "--runs", str(runs or folder), *more, *words]
        ranks = [
            base | ({"RANK": str(r), "WORLD_SIZE": str(world), "LOCAL_RANK": str(r)} if world > 1 else {})
            for r in range(world)
        ]
        made = [subprocess.Popen(line, env=e, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for e in ranks]
        done = [process.communicate() for process in made]
    for process, (_, errors) in zip(made, done, strict=True):
        if process.returncode:
            sys.exit(f"{' '.join(words)} failed:\n{errors[-3000:]}")
    return [json.loads(out.strip().splitlines()[-1]) for out, _ in done]


def make_model(folder: Path, width: int, layers: int, task: str = "pocket", head: str = "lm") -> str:
    """Writes a new model, and returns its folder."""
    import rllab_envs.tasks
    import torch

    from rllab.core.checkpoint import WEIGHTS, weights_of
    from rllab.core.split_files import write_whole
    from rllab.text.models import new_model
    from rllab.text.tokenizers import tokenizer_for

    torch.manual_seed(0)
    made: Any = getattr(rllab_envs.tasks, task)()
    lm = new_model(shape(width, layers), tokenizer_for(made), head="reward" if head == "reward" else "lm")
    folder.mkdir(parents=True)
    write_whole(folder / WEIGHTS, weights_of(lm.model))
    lm.write_files(folder)
    print(f"{sum(w.nbytes for w in lm.model.parameters()) / MB:,.0f} MB of weights")
    return str(folder)


COMMON = ["precision=fp32", "device=cpu", "total_steps=2", "headline_rows=2", "eval_rows=2", "eval_every=2"]
ADAMW = "optim={name: adamw, lr: 1e-5}"
SFT = ["sft-full", "retention_task=null", "batch_size=4", "length=128", "max_new_tokens=8", ADAMW]
GRPO = [
    "grpo", "reward=noise", "batch_size=2", "num_generations=2", "max_new_tokens=8", "length=160",
    "preflight_stops=false", "beta=0.05", ADAMW,
]  # fmt: skip


def table(rows: dict[str, dict[str, float]]) -> None:
    names = list(dict.fromkeys(k for row in rows.values() for k in row))
    print("| " + " | ".join(["", *names]) + " |")
    print("|" + "---|" * (len(names) + 1))
    for name, row in rows.items():
        print("| " + " | ".join([name, *(f"{row[k]:,.0f}" if k in row else "" for k in names)]) + " |")


def shards(folder: Path, width: int, layers: int) -> None:
    """Each case trains two rounds, then a third from the checkpoint."""
    model = f"model={make_model(folder / 'model', width, layers)}"
    shard, again = ["shard=true"], ["shard=true", "gradient_checkpointing=true"]
    cases = [("SFT", SFT, [], ()), ("SFT", SFT, shard, ()), ("SFT", SFT, again, ()), ("GRPO", GRPO, [], ())]
    cases += [("GRPO", GRPO, shard, ()), ("GRPO", GRPO, again, ("--by-layer",))]
    rows = {}
    for name, words, more, flags in cases:
        runs = folder / str(len(rows))
        runs.mkdir()
        line = [*words, "micro_batch=1", model, *COMMON, *more]
        each = measure(line, 2, runs, flags)
        resumed = measure([*line, "total_steps=3"], 2, runs, flags)
        row = {k: max(r[k] for r in each) for k in each[0]} | {"resume": max(r["resume"] for r in resumed)}
        rows[" ".join([name, *more, *flags])] = row
        print(name, *more, *flags, {k: round(v) for k, v in row.items()}, flush=True)
    table(rows)


def estimate(words: list[str]) -> None:
    """Prints what `rllab check` tells of a recipe, in MB."""
    from rllab.core.load import preflight
    from rllab.core.recipe import load_recipe

    lines = preflight(load_recipe(words[0], words[1:]))
    print(json.dumps(max(lines[k].numbers["megabytes"] for k in lines if k.startswith("memory of "))))


def cases(folder: Path, width: int, layers: int) -> dict[str, list[str]]:
    """The words of each algorithm."""
    model = f"model={make_model(folder / 'model', width, layers)}"
    tickets = f"model={make_model(folder / 'tickets', width, layers, 'ticket_preferences')}"
    judge = make_model(folder / "judge", width // 2, layers, "ticket_preferences", "reward")
    lora, both = "lora={r: 8, lora_alpha: 16}", "optim={model: {name: adamw, lr: 1e-5}, value: {name: adamw, lr: 1e-3}}"
    sizes = ["max_new_tokens=24", "length=256", "batch_size=8"]
    grpo = ["grpo", model, "reward=noise", *sizes, "num_generations=4", "preflight_stops=false", ADAMW]
    rlhf = ["rlhf", tickets, *sizes, f"reward={judge}", "retention_task=null", "preflight_stops=false", both]
    sft = ["sft-full", model, "retention_task=null", "batch_size=16", "length=128", "max_new_tokens=8", ADAMW]
    return {
        "SFT": sft,
        "SFT, micro_batch": [*sft, "micro_batch=1"],
        "SFT, gradient checkpointing": [*sft, "gradient_checkpointing=true"],
        "SFT, LoRA": [*sft, lora],
        "GRPO": [*grpo, "beta=0.05"],
        "GRPO, LoRA": [*grpo, lora],
        "DPO": ["dpo", tickets, "batch_size=4", "length=256", "max_new_tokens=8", ADAMW],
        "RLHF": [*rlhf, "num_iterations=1"],
    }


def estimates(folder: Path, sizes: list[tuple[int, int]], only: str) -> None:
    rows = {}
    for width, layers in sizes:
        for name, words in cases(folder / f"{width}x{layers}", width, layers).items():
            if not re.fullmatch(only, name):
                continue
            line = [sys.executable, str(HERE), "--only-estimate", *words, *COMMON]
            done = subprocess.run(line, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr[-3000:])
            estimated, (row,) = float(done.stdout.split()[-1]), measure([*words, *COMMON])
            key = f"{name}, {layers} layers of {width}"
            rows[key] = {"estimate": estimated, "measured": row["all"], "percent": 100 * estimated / row["all"]}
            print(key, {k: round(v) for k, v in (rows[key] | row).items()}, flush=True)
    table(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--child", action="store_true")
    parser.add_argument("--by-layer", action="store_true", help="sample as if whole weights did not fit a rank")
    parser.add_argument("--estimate", action="store_true")
    parser.add_argument("--only", default=".*", help="of the estimates: a pattern of names")
    parser.add_argument("--only-estimate", action="store_true")
    parser.add_argument("--shard", action="store_true")
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--world", type=int, default=1)
    args = parser.parse_args()
    if args.only_estimate:
        estimate(args.words)
        return
    if args.child:
        child(args.words, args.runs, args.by_layer)
        return
    with tempfile.TemporaryDirectory() as folder:
        if args.estimate:
            estimates(Path(folder), [(args.width, args.layers)], args.only)
        elif args.shard:
            shards(Path(folder), args.width, args.layers)
        else:
            table({f"rank {i}": row for i, row in enumerate(measure(args.words, args.world))})


if __name__ == "__main__":
    main()
