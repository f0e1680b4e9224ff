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


EDGE = np.dtype([("child", "i4"), ("visits", "i4"), ("prior", "f4"), ("total", "f4"), ("legal", "?")])
NODE = np.dtype(
    [("parent", "i4"), ("action", "i4"), ("reward", "f4"), ("value", "f4"), ("exact", "f4"), ("theirs", "?")]
)


class Tree(NamedTuple):
    """edge [B, N, A], of EDGE: child is 0 where there is none yet; total is the sum of the values backed up through it.

    node [B, N], of NODE, of which 0 is the root. parent, action: the edge that leads to it. reward: of whoever moved to
    it. value: as it was judged when it was new. exact: not a number where it is not known. theirs: a known opponent
    moves. Node i comes with the i-th simulation; it stays empty in games in which that adds none.
    """

    edge: np.ndarray
    node: np.ndarray


def new_tree(games: int, nodes: int, actions: int) -> Tree:
    """Trees without a node."""
    return Tree(np.zeros((games, nodes, actions), EDGE), np.zeros((games, nodes), NODE))


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
            if not math.isnan(tree.node[b, n].exact):
                break
            if a < 0:
                if tree.node[b, n].theirs:
                    a = _follow(tree, b, n)
                else:
                    a = _puct(tree, b, n, sign, c, fpu) if rule == PUCT else _ucb(tree, b, n, c)
            if tree.edge[b, n, a].child == 0:
                action[b] = a
                break
            n, a = tree.edge[b, n, a].child, -1


@njit(cache=True, nogil=True, inline="always")  # a call would hand over all of the tree's arrays
def _puct(tree: Tree, b: int, n: int, sign: float, c: float, fpu: float) -> int:
    """The action of the highest bound; an edge that is known to lose everything comes last."""
    count, total = 0, 0.0
    for a in range(tree.edge.shape[2]):
        count += tree.edge[b, n, a].visits
        total += tree.edge[b, n, a].total
    unseen = (tree.node[b, n].value + total) / (1 + count) - fpu  # first-play urgency: a little worse than it so far
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
            if q <= -KNOWN:
                q = -1e3
        bound = q + scale * edge.prior / (1 + v)
        if bound > best:
            best, chosen = bound, a
    return chosen


@njit(cache=True, nogil=True, inline="always")
def _ucb(tree: Tree, b: int, n: int, c: float) -> int:
    """The action of the highest bound of plain UCT, which asks for visits alone; each action once first."""
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
def _follow(tree: Tree, b: int, n: int) -> int:
    """The action that has had least of its share of the visits, which is its prior."""
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
    rival: bool,
    node: np.ndarray,
    games: np.ndarray,
    action: np.ndarray,
    legal: np.ndarray,
    wins: np.ndarray,
    reward: np.ndarray,
    over: np.ndarray,
    judged: np.ndarray,
) -> int:
    """Adds node `new` to some games, the root (0) or behind `node` [B] and `action` [n]; `node` then is the new one.

    legal [n, A]; wins [n, A], or [n, 0]; reward, over [n]. Returns how many of them are not exact, whose numbers begin
    `judged`; the priors of the others are all the same.
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
        added.theirs = rival and new > 0 and not tree.node[b, parent].theirs
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
            judged[count] = i
            count += 1
            continue
        for a in range(legal.shape[1]):
            tree.edge[b, new, a].prior = legal[i, a] / max(moves, 1)
    return count


@njit(cache=True, nogil=True)
def judge(tree: Tree, new: int, games: np.ndarray, logits: np.ndarray, value: np.ndarray) -> None:
    """Tells node `new` of some games how it was judged: logits [n, A], value [n]."""
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
    """Tells the edges on the way what the node [B] is worth at which each game's walk has ended."""
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
    """What a node is worth, if that follows from its children: one that wins is enough, else all have to be known.

    A known opponent need not play its best: where it moves, all have to be worth the same.
    """
    best, worst, whole = -math.inf, math.inf, True
    for a in range(tree.edge.shape[2]):
        edge = tree.edge[b, n, a]
        if edge.legal:
            child = tree.node[b, edge.child]
            if edge.child == 0 or math.isnan(child.exact):
                whole = False
            else:
                found = child.reward + sign * child.exact
                best, worst = max(best, found), min(worst, found)
    if tree.node[b, n].theirs:
        return best if whole and best == worst else math.nan
    return best if whole or best >= KNOWN else math.nan


@njit(cache=True, nogil=True)
def known_edges(tree: Tree, sign: float, found: np.ndarray) -> None:
    """Fills [B, A] with what the root's edges are known to be worth, not a number elsewhere."""
    for b in range(found.shape[0]):
        for a in range(found.shape[1]):
            at = tree.edge[b, 0, a].child
            child = tree.node[b, at]
            found[b, a] = child.reward + sign * child.exact if at > 0 else math.nan
