"""Perfect play of connect four from the first stone on.

The fewer stones, the longer the solver takes: minutes for up to three, about half a minute for four, ten seconds for
five, two for eight. The best moves of the first positions are therefore stored in a file. It holds the positions up to
a number of stones that can occur when one side plays only best moves.

    python -m rllab_envs.games.connect_four.opening --stones 2 --out envs/rllab_envs/games/connect_four/opening.txt
"""

import argparse
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from rllab_envs.games.connect_four.bits import position
from rllab_envs.games.connect_four.solver import best_moves, mirrored, position_key

FILE = Path(__file__).with_name("opening.txt")
FEW = 8  # with fewer stones the file is looked up before solving
TABLE_BITS = 26  # 512 MiB, shared by the searches of all first positions
HEADER = """\
# Connect four: the best columns, 1 to 7, after some moves (- for none), mirror images left out.
# Made by: python -m rllab_envs.games.connect_four.opening --stones {} --out {}
"""


def perfect(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Which moves win fastest or lose slowest: bool [B, 7].

    mine, theirs: bitboards, int64 [B]. A position of fewer than 8 stones that is not in the file is solved once per
    process; that takes seconds, or minutes with three stones.

    Raises:
        ValueError: a position that cannot occur in a game.
    """
    mine, theirs = np.atleast_1d(mine), np.atleast_1d(theirs)
    few = np.bitwise_count(mine | theirs) < FEW
    out = np.empty((len(mine), 7), np.bool_)
    out[~few] = best_moves(mine[~few], theirs[~few])
    for i in np.flatnonzero(few):
        out[i] = _first(int(mine[i]), int(theirs[i]))
    return out


@cache
def _first(mine: int, theirs: int) -> np.ndarray:
    known = _known().get((mine, theirs))
    return best_moves(np.asarray(mine), np.asarray(theirs))[0] if known is None else known


@cache
def _known() -> dict[tuple[int, int], np.ndarray]:
    """The best moves of positions in the file, and of their mirror images."""
    known = {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            moves, columns = line.split()
            mine, theirs = position(moves.strip("-"))
            best = np.isin(np.arange(1, 8), [int(c) for c in columns])
            known[mirrored(mine), mirrored(theirs)] = best[::-1]
            known[mine, theirs] = best
    return known


def first_positions(stones: int) -> Iterator[tuple[str, str]]:
    """(moves, best columns) of positions with up to `stones` stones in which one side has played only best moves."""
    for side in (0, 1):
        games = [""]
        for ply in range(stones + 1):
            after: dict[int, str] = {}
            for moves in games:
                columns = "1234567"  # no column is full yet
                if ply % 2 == side:
                    mine, theirs = position(moves)
                    best = best_moves(np.asarray(mine), np.asarray(theirs), TABLE_BITS)[0]
                    columns = "".join(str(c + 1) for c in np.flatnonzero(best))
                    yield moves, columns
                for c in columns:
                    after.setdefault(position_key(*position(moves + c)), moves + c)
            games = list(after.values())


def make(path: Path, stones: int) -> None:
    """Writes the file, and prints its progress."""
    start, lines = time.monotonic(), []
    for moves, columns in first_positions(stones):
        lines.append(f"{moves or '-'} {columns}")
        print(f"{len(lines)} positions, {time.monotonic() - start:.0f} s: {lines[-1]}", flush=True)
    path.write_text(
        HEADER.format(stones, "envs/rllab_envs/games/connect_four/opening.txt") + "\n".join(sorted(lines)) + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Solves the first positions; this takes 15 minutes for 2 stones, an hour for 3."
    )
    parser.add_argument("--stones", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    make(parser.parse_args().out, parser.parse_args().stones)
