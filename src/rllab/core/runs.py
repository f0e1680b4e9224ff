"""Runs by their names, of which `last` is the newest one."""

import re
from pathlib import Path

from rllab.core.errors import Mistake
from rllab.core.names import did_you_mean
from rllab.core.run import RunFolder


def check_name(name: str) -> str:
    """Returns the name of a new run if its folder lies in the folder of the runs, and commands can name it.

    Raises:
        Mistake: the name is a path, or means something else in a command.
    """
    if Path(name).name != name or name in (".", "..") or re.search(r"[\\/:\x00-\x1f]", name):
        raise Mistake(f"--name {name}: a run's name is no path; --runs FOLDER chooses the folder of the runs")
    if name == "last" or name[0] in ".-" or "@" in name or "=" in name or len(name) > 100:
        raise Mistake(
            f"--name {name}: a run's name has at most 100 characters without @ and =, does not begin with . or -, and "
            "is not 'last', which is the newest run"
        )
    return name


def find_run(name: str, runs: Path) -> RunFolder:
    """The run with a name, or in a folder. `last` is the run whose status.json was written last.

    Raises:
        Mistake: there is no such run.
    """
    known = list_runs(runs)
    if name == "last" and known:
        return max(known, key=_written)
    for path in (runs / name, Path(name)):
        if (path / "recipe.yaml").is_file():
            return RunFolder(path)
    if "@" in name:
        raise Mistake(f"no run {name!r} in {runs}: expected RUN or RUN@STEP, as in cartpole-1@120")
    near = did_you_mean(name, [r.path.name for r in known])
    raise Mistake(f"no run {name!r} in {runs}{near or '; rllab runs lists the runs'}")


def _written(run: RunFolder) -> float:
    """When a run's status.json was written last; where it is missing, its recipe.yaml."""
    files = (run.path / name for name in ("status.json", "recipe.yaml"))
    return next((file.stat().st_mtime for file in files if file.is_file()), 0.0)


def list_runs(runs: Path) -> list[RunFolder]:
    """The runs in a folder, sorted by name."""
    return [RunFolder(p.parent) for p in sorted(runs.glob("*/recipe.yaml"))]
