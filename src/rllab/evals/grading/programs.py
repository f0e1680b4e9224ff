"""What submitted programs answer: the output of `predict.py`, and the scores of a function in `reward.py`.

Programs run in the sandbox for scripts, never in this process. They are given the questions, and never the gold.
"""

import io
import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rllab.core.errors import Mistake
from rllab.core.messages import visible
from rllab.evals.grading.part import Place, Row
from rllab.evals.recordings import Recording, completed_by, id_of
from rllab.sandbox import reward_script
from rllab.sandbox.script import ScriptOutcome, clipped, last_line, run_script

LONGEST = 100_000  # characters of a completion
_LONGEST_LINE = 20 * LONGEST  # characters of a line: JSON may write one character as twelve
_MOST_LINES = 1_000_000
_ASKED = ("id", "question", "kind", "choices")


def completions_of(place: Place, questions: Sequence[Row]) -> list[Row]:
    """Runs a program on questions, as `python predict.py questions.jsonl`, and reads the JSON lines that it prints.

    A line has the columns `id` and `completion`, or others that `rllab.evals.recordings` reads. A completion of more
    than `LONGEST` characters counts as an empty one.

    Args:
        place: Where the program is, with its limits.
        questions: Rows with `id`, `question`, `kind` and perhaps `choices`; the program gets no other column.

    Returns:
        Rows {"id", "completion"}, one for each question that has a completion, in the order of the output; behind them
        rows {"remark"} for what was left out, in words for the student.

    Raises:
        Mistake: the program did not end in time, or printed too much, or nothing that can be used.
        MachineFault: the machine has no sandbox that could run it.
    """
    text = "".join(json.dumps({k: row[k] for k in _ASKED if k in row}) + "\n" for row in questions)
    name = _shown_name(place)
    outcome = _run(place, place.path.name, ["questions.jsonl"], {"questions.jsonl": text})
    if outcome.fault in ("late", "output"):
        raise Mistake(f"{name} {outcome.words}")
    if outcome.printed.count("\n") > _MOST_LINES:
        raise Mistake(f"{name} printed more than {_MOST_LINES:,} lines")
    output = _Output({str(row["id"]): row["id"] for row in questions})
    for line, printed in enumerate(io.StringIO(outcome.printed), 1):
        output.read(line, printed)
    if not output.rows:
        raise Mistake(_nothing_usable(name, outcome))
    remarks = [f"{name} {outcome.words}; what it had printed counts"] if outcome.fault else []
    remarks += [f"output of {name}, line {line}: {fault}" for line, fault in output.messages()]
    return [*output.rows, *({"remark": remark} for remark in remarks)]


@dataclass
class _Output:
    """What a program printed: the rows, and for each fault its first line with the number of such lines.

    ids: of the questions, by their text.
    """

    ids: Mapping[str, Any]
    rows: list[Row] = field(default_factory=list)
    faults: dict[str, list[int]] = field(default_factory=dict)
    _answered: set[str] = field(default_factory=set)

    def read(self, line: int, printed: str) -> None:
        """Adds a line (from 1). A blank one does not count."""
        if not printed.strip():
            return
        fault = self._fault(printed)
        if fault:
            self.faults.setdefault(fault, [line, 0])[1] += 1

    def _fault(self, printed: str) -> str:
        """Adds the row of a line; returns what is wrong with it."""
        if len(printed) > _LONGEST_LINE:
            return f"it is longer than {_LONGEST_LINE:,} characters and was left out"
        row = _object(printed)
        if row is None:
            return "it is no JSON object and was left out"
        try:
            ident = str(id_of(row))
            completion = completed_by(Recording("", "", "", ""), row).completion
        except ValueError:
            return "it has no id, or no completion that is text, and was left out"
        if ident not in self.ids:
            return "it has an id that no question has, and was left out"
        if ident in self._answered:
            return "it has an id that came before, and was left out"
        self._answered.add(ident)
        long = len(completion) > LONGEST
        self.rows.append({"id": self.ids[ident], "completion": "" if long else _encodable(completion)})
        return f"its completion is longer than {LONGEST:,} characters and counts as an empty one" if long else ""

    def messages(self) -> Iterator[tuple[int, str]]:
        """Yields (the first line, what is wrong with it and how many more there are) of each fault."""
        for fault, (line, count) in self.faults.items():
            yield line, fault + (f" (and {count - 1} more lines)" if count > 1 else "")


def _object(text: str) -> Row | None:
    """The JSON object in a line of foreign text; None if it has none."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _encodable(text: str) -> str:
    """A text with a question mark for each half of a surrogate pair, which no file can hold."""
    return text.encode(errors="replace").decode()


def _nothing_usable(name: str, outcome: ScriptOutcome) -> str:
    first = next((line for line in io.StringIO(outcome.printed[: 1 << 20]) if line.strip()), "")
    printed = f"the first line that it printed is: {clipped(first)}" if first else "it printed nothing"
    complained = last_line(outcome.complained)
    text = f"{name} {outcome.words}" if outcome.fault else f"{name} printed no JSON lines with id and completion"
    if outcome.fault != "exception" and complained:
        printed += f"; the last line of its error output is: {complained}"
    return f"{text}; {printed}"


def scores_of(
    place: Place,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    columns: Mapping[str, Sequence[Any]],
    function: str = "reward",
) -> list[float | None]:
    """Calls a submitted reward function on completions, and returns its scores.

    The function has TRL's signature `fn(prompts, completions, **columns)`, or that of verl's `compute_score`. Its
    `completion_ids` are None. It gets all columns: leave out those that it must not know.

    Args:
        place: Where its file is, with the limits.
        prompts: One for each completion; plain data, as the columns.
        completions: Texts.
        columns: Further columns of the rows, by name.
        function: Its name in the file.

    Raises:
        Mistake: there is no such function, it failed, or what it returned are no scores; in words for the student.
        MachineFault: the machine has no sandbox that could run it.
    """
    request: Row = {"file": place.path.name, "function": function, "prompts": list(prompts)}
    request |= {"completions": list(completions), "columns": {k: list(v) for k, v in columns.items()}}
    script = Path(reward_script.__file__).read_text(encoding="utf-8")
    inputs = {"rllab_reward_script.py": script, "rllab_request.json": json.dumps(request)}
    name = _shown_name(place)
    outcome = _run(place, "rllab_reward_script.py", ["rllab_request.json"], inputs)
    if outcome.fault:
        raise Mistake(f"{name} {outcome.words}")
    result = _object(outcome.printed) or {}
    if "fault" in result:
        raise Mistake(f"{name}: {function} {clipped(str(result['fault']))}")
    if not isinstance(result.get("scores"), list):
        raise Mistake(f"{name} ended before {function} returned; it must not end the process")
    return _checked(result["scores"], len(completions), f"{name}: {function}")


def _checked(scores: Sequence[Any], count: int, whose: str) -> list[float | None]:
    """Scores that another process has written.

    Raises:
        Mistake: they are none; the first bad one is named.
    """
    if len(scores) != count:
        raise Mistake(f"{whose} returned {len(scores)} scores for {count} completions")
    for i, score in enumerate(scores):
        if score is not None and (type(score) is not float or not math.isfinite(score)):
            value = str(score) if isinstance(score, float) else clipped(str(score))
            raise Mistake(f"{whose} returned {value} for completion {i} (counted from 0); a score is a finite number")
    return list(scores)


def _shown_name(place: Place) -> str:
    return visible(_encodable(place.path.name)).replace("\n", "\\n")


def _run(place: Place, file: str, arguments: Sequence[str], inputs: Mapping[str, str]) -> ScriptOutcome:
    limits: dict[str, Any] = {"seconds": place.seconds, "memory": int(place.memory * 1024), "scratch": place.scratch}
    with _folder(place) as folder:
        return run_script(folder, file, arguments, inputs, **limits)


@contextmanager
def _folder(place: Place) -> Iterator[Path]:
    """The folder that a program can read: its own in a submitted folder, else one with the program alone."""
    if place.folder is not None:
        yield place.path.parent
        return
    with tempfile.TemporaryDirectory(dir=place.scratch) as alone:
        shutil.copy(place.path, alone)
        yield Path(alone)
