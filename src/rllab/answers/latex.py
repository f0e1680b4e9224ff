"""Extracts a LaTeX formula as the answer, and compares it with the target."""

import re
from fractions import Fraction

from rllab.answers import mathverify
from rllab.answers.number import DANGLING, OF_IT, REFUSED
from rllab.answers.number import placed as number_placed
from rllab.answers.numerals import Numeral, number, plain
from rllab.answers.parts import NotCommitted
from rllab.answers.symbols import as_latex, comparable

_WINDOW = 8000  # characters at the end of a text that are searched for an unmarked formula
_LONGEST = 1000  # characters; a longer answer is compared as text only
_MEMBERS = 4  # how many members of a chain of equations are compared, from the last
_EQUALS = re.compile(r"(?<![<>!\\])=")

_FORMULA = re.compile(
    r"\$\$(.{1,1000}?)\$\$|(?<!\\)\$(.{1,1000}?)(?<!\\)\$|\\\((.{1,1000}?)\\\)|\\\[(.{1,1000}?)\\\]", re.S
)
_SENTENCE = re.compile(r"[.!?](?=\s|$)|\n\s*\n")
_VERB = re.compile(r"\b(?:is|are|equals?|be|to|by)\b\s*:?")
_CLOSING = re.compile(r"\s{0,9}I hope (?:it|this) is (?:correct|right)\W*$")

# Parts that are removed before two formulas are compared.
_SPACING = re.compile(
    r"(?<!\\)\\(?:left|right|displaystyle|,|;|!|:| |quad|qquad)(?![a-zA-Z])|(?<=[^a-zA-Z\\])\s+|\s+(?=[^a-zA-Z])"
)
_UNITS = re.compile(
    r"(?<=[\d})])\s*\\(?:text|mathrm|mbox)\s*\{(?!\s*(?:or|and|if|when|for|where|mod|to|not|is)\b)[^{}\d]*\}"
    r"(?:\s*\^\s*\{?\d\}?)?$|\s*\^\s*\{?\\circ\}?$|\s*\\degrees?$"
)
_MARKS = re.compile(r"(?<=\d)\\?%$|\\\$|(?<=\d)\{,\}(?=\d)")
_REPEATING = re.compile(r"(\d{1,20})\.(\d{0,20})\\overline\s*\{(\d{1,20})\}")
_JOINED = re.compile(r"\\(?:text|mathrm)\s*\{\s*(?:and|or)\s*\}|(?<=\W)(?:and|or)(?=\W)|;")


def marked(segment: str) -> str | None:
    """Returns the answer in the first sentence behind a mark: a formula behind its verb, or its words or number."""
    text = segment[:2000].strip()
    if OF_IT.match(text):
        return None
    if REFUSED.search(text.split("\n")[0]):
        raise NotCommitted("it refuses to answer")
    formula = _FORMULA.match(text)
    end = _first_end(text, formula.end() if formula else 0)
    return _from_sentence(text[:end])


def boxed(content: str) -> str | None:
    """Returns the content of a box; None where it is empty."""
    return content.strip() or None


def placed(part: str) -> str | None:
    """Returns the answer of an unmarked text.

    It is the last formula, or the last number behind that formula. Without a formula it is the whole text where that is
    short, else its last number.
    """
    part = _CLOSING.sub("", part[-_WINDOW:]).strip()
    if DANGLING.search(part[-20:]):
        raise NotCommitted("cut off")
    formulas = list(_FORMULA.finditer(part))
    if not formulas:
        return (part.rstrip(".") or None) if len(part) < 60 and "\n" not in part else number_placed(part)
    behind = part[formulas[-1].end() :]
    return number_placed(behind) if re.search(r"\d", behind) else _inside(formulas[-1])


def _first_end(text: str, start: int) -> int:
    """Returns the end of the sentence that contains `start`; a full stop inside a formula does not end a sentence."""
    inside = [f.span() for f in _FORMULA.finditer(text)]
    for m in _SENTENCE.finditer(text, start):
        if not any(a < m.start() < b for a, b in inside):
            return m.start()
    return len(text)


def _from_sentence(sentence: str) -> str | None:
    """Returns the answer that a sentence states: the first formula behind its last verb, with those joined to it."""
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
    """Returns whether the answer equals the target, and "" or the reason why the two could not be compared.

    Of a chain of equations (x = 6/4 = 3/2) every member but a first one with a variable has to equal a target that is
    no equation. math-verify is called only where the two are neither the same text nor both numbers.
    """
    plain_answer, plain_target = _plain(as_latex(answer)), _plain(as_latex(target))
    if _key(plain_answer) == _key(plain_target):
        return True, ""
    if _EQUALS.search(plain_answer) and not _EQUALS.search(plain_target) and len(answer) <= _LONGEST:
        first, *members = _EQUALS.split(plain_answer)
        if not re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", first)):
            members.insert(0, first)
        if "," not in plain_answer and "\\begin" not in plain_answer:
            verdicts = [_same(member, plain_target) for member in members[-_MEMBERS:]]
            return next((v for v in verdicts if not v[0]), (True, ""))
    return _same(plain_answer, plain_target)


def _same(answer: str, target: str) -> tuple[bool, str]:
    """Compares two formulas; the second value is "" or why they could not be compared."""
    if why := comparable(answer, target):
        return False, why
    a, b = _number(answer), _number(target)
    if a and b:
        return a.same(b), ""
    if max(len(answer), len(target)) > _LONGEST:
        return False, "too long to compare"
    verdict = mathverify.same(answer, target)
    return verdict is True, "" if isinstance(verdict, bool) else verdict


def _number(latex: str) -> Numeral | None:
    """Returns the number that a formula is; None where the formula contains a letter or is no number."""
    listed = re.search(r"\d,\d{1,2}(?!\d)", latex)  # '1,2' is two numbers
    return None if listed or re.search(r"[A-Za-z]", plain(latex)) else number(latex)


def _plain(latex: str) -> str:
    """Removes dollar signs, units and percent signs, and writes a comma for 'and' between two answers."""
    latex = latex.strip().strip("$").strip().rstrip(".")
    latex = re.sub(r"\\mathrm\s*\{\s*([ei])\s*\}", r" \1 ", latex)
    latex = _MARKS.sub("", _UNITS.sub("", latex))
    latex = _REPEATING.sub(_repeating, re.sub(r"\\[dt]frac", r"\\frac", latex))
    return _JOINED.sub(",", latex)


def _key(latex: str) -> str:
    """Returns a form that is equal for formulas that differ only in spacing and in the braces of fractions."""
    latex = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", _SPACING.sub("", latex))
    text = re.fullmatch(r"\\text\{([^{}]*)\}", latex)
    return text[1].casefold() if text else latex


def _repeating(m: re.Match[str]) -> str:
    """Writes 0.1\\overline{6} as a fraction."""
    whole, once, again = m.groups()
    nines = (10 ** len(again) - 1) * 10 ** len(once)
    value = Fraction(int(whole + once + again) - int(whole + once), nines)
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
