"""Runs the tests of a program that runs in another process. Standard library alone."""

import ast
import builtins
import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

from rllab.sandbox.wire import Handle, Peer

_ALIASES = {"np": "numpy", "numpy": "numpy"}
_BUILTINS = set(dir(builtins))
_NOTHING = object()
execute = exec  # a program or its tests, in one of the two processes


class Judge:
    """Tests in a name space of their own, in which the names that they lack are the program's, by handles.

    setup: code in front of the tests, which the program has as well. entry: the name of the function under test.
    """

    def __init__(self, peer: Peer, setup: str, entry: str) -> None:
        self._peer, self._entry = peer, entry
        self._names: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
        self._borrowed: dict[str, Any] = {}
        if setup.strip():
            self._execute(setup)

    def passes(self, test: str) -> bool:
        """Whether a test runs without an exception.

        Raises:
            BaseException: it does not.
        """
        self._execute(test)
        return True

    def _execute(self, source: str) -> None:
        tree = ast.parse(source)
        self._borrow(tree)
        execute(compile(tree, "<test>", "exec", dont_inherit=True), self._names)

    def _borrow(self, tree: ast.Module) -> None:
        """Binds the names of a test that are the program's, and the modules that it uses without an import."""
        nodes = list(ast.walk(tree))
        loaded = [n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
        set_here = {name for n in nodes for name in _bound(n)}
        wanted = [n for n in dict.fromkeys(loaded) if n == self._entry or (self._lacks(n) and n not in _BUILTINS)]
        if not set(wanted) - set_here and not self._entry:  # a program may define a `sum` of its own
            wanted += _innermost(tree)
        for name in wanted:
            used = [n.attr for n in nodes if isinstance(n, ast.Attribute) and _is_name(n.value, name)]
            module = _module(name, used) if len(used) == loaded.count(name) else None
            if module is not None:
                self._names[name] = module
                continue
            with contextlib.suppress(NameError):
                self._names[name] = self._borrowed[name] = self._peer.ask("look", name)

    def _lacks(self, name: str) -> bool:
        return name not in self._names or self._names[name] is self._borrowed.get(name, _NOTHING)


def _bound(node: ast.AST) -> list[str]:
    """The names that a node binds."""
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        return [node.id]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).partition(".")[0] for alias in node.names]
    if isinstance(node, ast.arg):
        return [node.arg]
    return [node.name] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else []


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _innermost(tree: ast.Module) -> list[str]:
    """The function of Python's own that a test calls first."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _BUILTINS:
            inner = [n for a in node.args for n in ast.walk(a) if isinstance(n, ast.Call)]
            if not inner:
                return [node.func.id]
    return []


def _module(name: str, used: list[str]) -> Any:
    """Python's own module of this name, if a test uses only what the module has."""
    full = _ALIASES.get(name, name if name in sys.stdlib_module_names else "")
    if not used or not full:
        return None
    with contextlib.suppress(ImportError):
        module = __import__(full)
        return module if all(hasattr(module, attribute) for attribute in used) else None
    return None


def allow(operation: str, operands: tuple[Any, ...]) -> None:
    """Lets a program call functions that a test gave it, iterate, and use public attributes of the tests' own classes.

    Raises:
        TypeError: it asks for something else.
    """
    first = operands[0] if operands else None
    if operation == "call" and not isinstance(first, type) and type(first) is not Handle and callable(first):
        return
    if operation in ("iter", "next") and hasattr(first, "__next__"):
        return
    of_test = type(first).__module__ == "__main__"
    if operation in ("getattr", "setattr") and of_test and len(operands) > 1 and not operands[1].startswith("_"):
        return
    raise TypeError(f"a program may not use {operation} on a {type(first).__name__} of its tests")


def judge(peer: Peer, request: dict[str, Any], verdict: Callable[[bool], object]) -> None:
    """Runs the tests of a request, and gives each verdict as soon as it is known."""
    try:
        judges = Judge(peer, request["setup"], request["entry"])
    except BaseException as error:
        complain("setup: ", error)
        return
    for test in request["tests"]:
        passed = False
        try:
            passed = judges.passes(test)
        except BaseException as error:  # SystemExit too
            complain(f"{test.strip()[:200]}: ", error)
        verdict(passed)


def complain(what: str, error: BaseException) -> None:
    """Writes an exception to the standard error."""
    with contextlib.suppress(BaseException):
        os.write(2, f"{what}{type(error).__name__}: {error}\n".encode(errors="replace")[:1000])
