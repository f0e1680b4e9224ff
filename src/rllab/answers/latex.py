"""LaTeX: the formula that was answered, and whether it equals the target."""

import re
from fractions import Fraction

from rllab.answers import mathverify
from rllab.answers.number import DANGLING, REFUSED
from rllab.answers.number import placed as number_placed
from rllab.answers.numerals import Numeral, number, plain
from rllab.answers.parts import NotCommitted

_WINDOW = 8000  # characters at the end of a text in which an unmarked formula is looked for
_LONGEST = 1000  # characters; a longer answer is compared as text alone

_FORMULA = re.compile(
    r"\$\$(.{1,1000}?)\$\$|(?<!\\)\$(.{1,1000}?)(?<!\\)\$|\\\((.{1,1000}?)\\\)|\\\[(.{1,1000}?)\\\]", re.S
)
_SENTENCE = re.compile(r"[.!?](?=\s|$)|\n\s*\n")
_VERB = re.compile(r"\b(?:is|are|equals?|be|to|by)\b\s*:?")
_CLOSING = re.compile(r"\s{0,9}I hope (?:it|this) is (?:correct|right)\W*$")

# What is left out before two formulas are compared.
_SPACING = re.compile(
    r"(?<!\\)\\(?:left|right|displaystyle|,|;|!|:| |quad|qquad)(?![a-zA-Z])|(?<=[^a-zA-Z\\])\s+|\s+(?=[^a-zA-Z])"
)
_UNITS = re.compile(r"(?<=[\d})])\s*\\(?:text|mathrm|mbox)\s*\{\s*[^{}]*\}(?:\s*\^\s*\{?\d\}?)?$|\s*\^\s*\{?\\circ\}?$")
_MARKS = re.compile(r"(?<=\d)\\?%$|\\\$|(?<=\d)\{,\}(?=\d)")
_REPEATING = re.compile(r"(\d{1,20})\.(\d{0,20})\\overline\s*\{(\d{1,20})\}")
_JOINED = re.compile(r"\\(?:text|mathrm)\s*\{\s*(?:and|or)\s*\}|(?<=\W)(?:and|or)(?=\W)|;")


def marked(segment: str) -> str | None:
    """The formula behind a mark: the first behind its verb, with others joined to it; else what its sentence says."""
    text = segment[:2000].strip()
    if REFUSED.search(text.split("\n")[0]):
        raise NotCommitted("it refuses to answer")
    formula = _FORMULA.match(text)
    end = _first_end(text, formula.end() if formula else 0)
    return _said(text[:end])


def placed(part: str) -> str | None:
    """The last formula, or the number of what is said behind it; without formulas, a short text or its last number."""
    part = _CLOSING.sub("", part[-_WINDOW:]).strip()
    if DANGLING.search(part[-20:]):
        raise NotCommitted("cut off")
    formulas = list(_FORMULA.finditer(part))
    if not formulas:
        return (part.rstrip(".") or None) if len(part) < 60 and "\n" not in part else number_placed(part)
    behind = part[formulas[-1].end() :]
    return number_placed(behind) if re.search(r"\d", behind) else _inside(formulas[-1])


def _first_end(text: str, start: int) -> int:
    """Where the sentence ends that holds `start`; a stop inside a formula ends none."""
    inside = [f.span() for f in _FORMULA.finditer(text)]
    for m in _SENTENCE.finditer(text, start):
        if not any(a < m.start() < b for a, b in inside):
            return m.start()
    return len(text)


def _said(sentence: str) -> str | None:
    """What a sentence gives as its answer."""
    formulas = list(_FORMULA.finditer(sentence))
    if not formulas:
        behind = _VERB.split(sentence)[-1].strip(" *_`\"'.")
        return behind if len(behind.split()) < 4 or "\\" in behind else number_placed(sentence)
    spans = [f.span() for f in formulas]
    verbs = [v.end() for v in _VERB.finditer(sentence) if not any(a < v.start() < b for a, b in spans)]
    behind_verb = [f for f in formulas if not verbs or f.start() >= verbs[-1]]
    if not behind_verb:
        return number_placed(sentence[verbs[-1] :])
    if not verbs and formulas[0].start() > 3:
        return _inside(formulas[-1])
    chosen = behind_verb[:1]
    for following in behind_verb[1:]:
        if not re.fullmatch(r"\W*(?:and|or)?\W*", sentence[chosen[-1].end() : following.start()]):
            break
        chosen.append(following)
    return ", ".join(map(_inside, chosen))


def _inside(formula: re.Match[str]) -> str:
    return next(g for g in formula.groups() if g).strip()


def equal(answer: str, target: str) -> tuple[bool, str]:
    """Whether the answer equals the target; and why not, where that is not their difference.

    math-verify is asked only where the two are neither the same text nor numbers.
    """
    mine, its = _plain(answer), _plain(target)
    if _key(mine) == _key(its):
        return True, ""
    if "=" not in its:
        mine = re.sub(r"^\s*[a-zA-Z]\s*=\s*(?=[^=]+$)", "", mine)
    a, b = _number(mine), _number(its)
    if a and b:
        return a.same(b), ""
    if max(len(answer), len(target)) > _LONGEST:
        return False, "too long to compare"
    said = mathverify.same(mine, its)
    return said is True, "" if isinstance(said, bool) else said


def _number(latex: str) -> Numeral | None:
    """The number that a formula is, where it holds no name and no relation."""
    return None if re.search(r"[A-Za-z]", plain(latex)) else number(latex)


def _plain(latex: str) -> str:
    """Without dollar signs, units, and 'and' between two answers."""
    latex = latex.strip().strip("$").strip().rstrip(".")
    latex = _MARKS.sub("", _UNITS.sub("", latex))
    latex = _REPEATING.sub(_repeating, re.sub(r"\\[dt]frac", r"\\frac", latex))
    return _JOINED.sub(",", latex)


def _key(latex: str) -> str:
    """What two texts have in common that differ in spacing and braces alone."""
    latex = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", _SPACING.sub("", latex))
    text = re.fullmatch(r"\\text\{([^{}]*)\}", latex)
    return text[1].casefold() if text else latex


def _repeating(m: re.Match[str]) -> str:
    """0.1\\overline{6} as a fraction."""
    whole, once, again = m.groups()
    nines = (10 ** len(again) - 1) * 10 ** len(once)
    value = Fraction(int(whole + once + again) - int(whole + once), nines)
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
