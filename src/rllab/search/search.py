"""Monte Carlo tree search in many games at once: PUCT as in AlphaGo Zero, Gumbel at the root, and plain UCT.

A simulation walks down the tree of every game, plays and evaluates the new positions as one batch, and walks back up. A
search is a pure function; random numbers are passed in as arrays. Axes: B games, A actions.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rllab.core.games import rows
from rllab.core.protocols import Board, Game
from rllab.search.tree import PUCT, UCB, WIN, add, back_up, descend, new_tree, proven_edges, store_evaluation

Evaluate = Callable[[Board, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(positions, legal actions [B, A]) -> (policy logits [B, A], values [B] for the side to move)."""


@dataclass(frozen=True)
class SearchOutput:
    """The result of a search of B positions.

    action [B]: the best action. policy [B, A]: the improved policy, the target of a network. visits [B, A]: of the
    root's edges. value [B]: of the positions, for the side to move. exact [B]: the proven value, NaN if there is none.
    edges [B, A]: the proven values of the actions, NaN where there is none.
    """

    action: np.ndarray
    policy: np.ndarray
    visits: np.ndarray
    value: np.ndarray
    exact: np.ndarray
    edges: np.ndarray


def puct(
    game: Game,
    board: Board,
    evaluate: Evaluate,
    simulations: int,
    *,
    c_puct: float = 1.5,
    fpu: float = 0.2,
    noise: np.ndarray | None = None,
    noise_share: float = 0.25,
    proofs: bool = True,
    opponent: Evaluate | None = None,
) -> SearchOutput:
    """The search of AlphaGo Zero (Silver et al. 2017), which maximises Q + c_puct P sqrt(N) / (1 + n).

    The policy is the share of visits. noise [B, A]: Dirichlet noise, mixed into the root's priors with weight
    `noise_share`. fpu: first-play urgency; an untried action counts as the mean value of its node so far minus `fpu`.
    proofs: proven values are propagated up the tree. opponent: a model of the opponent, see `Trees`.
    """
    trees = Trees(game, board, evaluate, simulations, proofs, opponent)
    if noise is not None:
        prior = trees.tree.edge["prior"][:, 0]
        prior += noise_share * (noise - prior)
    (output,) = puct_outputs(trees, [simulations], c_puct, fpu)
    return output


def puct_outputs(trees: "Trees", looks: Sequence[int], c_puct: float, fpu: float) -> Iterator[SearchOutput]:
    """The search of `puct` in new trees, which yields its output so far after each of `looks` simulations, ascending.

    The arrays `visits` of the outputs are those of the trees, and change with the next simulations.
    """
    done = 0
    for count in looks:
        for _ in range(count - done):
            trees.simulate(PUCT, c_puct, fpu)
        done = count
        yield trees.output(trees.tree.edge["visits"][:, 0])


def uct(game: Game, board: Board, evaluate: Evaluate, simulations: int, *, c: float = 1.4) -> SearchOutput:
    """The search of Kocsis and Szepesvári (2006), which maximises mean + c sqrt(ln N / n), each action once first."""
    trees = Trees(game, board, evaluate, simulations, proofs=False)
    for _ in range(simulations):
        trees.simulate(UCB, c, 0.0)
    return trees.output(trees.tree.edge["visits"][:, 0])


def gumbel(
    game: Game,
    board: Board,
    evaluate: Evaluate,
    simulations: int,
    *,
    noise: np.ndarray | None = None,
    considered: int = 16,
    c_puct: float = 1.5,
    fpu: float = 0.2,
    c_visit: float = 50.0,
    c_scale: float = 1.0,
    proofs: bool = True,
    opponent: Evaluate | None = None,
) -> SearchOutput:
    """Sequential halving at the root over actions sampled by Gumbel noise (Danihelka et al. 2022, algorithm 1).

    It improves the policy even with few simulations. The policy is softmax(logits + sigma(completed Q)), equation 11.
    Below the root, PUCT selects actions. noise [B, A]: Gumbel noise; None for the best action without sampling.
    considered: the number of actions that the halving starts with. Other arguments are those of `puct`.
    """
    trees = Trees(game, board, evaluate, simulations, proofs, opponent)
    (output,) = gumbel_outputs(
        trees, [simulations], c_puct, fpu, noise=noise, considered=considered, c_visit=c_visit, c_scale=c_scale
    )
    return output


def gumbel_outputs(
    trees: "Trees",
    looks: Sequence[int],
    c_puct: float,
    fpu: float,
    *,
    noise: np.ndarray | None = None,
    considered: int = 16,
    c_visit: float = 50.0,
    c_scale: float = 1.0,
) -> Iterator[SearchOutput]:
    """The search of `gumbel` in new trees; the same as `puct_outputs`. The plan is that for the last of `looks`.

    noise [B, A]: see `gumbel`.
    """
    tree, legal, done = trees.tree, trees.tree.edge["legal"][:, 0], 0
    logits = np.log(np.maximum(tree.edge["prior"][:, 0], 1e-9))
    perturbed = logits if noise is None else logits + noise
    plan = halving(np.minimum(considered, legal.sum(1)), looks[-1])
    for count in looks:
        for step in range(done, count):
            score = perturbed + trees.sigma(c_visit, c_scale)
            visits = tree.edge["visits"][:, 0]
            due = legal & (visits == plan[:, step, None])
            due |= ~due.any(1, keepdims=True) & legal  # no action is due, as walks end at proven edges: any legal one
            trees.simulate(PUCT, c_puct, fpu, np.where(due, score, -np.inf).argmax(1))
        done = count
        improved = np.where(legal, logits + trees.sigma(c_visit, c_scale), -np.inf)
        improved = np.exp(improved - improved.max(1, keepdims=True, initial=-1e9))
        output = trees.output(improved / np.maximum(improved.sum(1, keepdims=True), 1e-9))
        most = output.visits == output.visits.max(1, keepdims=True)
        left = np.where(most & (output.policy > 0), perturbed + trees.sigma(c_visit, c_scale), -np.inf)
        proven = ~np.isnan(output.exact) | ~np.isfinite(left).any(1)
        yield replace(output, action=np.where(proven, output.action, left.argmax(1)))


def halving(considered: np.ndarray, simulations: int) -> np.ndarray:
    """Sequential halving (Karnin et al. 2013) as a plan: int [B, simulations].

    Entry i is how many visits the action of simulation i has had before. All `considered` [B] actions get equally many
    visits, then the better half of them, and so on.
    """
    plans = {n: _plan(int(n), simulations) for n in np.unique(considered)}
    return np.stack([plans[n] for n in considered])


def _plan(considered: int, simulations: int) -> np.ndarray:
    if considered <= 1:
        return np.arange(simulations)
    rounds, visits, plan = int(np.ceil(np.log2(considered))), 0, list[int]()
    left = considered
    while len(plan) < simulations:
        for _ in range(max(1, simulations // (rounds * left))):
            plan += [visits] * left
            visits += 1
        left = max(2, left // 2)
    return np.array(plan[:simulations])


class Trees:
    """The trees of a search, with the positions of their nodes.

    opponent: a model of an opponent that need not play its best moves. It evaluates the positions in which the other
    side moves; walks follow its policy there, and only what holds against every move of it counts as proven.
    """

    def __init__(
        self,
        game: Game,
        board: Board,
        evaluate: Evaluate,
        simulations: int,
        proofs: bool,
        opponent: Evaluate | None = None,
    ) -> None:
        legal = np.asarray(game.legal(board))
        games, actions = legal.shape
        self.game, self.evaluate, self.proofs, self.opponent = game, evaluate, proofs, opponent
        self.sign = -1.0 if game.players == 2 else 1.0
        self.tree = new_tree(games, simulations + 1, actions)
        self.boards = {k: np.empty((simulations + 1, games, *v.shape[1:]), v.dtype) for k, v in board.items()}
        self._wins = getattr(game, "wins", None) if proofs else None
        self._new, self._node = 0, np.zeros(games, np.int64)
        self._action, self._unsolved = np.empty((2, games), np.int64)
        self._free = np.full(games, -1)
        none, over = np.zeros(games, np.float32), np.logical_not(legal.any(1))
        self._add(np.arange(games), self._free, board, none, over)

    def simulate(self, rule: int, c: float, fpu: float, forced: np.ndarray | None = None) -> None:
        """Runs one simulation in each game. forced [B]: the action at the root; None for the rule's."""
        self._new += 1
        first = self._free if forced is None else forced
        descend(self.tree, self.sign, rule, c, fpu, first, self._node, self._action)
        games = np.flatnonzero(self._action >= 0)
        if len(games):
            at, action = self._node[games] * len(self._node) + games, self._action[games]
            parents = {k: v.reshape(-1, *v.shape[2:])[at] for k, v in self.boards.items()}
            self._add(games, action, *self.game.play(parents, action))
        back_up(self.tree, self.sign, self._node, self.proofs)

    def _add(self, games: np.ndarray, action: np.ndarray, board: Board, reward: np.ndarray, over: np.ndarray) -> None:
        """Adds a node with its position to the trees of `games`: the child at `self._node` and these actions."""
        legal = self.game.legal(board)
        for name, value in board.items():
            self.boards[name][self._new][games] = value
        wins = np.empty((len(games), 0), np.bool_) if self._wins is None else self._wins(board)
        modelled, edge = self.opponent is not None, (self._node, games, action)
        count = add(self.tree, self._new, modelled, *edge, legal, wins, reward, over, self._unsolved)
        which = self._unsolved[:count]
        jobs = [(self.evaluate, which)]
        if self.opponent is not None:
            theirs = self.tree.node["theirs"][games[which], self._new]
            jobs = [(self.evaluate, which[~theirs]), (self.opponent, which[theirs])]
        for evaluate, part in jobs:
            if len(part) == len(games):
                store_evaluation(self.tree, self._new, games, *evaluate(board, legal))
            elif len(part):
                store_evaluation(self.tree, self._new, games[part], *evaluate(rows(board, part), legal[part]))

    def sigma(self, c_visit: float, c_scale: float) -> np.ndarray:
        """sigma(completed Q) of the root's actions [B, A]; actions without visits get the root's mixed value.

        Values are scaled to lie between 0 and 1 (Danihelka et al. 2022, equation 8, and appendix F).
        """
        root, edges = self.tree.edge[:, 0], self.edges()
        visits, total = root["visits"], root["total"]
        seen = visits > 0
        q = np.where(seen, total / np.maximum(visits, 1), self._mixed(visits, total)[:, None])
        q = np.where(np.isnan(edges), q, edges)
        scaled: np.ndarray = (c_visit + visits.max(1, keepdims=True)) * c_scale * (q + 1.0) / 2.0
        return scaled

    def _mixed(self, visits: np.ndarray, total: np.ndarray) -> np.ndarray:
        """The mixed value of the root [B]: its own evaluation and its children's, weighted by priors (equation 33)."""
        prior = np.where(visits > 0, self.tree.edge["prior"][:, 0], 0.0)
        weighted = (prior * total / np.maximum(visits, 1)).sum(1) / np.maximum(prior.sum(1), 1e-9)
        count = visits.sum(1)
        mixed: np.ndarray = (self.tree.node["value"][:, 0] + count * weighted) / (1 + count)
        return mixed

    def edges(self) -> np.ndarray:
        """The proven values of the root's actions [B, A], NaN where there is none."""
        values = np.empty(self.tree.edge[:, 0].shape, np.float32)
        proven_edges(self.tree, self.sign, values)
        if self._wins is not None:
            won = self._wins({k: v[0] for k, v in self.boards.items()})
            values[won] = 1.0
        return values

    def line(self, game: int, action: int) -> list[int]:
        """The principal line of a game: the action at the root, then the best ones in the tree while they have visits.

        The best action of a position with a proven value is one with that value, of others the one with most visits.
        """
        line, at, edges = [action], 0, self.tree.edge[game]
        while (at := int(edges[at, line[-1]]["child"])) and edges[at]["visits"].any():
            node, children = self.tree.node[game, at], self.tree.node[game, edges[at]["child"]]
            value = children["reward"] + np.float32(self.sign) * children["exact"]
            proven = (edges[at]["child"] > 0) & (value >= node["exact"] - 1e-6)  # none where no value is proven
            line.append(int(np.where(proven, np.iinfo(np.int32).max, edges[at]["visits"]).argmax()))
        return line

    def output(self, weights: np.ndarray) -> SearchOutput:
        """The result of the search. weights [B, A]: the policy, not normalised, where no value is proven."""
        root, exact = self.tree.edge[:, 0], self.tree.node["exact"][:, 0]
        legal, visits = root["legal"], root["visits"]
        edges = self.edges()
        value = (self.tree.node["value"][:, 0] + root["total"].sum(1)) / (1 + visits.sum(1))
        policy = weights.astype(np.float64)
        if self.proofs:
            best = legal & (edges >= exact[:, None] - 1e-6)  # none where the root's value is not proven
            good = legal & ~(edges <= -WIN)
            policy = policy * np.where(best.any(1, keepdims=True), best, good)
            empty = policy.sum(1) == 0
            policy[empty] = np.where(best.any(1, keepdims=True), best, legal)[empty]
        policy /= np.maximum(policy.sum(1, keepdims=True), 1e-12)
        return SearchOutput(
            policy.argmax(1), policy.astype(np.float32), visits, np.where(np.isnan(exact), value, exact), exact, edges
        )
