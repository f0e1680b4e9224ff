"""The sides that benchmarks/selfplay.py runs in separate processes: our search, mctx with pgx, and plain Python."""

import argparse
import math
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

MOVES, OPENING, ENTRIES = 8, 20, 1 << 18
WAYS = {"each": (0, True), "cached": (ENTRIES, True), "each, open": (0, False), "cached, open": (ENTRIES, False)}
LAYERS: dict[
    str, list[tuple[int, ...]]
] = {  # shapes of weights in torch's order; the last layer has 7 logits and a value
    "dense": [(256, 2, 6, 7), (256, 256), (8, 256)],
    "convolutions": [(32, 2, 3, 3), *[(32, 32, 3, 3)] * 6, (64, 32, 6, 7), (8, 64)],
}


def weights(network: str) -> tuple[list[Any], list[Any]]:
    """Returns (weight, bias) of the convolutions, and of the dense layers; equal on all sides."""
    import numpy as np

    rng, shapes = np.random.default_rng(0), LAYERS[network]
    drawn = [[rng.uniform(-1, 1, s) * math.prod(shape[1:]) ** -0.5 for s in (shape, shape[0])] for shape in shapes]
    layers = [(weight.astype(np.float32), bias.astype(np.float32)) for weight, bias in drawn]
    cut = sum(shape[-1] == 3 for shape in shapes)
    return layers[:cut], layers[cut:]


def forward(x: Any, convolutions: Any, dense: Any, convolve: Any, linear: Any, relu: Any, tanh: Any) -> tuple[Any, Any]:
    """Returns (logits [B, 7], values [B]) of planes, with the operations of torch or of jax."""
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
    """Returns a network in torch over planes [B, 2, 6, 7]."""
    import torch
    from torch.nn import functional as F

    def tensor(x: Any, order: torch.memory_format = torch.contiguous_format) -> torch.Tensor:
        return torch.from_numpy(x).to(torch.bfloat16 if bf16 else torch.float32).contiguous(memory_format=order)

    kernels, matrices = weights(network)
    convolutions = [(tensor(w, torch.channels_last), tensor(b)) for w, b in kernels]
    dense = [(tensor(w).flatten(1), tensor(b)) for w, b in matrices]

    def evaluate(x: Any) -> tuple[Any, Any]:
        x = x.contiguous(memory_format=torch.channels_last) if convolutions else x
        return forward(x, convolutions, dense, convolve, F.linear, F.relu, torch.tanh)

    def convolve(x: Any, weight: Any, bias: Any) -> Any:
        return F.conv2d(x, weight, bias, padding=1)

    return evaluate


def jax_network(network: str) -> Callable[[Any], tuple[Any, Any]]:
    """Returns a network in jax over planes [B, 6, 7, 2]."""
    import jax
    from jax import numpy as jnp

    kernels, matrices = weights(network)
    convolutions = [(jnp.asarray(w.transpose(2, 3, 1, 0)), b) for w, b in kernels]
    channels_last = [(w if w.ndim == 2 else w.transpose(0, 2, 3, 1), b) for w, b in matrices]
    dense = [(jnp.asarray(w.reshape(len(w), -1).T), jnp.asarray(b)) for w, b in channels_last]

    def convolve(x: Any, weight: Any, bias: Any) -> Any:
        return (
            jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) + bias
        )

    def linear(x: Any, weight: Any, bias: Any) -> Any:
        return x @ weight + bias

    return lambda x: forward(x, convolutions, dense, convolve, linear, jax.nn.relu, jnp.tanh)


def sample() -> Any:
    """Planes [1, 2, 6, 7] on which the outputs of two sides' networks are compared."""
    import numpy as np

    return np.random.default_rng(1).random((1, 2, 6, 7), np.float32)


def unfinished(times: list[float], seconds: float) -> bool:
    return len(times) < 3 or sum(times) < seconds


class Ours:
    """Searches with as many threads as torch has; `evaluated` counts the positions that the network evaluates."""

    def __init__(self, args: argparse.Namespace) -> None:
        import numpy as np
        import torch
        from rllab_envs.games.connect_four.game import ConnectFour

        from rllab.core.algorithm import Context

        torch.set_num_threads(args.threads)
        dtype = torch.bfloat16 if args.bf16 else torch.float32
        self.args, self.game, self.evaluated = args, ConnectFour(threats=False), 0
        self.network, self.ctx = torch_network(args.network, args.bf16), Context(0, torch.device("cpu"), dtype=dtype)
        self.rng = np.random.default_rng(args.seed)
        logits, values = self.network(torch.from_numpy(sample()).to(dtype))
        self.outputs = [*logits[0].tolist(), values.item()]

    def run(self) -> dict[str, Any]:
        for entries in (0, ENTRIES):
            self.timed(entries, True, 0.1)  # warm-up
        return {k: self.timed(*v, self.args.seconds) for k, v in WAYS.items()} | {"outputs": self.outputs}

    def evaluate(self, planes: Any) -> tuple[Any, Any]:
        self.evaluated += len(planes)
        return self.network(planes[:, :2])  # the third plane is the player to move

    def openings(self) -> Any:
        """Returns positions after random moves; a move that would end its game is not played."""
        from rllab.search.evaluate import random_openings

        return random_openings(self.game, self.rng.integers(0, OPENING + 1, self.args.games), self.rng)[0]

    def search(self, board: Any, evaluators: list[Any], proofs: bool) -> Any:
        import numpy as np

        from rllab.core.games import rows
        from rllab.search.parallel import search_in_threads
        from rllab.search.search import SearchOutput, puct

        noise = self.rng.dirichlet(np.ones(7), self.args.games) * self.game.legal(board)

        def part(which: slice, evaluator: Any) -> SearchOutput:
            start, count = rows(board, which), self.args.simulations
            return puct(self.game, start, evaluator, count, noise=noise[which], proofs=proofs)

        return search_in_threads(part, self.args.games, evaluators)

    def timed(self, entries: int, proofs: bool, seconds: float) -> dict[str, float]:
        import numpy as np

        from rllab.search.evaluate import Evaluator, sample_actions

        times, moves, self.evaluated = list[float](), MOVES if entries else 1, 0
        while unfinished(times, seconds):
            board, start = self.openings(), time.perf_counter()
            evaluators = [Evaluator(self.game, self.evaluate, self.ctx, entries) for _ in range(self.args.threads)]
            times.append(time.perf_counter() - start)
            for _ in range(moves):
                start = time.perf_counter()
                output = self.search(board, evaluators, proofs)
                times[-1] += time.perf_counter() - start
                action = sample_actions(output.policy, self.rng.random(self.args.games))
                board, _, over = self.game.play(board, action)
                board = {k: np.where(over, v, board[k]) for k, v in self.openings().items()}
        simulations = moves * self.args.games * self.args.simulations
        evaluations = self.evaluated / simulations / len(times)
        return {"speed": simulations / statistics.median(times), "evaluations": evaluations}


class Mctx:
    """Jitted searches on `devices` XLA devices, with an equal share of the games on each."""

    def __init__(self, args: argparse.Namespace) -> None:
        import jax
        import pgx

        self.args, self.games = args, args.games // args.devices
        self.env, self.network = pgx.make("connect_four"), jax_network(args.network)
        self.step = jax.vmap(self.env.step)

    def run(self) -> dict[str, Any]:
        import jax
        from jax import numpy as jnp

        openings, search = jax.pmap(self.openings), jax.pmap(self.search)
        key, times = jax.random.key(self.args.seed), list[float]()
        while unfinished(times[2:], self.args.seconds):  # the first two include compilation and do not count
            key, *keys = jax.random.split(key, 1 + 2 * self.args.devices)
            state = jax.block_until_ready(openings(jnp.stack(keys[: self.args.devices])))
            start = time.perf_counter()
            jax.block_until_ready(search(jnp.stack(keys[self.args.devices :]), state))
            times.append(time.perf_counter() - start)
        logits, values = self.network(jnp.asarray(sample().transpose(0, 2, 3, 1)))
        speed = self.args.games * self.args.simulations / statistics.median(times[2:])
        return {"mctx": {"speed": speed}, "outputs": [*logits[0].tolist(), values.item()]}

    def evaluate(self, state: Any) -> tuple[Any, Any]:
        from jax import numpy as jnp

        logits, value = self.network(state.observation.astype(jnp.float32))
        return jnp.where(state.legal_action_mask, logits, jnp.finfo(jnp.float32).min), value

    def recurrent(self, _: Any, key: Any, action: Any, state: Any) -> tuple[Any, Any]:
        import mctx
        from jax import numpy as jnp

        mover, state = state.current_player, self.step(state, action)
        logits, value = self.evaluate(state)
        reward, over = state.rewards[jnp.arange(self.games), mover], state.terminated
        discount, value = jnp.where(over, 0.0, -1.0), jnp.where(over, 0.0, value)
        return mctx.RecurrentFnOutput(reward=reward, discount=discount, prior_logits=logits, value=value), state

    def openings(self, key: Any) -> Any:
        """Returns positions after random moves; a move that would end its game is not played."""
        import jax
        from jax import numpy as jnp

        key, one, two = jax.random.split(key, 3)
        left = jax.random.randint(one, (self.games,), 0, OPENING + 1)

        def move(i: Any, state: Any) -> Any:
            chance = jnp.where(state.legal_action_mask, 0.0, -jnp.inf)
            after = self.step(state, jax.random.categorical(jax.random.fold_in(key, i), chance))
            goes = (i < left) & ~after.terminated
            return jax.tree.map(lambda a, b: jnp.where(goes.reshape(-1, *[1] * (a.ndim - 1)), a, b), after, state)

        return jax.lax.fori_loop(0, OPENING, move, jax.vmap(self.env.init)(jax.random.split(two, self.games)))

    def search(self, key: Any, state: Any) -> tuple[Any, Any]:
        import mctx

        logits, value = self.evaluate(state)
        root = mctx.RootFnOutput(prior_logits=logits, value=value, embedding=state)
        illegal = ~state.legal_action_mask
        output = mctx.muzero_policy(None, key, root, self.recurrent, self.args.simulations, invalid_actions=illegal)
        return output.action, output.action_weights


def four(stones: int) -> bool:
    """Whether stones have four in a row: bit 7 c + h is the cell of column c at height h."""
    return any((pairs := stones & stones >> step) & pairs >> 2 * step for step in (1, 6, 7, 8))


def played(position: tuple[int, int], column: int) -> tuple[int, int]:
    mine, theirs = position
    return theirs, mine | ((mine | theirs) + (1 << 7 * column)) & (63 << 7 * column)


def moves(position: tuple[int, int]) -> list[int]:
    return [] if four(position[1]) else [c for c in range(7) if not (position[0] | position[1]) >> (7 * c + 5) & 1]


class Python:
    """A textbook search: one tree at a time, as a dict from a position to the statistics of its moves."""

    def __init__(self, args: argparse.Namespace) -> None:
        import numpy as np

        self.args, self.network, self.rng = args, torch_network(args.network), random.Random(args.seed)
        self.cells = np.array([[7 * c + 5 - r for c in range(7)] for r in range(6)])

    def run(self) -> dict[str, Any]:
        import torch

        times = list[float]()
        with torch.inference_mode():
            while unfinished(times[2:], self.args.seconds):
                position = (0, 0)
                for _ in range(self.rng.randint(0, OPENING)):
                    after = played(position, self.rng.choice(moves(position)))
                    position = after if moves(after) else position
                start = time.perf_counter()
                self.search(position)
                times.append(time.perf_counter() - start)
        return {"python": {"speed": self.args.simulations * len(times[2:]) / sum(times[2:])}}

    def evaluate(self, position: tuple[int, int]) -> tuple[dict[int, list[float]], float]:
        """Returns ([prior, visits, total value] of each move, value)."""
        import numpy as np
        import torch

        planes = (np.array(position)[:, None, None] >> self.cells & 1).astype(np.float32)
        logits, value = self.network(torch.from_numpy(planes[None]))
        legal, by_column = moves(position), logits[0].tolist()
        chances = [math.exp(by_column[c]) for c in legal]
        return {c: [p / sum(chances), 0, 0.0] for c, p in zip(legal, chances, strict=True)}, value.item()

    def search(self, root: tuple[int, int]) -> dict[int, list[float]]:
        tree = {root: self.evaluate(root)[0]}
        for _ in range(self.args.simulations):
            position, path = root, list[list[float]]()
            while edges := tree.get(position):
                spread = 1.5 * math.sqrt(sum(e[1] for e in edges.values()) + 1)
                best = max(
                    edges, key=lambda c: edges[c][2] / max(edges[c][1], 1) + spread * edges[c][0] / (1 + edges[c][1])
                )
                path.append(edges[best])
                position = played(position, best)
            if moves(position):
                tree[position], value = self.evaluate(position)
            else:
                value = -1.0 if four(position[1]) else 0.0
            for edge in reversed(path):
                value = -value
                edge[1] += 1
                edge[2] += value
        return tree[root]


SIDES: dict[str, Callable[[argparse.Namespace], Any]] = {"ours": Ours, "mctx": Mctx, "python": Python}
