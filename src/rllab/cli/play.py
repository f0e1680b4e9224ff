"""A finished run at the board: it analyses positions, and plays in a terminal."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rllab.algos.alphazero import AlphaZero
from rllab.core.errors import Mistake
from rllab.core.files import write_atomic
from rllab.core.games import moves, picture
from rllab.core.protocols import Board, Game

_AT_ONCE = 1024  # positions whose trees are in memory
COMMANDS = "a move plays it, /hint says what the run thinks, /back takes two moves back, /new begins again, Ctrl-D ends"


def analyse(algorithm: AlphaZero, boards: list[Board], simulations: int) -> list[dict[str, Any]]:
    """What a search finds in positions [1] each: `best`, `value` for the mover, `proven`, `visits` per move."""
    if len(boards) > _AT_ONCE:
        parts = [boards[i : i + _AT_ONCE] for i in range(0, len(boards), _AT_ONCE)]
        return [row for part in parts for row in analyse(algorithm, part, simulations)]
    if not boards:
        return []
    board = {k: np.concatenate([b[k] for b in boards]) for k in boards[0]}
    found = algorithm.searched(board, simulations)
    names, legal = algorithm.board_game.names, algorithm.board_game.legal(board)
    return [
        {
            "best": names[int(found.action[i])],
            "value": round(float(found.value[i]), 4),
            "proven": not bool(np.isnan(found.exact[i])),
            "visits": {names[a]: int(found.visits[i, a]) for a in np.flatnonzero(legal[i]).tolist()},
        }
        for i in range(len(boards))
    ]


def analyse_file(algorithm: AlphaZero, file: Path, simulations: int, out: Path | None) -> tuple[list[Any], list[str]]:
    """Analyses each line of a file, the moves that lead to a position: (rows, what was wrong with the others).

    out: gets the rows, one a line, with the moves first.
    """
    lines, boards, said, problems = (
        file.read_text(encoding="utf-8").splitlines(),
        list[Board](),
        list[str](),
        list[str](),
    )
    for number, line in enumerate(lines, 1):
        try:
            board = moves(algorithm.board_game, line)
            if not algorithm.board_game.legal(board).any():
                raise Mistake("the game is over, so that there is nothing to play")
        except Mistake as error:
            problems.append(f"{file}:{number}: {error}")
        else:
            boards.append(board)
            said.append(line.strip())
    rows = [{"moves": m} | row for m, row in zip(said, analyse(algorithm, boards, simulations), strict=True)]
    if out is not None:
        write_atomic(out, "".join(json.dumps(row) + "\n" for row in rows))
    return rows, problems


def play(
    algorithm: AlphaZero, simulations: int, second: bool, lines: Iterator[str], say: Callable[[str], None]
) -> None:
    """A game against a run, moves by name; second: the run begins."""
    game, played, mine = algorithm.board_game, list[str](), int(second)
    say(COMMANDS)
    played = _answered(algorithm, played, mine, simulations, say)
    for line in lines:
        asked = line.strip()
        if asked in ("/new", "/back"):
            played = _answered(algorithm, played[:-2] if asked == "/back" else [], mine, simulations, say)
        elif asked == "/hint":
            say(_hint(algorithm, moves(game, " ".join(played)), simulations))
        elif asked.startswith("/"):
            say(COMMANDS)
        elif asked:
            try:
                moves(game, " ".join([*played, asked]))
            except Mistake as error:
                say(str(error))
            else:
                played = _answered(algorithm, [*played, *_named(game, asked)], mine, simulations, say)


def _answered(
    algorithm: AlphaZero, played: list[str], mine: int, simulations: int, say: Callable[[str], None]
) -> list[str]:
    """The moves with the run's own, where it is to move; shows the board, and says so where the game is over."""
    game = algorithm.board_game
    board = moves(game, " ".join(played))
    if game.players == 2 and len(played) % 2 != mine and game.legal(board).any():
        (found,) = analyse(algorithm, [board], simulations)
        say(f"it plays {found['best']} ({_worth(found)} for it)")
        played = [*played, found["best"]]
        board = moves(game, " ".join(played))
    say(picture(game, board, 0).lstrip("\n"))
    if not game.legal(board).any():
        say("the game is over; /new begins another")
    return played


def _hint(algorithm: AlphaZero, board: Board, simulations: int) -> str:
    if not algorithm.board_game.legal(board).any():
        return "the game is over"
    (found,) = analyse(algorithm, [board], simulations)
    visits = ", ".join(f"{name} {n}" for name, n in sorted(found["visits"].items(), key=lambda v: -v[1])[:5] if n)
    return f"{found['best']} ({_worth(found)} for you); visits: {visits or 'none, it wins at once'}"


def _worth(found: dict[str, Any]) -> str:
    return f"{'proven ' * found['proven']}{found['value']:+.2f}"


def _named(game: Game, said: str) -> list[str]:
    """The moves in what was typed."""
    return said.split() if any(len(n) > 1 for n in game.names) else [c for c in said if not c.isspace()]
