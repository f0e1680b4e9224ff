"""`rllab watch --video`: the file is read back."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from conftest import TESTS, run, smoke_runs
from forked import call
from test_workers import ODD

from rllab.board import video
from rllab.board.loaded import LoadedRun
from rllab.board.video import Gif, check_video, write_video
from rllab.core.errors import Mistake
from rllab.core.recipe import read_recipe

av: Any = pytest.importorskip("av", reason="the extra video is not installed")
Image: Any = pytest.importorskip("PIL.Image", reason="the extra video is not installed")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = smoke_runs(tmp_path_factory.mktemp("runs"), "cartpole")
    run(read_recipe(ODD, "odd.yaml", TESTS, "odd"), folder / "odd")
    return folder


def pictures(path: Path) -> tuple[list[np.ndarray], float]:
    """(the pictures [H, W, 3] of an MP4, pictures a second)."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)], float(stream.average_rate or 0)


def _frames(file: Any) -> Iterator[Any]:
    """The pictures of an animation, one after another."""
    for k in range(file.n_frames):
        file.seek(k)
        yield file


def cart(picture: np.ndarray) -> float:
    """Where the middle of the cart is, in metres: its pixels are dark, and those of the track are in one row."""
    columns = np.flatnonzero((picture[288:300].max(2) < 90).all(0))
    return float(columns.mean() - 299.5) / 125


@pytest.mark.parametrize("where", ["here", "command"])
def test_a_video_shows_the_states_of_the_episodes(runs: Path, tmp_path: Path, where: str) -> None:
    path, said = tmp_path / "x.mp4", list[str]()
    if where == "here":
        write_video(LoadedRun(runs / "cartpole"), None, range(4, 6), path, said.append)
    else:
        words = ["watch", "cartpole", "--runs", str(runs), "--episodes", "2", "--seed", "4", "--video", str(path)]
        done = call("-m", "rllab", *words)
        assert done.returncode == 0 and done.stderr == f"{path} is written\n", done.stderr
        said = done.stdout.splitlines()
    steps = [int(line.split(" steps ")[0].split()[-1]) for line in said]
    assert len(steps) == 2 and said[0].startswith(f"reset(seed=4): return {steps[0]} in {steps[0]} steps (terminated")
    shown, fps = pictures(path)
    assert fps == 50 and len(shown) == sum(steps) + 2 + 2 * 25 and shown[0].shape == (400, 600, 3)
    twin: Any = gym.make("CartPole-v1")
    assert cart(shown[0]) == pytest.approx(twin.reset(seed=4)[0][0], abs=0.01)
    assert cart(shown[steps[0] + 1 + 25]) == pytest.approx(twin.reset(seed=5)[0][0], abs=0.01)
    assert [p.name for p in tmp_path.iterdir()] == ["x.mp4"]


def test_a_gif_has_every_step_at_its_time(runs: Path, tmp_path: Path) -> None:
    write_video(LoadedRun(runs / "odd"), 1, range(30, 31), tmp_path / "x.GIF", lambda line: None)
    with Image.open(tmp_path / "x.GIF") as file:
        frames = [(frame.info["duration"], *frame.convert("RGB").getpixel((0, 0))) for frame in _frames(file)]
        assert file.format == "GIF" and file.size == (8, 6) and file.info["loop"] == 0
    assert [frame[1:] for frame in frames] == [(t, 30, 0) for t in range(11)]
    assert sum(frame[0] for frame in frames) == pytest.approx(1000 * (11 + 6) / 12, abs=10)
    assert {frame[0] for frame in frames[:-1]} == {80, 90}


def test_a_fast_gif_keeps_fifty_pictures_a_second(tmp_path: Path) -> None:
    file = Gif(tmp_path / "x.gif", 120)
    for t in range(120):
        file.write(np.full((4, 4, 3), t, np.uint8))
    file.close()
    with Image.open(tmp_path / "x.gif") as read:
        lasts = [frame.info["duration"] for frame in _frames(read)]
    assert sum(lasts) == 1000 and 40 <= len(lasts) <= 50 and min(lasts) >= 20


@pytest.mark.parametrize(
    ("name", "run_", "why"),
    [
        ("x.avi", "odd", "a video is a file with the ending .mp4 or .gif"),
        ("nothing/x.gif", "odd", "there is no such folder"),
        ("folder.gif", "odd", "it is a folder"),
        ("x.gif", "toy", "toy acts in no environment"),
        ("x.gif", "none", "no run 'none'"),
        ("x.gif", "odd@9", "9"),
    ],
)
def test_what_cannot_be_written_is_refused(
    name: str, run_: str, why: str, runs: Path, tmp_path: Path, toy: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from rllab.cli.app import app

    (tmp_path / "folder.gif").mkdir()
    if run_ == "toy" and not (runs / "toy").exists():
        run(toy("total_steps=1"), runs / "toy")
    with pytest.raises(Mistake, match=why):
        app(["watch", run_, "--video", str(tmp_path / name), "--runs", str(runs)], standalone_mode=False)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.gif"]


@pytest.mark.parametrize(("name", "package", "why"), [("x.mp4", "av", "install av; or"), ("x.gif", "PIL", "pillow")])
def test_a_missing_package_is_named(name: str, package: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Mistake, match=why):
        check_video(Path(name))


def test_a_failure_leaves_the_old_file(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.gif"
    path.write_text("before")
    monkeypatch.setattr(video, "MOST_BYTES", 300)
    with pytest.raises(Mistake, match=r"6 pictures are too many for a GIF: write .mp4, or fewer --episodes"):
        write_video(LoadedRun(runs / "odd"), None, range(30, 31), path, lambda line: None)
    assert [p.name for p in tmp_path.iterdir()] == ["x.gif"] and path.read_text() == "before"


def test_odd_sizes_become_even(tmp_path: Path) -> None:
    file = video.Mp4(tmp_path / "x.mp4", 12.5)
    for t in range(10):
        file.write(np.full((33, 45, 3), 20 * t, np.uint8))
    file.close()
    shown, fps = pictures(tmp_path / "x.mp4")
    assert fps == 12.5 and len(shown) == 10 and shown[0].shape == (34, 46, 3)
    assert [abs(int(p.mean()) - 20 * t) < 8 for t, p in enumerate(shown)] == [True] * 10
