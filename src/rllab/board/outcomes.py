"""What a run has reached, against what its recipe expects, in words."""

from collections.abc import Mapping
from typing import Any

from rllab.board.summaries import settings, summary
from rllab.core.errors import Mistake
from rllab.core.run import RunFolder


def outcome(run: RunFolder) -> list[str]:
    """A sentence for each metric that a run's recipe expects, or for its headline; none of a damaged run."""
    try:
        status, expected = run.status(), settings(run).get("expect") or {}
        judged, headline = status.get("expect") or (), status.get("headline")
        if judged:
            return [_judged(each, headline) for each in judged]
        if headline:
            return [f"{headline['name']} is {_value(headline)}. Its recipe expects nothing."]
        row = summary(run)
        where = f"{row['state']} at round {row['step']}" + (f" with {row['newest']}" if row["newest"] else "")
        return [
            f"Its recipe expects {metric} to be {_wanted(wanted)}; the run is {where}."
            for metric, wanted in expected.items()
        ]
    except (Mistake, AttributeError, LookupError, TypeError, ValueError):  # which the table of runs names
        return []


def _judged(each: Mapping[str, Any], headline: Mapping[str, Any] | None) -> str:
    metric, value, wanted = each["metric"], each["value"], _wanted(each["wanted"])
    if value is None:
        return f"{metric} was not measured. Its recipe expects {wanted}: missed."
    text = _value(headline) if headline and headline["name"] == metric else f"{value:.5g}"
    return f"{metric} is {text}. Its recipe expects {wanted}: {'reached' if each['met'] else 'missed'}."


def _value(headline: Mapping[str, Any]) -> str:
    ends = list(headline.get("interval") or ())
    interval = f" (95 % interval {ends[0]:.4g} to {ends[1]:.4g} within the run)" if len(ends) == 2 else ""
    return f"{headline['value']:.5g}{interval}"


def _wanted(wanted: Any) -> str:
    """What a recipe expects, in words.

    >>> _wanted(475.0), _wanted("<= 0.3")
    ('at least 475', 'at most 0.3')
    """
    text = f"{wanted:g}" if isinstance(wanted, int | float) else str(wanted)
    most = text.lstrip().startswith("<=")
    return f"at {'most' if most else 'least'} {text.lstrip().removeprefix('<=').removeprefix('>=').strip()}"
