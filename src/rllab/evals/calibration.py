"""What a verifier's score of a proof is worth: beside the points that people gave it.

It reads the proofs that DeepSeekMath-V2 published (2025, `outputs/*.jsonl`): `problem_idx`, and in `model_prediction`
the mean score of many evaluations, `average_automatic_rating` from 0 to 1, and `human_rating` in the contest's points.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from rllab.core.errors import Mistake
from rllab.evals.figures import canvas, save
from rllab.evals.recordings import Problems, read_rows
from rllab.stats import bootstrap, calibration_error, pearson, spearman

POINTS = {"IMO": 7, "PB": 7, "CMO": 21, "Putnam": 10}  # of a problem; PB: IMO-ProofBench

Row = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """A proof that was judged twice. score: the verifier's, from 0 to 1. points: of `most`, by people."""

    file: str
    problem: str
    score: float
    points: float
    most: int

    @property
    def share(self) -> float:
        """Of the points."""
        return self.points / self.most


def read_judged(paths: Sequence[Path], problems: Problems) -> list[Judged]:
    """The proofs in some files; lines that cannot be used are noted as problems, and left out.

    Raises:
        Mistake: there is no such file, or no line can be used.
    """
    found = [j for path in paths for n, row in read_rows(path, problems) if (j := _judged(path, n, row, problems))]
    if not found:
        raise Mistake("\n".join(["there is no proof with both a score and points", *problems.messages()]))
    return found


def _judged(path: Path, line: int, row: Row, problems: Problems) -> Judged | None:
    said = row.get("model_prediction")
    name, said = str(row.get("problem_idx", "")), said if isinstance(said, dict) else {}
    score, points = said.get("average_automatic_rating"), said.get("human_rating")
    contest = re.match(r"[A-Za-z]*", name)
    most = POINTS.get(contest[0]) if contest else None
    if most is None:
        problems.add(path, line, f"problem_idx {name!r} begins with no contest; known are {', '.join(POINTS)}")
    elif not _within(score, 1) or not _within(points, most):
        problems.add(path, line, f"expected average_automatic_rating from 0 to 1, human_rating from 0 to {most}")
    else:
        return Judged(path.stem, name, float(score), float(points), most)
    return None


def _within(value: Any, most: int) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most


def contests(judged: Sequence[Judged]) -> list[Row]:
    """A row for each file: the points in all, as in the paper's Table 1, beside the verifier's mean score."""
    rows = []
    for file in dict.fromkeys(j.file for j in judged):
        mine = [j for j in judged if j.file == file]
        points, most = sum(j.points for j in mine), sum(j.most for j in mine)
        told = {"file": file, "proofs": len(mine), "points": points, "of": most, "share": points / most}
        rows.append(told | {"verifier": float(np.mean([j.score for j in mine]))})
    return rows


def bins(judged: Sequence[Judged], count: int = 10) -> list[Row]:
    """A row for each of `count` ranges of the score in which proofs are, evenly wide, 1 counting to the last.

    `human` is their mean share of the points, with its interval by resampling proofs.
    """
    which = [min(int(j.score * count), count - 1) for j in judged]
    rows = []
    for place in sorted(set(which)):
        mine = [j for j, w in zip(judged, which, strict=True) if w == place]
        shares = np.array([j.share for j in mine])
        told = {"score": (place / count, (place + 1) / count), "proofs": len(mine)}
        told |= {"verifier": float(np.mean([j.score for j in mine])), "human": float(shares.mean())}
        rows.append(told | {"interval": bootstrap(shares)})
    return rows


def agreement(judged: Sequence[Judged], count: int = 10) -> Row:
    """How scores and shares go together over all proofs; None for a correlation where one of them does not vary."""
    score, share = np.array([j.score for j in judged]), np.array([j.share for j in judged])
    told = {"proofs": len(judged), "verifier": float(score.mean()), "human": float(share.mean())}
    each = {"pearson": pearson(score, share), "spearman": spearman(score, share)}
    told |= {"calibration error": calibration_error(score, share, count)}
    return told | {k: None if np.isnan(v) else v for k, v in each.items()}


def draw(rows: Sequence[Row], path: Path) -> None:
    """A figure of what people gave, with its interval, against the verifier's score; the diagonal is calibrated.

    rows: of `bins`. path: .svg, .png or .pdf.

    Raises:
        Mistake: matplotlib is not installed, or does not write such files.
    """
    figure, (axes,) = canvas((4.5, 4))
    axes.plot([0, 1], [0, 1], ":", color="grey")
    said, human = (np.array([r[k] for r in rows]) for k in ("verifier", "human"))
    low, high = np.array([r["interval"] for r in rows]).T
    axes.errorbar(said, human, np.clip([human - low, high - human], 0.0, 1.0), fmt="o", capsize=3)
    for row in rows:
        axes.annotate(str(row["proofs"]), (row["verifier"], row["human"]), (4, 4), textcoords="offset points")
    axes.set_xlabel("verifier's score")
    axes.set_ylabel("share of the points that people gave")
    save(figure, path)
