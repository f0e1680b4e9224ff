"""Answers that are compared as text."""

import re

from rllab.answers.numerals import tidy
from rllab.answers.yesno import POLAR

_QUOTED = re.compile(r"^[\"'`“]+(.+?)[.,]?[\"'`”]+(?=$|[\s.,;:!])")
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
# A full stop that does not end a sentence: behind an abbreviation, an initial, or before a small letter.
_SHORT = (
    "St|Dr|Mr|Ms|Mt|Ft|Jr|Sr|Lt|No|vs|Co|Ch|Eq",
    "Mrs|Rev|Gen|Col|Sgt|Hon|Ave|Vol|Fig|Inc|Ltd",
    "Prof|Capt|Bros|Dept",
)
_ABBREVIATION = "".join(rf"(?<!\b(?:{words})\.)" for words in _SHORT)
_SENTENCE = re.compile(rf"(?<=[^\s.][.!?]){_ABBREVIATION}(?<!\b[A-Za-z]\.)\s+(?![a-z])")
_REASON = re.compile(
    r"(?<=[^\s,])(?:\s+\((?=\w)|,? (?:because|since)\b|, (?:as|which|where)\b|, (?:though|although|but|not)\b)"
)


def marked(segment: str) -> str | None:
    """Returns the first line behind a mark: its quoted word, or the line up to a reason or a second sentence."""
    line = next((x.strip() for x in segment.split("\n") if x.strip()), "")
    line = _TEXT.sub(r"\1", line).strip(" *_$")
    if quoted := _QUOTED.match(line):
        return quoted[1]
    line = _REASON.split(_SENTENCE.split(line)[0])[0]
    return line.strip(" *_`\"'.!") or None


boxed = marked


def placed(part: str) -> str | None:
    """Returns the last line of an unmarked text; None if there is none."""
    lines = [x.strip() for x in part.split("\n") if x.strip(" *_`\"'.#-")]
    return lines[-1].strip(" *_`\"'.") if lines else None


def bare(text: str) -> str:
    """Removes case, quotes, markdown, the final full stop and repeated spaces."""
    text = _TEXT.sub(r"\1", tidy(text))
    return " ".join(text.strip(" *_`\"'.!$\n\t").split()).casefold()


def same_text(answer: str, target: str) -> bool:
    """Returns whether two texts are the same; 'true' equals 'yes', and 'false' equals 'no'."""
    answer, target = bare(answer), bare(target)
    if answer in POLAR and target in POLAR:
        return POLAR[answer] == POLAR[target]
    return answer == target
