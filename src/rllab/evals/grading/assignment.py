"""An assignment as a YAML file: parts, each with a metric and its worth, a roster, the base model and the limits.

title: Sums
roster: roster.csv              # a column id
base: base                      # the model that adapters are on
seconds: 60                     # of a part of a submission
parts:
  sums: {metric: accuracy, task: private.jsonl, points: {linear: {0.2: 0, 0.9: 10}, by: low}}
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.names import did_you_mean
from rllab.core.nodes import compose, pairs, plain
from rllab.core.ranges import Natural, Positive
from rllab.core.typed import Reader, dataclass_settings
from rllab.evals.grading.part import Part


@dataclass(kw_only=True)
class Assignment:
    """An assignment. The keys in docs/grading.md are made of this text.

    title: a heading of the pages. roster: a CSV file with a column `id`; its students are graded, and its further
    columns shown. base: the model that adapters are on, a folder beside the assignment or as models are named
    elsewhere. seconds: the time limit of a part of a submission. memory: its limit, in GiB. size: the most GiB of a
    submission. seed: decides all that is drawn. parts: the parts by name. path: of its file. folder: where that lies.
    """

    title: str = ""
    roster: str = ""
    base: str = ""
    seconds: Positive = 300.0
    memory: Positive = 4.0
    size: Positive = 4.0
    seed: Natural = 0
    parts: dict[str, Part] = field(default_factory=dict)
    folder: Path = Path()
    path: str = ""

    @property
    def most(self) -> float:
        """The most points."""
        return round(sum(part.rule.most for part in self.parts.values()), 2)

    def prepare(self, own: bool = False) -> None:
        """Opens what all parts ask. own: a student grades an own submission, in other episodes and games.

        Raises:
            Mistake: some part cannot be asked; all such parts are named.
        """
        faults = []
        for part in self.parts.values():
            try:
                part.prepare(self.folder, self.seed + own, own)
            except Mistake as error:
                key = error.field if isinstance(error, FieldMistake) else ""
                line = part.lines.get(key, part.lines[""])
                faults.append(f"{self.path}:{line}: parts.{part.name}{key and f'.{key}'}: {error}")
        if faults:
            raise Mistake("\n".join(faults))


def metrics() -> dict[str, type[Part]]:
    """Returns the metrics by name."""
    from rllab.evals.grading.accuracy import Accuracy
    from rllab.evals.grading.games import Score
    from rllab.evals.grading.order import Order
    from rllab.evals.grading.returns import Return
    from rllab.evals.grading.win_rate import WinRate

    return {metric.METRIC: metric for metric in (Accuracy, WinRate, Return, Score, Order)}


def read_assignment(path: Path) -> Assignment:
    """Reads an assignment.

    Raises:
        Mistake: there is no such file, or it has mistakes; all are listed, each with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    node, reader = compose(text, str(path)), Reader(str(path), Path(os.path.abspath(path)).parent)
    if not isinstance(node, yaml.MappingNode):
        raise Mistake(f"{path}: an assignment is a mapping of keys such as title and parts")
    reader.repeats(node)
    values = {key: value for key, _, value in pairs(node)}
    own = yaml.MappingNode(node.tag, [(k, v) for k, v in node.value if k.value != "parts"], node.start_mark)
    known = {k: v for k, v in dataclass_settings(Assignment).items() if k not in ("parts", "folder", "path")}
    settings = reader.keywords(own, known, "")
    parts = _parts(reader, values["parts"]) if "parts" in values else {}
    if not parts and not reader.mistakes:
        reader.note(node, "parts", "name a part or more, as {sums: {task: sums.jsonl, points: 10}}")
    reader.raise_mistakes()
    return Assignment(parts=parts, folder=reader.folder, path=str(path), **settings)


def _parts(reader: Reader, node: yaml.Node) -> dict[str, Part]:
    if not isinstance(node, yaml.MappingNode):
        reader.note(node, "parts", "expected parts by name, as {sums: {task: sums.jsonl, points: 10}}")
        return {}
    return {name: part for name, _, value in pairs(node) if (part := _part(reader, name, value)) is not None}


def _part(reader: Reader, name: str, node: yaml.Node) -> Part | None:
    key = f"parts.{name}"
    if not isinstance(node, yaml.MappingNode):
        reader.note(node, key, "expected settings, as {task: sums.jsonl, points: 10}")
        return None
    settings = {k: v for k, _, v in pairs(node)}
    metric = plain(settings["metric"]) if "metric" in settings else "accuracy"
    known = metrics()
    if not isinstance(metric, str) or metric not in known:
        hint = did_you_mean(str(metric), known)
        reader.note(settings["metric"], f"{key}.metric", f"no metric {metric!r}{hint}; there are {', '.join(known)}")
        return None
    kept = [(k, v) for k, v in node.value if k.value != "metric"]
    part = reader.read(yaml.MappingNode(node.tag, kept, node.start_mark), known[metric], key)
    if not isinstance(part, Part):
        return None
    part.name, part.lines = name, {k: v.start_mark.line + 1 for k, v in [("", node), *settings.items()]}
    try:
        part.check()
    except FieldMistake as error:
        reader.note(settings[error.field], f"{key}.{error.field}", str(error))
    return part
