"""Losses that a kernel computes at once: for small networks, calling torch's operations takes longer than computing.

    @fused("rllab.algos.dqn_kernel")
    def loss(self, batch): ...

The method stays what is trained. The kernel, a module, stands in for it while the engine computes a gradient, if

- the method and what it calls are those that the kernel was written for: the digest of their code is its `DIGEST`.
  Whoever changes the loss, or overrides a part of it, trains with the change, by torch;
- the kernel's `fits` accepts the algorithm (perceptrons in fp32 on a CPU), and its function the batch;
- what the engine gets is the kernel's loss, and not something that was made of it.

A kernel has `PARTS`, the functions and classes that it stands for; `DIGEST`; `fits(algorithm) -> bool`; and a function
of the method's name, `loss(algorithm, batch)`, which returns a `Given`, or None for a batch that it cannot do.
"""

import functools
import hashlib
import inspect
import io
import sys
import textwrap
import tokenize
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

from torch import Tensor

from rllab.core.algorithm import Batch, Outputs
from rllab.core.perceptron import current_tape, kernel_module

LossMethod = Callable[[Any, Batch], tuple[Tensor, Outputs]]
_enabled = [True]


def fused(kernel: str) -> Callable[[LossMethod], LossMethod]:
    """A decorator for a loss, which names the module of its kernel."""

    def decorate(method: LossMethod) -> LossMethod:
        @functools.wraps(method)
        def loss(self: Any, batch: Batch) -> tuple[Tensor, Outputs]:
            tape = current_tape()
            if tape is not None and _enabled[-1] and (module := _kernel(self, kernel)) is not None:
                given = getattr(module, method.__name__)(self, batch)
                if given is not None:
                    tape.given = given
                    return given.loss, given.outputs
            return method(self, batch)

        return loss

    return decorate


def _kernel(algorithm: Any, name: str) -> ModuleType | None:
    """The kernel for an algorithm, or None; found out once for each algorithm."""
    fitting: dict[str, bool] = algorithm.__dict__.setdefault("_kernels", {})
    if name not in fitting and kernel_module() is None:
        fitting[name] = False
    if name not in fitting:
        module = import_module(name)
        fitting[name] = stands_for(module, algorithm) and module.fits(algorithm)
    return sys.modules[name] if fitting[name] else None


def kernels_of(algorithm: Any) -> list[str]:
    """The modules of the kernels that have stood in for losses of an algorithm."""
    return [name for name, fits in algorithm.__dict__.get("_kernels", {}).items() if fits]


def stands_for(kernel: ModuleType, algorithm: Any) -> bool:
    """Whether a kernel's parts have the code for which it was written, and the algorithm overrides none of them."""
    names = [p.__name__ for p in kernel.PARTS if inspect.isfunction(p) and hasattr(algorithm, p.__name__)]
    own = all(getattr(type(algorithm), n) in kernel.PARTS and n not in vars(algorithm) for n in names)
    return own and digest(*kernel.PARTS) == kernel.DIGEST


def digest(*parts: Any) -> str:
    """A digest of the code of functions and classes, without comments and docstrings. Without source it is empty."""
    try:
        words = [word for part in parts for word in _words(inspect.getsource(part))]
    except (OSError, TypeError):
        return ""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def _words(source: str) -> Iterator[str]:
    """The statements of code, each without its spaces, and the changes of indentation: alike in all Pythons."""
    line, between = "", True  # between: no token of this statement has come yet
    tokens = list(tokenize.generate_tokens(io.StringIO(textwrap.dedent(source)).readline))
    for token, following in zip(tokens, tokens[1:] + tokens[-1:], strict=True):
        if token.type in (tokenize.INDENT, tokenize.DEDENT):
            yield tokenize.tok_name[token.type]
        elif token.type == tokenize.NEWLINE:
            if line:
                yield line
            line, between = "", True
        elif token.type == tokenize.STRING and between and following.type == tokenize.NEWLINE:
            continue  # a docstring
        elif token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER):
            line, between = line + token.string, False


@contextmanager
def unfused() -> Iterator[None]:
    """A context in which torch computes every loss."""
    _enabled.append(False)
    try:
        yield
    finally:
        _enabled.pop()
