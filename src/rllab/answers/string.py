"""Answers that are compared as text."""

import re

from rllab.answers.numerals import tidy
from rllab.answers.parts import NotCommitted
from rllab.answers.yesno import POLAR

_QUOTED = re.compile(r"^[\"'`“]+(.+?)[.,]?[\"'`”]+(?=$|[\s.,;:!])")
_EITHER = re.compile(r"\W*\w+\W+(?:or|and/or)\W+\w+\W*")
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")


def marked(segment: str) -> str | None:
    """Returns the first line behind a mark: its quoted word, or the line up to a reason or a second sentence."""
    line = next((x.strip() for x in segment.split("\n") if x.strip()), "")
    line = _TEXT.sub(r"\1", line).strip(" *_$")
    if quoted := _QUOTED.match(line):
        return quoted[1]
    line = re.split(r"(?<=\w)[.!?]\s|\s+\(|,? (?:because|since|as|which|where)\b", line)[0]
    if _EITHER.fullmatch(line[:60]):
        raise NotCommitted("two answers")
    return line.strip(" *_`\"'.") or None


def placed(part: str) -> str | None:
    """Returns the last line of an unmarked text; None if there is none."""
    lines = [x.strip() for x in part.split("\n") if x.strip(" *_`\"'.#-")]
    return lines[-1].strip(" *_`\"'.") if lines else None


def bare(text: str) -> str:
    """Removes case, quotes, markdown, the final full stop and repeated spaces."""
    text = _TEXT.sub(r"\1", tidy(text))
    return " ".join(text.strip(" *_`\"'.$\n\t").split()).casefold()


def same_text(answer: str, target: str) -> bool:
    """Returns whether two texts are the same; 'true' equals 'yes', and 'false' equals 'no'."""
    answer, target = bare(answer), bare(target)
    if answer in POLAR and target in POLAR:
        return POLAR[answer] == POLAR[target]
    return answer == target
