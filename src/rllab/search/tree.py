"""Search trees of many games side by side, as arrays, and the kernels on them. No kernel calls a game.

A node is a position, and its edges are the actions there. Values are for the side to move; in a game for two players
they change sign from node to parent. `exact` is the proven value of a node under perfect play from there on. It is
known where a game ends, and is propagated upwards as far as it follows (Winands, Björnsson and Saito 2008).
Axes: B games, N nodes, A actions.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

PUCT, UCB = 0, 1
WIN = 1.0 - 1e-6  # a value from here on is the highest possible, up to rounding

EDGE = np.dtype([("child", "i4"), ("visits", "i4"), ("prior", "f4"), ("total", "f4"), ("legal", "?")])
NODE = np.dtype(
    [("parent", "i4"), ("action", "i4"), ("reward", "f4"), ("value", "f4"), ("exact", "f4"), ("theirs", "?")]
)


class Tree(NamedTuple):
    """The trees of B games.

    edge [B, N, A], dtype EDGE. child: the node behind the edge, 0 if there is none yet. total: the sum of the values
    backed up through the edge.
    node [B, N], dtype NODE; node 0 is the root. parent, action: the edge that leads to the node. reward: of the player
    who moved to it. value: the evaluator's. exact: the proven value, NaN if there is none. theirs: a modelled opponent
    is to move. Simulation i adds node i; the node stays empty in games where that simulation adds none.
    """

    edge: np.ndarray
    node: np.ndarray


def new_tree(games: int, nodes: int, actions: int) -> Tree:
    """Empty trees: edge [games, nodes, actions] and node [games, nodes]."""
    return Tree(np.zeros((games, nodes, actions), EDGE), np.zeros((games, nodes), NODE))


@njit(cache=True, nogil=True)
def descend(
    tree: Tree, sign: float, rule: int, c: float, fpu: float, forced: np.ndarray, node: np.ndarray, action: np.ndarray
) -> None:
    """Walks down each tree and writes the edge to expand: `node` [B] and `action` [B].

    action is -1 where the walk ends at a node with a proven value. rule: PUCT or UCB, which selects the actions.
    forced [B]: the action at the root, or -1 for the rule's.
    """
    for b in range(len(node)):
        n, a = 0, forced[b]
        while True:
            node[b], action[b] = n, -1
            if not math.isnan(tree.node[b, n].exact):
                break
            if a < 0:
                if tree.node[b, n].theirs:
                    a = _by_prior(tree, b, n)
                else:
                    a = _puct(tree, b, n, sign, c, fpu) if rule == PUCT else _ucb(tree, b, n, c)
            if tree.edge[b, n, a].child == 0:
                action[b] = a
                break
            n, a = tree.edge[b, n, a].child, -1


@njit(cache=True, nogil=True, inline="always")  # a call would pass every array of the tree
def _puct(tree: Tree, b: int, n: int, sign: float, c: float, fpu: float) -> int:
    """The action with the highest upper bound. Edges with a proven loss come last."""
    count, total = 0, 0.0
    for a in range(tree.edge.shape[2]):
        count += tree.edge[b, n, a].visits
        total += tree.edge[b, n, a].total
    unseen = (tree.node[b, n].value + total) / (1 + count) - fpu  # first-play urgency: the mean value so far, reduced
    scale = c * math.sqrt(max(1, count))
    best, chosen = -math.inf, -1
    for a in range(tree.edge.shape[2]):
        edge = tree.edge[b, n, a]
        if not edge.legal:
            continue
        v = edge.visits
        q = edge.total / v if v else unseen
        child = tree.node[b, edge.child]
        if edge.child > 0 and not math.isnan(child.exact):
            q = child.reward + sign * child.exact
            if q <= -WIN:
                q = -1e3
        bound = q + scale * edge.prior / (1 + v)
        if bound > best:
            best, chosen = bound, a
    return chosen


@njit(cache=True, nogil=True, inline="always")
def _ucb(tree: Tree, b: int, n: int, c: float) -> int:
    """The action with the highest bound of UCT, which ignores priors. Every action is tried once first."""
    count = 0
    for a in range(tree.edge.shape[2]):
        count += tree.edge[b, n, a].visits
    width, best, chosen = c * math.sqrt(math.log(count + 1.0)), -math.inf, -1
    for a in range(tree.edge.shape[2]):
        edge = tree.edge[b, n, a]
        v = edge.visits
        if edge.legal:
            bound = edge.total / v + width / math.sqrt(v) if v else math.inf
            if bound > best:
                best, chosen = bound, a
    return chosen


@njit(cache=True, nogil=True, inline="always")
def _by_prior(tree: Tree, b: int, n: int) -> int:
    """The action whose visits are furthest below its prior's share, so that visits follow the prior."""
    count, best, chosen = 0, -math.inf, -1
    for a in range(tree.edge.shape[2]):
        count += tree.edge[b, n, a].visits
    for a in range(tree.edge.shape[2]):
        edge = tree.edge[b, n, a]
        due = edge.prior * (count + 1) - edge.visits
        if edge.legal and due > best:
            best, chosen = due, a
    return chosen


@njit(cache=True, nogil=True)
def add(
    tree: Tree,
    new: int,
    opponent: bool,
    node: np.ndarray,
    games: np.ndarray,
    action: np.ndarray,
    legal: np.ndarray,
    wins: np.ndarray,
    reward: np.ndarray,
    over: np.ndarray,
    unsolved: np.ndarray,
) -> int:
    """Adds node `new` to the trees of `games` [N]: the root (0), or the child at `node` [B] and `action` [N].

    `node` then holds the new node. legal [N, A]. wins [N, A], or [N, 0] for a game without `wins`. reward, over [N].
    opponent: whether the nodes of the other side belong to a modelled opponent. Returns the number of new nodes without
    a proven value; the first entries of `unsolved` get their indices in `games`. The other new nodes get equal priors.
    """
    count = 0
    for i in range(len(games)):
        b, moves, won = games[i], 0, False
        parent, node[b] = node[b], new
        added = tree.node[b, new]
        if new > 0:
            added.parent, added.action = parent, action[i]
            tree.edge[b, parent, action[i]].child = new
        added.reward, added.exact = reward[i], math.nan
        added.theirs = opponent and new > 0 and not tree.node[b, parent].theirs
        for a in range(legal.shape[1]):
            tree.edge[b, new, a].legal = legal[i, a]
            moves += legal[i, a]
        for a in range(wins.shape[1]):
            won = won or wins[i, a]
        if won and not added.theirs:
            added.exact = 1.0
        elif over[i]:
            added.exact = 0.0
        else:
            unsolved[count] = i
            count += 1
            continue
        for a in range(legal.shape[1]):
            tree.edge[b, new, a].prior = legal[i, a] / max(moves, 1)
    return count


@njit(cache=True, nogil=True)
def store_evaluation(tree: Tree, new: int, games: np.ndarray, logits: np.ndarray, value: np.ndarray) -> None:
    """Writes the outputs for node `new` of N games: priors from logits [N, A], and value [N]."""
    for i in range(len(games)):
        b = games[i]
        most, whole = -math.inf, 0.0
        tree.node[b, new].value = value[i]
        for a in range(logits.shape[1]):
            if tree.edge[b, new, a].legal:
                most = max(most, logits[i, a])
        for a in range(logits.shape[1]):
            edge = tree.edge[b, new, a]
            if edge.legal:
                edge.prior = math.exp(logits[i, a] - most)
                whole += edge.prior
        for a in range(logits.shape[1]):
            tree.edge[b, new, a].prior /= max(whole, 1e-30)


@njit(cache=True, nogil=True)
def back_up(tree: Tree, sign: float, node: np.ndarray, proofs: bool) -> None:
    """Adds the value of the node [B] where each walk ended to all edges up to the root.

    proofs: proven values are propagated, too.
    """
    for b in range(len(node)):
        n = node[b]
        known = not math.isnan(tree.node[b, n].exact)
        v = tree.node[b, n].exact if known else tree.node[b, n].value
        while n > 0:
            p = tree.node[b, n].parent
            edge = tree.edge[b, p, tree.node[b, n].action]
            v = tree.node[b, n].reward + sign * v
            edge.visits += 1
            edge.total += v
            if known and proofs:
                tree.node[b, p].exact = prove(tree, b, p, sign)
                known = not math.isnan(tree.node[b, p].exact)
                v = tree.node[b, p].exact if known else v
            else:
                known = False
            n = p


@njit(cache=True, nogil=True)
def prove(tree: Tree, b: int, n: int, sign: float) -> float:
    """The proven value of a node, NaN if its children do not prove one.

    One winning child is enough; otherwise all children must have proven values. A modelled opponent need not play its
    best move, so where it moves, all children must have the same value.
    """
    best, worst, whole = -math.inf, math.inf, True
    for a in range(tree.edge.shape[2]):
        edge = tree.edge[b, n, a]
        if edge.legal:
            child = tree.node[b, edge.child]
            if edge.child == 0 or math.isnan(child.exact):
                whole = False
            else:
                value = child.reward + sign * child.exact
                best, worst = max(best, value), min(worst, value)
    if tree.node[b, n].theirs:
        return best if whole and best == worst else math.nan
    return best if whole or best >= WIN else math.nan


@njit(cache=True, nogil=True)
def proven_edges(tree: Tree, sign: float, values: np.ndarray) -> None:
    """Writes the proven values of the root's edges to `values` [B, A], NaN where there is none."""
    for b in range(values.shape[0]):
        for a in range(values.shape[1]):
            at = tree.edge[b, 0, a].child
            child = tree.node[b, at]
            values[b, a] = child.reward + sign * child.exact if at > 0 else math.nan
