"""Right and wrong replies to problems of the pocket world, which train what judges replies.

`PocketPreferences` has pairs of them for a reward model. `PocketVerification` has one of them behind its problem, and
its evaluation for a verifier, which works the problem out itself, and compares its result with the reply's answer:

    problem     Ana has 20 books. Ana zibs 5. Then the pile doubles. How many books does Ana have?
    reply       <think> 20 + 5 = 26 ; 26 * 2 = 52 </think> #### 52
    evaluation  <think> 20 + 5 = 25 ; 25 * 2 = 50 , 52 </think> #### 0

Wrong replies slip as sampled ones do: in the result, the number, the sign or the total of a step, or they leave it out,
and go on from there to a wrong answer. In some a word is out of place; some give an answer without steps. Row i of a
split is a function of i.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from rllab.core.ranges import Share
from rllab_envs.tasks.derivations import Line
from rllab_envs.tasks.draws import Salt, one, row_rng
from rllab_envs.tasks.pocket import LARGEST, Pocket

SIZES = {"train": 200_000, "validation": 500, "test": 1000}
KINDS = ("result", "result", "number", "sign", "total", "total", "skip")  # of slips
MISPLACED = 0.3  # the share of wrong replies in which a word is out of place
DIRECT = 0.05  # the share of wrong replies without steps
_EQUATION = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
_OPPOSITE = {"+": "-", "-": "+", "*": "/", "/": "*"}


def lines_of(reply: str) -> list[Line]:
    """Returns the steps of a reply, in equations or in words."""
    return [Line(int(a), sign, int(n), int(b)) for a, sign, n, b in _EQUATION.findall(reply)]


def answer_of(reply: str) -> str:
    """Returns the answer behind the last `####` of a reply."""
    return reply.rpartition("####")[2].strip()


def wrong(rng: np.random.Generator, reply: str, slips: float) -> str:
    """Returns a reply with a wrong answer, made from a right one. slips: the probability that a step is wrong."""
    right = lines_of(reply)
    if rng.random() < DIRECT:
        return f"#### {_near(rng, right[-1].after)}"
    while True:
        lines = _careless(rng, right, slips)
        if lines and lines[-1] and lines[-1].after != right[-1].after:
            made = _rewritten(reply, lines)
            return _garbled(rng, made) if rng.random() < MISPLACED else made


def _careless(rng: np.random.Generator, right: Sequence[Line], slips: float) -> list[Line | None]:
    """Returns the steps with slips, None for one that is left out; [] where a result is no number of this world."""
    lines, total = list[Line | None](), right[0].before
    for line in right:
        kind = one(rng, KINDS) if rng.random() < slips else ""
        if kind == "skip":
            lines.append(None)
            continue
        sign = _OPPOSITE[line.sign] if kind == "sign" else line.sign
        number = _near(rng, line.number) if kind == "number" and sign in "+-" else line.number
        made = _carried_out(_near(rng, total) if kind == "total" else total, sign, number)
        if made is None:
            return []
        made = made._replace(after=_near(rng, made.after)) if kind == "result" else made
        lines.append(made)
        total = made.after
    return lines


def _carried_out(total: int, sign: str, number: int) -> Line | None:
    if sign == "/" and total % 2:
        return None
    after = {"+": total + number, "-": total - number, "*": 2 * total, "/": total // 2}[sign]
    return Line(total, sign, number, after) if 0 <= after <= LARGEST else None


def _garbled(rng: np.random.Generator, reply: str) -> str:
    """Returns a reply with a word of its steps in the place of another."""
    head, mark, answer = reply.partition(" </think>")
    words = head.split(" ")
    words[int(rng.integers(1, len(words)))] = one(rng, words[1:])
    return " ".join(words) + mark + answer


def _near(rng: np.random.Generator, number: int) -> int:
    """Returns another number from 0 to 99: half of the time at most ten away, else any."""
    if rng.random() < 0.5:
        return int(rng.choice([n for n in range(LARGEST + 1) if n != number]))
    return int(rng.choice([n for n in range(max(0, number - 10), min(LARGEST, number + 10) + 1) if n != number]))


def _rewritten(reply: str, lines: Sequence[Line | None]) -> str:
    """Returns a reply with other steps, and with the answer of the last."""
    body, each = reply.partition("<think>")[2].partition("</think>")[0].strip(), iter(lines)
    kept = []
    for part in body.split(" ; "):
        if not _EQUATION.search(part):
            kept.append(part)
        elif (line := next(each)) is not None:
            kept.append(_EQUATION.sub(str(line), part))
    assert lines[-1] is not None
    return f"<think> {' ; '.join(kept)} </think> #### {lines[-1].after}"


def evaluation(right: Sequence[Line], reply: str) -> str:
    """Returns the evaluation of a reply: the right steps, the answer of the reply, and 1 if it is right, else 0."""
    answer = answer_of(reply)
    solved = " ; ".join(map(str, right))
    return f"<think> {solved} , {answer} </think> #### {int(answer == str(right[-1].after))}"


@dataclass(frozen=True, kw_only=True)
class PocketPreferences:
    """Pairs of replies to a problem: the chosen one is right, and the rejected one wrong.

    slips: the probability that a step of a wrong reply is wrong.
    """

    salt: Salt = field(default=0, repr=False)
    slips: Share = 0.3

    def size(self, split: str) -> int:
        """Returns the number of rows of a split: `train`, `validation` or `test`."""
        return SIZES[split]

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row: `prompt`, `chosen` and `rejected` (conversations), `style`, `gold` (the answers' scores)."""
        row = self._pocket.row(index, split)
        right = str(row["completion"][0]["content"])
        rejected = wrong(_rng(self.salt, split, index), right, self.slips)
        messages = [[{"role": "assistant", "content": text}] for text in (right, rejected)]
        return {"prompt": row["prompt"], "style": "free", "gold": [1.0, 0.0], "chosen": messages[0],
                "rejected": messages[1]}  # fmt: skip

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns the right reply."""
        return str(row["chosen"][0]["content"])

    def words(self) -> list[str]:
        """Returns every word and number of the task."""
        return self._pocket.words()

    @cached_property
    def _pocket(self) -> Pocket:
        return _thinking(self.salt)


@dataclass(frozen=True, kw_only=True)
class PocketVerification:
    """Evaluate replies: the target is 1 for a right reply and 0 for a wrong one.

    Half of the replies are right.

    slips: the probability that a step of a wrong reply is wrong; where few are, a model copies them, and does not learn
    to work the problem out. direct: the share of right replies without steps.
    """

    salt: Salt = field(default=0, repr=False)
    slips: Share = 0.5
    direct: Share = DIRECT

    def size(self, split: str) -> int:
        """Returns the number of rows of a split: `train`, `validation` or `test`."""
        return SIZES[split]

    def row(self, index: int, split: str) -> dict[str, Any]:
        """Returns a row: `prompt` and `completion` (conversations), `style`, `target`, `kind`."""
        row, rng = self._pocket.row(index, split), _rng(self.salt, split, index)
        right = str(row["completion"][0]["content"])
        short = f"#### {row['target']}" if rng.random() < self.direct else right
        reply = wrong(rng, right, self.slips) if index % 2 else short
        text = evaluation(lines_of(right), reply)
        return {
            "prompt": [{"role": "user", "content": f"{row['prompt'][0]['content']} {reply}"}],
            "completion": [{"role": "assistant", "content": text}],
            "style": "free",
            "target": answer_of(text),
            "kind": "number",
        }

    def gold(self, row: Mapping[str, Any]) -> str:
        """Returns the row's completion."""
        return str(row["completion"][0]["content"])

    def words(self) -> list[str]:
        """Returns every word and number of the task."""
        return self._pocket.words()

    @cached_property
    def _pocket(self) -> Pocket:
        return _thinking(self.salt)


def _thinking(salt: Salt) -> Pocket:
    """Returns the task whose rows are problems with their steps."""
    return Pocket(salt=salt, styles=(0.0, 1.0, 0.0), tickets=0.0)


def _rng(salt: Salt, split: str, index: int) -> np.random.Generator:
    return row_rng(salt + 1 if isinstance(salt, int) else f"{salt}, replies", split, index)
