"""Simulations per second of a search in connect four: rllab, mctx with pgx, and plain Python.

    python3 -m venv .venv.jax && .venv.jax/bin/pip install -r benchmarks/requirements-jax.txt
    .venv/bin/python benchmarks/selfplay.py              two threads, fp32 on both sides
    .venv/bin/python benchmarks/selfplay.py --quick      one short pair, mctx with one number of games: minutes
    .venv/bin/python benchmarks/selfplay.py --bf16       ours in bf16, mctx still in fp32

On every side the number of simulations is games x simulations of one search. All sides have the same number of threads,
the same network weights, the same two input planes, and start positions after 0 to 20 random moves, drawn anew for each
search. mctx is jitted. It runs with the number of games at which it is fastest, on one device with all threads or on
one device for each thread; its best speed on one device is reported, too. Each PUCT has its own defaults, with noise at
the root. Compilation, imports and drawing positions are not timed. The speed of ours and of mctx is that of the median
call (of the median round where evaluations are cached), so that one stall has little effect.

Ours plays 512 games, as recipes/connect-four.yaml does, in four ways. `each`: every search starts from new positions,
and evaluations are not cached. `cached`: as in a round of AlphaZero, games go on for 8 moves, and the network's outputs
are cached during these moves. Both also run without proofs, which end simulations early (`open`). `evaluations` is the
number of positions that the network evaluates for a simulation; with mctx it is 1. Plain Python searches one position
at a time with dicts, on one thread.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from selfplay_sides import LAYERS, SIDES, WAYS
from sft import ALLOCATOR

ROOT = Path(__file__).resolve().parents[1]
GAMES, BATCHES = 512, (64, 256, 1024)
CELLS = [(network, simulations) for network in LAYERS for simulations in (32, 64)]


def measure(side: str, args: argparse.Namespace, **numbers: Any) -> dict[str, Any]:
    """Runs one side in a separate process."""
    threads = "1" if side == "python" else str(args.threads)
    env = os.environ | ALLOCATOR | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC", "PJRT_NPROC"), threads)
    devices = numbers.get("devices", 1)
    alone = (
        " --xla_cpu_multi_thread_eigen=false" if devices > 1 else ""
    )  # otherwise the devices share one pool of threads
    env |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}{alone}"}
    line = [args.peer_python if side == "mctx" else sys.executable, __file__, "--side", side] + ["--bf16"] * args.bf16
    more = numbers | {"seconds": args.seconds, "threads": threads}
    line += [f"--{name}={value}" for name, value in more.items()]
    done = subprocess.run(line, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    measured: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def cell(args: argparse.Namespace, network: str, simulations: int) -> dict[str, Any]:
    """Measures one network and number of simulations, and prints a row for each way to run it.

    Returns the median speeds, the median ratios to mctx, and the spread of these ratios.
    """
    setting = {"network": network, "simulations": simulations}
    ways = [(b, d) for b in BATCHES for d in sorted({1, args.threads})]
    ways = [(256, args.threads), (256, 1)] if args.quick else ways
    tried = {w: measure("mctx", args, games=w[0], devices=w[1], seed=0, **setting)["mctx"]["speed"] for w in ways}
    print(f"{network}, {simulations} simulations; mctx with games / devices: ", end="")
    print(", ".join(f"{games} / {devices} {v:,.0f}/s" for (games, devices), v in tried.items()), flush=True)
    best, alone = (max((w for w in ways if w[1] <= most), key=lambda w: tried[w]) for most in (args.threads, 1))
    pairs = list[dict[str, Any]]()
    for seed in range(1, args.pairs + 1):
        own = measure("ours", args, games=GAMES, seed=seed, **setting)
        peer = measure("mctx", args, games=best[0], devices=best[1], seed=seed, **setting)
        difference = max(abs(a - b) for a, b in zip(own.pop("outputs"), peer.pop("outputs"), strict=True))
        if difference > (0.05 if args.bf16 else 1e-4):
            sys.exit(f"the outputs of the two networks differ by {difference:.2g}")
        pairs.append(own | peer)
        one = measure("mctx", args, games=alone[0], devices=1, seed=seed, **setting)
        pairs[-1]["mctx, one device"] = one["mctx"]
        if network == "dense":
            pairs[-1] |= measure("python", args, seed=seed, **setting)
    result: dict[str, Any] = {"speed": {}, "ratio": {}, "spread": {}}
    for name in pairs[0]:
        ratios = [p[name]["speed"] / p["mctx"]["speed"] for p in pairs]
        speed, ratio = statistics.median(p[name]["speed"] for p in pairs), statistics.median(ratios)
        result["speed"][name], result["ratio"][name] = round(speed), round(ratio, 2)
        result["spread"][name] = [round(min(ratios), 2), round(max(ratios), 2)]
        share = f", evaluations {pairs[0][name]['evaluations']:.2f}" if name in WAYS else ""
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"  {name:<16} {speed:>9,.0f}/s, {ratio:.2f} of mctx ({spread}){share}", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short pair")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="our networks in bf16")
    parser.add_argument("--peer-python", default=str(ROOT / ".venv.jax/bin/python"), help="the Python that has mctx")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--network", choices=LAYERS, help=argparse.SUPPRESS)
    for name in ("simulations", "games", "seed", "devices"):
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(SIDES[args.side](args).run()))
        return
    if not Path(args.peer_python).is_file():
        sys.exit(
            f"{args.peer_python} does not exist: make it from benchmarks/requirements-jax.txt,"
            " or name another Python with --peer-python"
        )
    from rllab.core.machine import processor

    args.pairs, args.seconds = (1, 0.5) if args.quick else (5, 4.0)
    print(f"{processor()}; {args.threads} threads, ours in {'bf16' if args.bf16 else 'fp32'}, {args.pairs} pairs")
    cells = {f"{network}-{simulations}": cell(args, network, simulations) for network, simulations in CELLS}
    first = cells["dense-64"]
    result = {
        "name": f"selfplay-mctx-{args.threads}" + ("-bf16" if args.bf16 else ""),
        "ours": first["speed"]["cached"],
        "peer": first["speed"]["mctx"],
        "ratio": first["ratio"]["cached"],
        "spread": first["spread"]["cached"],
        "ratios": {k: {way: x for way, x in v["ratio"].items() if way in WAYS} for k, v in cells.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
