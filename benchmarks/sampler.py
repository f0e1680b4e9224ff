"""Sampled tokens per second of rllab and of `generate` of transformers: the same model, prompts, precision, allocator.

    .venv/bin/python benchmarks/sampler.py                  one thread, processor time
    .venv/bin/python benchmarks/sampler.py --threads 2      two threads, wall time
    .venv/bin/python benchmarks/sampler.py --grid           1 to 1,024 sequences of 64 to 1,024 tokens

The model is `run:pocket` in fp32; the run is made first if it does not exist. Each of 64 prompts has 4 samples at
temperature 1, of up to 64 tokens. Tokens count up to the end of their completion. Transformers samples 4 completions of
a prompt (`num_return_sequences`) with the cache that is faster. In a grid the model is of the same size, with new
weights, and every sequence has exactly so many tokens.
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
GRID = [(1, 64), (16, 64), (256, 64), (1024, 64), (1, 256), (16, 256), (256, 256), (1, 1024), (16, 1024)]
CACHES = ("dynamic", "static")
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


def prompts(lm: Any) -> list[list[int]]:
    from rllab_envs.tasks.pocket import Pocket

    from rllab.text.chat import prompt_ids

    return prompt_ids(lm.tokenizer, [Pocket().row(i, "test") | {"style": "think"} for i in range(PROMPTS)])


def ours(lm: Any, cache: str, ids: list[list[int]], samples: int, tokens: int) -> int:
    import numpy as np

    from rllab.text.sampler import Sampling, generate

    sampling = Sampling(max_new_tokens=tokens, temperature=1.0)
    sampled = generate(lm, ids, sampling, samples, lambda r, s: np.random.default_rng([r, s]).random(tokens))
    return sum(len(c.ids) for c in sampled)


def theirs(lm: Any, cache: str, prompt_ids: list[list[int]], samples: int, tokens: int) -> int:
    import torch

    longest = max(map(len, prompt_ids))
    pad, ends = lm.tokenizer.pad_token_id, list(lm.stop_ids)
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
        num_return_sequences=samples,
        max_new_tokens=tokens,
        pad_token_id=pad,
        eos_token_id=ends or None,
        **({"cache_implementation": "static", "disable_compile": True} if cache == "static" else {}),
    )
    return sum(
        next((i + 1 for i, token in enumerate(row) if token in ends), len(row)) for row in sampled[:, longest:].tolist()
    )


def fresh() -> Any:
    """A model of the size of `run:pocket` with new weights, room for 2,048 tokens and no stop token."""
    import torch

    from rllab.core.recipe import load_recipe
    from rllab.text.models import new_model
    from rllab.text.tokenizers import tokenizer_for

    algorithm: Any = load_recipe("pocket").algorithm
    torch.manual_seed(0)
    lm = new_model(algorithm.shape | {"max_position_embeddings": 2048}, tokenizer_for(algorithm.task()))
    lm.model.eval()
    lm.model.generation_config.eos_token_id = None
    vars(lm)["stop_ids"] = frozenset()
    return lm


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
        *(["--size", *map(str, args.size)] if args.size else []),
    ]
    done = subprocess.run(line, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{who} failed:\n{done.stderr[-3000:]}")
    return float(done.stdout.strip().splitlines()[-1])


def side(args: argparse.Namespace) -> float:
    from rllab.text.open import open_model

    run, (sequences, tokens) = {"ours": ours, "hf": theirs}[args.side], args.size or (PROMPTS * SAMPLES, TOKENS)
    lm = fresh() if args.size else open_model(args.model)
    samples = max(1, sequences // PROMPTS)
    work = lm, args.cache, prompts(lm)[: sequences // samples], samples, tokens
    run(*work)  # warm-up
    clock = time.perf_counter if args.threads > 1 else time.process_time
    start, made = clock(), 0
    while made < TIMES * sequences * tokens and clock() - start < 20.0:
        made += run(*work)
    return made / (clock() - start)


def grid(args: argparse.Namespace) -> None:
    """Prints a row for each size: the median ratio to the faster of transformers' caches."""
    print("| sequences | tokens | ours, tokens/s | transformers | ratio |\n|---|---|---|---|---|")
    for sequences, tokens in GRID[:4] if args.quick else GRID:
        args.size = [sequences, tokens]
        tried = {c: measure("hf", args, c) for c in CACHES}
        best = max(tried, key=lambda c: tried[c])
        pairs = [(measure("ours", args), measure("hf", args, best)) for _ in range(1 if args.quick else 3)]
        ratios = sorted(a / b for a, b in pairs)
        own, peer = (statistics.median(side) for side in zip(*pairs, strict=True))
        spread = f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        print(f"| {sequences:,} | {tokens:,} | {own:,.0f} | {peer:,.0f} | {spread} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one pair")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="", help="a model's folder in place of run:pocket")
    parser.add_argument("--grid", action="store_true", help="several numbers and lengths of sequences")
    parser.add_argument("--size", nargs=2, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=["ours", "hf"], help=argparse.SUPPRESS)
    parser.add_argument("--cache", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(side(args))
        return
    from rllab.core.load import model_folder
    from rllab.core.machine import processor

    if args.grid:
        print(f"{processor()}; {args.threads} threads\n")
        grid(args)
        return
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
