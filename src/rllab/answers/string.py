"""Answers that are compared as text."""

import re

from rllab.answers.numerals import tidy
from rllab.answers.yesno import POLAR

_QUOTED = re.compile(r"^[\"'`“]+(.+?)[.,]?[\"'`”]+(?=$|[\s.,;:!}\]])")
# In an unmarked line: the only bold text, the only quoted text at its end, and what stands behind a colon at its end.
_BOLD = re.compile(r"\*\*\s*([^*\n]+?)[.,:]?\s*\*\*")
_QUOTE = re.compile(r"[\"“]([^\"“”]+?)[.,]?[\"”]")
_BEHIND_COLON = re.compile(r"[^:\n]{1,80}:\s+([^:\n]+)")
_DENIES = re.compile(r"\b(?:not|never|neither|nor|or|either|cannot|maybe|perhaps|if)\b|n't\b", re.I)
_CJK_END = re.compile(r"[。！？」』]")
_COPULA = re.compile(r"(?<=[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3])(?:です|である|でした|입니다|이다)$")
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
    r"(?<=[^\s,])(?:\s+\((?=\w)|,? (?:because|since)\b|, (?:as|which|where|who|whose)\b|"
    r", (?:though|although|but|not)\b)"
)


def marked(segment: str) -> str | None:
    """Returns the first line behind a mark: its quoted word, or the line up to a reason or a second sentence."""
    line = next((x.strip() for x in segment.split("\n") if x.strip()), "")
    line = _TEXT.sub(r"\1", line).strip(" *_$")
    if quoted := _QUOTED.match(line):
        return quoted[1]
    line = _CJK_END.split(_REASON.split(_SENTENCE.split(line)[0])[0])[0]
    return _COPULA.sub("", line.strip(" *_`\"'.!")) or None


boxed = marked


def placed(part: str) -> str | None:
    """Returns the last line of an unmarked text, or what it sets apart; None if there is none."""
    lines = [x.strip() for x in part.split("\n") if x.strip(" *_`\"'.#-")]
    return (_set_apart(lines[-1]) or lines[-1]).strip(" *_`\"'.") if lines else None


def _set_apart(line: str) -> str | None:
    """Returns what the last sentence of a line sets apart: in bold, in quotes at its end, or behind a colon."""
    line = _SENTENCE.split(line)[-1]
    bold, quoted = _BOLD.findall(line), _QUOTE.findall(line)
    if _DENIES.search(_BOLD.sub("", _QUOTE.sub("", line))) or max(len(bold), len(quoted)) > 1:
        return None
    if bold and bold[0] != line.strip(" *."):
        return str(bold[0]).strip('"“”')
    if quoted and line.rstrip(" .*").endswith(('"', "”")) and len(quoted[0]) < len(line) - 4:
        return str(quoted[0])
    behind = _BEHIND_COLON.fullmatch(line)
    return behind[1] if behind else None


def bare(text: str) -> str:
    """Removes case, quotes, markdown, the final full stop and repeated spaces."""
    text = _TEXT.sub(r"\1", tidy(text))
    return " ".join(text.strip(" *_`\"'.!?。$\n\t").split()).casefold()


def same_text(answer: str, target: str) -> bool:
    """Returns whether two texts are the same; 'true' equals 'yes', and 'false' equals 'no'."""
    answer, target = bare(answer), bare(target)
    if answer in POLAR and target in POLAR:
        return POLAR[answer] == POLAR[target]
    return answer == target
