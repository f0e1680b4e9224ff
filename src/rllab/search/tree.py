"""Trees of many games side by side, as arrays, and the kernels that walk them; none of them calls a game.

A node is a position; its edges are the actions there. Values are for the side to move, and on the way up they change
sign where two play. `exact` is what a node is worth whoever plays on perfectly: known where a game ends, and from there
upwards as far as it follows (Winands, Björnsson and Saito 2008). Axes: B games, N nodes, A actions.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

PUCT, UCB = 0, 1
KNOWN = 1.0 - 1e-6  # from which a value is the highest that there is


class Tree(NamedTuple):
    """parent, action [B, N]: the edge that leads to a node. child [B, N, A]: -1 where there is none yet.

    legal, prior, visits, total [B, N, A]: of edges; total is the sum of the values that were backed up through it.
    reward [B, N]: of whoever moved to a node. value [B, N]: of a node, as it was judged when it was new. exact [B, N]:
    not a number where it is not known. theirs [B, N]: where a known opponent moves. size [B]: nodes in use.
    """

    parent: np.ndarray
    action: np.ndarray
    child: np.ndarray
    legal: np.ndarray
    prior: np.ndarray
    visits: np.ndarray
    total: np.ndarray
    reward: np.ndarray
    value: np.ndarray
    exact: np.ndarray
    theirs: np.ndarray
    size: np.ndarray


def new_tree(games: int, nodes: int, actions: int) -> Tree:
    """Trees without a node."""
    of_node, of_edge = (games, nodes), (games, nodes, actions)
    return Tree(
        parent=np.full(of_node, -1, np.int32),
        action=np.full(of_node, -1, np.int32),
        child=np.full(of_edge, -1, np.int32),
        legal=np.zeros(of_edge, np.bool_),
        prior=np.zeros(of_edge, np.float32),
        visits=np.zeros(of_edge, np.int32),
        total=np.zeros(of_edge, np.float32),
        reward=np.zeros(of_node, np.float32),
        value=np.zeros(of_node, np.float32),
        exact=np.full(of_node, np.nan, np.float32),
        theirs=np.zeros(of_node, np.bool_),
        size=np.zeros(games, np.int32),
    )


@njit(cache=True, nogil=True)
def descend(
    tree: Tree, sign: float, rule: int, c: float, fpu: float, forced: np.ndarray, node: np.ndarray, action: np.ndarray
) -> None:
    """Where each game's next node is to be: fills in `node` and `action` [B], the edge that leads out of the tree.

    action is -1 where the walk ends at a node that is exact. forced [B]: the root's action, or -1 for the rule's.
    """
    for b in range(len(node)):
        n, a = 0, forced[b]
        while True:
            node[b], action[b] = n, -1
            if not math.isnan(tree.exact[b, n]):
                break
            if a < 0:
                if tree.theirs[b, n]:
                    a = _follow(tree, b, n)
                else:
                    a = _puct(tree, b, n, sign, c, fpu) if rule == PUCT else _ucb(tree, b, n, c)
            if tree.child[b, n, a] < 0:
                action[b] = a
                break
            n, a = tree.child[b, n, a], -1


@njit(cache=True, nogil=True, inline="always")  # a call would hand over all of the tree's arrays
def _puct(tree: Tree, b: int, n: int, sign: float, c: float, fpu: float) -> int:
    """The action of the highest bound; an edge that is known to lose everything comes last."""
    count, total = 0, 0.0
    for a in range(tree.legal.shape[2]):
        count += tree.visits[b, n, a]
        total += tree.total[b, n, a]
    unseen = (tree.value[b, n] + total) / (1 + count) - fpu  # first-play urgency: a little worse than the node so far
    scale = c * math.sqrt(max(1, count))
    best, chosen = -math.inf, -1
    for a in range(tree.legal.shape[2]):
        if not tree.legal[b, n, a]:
            continue
        v = tree.visits[b, n, a]
        q = tree.total[b, n, a] / v if v else unseen
        child = tree.child[b, n, a]
        if child >= 0 and not math.isnan(tree.exact[b, child]):
            q = tree.reward[b, child] + sign * tree.exact[b, child]
            if q <= -KNOWN:
                q = -1e3
        bound = q + scale * tree.prior[b, n, a] / (1 + v)
        if bound > best:
            best, chosen = bound, a
    return chosen


@njit(cache=True, nogil=True, inline="always")
def _ucb(tree: Tree, b: int, n: int, c: float) -> int:
    """The action of the highest bound of plain UCT, which asks for visits alone; each action once first."""
    count = 0
    for a in range(tree.legal.shape[2]):
        count += tree.visits[b, n, a]
    width, best, chosen = c * math.sqrt(math.log(count + 1.0)), -math.inf, -1
    for a in range(tree.legal.shape[2]):
        v = tree.visits[b, n, a]
        if tree.legal[b, n, a]:
            bound = tree.total[b, n, a] / v + width / math.sqrt(v) if v else math.inf
            if bound > best:
                best, chosen = bound, a
    return chosen


@njit(cache=True, nogil=True, inline="always")
def _follow(tree: Tree, b: int, n: int) -> int:
    """The action that has had least of its share of the visits, which is its prior."""
    count, best, chosen = 0, -math.inf, -1
    for a in range(tree.legal.shape[2]):
        count += tree.visits[b, n, a]
    for a in range(tree.legal.shape[2]):
        due = tree.prior[b, n, a] * (count + 1) - tree.visits[b, n, a]
        if tree.legal[b, n, a] and due > best:
            best, chosen = due, a
    return chosen


@njit(cache=True, nogil=True)
def add(
    tree: Tree,
    games: np.ndarray,
    nodes: np.ndarray,
    actions: np.ndarray,
    legal: np.ndarray,
    logits: np.ndarray,
    value: np.ndarray,
    reward: np.ndarray,
    exact: np.ndarray,
    theirs: np.ndarray,
) -> None:
    """Adds a node behind an edge of each of some games; a node that has no parent (-1) is a root.

    legal, logits [n, A]; value, reward, exact, theirs [n].
    """
    for i in range(len(games)):
        b = games[i]
        n = tree.size[b]
        tree.size[b] += 1
        if nodes[i] >= 0:
            tree.parent[b, n], tree.action[b, n] = nodes[i], actions[i]
            tree.child[b, nodes[i], actions[i]] = n
        tree.reward[b, n] = reward[i]
        tree.value[b, n], tree.exact[b, n], tree.theirs[b, n] = value[i], exact[i], theirs[i]
        most, whole = -math.inf, 0.0
        for a in range(legal.shape[1]):
            tree.legal[b, n, a] = legal[i, a]
            if legal[i, a]:
                most = max(most, logits[i, a])
        for a in range(legal.shape[1]):
            if legal[i, a]:
                tree.prior[b, n, a] = math.exp(logits[i, a] - most)
                whole += tree.prior[b, n, a]
        for a in range(legal.shape[1]):
            tree.prior[b, n, a] /= max(whole, 1e-30)


@njit(cache=True, nogil=True)
def back_up(tree: Tree, sign: float, node: np.ndarray, action: np.ndarray, proofs: bool) -> None:
    """Tells the edges on the way what each game's new node is worth, or the exact node where the walk ended."""
    for b in range(len(node)):
        n = node[b] if action[b] < 0 else tree.child[b, node[b], action[b]]
        known = not math.isnan(tree.exact[b, n])
        v = tree.exact[b, n] if known else tree.value[b, n]
        while tree.parent[b, n] >= 0:
            p, a = tree.parent[b, n], tree.action[b, n]
            v = tree.reward[b, n] + sign * v
            tree.visits[b, p, a] += 1
            tree.total[b, p, a] += v
            if known and proofs:
                tree.exact[b, p] = prove(tree, b, p, sign)
                known = not math.isnan(tree.exact[b, p])
                v = tree.exact[b, p] if known else v
            else:
                known = False
            n = p


@njit(cache=True, nogil=True)
def prove(tree: Tree, b: int, n: int, sign: float) -> float:
    """What a node is worth, if that follows from its children: one that wins is enough, else all have to be known.

    A known opponent need not play its best: where it moves, all have to be worth the same.
    """
    best, worst, whole = -math.inf, math.inf, True
    for a in range(tree.legal.shape[2]):
        if tree.legal[b, n, a]:
            child = tree.child[b, n, a]
            if child < 0 or math.isnan(tree.exact[b, child]):
                whole = False
            else:
                found = tree.reward[b, child] + sign * tree.exact[b, child]
                best, worst = max(best, found), min(worst, found)
    if tree.theirs[b, n]:
        return best if whole and best == worst else math.nan
    return best if whole or best >= KNOWN else math.nan


@njit(cache=True, nogil=True)
def known_edges(tree: Tree, sign: float, found: np.ndarray) -> None:
    """Fills [B, A] with what the root's edges are known to be worth, not a number elsewhere."""
    for b in range(found.shape[0]):
        for a in range(found.shape[1]):
            child = tree.child[b, 0, a]
            found[b, a] = math.nan
            if child >= 0 and not math.isnan(tree.exact[b, child]):
                found[b, a] = tree.reward[b, child] + sign * tree.exact[b, child]
