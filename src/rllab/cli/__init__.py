"""The command `rllab`. Each verb imports what it needs when it runs, which keeps `rllab --help` fast."""

import gc
import os
import sys
import warnings
from typing import NoReturn

from rllab.cli import (  # noqa: F401 - adds their verbs
    earth,
    evaluation,
    export,
    fetch,
    games,
    grading,
    label,
    language,
    look,
    pages,
    pareto,
    racing,
    reasoning,
    scoring,
    serve,
    submit,
    sweep,
    train,
    values,
    variance,
    watch,
)
from rllab.cli.app import app
from rllab.cli.screen import Screen
from rllab.cluster.again import ask_again
from rllab.core.errors import RllabError, Stopped, machine_faults
from rllab.core.messages import visible

__all__ = ["app", "main"]


def main() -> NoReturn:
    """The entry point: runs a verb. An RllabError is printed in one line and sets the exit code."""
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)).isatty():
            setattr(sys, name, Screen(stream))
    gc.set_threshold(10_000, 20, 50)  # torch and transformers make a million objects that stay: a second is saved
    sys.path.insert(0, "")  # modules of the working directory can be named, as under `python -m`
    plain = warnings.formatwarning
    warnings.formatwarning = lambda message, category, *where: (
        f"warning: {message}\n" if category is UserWarning else plain(message, category, *where)
    )
    try:
        with machine_faults("nothing that was finished is lost"):
            _run()
    except RllabError as error:
        print(f"{'stopped' if isinstance(error, Stopped) else 'error'}: {visible(str(error))}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(error.exit_code)  # torch's threads can turn an ordinary exit into an abort
    finally:
        gc.freeze()  # else all of them are searched for garbage at the exit, for another second
    sys.exit(0)


def _run() -> None:
    """Runs a verb. One that was stopped asks its job script to start it again."""
    try:
        app(prog_name="rllab")
    except Stopped as stopped:
        raise ask_again(stopped) from None
