"""Maps what a language model knows of the Earth: the probability that it answers 'Land', for cells of a grid.

For each cell the model is asked whether its centre is over land or over water. The map has the softmax of the
log-probabilities of the two words as the next token, as in 'How does a blind model see the Earth?'. It is scored
against a mask of land and water, each cell by its area, the cosine of its latitude.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rllab.core.errors import Mistake
from rllab.core.names import find
from rllab.evals.prompts import has_styles
from rllab.stats import Interval, wilson
from rllab.text.chat import ids_behind, prompt_ids, prompt_texts
from rllab.text.evaluation import continuation_log_likelihoods
from rllab.text.models import LanguageModel

Words = tuple[str, str]
_AT_ONCE = 4096  # cells between two lines of progress
_HOME = "rllab_envs.tasks.earth"


@dataclass(frozen=True)
class EarthMap:
    """What a model answers on every `step`-th cell of one degree, in both directions, from the north-west.

    land: the probability of land [R, C] of the two words. both: the probability of the two words together [R, C];
    where it is small, the model would rather say something else. cells: row * 360 + column of each [R, C].
    """

    model: str
    step: int
    land: np.ndarray
    both: np.ndarray
    cells: np.ndarray


@dataclass(frozen=True)
class Score:
    """How well a map agrees with the mask, by area.

    accuracy: the share of the area where the likelier word is right; a tie counts half. brier: the mean squared
    distance of the probability of land from 1 on land and 0 on water. cells: their number. sample: the number of
    equally large cells that would be as certain (Kish 1965), of which the interval is.
    """

    accuracy: float
    brier: float
    cells: int
    sample: float

    @property
    def interval(self) -> Interval:
        """The Wilson interval of the accuracy on all cells, for cells that are a sample of them."""
        return wilson(self.accuracy * self.sample, self.sample)


def grid(step: int) -> np.ndarray:
    """Returns `row * 360 + column` of every `step`-th cell [R, C], beginning within the first `step`.

    Raises:
        Mistake: the step does not divide 180.
    """
    rows, columns = _earth("ROWS"), _earth("COLUMNS")
    if not 1 <= step <= 60 or rows % step:
        raise Mistake(f"--step {step}: degrees that divide 180, from 1 to 60, such as 1, 2, 3, 5 or 10")
    first = step // 2
    cells: np.ndarray = np.arange(first, rows, step)[:, None] * columns + np.arange(first, columns, step)
    return cells


def ask_earth(
    lm: LanguageModel,
    cells: np.ndarray,
    instruction: bool | None = None,
    words: Words = ("Land", "Water"),
    tell: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Asks a model for cells [N]. Returns (p(Land) of the two words, their probability together), [N] each.

    instruction: whether the prompt says what to answer; by default it does unless the model is the lab's own. words:
    for land and water. tell: receives the number of cells that are done.

    Raises:
        Mistake: the model does not have each of the words as one token.
    """
    asks = not has_styles(lm) if instruction is None else instruction
    template = lm.tokenizer.chat_template is not None
    texts = [_question(int(cell), asks, words, template) for cell in cells]
    prompts: list[Any] = [[{"role": "user", "content": text}] for text in texts] if template else texts
    rows = [{"prompt": prompt, "style": "direct"} for prompt in prompts]
    answers = [word if template else f" {word}" for word in words]
    _check_words(lm, prompt_texts(lm.tokenizer, rows[:1])[0], answers)
    each = list[np.ndarray]()
    for begin in range(0, len(rows), _AT_ONCE):
        some = prompt_ids(lm.tokenizer, rows[begin : begin + _AT_ONCE])
        each += continuation_log_likelihoods(lm, some, [answers] * len(some))
        tell(len(each))
    logp = np.stack(each)
    return 1 / (1 + np.exp(logp[:, 1] - logp[:, 0])), np.exp(np.logaddexp(logp[:, 0], logp[:, 1]))


def _question(cell: int, instruction: bool, words: Words, template: bool) -> str:
    text = str(_earth("question")(cell, instruction, words))
    return text if template or not instruction else f"{text}\nAnswer:"


def _check_words(lm: LanguageModel, prompt: str, answers: Sequence[str]) -> None:
    """Raises a Mistake unless each answer is one token behind the prompt."""
    unknown = lm.tokenizer.unk_token_id
    for answer in answers:
        ids = ids_behind(lm.tokenizer, prompt, answer)
        if len(ids) == 1 and ids[0] != unknown:
            continue
        tokens = " ".join(map(repr, lm.tokenizer.convert_ids_to_tokens(ids)))
        why = f"writes it as {len(ids)} tokens, {tokens}"
        todo = "name two words that are one token each, such as --words land,water"
        if unknown in ids:
            why, todo = "does not know the word", "take a model that was taught both words, such as run:earth-base"
        raise Mistake(
            f"{answer.strip()!r} is not one token of this model: its tokenizer {why}. A map compares the next token: "
            f"{todo}"
        )


def score(land: np.ndarray, cells: np.ndarray, mask: np.ndarray) -> Score:
    """Scores probabilities of land [N] of cells [N] against the mask, bool [180, 360]."""
    truth, area = mask.flat[cells], _earth("areas")()[cells // mask.shape[1]]
    right = np.where(land == 0.5, 0.5, (land > 0.5) == truth)
    return Score(
        accuracy=min(1.0, float(area @ right / area.sum())),  # the two sums may be rounded apart
        brier=float(area @ (land - truth) ** 2 / area.sum()),
        cells=len(cells),
        sample=float(area.sum() ** 2 / (area**2).sum()),
    )


def read_mask(path: str) -> np.ndarray:
    """Returns whether each cell is land, bool [180, 360]; by default from RLLAB_DATA.

    Raises:
        FieldMistake: there is no such file, or it is no such grid.
    """
    mask: np.ndarray = _earth("read_mask")(path)
    return mask


def summary(earth: EarthMap, mask: np.ndarray) -> dict[str, Any]:
    """Returns a row of the table: accuracy and Brier score of all cells, and of those of the split `test`.

    mask: bool [180, 360]. The task `earth` never trains on cells of its split `test`. `interval` is None where the
    cells are all there are.
    """
    cells, land = earth.cells.ravel(), earth.land.ravel()
    held_out = np.isin(cells, _earth("cells_of")("test"))
    whole, test = score(land, cells, mask), score(land[held_out], cells[held_out], mask)
    area = _earth("areas")()[cells // mask.shape[1]]
    return {
        "model": earth.model,
        "cells": whole.cells,
        "accuracy": whole.accuracy,
        "interval": whole.interval if earth.step > 1 else None,
        "brier": whole.brier,
        "land": float(area @ land / area.sum()),
        "both_words": float(area @ earth.both.ravel() / area.sum()),
        "test_cells": test.cells,
        "test_accuracy": test.accuracy,
        "test_interval": test.interval,
        "test_brier": test.brier,
    }


def always_water(step: int) -> EarthMap:
    """Returns the map of an answer that is always 'Water'."""
    cells = grid(step)
    return EarthMap("always 'Water'", step, np.zeros(cells.shape), np.ones(cells.shape), cells)


def _earth(name: str) -> Any:
    return find(name, _HOME, Path())
