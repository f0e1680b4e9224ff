"""Rules of reading answers, tried in each place that an answer can stand: no expression, list or hedge is paid."""

import gzip
import json
import re
from pathlib import Path

import pytest

from rllab.answers import extract, grade
from rllab.answers.choice import offered
from rllab.answers.numerals import number

PLACES = ["The answer is {}.", "\\boxed{{{}}}", "Answer: {}", "#### {}", "<answer>{}</answer>", "Finally we get {}"]

# Expressions, and relations, that hold a number; none is the number.
EXPRESSIONS = r"""
√25  3√2  7π  4β  4²  2⁴  ∛4  4½x  ±6  ≥6  ≤4  ¬4  4‰  4÷2  4×3  0.4…  $\sqrt{25}$  $\sqrt[3]{27}$  $3\sqrt{2}$
$7\pi$  $\frac{\pi}{4}$  $\frac{3x}{4}$  $\frac{4}{y}$  $\dfrac{\sqrt3}{2}$  $\frac{4+1}{3}$  $2x + 3$  2x - 3
x + 5  $x^2$  4y  4\,y  $a_5$  x5  6ab  6X  $5i$  5 + 2i  4i  $2e$  $e^{2}$  5^2  5**2  $2^{10}$  4^x  (4)(3)
4(3)  -(4)  $\{5\}x$  $\log_2 8$  $\log_{10} 100$  log 4  \ln 2  $\sin 30$  \tan 45  sin(30)  sqrt(16)
floor(5.5)  max(3, 5)  f(3)  \text{P}(4)  $\binom{7}{3}$  {4 \choose 2}  5C2  C(7, 3)  $P(7,3)$  $5!$
$\frac{5!}{3}$  \sum_{i=1}^{4} i  \int_0^4 x  $|-6|$  \lfloor 4.7 \rfloor  \lceil 4.2 \rceil  $\pm 6$  $\geq 6$
> 6  $x > 6$  \neq 4  \lt 4  less than 5  more than 5  4 \mid 8  $5\cdot 3$  4 * 3  5 - 2  4 + 1  $6+\sqrt2$
6 m + 2  4\circ 3  6 & 7  4_{5}  0.\overline{3}  0.4\bar{3}  0.44...  6 : 5  6:5  6-4  6 to 5  6..7  3...5
[4, 6]  (2, 7)  [2, 7)  (4, \infty)  (-\infty, 4)  1, 2, 4  1,2,4  3 4 5  3/4/5  3;4;5  3 or 4  3 (or 5)
6 hours and 15 minutes  6 hours 15 minutes  6 ft 2 in  6'2"  6 lbs 4 oz  6 dollars and 25 cents  4 m 20 cm
4 euros 20  4 red and 5 blue  4 mod 7  $5 \pmod 7$  6 \text{ mod } 7  4 squared  twice 4  half of 4
the square root of 4  4% of 50  6 more than x  x times 6  6 minus x  5 plus 3  between 3 and 4  $6\text{ or }7$
6 \times 10^{n}
"""
VALUES = r"""
4: 4 km  4km  4kg  4 m/s  4\ \text{m/s}  4\,\mathrm{kg}  4\text{ cm}^2  4 cm²  4%  4 percent  $4  \$4  4 $  €4
4: 4 EUR  +4  4.0  04  \frac{8}{2}  8/2
4: x = 4  n = 4 apples  \text{Total: } 4  4 \text{ apples}  4 apples per day  four  exactly 4  about 4
4: 2 + 2 = 4  \frac{12}{3} = 4  4°  4^\circ
4: 4^{\circ}  4 degrees  4分钟  4円  4개  ４  ٤  ४  4 men  4 days  4 more  4 times  4 (four)
4000: 4,000  4{,}000  4\,000  4 000  4'000  4k  4e3  4\times10^3  4 \cdot 10^{3}  4×10³  4 x 10^3  4 * 10^3
4000: 4 thousand
4.5: 4½  4 1/2  4\frac{1}{2}  4 and 1/2  4 and a half  4,5  9/2
1234.56: 1.234,56  1,234.56  1.234,56 Euro  $1,234.56
30000: 3万  30 thousand  3e4
-4: -4  −4  - 4  minus 4  negative 4  -$4
"""
SIGNS = r"+ - * / ^ _ | & ~ @ # ; : × ÷ · • ∘ ⊕ ⊗ ∧ ∨ ≡ ≅ ∝ ² √ ° -- ][ \cdot \times \over \pm \le \mod \quad < > ≤"
SEVERAL = {
    "choice": "A, B  (A)(B)  A or B  AB  (A)/(B)  A B C  A or possibly B  A+B  both A and B  either A or B  A & B  A|B",
    "yesno": "yes/no  yes or no  Yes, no  no and yes  both yes and no  neither yes nor no  maybe yes, maybe no  yes|no",
    "string": "Paris or London  Paris, London  Paris/London  Paris; London  Paris and London",
    "latex": r"3, 5  3 \text{ or } 5  \{3,5\}  (3,5)  3 \le x \le 5  3;5  x=3=5  3:5  3\quad 5  5 \text{ or more}  "
    r"\pm 5  5'  5_3  5\ldots  5\mathrm{2}  5\textbf{2}",
}
GOLD = {"choice": "AB", "yesno": ("yes", "no"), "string": ("Paris", "London"), "latex": "35"}


@pytest.mark.parametrize("place", PLACES)
def test_an_expression_is_never_paid_for_a_number_in_it(place: str) -> None:
    paid = []
    for expression in EXPRESSIONS.strip().replace("\n", "  ").split("  "):
        text = place.format(expression.strip("$") if "boxed" in place else expression)
        numbers = {*re.findall(r"\d+(?:\.\d+)?", expression), "3", "4", "5", "6"}
        paid += [(text, n) for n in numbers if grade(text, n, "number").correct]
    assert paid == []


@pytest.mark.parametrize("place", PLACES)
def test_two_numbers_with_symbols_between_them_are_never_paid(place: str) -> None:
    texts = [place.format(f"{one}{sign}{two}") for sign in SIGNS.split() for one, two in ((18, 7), (7, 18), (25, 50))]
    texts += [
        t.replace(sign, f" {sign} ")
        for t, sign in zip(texts, (s for s in SIGNS.split() for _ in range(3)), strict=True)
    ]
    assert [(t, gold) for t in texts for gold in ("7", "18", "25", "50") if grade(t, gold, "number").correct] == []


@pytest.mark.parametrize("place", PLACES[:-1])
def test_a_number_with_its_unit_is_read(place: str) -> None:
    missed = []
    for line in VALUES.strip().splitlines():
        target, _, texts = line.partition(": ")
        missed += [t for t in texts.split("  ") if not grade(place.format(t), target, "number").correct]
    assert missed == []


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_answers_are_never_paid(kind: str) -> None:
    texts = [place.format(text) for text in SEVERAL[kind].split("  ") for place in ("\\boxed{{{}}}", *PLACES)]
    if kind == "latex":
        texts = [t for t in texts if "boxed" in t]
    assert [(t, gold) for t in texts for gold in GOLD[kind] if grade(t, gold, kind).correct] == []


DRESSES = [
    "The final answer is \\boxed{%s}.",
    "**Answer: %s** ✅",
    "### Final Answer\n\n**$%s**",
    "So the answer is \\(%s\\).",
    "Therefore:\n\\[ \\textbf{%s} \\]",
    "#### %s",
    "$$\\boxed{\\text{Total: } %s \\text{ dollars}}$$",
    "Thus: $x = \\mathbf{%s}$",
    "The answer is $\\underline{%s}$.",
    "答案是 %s。",
    "Answer: %s\n\nLet me verify: 3 + 4 = 7 ✓",
    "= %s",
    "She earned **%s dollars**.",
    "Final answer:\n```\n%s\n```",
    "The answer is %s🎉",
]


def test_published_answers_are_read_in_the_dress_of_many_models(data: Path) -> None:
    missed = []
    for i, line in enumerate((data / "gsm8k/test.jsonl").read_text(encoding="utf-8").splitlines()):
        solution, _, target = json.loads(line)["answer"].partition("####")
        text = f"{solution}\n{DRESSES[i % len(DRESSES)] % target.strip()}"
        missed += [] if grade(text, target, "number").correct else [text[-80:]]
    assert missed == []
    for line in (data / "math500/math500.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if number(row["answer"]) and not grade(row["solution"], row["answer"], "number").correct:
            missed.append(row["answer"])
    assert missed == []


def test_every_letter_is_read_and_the_pronoun_is_not() -> None:
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        for text in (
            letter,
            f"({letter})",
            f"{letter}.",
            f"The answer is {letter}.",
            f"Option {letter}",
            f"**{letter}**",
        ):
            assert extract(text, "choice").text == letter, text
    for text in ("I am not sure.", "Therefore, I cannot provide the answer.", "I think that it is hard", "I'd say so"):
        assert extract(text, "choice").text is None, text


def test_letters_that_are_no_choice_of_the_row_are_not_read() -> None:
    text = "The answer is (B).\n\nThe answer is K."
    assert grade(text, "B", "choice", "ABCD").correct and not grade(text, "B", "choice").correct
    assert offered("Which? (A) one (B) two (C) three") == "ABC" == offered("Which?\nA. one\nB) two\nC: three")
    assert offered("Is plan A. better than plan C?") == "" == offered("Which of these?")


def test_strict_does_not_depend_on_case() -> None:
    for text, kind in (("b", "choice"), ("B.", "choice"), ("YES", "yesno"), ("*fn*", "string")):
        assert extract(text, kind).marked, text


def test_a_correction_withdraws_what_stands_before_it() -> None:
    for old, new, kind in (("12", "15", "number"), ("A", "C", "choice"), ("Rome", "Paris", "string")):
        for correction in (
            f"Wait, no. It should be {new}.",
            f"Actually, it is {new}.",
            f"Scratch that: it should be {new}.",
        ):
            for first in (f"The answer is {old}. ", f"\\boxed{{{old}}}\n\n", f"#### {old}\n"):
                if first.startswith("#") and kind == "string":  # a heading
                    continue
                assert grade(first + correction, new, kind).correct, first + correction
                assert not grade(first + correction, old, kind).correct, first + correction
    for denied in ("The answer is 12? No.", "The answer is 12. That is wrong.", "I doubt that the answer is 12."):
        assert not grade(denied, "12", "number").correct, denied
    assert extract("The answer is 12. Wait, no.", "number").how == "its answer is withdrawn"
    assert grade(
        "The answer is 12. Wait, let me check: 3 * 4 = 12. It should be noted that 12 > 3.", "12", "number"
    ).correct


def test_numbers_that_math_verify_finds_equal_are_compared_again() -> None:
    for one, other in (
        ("\\frac{1}{2^{98}}", "\\frac{1}{2^{99}}"),
        ("\\frac{1}{2006!}", "\\frac{1}{2004!}"),
        ("0.333333", "\\frac{1}{3}"),
        ("3.14159265", "\\pi"),
        ("e^{-100}", "e^{-101}"),
    ):
        assert not grade(f"\\boxed{{{one}}}", other, "latex").correct, one
        assert grade(f"\\boxed{{{one}}}", one + " \\cdot 1", "latex").correct, one
    assert grade("\\boxed{\\sqrt{3+2\\sqrt2}}", "1+\\sqrt2", "latex").correct


def recorded(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def authors(text: str) -> str | None:
    """The letter by the three patterns of MMLU-Pro's own evaluation, tried in turn (its guess at random left out)."""
    for pattern in (r"answer is \(?([A-J])\)?", r"(?s:.*)[aA]nswer:\s*([A-J])", r"(?s)\b([A-J])\b(?!.*\b[A-J]\b)"):
        if found := re.search(pattern, text):
            return found[1]
    return None


@pytest.mark.parametrize(
    ("model", "accuracy", "by_pattern", "lost"),
    [("gemini-1.5-flash-002", 64.8, 64.9, 11), ("qwen1.5-7b-chat", 29.3, 30.7, 60)],
)
def test_recorded_answers_of_mmlu_pro(model: str, accuracy: float, by_pattern: float, lost: int, data: Path) -> None:
    """What the patterns pay and we do not: hedges ('(A) or (C)'), the pronoun I, the first of several answers."""
    rows = recorded(data / f"mmlu_pro/{model}.jsonl.gz")
    graded = [grade(r["completion"], r["target"], "choice").correct for r in rows]
    theirs = [authors(r["completion"]) == r["target"] for r in rows]
    assert 100 * sum(graded) / len(rows) == pytest.approx(accuracy, abs=0.06)
    assert 100 * sum(theirs) / len(rows) == pytest.approx(by_pattern, abs=0.06)
    assert sum(t and not g for g, t in zip(graded, theirs, strict=True)) <= lost
