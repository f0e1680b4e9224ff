"""The page on which people label: two answers or two clips side by side, keys to choose, and what is asked next.

The order of a labeler's pairs, and which answer stands on the left, are functions of the seed: nothing is kept but the
file of labels. A share `overlap` of the pairs is given to everybody, so that agreement can be measured; each other pair
to whoever comes first.
"""

import hashlib
import json
import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from rllab.board.pages import render
from rllab.core.errors import MachineFault
from rllab.core.labels import CHOICES, LabelFile, LabelFollower, Labels
from rllab.core.messages import parts

Row = dict[str, Any]
SIDES = ("left", "right", "tie", "skip")
_ID = re.compile(r"[A-Za-z0-9-]{8,64}")
_MOST_BYTES = 10_000  # of a request
_MOST_ORDERS = 50  # labelers whose order of pairs is kept


@dataclass
class Labelling:
    """Pairs to label, and the file of their labels, which others may append to at the same time.

    show: the JSON of a pair's two sides, in the order a, b. who: the labeler's name that the page proposes. by_id: the
    pairs by their id.
    """

    pairs: Sequence[Row]
    path: Path
    show: Callable[[Row], list[Any]]
    who: str = ""
    seed: int = 0
    overlap: float = 0.2

    def __post_init__(self) -> None:
        self._file, self.by_id = LabelFile(self.path), {row["pair"]: row for row in self.pairs}
        self._shared = [row["pair"] for row in self.pairs if self._draw("shared", row["pair"]) < self.overlap]
        self._shared.sort(key=lambda pair: self._draw("order", pair))
        self._to_all, self._orders = set(self._shared), dict[str, list[str]]()
        self._follower, self._mutex = LabelFollower(self.path), threading.RLock()

    def labels(self) -> Labels:
        """All labels of the file up to now. The next call changes what this one has returned."""
        return self._follower.read() if self.path.is_file() else Labels(self.path)

    def _draw(self, *words: str) -> float:
        """A number from 0 to 1 that is a function of the seed and words."""
        text = json.dumps([self.seed, *words])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") / 256**7

    def left(self, pair: str) -> str:
        """Which of a pair stands on the left, a or b."""
        return "a" if self._draw("left", pair) < 0.5 else "b"

    def queue(self, who: str) -> tuple[list[str], int]:
        """(the pairs that a labeler has to judge, in order, the number of those that this labeler has judged)."""
        with self._mutex:
            known = self.labels().pairs
            mine = {p for p in self.by_id if p in known and who in known[p].votes}
            taken = {p for p in self.by_id if p in known and known[p].choices}
        shared = [p for p in self._shared if p not in mine]
        own = [p for p in self._order_of(who) if p not in mine and p not in taken]
        order: list[str] = []
        heads = iter(shared), iter(own)
        while len(order) < len(shared) + len(own):
            at = len(mine) + len(order)
            is_due = math.floor((at + 1) * self.overlap) > math.floor(at * self.overlap)
            first, second = heads if is_due else heads[::-1]
            order.append(next(first, "") or next(second))
        return order, len(mine)

    def _order_of(self, who: str) -> list[str]:
        """All pairs that are not given to everybody, in a labeler's order. The last labelers' orders are kept."""
        if who not in self._orders:
            if len(self._orders) >= _MOST_ORDERS:
                self._orders.clear()
            rest = [pair for pair in self.by_id if pair not in self._to_all]
            self._orders[who] = sorted(rest, key=lambda pair: self._draw(who, pair))
        return self._orders[who]

    def item(self, who: str, pair: str = "") -> Row:
        """What the page shows: a pair, by default the next one of a labeler, and how far the labeler is."""
        order, done = self.queue(who)
        progress = {"done": done, "left": len(order), "pairs": len(self.pairs)}
        chosen = pair or (order[0] if order else "")
        if not chosen:
            return {"progress": progress}
        row, a_is_left = self.by_id[chosen], self.left(chosen) == "a"
        sides = self.show(row)
        shown = {"pair": chosen, "prompt": prompt_parts(row), "sides": sides if a_is_left else sides[::-1]}
        return shown | {"progress": progress}

    def judge(self, who: str, pair: str, side: str, label: str) -> None:
        """Appends a label. side: left, right, tie or skip. label: its id; a second one with the same id counts once."""
        left = self.left(pair)
        preferred = side if side in CHOICES else left if side == "left" else "b" if left == "a" else "a"
        row = self.by_id[pair]
        head = {"id": label, "pair": pair, "preferred": preferred, "by": who, "time": _now(), "left": left}
        self._file.append(head | {k: v for k, v in row.items() if k != "pair"})

    def undo(self, who: str, label: str) -> str:
        """Withdraws the newest label of a labeler, and returns its pair; "" where there is none."""
        with self._mutex:
            own = [row for row in self.labels().labels if row["by"] == who and row["pair"] in self.by_id]
        if not own:
            return ""
        self._file.append({"id": label, "undo": own[-1]["id"], "by": who, "time": _now()})
        return str(own[-1]["pair"])


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def prompt_parts(row: Mapping[str, Any]) -> list[Row]:
    """The messages of a pair's prompt: role and text."""
    prompt = row.get("prompt") or []
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return [{"role": str(m.get("role", "")), "text": str(m.get("content", ""))} for m in messages]


def answers(row: Mapping[str, Any]) -> list[Any]:
    """The two answers of a pair, as lists of parts: whether it is thinking, and its text."""
    return [[{"thinking": t, "text": text} for t, text in parts(row[k])] for k in ("a", "b")]


def clips_of(folder: Path) -> Callable[[Mapping[str, Any]], list[Any]]:
    """A function that returns the two clips of a pair as the page draws them, with the files of clips in a folder."""
    from rllab.control.clips import load_clips

    files: dict[str, Any] = {}

    def show(row: Mapping[str, Any]) -> list[Any]:
        name = row["clips"]
        if name not in files:
            files[name] = load_clips(folder, name)
        return [_clip(files[name], row[k]) for k in ("a", "b")]

    return show


def _clip(arrays: Mapping[str, Any], i: int) -> Row:
    about = json.loads(arrays["about"].tobytes())
    clip = {k: about[k] for k in ("kind", "fps")} | {"world": about["worlds"][int(arrays["world"][i])]}
    clip["actions"] = arrays["action"][i].tolist()
    if "state" in arrays:
        return clip | {"states": arrays["state"][i].tolist()}
    ends = arrays["picture_end"].ravel()
    first, count = i * arrays["picture_end"].shape[1], arrays["picture_end"].shape[1]
    starts = [0, *ends.tolist()][first : first + count]
    pictures = zip(starts, ends[first : first + count].tolist(), strict=True)
    return clip | {"images": [arrays["picture"][s:e].tobytes().decode() for s, e in pictures]}


def label_routes(labelling: Labelling) -> list[BaseRoute]:
    """The page `label`, and what it asks for."""

    def page(request: Request) -> Response:
        scripts = ["scenes.js", "label.js"] if "clips" in labelling.pairs[0] else ["label.js"]
        return HTMLResponse(render("label.html", who=labelling.who, file=labelling.path.name, scripts=scripts))

    async def act(request: Request) -> Response:
        asked = _fields(await _body(request))
        try:
            return JSONResponse(await run_in_threadpool(_answer, labelling, asked))
        except (OSError, MachineFault) as error:
            raise HTTPException(500, f"{labelling.path} cannot be written: {error}") from None

    return [Route("/label", page), Route("/label.json", act, methods=["POST"])]


async def _body(request: Request) -> Any:
    size = request.headers.get("content-length", "")
    if not size.isdecimal() or int(size) > _MOST_BYTES:
        raise HTTPException(413, "the request is too large")
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):
        raise HTTPException(400, "the request is not JSON") from None


def _fields(asked: Any) -> dict[str, str]:
    fields = asked if isinstance(asked, dict) else {}
    if not all(isinstance(v, str) for v in fields.values()):
        raise HTTPException(400, "the request has values that are no texts")
    who = " ".join(fields.get("who", "").split())
    if not 0 < len(who) <= 100 or not who.isprintable():
        raise HTTPException(400, "a labeler has a name of 1 to 100 printable characters")
    return fields | {"who": who}


def _answer(labelling: Labelling, asked: Mapping[str, str]) -> Row:
    who, do, label = asked["who"], asked.get("do", ""), asked.get("id", "")
    if do in ("judge", "undo") and not _ID.fullmatch(label):
        raise HTTPException(400, "a label has an id of 8 to 64 letters and digits")
    if do == "undo":
        pair = labelling.undo(who, label)
        return labelling.item(who, pair) | {"undone": bool(pair)}
    if do == "judge":
        if asked.get("pair") not in labelling.by_id or asked.get("side") not in SIDES:
            raise HTTPException(400, "the request names no pair of this page, or no side: left, right, tie or skip")
        labelling.judge(who, asked["pair"], asked["side"], label)
    elif do != "next":
        raise HTTPException(400, "do is next, judge or undo")
    return labelling.item(who)
