"""Exemplars: the worked examples of a few-shot prompt, which published prompts or one's own YAML files hold.

A YAML file is a list of {question, chain, answer}. A text file is one of the prompts of BIG-Bench Hard: below a line of
dashes and a description, examples of the form 'Q: ...', 'A: Let's think step by step.' and 'So the answer is X.'
"""

import re
from pathlib import Path
from typing import Any

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.nodes import compose, plain
from rllab_envs.tasks.messages import shown
from rllab_envs.tasks.published import here

Exemplar = dict[str, str]
_KEYS = ("question", "chain", "answer")
_FORM = "{question, chain, answer}"
_EXAMPLE = re.compile(
    r"^Q: (?P<question>.*?)\nA: Let's think step by step\.\s+(?P<chain>.*?)\s*So the answer is (?P<answer>[^\n]*)\.$",
    re.M | re.S,
)


def read_exemplars(name: str, folder: Path) -> list[Exemplar]:
    """Returns the exemplars of a file in `folder` or below RLLAB_DATA; [] for the name "".

    Raises:
        FieldMistake: there is no such file, or it has another form; the message names the place.
    """
    if not name:
        return []
    path = find(name, folder)
    if path is None:
        raise FieldMistake(
            "task", f"exemplars: no file {name} in {folder} or below RLLAB_DATA; set RLLAB_DATA to the folder with it"
        )
    source = path.read_text(encoding="utf-8")
    return _of_prompt(source, path) if path.suffix == ".txt" else checked(_plain(source, path), str(path))


def checked(examples: Any, place: str) -> list[Exemplar]:
    """Returns the exemplars of a list.

    Raises:
        FieldMistake: it is no list of {question, chain, answer} with texts.
    """
    if not isinstance(examples, list) or not examples:
        raise FieldMistake(
            "task", f"{place}: exemplars are a list of {{question, chain, answer}}, got {shown(examples)}"
        )
    for i, example in enumerate(examples, 1):
        if not isinstance(example, dict) or example.keys() != set(_KEYS):
            raise FieldMistake("task", f"{place}: exemplar {i} is no {_FORM}, but {shown(example)}")
        for key in _KEYS:
            if not isinstance(example[key], str) or not example[key].strip():
                raise FieldMistake(
                    "task", f"{place}: the {key} of exemplar {i} is {shown(example[key])}, not a text; put it in quotes"
                )
    return [{key: example[key].strip() for key in _KEYS} for example in examples]


def find(name: str, folder: Path) -> Path | None:
    """Returns the file or folder `name` in `folder`, or else below RLLAB_DATA; None if there is none."""
    own = folder / name
    return own if own.exists() else Path(here(name, "")) if here(name, "") else None


def _plain(source: str, path: Path) -> Any:
    try:
        return plain(compose(source, str(path)))
    except Mistake as error:
        raise FieldMistake("task", str(error)) from None


def _of_prompt(source: str, path: Path) -> list[Exemplar]:
    """The exemplars of a prompt of BIG-Bench Hard."""
    examples = [{key: m[key].strip() for key in _KEYS} for m in _EXAMPLE.finditer(source)]
    if not examples or len(examples) != len(re.findall(r"^Q: ", source, re.M)):
        raise FieldMistake("task", f"{path}: {len(examples)} of its examples have the form of BIG-Bench Hard's prompts")
    return examples
