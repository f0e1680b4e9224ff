"""Simulations per second of a search in connect four, ours beside mctx with pgx and beside plain Python.

    python3 -m venv .venv.jax && .venv.jax/bin/pip install -r benchmarks/requirements-jax.txt
    .venv/bin/python benchmarks/selfplay.py              two threads, fp32 on both sides
    .venv/bin/python benchmarks/selfplay.py --quick      one short pair, mctx in one way: minutes
    .venv/bin/python benchmarks/selfplay.py --bf16       ours in bf16, mctx still in fp32

Simulations are games x simulations of a search, on all sides. Equal are the threads, the networks with their weights,
the two planes that they see, and where searches begin: after 0 to 20 random moves, drawn afresh. mctx is jitted, with
as many games side by side as it is fastest with, on one device of all threads or on as many devices as threads. Either
PUCT has its own defaults, with noise at the root. Compilation, imports, and drawing positions are not timed. Ours
and mctx are as fast as their median call (or round, where answers are kept), so that a stall tells little.

Ours plays 256 games in four ways. `each`: every search begins afresh, and no answer is kept. `kept`: as in a round of
AlphaZero, games go on for 8 moves, and what the network said is kept as long. Both are also run without proofs, which
end walks early (`open`). `asked` is how many positions the network saw for a simulation; with mctx that is 1. Plain
Python searches one position at a time with dicts, on one thread.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sft import ALLOCATOR

ROOT = Path(__file__).resolve().parents[1]
GAMES, MOVES, OPENING, ENTRIES = 256, 8, 20, 1 << 18
BATCHES = (64, 256, 1024)
CELLS = [(network, simulations) for network in ("dense", "convolutions") for simulations in (32, 64)]
WAYS = {"each": (0, True), "kept": (ENTRIES, True), "each, open": (0, False), "kept, open": (ENTRIES, False)}
LAYERS: dict[str, list[tuple[int, ...]]] = {  # shapes of weights as torch has them; the last gives policy and value
    "dense": [(256, 2, 6, 7), (256, 256), (8, 256)],
    "convolutions": [(32, 2, 3, 3), *[(32, 32, 3, 3)] * 6, (64, 32, 6, 7), (8, 64)],
}


def weights(network: str) -> tuple[list[Any], list[Any]]:
    """(weight, bias) of the convolutions and of the dense layers, the same on all sides."""
    import numpy as np

    rng, shapes = np.random.default_rng(0), LAYERS[network]
    drawn = [[rng.uniform(-1, 1, s) * math.prod(shape[1:]) ** -0.5 for s in (shape, shape[0])] for shape in shapes]
    found = [(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in drawn]
    cut = sum(shape[-1] == 3 for shape in shapes)
    return found[:cut], found[cut:]


def answer(x: Any, convolutions: Any, dense: Any, convolve: Any, linear: Any, relu: Any, tanh: Any) -> tuple[Any, Any]:
    """(logits [B, 7], values [B]) of planes, with torch's operations or with jax's."""
    if convolutions:
        x = convolve(x, *convolutions[0])
        for one, two in zip(convolutions[1::2], convolutions[2::2], strict=True):
            x = x + convolve(relu(convolve(relu(x), *one)), *two)
        x = relu(x)
    x = x.reshape(len(x), -1)
    for layer in dense[:-1]:
        x = relu(linear(x, *layer))
    x = linear(x, *dense[-1])
    return x[:, :7], tanh(x[:, 7])


def torch_network(network: str, bf16: bool = False) -> Callable[[Any], tuple[Any, Any]]:
    """A network of planes [B, 2, 6, 7]."""
    import torch
    from torch.nn import functional as F

    def moved(x: Any, order: torch.memory_format = torch.contiguous_format) -> torch.Tensor:
        return torch.from_numpy(x).to(torch.bfloat16 if bf16 else torch.float32).contiguous(memory_format=order)

    kernels, matrices = weights(network)
    convolutions = [(moved(w, torch.channels_last), moved(b)) for w, b in kernels]
    dense = [(moved(w).flatten(1), moved(b)) for w, b in matrices]

    def judge(x: Any) -> tuple[Any, Any]:
        x = x.contiguous(memory_format=torch.channels_last) if convolutions else x
        return answer(x, convolutions, dense, convolve, F.linear, F.relu, torch.tanh)

    def convolve(x: Any, weight: Any, bias: Any) -> Any:
        return F.conv2d(x, weight, bias, padding=1)

    return judge


def jax_network(network: str) -> Callable[[Any], tuple[Any, Any]]:
    """A network of planes [B, 6, 7, 2]."""
    import jax
    from jax import numpy as jnp

    kernels, matrices = weights(network)
    convolutions = [(jnp.asarray(w.transpose(2, 3, 1, 0)), b) for w, b in kernels]
    turned = [(w if w.ndim == 2 else w.transpose(0, 2, 3, 1), b) for w, b in matrices]  # planes come last
    dense = [(jnp.asarray(w.reshape(len(w), -1).T), jnp.asarray(b)) for w, b in turned]

    def convolve(x: Any, weight: Any, bias: Any) -> Any:
        return (
            jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias
        )

    def linear(x: Any, weight: Any, bias: Any) -> Any:
        return x @ weight + bias

    return lambda x: answer(x, convolutions, dense, convolve, linear, jax.nn.relu, jnp.tanh)


def sample() -> Any:
    """Planes [1, 2, 6, 7] by which the networks of two sides are compared."""
    import numpy as np

    return np.random.default_rng(1).random((1, 2, 6, 7), np.float32)


def unfinished(times: list[float], seconds: float) -> bool:
    return len(times) < 3 or sum(times) < seconds


def ours(args: argparse.Namespace) -> dict[str, Any]:
    import numpy as np
    import torch
    from rllab_envs.games.connect_four import ConnectFour

    from rllab.core.algorithm import Context
    from rllab.core.games import rows
    from rllab.search.evaluate import Judge, drawn
    from rllab.search.parallel import side_by_side
    from rllab.search.search import Found, puct

    torch.set_num_threads(args.threads)
    game, network, asked = ConnectFour(threats=False), torch_network(args.network, args.bf16), list[int]()
    ctx = Context(args.seed, torch.device("cpu"), dtype=torch.bfloat16 if args.bf16 else torch.float32)
    rng = np.random.default_rng(args.seed)

    def judge(planes: Any) -> tuple[Any, Any]:
        asked.append(len(planes))
        return network(planes[:, :2])  # the third tells whose move it is

    def opened() -> Any:
        """Positions after random moves; a move that would end its game is left out."""
        board, left = game.start(args.games), rng.integers(0, OPENING + 1, args.games)
        for move in range(OPENING):
            after, _, over = game.play(board, drawn(game.legal(board), rng.random(args.games)))
            goes = (move < left) & ~over
            board = {k: np.where(goes, after[k], board[k]) for k in board}
        return board

    def timed(entries: int, proofs: bool, seconds: float) -> dict[str, float]:
        times, moves = list[float](), MOVES if entries else 1
        asked.clear()
        while unfinished(times, seconds):
            board, start = opened(), time.perf_counter()
            judges = [Judge(game, judge, ctx, entries) for _ in range(args.threads)]
            times.append(time.perf_counter() - start)
            for _ in range(moves):
                start = time.perf_counter()
                noise = rng.dirichlet(np.ones(7), args.games) * game.legal(board)

                def part(which: slice, judge: Judge, board: Any = board, noise: Any = noise) -> Found:
                    return puct(game, rows(board, which), judge, args.simulations, noise=noise[which], proofs=proofs)

                found = side_by_side(part, args.games, judges)
                times[-1] += time.perf_counter() - start
                board, _, over = game.play(board, drawn(found.policy, rng.random(args.games)))
                board = {k: np.where(over, v, board[k]) for k, v in opened().items()}
        simulations = moves * args.games * args.simulations
        return {"speed": simulations / statistics.median(times), "asked": sum(asked) / simulations / len(times)}

    for entries in (0, ENTRIES):
        timed(entries, True, 0.1)  # what is only slow the first time
    said = network(torch.from_numpy(sample()).to(ctx.dtype))
    return {k: timed(*v, args.seconds) for k, v in WAYS.items()} | {"said": [*said[0][0].tolist(), said[1].item()]}


def theirs(args: argparse.Namespace) -> dict[str, Any]:
    import jax
    import mctx
    import pgx
    from jax import numpy as jnp

    env, network, games = pgx.make("connect_four"), jax_network(args.network), args.games // args.devices
    step = jax.vmap(env.step)

    def judged(state: Any) -> tuple[Any, Any]:
        logits, value = network(state.observation.astype(jnp.float32))
        return jnp.where(state.legal_action_mask, logits, jnp.finfo(jnp.float32).min), value

    def recurrent(_: Any, key: Any, action: Any, state: Any) -> tuple[Any, Any]:
        mover, state = state.current_player, step(state, action)
        logits, value = judged(state)
        reward, over = state.rewards[jnp.arange(games), mover], state.terminated
        found = {"reward": reward, "discount": jnp.where(over, 0.0, -1.0), "value": jnp.where(over, 0.0, value)}
        return mctx.RecurrentFnOutput(prior_logits=logits, **found), state

    @jax.pmap
    def opened(key: Any) -> Any:
        """Positions after random moves; a move that would end its game is left out."""
        key, one, two = jax.random.split(key, 3)
        left = jax.random.randint(one, (games,), 0, OPENING + 1)

        def move(i: Any, state: Any) -> Any:
            chance = jnp.where(state.legal_action_mask, 0.0, -jnp.inf)
            after = step(state, jax.random.categorical(jax.random.fold_in(key, i), chance))
            goes = (i < left) & ~after.terminated
            return jax.tree.map(lambda a, b: jnp.where(goes.reshape(-1, *[1] * (a.ndim - 1)), a, b), after, state)

        return jax.lax.fori_loop(0, OPENING, move, jax.vmap(env.init)(jax.random.split(two, games)))

    @jax.pmap
    def search(key: Any, state: Any) -> tuple[Any, Any]:
        logits, value = judged(state)
        root, illegal = mctx.RootFnOutput(prior_logits=logits, value=value, embedding=state), ~state.legal_action_mask
        found = mctx.muzero_policy(None, key, root, recurrent, args.simulations, invalid_actions=illegal)
        return found.action, found.action_weights

    key, times = jax.random.key(args.seed), list[float]()
    while unfinished(times[2:], args.seconds):  # the first two, with compilation, do not count
        key, *keys = jax.random.split(key, 1 + 2 * args.devices)
        state = jax.block_until_ready(opened(jnp.stack(keys[: args.devices])))
        start = time.perf_counter()
        jax.block_until_ready(search(jnp.stack(keys[args.devices :]), state))
        times.append(time.perf_counter() - start)
    said = network(jnp.asarray(sample().transpose(0, 2, 3, 1)))
    speed = args.games * args.simulations / statistics.median(times[2:])
    return {"mctx": {"speed": speed}, "said": [*said[0][0].tolist(), said[1].item()]}


def four(stones: int) -> bool:
    """Whether stones have four in a row: bit 7 c + h is the cell of column c at height h."""
    return any((pairs := stones & stones >> step) & pairs >> 2 * step for step in (1, 6, 7, 8))


def played(position: tuple[int, int], column: int) -> tuple[int, int]:
    mine, theirs = position
    return theirs, mine | ((mine | theirs) + (1 << 7 * column)) & (63 << 7 * column)


def moves(position: tuple[int, int]) -> list[int]:
    return [] if four(position[1]) else [c for c in range(7) if not (position[0] | position[1]) >> (7 * c + 5) & 1]


def plain(args: argparse.Namespace) -> dict[str, Any]:
    """The textbook: one tree at a time, a dict from a position to what is known of its moves."""
    import numpy as np
    import torch

    network, rng = torch_network(args.network), random.Random(args.seed)
    cells = np.array([[7 * c + 5 - r for c in range(7)] for r in range(6)])

    def judged(position: tuple[int, int]) -> tuple[dict[int, list[float]], float]:
        """([prior, visits, total] of each move, value)."""
        planes = (np.array(position)[:, None, None] >> cells & 1).astype(np.float32)
        logits, value = network(torch.from_numpy(planes[None]))
        open_moves, said = moves(position), logits[0].tolist()
        chances = [math.exp(said[c]) for c in open_moves]
        return {c: [p / sum(chances), 0, 0.0] for c, p in zip(open_moves, chances, strict=True)}, value.item()

    def search(root: tuple[int, int]) -> dict[int, list[float]]:
        tree = {root: judged(root)[0]}
        for _ in range(args.simulations):
            position, path = root, list[list[float]]()
            while edges := tree.get(position):
                spread = 1.5 * math.sqrt(sum(e[1] for e in edges.values()) + 1)
                best = max(
                    edges, key=lambda c: edges[c][2] / max(edges[c][1], 1) + spread * edges[c][0] / (1 + edges[c][1])
                )
                path.append(edges[best])
                position = played(position, best)
            if moves(position):
                tree[position], value = judged(position)
            else:
                value = -1.0 if four(position[1]) else 0.0
            for edge in reversed(path):
                value = -value
                edge[1] += 1
                edge[2] += value
        return tree[root]

    times = list[float]()
    with torch.inference_mode():
        while unfinished(times[2:], args.seconds):
            position = (0, 0)
            for _ in range(rng.randint(0, OPENING)):
                after = played(position, rng.choice(moves(position)))
                position = after if moves(after) else position
            start = time.perf_counter()
            search(position)
            times.append(time.perf_counter() - start)
    return {"python": {"speed": args.simulations * len(times[2:]) / sum(times[2:])}}


SIDES = {"ours": ours, "mctx": theirs, "python": plain}


def measure(side: str, args: argparse.Namespace, **numbers: Any) -> dict[str, Any]:
    """Runs one side in a process of its own."""
    threads = "1" if side == "python" else str(args.threads)
    env = os.environ | ALLOCATOR | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC", "PJRT_NPROC"), threads)
    devices = numbers.get("devices", 1)
    alone = " --xla_cpu_multi_thread_eigen=false" if devices > 1 else ""  # else they share one pool of threads
    env |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}{alone}"}
    line = [args.peer_python if side == "mctx" else sys.executable, __file__, "--side", side] + ["--bf16"] * args.bf16
    more = numbers | {"seconds": args.seconds, "threads": threads}
    line += [f"--{name}={value}" for name, value in more.items()]
    done = subprocess.run(line, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def cell(args: argparse.Namespace, network: str, simulations: int) -> dict[str, Any]:
    """One network and number of simulations: prints its rows; the medians of speeds, and the ratios to mctx."""
    asked = {"network": network, "simulations": simulations}
    ways = [(b, d) for b in BATCHES for d in sorted({1, args.threads})]
    ways = [(GAMES, args.threads)] if args.quick else ways
    tried = {w: measure("mctx", args, games=w[0], devices=w[1], seed=0, **asked)["mctx"]["speed"] for w in ways}
    print(f"{network}, {simulations} simulations; mctx with games / devices: ", end="")
    print(", ".join(f"{games} / {devices} {v:,.0f}/s" for (games, devices), v in tried.items()), flush=True)
    (games, devices), found = max(tried, key=lambda w: tried[w]), list[dict[str, Any]]()
    for seed in range(1, args.pairs + 1):
        mine = measure("ours", args, games=GAMES, seed=seed, **asked)
        peer = measure("mctx", args, games=games, devices=devices, seed=seed, **asked)
        apart = max(abs(a - b) for a, b in zip(mine.pop("said"), peer.pop("said"), strict=True))
        if apart > (0.05 if args.bf16 else 1e-4):
            sys.exit(f"the networks differ by {apart:.2g}")
        found.append(mine | peer)
        if network == "dense":
            found[-1] |= measure("python", args, seed=seed, **asked)
    result: dict[str, Any] = {"speed": {}, "ratio": {}, "spread": {}}
    for name in found[0]:
        ratios = [f[name]["speed"] / f["mctx"]["speed"] for f in found]
        speed, ratio = statistics.median(f[name]["speed"] for f in found), statistics.median(ratios)
        result["speed"][name], result["ratio"][name] = round(speed), round(ratio, 2)
        result["spread"][name] = [round(min(ratios), 2), round(max(ratios), 2)]
        share = f", asked {found[0][name]['asked']:.2f}" if name in WAYS else ""
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"  {name:<10} {speed:>9,.0f}/s, {ratio:.2f} of mctx ({spread}){share}", flush=True)
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
        print(json.dumps(SIDES[args.side](args)))
        return
    if not Path(args.peer_python).is_file():
        sys.exit(
            f"{args.peer_python} is not there: make it from benchmarks/requirements-jax.txt,"
            " or name another Python with --peer-python"
        )
    from rllab.core.run import processor

    args.pairs, args.seconds = (1, 0.5) if args.quick else (5, 4.0)
    print(f"{processor()}; {args.threads} threads, ours in {'bf16' if args.bf16 else 'fp32'}, {args.pairs} pairs")
    found = {f"{network}-{simulations}": cell(args, network, simulations) for network, simulations in CELLS}
    first = found["dense-64"]
    result = {
        "name": f"selfplay-mctx-{args.threads}" + ("-bf16" if args.bf16 else ""),
        "ours": first["speed"]["kept"],
        "peer": first["speed"]["mctx"],
        "ratio": first["ratio"]["kept"],
        "spread": first["spread"]["kept"],
        "ratios": {k: {way: x for way, x in v["ratio"].items() if way != "mctx"} for k, v in found.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
