"""How the cost of a run grows with its length: CPU time over sizes, with the exponent of a fit, and the peak of memory.

    ./lab python benchmarks/growth.py            all tables, about three minutes
    ./lab python benchmarks/growth.py samples    one of them
    ./lab python benchmarks/growth.py --quick    small sizes, under a minute

An exponent of 1 means that a round, a row or a transition costs the same however many came before it; 0, that the
size does not matter. Only the three largest sizes are fitted, where fixed costs no longer count.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rllab.cli.progress import watch
from rllab.cli.results import summary
from rllab.cli.samples import samples as samples_of
from rllab.control.replay import Replay
from rllab.core.algorithm import Algorithm, Context, Metrics
from rllab.core.checkpoint import Checkpoints
from rllab.core.machine import processor
from rllab.core.recipe import load_recipe
from rllab.core.run import RunFolder
from rllab.core.runs import list_runs
from rllab.core.trainer import Trainer
from rllab.evals.curves import of_runs, thin
from rllab.evals.diagnosis import diagnose
from rllab.text.chat import documents
from rllab.text.packing import pack
from rllab.text.tokenizers import tokenizer_for

LIMIT = 1.05  # of an exponent
Job = Callable[[], object]


@dataclass(kw_only=True)
class Short(Algorithm):
    """Rounds that cost next to nothing, with as many metrics as a run of control, and a sample of each evaluation."""

    def setup(self, ctx: Context) -> None:
        self.model = nn.Linear(1, 1)
        self._samples: list[dict[str, Any]] = []

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self.model}

    def collect(self, step: int) -> Any:
        yield {"x": torch.ones(4, 1), "weight": torch.full((4,), 0.25)}
        return {f"env/{k}": float(step) for k in range(20)}

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        error = (self.model(batch["x"]) - 1).squeeze(1)
        return batch["weight"] @ error.square(), {"error": error}

    def evaluate(self, step: int) -> Metrics:
        self._samples = [{"prompt": "2 + 2", "completion": "4" * 200, "score": 1.0}]
        return {"eval/error": 1.0 / (step + 1)}

    def samples(self) -> list[dict[str, Any]]:
        given, self._samples = self._samples, []
        return given


def trained_rounds(size: int, folder: Path) -> Job:
    """Training that is watched in a log, with an evaluation every 10 rounds."""
    changes = {"total_steps": size, "algo": f"{Path(__file__).resolve()}:Short", "eval_every": 10, "save_every": 0}
    recipe = folder / "short.yaml"
    recipe.write_text(json.dumps(changes | {"optim": {"name": "adamw", "lr": 0.1}}))

    def train() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            watch(Trainer(load_recipe(str(recipe)), folder / f"run-{time.monotonic_ns()}"), quiet=False)

    return train


def written_run(folder: Path, rounds: int, samples: int = 0) -> RunFolder:
    """The record of a run with so many rows and samples, which nobody trained."""
    run = RunFolder(folder)
    folder.mkdir()
    run.create(load_recipe("grpo" if samples else "cartpole"))
    each = max(1, samples // max(1, rounds))
    row = {f"loss/{k}": 0.5 for k in range(20)} | {"eval/return": 3.0}
    sample = {"row": 0, "sample": 0, "prompt": "2 + 2", "completion": "4" * 400, "score": 1.0, "finish": "stop"}
    sample |= {"rewards": {"accuracy": 1.0}, "correct": True}
    for step in range(1, rounds + 1):
        run.append({"step": step} | row, [sample] * each if samples else [])
    run.write_status("done", {"step": rounds})
    run.close()
    return run


def listed_runs(size: int, folder: Path) -> Job:
    """`rllab runs` on a folder with so many runs."""
    for k in range(size):
        written_run(folder / f"run-{k}", 1)
    return lambda: [summary(run) for run in list_runs(folder)]


def rows_in_curves(size: int, folder: Path) -> Job:
    """`rllab curves` on a run with so many rows."""
    run = written_run(folder / "run", size)
    return lambda: thin(of_runs([run], ["eval/return"]), 40)


def rows_diagnosed(size: int, folder: Path) -> Job:
    """`rllab diagnose` on a run with so many rows."""
    run = written_run(folder / "run", size)
    return lambda: diagnose(run)


def resumed(size: int, folder: Path) -> Job:
    """Cutting the logs of a resumed run with so many rows."""
    run = written_run(folder / "run", size)
    return lambda: run.cut(size)


def samples_shown(size: int, folder: Path) -> Job:
    """`rllab samples -n 2` of a run with so many samples, 64 a round."""
    written_run(folder / "run", size // 64, size)
    return lambda: [samples_of("run", folder, worst, 2, None) for worst in (False, True)]


def tokens_packed(size: int, folder: Path) -> Job:
    """Encoding and packing so many tokens, in rounds of 32 rows."""
    algorithm: Any = load_recipe("pocket").algorithm
    task = algorithm.task()
    tokenizer = tokenizer_for(task)
    rows = [task.row(i, "train") for i in range(32)]
    each = sum(d.size for d in documents(tokenizer, rows))
    return lambda: [pack(documents(tokenizer, rows), 512) for _ in range(size // each)]


def transitions_kept(size: int, folder: Path) -> Job:
    """A replay buffer that is filled, drawn from after every step, and saved every 50,000 transitions."""
    rows = {"obs": np.ones((50, 4), np.float32), "next_obs": np.ones((50, 4), np.float32), "action": np.zeros(50, int)}
    rows |= {"reward": np.ones(50), "terminated": np.zeros(50, bool), "truncated": np.zeros(50, bool)}

    def fill() -> None:
        replay, rng = Replay(size, 50), np.random.default_rng(0)
        with tempfile.TemporaryDirectory() as name:
            checkpoints = Checkpoints(Path(name))
            for step in range(1, size // 50 + 1):
                replay.add(rows | {"reward": np.full(50, float(step))})
                replay.sample(rng, 32)
                if step % 1000 == 0:
                    checkpoints.save(step, {"model": nn.Linear(1, 1)}, {}, {"replay": replay.state_dict()})

    return fill


TABLES: dict[str, tuple[Callable[[int, Path], Job], str, tuple[int, ...]]] = {
    "rounds": (trained_rounds, "rounds trained and shown", (500, 1000, 2000, 4000, 8000)),
    "runs": (listed_runs, "runs listed", (50, 100, 200, 400, 800)),
    "curves": (rows_in_curves, "rows in `curves`", (5_000, 10_000, 20_000, 40_000, 80_000)),
    "diagnose": (rows_diagnosed, "rows in `diagnose`", (2_500, 5_000, 10_000, 20_000, 40_000)),
    "resume": (resumed, "rows at a resume", (5_000, 10_000, 20_000, 40_000, 80_000)),
    "samples": (samples_shown, "samples, of which 2 are shown", (6_400, 12_800, 25_600, 51_200, 102_400)),
    "tokens": (tokens_packed, "tokens packed", (50_000, 100_000, 200_000, 400_000, 800_000)),
    "replay": (transitions_kept, "transitions kept", (100_000, 200_000, 400_000, 800_000, 1_600_000)),
}


def measure(jobs: list[Job], repeats: int = 5) -> tuple[list[float], list[float]]:
    """The least CPU time of each job, in seconds, and its peak of Python's memory, in MB. The jobs take turns."""
    times, peaks = [float("inf")] * len(jobs), []
    for _ in range(repeats):
        for k, job in enumerate(jobs):
            start = time.process_time()
            job()
            times[k] = min(times[k], time.process_time() - start)
    for job in jobs:
        tracemalloc.start()
        job()
        peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
        tracemalloc.stop()
    return times, peaks


def exponent(sizes: tuple[int, ...], times: list[float]) -> float:
    """The exponent of a power of the size, fitted to the CPU times of the three largest sizes."""
    return float(np.polyfit(np.log(sizes[-3:]), np.log(times[-3:]), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=list(TABLES), help=f"any of {', '.join(TABLES)}")
    parser.add_argument("--quick", action="store_true", help="a fifth of the sizes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{processor()}\n")
    print("| what grows | from | to | CPU seconds | exponent | peak MB |\n|---|---|---|---|---|---|")
    worst = 0.0
    for table in args.tables:
        make, what, sizes = TABLES[table]
        sizes = tuple(n // 5 for n in sizes) if args.quick else sizes
        with tempfile.TemporaryDirectory() as name:
            folders = [Path(name) / str(size) for size in sizes]
            for folder in folders:
                folder.mkdir()
            times, peaks = measure([make(size, folder) for size, folder in zip(sizes, folders, strict=True)])
        worst = max(worst, fitted := exponent(sizes, times))
        ends = f"{times[0]:.3g} to {times[-1]:.3g}", f"{peaks[0]:.2g} to {peaks[-1]:.2g}"
        print(f"| {what} | {sizes[0]:,} | {sizes[-1]:,} | {ends[0]} | {fitted:.2f} | {ends[1]} |", flush=True)
    sys.exit(f"the largest exponent is {worst:.2f}, and the limit {LIMIT}" if worst > LIMIT else 0)


if __name__ == "__main__":
    main()
