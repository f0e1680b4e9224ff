"""What counts as plain data between two processes: classes of Python's own, and how each becomes JSON and back."""

import collections
from collections.abc import Callable
from typing import Any

MUTABLE = (list, dict, set, bytearray, collections.deque)
TYPES = {t.__name__: t for t in (int, float, complex, bool, str, bytes, list, tuple, dict, set, frozenset, type(None))}
NUMPY = "biufcU"  # kinds of numpy's arrays that are plain data


def _items(value: Any) -> list[list[Any]]:
    return [[k, v] for k, v in value.items()]


def _made(module: str, name: str, how: str = "") -> Callable[[Any], Any]:
    """Makes a value of a class that is imported when it is needed; how: the class's method, or * for arguments."""

    def make(parts: Any) -> Any:
        kind = getattr(__import__(module), name)
        return kind(*parts) if how == "*" else getattr(kind, how)(parts) if how else kind(parts)

    return make


# name: (module, value -> its parts, parts -> value)
KINDS: dict[str, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "tuple": ("builtins", list, tuple),
    "set": ("builtins", list, set),
    "frozenset": ("builtins", list, frozenset),
    "dict": ("builtins", _items, dict),
    "bytes": ("builtins", bytes.hex, bytes.fromhex),
    "bytearray": ("builtins", bytearray.hex, bytearray.fromhex),
    "complex": ("builtins", lambda v: [v.real, v.imag], lambda parts: complex(*parts)),
    "range": ("builtins", lambda v: [v.start, v.stop, v.step], lambda parts: range(*parts)),
    "deque": ("collections", list, collections.deque),
    "Counter": ("collections", _items, lambda parts: collections.Counter(dict(parts))),
    "OrderedDict": ("collections", _items, collections.OrderedDict),
    "defaultdict": ("collections", _items, dict),
    "Decimal": ("decimal", str, _made("decimal", "Decimal")),
    "Fraction": ("fractions", lambda v: [v.numerator, v.denominator], _made("fractions", "Fraction", "*")),
    "date": ("datetime", lambda v: v.isoformat(), _made("datetime", "date", "fromisoformat")),
    "time": ("datetime", lambda v: v.isoformat(), _made("datetime", "time", "fromisoformat")),
    "datetime": ("datetime", lambda v: v.isoformat(), _made("datetime", "datetime", "fromisoformat")),
    "timedelta": ("datetime", lambda v: [v.days, v.seconds, v.microseconds], _made("datetime", "timedelta", "*")),
}


def plain_value(instance: Any) -> Any:
    """The plain value of an object whose class is derived from a plain one's.

    Raises:
        TypeError: it is not.
    """
    kinds: tuple[Any, ...] = tuple(TYPES.values())
    for kind in kinds:
        if isinstance(instance, kind):  # a class derived from it may define its own __int__ and the like
            return getattr(kind, f"__{kind.__name__}__", kind)(instance)
    raise TypeError(f"an object of the class {type(instance).__name__} is compared with a value that is none")


def replace(old: Any, new: Any) -> None:
    """Changes a list, dictionary or set into another."""
    if type(old) is not type(new) or type(old) not in MUTABLE:
        raise ValueError("the other process changed what it was not given")
    old.clear()
    (old.update if isinstance(old, (dict, set)) else old.extend)(new)
