"""Analysis of positions by a run, and games against a run in a terminal."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rllab.algos.alphazero import AlphaZero
from rllab.core.errors import Mistake
from rllab.core.files import write_atomic
from rllab.core.games import moves, picture, split_moves
from rllab.core.protocols import Board
from rllab.evals.analysis import analyse

COMMANDS = "type a move; /hint shows the run's analysis, /back takes two moves back, /new begins again, /quit ends"
_PLAIN = ("help", "hint", "back", "new", "quit")  # commands that are understood without their /


def analyse_file(algorithm: AlphaZero, file: Path, simulations: int, out: Path | None) -> tuple[list[Any], list[str]]:
    """Analyses the position of each line of a file, given by its moves: (rows, a message for each invalid line).

    out: a JSONL file for the rows, one a line, with the moves first.
    """
    boards, valid, problems = list[Board](), list[str](), list[str]()
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            board = moves(algorithm.board_game, line)
            if not algorithm.board_game.legal(board).any():
                raise Mistake("the game is over, so there is no move to play")
        except Mistake as error:
            problems.append(f"{file}:{number}: {error}")
        else:
            boards.append(board)
            valid.append(line.strip())
    rows = [{"moves": m} | row for m, row in zip(valid, analyse(algorithm, boards, simulations), strict=True)]
    if out is not None:
        write_atomic(out, "".join(json.dumps(row) + "\n" for row in rows))
    return rows, problems


def play(
    algorithm: AlphaZero, simulations: int, second: bool, lines: Iterator[str], say: Callable[[str], None]
) -> None:
    """Plays a game against a run. lines: what the user types, moves by name. second: the run moves first."""
    game, played, side = algorithm.board_game, list[str](), int(second)
    say(COMMANDS)
    if game.players == 2:
        say("you are O, and X moves first" if second else "you are X, and move first")
    played = _with_reply(algorithm, played, side, simulations, say)
    for line in lines:
        typed = line.strip()
        if typed in _PLAIN and typed not in game.names:
            typed = f"/{typed}"
        if typed == "/quit":
            return
        if typed in ("/new", "/back"):
            played = _with_reply(algorithm, played[:-2] if typed == "/back" else [], side, simulations, say)
        elif typed == "/hint":
            say(_hint(algorithm, moves(game, " ".join(played)), simulations))
        elif typed.startswith("/"):
            say(COMMANDS)
        elif typed:
            try:
                moves(game, " ".join([*played, typed]))
            except Mistake as error:
                say(str(error))
            else:
                played = _with_reply(algorithm, [*played, *split_moves(game, typed)], side, simulations, say)


def _with_reply(
    algorithm: AlphaZero, played: list[str], side: int, simulations: int, say: Callable[[str], None]
) -> list[str]:
    """Adds the run's move where it is to move, and shows the board. side: 0 or 1, the user's."""
    game = algorithm.board_game
    board = moves(game, " ".join(played))
    if game.players == 2 and len(played) % 2 != side and game.legal(board).any():
        (row,) = analyse(algorithm, [board], simulations)
        say(f"it plays {row['best']} ({_value_text(row)} for it)")
        played = [*played, row["best"]]
        board = moves(game, " ".join(played))
    say(picture(game, board, 0).lstrip("\n"))
    if not game.legal(board).any():
        say("the game is over; /new begins another")
    return played


def _hint(algorithm: AlphaZero, board: Board, simulations: int) -> str:
    if not algorithm.board_game.legal(board).any():
        return "the game is over"
    (row,) = analyse(algorithm, [board], simulations)
    visits = ", ".join(f"{name} {n}" for name, n in sorted(row["visits"].items(), key=lambda v: -v[1])[:5] if n)
    return f"{row['best']} ({_value_text(row)} for you); visits: {visits or 'none, it wins at once'}"


def _value_text(row: dict[str, Any]) -> str:
    return f"{'proven ' * row['proven']}{row['value']:+.2f}"
