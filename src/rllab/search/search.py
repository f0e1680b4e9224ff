"""Monte Carlo tree search in many games at once: PUCT as in AlphaGo Zero, Gumbel's root, and plain UCT.

One simulation of every game is a walk down its tree, one batch of new positions for the game to play and for `evaluate`
to judge, and a walk up. A search is a pure function: what chance it needs comes as arrays. Axes: B games, A actions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from rllab.core.games import rows
from rllab.core.protocols import Board, Game
from rllab.search.tree import KNOWN, PUCT, UCB, add, back_up, descend, judge, known_edges, new_tree

Evaluate = Callable[[Board, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(positions, legal actions [B, A]) -> (logits of a policy [B, A], values for the side to move [B])."""


@dataclass(frozen=True)
class Found:
    """What a search makes of B positions.

    action [B]: what the search would play. policy [B, A]: how good actions are, adding up to 1; a network learns from
    it. visits [B, A]. value [B]: of the positions. exact [B]: the same where it is proven, else not a number.
    edges [B, A]: what actions are worth, where that is proven; not a number elsewhere.
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
    rival: Evaluate | None = None,
) -> Found:
    """The search of AlphaGo Zero (Silver et al. 2017): Q + c_puct P sqrt(N) / (1 + n) chooses, visits are the policy.

    noise [B, A]: Dirichlet noise that takes `noise_share` of the root's priors. fpu: how much worse than its parent an
    action counts that was not tried. proofs: what is known exactly goes up the tree. rival: a known opponent, see
    `Trees`.
    """
    trees = Trees(game, board, evaluate, simulations, proofs, rival)
    if noise is not None:
        prior = trees.tree.edge["prior"][:, 0]
        prior += noise_share * (noise - prior)
    for _ in range(simulations):
        trees.simulate(PUCT, c_puct, fpu)
    return trees.found(trees.tree.edge["visits"][:, 0])


def uct(game: Game, board: Board, evaluate: Evaluate, simulations: int, *, c: float = 1.4) -> Found:
    """The search of Kocsis and Szepesvári 2006: mean + c sqrt(ln N / n) chooses, each action once first."""
    trees = Trees(game, board, evaluate, simulations, proofs=False)
    for _ in range(simulations):
        trees.simulate(UCB, c, 0.0)
    return trees.found(trees.tree.edge["visits"][:, 0])


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
    rival: Evaluate | None = None,
) -> Found:
    """Sequential halving at the root over actions drawn with Gumbel noise [B, A] (Danihelka et al. 2022, algorithm 1).

    Few simulations then improve the policy, too. `policy` is softmax(logits + sigma(completed Q)), equation 11; below
    the root PUCT chooses. `noise` of None draws nothing: the best action of the search alone.
    """
    trees = Trees(game, board, evaluate, simulations, proofs, rival)
    tree, legal = trees.tree, trees.tree.edge["legal"][:, 0]
    logits = np.log(np.maximum(tree.edge["prior"][:, 0], 1e-9))
    drawn = logits if noise is None else logits + noise
    plan = halving(np.minimum(considered, legal.sum(1)), simulations)
    for step in range(simulations):
        score = drawn + trees.sigma(c_visit, c_scale)
        visits = tree.edge["visits"][:, 0]
        due = legal & (visits == plan[:, step, None])
        due |= ~due.any(1, keepdims=True) & legal  # proofs have ended an action's walks: whichever is left
        trees.simulate(PUCT, c_puct, fpu, np.where(due, score, -np.inf).argmax(1))
    improved = np.where(legal, logits + trees.sigma(c_visit, c_scale), -np.inf)
    improved = np.exp(improved - improved.max(1, keepdims=True, initial=-1e9))
    found = trees.found(improved / np.maximum(improved.sum(1, keepdims=True), 1e-9))
    most = found.visits == found.visits.max(1, keepdims=True)
    left = np.where(most & (found.policy > 0), drawn + trees.sigma(c_visit, c_scale), -np.inf)
    proven = ~np.isnan(found.exact) | ~np.isfinite(left).any(1)
    return replace(found, action=np.where(proven, found.action, left.argmax(1)))


def halving(considered: np.ndarray, simulations: int) -> np.ndarray:
    """How often the action of each simulation [B, simulations] has been visited before, for sequential halving.

    All `considered` [B] are visited equally often, then the better half of them, and so on (Karnin et al. 2013).
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

    rival: judges the positions in which the other side moves, where that is a known opponent that need not play its
    best: walks follow the policy that it says there, and a proof is only what holds whatever it plays.
    """

    def __init__(
        self,
        game: Game,
        board: Board,
        evaluate: Evaluate,
        simulations: int,
        proofs: bool,
        rival: Evaluate | None = None,
    ) -> None:
        legal = np.asarray(game.legal(board))
        games, actions = legal.shape
        self.game, self.evaluate, self.proofs, self.rival = game, evaluate, proofs, rival
        self.sign = -1.0 if game.players == 2 else 1.0
        self.tree = new_tree(games, simulations + 1, actions)
        self.boards = {k: np.empty((simulations + 1, games, *v.shape[1:]), v.dtype) for k, v in board.items()}
        self._wins = getattr(game, "wins", None) if proofs else None
        self._new, self._node = 0, np.zeros(games, np.int64)
        self._action, self._judged = np.empty((2, games), np.int64)
        self._free = np.full(games, -1)
        none, over = np.zeros(games, np.float32), np.logical_not(legal.any(1))
        self._add(np.arange(games), self._free, board, none, over)

    def simulate(self, rule: int, c: float, fpu: float, forced: np.ndarray | None = None) -> None:
        """One simulation in each game; forced [B]: the first action, in place of the rule's."""
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
        """Adds positions to the trees of `games`, behind their nodes and these actions."""
        legal = self.game.legal(board)
        for name, value in board.items():
            self.boards[name][self._new][games] = value
        wins = np.empty((len(games), 0), np.bool_) if self._wins is None else self._wins(board)
        rival, edge = self.rival is not None, (self._node, games, action)
        count = add(self.tree, self._new, rival, *edge, legal, wins, reward, over, self._judged)
        which = self._judged[:count]
        asked = [(self.evaluate, which)]
        if self.rival is not None:
            theirs = self.tree.node["theirs"][games[which], self._new]
            asked = [(self.evaluate, which[~theirs]), (self.rival, which[theirs])]
        for evaluate, part in asked:
            if len(part) == len(games):
                judge(self.tree, self._new, games, *evaluate(board, legal))
            elif len(part):
                judge(self.tree, self._new, games[part], *evaluate(rows(board, part), legal[part]))

    def sigma(self, c_visit: float, c_scale: float) -> np.ndarray:
        """How much more an action counts for what it is worth [B, A]: a root value stands in where it is not known.

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
        """The value of the root [B] from its network and its children, by their priors (equation 33)."""
        prior = np.where(visits > 0, self.tree.edge["prior"][:, 0], 0.0)
        weighted = (prior * total / np.maximum(visits, 1)).sum(1) / np.maximum(prior.sum(1), 1e-9)
        count = visits.sum(1)
        mixed: np.ndarray = (self.tree.node["value"][:, 0] + count * weighted) / (1 + count)
        return mixed

    def edges(self) -> np.ndarray:
        """What the root's actions are worth where that is proven, not a number elsewhere [B, A]."""
        found = np.empty(self.tree.edge[:, 0].shape, np.float32)
        known_edges(self.tree, self.sign, found)
        if self._wins is not None:
            won = self._wins({k: v[0] for k, v in self.boards.items()})
            found[won] = 1.0
        return found

    def found(self, weights: np.ndarray) -> Found:
        """What the search has found; weights [B, A] are the policy's where nothing is proven."""
        root, exact = self.tree.edge[:, 0], self.tree.node["exact"][:, 0]
        legal, visits = root["legal"], root["visits"]
        edges = self.edges()
        value = (self.tree.node["value"][:, 0] + root["total"].sum(1)) / (1 + visits.sum(1))
        policy = weights.astype(np.float64)
        if self.proofs:
            best = legal & (edges >= exact[:, None] - 1e-6)  # nothing, where the root is not proven
            good = legal & ~(edges <= -KNOWN)
            policy = policy * np.where(best.any(1, keepdims=True), best, good)
            empty = policy.sum(1) == 0
            policy[empty] = np.where(best.any(1, keepdims=True), best, legal)[empty]
        policy /= np.maximum(policy.sum(1, keepdims=True), 1e-12)
        return Found(
            policy.argmax(1), policy.astype(np.float32), visits, np.where(np.isnan(exact), value, exact), exact, edges
        )
