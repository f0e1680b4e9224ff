"""Puzzles: simulators against independent ones, solvers against known lengths and searches, answers read strictly."""

import random
import string
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from rllab_envs.tasks import blocks, checkers, hanoi, puzzles, river

from rllab.core.errors import FieldMistake
from rllab.evals.replay import replay
from rllab.testing import check_task

Row = Mapping[str, Any]
Verdict = tuple[int | None, bool]  # the index of the first wrong move, and whether the puzzle is solved
TASKS: dict[str, Any] = {
    "hanoi": hanoi(),
    "checkers": checkers(),
    "river": river(),
    "blocks": blocks(),
    "hanoi without rules": hanoi(rules=False, sizes=(1, 5), letters="ABCDE"),
    "river of two": river(seats=2, sizes=(1, 3)),
    "river of four": river(seats=4, sizes=(3, 8)),
    "blocks on five stacks": blocks(stacks=5, sizes=(3, 9)),
}


def gold(row: Row) -> list[str]:
    return str(row["target"]).split(" ; ")


# Independent simulators, written from the rules with other data: where each thing is.


def hanoi_verdict(row: Row, moves: Sequence[str]) -> Verdict:
    peg_of = dict.fromkeys(range(1, row["size"] + 1), row["pegs"][0])
    for i, move in enumerate(moves):
        disc, source, target = int(move.split()[0]), *move.split()[1:]
        smaller = [peg for d, peg in peg_of.items() if d < disc]
        known = disc in peg_of and {source, target} <= set(row["pegs"]) and source != target
        if not known or peg_of[disc] != source or source in smaller or target in smaller:
            return i, False
        peg_of[disc] = target
    return None, set(peg_of.values()) == {row["pegs"][2]}


def checkers_verdict(row: Row, moves: Sequence[str]) -> Verdict:
    n, (left, right) = row["size"], row["colours"]
    at = dict.fromkeys(range(n), left) | dict.fromkeys(range(n + 1, 2 * n + 1), right)
    for i, move in enumerate(moves):
        colour, source, target = move.split()[0], *map(int, move.split()[1:])
        ways = {left: {1: (), 2: (right,)}, right: {-1: (), -2: (left,)}}.get(colour, {})
        over = ways.get(target - source)
        between = tuple(at.get(x, "") for x in range(min(source, target) + 1, max(source, target)))
        if over is None or at.get(source) != colour or not 0 <= target <= 2 * n or target in at or between != over:
            return i, False
        at[target] = at.pop(source)
    return None, all(at.get(x) == (right if x < n else left) for x in range(2 * n + 1) if x != n)


def river_verdict(row: Row, moves: Sequence[str]) -> Verdict:
    crossed = {name: False for letter in row["pairs"] for name in (letter, letter.lower())}

    def jealous(people: set[str]) -> bool:
        return any(
            client.islower() and client.upper() not in people and any(agent.isupper() for agent in people)
            for client in people
        )

    for i, move in enumerate(moves):
        boat, back = move.split(), i % 2 == 1
        if len(set(boat)) != len(boat) or len(boat) > row["seats"] or any(crossed.get(x) != back for x in boat):
            return i, False
        crossed |= dict.fromkeys(boat, not back)
        banks = [{x for x, over in crossed.items() if over is side} for side in (False, True)]
        if any(map(jealous, [set(boat), *banks])):
            return i, False
    return None, all(crossed.values())


def blocks_verdict(row: Row, moves: Sequence[str]) -> Verdict:
    below = {b: (i, stack[k - 1] if k else "") for i, stack in enumerate(row["start"]) for k, b in enumerate(stack)}
    goal = {b: (i, stack[k - 1] if k else "") for i, stack in enumerate(row["goal"]) for k, b in enumerate(stack)}
    for i, move in enumerate(moves):
        block, source, target = move.split()[0], *map(int, move.split()[1:])
        covered = {under for _, under in below.values()}
        if (
            below.get(block, (-1, ""))[0] != source
            or block in covered
            or target in (source, *range(len(row["start"]), 1000))
        ):
            return i, False
        below[block] = target, next((b for b, (s, _) in below.items() if s == target and b not in covered), "")
    return None, below == goal


VERDICTS: dict[str, Callable[[Row, Sequence[str]], Verdict]] = {
    "hanoi": hanoi_verdict,
    "checkers": checkers_verdict,
    "river": river_verdict,
    "blocks": blocks_verdict,
}


def drawn(row: Row, rng: random.Random) -> str:
    """A move that has the puzzle's notation; many are allowed by the rules."""
    some = sorted({field for move in gold(row) for field in move.split()})
    if row["kind"] == "river":
        people = row["pairs"] + row["pairs"].lower()
        return " ".join(rng.choice(people) for _ in range(rng.randint(1, row["seats"] + 1)))
    numbers = [str(rng.randint(0, 2 * row["size"] + 1)) for _ in range(2)]
    letters = [rng.choice([*(f for f in some if f.isalpha()), rng.choice(string.ascii_uppercase)]) for _ in range(2)]
    return " ".join([numbers[0], *letters] if row["kind"] == "hanoi" else [letters[0], *numbers])


def move_list(row: Row, rng: random.Random) -> list[str]:
    """The gold moves, with some of them replaced, left out, exchanged or repeated; or moves that are drawn."""
    moves = gold(row)
    if rng.random() < 0.3:
        return [drawn(row, rng) for _ in range(rng.randint(1, 12))]
    for _ in range(rng.randint(0, 3)):
        at = rng.randrange(len(moves) + 1)
        how = rng.randrange(4)
        moves[at : at + 1] = [[drawn(row, rng)], [], moves[at : at + 1] * 2, [*moves[at : at + 1], drawn(row, rng)]][
            how
        ]
        moves = moves or [drawn(row, rng)]
    return moves


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_puzzle_is_a_task(task: Any) -> None:
    assert check_task(task)
    rows = [task.row(i, "test") for i in range(20)]
    assert [r["size"] for r in rows[: task.sizes[1] - task.sizes[0] + 1]] == list(
        range(task.sizes[0], task.sizes[1] + 1)
    )
    words = set(task.words())
    from rllab_envs.tasks.problems import pieces

    assert {piece for row in rows for piece in pieces(row["prompt"][0]["content"], task.gold(row))} <= words


@pytest.mark.parametrize("name", VERDICTS)
def test_the_simulator_agrees_with_an_independent_one(name: str) -> None:
    """On 10,000 lists of moves: the same first wrong move, and the same verdict."""
    rng, seen = random.Random(0), set[tuple[bool, bool]]()
    tasks = [task for task in TASKS.values() if task.kind == name]
    rows = [task.row(i, "test") for task in tasks for i in range(60)]
    for _ in range(10_000):
        row = rng.choice(rows)
        moves = move_list(row, rng)
        attempt = puzzles.PUZZLES[name].attempt(row, "#### " + " ; ".join(moves))
        assert (attempt.first_wrong, attempt.solved) == VERDICTS[name](row, moves), (row, moves, attempt)
        assert attempt.moves == len(moves) and not attempt.cut_off and bool(attempt.problem) != attempt.solved
        seen.add((attempt.first_wrong is None, attempt.solved))
    assert seen == {(True, True), (True, False), (False, False)}


@pytest.mark.parametrize("name", VERDICTS)
def test_every_corrupted_solution_is_caught_at_its_index(name: str) -> None:
    """Each move of a gold answer, replaced by every other one that differs in a field."""
    caught = 0
    for row in (TASKS[name].row(i, "test") for i in range(12)):
        moves = gold(row)
        fields = sorted({field for move in moves for field in move.split()})
        for at, move in enumerate(moves):
            for k, field in enumerate(move.split()):
                for other in (f for f in fields if f != field and f.isdigit() == field.isdigit()):
                    changed = move.split()
                    changed[k] = other
                    corrupted = [*moves[:at], " ".join(changed), *moves[at + 1 :]]
                    expected = VERDICTS[name](row, corrupted)
                    attempt = puzzles.PUZZLES[name].attempt(row, "#### " + " ; ".join(corrupted))
                    assert (attempt.first_wrong, attempt.solved) == expected
                    caught += expected[0] == at
                    assert expected[0] is None or expected[0] >= at
    assert caught > 100


def test_solutions_have_the_known_lengths() -> None:
    lengths = {
        hanoi: ({}, [2**n - 1 for n in range(1, 13)]),
        checkers: ({}, [(n + 1) ** 2 - 1 for n in range(1, 31)]),
        river: ({"seats": 3}, [1, 3, 5, 9, 11]),  # of the jealous husbands (Pressman and Singmaster 1989)
    }
    for make, (settings, expected) in lengths.items():
        task = make(sizes=(1, len(expected)), **settings)
        for i, length in enumerate(expected):
            row = task.row(i, "test")
            assert (len(gold(row)), row["minimal"]) == (length, length) and task.correct(row, task.gold(row))
    assert river(sizes=(1, 3), seats=2).row(2, "test")["minimal"] == 11
    assert [river(sizes=(n, n), seats=4).row(0, "test")["minimal"] for n in (5, 6)] == [7, 9]


def shortest(row: Row) -> int:
    """The fewest moves, by a search that plays every move that can be written."""
    puzzle = puzzles.PUZZLES[row["kind"]]
    numbers = map(str, range(2 * row["size"] + 1))
    names = [*row.get("pegs", ""), *row.get("colours", ""), *map(str, numbers)]
    states, queue = {puzzle.start(row): 0}, deque([puzzle.start(row)])
    while queue:
        state = queue.popleft()
        if puzzle.is_goal(state):
            return states[state]
        for move in (f"{a} {b} {c}" for a in names for b in names for c in names):
            if puzzle.notation.move.fullmatch(move):
                try:
                    after = puzzle.play(state, move)
                except puzzles.NotAllowed:
                    continue
                if after not in states:
                    states[after] = states[state] + 1
                    queue.append(after)
    raise AssertionError("there is no solution")


@pytest.mark.parametrize("name", ["hanoi", "checkers"])
def test_a_search_finds_no_shorter_solution(name: str) -> None:
    for row in (TASKS[name].row(i, "test") for i in range(3)):
        assert shortest(row) == row["minimal"]


def test_long_plans_of_blocks_are_solutions() -> None:
    for stacks in (3, 4, 9):
        task = blocks(sizes=(6, 26), stacks=stacks)
        for i in range(63):
            row = task.row(i, "train")
            assert row["minimal"] is None and blocks_verdict(row, gold(row)) == (None, True)
            assert task.correct(row, task.gold(row))


@pytest.mark.parametrize(
    ("make", "settings", "says"),
    [
        (river, {"sizes": (1, 6)}, "sizes: 6 pairs cannot cross in a boat with 3 seats"),
        (river, {"sizes": (2, 4), "seats": 2}, "sizes: 4 pairs cannot cross in a boat with 2 seats"),
        (river, {"seats": 1}, "seats: at least 2"),
        (hanoi, {"sizes": (1, 13)}, "sizes: two numbers from 1 to 12"),
        (hanoi, {"letters": "AB"}, "letters: size 4 needs 3 different letters, got 'AB'"),
        (hanoi, {"letters": "AAB"}, "letters: different capital letters"),
        (blocks, {"stacks": 2}, "stacks: from 3"),
    ],
)
def test_puzzles_that_have_no_solution_are_refused(make: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(FieldMistake, match=says):
        make(**settings)


def test_too_few_names_for_a_split_are_refused() -> None:
    with pytest.raises(FieldMistake, match=r"none of the puzzles of size 1 is in '\w+'; give more letters"):
        for split in ("train", "validation", "test"):
            hanoi(letters="ABC").row(0, split)


@pytest.mark.parametrize(
    "form",
    [
        "#### {plain}",
        "<think> #### 9 A B </think> #### {plain}",
        "I solve it. #### {plain} ;",
        "####\n{lines}",
        "#### {lines}\nThese are all moves.",
        "moves = {brackets}",
        "First [[1, 2]], no: \\boxed{{{brackets}}}",
        "<answer>{plain}</answer>",
        "```python\nmoves = {brackets}\n```\nDone.",
        "#### {brackets} and that is all",
        "{wide}",
        "Let's think step by step.\nTherefore, the answer is {plain}.",
        "The answer is: {brackets}",
        "#### {plain}\nThe answer is above.",
        "**#### {plain}**",
        "#### **{plain}.**",
    ],
)
@pytest.mark.parametrize("name", VERDICTS)
def test_a_list_is_read_in_its_notations(name: str, form: str) -> None:
    task = TASKS[name]
    row = task.row(2, "test")
    moves = [move.split() for move in gold(row)]
    lines = "\n".join(map(" ".join, moves))
    quoted = [[int(f) if f.isdigit() else f for f in move] for move in moves]
    wide = str(quoted).replace("[", "[\n ").replace("'", '"')
    text = form.format(plain=row["target"], lines=lines, brackets=quoted, wide=wide)
    assert task.attempt(row, text) == puzzles.Attempt(len(moves), None, True)


@pytest.mark.parametrize(
    ("completion", "moves", "first_wrong", "cut_off", "says"),
    [
        ("", 0, None, False, "there is no list of moves: expected one as in #### 1 A C"),
        ("1 A B ; 2 A C ; 1 B C", 0, None, False, "there is no list of moves"),
        ("####", 0, None, False, "there are no moves"),
        ("<think> #### 1 A B ; 2 A C ; 1 B C", 0, None, False, "there is no list of moves"),
        ("#### 1 A B ; 2 A C", 2, None, False, "all 2 moves are allowed, but they end at: A B 1 C 2"),
        ("#### 1 A B ; 2 A", 1, None, True, "the list is cut off after 1 moves"),
        ("[[1, 'A', 'B'], [2, 'A',", 1, None, True, "the list is cut off after 1 moves"),
        ("[[1, 'A', 'B'], [2, 'A', 'C']", 2, None, True, "the list is cut off after 2 moves"),
        ("#### 1 A B ; 2 A B ; 2 A", 2, 1, True, "move 2, 2 A B, is not allowed: disc 2 would lie on disc 1"),
        ("#### 1 A B ; 2 A C ; 1 B C ; 1 A B", 4, 3, False, "move 4, 1 A B, is not allowed: A is empty"),
        ("#### 1 A A", 1, 0, False, "it stays where it is"),
        ("#### 1 A X", 1, 0, False, "there is no peg X"),
        ("#### 2 A C", 1, 0, False, "the top disc of A is 1"),
        (
            "#### A to B ; A to C",
            0,
            None,
            False,
            "'A to B' is no move in the notation of the puzzle: write moves as in 1 A C",
        ),
        ("#### 1 A B ; disc 2 to C", 1, 1, False, "'disc 2 to C' is no move in the notation"),
        ("[[1, 0, 2], [2, 0, 1]]", 0, None, False, "'1, 0, 2' is no move in the notation"),
        ("[[1, 'A', 'B'], 2]", 1, 1, False, "is no move in the notation"),
        ("#### 1 A B ; 2 A C ; 1 B C ; 1 C C", 4, 3, False, "it stays where it is"),
        ("#### \u0661 A B", 0, None, False, "is no move in the notation"),
        ("#### " + "9" * 5000 + " A B", 0, None, False, "is no move in the notation"),
    ],
)
def test_what_is_no_solution_is_told(
    completion: str, moves: int, first_wrong: int | None, cut_off: bool, says: str
) -> None:
    row = {"size": 2, "pegs": "ABC"}
    attempt = hanoi().attempt(row, completion)
    assert (attempt.moves, attempt.first_wrong, attempt.solved, attempt.cut_off) == (moves, first_wrong, False, cut_off)
    assert says in attempt.problem


@pytest.mark.parametrize("name", VERDICTS)
def test_no_text_raises_or_takes_long(name: str) -> None:
    rng, row = random.Random(1), TASKS[name].row(3, "test")
    pieces = [
        "####",
        "[",
        "]",
        "(",
        ")",
        ";",
        "\n",
        ",",
        " ",
        "'",
        "1",
        "A",
        "a",
        "_",
        row["target"],
        "<think>",
        "</think>",
        "\x00",
        "\ud800",
    ]
    texts = ["".join(rng.choices(pieces, k=rng.randint(1, 40))) for _ in range(2000)]
    texts += [piece * 100_000 for piece in pieces]
    texts += ["#### " + f"{row['target']} ; " * 10_000, "[" + str([m.split() for m in gold(row)])[1:-1] + ","]
    begun = time.process_time()
    for text in texts:
        TASKS[name].attempt(row, text)
    assert time.process_time() - begun < 20


def test_ten_thousand_moves_are_played() -> None:
    row = hanoi(sizes=(3, 3)).row(0, "test")
    first, _, last = row["pegs"]
    moves = [f"1 {first} {last}", f"1 {last} {first}"] * 5000
    attempt = hanoi().attempt(row, "#### " + " ; ".join(moves))
    assert attempt.moves == 10_000 and attempt.first_wrong is None and not attempt.solved
    assert hanoi().attempt(row, "#### " + " ; ".join([*moves, *gold(row)])).solved


def test_progress_is_paid_up_to_the_first_wrong_move() -> None:
    row = hanoi(sizes=(2, 2)).row(0, "test")
    moves = gold(row)
    texts = ["#### " + " ; ".join(m) for m in (moves, moves[:2], [*moves[:2], moves[0]], [moves[1]])]
    columns = {key: [value] * 4 for key, value in row.items()}
    assert puzzles.progress(completions=texts, **columns) == [1.0, 0.0, pytest.approx(1 / 3), 0.0]


def test_moves_are_replayed_with_their_pictures() -> None:
    puzzle = puzzles.Hanoi
    frames = replay(["1 A C", "2 A C"], puzzle.start({"size": 2, "pegs": "ABC"}), puzzle.play, puzzle.show)
    assert [frame.picture for frame in frames] == ["A 2 1 B C", "A 2 B C 1", "A 2 B C 1"]
    assert frames[-1].problem == "disc 2 would lie on disc 1"
