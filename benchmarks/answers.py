"""Rows graded per second by rllab.answers and by math-verify, and how often each is right on the tests' tricky formats.

    RLLAB_DATA=... .venv/bin/python benchmarks/answers.py

The rows are the recorded solutions of GSM8K with their labels. The two alternate in one process and one thread.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from math_verify import parse, verify

from rllab.answers import grade
from rllab.core.machine import processor

CASES = Path(__file__).resolve().parents[1] / "tests/answer_cases.jsonl"
Row = tuple[str, str, str, bool]  # completion, target, kind, correct


def ours(completion: str, target: str, kind: str) -> bool:
    return grade(completion, target, kind).correct


def theirs(completion: str, target: str, kind: str) -> bool:
    gold, answer = (parse(text, parsing_timeout=1) for text in (f"${target}$", completion))
    return bool(verify(gold, answer, timeout_seconds=1))


def recorded(folder: Path, count: int) -> list[Row]:
    rows: list[Row] = []
    for line in (folder / "gsm8k/example_model_solutions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        target = row["ground_truth"].rpartition("A:")[2].strip()
        solutions = [v for v in row.values() if isinstance(v, dict)]
        rows += [(s["solution"], target, "number", s["is_correct"]) for s in solutions]
    return rows[:count]


def per_second(scorer: Callable[[str, str, str], bool], rows: list[Row]) -> tuple[float, int]:
    """Returns the rows per second of a scorer, and the number of labels that it disagrees with."""
    start = time.perf_counter()
    wrong = sum(scorer(*row[:3]) != row[3] for row in rows)
    return len(rows) / (time.perf_counter() - start), wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rows, one pair: under a minute")
    args = parser.parse_args()
    if not os.environ.get("RLLAB_DATA"):
        sys.exit("set RLLAB_DATA to the folder that holds gsm8k/example_model_solutions.jsonl")
    rows, pairs = recorded(Path(os.environ["RLLAB_DATA"]), 500 if args.quick else 5276), 1 if args.quick else 5
    print(f"{processor()}; {len(rows):,} rows, {pairs} pairs")
    own, peer = [], []
    for pair in range(1, pairs + 1):
        (speed, wrong), (other, missed) = per_second(ours, rows), per_second(theirs, rows)
        own.append(speed)
        peer.append(other)
        print(f"pair {pair}: ours {speed:,.0f}/s ({wrong} labels missed), math-verify {other:,.0f}/s ({missed} missed)")
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    for kind, count in Counter(c["kind"] for c in cases).items():
        right = [
            sum(scorer(c["completion"], c["target"], kind) == c["correct"] for c in cases if c["kind"] == kind)
            for scorer in (ours, theirs)
        ]
        print(f"{kind} formats: ours {right[0]} of {count}, math-verify {right[1]}")
    ratios = [a / b for a, b in zip(own, peer, strict=True)]
    result = {
        "name": "answers-math-verify",
        "ours": round(statistics.median(own)),
        "peer": round(statistics.median(peer)),
    }
    spread = [round(min(ratios), 2), round(max(ratios), 2)]
    print(json.dumps(result | {"ratio": round(statistics.median(ratios), 2), "spread": spread}))


if __name__ == "__main__":
    main()
