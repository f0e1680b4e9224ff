"""Seconds of `rllab eval` as a whole command, beside lm-evaluation-harness, and beside loading and generation alone.

    python3 -m venv .venv.lm-eval && .venv.lm-eval/bin/pip install -r benchmarks/requirements-lm-eval.txt
    RLLAB_DATA=... .venv/bin/python benchmarks/eval.py                  one thread, processor time
    RLLAB_DATA=... .venv/bin/python benchmarks/eval.py --threads 2      two threads, wall time

All sides have the same model (1.2 million parameters, random weights in fp32), the same 256 items of GSM8K with the
same prompts, and the likeliest 64 tokens. The model never chooses its end of text, so every reply has 64 tokens; the
replies of both sides are compared. Each side writes its transcripts. lm-evaluation-harness has the batch size that is
fastest for it. Loading and generation alone is a script that imports, opens the model, and samples the same prompts.
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

ROOT = Path(__file__).resolve().parents[1]
ITEMS, TOKENS, BATCHES = 256, 64, (32, 64, 128)
SHAPE = {"model_type": "llama", "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 4, "intermediate_size": 384, "max_position_embeddings": 2048}
STYLE = f'turn: "Question: {{message}}\\nAnswer:{{reply}}"\nmax_new_tokens: {TOKENS}\n'
TASK = f"""task: items
dataset_path: json
dataset_kwargs: {{data_files: {{test: FILE}}}}
test_split: test
output_type: generate_until
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{target}}}}"
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: {TOKENS}}}
filter_list:
  - name: last
    filter: [{{function: regex, regex_pattern: "(-?[0-9.,]+)", group_select: -1}}, {{function: take_first}}]
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


def prepare(folder: Path) -> None:
    """Writes the model, the items, our style and the peer's task."""
    import torch

    from rllab.text.models import new_model
    from rllab.text.tokenizers import byte_pair_tokenizer

    lines = (Path(os.environ["RLLAB_DATA"]) / "gsm8k/test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    tokenizer = byte_pair_tokenizer([r["question"] for r in rows], 1536)
    tokenizer.chat_template = None
    torch.manual_seed(0)
    lm = new_model(SHAPE, tokenizer)
    with torch.no_grad():
        lm.model.lm_head.weight[tokenizer.eos_token_id] = 0.0
    lm.model.save_pretrained(folder / "model")
    lm.write_files(folder / "model")
    items = [
        {"id": str(i), "question": r["question"], "target": r["answer"].split("####")[1].strip(), "kind": "number"}
        for i, r in enumerate(rows[:ITEMS])
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / "style.yaml").write_text(STYLE)
    (folder / "task").mkdir()
    (folder / "task/items.yaml").write_text(TASK.replace("FILE", str(folder / "items.jsonl")))


def generation_alone(folder: Path) -> None:
    """Imports, loads and generates, and nothing else."""
    from rllab.text.chat import prompt_ids
    from rllab.text.open import open_model
    from rllab.text.sampler import Sampling, generate

    lm = open_model(str(folder / "model"))
    questions = [json.loads(line)["question"] for line in (folder / "items.jsonl").read_text().splitlines()]
    ids = prompt_ids(lm.tokenizer, [{"prompt": f"Question: {q}\nAnswer:"} for q in questions])
    completions = generate(lm, ids, Sampling(max_new_tokens=TOKENS), at_once=64)
    assert all(len(c.ids) == TOKENS for c in completions)


def seconds(side: str, folder: Path, args: argparse.Namespace, batch: int = 0) -> float:
    """The time of a whole command: of the processor on one thread, else of the clock."""
    model, items = str(folder / "model"), str(folder / "items.jsonl")
    out, style = str(folder / "ours.jsonl"), str(folder / "style.yaml")
    ours = ["rllab", "eval", model, "--task", items, "--style", style, "--out", out, "--json"]
    peer = ["lm_eval", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--tasks", "items"]
    peer += ["--include_path", str(folder / "task"), "--device", "cpu", "--batch_size", str(batch)]
    peer += ["--output_path", str(folder / "peer"), "--log_samples"]
    alone = [sys.executable, __file__, "--alone", str(folder)]
    words = {"ours": [sys.executable, "-m", *ours], "peer": [args.peer, "-m", *peer], "alone": alone}[side]
    env = os.environ | {k: str(args.threads) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    env |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as empty, open(folder / f"{side}.log", "w") as log:
        begin = time.perf_counter()
        process = subprocess.Popen(words, env=env | {"RLLAB_HOME": empty}, cwd=folder, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
    if status:
        sys.exit(f"{side} failed:\n{(folder / f'{side}.log').read_text()[-3000:]}")
    return wall if args.threads > 1 else usage.ru_utime + usage.ru_stime


def compare_replies(folder: Path) -> str:
    """Checks that both sides had the same prompts and number of tokens; returns how many replies are equal."""
    ours = [json.loads(line) for line in (folder / "ours.jsonl").read_text().splitlines()]
    (newest,) = sorted((folder / "peer").rglob("samples_*.jsonl"))[-1:]
    peers = sorted(map(json.loads, newest.read_text().splitlines()), key=lambda row: int(row["doc_id"]))
    assert [row["prompt"] for row in ours] == [row["arguments"]["gen_args_0"]["arg_0"] for row in peers]
    assert all(row["tokens"] == TOKENS for row in ours) and len(ours) == ITEMS
    equal = sum(a["completion"] == b["resps"][0][0] for a, b in zip(ours, peers, strict=True))
    assert equal > 0.97 * ITEMS, equal  # rounding decides between two tokens that are as likely
    return f"{equal} of {ITEMS} replies are equal"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one pair")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer", default=str(ROOT / ".venv.lm-eval/bin/python"), help="the Python that has lm_eval")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        generation_alone(args.alone)
        return
    from rllab.core.machine import processor

    with tempfile.TemporaryDirectory() as place:
        folder, pairs = Path(place), 1 if args.quick else 5
        prepare(folder)
        print(f"{processor()}; {args.threads} threads, {ITEMS} items, {pairs} pairs")
        tried = {batch: seconds("peer", folder, args, batch) for batch in BATCHES}
        best = min(tried, key=lambda batch: tried[batch])
        print("lm_eval: " + ", ".join(f"batch size {b} {s:.1f} s" for b, s in tried.items()))
        rows = list[tuple[float, float, float]]()
        for _ in range(pairs):
            ours, peer, alone = (seconds(side, folder, args, best) for side in ("ours", "peer", "alone"))
            rows.append((ours, peer, alone))
            print(f"  ours {ours:.2f} s, lm_eval {peer:.2f} s, loading and generation alone {alone:.2f} s", flush=True)
        print(compare_replies(folder))
    own, peers, alones = (statistics.median(side) for side in zip(*rows, strict=True))
    ratios, shares = [peer / ours for ours, peer, _ in rows], [ours / alone for ours, _, alone in rows]
    result = {
        "name": f"eval-lm-eval-{args.threads}",
        "ours": round(own, 2),
        "peer": round(peers, 2),
        "ratio": round(statistics.median(ratios), 2),
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
        "alone": round(alones, 2),
        "to_alone": round(statistics.median(shares), 3),
        "spread_to_alone": [round(min(shares), 3), round(max(shares), 3)],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
