"""LoRA of several ranks compared with training all weights: the pocket model learns a new word and keeps an old skill.

    .venv/bin/python benchmarks/lora.py            seeds 0, 1, 2; four minutes on two cores

Each rank has its best learning rate of three or four on seed 7. Memory is the peak of the process. Adapters and moments
are small here compared with Python and torch, so the size of the saved weights is reported, too.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RATES = {"2": "1e-2", "8": "4e-3", "32": "5e-3", "all weights": "5e-4"}


def run(rank: str, seed: int, runs: Path) -> dict[str, float]:
    """Trains once. Returns held-out scores of new word and old skill, trained share, size on disk, peak memory."""
    recipe = ["sft-full"] if rank == "all weights" else ["sft-lora", f"lora.r={rank}"]
    name = f"r{rank.replace(' ', '-')}-{seed}"
    words = [*recipe, f"optim.lr={RATES[rank]}", f"seed={seed}", "--name", name, "--runs", str(runs), "-q"]
    process = subprocess.Popen([sys.executable, "-m", "rllab", "train", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"rllab train {' '.join(words)} failed")
    row = json.loads((runs / name / "metrics.jsonl").read_text().splitlines()[-1])
    (weights,) = (runs / name / "checkpoints").glob("00000189/*.safetensors")
    return {
        "new": json.loads((runs / name / "status.json").read_text())["headline"]["value"],
        "old": row["eval/retention"],
        "share": row.get("lora/share", 1.0),
        "kB": weights.stat().st_size / 1000,
        "MB": usage.ru_maxrss / 1000,
        "change": row.get("lora/largest_change", float("nan")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed")
    args = parser.parse_args()
    from rllab.core.machine import processor

    print(processor())
    print("| rank | new word | old skill | trained | on disk | peak memory | largest change of a logit |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for rank in RATES:
            results = [run(rank, seed, Path(folder)) for seed in ((0,) if args.quick else (0, 1, 2))]
            mean = {k: statistics.mean(r[k] for r in results) for k in results[0]}
            change = "" if rank == "all weights" else f"{mean['change']:.1f}"
            print(
                f"| {rank} | {mean['new']:.1%} | {mean['old']:.1%} | {mean['share']:.1%} | {mean['kB']:,.0f} kB | "
                f"{mean['MB']:,.0f} MB | {change} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
