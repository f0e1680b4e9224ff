"""Chains of thought: their steps, their equations, and what is done to them in an audit."""

import json
import random
import string
from fractions import Fraction
from pathlib import Path

import pytest
from rllab_envs.tasks.pocket import Pocket

from rllab.answers.equations import equations
from rllab.evals.chain import Corruption, corrupted, dots, implied, steps, wrong


def texts(chain: str) -> list[str]:
    return [chain[p.start : p.end] for p in steps(chain)]


@pytest.mark.parametrize(
    ("chain", "parts"),
    [
        ("20 + 5 = 25 ; 25 * 2 = 50", ["20 + 5 = 25", "25 * 2 = 50"]),
        ("She has 3.5 l. Dr. No adds 1. Now it is 4.5 l.", ["She has 3.5 l.", "Dr. No adds 1.", "Now it is 4.5 l."]),
        ("E.g. J. Smith has 2, i.e. two. So yes!", ["E.g. J. Smith has 2, i.e. two.", "So yes!"]),
        ("1. Add 2.\n2. Double it.\n\nDone", ["1. Add 2.", "2. Double it.", "Done"]),
        ("1. Add 2. 2) Double.", ["1. Add 2.", "2) Double."]),
        ("It is B. Then we stop? Yes", ["It is B.", "Then we stop?", "Yes"]),
        ('He says "It is 5." Then "Why?" she asks.', ['He says "It is 5."', 'Then "Why?" she asks.']),
        ("((1+2)+1)=(3+1)=4", ["((1+2)+1)=(3+1)", "=4"]),
        ("so x = 1 + 2 = 3 apples", ["so x = 1 + 2 = 3 apples"]),
        ("a first\n---\n\n", ["a first"]),
        ("", []),
        (" \n. \n", []),
    ],
)
def test_steps(chain: str, parts: list[str]) -> None:
    assert texts(chain) == parts


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("20 + 5 = 25 ; 25 * 2 = 51", [True, False]),
        ("Natalia sold 48/2 = <<48/2=24>>24 clips", [True]),
        ("1. 1,200 * 3 = $3,600.", [True]),
        ("- 20 + 5 = 24", [False]),
        ("So -5 + 3 = -2 and 5 - -3 = 8", [True, True]),
        ("5 apples + 3 apples = 9 apples", [False]),
        ("1 hour + 30 minutes = 90 minutes", [None]),  # 31 by its numbers
        ("40 nickels + 2 = 42 nickels = 42 * $0.05", [True, None]),
        ("10 / 3 = 3.33, 10 / 3 = 3.34, 10 / 3 = 3", [True, False, False]),
        ("10 / 3 ≈ 3, 10 / 3 ≈ 5", [True, False]),
        ("0.24 x 0.3 = 0.072 = 7.2%", [True]),
        ("50% of 80 = 40; 20/50 = 40%; 100 - 20% = 81", [True, True, None]),
        (r"\frac{1}{2} \times 6 = 3, 6 \div \frac12 = 12", [True]),
        (r"$\frac{5+4}{3} = \boxed{3}$", [True]),
        ("28 / 1/5 = 140, 2½ * 2 = 5", [True, True]),
        ("20 + 5 = 25 and 1/4", []),
        ("3^2 + 4^2 = 25, 2(3+4) = 13", [True, False]),
        ("20 + 5\n= 25", [True]),
        ("(((1+2)+1)+8)=((3+1)+8)=(4+8)=13", [True, True, False]),
        ("day 1 = 3 * 4 = 12", [True]),
    ],
)
def test_equations(text: str, holds: list[bool | None]) -> None:
    assert [e.holds for e in equations(text)] == holds


@pytest.mark.parametrize(
    "text",
    [
        *("x + 3 = 7", "2x + 3 = 8", "3 + 4 = 2y", "f(3) + 1 = 5", "sqrt(16) + 1 = 5", "√16 + 1 = 6", "4! + 1 = 24"),
        *("half of 80 + 1 = 41", "20 + 5 = ?", "20 + 5 = __", "2/0 = 3", "17 % 5 = 2", "3 + 4 == 8", "3 + 4 >= 8"),
        *("0900 - 0130 = 0730", "16,0000/10 = 16000", "3 + 4 = 5 + x", "x = 5", "day 2 = 3", "one + 2 = 4", "1 + = 3"),
        *("9**9**9**9 = 3", "9^99999 = 3", "99999999^20 = 1", "1 + 2) = 4", "3 + 4 = 3:4", "", "="),
    ],
)
def test_what_is_not_certain_is_no_equation(text: str) -> None:
    assert equations(text) == ()


def test_no_text_is_too_large() -> None:
    for text in ("(" * 5000 + "1", "1+" * 5000 + "1 = 2", "9" * 5000 + " + 1 = 2", "1 = " * 5000, "1 ; " * 5000):
        equations(text), steps(text), corrupted(text[:1000], steps(text[:1000]), 0, "1")
    rng = random.Random(0)
    alphabet = string.digits + "+-*/=().,% x$\\^\n;ab½≈"
    for _ in range(2000):
        text = "".join(rng.choices(alphabet, k=rng.randint(0, 60)))
        parts = steps(text)
        assert [wrong(text, p) for p in parts].count(True) <= len(parts)
        change = corrupted(text, parts, 0, text)
        assert change is None or (change.old != change.new and change.text.startswith(text[: parts[change.step].start]))


def test_equations_of_published_solutions_hold(data: Path) -> None:
    """GSM8K's own solutions have a few slips; nearly all steps with a calculator mark have an equation that is read."""
    lines = (data / "gsm8k/test.jsonl").read_text(encoding="utf-8").splitlines()
    chains = [json.loads(line)["answer"].partition("\n####")[0] for line in lines[:400]]
    holds = [wrong(chain, p) for chain in chains for p in steps(chain) if "<<" in chain[p.start : p.end]]
    assert holds.count(False) > 0.75 * len(holds) and holds.count(True) <= 3


def test_a_step_is_wrong_by_its_own_equation() -> None:
    chain = "12 + 5 = 17 ; 17 * 2 = 35 ; 35 - 5 = 30 ; done"
    assert [wrong(chain, p) for p in steps(chain)] == [False, True, False, None]


def test_members_of_a_chain_of_equations_are_checked_one_by_one() -> None:
    chain = "((1+2)+1)+8=(3+1)+8=12=11+1=10+3=13=6+7"
    checks = [wrong(chain, p) for p in steps(chain)]
    assert checks == [False, False, False, True, False, False] and texts(chain)[2] == "=11+1"
    long = "1+1" + "=2=1+1" * 2000
    assert [wrong(long, p) for p in steps(long)] == [False] * 4000


def test_a_corrupted_number_is_near_and_wrong() -> None:
    chain = "20 + 5 = 25 ; 25 * 2 = 50"
    changes = [c for i in range(200) if (c := corrupted(chain, steps(chain), 0, f"item {i}"))]
    assert {(c.step, c.old) for c in changes} == {(0, "25"), (1, "50")}
    assert {c.new for c in changes if c.step == 0} == {"23", "24", "26", "27", "15", "35"}
    assert {c.text for c in changes if c.new == "27"} == {"20 + 5 = 27"}
    assert all(wrong(c.text, steps(c.text)[-1]) for c in changes)
    share = sum(c.step == 0 for c in changes) / len(changes)
    assert 0.4 < share < 0.6
    again = [corrupted(chain, steps(chain), 0, f"item {i}") for i in range(200)]
    assert again == changes and [corrupted(chain, steps(chain), 1, f"item {i}") for i in range(200)] != changes


@pytest.mark.parametrize(
    ("chain", "forms"),
    [
        ("It costs $1,250.50 now", {"1,250.51", "1,250.49", "1,250.52", "1,250.48", "1,250.60", "1,250.40"}),
        ("It is 9", {"8", "7"}),  # 10 has other digits
        ("It is 1", {"2", "3"}),
        ("Step 1: take 98 of x2", {"99", "97", "96", "88"}),
        ("20 + 5 = 26", {"27", "28", "24", "36", "16"}),  # 25 would be right
        ("nothing to count", set()),
        ("1. First", set()),
    ],
)
def test_the_form_of_a_corrupted_number(chain: str, forms: set[str]) -> None:
    changes = [corrupted(chain, steps(chain), 0, str(i)) for i in range(200)]
    assert {c.new for c in changes if c} == forms


@pytest.mark.parametrize(
    ("chain", "answer", "new", "expected"),
    [
        ("20 + 5 = 25 ; 25 * 2 = 50", 50, "27", 54),
        ("20 + 5 = 25 ; then 25 * 2 = 50 ; 50 - 9 = 41", 41, "24", 39),
        ("20 + 5 = 25 ; 3 * 4 = 12 ; 25 + 12 = 37", 37, "26", 38),
        ("Ana starts with 20 ; so now 20 + 5 = 25", 25, "21", 26),
        ("20 + 5 = 25 ; 25 + 25 = 50", 50, "27", None),  # one of them may be another 25
        ("20 + 4 = 24 ; 24 / 2 = 12", 12, "25", None),  # 12.5
        ("20 + 4 = 24 ; 24 - 23 = 1", 1, "22", None),  # negative
        ("20 + 5 = 25 ; so 25 in all ; 25 * 2 = 50", 50, "27", None),  # used in words
        ("20 + 5 = 25 ; 25 * 2 = 51", 51, "27", None),  # the chain itself is wrong
        ("20 + 5 = 25 ; 7 * 2 = 14", 14, "27", None),  # does not depend on it
    ],
)
def test_what_a_corrupted_number_implies(chain: str, answer: int, new: str, expected: int | None) -> None:
    parts = steps(chain)
    changes = (corrupted(chain, parts, 0, str(i)) for i in range(1000))
    change = next(c for c in changes if c and c.step == 0 and c.new == new) if "=" in texts(chain)[0] else None
    if change is None:  # the drawn step is one with an equation; here the first has none
        change = Corruption(0, f"Ana starts with {new}", "20", new)
    assert implied(chain, parts, change, Fraction(answer)) == expected


def test_chains_of_the_pocket_world() -> None:
    """Every gold chain has a step for each change of the total, all of them right, and most can be computed anew."""
    task, computed, chains = Pocket(tickets=0.0, styles=(0.0, 1.0, 0.0)), 0, 300
    for i in range(chains):
        row = task.row(i, "train")
        chain = task.gold(row).removeprefix("<think> ").partition(" </think>")[0]
        parts = steps(chain)
        assert len(parts) == row["steps"] + chain.count("starts with") and True not in [wrong(chain, p) for p in parts]
        change = corrupted(chain, parts, 0, str(i))
        assert change is not None
        answer = implied(chain, parts, change, Fraction(row["target"]))
        computed += answer is not None
        assert answer != Fraction(row["target"]) or change.step < len(parts) - 1
    assert computed > 0.9 * chains


def test_dots_have_the_tokens_of_the_chain(tmp_path: Path) -> None:
    words, letters, threes = (lambda t: len(t.split())), len, (lambda t: -(-len(t) // 3))
    for count in (words, letters, threes):
        for tokens in (1, 2, 7, 40):
            text = dots(tokens, count)
            assert set(text) == {" ", "."} and tokens <= count(text) <= tokens + 1
    assert dots(0, words) == "" and dots(3, words) == " ... ... ..."
