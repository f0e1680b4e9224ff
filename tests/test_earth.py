"""Maps of the Earth: the mask, draws by area, scores, the words as tokens, and the picture."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run
from evaluated import Here
from rllab_envs import tasks
from rllab_envs.tasks.earth import place, read_mask

from rllab.cli import app
from rllab.core.errors import FieldMistake, Mistake, Stopped
from rllab.core.recipe import load_recipe
from rllab.evals import evaluation
from rllab.evals.earth import EarthMap, always_water, ask_earth, grid, score, summary
from rllab.evals.earth_figure import figure_of
from rllab.testing import check_task
from rllab.text.open import open_model

PARIS = 41 * 360 + 182  # the cell at 48.5 N 2.5 E


@pytest.fixture(scope="module")
def mask_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mask with land where the real one has it at every tenth degree: its shape is right, and it needs no data."""
    latitude, longitude = 89.5 - np.arange(180)[:, None], np.arange(360) - 179.5
    land = (np.sin(np.radians(3 * longitude)) + np.cos(np.radians(2 * latitude))) > 0.8
    land[41, 182] = True
    file = tmp_path_factory.mktemp("mask") / "mask.txt"
    file.write_text("\n".join("".join("#" if cell else "." for cell in row) for row in land))
    return file


@pytest.fixture
def mask(mask_file: Path) -> np.ndarray:
    return read_mask(str(mask_file))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of `earth-base` at its smallest."""
    folder = tmp_path_factory.mktemp("earth")
    run(load_recipe("earth-base", smoke=True), folder / "runs" / "small")
    return folder


def test_the_real_mask_has_paris_on_land_and_water_on_71_per_cent() -> None:
    try:
        mask = read_mask()
    except FieldMistake:
        pytest.skip("RLLAB_DATA has no land_mask_1deg")
    assert place(*divmod(PARIS, 360)) == "48.5 N 2.5 E" and mask.flat[PARIS]
    assert not mask[89, 149]  # 0.5 N 30.5 W, in the Atlantic
    row = summary(always_water(1), mask)
    assert row["accuracy"] == pytest.approx(0.7105, abs=1e-4) and row["brier"] == pytest.approx(1 - row["accuracy"])
    cells = grid(1).ravel()
    oracle = score(mask.flat[cells].astype(float), cells, mask)
    assert (oracle.brier, oracle.cells) == (0.0, 64_800)
    assert (oracle.accuracy, oracle.interval[1]) == pytest.approx((1.0, 1.0), abs=1e-12)  # sums round by processor


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["#" * 360] * 179, "mask.txt: expected 180 lines, got 179"),
        (["#" * 360] * 4 + ["#" * 359] + ["#" * 360] * 175, "mask.txt:5: expected 360 characters # or ., got 359"),
        (["#" * 359 + "x"] * 180, "mask.txt:1: expected 360 characters"),
        (["\xff\x00"], "mask.txt:1: expected 360"),
        (None, "no mask of land and water at .*: set RLLAB_DATA"),
    ],
)
def test_a_broken_mask_is_refused(lines: list[str] | None, says: str, tmp_path: Path) -> None:
    file = tmp_path / "mask.txt"
    if lines is not None:
        file.write_text("\n".join(lines), encoding="latin-1")
    with pytest.raises(FieldMistake, match=says):
        tasks.earth(path=str(file))


def test_scores_count_cells_by_their_area(mask: np.ndarray) -> None:
    equator, pole = 89 * 360, 0
    area = np.cos(np.radians([0.5, 89.5]))
    land = np.where(mask.flat[[equator, pole]], [0.9, 0.2], [0.1, 0.8])  # right at the equator, wrong at the pole
    scored = score(land, np.array([equator, pole]), mask)
    assert scored.accuracy == pytest.approx(area[0] / area.sum())
    assert scored.brier == pytest.approx(area @ [0.01, 0.64] / area.sum())
    assert scored.sample == pytest.approx(area.sum() ** 2 / (area**2).sum())
    assert score(np.array([0.5]), np.array([equator]), mask).accuracy == 0.5


def test_rows_are_drawn_by_area_from_different_cells(mask_file: Path) -> None:
    task = tasks.earth(path=str(mask_file), instruction=False)
    assert check_task(task)
    rows = {split: [task.row(i, split) for i in range(task.size(split))] for split in ("train", "validation", "test")}
    cells = {split: {row["cell"] for row in own} for split, own in rows.items()}
    assert {split: len(own) for split, own in cells.items()} == {"train": 20_000, "validation": 1000, "test": 2000}
    assert not (cells["train"] & cells["test"] or cells["train"] & cells["validation"])
    south = np.array([89.5 - row["cell"] // 360 for row in rows["train"]])
    for bound in (30, 60):  # half of the sphere's area is within 30 degrees of the equator
        assert np.mean(abs(south) < bound) == pytest.approx(np.sin(np.radians(bound)), abs=0.01)
    other = tasks.earth(path=str(mask_file), salt=1)
    assert {other.row(i, "train")["cell"] for i in range(20_000)} != cells["train"]
    assert (
        tasks.earth(path=str(mask_file)).row(0, "test")["prompt"][0]["content"].startswith("If this location is over")
    )
    with pytest.raises(FieldMistake, match="cells: at most 3"):
        tasks.earth(path=str(mask_file), cells=60_000)


def test_planets_are_no_two_alike() -> None:
    task = tasks.planets(planets=3)
    assert check_task(task)
    rows = [task.row(i, "train") for i in range(2000)]
    land = {
        n: [r["target"] == "Land" for r in rows if r["prompt"][0]["content"].startswith(f"planet {n} ")]
        for n in range(3)
    }
    assert all(0.2 < np.mean(own) < 0.5 for own in land.values())
    own, other = (tasks.planets(salt=salt).row(0, "test") for salt in (0, 1))
    assert own != other


def test_a_map_is_the_softmax_of_the_two_words(lab: Path) -> None:
    lm = open_model(str(lab / "runs" / "small" / "checkpoints" / "00000004"))
    cells = grid(60).ravel()
    land, both = ask_earth(lm, cells)
    words = lm.tokenizer.convert_tokens_to_ids(["Land", "Water"])
    for i, cell in enumerate(cells):
        text = lm.tokenizer.apply_chat_template(
            [{"role": "user", "content": place(*divmod(int(cell), 360))}],
            tokenize=False,
            add_generation_prompt=True,
            style="direct",
        )
        with torch.no_grad():
            logits = lm.model(torch.tensor([lm.tokenizer(text, add_special_tokens=False).input_ids])).logits[0, -1]
        expected = logits.softmax(0)[words]
        assert land[i] == pytest.approx(float(expected[0] / expected.sum()), abs=1e-5)
        assert both[i] == pytest.approx(float(expected.sum()), rel=1e-4)
    asked, _ = ask_earth(lm, cells, instruction=True)
    assert not np.allclose(asked, land)
    with pytest.raises(Mistake, match=r"'Sand' .* does not know the word.* such as run:earth-base"):
        ask_earth(lm, cells, words=("Sand", "Water"))


def test_models_without_the_words_are_refused(qwen: Path) -> None:
    lm = open_model(str(qwen))
    with pytest.raises(Mistake, match=r"'Land' is not one token of this model: .* as \d tokens, .*--words"):
        ask_earth(lm, np.array([PARIS]))


def test_runs_are_mapped_from_the_command_line(
    lab: Path, mask_file: Path, qwen: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Here(lab, capsys, monkeypatch)
    words = ["--step", "20", "--mask", str(mask_file)]
    (rows,) = here("small@*", *words, "--figure", "maps.svg", verb="earth")
    assert [row["model"] for row in rows] == ["small@2", "small@4"] or len(rows) == 1
    assert rows[-1]["cells"] == 9 * 18 and 0 < rows[-1]["interval"][0] < rows[-1]["accuracy"] < 1
    assert "% right" in (lab / "maps.svg").read_text() or (lab / "maps.svg").stat().st_size > 1000
    with pytest.raises(Mistake, match="is not one token of this model"):
        here(str(qwen), "small", *words, verb="earth")
    assert len(here.rows[0]) == 1  # the other model is mapped
    for wrong, message in (
        ("--step 7", "--step 7"),
        ("--words Land", "expected two words"),
        ("--figure x.txt", "--figure x.txt"),
    ):
        with pytest.raises(Mistake, match=message):
            here("small", *words, *wrong.split(), verb="earth")
    app(["earth", "small", *words], standalone_mode=False)
    assert "always 'Water'" in capsys.readouterr().out


def test_ctrl_c_shows_the_maps_before_it(
    lab: Path, mask_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(name: str, runs: Path) -> object:
        if name == "second":
            raise KeyboardInterrupt
        return real(name, runs)

    real = evaluation.open_evaluated
    monkeypatch.setattr(evaluation, "open_evaluated", interrupted)
    monkeypatch.chdir(lab)
    with pytest.raises(Stopped, match="at second; maps of models before it are shown"):
        app(["earth", "small", "second", "--step", "60", "--mask", str(mask_file)], standalone_mode=False)
    assert "small " in capsys.readouterr().out


def test_the_picture_has_paris_in_its_place(mask: np.ndarray) -> None:
    land = np.zeros((180, 360))
    land.flat[PARIS] = 1.0
    figure = figure_of([EarthMap("m", 1, land, land, grid(1))], mask)
    figure.canvas.draw()
    axes = figure.axes[0]
    (image,) = axes.get_images()
    shown = image.get_cursor_data
    assert axes.get_title().startswith("m: ") and image.get_extent() == [-180, 180, -90, 90]

    def at(east: float, north: float) -> Any:
        class Event:
            x, y = axes.transData.transform((east, north))
            xdata, ydata = east, north

        return shown(Event())  # type: ignore[arg-type]

    assert at(2.5, 48.5) == 1.0 and at(2.5, -48.5) == 0.0 and at(-2.5, 48.5) == 0.0 and at(3.5, 48.5) == 0.0


def test_a_map_is_written_as_json(
    lab: Path, mask_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(lab)
    app(["earth", "small", "--step", "60", "--mask", str(mask_file), "--json"], standalone_mode=False)
    (row,) = json.loads(capsys.readouterr().out)
    assert set(row) == set(summary(always_water(60), read_mask(str(mask_file))))
