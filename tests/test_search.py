"""Search: known results on bandits and small trees, the cache of evaluations, and rollouts."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

from rllab.core.algorithm import Context
from rllab.search.evaluate import Evaluator, Rollout, sample_actions
from rllab.search.search import SearchOutput, gumbel, halving, puct, uct

Board = Mapping[str, np.ndarray]
CTX = Context(0, torch.device("cpu"))


class Tree:
    """A game of `depth` moves with `actions` each and random outcomes; some moves are illegal."""

    def __init__(self, depth: int, actions: int, seed: int, players: int = 2, values: tuple[float, ...] = (-1, 0, 1)):
        rng = np.random.default_rng(seed)
        self.depth, self.actions, self.players = depth, actions, players
        self.names = [str(a) for a in range(actions)]
        self.outcome = rng.choice(values, actions**depth).astype(np.float32)  # for the player who moves last
        self.allowed = rng.random((depth, actions**depth, actions)) < 0.7
        self.allowed[..., 0] = True

    def start(self, n: int) -> Board:
        return {"path": np.zeros(n, np.int64), "ply": np.zeros(n, np.int64)}

    def legal(self, board: Board) -> np.ndarray:
        ply = np.minimum(board["ply"], self.depth - 1)
        return self.allowed[ply, board["path"]] & (board["ply"] < self.depth)[:, None]

    def play(self, board: Board, action: np.ndarray) -> tuple[Board, np.ndarray, np.ndarray]:
        path, ply = board["path"] * self.actions + action, board["ply"] + 1
        over = ply >= self.depth
        reward = np.where(over, self.outcome[np.minimum(path, len(self.outcome) - 1)], 0.0).astype(np.float32)
        return {"path": path, "ply": ply}, reward, over

    def observe(self, board: Board) -> np.ndarray:
        seen = np.zeros((len(board["path"]), 2, 1, 16), np.float32)
        for i in range(16):
            seen[:, 0, 0, i] = board["path"] >> i & 1
        seen[:, 1, 0, 0] = board["ply"]
        return seen

    def solve(self) -> tuple[float, dict[int, float]]:
        """(exact value of the first position, exact value of each action there)."""

        @lru_cache(None)
        def value(path: int, ply: int) -> float:
            return max(of(path, ply, a) for a in range(self.actions) if self.allowed[ply, path, a])

        def of(path: int, ply: int, a: int) -> float:
            after = path * self.actions + a
            if ply + 1 == self.depth:
                return float(self.outcome[after])
            return (-1.0 if self.players == 2 else 1.0) * value(after, ply + 1)

        return value(0, 0), {a: of(0, 0, a) for a in range(self.actions) if self.allowed[0, 0, a]}


def flat(board: Board, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits 0 [B, A] and values 0 [B]."""
    return np.zeros(legal.shape, np.float32), np.zeros(len(legal), np.float32)


SEARCHES = {"puct": puct, "gumbel": gumbel, "uct": uct}


@pytest.mark.parametrize("players", [1, 2])
@pytest.mark.parametrize("name", SEARCHES)
def test_the_best_arm_of_a_bandit_is_chosen(name: str, players: int) -> None:
    game = Tree(1, 5, 0, players)
    game.allowed[:] = True
    game.outcome[:] = [-0.2, 0.1, 0.6, 0.3, -0.5]
    output: SearchOutput = SEARCHES[name](game, game.start(3), flat, 1000)
    assert output.action.tolist() == [2, 2, 2]
    assert output.value == pytest.approx(0.6, abs=0.1 if name == "uct" else 1e-6)


@pytest.mark.parametrize("players", [1, 2])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", ["puct", "gumbel"])
def test_small_trees_are_proven(name: str, seed: int, players: int) -> None:
    game = Tree(4, 3, seed, players)
    value, actions = game.solve()
    output: SearchOutput = SEARCHES[name](game, game.start(2), flat, 200)
    assert output.exact.tolist() == [value, value]
    best = [a for a, v in actions.items() if v == value]
    assert set(np.flatnonzero(output.policy[0]).tolist()) <= set(best) and output.policy.sum(1) == pytest.approx(1.0)
    for a, v in actions.items():
        assert np.isnan(output.edges[0, a]) or output.edges[0, a] == v


@pytest.mark.parametrize("players", [1, 2])
def test_without_proofs_the_search_converges_to_the_same(players: int) -> None:
    game = Tree(3, 3, 5, players, (-1.0, -0.5, 0.25, 0.75))
    value, actions = game.solve()
    output = puct(game, game.start(1), flat, 3000, proofs=False)
    assert actions[int(output.action[0])] == value and output.value[0] == pytest.approx(value, abs=0.1)
    assert np.isnan(output.exact).all()


def test_a_game_is_searched_alone_as_in_a_batch() -> None:
    game = Tree(6, 3, 1)
    boards = game.start(7)
    noise = np.random.default_rng(0).dirichlet(np.ones(3), 7).astype(np.float32)
    for search in (puct, gumbel):
        together = search(game, boards, flat, 30, noise=noise)
        for i in range(7):
            alone = search(game, game.start(1), flat, 30, noise=noise[i : i + 1])
            np.testing.assert_array_equal(alone.policy[0], together.policy[i])


def test_priors_and_noise_guide_the_search() -> None:
    game = Tree(6, 4, 1, values=(0.0,))
    game.allowed[:] = True

    def eager(board: Board, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.tile(np.array([0, 3, 0, 0], np.float32), (len(legal), 1)), np.zeros(len(legal), np.float32)

    assert puct(game, game.start(1), eager, 20, proofs=False).action.tolist() == [1]
    noise = np.array([[0, 0, 0, 1]], np.float32)
    noisy = puct(game, game.start(1), eager, 20, noise=noise, noise_share=0.9, proofs=False)
    assert noisy.action.tolist() == [3]
    drew = gumbel(game, game.start(1), eager, 8, noise=np.array([[9.0, 0, 9, 0]], np.float32), considered=2)
    assert set(np.flatnonzero(drew.visits[0])) == {0, 2}


def test_positions_that_are_over_or_forced_can_be_searched() -> None:
    game = Tree(1, 3, 0)
    over, _, _ = game.play(game.start(2), np.zeros(2, int))
    for search in (puct, gumbel):
        output = search(game, over, flat, 10)
        assert output.visits.sum() == 0 and output.policy.sum() == 0 and output.value.tolist() == [0.0, 0.0]
    game = Tree(3, 3, 0)
    game.allowed[..., 1:] = False
    assert gumbel(game, game.start(1), flat, 5).policy.tolist() == [[1.0, 0.0, 0.0]]


def test_sequential_halving_has_known_plans() -> None:
    assert halving(np.array([1, 4]), 16).tolist() == [
        list(range(16)),
        [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5],
    ]


def network(seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A network without symmetry: observations [B, C, H, W] -> (logits [B, 4], values [B])."""
    weights = torch.arange(seen[0].numel() * 5, dtype=torch.float32).view(-1, 5).sin()
    outputs = seen.flatten(1) @ weights
    return outputs[:, :4], outputs[:, 4].tanh()


class Mirrored(Tree):
    """A game with one symmetry: cells and actions in reverse order."""

    symmetries = (np.array([np.arange(16), np.arange(16)[::-1]]), np.array([[0, 1, 2, 3], [3, 2, 1, 0]]))


def test_cached_outputs_are_those_of_the_network() -> None:
    game = Mirrored(5, 4, 0)
    rng = np.random.default_rng(0)
    path = rng.integers(0, 300, 200)
    board = {"path": path, "ply": np.full(200, 3)}
    plain, kept = (Evaluator(game, network, CTX, n) for n in (0, 1024))
    first, again = kept(board, game.legal(board)), kept(board, game.legal(board))
    assert kept.requests == 400 and kept.hits >= 200
    seen = game.observe(board)
    for outputs in (first, again):
        for logits, value, one in zip(*outputs, seen, strict=True):
            direct = network(torch.from_numpy(one[None]))
            mirror = network(torch.from_numpy(np.ascontiguousarray(one[None, ..., ::-1])))
            ways = [np.r_[direct[0][0], direct[1]], np.r_[mirror[0][0].flip(0), mirror[1]]]
            assert min(np.abs(np.r_[logits, value] - way).max() for way in ways) < 1e-5
    np.testing.assert_array_equal(plain(board, game.legal(board))[0], network(torch.from_numpy(seen))[0].numpy())


def test_the_cache_tells_large_and_tiny_numbers_apart() -> None:
    numbers = np.float32([0, 1, -1, 0.5, 32767, 32768, 40000, 40001, -40000, 3e9, 4e9, 1e-6, 2e-6])

    class Numbers(Tree):
        def observe(self, board: Board) -> np.ndarray:
            return np.repeat(numbers[board["path"]], 32).reshape(-1, 2, 1, 16)

    game = Numbers(5, 4, 0)
    cached = Evaluator(game, network, CTX, 1024)
    board = {"path": np.arange(len(numbers)), "ply": np.full(len(numbers), 3)}
    logits, _ = cached(board, game.legal(board))
    assert cached.hits == 0
    np.testing.assert_array_equal(logits, network(torch.from_numpy(game.observe(board)))[0].numpy())
    cached(board, game.legal(board))
    assert cached.hits == len(numbers)


@pytest.mark.parametrize("entries", [0, 1024])
def test_the_mean_of_all_views_does_not_depend_on_the_view(entries: int) -> None:
    game = Mirrored(5, 4, 0)
    board = {"path": np.arange(40), "ply": np.full(40, 3)}
    seen = torch.from_numpy(game.observe(board))
    (policy, value), (mirrored, other) = network(seen), network(seen.flip(3))
    logits, values = Evaluator(game, network, CTX, entries, views=8)(board, game.legal(board))
    np.testing.assert_allclose(logits, (policy + mirrored.flip(1)) / 2, atol=1e-5)
    np.testing.assert_allclose(values, (value + other) / 2, atol=1e-5)
    assert not torch.allclose(policy, mirrored.flip(1), atol=1e-2)


class Large:
    """A game of which only the observations are used: 24 cells, each 0 or 2^14."""

    players, names = 1, ("a",)

    def start(self, n: int) -> Board:
        """`n` empty positions."""
        return {"cells": np.zeros((n, 24), np.float32)}

    def legal(self, board: Board) -> np.ndarray:
        """The only action."""
        return np.ones((len(board["cells"]), 1), bool)

    def observe(self, board: Board) -> np.ndarray:
        """The cells."""
        return board["cells"][:, None, None] * np.float32(2**14)


def test_positions_with_the_same_sum_have_different_keys() -> None:
    """In fixed point the sums of numbers x factors of large numbers end in zeros; two positions with the same sum."""
    game: Any = Large()
    cached = Evaluator(game, lambda x: (torch.zeros(len(x), 1), x.flatten(1)[:, 0] * 0 + x.sum((1, 2, 3))), CTX, 1024)
    signs = np.stack(np.meshgrid(*[[0, 1, -1]] * 12), -1).reshape(-1, 12)
    first, second = (signs @ half % (1 << 34) for half in np.split(cached._factors[0], 2))
    _, i, j = np.intersect1d(first, -second % (1 << 34), return_indices=True)
    cells = np.concatenate([signs[i], signs[j]], 1)
    cells = cells[(cells != 0).any(1)]
    assert len(cells), "no two positions have the same sum"
    board = {"cells": np.float32(np.stack([cells[0] == 1, cells[0] == -1]))}
    values = cached(board, game.legal(board))[1]
    assert cached.hits == 0 and values.tolist() == [c.sum() * 2**14 for c in board["cells"]]


def test_a_full_cache_is_cleared() -> None:
    game = Tree(5, 4, 0)
    cached, plain = (Evaluator(game, network, CTX, n) for n in (64, 0))
    for first in range(0, 300, 30):
        board = {"path": np.arange(first, first + 30), "ply": np.full(30, 4)}
        np.testing.assert_allclose(cached(board, game.legal(board))[0], plain(board, game.legal(board))[0], rtol=1e-5)
    large = {"path": np.arange(100), "ply": np.full(100, 4)}
    np.testing.assert_allclose(cached(large, game.legal(large))[1], plain(large, game.legal(large))[1], rtol=1e-5)


def test_rollouts_have_the_mean_result_of_random_games() -> None:
    game = Tree(3, 2, 3)
    game.allowed[:] = True
    count = 4000
    _, values = Rollout(game, np.random.default_rng(0))(game.start(count), game.legal(game.start(count)))
    assert values.mean() == pytest.approx(game.outcome.mean(), abs=0.05) and set(values) <= {-1.0, 0.0, 1.0}
    chosen: Any = uct(game, game.start(1), Rollout(game, np.random.default_rng(1)), 2000)
    value, actions = game.solve()
    assert actions[int(chosen.action[0])] == value


def test_actions_are_sampled_in_proportion() -> None:
    weights = np.array([[0.0, 1.0, 3.0, 0.0]])
    actions = [int(sample_actions(weights, np.array([u]))[0]) for u in (0.0, 0.24, 0.26, 0.999)]
    assert actions == [1, 1, 2, 2]
