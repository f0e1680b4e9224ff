"""Symbols of mathematics in Unicode as LaTeX, and formulas of which math-verify would compare only a part."""

import re

_COMMANDS = {
    "π": "pi", "θ": "theta", "φ": "phi", "ϕ": "phi", "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta",
    "ε": "epsilon",
    "λ": "lambda", "μ": "mu", "ν": "nu", "ρ": "rho", "σ": "sigma", "τ": "tau", "χ": "chi", "ψ": "psi", "ω": "omega",
    "η": "eta", "κ": "kappa", "ξ": "xi", "ζ": "zeta", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda",
    "Π": "Pi", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega", "≤": "leq", "≥": "geq", "≠": "neq", "±": "pm",
    "∓": "mp", "×": "times", "·": "cdot", "⋅": "cdot", "÷": "div", "∞": "infty", "∪": "cup", "∩": "cap", "∈": "in",
    "∉": "notin", "⊂": "subset", "⊆": "subseteq", "∅": "emptyset", "°": "^{\\circ}", "¬": "neg", "∧": "wedge",
    "∨": "vee", "→": "to", "⌊": "lfloor", "⌋": "rfloor", "⌈": "lceil", "⌉": "rceil", "∠": "angle", "∖": "setminus",
    "⟨": "langle", "⟩": "rangle", "∫": "int", "∑": "sum", "∏": "prod", "∂": "partial", "∇": "nabla", "ℝ": "mathbb{R}",
    "ℤ": "mathbb{Z}", "ℕ": "mathbb{N}", "ℚ": "mathbb{Q}", "ℂ": "mathbb{C}", "≈": "approx", "≡": "equiv", "…": "dots",
}  # fmt: skip
_ROOT = re.compile(r"([√∛∜])\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[A-Za-z]))")
_DEGREES = {"√": "", "∛": "[3]", "∜": "[4]"}
_RAISED = re.compile(r"\^([+-]?\d{2,}|[+-]\d+)(?!\d)")  # `tidy` writes ² as ^2 and ¹² as ^12

# What math-verify leaves out of a comparison, so that 5', 5_2 and '5 \ldots' would equal 5.
_LEFT_OUT = {
    "a prime": re.compile(r"['\"]|\\prime"),
    "an index behind a number": re.compile(r"(?<=\d)\s*_"),
    "an ellipsis": re.compile(r"\\[lcdv]?dots|\.\.\."),
    "a relation without a left side": re.compile(r"^\s*\\?(?:[<>≤≥]|leq?|geq?|lt|gt|neq?|approx|sim)(?![A-Za-z])"),
    "digits in another font": re.compile(r"\d\s*\\(?:text|math)[a-z]*\s*\{\s*\d"),
    "a question mark": re.compile(r"\?"),
    "words that limit it": re.compile(
        r"\\(?:text|mathrm|mbox)\s*\{\s*(?:,|(?:or|at|more|less|fewer|not|if|mod|about)\b)"
    ),
    "a modulus": re.compile(r"\\[bp]?mod(?![A-Za-z])"),
    "an approximation": re.compile(r"\\(?:approx|simeq|cong)(?![A-Za-z])|≈"),
}
_STRANGE = re.compile(r"[^\x00-\x7f£€¥₹₽₩¢\u2E80-\u9FFF\uAC00-\uD7AF\u0600-\u0E7F]")  # units may be in any script

_TEXT = re.compile(r"\\[A-Za-z]+(?:\s*\{[^{}\\]*[A-Za-z]{2,}[^{}\\]*\})?")  # commands, and words in their braces
_NAMES = re.compile(r"[A-BD-Zabd-z]")  # variables; C and c are constants of integration


def as_latex(text: str) -> str:
    """Writes the symbols of a formula as LaTeX commands: √5 as \\sqrt{5}, π as \\pi, ≥ as \\geq."""
    if text.isascii():
        return text
    text = _ROOT.sub(lambda m: f"\\sqrt{_DEGREES[m[1]]}{{{m[2] or m[3] or m[4] or ''}}}", text)
    text = _RAISED.sub(r"^{\1}", text)
    return "".join(_command(c) if c in _COMMANDS else c for c in text)


def _command(symbol: str) -> str:
    name = _COMMANDS[symbol]
    return name if name.startswith("^") else f"\\{name} "


def comparable(answer: str, target: str) -> str:
    """Returns why two formulas are different without a comparison; "" where math-verify can compare them."""
    for what, pattern in _LEFT_OUT.items():
        if bool(pattern.search(answer)) != bool(pattern.search(target)):
            return f"only one of them has {what}"
    names = [set(_NAMES.findall(_TEXT.sub("", formula))) for formula in (answer, target)]
    if names[0] != names[1] and {n.lower() for n in names[0]} == {n.lower() for n in names[1]}:
        return "their variables differ in case"
    strange = set(_STRANGE.findall(answer)) ^ set(_STRANGE.findall(target))
    return f"only one of them has {min(strange)!r}" if strange else ""
