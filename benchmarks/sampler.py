"""Sampled tokens per second of rllab and of `generate` of transformers: the same model, prompts, precision, allocator.

    .venv/bin/python benchmarks/sampler.py                  one thread, processor time
    .venv/bin/python benchmarks/sampler.py --threads 2      two threads, wall time

The model is `run:pocket` in fp32; the run is made first if it does not exist. Each of 64 prompts has 4 samples at
temperature 1, of up to 64 tokens. Tokens count up to the end of their completion. Transformers samples 4 completions of
a prompt (`num_return_sequences`) with the cache that is faster.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

PROMPTS, SAMPLES, TOKENS, TIMES = 64, 4, 64, 3
CACHES = ("dynamic", "static")
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


def prompts(lm: Any) -> list[list[int]]:
    from rllab_envs.tasks.pocket import Pocket

    from rllab.text.chat import prompt_ids

    return prompt_ids(lm.tokenizer, [Pocket().row(i, "test") | {"style": "think"} for i in range(PROMPTS)])


def ours(lm: Any, cache: str) -> int:
    import numpy as np

    from rllab.text.sampler import Sampling, generate

    sampling = Sampling(max_new_tokens=TOKENS, temperature=1.0)
    sampled = generate(lm, prompts(lm), sampling, SAMPLES, lambda r, s: np.random.default_rng([r, s]).random(TOKENS))
    return sum(len(c.ids) for c in sampled)


def theirs(lm: Any, cache: str) -> int:
    import torch

    prompt_ids = prompts(lm)
    longest = max(map(len, prompt_ids))
    pad, end = lm.tokenizer.pad_token_id, lm.tokenizer.eos_token_id
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompt_ids])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompt_ids])
    torch.manual_seed(0)
    sampled = lm.model.generate(
        ids,
        attention_mask=mask,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        num_return_sequences=SAMPLES,
        max_new_tokens=TOKENS,
        pad_token_id=pad,
        eos_token_id=end,
        **({"cache_implementation": "static", "disable_compile": True} if cache == "static" else {}),
    )
    new = sampled[:, longest:]
    return sum(int((row == end).nonzero()[0]) + 1 if (row == end).any() else len(row) for row in new)


def measure(who: str, args: argparse.Namespace, cache: str = "") -> float:
    """Returns the tokens per second of one side, measured in a separate process."""
    threads = {k: str(args.threads) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    env = os.environ | ALLOCATOR | threads | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    line = [
        sys.executable,
        __file__,
        "--side",
        who,
        "--cache",
        cache,
        "--model",
        args.model,
        "--threads",
        str(args.threads),
    ]
    done = subprocess.run(line, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{who} failed:\n{done.stderr[-3000:]}")
    return float(done.stdout.strip().splitlines()[-1])


def side(args: argparse.Namespace) -> float:
    from rllab.text.open import open_model

    lm, run = open_model(args.model), {"ours": ours, "hf": theirs}[args.side]
    run(lm, args.cache)  # warm-up
    clock = time.perf_counter if args.threads > 1 else time.process_time
    start = clock()
    tokens = sum(run(lm, args.cache) for _ in range(TIMES))
    return tokens / (clock() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one pair")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="", help="a model's folder in place of run:pocket")
    parser.add_argument("--side", choices=["ours", "hf"], help=argparse.SUPPRESS)
    parser.add_argument("--cache", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(side(args))
        return
    from rllab.core.load import model_folder
    from rllab.core.machine import processor

    if not args.model:
        args.model = model_folder("run:pocket")
    pairs = 1 if args.quick else 5
    print(f"{processor()}; {args.threads} threads, {PROMPTS} prompts x {SAMPLES}, {pairs} pairs")
    tried = {c: measure("hf", args, c) for c in CACHES}
    best = max(tried, key=lambda c: tried[c])
    print("transformers: " + ", ".join(f"{c} cache {v:,.0f}/s" for c, v in tried.items()))
    speeds = []
    for _ in range(pairs):
        speeds.append((measure("ours", args), measure("hf", args, best)))
        print(f"  ours {speeds[-1][0]:,.0f}/s, transformers {speeds[-1][1]:,.0f}/s", flush=True)
    ratios = [a / b for a, b in speeds]
    result = {
        "name": f"sampler-transformers-{args.threads}",
        "ours": round(statistics.median(a for a, _ in speeds)),
        "peer": round(statistics.median(b for _, b in speeds)),
        "ratio": round(statistics.median(ratios), 2),
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
