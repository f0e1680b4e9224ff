"""Values as plain data, and calls between two processes of which neither trusts the other.

A message is a line of JSON. What is no plain data stays in its process; the other one gets a `Handle`, through which it
can only ask. So an object's own `__eq__` never decides in the process that compares.
"""

import builtins
import collections
import json
import operator
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from rllab.sandbox.plain import KINDS, MUTABLE, NUMPY, TYPES, plain_value, replace

_MOST = 256 << 20  # bytes of a message


class Peer:
    """One end of the connection of two processes.

    look: the object that the other end may ask for by its name. allow: raises where it may not apply an operation to an
    object of this end.
    """

    def __init__(
        self,
        reads: BinaryIO,
        writes: BinaryIO,
        look: Callable[[str], Any],
        allow: Callable[[str, tuple[Any, ...]], None] = lambda operation, operands: None,
    ) -> None:
        self._reads, self._writes, self._look, self._allow = reads, writes, look, allow
        self._own: dict[int, Any] = {}  # what the other end has handles of
        self._others: dict[int, Handle] = {}
        self._raised: dict[str, type[Exception]] = {}

    def ask(self, operation: str, *operands: Any, **named: Any) -> Any:
        """The result of an operation at the other end, such as `call` of a handle with arguments.

        Arguments that the operation has changed, such as a list that it sorted, are changed here as well.

        Raises:
            Exception: what the operation raised; of the same class, if that is Python's own.
        """
        self._send({"ask": operation, "with": self.encode(list(operands)), "named": self.encode(named)})
        while True:
            message = self._receive()
            if "ask" in message:
                self._answer(message)
                continue
            if "error" in message:
                raise self._error(message["error"], self.decode(message["args"]))
            for place, value in message["changed"]:
                replace(operands[place] if isinstance(place, int) else named[place], self.decode(value))
            return self.decode(message["value"])

    def serve(self) -> None:
        """Answers the other end until it closes the connection.

        Raises:
            EOFError: it has.
        """
        while True:
            self._answer(self._receive())

    def _send(self, message: dict[str, Any]) -> None:
        self._writes.write(json.dumps(message).encode() + b"\n")
        self._writes.flush()

    def _receive(self) -> dict[str, Any]:
        line = self._reads.readline(_MOST)
        if not line.endswith(b"\n"):
            raise EOFError("the other process has ended")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("the other process sent what is no message")
        return message

    def _answer(self, message: dict[str, Any]) -> None:
        try:
            operands, named = tuple(self.decode(message["with"])), self.decode(message["named"])
            each = [(k, v) for k, v in (*enumerate(operands), *named.items()) if type(v) in MUTABLE]
            before = [self.encode(v) for _, v in each]
            value = self.encode(self._done(message["ask"], operands, named))
            changed = [[k, after] for (k, v), old in zip(each, before, strict=True) if (after := self.encode(v)) != old]
            reply = {"value": value, "changed": changed}
        except BaseException as error:  # SystemExit too
            try:
                reply = {"error": _names(type(error)), "args": self.encode(list(error.args))}
            except BaseException:
                reply = {"error": _names(type(error)), "args": []}
        self._send(reply)

    def _done(self, operation: str, operands: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self._allow(operation, operands)
        if operation == "look":
            return self._look(*operands)
        if operation == "value":
            return plain_value(*operands)
        function = getattr(operator, operation, None) or getattr(builtins, operation)
        return function(*operands, **named)

    def _error(self, names: list[str], args: list[Any]) -> Exception:
        kind = self._exception(names)
        try:
            return kind(*args)
        except TypeError:
            return Exception.__new__(kind)

    def _exception(self, names: list[str]) -> type[Exception]:
        """The class of an exception by the names of its class and base classes: Python's own, or a stand-in."""
        known = [
            k for n in names if isinstance(k := getattr(builtins, str(n), None), type) and issubclass(k, Exception)
        ]
        base, name = [*known, Exception][0], str(names[0])
        if base.__name__ == name:
            return base
        if name not in self._raised:
            self._raised[name] = type(name, (base,), {})
        return self._raised[name]

    def encode(self, value: Any) -> Any:
        """A value as data for JSON; an object that is no plain data as the number of its handle."""
        kind = type(value)
        if value is None or kind in (bool, str, float):
            return value
        if kind is int:
            return value if -(1 << 63) < value < 1 << 63 else {"int": hex(value)}
        if kind is list:
            return [self.encode(v) for v in value]
        module, parts, _ = KINDS.get(kind.__name__, ("", None, None))
        if parts is not None and module == kind.__module__:
            return {kind.__name__: self.encode(parts(value))}
        if kind is Handle and value._Handle__peer is self:
            return {"yours": value._Handle__number}
        return self._special(value, kind)

    def _special(self, value: Any, kind: type) -> Any:
        if kind is type and value in TYPES.values():
            return {"type": value.__name__}
        if isinstance(value, type) and issubclass(value, Exception):
            return {"exception": _names(value)}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return {"named": [kind.__name__, list(value._fields), [self.encode(v) for v in value]]}
        numpy = sys.modules.get("numpy")
        if numpy and isinstance(value, numpy.generic) and not isinstance(value.item(), numpy.generic):
            return self.encode(value.item())
        if numpy and kind is numpy.ndarray and value.dtype.kind in NUMPY:
            return {"array": [value.dtype.str, list(value.shape), self.encode(value.ravel().tolist())]}
        self._own[id(value)] = value
        return {"mine": id(value)}

    def decode(self, data: Any) -> Any:
        """The value of data that the other end has sent.

        Raises:
            ValueError: it is no such data.
        """
        if isinstance(data, list):
            return [self.decode(d) for d in data]
        if not isinstance(data, dict):
            return data
        ((name, part),) = data.items()
        if name in KINDS:
            return KINDS[name][2](self.decode(part))
        match name:
            case "int":
                return int(part, 16)
            case "type":
                return TYPES[part]
            case "exception":
                return self._exception(part)
            case "named":
                return collections.namedtuple(str(part[0]), part[1])(*self.decode(part[2]))
            case "array":
                import numpy

                kind = numpy.dtype(part[0])
                if kind.kind in NUMPY:
                    return numpy.array(self.decode(part[2]), kind).reshape(part[1])
            case "yours":
                return self._own[part]
            case "mine":
                return self._others.setdefault(part, Handle(self, part))
        raise ValueError(f"the other process sent {name}")


def _names(kind: type) -> list[str]:
    return [k.__name__ for k in kind.__mro__]


class Handle:
    """An object of the other process: what is done with it is done there, but comparisons with values are done here.

    Two of the other's objects are compared there. Plain operands of comparisons and of arithmetic are never sent.
    """

    __slots__ = ("__number", "__peer")

    def __init__(self, peer: Peer, number: int) -> None:
        object.__setattr__(self, "_Handle__peer", peer)
        object.__setattr__(self, "_Handle__number", number)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__name__", "__doc__"):
            raise AttributeError(name)
        return self.__peer.ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__peer.ask("setattr", self, name, value)

    def __call__(self, *operands: Any, **named: Any) -> Any:
        return self.__peer.ask("call", self, *operands, **named)

    def __eq__(self, other: object) -> Any:
        if self is other:
            return True
        if type(other) is Handle:
            return self.__peer.ask("eq", self, other) is True
        try:
            return self.__peer.ask("value", self) == other
        except TypeError:
            return False

    def __hash__(self) -> int:
        return hash(self.__number)

    def __bool__(self) -> bool:
        return self.__peer.ask("truth", self) is True

    def __instancecheck__(self, other: object) -> bool:
        return type(other) is Handle and self.__peer.ask("isinstance", other, self) is True

    def __getitem__(self, key: Any) -> Any:
        return self.__peer.ask("getitem", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__peer.ask("setitem", self, key, value)

    def __delitem__(self, key: Any) -> None:
        self.__peer.ask("delitem", self, key)

    def __enter__(self) -> Any:
        return self.__peer.ask("getattr", self, "__enter__")()

    def __exit__(self, *error: object) -> bool:
        return self.__peer.ask("getattr", self, "__exit__")(None, None, None) is True


def _remote(operation: str) -> Any:
    return lambda self: self._Handle__peer.ask(operation, self)


def _binary(operation: str, reflected: bool) -> Any:
    def method(self: Handle, other: Any) -> Any:
        peer, function = self._Handle__peer, getattr(operator, operation)
        if type(other) is Handle:
            return peer.ask(operation, *((other, self) if reflected else (self, other)))
        value = peer.ask("value", self)
        return function(other, value) if reflected else function(value, other)

    return method


for _name in ("len", "iter", "next", "str", "repr", "int", "float", "complex", "abs", "index", "neg", "pos", "invert"):
    setattr(Handle, f"__{_name}__", _remote(_name))
for _name in (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "lshift",
    "rshift",
    "and_",
    "or_",
    "xor",
):
    setattr(Handle, f"__{_name.strip('_')}__", _binary(_name, False))
    setattr(Handle, f"__r{_name.strip('_')}__", _binary(_name, True))
for _name in ("lt", "le", "gt", "ge"):
    setattr(Handle, f"__{_name}__", _binary(_name, False))
