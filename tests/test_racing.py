"""The racing car: known answers of track, car, lines and lap times, its references, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run
from rllab_envs.control.racing import car
from rllab_envs.control.racing.env import OneCar, Racing
from rllab_envs.control.racing.line import bends, speeds
from rllab_envs.control.racing.overtake import Overtaking, slipstream
from rllab_envs.control.racing.track import HOME, make_track
from typer.testing import CliRunner

from rllab.algos.sac import SAC
from rllab.cli import app
from rllab.core.algorithm import Context
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import load_recipe
from rllab.evals import racing
from rllab.evals.racing import racer, searched_line

RADIUS = 60.0
ANGLES = np.arange(24) * 2 * np.pi / 24
CIRCLE = np.stack([RADIUS * np.cos(ANGLES), RADIUS * np.sin(ANGLES)], 1).tolist()  # driven with its centre to the left
EIGHT = [[100 * np.sin(t), 60 * np.sin(2 * t)] for t in np.arange(16) * 2 * np.pi / 16]
CTX = Context(0, torch.device("cpu"))


def cars(number: int = 1, **settings: Any) -> Racing:
    """An environment of cars whose episodes have begun."""
    env = Racing(number, **({"track": CIRCLE} | settings), autoreset_mode="Disabled")
    env.reset(seed=0)
    return env


def test_a_circle_has_its_length_curvature_and_places() -> None:
    track = make_track(CIRCLE)
    assert track.length == pytest.approx(2 * np.pi * RADIUS, rel=1e-4)
    np.testing.assert_allclose(track.curvature, 1 / RADIUS, rtol=0.01)  # a spline through 24 points
    np.testing.assert_allclose(make_track([[x, -y] for x, y in CIRCLE]).curvature, -1 / RADIUS, rtol=0.01)
    s = np.linspace(0, 3 * track.length, 50)
    x, y = track.place(s, np.full(50, 4.0))
    np.testing.assert_allclose(np.hypot(x, y), RADIUS - 4, atol=2e-3)  # to the left is inside
    np.testing.assert_allclose(np.unwrap(np.arctan2(y, x)), s / RADIUS, atol=2e-3)


def test_the_mirror_has_left_for_right() -> None:
    home, mirror = make_track("home"), make_track("mirror")
    np.testing.assert_allclose(mirror.curvature, -home.curvature, atol=1e-9)
    assert mirror.length == home.length == pytest.approx(1231, abs=1) and len(HOME) == 25


@pytest.mark.parametrize(
    ("track", "why"),
    [
        (EIGHT, r"crosses or touches itself, at \d+ m \(-?\d+, -?\d+\) and at \d+ m"),
        ([[0, 0], [150, 0], [150, 60], [75, 8], [0, 60]], "crosses or touches itself|has a radius"),
        ([[x, y] for x, y in CIRCLE[::2]] + [[61, 0]], "points 12 and 0 are 1.00 m apart|radius"),
        ([[0, 0], [100, 0], [50, 12], [0, 40]], "has a radius of"),
        ([[0, 0], [1, 0], [2, float("nan")], [0, 1]], "point 2 is not finite"),
        ([[0, 0], [100, 0], [50, 80]], "at least 4 points"),
        ([[0, 0, 0]] * 5, "at least 4 points"),
        (["a", "b"], "expected a list of points"),
        ([[x / 20, y / 20] for x, y in CIRCLE], "is 19 m long|apart"),
        ("hoem", "there is no track 'hoem'; there are home, mirror"),
    ],
)
def test_a_track_that_cannot_be_driven_is_refused(track: Any, why: str) -> None:
    with pytest.raises(FieldMistake, match=why) as mistake:
        Racing(track=track)
    assert mistake.value.field == "env_kwargs" and "track: " in str(mistake.value)


def test_a_tyre_never_pushes_beyond_its_circle() -> None:
    grip, peak = 5.0, 0.0
    for slip in np.linspace(-1.5, 1.5, 61):
        for along in np.linspace(-4.7, 4.7, 11):
            side = car.side_force(slip, grip, along)
            assert np.hypot(side, along) <= grip + 1e-9 and side * slip >= 0
            peak = max(peak, np.hypot(side, along))
    assert peak == pytest.approx(grip, rel=1e-3)  # and it is reached


def test_a_car_that_rolls_slows_by_its_drag_alone() -> None:
    env = cars(track=[[20 * x, 20 * y] for x, y in CIRCLE])  # almost straight
    env.state[:, 0] = 0.0
    env.state[car.VX], env.state[car.LINE] = 30.0, 1.0
    v, metres = 30.0, 0.0
    for _ in range(10):
        env.step(np.zeros((1, 2)))
        for _ in range(car.SUBSTEPS):
            metres += v * car.SECONDS / car.SUBSTEPS
            v -= (car.DRAG * v**2 + car.ROLLING) * car.SECONDS / car.SUBSTEPS
    assert env.state[car.VX, 0] == pytest.approx(v, rel=1e-4)
    assert env.state[car.ALONG, 0] == pytest.approx(metres, rel=1e-3)


def test_the_reward_is_progress_less_the_penalties() -> None:
    for penalty in (True, False):
        env = cars(2, off_course_penalty=penalty)
        env.state[:] = 0.0
        env.state[car.VX], env.state[car.LINE] = 20.0, 1.0
        env.state[car.OFFSET] = [6.0, 8.99]
        env.state[car.HEADING, 1] = 0.5
        before = env.state[car.ALONG].copy()
        _, reward, crashed, *_ = env.step(np.zeros((2, 2)))
        v, metres = env.state[car.VX], env.state[car.ALONG] - before
        assert crashed.tolist() == [False, True]
        crash = np.array([0.0, 5 + 0.0125 * v[1] ** 2])
        np.testing.assert_allclose(reward, 0.5 * metres - penalty * (1 + 0.01 * v**2) - crash, rtol=1e-12)


def test_the_penalty_rises_over_the_last_metre_before_the_edge() -> None:
    env = cars(5)
    env.state[:] = 0.0
    env.state[car.LINE] = 1.0
    env.state[car.OFFSET] = [3.9, -4.25, 4.75, -5.0, 7.0]  # on a road of 5 m to each side
    np.testing.assert_allclose(env.observe()[:, 8], [0.0, 0.25, 0.75, 1.0, 1.0], atol=1e-6)
    before = env.state[car.ALONG].copy()
    _, reward, *_ = env.step(np.zeros((5, 2)))  # they stand: no metre is driven
    np.testing.assert_array_equal(env.state[car.ALONG], before)
    np.testing.assert_allclose(reward, [0.0, -0.25, -0.75, -1.0, -1.0])


def test_lap_times_are_interpolated_and_laps_off_the_road_are_not_valid() -> None:
    env = cars(4, seconds=150.0)
    act = env.pursuit(np.zeros(4), np.tile([0.5, 5.0, 0.6], (4, 1)))
    along = [env.state[car.ALONG].copy()]
    for t in range(1300):
        if t == 600:
            env.state[car.OFFSET, 0] = -5.01  # one car leaves the road in one lap
        env.step(act())
        along.append(env.state[car.ALONG].copy())
    report = env.report()
    assert not report["crashed"].any()
    lost = 0.0
    for n in range(4):
        lines = np.arange(1, int(along[-1][n] / env.track.length) + 1) * env.track.length
        times = np.interp(lines, [row[n] for row in along], np.arange(1301) * car.SECONDS)
        assert report["laps"][n] == len(lines) - 1 > 2
        assert report["spent"][n] == pytest.approx(times[-1] - times[0], abs=0.01)
        lost += report["spent"][n] - report["time"][n]
    assert (report["laps"] - report["valid"]).tolist() == [1, 0, 0, 0]
    assert lost == pytest.approx(report["time"][1] / report["valid"][1], rel=0.05)  # the time of that lap
    metrics = env.summary(report)
    assert metrics["lap"] == pytest.approx(report["time"].sum() / report["valid"].sum()) and metrics["crashes"] == 0
    assert metrics["valid"] == 1 - 1 / report["laps"].sum()


def test_without_a_valid_lap_the_lap_is_as_long_as_the_episode() -> None:
    env = cars(3, seconds=2.0)
    assert env.summary(env.report()) == {"lap": 2.0, "any_lap": 2.0, "valid": 0.0, "crashes": 0.0}


def test_a_line_on_a_circle_has_its_curvature_and_time() -> None:
    track, grip = make_track(CIRCLE), 0.9 * car.GRIP
    lines = np.array([[0.0], [4.0]]) * np.ones((1, len(track.x)))
    bend, gap = bends(track, lines)
    for c, radius in enumerate((RADIUS, RADIUS - 4)):
        np.testing.assert_allclose(bend[c], 1 / radius, rtol=0.01)
        assert gap[c].sum() == pytest.approx(2 * np.pi * radius, rel=1e-3)
    # at constant speed the engine has to carry the drag beside the force to the side
    _, times = speeds(bend, gap, 0.9)
    for time, radius in zip(times, (RADIUS, RADIUS - 4), strict=True):
        assert time == pytest.approx(2 * np.pi * np.sqrt(radius / grip), rel=0.01)


def test_the_search_finds_the_inner_edge_of_a_circle() -> None:
    wide = [[2 * x, 2 * y] for x, y in CIRCLE]
    offsets, bound = searched_line(cars(track=wide))
    centre = cars(track=wide).line_times(np.zeros((1, 4)))[0]
    assert offsets.mean() > 3.8 and np.abs(offsets).max() < 4.7
    assert 2 * np.pi * np.sqrt((2 * RADIUS - 4.5) / car.GRIP) < bound < centre


def test_one_car_is_that_of_the_array_program() -> None:
    one, many = OneCar(track="mirror"), cars(1, track="mirror")
    obs, _ = one.reset(seed=3)
    np.testing.assert_array_equal(obs, many.reset(seed=3)[0][0])
    step, steps = one.step(np.array([0.2, 1.0])), many.step(np.array([[0.2, 1.0]]))
    np.testing.assert_array_equal(step[0], steps[0][0])
    assert step[1:4] == (float(steps[1][0]), False, False)


def test_a_run_races_beside_its_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a coarse grid and a short search, which the test of the circle replaces."""
    monkeypatch.setattr(racing, "_GRID", ((0.8,), (5.0,), (0.4, 0.5)))
    monkeypatch.setattr(racing, "_SEARCH", racing.CEM(candidates=64, elites=8, iterations=10))
    trained = run(load_recipe("racing", smoke=True), tmp_path / "racing")
    row = trained.folder.rows()[-1]
    assert row["eval/lap"] == row["eval/any_lap"] == 4.0 and row["eval/valid"] == 0.0
    assert trained.folder.status()["headline"]["name"] == "eval/lap"
    met = {e["metric"]: e["met"] for e in trained.folder.status()["expect"]}
    assert met["eval/lap"] == (4.0 <= 58.0) and not met["eval/valid"]
    figure = tmp_path / "race.svg"
    words = ["race", "racing", "--cars", "3", "--runs", str(tmp_path), "--figure", str(figure), "--json"]
    bound, centre, line, agent = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    assert bound["lap"] < line["lap"] < centre["lap"] < 70 and bound["valid"] is None
    assert centre["valid"] == line["valid"] == 1 and centre["crashes"] == 0
    assert agent["driver"] == "racing" and agent["lap"] is None and agent["valid"] == 0
    assert figure.read_text().count("<svg") == 1 and figure.stat().st_size < 400_000


def test_a_run_of_another_environment_does_not_race(tmp_path: Path) -> None:
    run(load_recipe("pendulum-sac", smoke=True), tmp_path / "pendulum")
    with pytest.raises(Mistake, match="pendulum is a run of rllab/Pendulum-v1"):
        racer("pendulum", tmp_path)


def test_what_evaluations_have_instead_is_checked_before_training() -> None:
    for different, why in (({"track": EIGHT}, "crosses"), ({"secnods": 3}, "secnods")):
        agent = SAC(env="rllab/Racing-v0", eval_env_kwargs=different)
        with pytest.raises(FieldMistake, match=why) as mistake:
            agent.setup(CTX)
        assert mistake.value.field == "eval_env_kwargs"


def overtaking(number: int = 1, **settings: Any) -> Overtaking:
    """Races that have begun."""
    env = Overtaking(number, **({"track": [[4 * x, 4 * y] for x, y in CIRCLE]} | settings), autoreset_mode="Disabled")
    env.reset(seed=0)
    return env


def test_a_race_counts_who_is_passed_without_a_touch() -> None:
    env = overtaking(3)
    assert env.behind(env.cars).tolist() == [0, 0, 0] and env.observe().shape == (3, env.observed)
    np.testing.assert_allclose(np.diff(env.cars[:, car.ALONG], axis=0), 14.0)
    state = env.cars.copy()
    state[0, car.OFFSET] = [3.2, 2.4, 0.0]
    state[0, car.ALONG] += [2 * 14.0 + 4.0, 2 * 14.0 + 4.0, -9.4]  # in front of one car, about to pass the second
    state[0, car.ALONG, 2] = state[1, car.ALONG, 2] - 4.6
    state[0, car.VX] = [20.0, 8.0, 20.0]
    env.state = np.concatenate([state.reshape(-1, 3), [[1.0, 0.5, 1.0], [0.0, 0.0, 0.0]]])
    before = env.behind(env.cars)
    _, reward, over, *_ = env.step(np.zeros((3, 2)))
    metres = env.cars[:, car.ALONG] - state[:, car.ALONG]
    assert before.tolist() == [1, 1, 0] and env.behind(env.cars).tolist() == [2, 1, 0]
    assert not over.any()
    gained = (metres[0] - metres[1:]).sum(0)
    beside = env.cars[0, car.OFFSET, 1] - env.cars[2, car.OFFSET, 1]
    near = 1 - (beside - 1.9)  # of 1 m, and a touch weighs half in this race
    assert 0.4 < near < 0.6
    np.testing.assert_allclose(reward, 0.5 * metres[0] + 0.3 * gained - [0.0, 1.5 * 0.5 * near, 1.5])
    assert env.cars[0, car.VX, 2] == pytest.approx(0.95 * env.cars[0, car.VX, 0], rel=5e-3)  # but for the slipstream
    assert env.report()["passed"].tolist() == [2, 1, 0] and env.report()["touched"].tolist() == [0, 0, 1]
    assert env.summary(env.report()) == {"passed": 1.0, "crashes": 0.0, "touches": pytest.approx(1 / 3)}
    env.state[-1] = [1.0, 0.0, 1.0]
    env.state[car.CRASHED, 1] = 1.0
    assert not env.report()["passed"].any()  # neither with a touch nor with a crash


def test_metres_are_gained_on_cars_that_are_near() -> None:
    env = overtaking()
    before, length = np.zeros((4, car.COMPONENTS, 1)), env.track.length
    before[:, car.ALONG, 0] = [10.0, 45.0, length - 9.0, 60.0]  # 35 m ahead, 19 m behind the start line, 50 m ahead
    after = before.copy()
    after[:, car.ALONG, 0] += [3.0, 1.0, 2.0, 1.0]
    assert env.gained(before, after) == pytest.approx([2.0 + 1.0])
    after[3, car.ALONG] -= 10.0  # it comes within 40 m in this step, which counts
    assert env.gained(before, after) == pytest.approx([2.0 + 1.0 + 12.0])


def test_cars_are_seen_at_the_places_between_which_they_are() -> None:
    env = overtaking()
    state = env.cars.copy()
    state[:, car.ALONG, 0], state[:, car.OFFSET, 0] = [50.0, 40.0, 57.0, 150.0], [1.0, 0.0, 2.0, -1.0]
    state[:, car.VX, 0] = [10.0, 12.0, 15.0, 8.0]
    env.state = np.concatenate([state.reshape(-1, 1), [[0.25], [0.0]]])
    seen = np.zeros((7, 3))  # at -10, -5, 0, 5, 10, 20 and 40 m; 100 m is out of sight
    seen[0] = [1.0, -1 / 2.5, 2 / 5]
    seen[3], seen[4] = 0.6 * np.array([1.0, 1 / 2.5, 5 / 5]), 0.4 * np.array([1.0, 1 / 2.5, 5 / 5])
    np.testing.assert_allclose(env.observe()[0, -22:-1], seen.ravel(), rtol=1e-5, atol=1e-7)
    assert env.observe()[0, -1] == 0.25


def test_varied_races_begin_at_every_place_of_the_row() -> None:
    env = overtaking(256, track="home", varied=True)
    places = (env.cars[1:, car.ALONG] < env.cars[0, car.ALONG]).sum(0)
    assert (np.bincount(places, minlength=4) > 5).all() and not env.nearness(env.cars).any()
    weights = env.observe()[:, -1]
    assert weights.min() < 0.1 and weights.max() > 0.9 and (overtaking(8).observe()[:, -1] == 1).all()
    gaps = np.diff(np.sort(env.cars[:, car.ALONG], 0), axis=0)
    np.testing.assert_allclose(gaps, gaps[:1].repeat(3, 0))
    assert 10 <= gaps.min() < 20 and 200 < gaps.max() <= 300
    start = env.cars[1, car.ALONG].copy()
    for _ in range(50):
        env.step(np.zeros((256, 2)))
    metres = env.cars[1, car.ALONG] - start
    assert metres[-64:].mean() > 1.2 * metres[:64].mean()


def test_the_others_drive_and_the_slipstream_pulls() -> None:
    env = overtaking(2)
    start = env.cars.copy()
    for _ in range(100):
        env.step(np.tile([0.0, -1.0], (2, 1)))
    assert (env.cars[1:, car.ALONG] - start[1:, car.ALONG] > 80).all() and not env.cars[1:, car.CRASHED].any()
    assert (np.abs(env.cars[1:, car.OFFSET]) < 1.0).all() and (np.diff(env.cars[1:, car.ALONG], axis=0) > 4.5).all()
    along = np.array([[0.0, 0.0, 0.0], [10.0, 10.0, 30.0], [200.0, 200.0, 200.0], [300.0, 300.0, 300.0]])
    offset = np.zeros((4, 3))
    offset[1, 1] = 2.0
    tow = slipstream(along, offset, 1000.0)
    assert tow[0].tolist() == [pytest.approx(0.5 * (1 - 10 / 25)), 0.0, 0.0] and not tow[1:].any()
    assert slipstream(along[:2, :1] * [[1], [99.5]], offset[:2, :1], 1000.0)[1, 0] == pytest.approx(0.5 * (1 - 5 / 25))


def test_the_board_draws_road_and_car() -> None:
    env = cars()
    env.state[car.OFFSET] = 6.0
    world, state = env.scene()
    for name, radius in (("left", RADIUS - 5), ("right", RADIUS + 5)):
        np.testing.assert_allclose(np.hypot(*np.array(world[name]).T), radius, atol=0.1)
    x, y, heading, speed, off, lap, seconds = state
    assert np.hypot(x, y) == pytest.approx(RADIUS - 6, abs=0.01) and (off, lap, seconds) == (1.0, 0.0, 0.0)
    along = heading - float(env.state[car.HEADING, 0])
    assert np.cos(along - np.pi / 2 - np.arctan2(y, x)) == pytest.approx(1.0, abs=1e-4)
    assert speed == env.state[car.VX, 0]
    _, more = overtaking().scene()
    assert len(more) == len(state) + 3 * 3
