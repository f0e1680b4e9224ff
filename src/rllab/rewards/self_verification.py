"""Rewards of a verifier of proofs, and of a prover that verifies itself (DeepSeekMath-V2, Shao et al. 2025, section 2).

A proof Y has numbered lines. An evaluation, of another's proof (V) or of one's own (Z), lists its findings and ends
with a score s' of 0, 1/2 or 1:

    Proof: 1: 12 + 5 = 17; 2: 17 * 2 = 44. Evaluation: 12 + 5 = 17 | 12 + 5 = 17 yes; 17 * 2 = 34 | 17 * 2 = 44 no.
    Line 2 is wrong. #### 0

    R_score(s', s) = 1 - |s' - s|                     (1)
    R_V = R_format R_score R_meta                     (3)    of a verifier; s is the true score
    R = R_format(Y, Z) (alpha R_Y + beta R_Z)         (5)    of a prover; R_Y = s is the verifier's score of Y
    R_Z = R_score(s', s) R_meta(Z)                    (6)

R_format is 1 where the texts have this form, else 0. R_meta grades whether the flaws that an evaluation names exist.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from rllab.core.messages import last_text

ALPHA, BETA = 0.76, 0.24  # weights of the proof and of its own evaluation
_SCORES = {"0": 0.0, "1/2": 0.5, "0.5": 0.5, "1": 1.0}
_FINDINGS = {"is wrong": 0.0, "has a gap": 0.5}
_EVALUATION = re.compile(
    r"Evaluation ?:[^:]*\. (?:No line is wrong|Line (?P<line>[0-9]{1,3}) (?P<flaw>is wrong|has a gap)) ?\."
    r" ?#### ?(?P<score>0|1|1 ?/ ?2|0\. ?5)"
)
_PROOF = re.compile(r"Proof ?:((?!Evaluation).)*", re.DOTALL)


class Evaluation(NamedTuple):
    """A parsed evaluation: its score; the line it names as flawed, if any; the score that this flaw implies."""

    score: float
    line: int | None
    due: float


def read_evaluation(text: str) -> Evaluation | None:
    """Parses an evaluation; None where the text has not the required form, so R_format is 0."""
    match = _EVALUATION.fullmatch(text.strip())
    if match is None:
        return None
    score = _SCORES[match["score"].replace(" ", "")]
    if match["line"] is None:
        return Evaluation(score, None, 1.0)
    return Evaluation(score, int(match["line"]), _FINDINGS[match["flaw"]])


def read_proof(text: str) -> tuple[str, Evaluation | None]:
    """Parses a text into its proof, "" without one, and the evaluation behind it."""
    match = _PROOF.match(text.strip())
    return (match[0].strip(), read_evaluation(text.strip()[match.end() :])) if match else ("", None)


def score_reward(score: float, true: float) -> float:
    """R_score: from 1 for the true score down to 0 for its opposite (equation 1)."""
    return 1.0 - abs(score - true)


def meta_reward(evaluation: Evaluation, line: int | None) -> float:
    """R_meta of an evaluation of a proof whose flawed line is known, by the rubric of appendix A.3.

    0 if it names a line without a flaw. Otherwise 1/2 if its score is not the one that its finding implies, and 1 if it
    is. A flaw that was overlooked lowers R_score, not R_meta. The wording is not graded.
    """
    if evaluation.line is not None and evaluation.line != line:
        return 0.0
    return 1.0 if evaluation.score == evaluation.due else 0.5


def verifier_reward(evaluation: Evaluation | None, score: float, line: int | None, meta: bool = True) -> float:
    """R_V of an evaluation of a proof with this score and flawed line (equation 3; without `meta` equation 2)."""
    if evaluation is None:
        return 0.0
    return score_reward(evaluation.score, score) * (meta_reward(evaluation, line) if meta else 1.0)


def prover_reward(own: Evaluation | None, verdict: Evaluation | None) -> float:
    """R of a proof, from a verifier's evaluation and its author's own (equations 5 and 6).

    0 if either evaluation has not the required form: what the verifier cannot grade is no proof.
    """
    if own is None or verdict is None:
        return 0.0
    own_reward = score_reward(own.score, verdict.score) * meta_reward(own, verdict.line)
    return ALPHA * verdict.score + BETA * own_reward


def verifying(
    completions: Sequence[Any],
    target: Sequence[str],
    line: Sequence[int | None],
    *,
    meta: bool = True,  # multiply by R_meta
) -> list[float]:
    """R_V of evaluations. target: the true scores. line: the flawed lines. meta: False leaves R_meta out."""
    each = zip(map(last_text, completions), target, line, strict=True)
    return [verifier_reward(read_evaluation(text), float(true), flaw, meta) for text, true, flaw in each]


def flaw_named(completions: Sequence[Any], line: Sequence[int | None]) -> list[float | None]:
    """1 where an evaluation names the flawed line, else 0; None where no line is flawed."""
    evaluations = [read_evaluation(text) for text in map(last_text, completions)]
    return [
        None if flaw is None else float(e is not None and e.line == flaw)
        for e, flaw in zip(evaluations, line, strict=True)
    ]
