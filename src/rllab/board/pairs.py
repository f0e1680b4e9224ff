"""Pairs of answers that people label: of one run, of two runs, or of a file."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

from rllab.core.errors import Mistake
from rllab.core.files import read_jsonl
from rllab.core.labels import pair_id
from rllab.core.messages import last_text
from rllab.core.run import RunFolder

Row = dict[str, Any]


@dataclass
class Pairs:
    """Pairs as labels hold them: `pair`, `prompt`, `a`, `b`, and maybe `gold` and `from`. notes: what was left out."""

    rows: list[Row]
    notes: list[str] = field(default_factory=list)


def of_runs(runs: Sequence[RunFolder], steps: Sequence[int | None], count: int, seed: int) -> Pairs:
    """At most `count` pairs of completions of the same prompt, drawn by the seed: within one run, or of two runs.

    Of one run these are the completions of a group; of two runs those of the same row of the task. steps: of each run
    the round whose samples count; None: the last one that has some.

    Raises:
        Mistake: there is none.
    """
    each = zip(runs, steps, strict=True)
    samples = [list(run.samples_of(step, lambda s: "completion" in s))[::-1] for run, step in each]
    for run, step, own in zip(runs, steps, samples, strict=True):
        if not own:
            at = f" of round {step}" if step is not None else ""
            raise Mistake(f"{run.path} has no samples{at} with completions; language models write them (eval_every)")
    names = [run.path.name for run in runs]
    every = list(_within(samples[0], names[0]) if len(runs) == 1 else _across(samples, names))
    if not every:
        hint = "compare two runs: rllab label RUN_A RUN_B" if len(runs) == 1 else "evaluate both on the same task"
        raise Mistake(f"{' and '.join(names)} have no two completions of one prompt; {hint}")
    return _drawn(every, count, seed)


def _within(samples: Iterable[Row], name: str) -> Iterator[Row]:
    groups: dict[Any, list[Row]] = {}
    for sample in samples:
        groups.setdefault((sample["step"], sample.get("row"), sample.get("prompt")), []).append(sample)
    for own in groups.values():
        yield from (_pair(x, y, (name, name)) for x, y in combinations(own, 2))


def _across(samples: Sequence[Sequence[Row]], names: Sequence[str]) -> Iterator[Row]:
    first: dict[Any, list[Row]] = {}
    for sample in samples[0]:
        first.setdefault(sample.get("prompt"), []).append(sample)
    for sample in samples[1]:
        same = first.get(sample.get("prompt"))
        if same:
            yield _pair(same.pop(0), sample, (names[0], names[1]))


def _pair(x: Row, y: Row, names: tuple[str, str]) -> Row:
    texts, golds = [last_text(s["completion"]) for s in (x, y)], [_gold(s) for s in (x, y)]
    return in_order({"prompt": x.get("prompt") or ""}, texts, golds, list(names))


def in_order(content: Row, texts: Sequence[str], golds: Sequence[float | None], names: Sequence[str]) -> Row:
    """A pair whose `a` comes first in the alphabet, so that the same two answers are the same pair wherever they are.

    names: of the runs that the answers are from; may be empty.
    """
    order = sorted((0, 1), key=lambda i: texts[i])
    row: Row = _encodable(content | {"a": texts[order[0]], "b": texts[order[1]]})
    row["pair"] = pair_id(row)
    if all(g is not None for g in golds):
        row["gold"] = [golds[i] for i in order]
    return row | ({"from": [names[i] for i in order]} if names else {})


def _encodable(row: Row) -> Row:
    """A row without halves of characters in UTF-16, which no file can hold and some models write."""
    encoded: Row = json.loads(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
    return encoded


def _gold(sample: Row) -> float | None:
    """The task's own score of a completion, or whether it is correct; None where it has neither."""
    score = sample.get("gold", sample.get("correct"))
    return float(score) if isinstance(score, (bool, int, float)) else None


def _drawn(every: Sequence[Row], count: int, seed: int) -> Pairs:
    """Some of the pairs, each once, without those of equal answers."""
    unlike = {row["pair"]: row for row in every if row["a"] != row["b"]}
    equal, notes = sum(row["a"] == row["b"] for row in every), list[str]()
    if not unlike:
        raise Mistake(f"in all {equal} pairs the two answers are equal: there is nothing to prefer")
    if equal:
        notes.append(f"{equal} pairs of equal answers are left out")
    rows = Random(seed).sample(list(unlike.values()), min(count, len(unlike)))
    if len(rows) < len(unlike):
        notes.append(f"{len(rows)} of {len(unlike)} pairs are drawn; --pairs gives more")
    return Pairs(rows, notes)


def of_file(path: Path) -> Pairs:
    """The pairs of a JSONL file with `prompt`, `a`, `b` in each line, and maybe `gold`, a list of two scores.

    Raises:
        Mistake: the file cannot be read, or has no pair. Lines that are none are named in `notes`.
    """
    faults: list[str] = []
    rows: dict[str, Row] = {}
    equal = 0
    try:
        for line, row in read_jsonl(path, lambda n, text: faults.append(f"{path}:{n}: {text}")):
            if not _is_pair(row):
                faults.append(f"{path}:{line}: a pair has a prompt (a text or messages), and texts a and b")
            elif row["a"] == row["b"]:
                equal += 1
            else:
                scores = row.get("gold")
                golds = scores if isinstance(scores, list) and len(scores) == 2 else [None, None]
                pair = in_order({"prompt": row["prompt"]}, [row["a"], row["b"]], golds, [])
                rows[pair["pair"]] = pair
    except OSError as error:
        raise Mistake(f"{path} cannot be read: {error.strerror or error}") from None
    notes = faults[:5] + ([f"and {len(faults) - 5} more lines that are no pairs"] if len(faults) > 5 else [])
    if equal:
        notes.append(f"{equal} pairs of equal answers are left out")
    if not rows:
        raise Mistake("\n".join([f"{path} has no pairs", *notes]))
    return Pairs(list(rows.values()), notes)


def _is_pair(row: Row) -> bool:
    prompt = row.get("prompt")
    is_talk = (
        isinstance(prompt, list)
        and prompt
        and all(
            isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in prompt
        )
    )
    return (isinstance(prompt, str) or bool(is_talk)) and all(isinstance(row.get(k), str) for k in ("a", "b"))
