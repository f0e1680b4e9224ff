"""A comparison of runs as lines for a terminal."""

from rllab.cli.tables import lines
from rllab.core.messages import one_line
from rllab.evals.run_comparison import RunComparison
from rllab.evals.run_tables import notes, tables


def as_lines(compared: RunComparison, width: float) -> list[str]:
    """The lines: groups, what differs, values, cost, verdicts, and what limits them. All names are made visible."""
    every = tables(compared)
    parts = [lines(every[name], width) for name in ("groups", "settings", "versions") if name in every]
    if not compared.settings and not compared.versions:
        parts.append(["the settings, versions and sources are the same"])
    parts += [lines(every[name], width) for name in ("values", "forks", "cost") if name in every]
    parts.append([*map(one_line, compared.verdicts), *notes(compared)])
    parts.append([f"warning: {one_line(line)}" for line in compared.warnings])
    return [line for part in parts if part for line in [*part, ""]][:-1]
