"""The games one board at a time in plain Python, as references for the array games."""

from typing import Any

import numpy as np

Position = tuple[tuple[int, ...], int, Any]  # cells row by row: 0, 1 or 2; the mover, 1 or 2; other state


class Plain:
    """Base class: cells and a mover. Subclasses implement `legal` and `play`."""

    players = 2
    height = width = 3
    draws = True

    def start(self) -> Position:
        return (0,) * (self.height * self.width), 1, None

    def observe(self, position: Position) -> np.ndarray:
        cells, mover, _ = position
        board = np.array(cells).reshape(self.height, self.width)
        return np.stack([board == mover, board == 3 - mover])

    def put(self, cells: tuple[int, ...], at: int, stone: int) -> tuple[int, ...]:
        return (*cells[:at], stone, *cells[at + 1 :])

    def ray(self, at: int, down: int, right: int) -> list[int]:
        """The cells from `at` to the edge in a direction, without `at`."""
        r, c, cells = at // self.width + down, at % self.width + right, []
        while 0 <= r < self.height and 0 <= c < self.width:
            cells.append(r * self.width + c)
            r, c = r + down, c + right
        return cells

    def in_a_row(self, cells: tuple[int, ...], at: int) -> int:
        """The longest run of like stones through a cell."""
        longest = 0
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            run = 1
            for sign in (1, -1):
                for q in self.ray(at, sign * down, sign * right):
                    if cells[q] != cells[at]:
                        break
                    run += 1
            longest = max(longest, run)
        return longest


class PlainTicTacToe(Plain):
    names = list("123456789")
    longest = 9

    def legal(self, position: Position) -> list[int]:
        return [i for i, stone in enumerate(position[0]) if not stone]

    def play(self, position: Position, action: int) -> tuple[Position, float, bool]:
        cells, mover, _ = position
        cells = self.put(cells, action, mover)
        won = self.in_a_row(cells, action) == 3
        return (cells, 3 - mover, None), float(won), won or 0 not in cells

    def wins(self, position: Position) -> list[bool]:
        return [not s and self.play(position, a)[1] == 1 for a, s in enumerate(position[0])]


class PlainConnectFour(Plain):
    height, width, longest = 6, 7, 42
    names = list("1234567")

    def legal(self, position: Position) -> list[bool]:
        return [not position[0][c] for c in range(7)]

    def drop(self, cells: tuple[int, ...], column: int) -> int:
        return max(i for i in range(column, 42, 7) if not cells[i])

    def play(self, position: Position, action: int) -> tuple[Position, float, bool]:
        cells, mover, _ = position
        at = self.drop(cells, action)
        cells = self.put(cells, at, mover)
        won = self.in_a_row(cells, at) >= 4
        return (cells, 3 - mover, None), float(won), won or 0 not in cells

    def wins(self, position: Position) -> list[int]:
        return [c for c, ok in enumerate(self.legal(position)) if ok and self.play(position, c)[1] == 1]

    def observe(self, position: Position) -> np.ndarray:
        cells, mover, _ = position
        threats = [
            [not s and self.in_a_row(self.put(cells, i, side), i) >= 4 for i, s in enumerate(cells)]
            for side in (mover, 3 - mover)
        ]
        open_cells = np.zeros((1, 42))
        open_cells[0, [self.drop(cells, c) for c, ok in enumerate(self.legal(position)) if ok]] = 1
        first = np.full((1, 6, 7), mover == 1)
        more = np.concatenate([open_cells, np.array(threats)]).reshape(3, 6, 7)
        return np.concatenate([super().observe(position), more, first])


class PlainOthello(Plain):
    def __init__(self, size: int) -> None:
        self.height = self.width = size
        self.names = [str(a) for a in range(size**2 + 1)]
        self.longest = 2 * size**2

    def start(self) -> Position:
        h = self.height // 2
        cells, _, _ = super().start()
        for r, c, stone in ((h - 1, h - 1, 2), (h, h, 2), (h - 1, h, 1), (h, h - 1, 1)):
            cells = self.put(cells, r * self.width + c, stone)
        return cells, 1, None

    def taken(self, cells: tuple[int, ...], at: int, mover: int) -> list[int]:
        if cells[at]:
            return []
        cells_taken = []
        for down, right in ((r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if r or c):
            ray = self.ray(at, down, right)
            run = next((i for i, q in enumerate(ray) if cells[q] != 3 - mover), 0)
            if run and cells[ray[run]] == mover:
                cells_taken += ray[:run]
        return cells_taken

    def moves(self, cells: tuple[int, ...], mover: int) -> list[int]:
        return [i for i in range(len(cells)) if self.taken(cells, i, mover)]

    def legal(self, position: Position) -> list[int]:
        return self.moves(*position[:2]) or [len(position[0])]

    def play(self, position: Position, action: int) -> tuple[Position, float, bool]:
        cells, mover, _ = position
        if action < len(cells):
            for at in [action, *self.taken(cells, action, mover)]:
                cells = self.put(cells, at, mover)
        over = not self.moves(cells, 1) and not self.moves(cells, 2)
        lead = cells.count(mover) - cells.count(3 - mover)
        return (cells, 3 - mover, None), float(np.sign(lead)) if over else 0.0, over

    def observe(self, position: Position) -> np.ndarray:
        cells, mover, _ = position
        may = np.isin(np.arange(len(cells)), self.moves(cells, mover)).reshape(1, self.height, -1)
        return np.concatenate([super().observe(position), may])


class PlainGo(Plain):
    """`position[2]` is (all positions so far, passes in a row, moves, the last move)."""

    def __init__(self, size: int, komi: float) -> None:
        self.height = self.width = size
        self.komi, self.longest = komi, 2 * size**2
        self.names = [str(a) for a in range(size**2 + 1)]
        self.forbidden = 0  # moves forbidden by superko alone

    def start(self) -> Position:
        cells = (0,) * self.height**2
        return cells, 1, ((cells,), 0, 0, -1)

    def near(self, at: int) -> list[int]:
        return [q for step in ((0, 1), (1, 0), (0, -1), (-1, 0)) for q in self.ray(at, *step)[:1]]

    def region(self, cells: tuple[int, ...], at: int) -> tuple[set[int], set[int]]:
        """(connected cells with the same content, the cells beside them)."""
        region, beside, todo = {at}, set(), [at]
        while todo:
            for q in self.near(todo.pop()):
                if cells[q] != cells[at]:
                    beside.add(q)
                elif q not in region:
                    region.add(q)
                    todo.append(q)
        return region, beside

    def alive(self, cells: tuple[int, ...], at: int) -> bool:
        return any(not cells[q] for q in self.region(cells, at)[1])

    def placed(self, cells: tuple[int, ...], at: int, mover: int) -> tuple[int, ...] | None:
        """The cells after a stone is placed; None if it has no liberty then."""
        cells = self.put(cells, at, mover)
        for q in self.near(at):
            if cells[q] == 3 - mover and not self.alive(cells, q):
                for dead in self.region(cells, q)[0]:
                    cells = self.put(cells, dead, 0)
        return cells if self.alive(cells, at) else None

    def legal(self, position: Position) -> list[int]:
        cells, mover, (past, *_) = position
        actions = [len(cells)]
        for at in range(len(cells)):
            after = None if cells[at] else self.placed(cells, at, mover)
            self.forbidden += after in past
            actions += [at] if after and after not in past else []
        return actions

    def play(self, position: Position, action: int) -> tuple[Position, float, bool]:
        cells, mover, (past, passes, moves, _) = position
        if action < len(cells):
            cells, passes = self.placed(cells, action, mover) or (), -1
        over = passes == 1 or moves + 1 == self.longest
        lead = (self.area(cells) - self.komi) * (1 if mover == 1 else -1)
        after = (cells, 3 - mover, ((*past, cells), passes + 1, moves + 1, action))
        return after, float(np.sign(lead)) if over else 0.0, over

    def area(self, cells: tuple[int, ...]) -> int:
        lead = cells.count(1) - cells.count(2)
        for at, stone in enumerate(cells):
            if not stone:
                sides = {cells[q] for q in self.region(cells, at)[1]}
                lead += {(1,): 1, (2,): -1}.get(tuple(sides), 0)
        return lead

    def observe(self, position: Position) -> np.ndarray:
        last = (np.arange(self.height**2) == position[2][3]).reshape(1, self.height, -1)
        first = np.full_like(last, position[1] == 1)
        return np.concatenate([super().observe(position), last, first])
