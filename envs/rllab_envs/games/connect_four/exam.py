"""Solved positions of connect four, on which runs are evaluated, and the program that made them.

A third of the positions come from random play, a third from random play that takes wins and blocks threats, and a third
from agents that search six plies ahead and play a fifth of their moves, and the first ones, at random. All positions
have moves that differ in win, draw and loss; in others every move is right.

    python -m rllab_envs.games.connect_four.exam --out envs/rllab_envs/games/connect_four/exam.txt
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from rllab.core.protocols import Exam
from rllab_envs.games.connect_four.bits import BOTTOM, CELLS, COLUMN, four, position, stone
from rllab_envs.games.connect_four.solver import (
    CENTRE_FIRST,
    ILLEGAL,
    best,
    compiled,
    count,
    keeps,
    position_key,
    scores,
    threats,
)

FILE = Path(__file__).with_name("exam.txt")
SIZES = {"validation": 300, "test": 1000}
STONES = range(8, 33)
SEED = 20
DEPTH = 6
HEADER = """\
# Connect four: positions whose moves differ in win, draw and loss, with the score of each move.
# Made by: python -m rllab_envs.games.connect_four.exam --out envs/rllab_envs/games/connect_four/exam.txt
# Split, kind of play, moves as columns from 1 to 7, and the score of each column for the player to move: a win with the
# winner's k-th stone scores 22 - k, a loss the negative of that, a draw 0; - is a full column.
"""


def exam(split: str) -> Exam:
    """The positions of `validation` (300) or `test` (1,000): board {"mine", "theirs"}, int64 [B] each.

    Raises:
        ValueError: no such split.
    """
    if split not in SIZES:
        raise ValueError(f"connect four has exams {', '.join(SIZES)}; no {split!r}")
    rows = [r for r in read(FILE) if r[0] == split]
    boards, values = np.array([position(r[2]) for r in rows], np.int64), np.array([r[3] for r in rows], np.int8)
    board = {"mine": boards[:, 0], "theirs": boards[:, 1]}
    return Exam(board, keeps(values), best(values), np.array([len(r[2]) for r in rows]))


def read(path: Path) -> list[tuple[str, str, str, list[int]]]:
    """The lines of a file: (split, kind, moves as digits, scores of the seven columns)."""
    lines = [t.split() for t in path.read_text(encoding="utf-8").splitlines() if not t.startswith("#")]
    return [(a, b, moves, [ILLEGAL if v == "-" else int(v) for v in values]) for a, b, moves, *values in lines]


@compiled
def _ahead(mine: int, theirs: int, depth: int, low: int, high: int) -> int:
    """Alpha-beta search to a depth. A win scores 1000 or more, an open position the difference of threats."""
    mask = mine | theirs
    playable = (mask + BOTTOM) & CELLS
    if threats(mine, mask) & playable:
        return 1000 + depth
    if depth == 0 or playable == 0:
        return 0 if playable == 0 else count(threats(mine, mask)) - count(threats(theirs, mask))
    for c in CENTRE_FIRST:
        move = playable & (COLUMN << 7 * c)
        if move:
            low = max(low, -_ahead(theirs, mine | move, depth - 1, -high, -low))
            if low >= high:
                break
    return low


def at_random(mine: int, theirs: int, legal: list[int], rng: np.random.Generator) -> int:
    """Any column."""
    return int(rng.choice(legal))


def alert(mine: int, theirs: int, legal: list[int], rng: np.random.Generator) -> int:
    """A winning column; without one, a column that blocks a win; else any."""
    mask = mine | theirs
    for stones in (mine, theirs):
        if good := [c for c in legal if four(stones | stone(mask, c))]:
            return int(rng.choice(good))
    return int(rng.choice(legal))


def agent(mine: int, theirs: int, legal: list[int], rng: np.random.Generator) -> int:
    """A best column by a search of six plies; any column with probability 0.2."""
    mask = mine | theirs
    if rng.random() < 0.2:
        return int(rng.choice(legal))
    after = [mine | stone(mask, c) for c in legal]
    values = np.array([5000 if four(a) else -_ahead(theirs, a, DEPTH - 1, -9999, 9999) for a in after])
    return int(rng.choice(np.array(legal)[values == values.max()]))


KINDS: dict[str, Callable[[int, int, list[int], np.random.Generator], int]] = {
    "random": at_random,
    "alert": alert,
    "agent": agent,
}


def game(kind: str, stones: int, rng: np.random.Generator) -> str:
    """The moves of a game that is still open after `stones` moves. Games that end earlier are discarded."""
    while True:
        moves, first = "", int(rng.integers(0, 7)) if kind == "agent" else 0
        mine = theirs = 0
        while len(moves) < stones and not four(theirs):
            legal = [c for c in range(7) if stone(mine | theirs, c)]
            column = (KINDS[kind] if len(moves) >= first else at_random)(mine, theirs, legal, rng)
            mine, theirs = theirs, mine | stone(mine | theirs, column)
            moves += str(column + 1)
        if not four(theirs):
            return moves


def candidates(seed: int) -> Iterator[tuple[str, str]]:
    """(kind, moves) of up to a million games, with kinds in turn and even numbers of stones.

    No position occurs twice, nor does its mirror image.
    """
    seen = set()
    for i in range(1_000_000):
        kind = list(KINDS)[i % len(KINDS)]
        moves = game(kind, STONES[i // len(KINDS) % len(STONES)], np.random.default_rng([seed, i]))
        mine, theirs = position(moves)
        key = position_key(mine, theirs)
        if key not in seen:
            seen.add(key)
            yield kind, moves


def make(path: Path, sizes: dict[str, int], seed: int) -> None:
    """Writes the exam with its splits interleaved, and prints its progress."""
    total, start, tried = sum(sizes.values()), time.monotonic(), 0
    splits = np.random.default_rng(seed).permutation([s for s, n in sizes.items() for _ in range(n)]).tolist()
    lines: list[str] = []
    for kind, moves in candidates(seed):
        tried += 1
        row = scores(*map(np.asarray, position(moves)))
        if (keeps(row) == (row != ILLEGAL)).all():
            continue
        values = ["-" if v == ILLEGAL else str(v) for v in row[0]]
        lines.append(" ".join([splits[len(lines)], kind, moves, *values]))
        if len(lines) % 50 == 0:
            print(f"{len(lines)} of {total} from {tried} positions, {time.monotonic() - start:.0f} s", flush=True)
        if len(lines) == total:
            break
    path.write_text(HEADER + "\n".join(sorted(lines)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Makes the file of solved positions; it is the same each time.")
    parser.add_argument("--out", type=Path, required=True)
    make(parser.parse_args().out, SIZES, SEED)
