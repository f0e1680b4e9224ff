"""The settings that a sweep tries: ranges and choices, read from words and checked against the recipe's schema.

`optim.lr=1e-4..1e-2` is a range, `batch_size=32,64` are choices, and `gamma=0.9` is the same in all trials. Both ends
belong to a range. It is a range of whole numbers where the setting is one. Its scale is logarithmic if the lower end is
positive and the upper one at least ten times as large; `:log` and `:linear` behind it say which. `seed=0..4` are the
seeds of each trial.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from rllab.core.errors import Mistake
from rllab.core.nodes import compose, plain
from rllab.core.recipe import Recipe, expand_seeds, load_recipe, recipe_path

_NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?::(\w+))?")
_LOG = 10  # so many times the lower end is the upper end of a range whose scale is logarithmic
_FINITE = 10_000  # larger numbers of combinations are not counted


@dataclass(frozen=True)
class Span:
    """A range of numbers, both ends included. whole: only whole numbers. log: uniform in the logarithm."""

    words: tuple[str, str]
    log: bool
    whole: bool = False

    def values(self) -> list[str] | None:
        """All values as words; None if they are not finitely many, or more than 10,000."""
        if not self.whole or int(self.words[1]) - int(self.words[0]) >= _FINITE:
            return None
        return [str(n) for n in range(int(self.words[0]), int(self.words[1]) + 1)]

    def word(self, value: float) -> str:
        """A value as it is written, with as many digits as tell a thousand values of the range apart."""
        low, high = map(float, self.words)
        if self.whole:
            return str(round(value))
        wide = self.log and high >= _LOG * low
        rounded = float(f"{value:.2e}") if wide else round(value, max(0, math.ceil(3 - math.log10(high - low))))
        return self.words[0] if rounded <= low else self.words[1] if rounded >= high else repr(rounded)

    def number(self, word: str) -> float:
        """The value of a word."""
        return int(word) if self.whole else float(word)


@dataclass(frozen=True)
class Choices:
    """Some values, as they are written."""

    words: tuple[str, ...]

    def values(self) -> list[str]:
        """All values as words."""
        return list(self.words)


@dataclass(frozen=True)
class Space:
    """What a sweep tries with a recipe.

    source: the recipe's name or file. fixed: `key=value` of all trials. searched: by key. seeds: those of each trial.
    """

    source: str
    fixed: tuple[str, ...]
    searched: Mapping[str, Span | Choices]
    seeds: tuple[int, ...]
    smoke: bool = False

    def words(self, settings: Mapping[str, str]) -> list[str]:
        """The changes of a trial as words of a command, without its seed."""
        return [*self.fixed, *(f"{key}={word}" for key, word in settings.items())]

    def recipe(self, settings: Mapping[str, str], seed: int) -> Recipe:
        """The recipe of a run of a trial.

        Raises:
            Mistake: the settings do not fit each other.
        """
        return load_recipe(self.source, [*self.words(settings), f"seed={seed}"], smoke=self.smoke)

    def combinations(self) -> list[dict[str, str]] | None:
        """All settings that can be tried; None if they are more than 10,000."""
        values = [s.values() for s in self.searched.values()]
        if math.prod(len(v) if v else _FINITE for v in values) >= _FINITE:
            return None
        return [dict(zip(self.searched, words, strict=True)) for words in product(*(v for v in values if v))]

    def described(self) -> dict[str, str]:
        """The searched settings in a form that `read_space` reads again."""
        return {key: _described(searched) for key, searched in self.searched.items()}


def _described(searched: Span | Choices) -> str:
    if isinstance(searched, Choices):
        return ",".join(searched.words)
    return "..".join(searched.words) + (":log" if searched.log else ":linear")


def read_space(source: str, words: Sequence[str], *, smoke: bool = False) -> Space:
    """Reads the words of a sweep, and checks both ends of each range and each choice with the recipe.

    Raises:
        Mistake: lists the words that are wrong. None are to be searched, or a key is there twice.
    """
    text = recipe_path(source).read_text(encoding="utf-8")
    named = [(key.strip(), value) for key, _, value in (word.partition("=") for word in words)]
    keys = [key for key, _ in named]
    if repeated := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
        raise Mistake(f"command line: {repeated[0]} is set twice")
    searched = {key: parsed for key, value in named if key != "seed" and (parsed := _read(key, value))}
    fixed = [word for word, key in zip(words, keys, strict=True) if key not in {*searched, "seed"}]
    seeds = expand_seeds(words, text)
    space = Space(source, tuple(fixed), searched, (), smoke)
    if not searched:
        load_recipe(source, fixed, smoke=smoke)  # a word may only be written wrongly
        raise Mistake("a sweep needs a setting to search, as in optim.lr=1e-4..1e-2 or batch_size=32,64")
    checked = _checked(space)
    given = [word for word, key in zip(words, keys, strict=True) if key == "seed"]
    own = [load_recipe(source, given, smoke=smoke).settings.seed] if seeds is None else seeds
    return replace(space, searched=checked, seeds=tuple(own))


def _read(key: str, text: str) -> Span | Choices | None:
    """The range or the choices in a word; None if it is a plain value."""
    if match := _RANGE.fullmatch(text.strip()):
        low, high, scale = match.groups()
        place = f"command line: {key}={text}"
        if scale not in (None, "log", "linear"):
            raise Mistake(f"{place}: the scale of a range is log or linear, as in {low}..{high}:log")
        if not float(low) < float(high) < math.inf:
            raise Mistake(f"{place}: the second end of a range must be larger than the first")
        if scale == "log" and float(low) <= 0:
            raise Mistake(f"{place}: a logarithmic range must begin above 0")
        return Span((low, high), scale == "log" if scale else float(low) > 0 and float(high) >= _LOG * float(low))
    words = _split(text)
    if len(words) == 1:
        return None
    if "" in words or len(set(words)) < len(words):
        raise Mistake(f"command line: {key}={text}: a choice is {'empty' if '' in words else 'there twice'}")
    return Choices(tuple(words))


def _split(text: str) -> list[str]:
    """The parts of a text between commas, except for those in brackets, braces and quotes.

    >>> _split("[1,2], x")
    ['[1,2]', 'x']
    """
    parts, depth = [""], 0
    for piece in re.findall(r""""[^"]*"|'[^']*'|.""", text):
        depth += (piece in "[{") - (piece in "]}")
        if piece == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    return [part.strip() for part in parts]


def _checked(space: Space) -> dict[str, Span | Choices]:
    """The searched settings with the type that the recipe gives them.

    A value may be wrong only beside certain values of others. It is a mistake if it is wrong beside the recipe's own,
    beside the first, and beside the last values of the others.
    """
    mistakes: dict[str, None] = {}
    checked: dict[str, Span | Choices] = {}
    for key, searched in space.searched.items():
        types = set()
        for word in searched.words:
            recipes, wrong = _fitting(space, key, word)
            mistakes |= dict.fromkeys(() if recipes else wrong)
            types |= {type(_at(recipe.plain, key, word)) for recipe in recipes}
        checked[key] = replace(searched, whole=types == {int}) if isinstance(searched, Span) else searched
        if isinstance(searched, Span) and types - {int, float} and not mistakes:
            mistakes[f"command line: {key}={'..'.join(searched.words)}: {key} is not a number"] = None
    if mistakes:
        raise Mistake("\n".join(mistakes))
    return checked


def _fitting(space: Space, key: str, word: str) -> tuple[list[Recipe], list[str]]:
    """The first recipe in which a setting can have a value, if any; and the mistakes where it cannot."""
    others = [{k: s.words[i] for k, s in space.searched.items() if k != key} for i in (0, -1)]
    wrong: list[str] = []
    for settings in ({}, *others):
        try:
            return [space.recipe({**settings, key: word}, 0)], []
        except Mistake as mistake:
            wrong = wrong or str(mistake).split("\n")
    return [], wrong


def _at(settings: Any, key: str, word: str) -> Any:
    """The value of a setting such as `optim.lr` in a recipe's plain settings, where it stands there by its key."""
    for name in key.split("."):
        if not isinstance(settings, dict) or name not in settings:
            return plain(compose(word, key))
        settings = settings[name]
    return settings
