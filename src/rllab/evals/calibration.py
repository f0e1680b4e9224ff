"""Compares a verifier's scores of proofs with the points that people gave them.

It reads the proofs published with DeepSeekMath-V2 (2025, `outputs/*.jsonl`). A row has `problem_idx` and
`model_prediction`. The latter holds the mean score of many evaluations, `average_automatic_rating` from 0 to 1, and
`human_rating` in the contest's points.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from rllab.core.errors import Mistake
from rllab.evals.figures import canvas, save
from rllab.evals.problems import Problems, read_rows
from rllab.stats import calibration_error, pearson, share_interval, spearman

POINTS = {"IMO": 7, "PB": 7, "CMO": 21, "Putnam": 10}  # most points of a problem, by contest; PB: IMO-ProofBench

Row = dict[str, Any]


@dataclass(frozen=True)
class GradedProof:
    """A proof graded by a verifier and by people.

    file: its name without the suffix. score: the verifier's, from 0 to 1. points: from people, out of `most`.
    """

    file: str
    problem: str
    score: float
    points: float
    most: int

    @property
    def share(self) -> float:
        """The share of the points that people gave, from 0 to 1."""
        return self.points / self.most


def read_proofs(paths: Sequence[Path], problems: Problems) -> list[GradedProof]:
    """Reads the proofs in files. A line that cannot be used is left out and added to `problems`.

    Raises:
        Mistake: there is no such file, or no line can be used.
    """
    proofs = [p for path in paths for n, row in read_rows(path, problems) if (p := _proof(path, n, row, problems))]
    if not proofs:
        raise Mistake("\n".join(["there is no proof with both a score and points", *problems.messages()]))
    return proofs


def _proof(path: Path, line: int, row: Row, problems: Problems) -> GradedProof | None:
    name, prediction = str(row.get("problem_idx", "")), row.get("model_prediction")
    ratings = prediction if isinstance(prediction, dict) else {}
    score, points = ratings.get("average_automatic_rating"), ratings.get("human_rating")
    contest = re.match(r"[A-Za-z]*", name)
    most = POINTS.get(contest[0]) if contest else None
    if most is None:
        problems.add(path, line, f"problem_idx {name!r} begins with no contest; known are {', '.join(POINTS)}")
    elif not _within(score, 1) or not _within(points, most):
        problems.add(path, line, f"expected average_automatic_rating from 0 to 1, human_rating from 0 to {most}")
    else:
        return GradedProof(path.stem, name, float(score), float(points), most)
    return None


def _within(value: Any, most: int) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most


def contests(proofs: Sequence[GradedProof]) -> list[Row]:
    """Returns a row for each file: the total points, as in the paper's Table 1, and the verifier's mean score."""
    rows = []
    for file in dict.fromkeys(p.file for p in proofs):
        own = [p for p in proofs if p.file == file]
        points, most = sum(p.points for p in own), sum(p.most for p in own)
        row = {"file": file, "proofs": len(own), "points": points, "of": most, "share": points / most}
        rows.append(row | {"verifier": float(np.mean([p.score for p in own]))})
    return rows


def bins(proofs: Sequence[GradedProof], count: int = 10) -> list[Row]:
    """Returns a row for each of `count` score ranges of equal width that holds a proof. Score 1 is in the last range.

    `verifier` is the mean score in the range. `human` is the mean share of the points, and `interval` its interval by
    resampling proofs; where all have all points or none it is Wilson's.
    """
    which = [min(int(p.score * count), count - 1) for p in proofs]
    rows = []
    for place in sorted(set(which)):
        own = [p for p, w in zip(proofs, which, strict=True) if w == place]
        shares = np.array([p.share for p in own])
        row = {"score": (place / count, (place + 1) / count), "proofs": len(own)}
        row |= {"verifier": float(np.mean([p.score for p in own])), "human": float(shares.mean())}
        rows.append(row | {"interval": share_interval(shares)})
    return rows


def agreement(proofs: Sequence[GradedProof], count: int = 10) -> Row:
    """Returns how scores and shares agree over all proofs, the calibration error by `count` bins.

    A correlation is None where the scores or the shares do not vary.
    """
    score, share = np.array([p.score for p in proofs]), np.array([p.share for p in proofs])
    row: Row = {"proofs": len(proofs), "verifier": float(score.mean()), "human": float(share.mean())}
    row |= {"calibration error": calibration_error(score, share, count)}
    correlations = {"pearson": pearson(score, share), "spearman": spearman(score, share)}
    return row | {k: None if np.isnan(v) else v for k, v in correlations.items()}


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draws the share of the points that people gave, with its interval, over the verifier's score.

    A calibrated verifier lies on the diagonal. rows: from `bins`. path: .svg, .png or .pdf.

    Raises:
        Mistake: matplotlib is not installed, or does not write such files.
    """
    figure, (axes,) = canvas((4.5, 4))
    axes.plot([0, 1], [0, 1], ":", color="grey")
    verifier, human = (np.array([r[k] for r in rows]) for k in ("verifier", "human"))
    low, high = np.array([r["interval"] for r in rows]).T
    axes.errorbar(verifier, human, np.clip([human - low, high - human], 0.0, 1.0), fmt="o", capsize=3)
    for row in rows:
        axes.annotate(str(row["proofs"]), (row["verifier"], row["human"]), (4, 4), textcoords="offset points")
    axes.set_xlabel("verifier's score")
    axes.set_ylabel("share of the points that people gave")
    save(figure, path)
