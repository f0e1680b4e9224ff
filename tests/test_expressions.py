"""Answers that are expressions or worked sums, graded on hand-made cases."""

from fractions import Fraction
from typing import Any

import pytest
from rllab_envs import tasks
from rllab_envs.tasks.arithmetic import DEEPEST, LONGEST, marked_answer, numbers_in, parse, shown, value
from rllab_envs.tasks.countdown import reaches, solved


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1+2*3", 7),
        ("(1+2)*3", 9),
        ("10 - 4 - 3", 3),
        ("100/5/4", 5),
        ("1/3 + 1/6", Fraction(1, 2)),
        ("((7))", 7),
        (r"2 \times 3", 6),
        ("6 ÷ 4", Fraction(3, 2)),
        ("7 − 2·3", 1),
        ("0+5", 5),
    ],
)
def test_expressions_by_hand(text: str, expected: int | Fraction) -> None:
    tree = parse(text)
    assert value(tree) == expected and parse(shown(tree)) == tree


def test_shown_has_the_brackets_that_matter() -> None:
    kept = ["1 - (2 - 3)", "1 - 2 - 3", "(1 + 2) * 3", "8 / (4 / 2)", "1 + (2 + 3)", "2 * 3 + 4 / 2"]
    assert [shown(parse(text)) for text in kept] == kept
    assert shown(parse("((2*3))+(4)")) == "2 * 3 + 4"
    assert numbers_in(parse("7*(1+7)-2")) == [7, 1, 7, 2]


@pytest.mark.parametrize(
    "text", ["-1+2", "1+-2", "+1", "2**3", "2^3", "1.5", "1,5", "2(3)", "(1", "1)", "1 2", "03", "1٣", "x"]
)
def test_texts_that_are_no_expressions(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_expressions_are_bounded() -> None:
    assert parse("(" * DEEPEST + "1" + ")" * DEEPEST) == 1 and value(parse("1" + "+1" * 99)) == 100
    for text in ("(" * (DEEPEST + 1) + "1" + ")" * (DEEPEST + 1), "1" + "+1" * (LONGEST // 2)):
        with pytest.raises(ValueError):
            parse(text)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("#### 1+2", "1+2"),
        ("so #### 1+2\nthat is it", "1+2"),
        ("#### 1 #### 2", "2"),
        ("<answer>\n(1+2) * 3\n</answer>", "(1+2) * 3"),
        (r"hence $\boxed{1+2}$.", "1+2"),
        (r"#### \boxed{1+2}", "1+2"),
        ("<answer> #### 1+2 </answer>", "1+2"),
        ("<think> #### 5 </think> #### 6", "6"),
        ("#### $1+2$.", "1+2"),
        ("####\n1+2", "1+2"),
        ("<think> #### 5 </think> 6", None),
        ("<think> #### 5", None),
        ("1+2", None),
        ("", None),
    ],
)
def test_the_marked_answer(completion: str, answer: str | None) -> None:
    assert marked_answer(completion) == answer


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("#### (60 - 2) * 5", True),
        ("#### 5*(60-2)", True),
        ("<think> 60 - 2 = 58 </think> <answer>60 * 5 - 5 * 2</answer>", False),  # 5 twice
        ("<answer>60*5 - 2*5</answer>", False),
        (r"\boxed{(60-2) \times 5}", True),
        ("#### 290", False),
        ("#### 60 * 5", False),
        ("#### (60 - 2) * 5 = 290", False),
        ("#### 60 - 2 * 5", False),
        ("#### (60 - 2) * 5 * 1", False),
        ("#### -(2 - 60) * 5", False),
        ("#### 60 + 2 + 5", False),
        ("#### (60 - 2) * 5 #### 1", False),
        ("(60 - 2) * 5", False),
        ("<think> #### (60 - 2) * 5 </think>", False),
    ],
)
def test_countdown_by_hand(completion: str, right: bool) -> None:
    row: dict[str, Any] = {"numbers": [60, 5, 2], "target": "290"}
    assert tasks.countdown().correct(row, completion) is right
    both_forms: list[Any] = [completion, [{"role": "assistant", "content": completion}]]
    assert solved(both_forms, [row["numbers"]] * 2, ["290"] * 2) == [float(right)] * 2


def test_countdown_counts_exactly() -> None:
    assert reaches("8/(3-8/3)", [8, 3, 8, 3], 24)  # through thirds, where floats would miss 24
    assert not reaches("8/(3-8/3)", [8, 3, 8], 24) and not reaches("8/(3-8/3)", [8, 8, 8, 3], 24)
    assert reaches("3 + 3 - 3", [3, 3, 3], 3) and not reaches("3", [3, 3, 3], 3)
    assert not reaches("5/2", [5, 2], 2) and not reaches("1/(2-2)", [1, 2, 2], 0)


GIVEN = {"problem": "(((1+2)+1)+8)", "target": "12", "steps": 3}


@pytest.mark.parametrize(
    ("completion", "steps", "right"),
    [
        ("<think> (((1+2)+1)+8)=((3+1)+8)=(4+8)=12 </think> #### 12", 1.0, True),
        ("(((1+2)+1)+8)=((3+1)+8)=(4+8)=12", 1.0, True),
        ("((3+1)+8)=(4+8)=12", 1.0, True),  # goes on from the prompt
        ("( ( 3 + 1 ) + 8 ) =\n( 4 + 8 ) = 12.", 1.0, True),
        ("(((1+2)+1)+8)=((3+1)+8)=(5+8)=13 #### 13", 2 / 3, False),  # a slip, then right from there
        ("(((1+2)+1)+8)=((3+1)+8)=(5+8)=12 #### 12", 1 / 3, True),
        ("(((1+2)+1)+8)=((3+1)+8)=12 #### 12", 1 / 3, True),  # two at once
        ("(((1+2)+1)+8)=(4+8)=12 #### 12", 1 / 3, True),
        ("(((1+2)+1)+8)=((3+1)+8)", 1 / 3, False),  # cut off
        ("((3+1)+8)=(4+8)=12=12=12=12 #### 12", 3 / 6, True),  # more of the same is not better
        ("#### 12", 0.0, True),
        ("12", 0.0, True),
        (r"\boxed{12}", 0.0, True),
        ("(1+1)=2=2 #### 2", 1 / 3, False),
        ("((3-1)+8)=((3+1)*8)=(4*8)=12", 1 / 4, True),  # 3 + 1 is 4, and nothing else is right
        ("((3*1)+8)=(3+8)=(7+5)", 0.0, False),
        ("#### -12", 0.0, False),
        ("#### (4+8)", 0.0, False),
        ("#### 12 or 13", 0.0, False),
        ("#### 012", 0.0, False),
        ("#### １２", 0.0, False),
        ("0.12", 0.0, False),
        ("<think> 12", 0.0, False),
        ("#### 13 12", 0.0, False),
    ],
)
def test_paren_sums_by_hand(completion: str, steps: float, right: bool) -> None:
    task = tasks.paren_sums()
    assert task.steps_right(GIVEN, completion) == pytest.approx(steps)
    assert task.correct(GIVEN, completion) is right


def test_any_order_of_additions_is_right() -> None:
    row = {"problem": "((1+2)+(3+4))", "target": "10", "steps": 3}
    steps_right = tasks.paren_sums().steps_right
    assert steps_right(row, "((1+2)+7)=(3+7)=10 #### 10") == steps_right(row, "(3+(3+4))=(3+7)=10 #### 10") == 1.0
    assert steps_right(row, "((1+2)+7)=(3+7)=11 #### 11") == pytest.approx(2 / 3)
