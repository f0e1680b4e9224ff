"""The tasks of the sample assignment, sums in a line of text, and the files of its parts.

    python stories.py            writes the files in public/ and private/

The base model learns `Base`: it adds in stories, and subtracts only where the question has a minus. Students teach it
`Stories`, answers with a sentence (`Sentences`), and to tell good answers from bad ones (`Answers`).
"""

import json
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
NAMES = (
    "Ada", "Ben", "Cleo", "Dov", "Elif", "Finn", "Gita", "Hal", "Ines", "Jun", "Kai", "Lena", "Milo", "Noor", "Otto",
    "Pia",
)  # fmt: skip
THINGS = ("apples", "books", "coins", "eggs", "keys", "pens", "shells", "stamps")
MORE, FEWER = ("finds", "gets", "buys"), ("loses", "sells", "eats")
SIZES = {"train": 4000, "validation": 200, "test": 400}


def words() -> list[str]:
    """Returns the words of all texts."""
    text = "What is How many does have now has more of them . ? + - = The answer is"
    return [*text.split(), *NAMES, *THINGS, *MORE, *FEWER, *map(str, range(41))]


class Stories:
    """Stories of sums, half of them with a subtraction; the answer shows its sum."""

    minus, bare = 0.5, 0.0  # shares of subtractions, and of questions without a story

    def size(self, split: str) -> int:
        """Returns the number of rows of a split."""
        return SIZES[split]

    def words(self) -> list[str]:
        """Returns the words of all rows."""
        return words()

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row, as a conversation."""
        chance = random.Random(f"{split} {index}")
        problem = story(chance, self.minus) if chance.random() >= self.bare else bare(chance)
        row = {"prompt": [{"role": "user", "content": problem["question"]}], "style": "direct", "kind": "number"}
        return row | {"target": problem["target"]} | self.learned(chance, problem)

    def learned(self, chance: random.Random, problem: Mapping[str, str]) -> dict[str, Any]:
        """Returns what a model learns of a problem."""
        return {"completion": message(f"{problem['sum']} = {problem['target']}")}

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns the answer that a model should write."""
        text: str = row["completion"][0]["content"]
        return text


class Base(Stories):
    """What the base model learns: stories with additions, and sums of both kinds without a story."""

    minus, bare = 0.0, 0.5


class Sentences(Stories):
    """The same stories; a sentence follows the sum."""

    def learned(self, chance: random.Random, problem: Mapping[str, str]) -> dict[str, Any]:
        """Returns the completion."""
        return {"completion": message(f"{problem['sum']} = {problem['target']}. {problem['sentence']}")}


class Answers(Stories):
    """Pairs of answers to a story: the better one has the right sum."""

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row, as plain texts."""
        chance = random.Random(f"{split} {index}")
        problem = story(chance, self.minus)
        return {"prompt": problem["question"]} | answers(chance, problem)

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns the better answer."""
        text: str = row["chosen"]
        return text


def message(text: str) -> list[dict[str, str]]:
    """Returns a reply of a model."""
    return [{"role": "assistant", "content": text}]


def story(chance: random.Random, minus: float) -> dict[str, str]:
    """Returns a problem: `question`, `sum`, `target`, and a `sentence` with the answer."""
    subtract = chance.random() < minus
    first, second = chance.randint(11, 30), chance.randint(2, 9)
    who, things, verb = chance.choice(NAMES), chance.choice(THINGS), chance.choice(FEWER if subtract else MORE)
    question = f"{who} has {first} {things}. {who} {verb} {second} of them. How many does {who} have now?"
    if not subtract:
        question = question.replace(f"{second} of them", f"{second} more")
    problem = _problem(question, first, second, subtract)
    return problem | {"sentence": f"{who} has {problem['target']} {things}."}


def bare(chance: random.Random) -> dict[str, str]:
    """Returns a problem without a story."""
    first, second, subtract = chance.randint(11, 30), chance.randint(2, 9), chance.random() < 0.5
    return _problem(f"What is {first} {'-' if subtract else '+'} {second} ?", first, second, subtract)


def _problem(question: str, first: int, second: int, subtract: bool) -> dict[str, str]:
    target = first - second if subtract else first + second
    return {"question": question, "sum": f"{first} {'-' if subtract else '+'} {second}", "target": str(target)}


def answers(chance: random.Random, problem: Mapping[str, str]) -> dict[str, str]:
    """Returns `chosen`, a right answer with its sum, and `rejected`: with the other sum, or without a sum."""
    right = f"{problem['sum']} = {problem['target']}"
    first, sign, second = problem["sum"].split()
    wrong = int(first) + int(second) if sign == "-" else int(first) - int(second)
    other = f"{first} {'+' if sign == '-' else '-'} {second} = {wrong}"
    return {"chosen": right, "rejected": chance.choice([other, other, f"The answer is {problem['target']} ."])}


def write() -> None:
    """Writes the files of the parts: a public and a private one of each, with other problems under the same ids."""
    for folder in ("public", "private"):
        chance = random.Random(folder)
        (FOLDER / folder).mkdir(exist_ok=True)
        problems = [story(chance, 0.5) for _ in range(60)]
        sums = [
            {"id": f"s{i}", "question": p["question"], "target": p["target"], "kind": "number"}
            for i, p in enumerate(problems)
        ]
        pairs = [
            {"id": f"p{i}", "prompt": p["question"]} | answers(chance, p)
            for i, p in enumerate(story(chance, 0.5) for _ in range(60))
        ]
        _write(FOLDER / folder / "sums.jsonl", sums)
        _write(FOLDER / folder / "pairs.jsonl", pairs)
    prompts = [{"id": f"r{i}", "question": story(chance, 0.5)["question"]} for i in range(40)]
    _write(FOLDER / "public" / "prompts.jsonl", prompts)
    _submit()


def _submit() -> None:
    """Writes the files of submissions that are made of the public ones."""
    rows = [json.loads(line) for line in (FOLDER / "public/sums.jsonl").read_text("utf-8").splitlines()]
    known = json.dumps({row["question"]: int(row["target"]) for row in rows}, indent=1)
    (FOLDER / "submissions/cho/known.json").write_text(known + "\n", encoding="utf-8")
    replies = []
    for line in (FOLDER / "public/prompts.jsonl").read_text("utf-8").splitlines()[:25]:  # then time was over
        row = json.loads(line)
        who, (first, second) = row["question"].split()[0], map(int, re.findall(r"\d+", row["question"]))
        more = any(word in row["question"] for word in MORE)
        shown, count = (f"{first} + {second}", first + second) if more else (f"{first} - {second}", first - second)
        replies.append({"id": row["id"], "completion": f"{shown} = {count}. So {who} has {count}."})
    _write(FOLDER / "submissions/dan/replies.jsonl", replies)


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    write()
