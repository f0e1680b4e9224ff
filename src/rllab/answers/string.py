"""Words: an answer compared as text."""

import re

from rllab.answers.numerals import tidy
from rllab.answers.parts import NotCommitted
from rllab.answers.yesno import POLAR

_QUOTED = re.compile(r"^[\"'`“]+(.+?)[.,]?[\"'`”]+(?=$|[\s.,;:!])")
_EITHER = re.compile(r"\W*\w+\W+(?:or|and/or)\W+\w+\W*")
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")


def marked(segment: str) -> str | None:
    """The first line behind a mark; of a sentence that goes on, its quoted word or its part before the comma."""
    line = next((x.strip() for x in segment.split("\n") if x.strip()), "")
    line = _TEXT.sub(r"\1", line).strip(" *_$")
    if quoted := _QUOTED.match(line):
        return quoted[1]
    line = re.split(r"(?<=\w)[.!?]\s|\s+\(|,? (?:because|since|as|which|where)\b", line)[0]
    if _EITHER.fullmatch(line[:60]):
        raise NotCommitted("two answers")
    return line.strip(" *_`\"'.") or None


def placed(part: str) -> str | None:
    """The last line."""
    lines = [x.strip() for x in part.split("\n") if x.strip(" *_`\"'.#-")]
    return lines[-1].strip(" *_`\"'.") if lines else None


def bare(text: str) -> str:
    """Without case, quotes, markdown, trailing stop and doubled spaces."""
    text = _TEXT.sub(r"\1", tidy(text))
    return " ".join(text.strip(" *_`\"'.$\n\t").split()).casefold()


def same_text(mine: str, target: str) -> bool:
    """Whether two texts are the same; true is yes, and false no."""
    mine, target = bare(mine), bare(target)
    if mine in POLAR and target in POLAR:
        return POLAR[mine] == POLAR[target]
    return mine == target
