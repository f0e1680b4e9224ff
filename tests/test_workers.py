"""The processes that answer the board's requests about runs: their deaths, deadlines, order and number."""

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from conftest import TESTS, run
from odd_env import EXITS, GREY, HANGS, PRINTS, RAISES

from rllab.board.workers import Workers, streamed
from rllab.core.recipe import read_recipe

Image: Any = pytest.importorskip("PIL.Image", reason="the extra video is not installed")
ODD = """algo: DQN
env: "odd_env.py:odd/Odd-v0"
total_steps: 1
num_envs: 2
train_freq: 2
learning_starts: 100
eval_every: 0
headline_episodes: 1
hidden: [4]
"""
NOTHING = {"do": "nothing"}  # answered without loading the run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("odd", "blind"):
        text = ODD.replace("odd/Odd", f"odd/{name.capitalize()}")
        run(read_recipe(text, "odd.yaml", TESTS, name), folder / name)
    return folder


@pytest.fixture(scope="module")
def workers(runs: Path) -> Iterator[Workers]:
    with Workers(runs) as asked:
        yield asked


def episode(workers: Workers, seed: int, run: str = "odd", **more: Any) -> list[dict[str, Any]]:
    return list(workers.ask(run, {"do": "episode", "seed": seed, **more}))


def pid(workers: Workers, name: str = "odd") -> int:
    return workers._alive[name]._process.pid


def test_a_picture_is_sent_for_every_step(workers: Workers) -> None:
    first, *rest, last = [line.get("more") or line["end"] for line in episode(workers, 30, index=7)]
    assert first.keys() == {"env", "kind", "fps", "seed", "checkpoint", "image"}
    assert [first[k] for k in ("env", "kind", "fps", "seed", "checkpoint")] == ["odd/Odd-v0", "", 12.0, 37, 1]
    assert [line["return"] for line in rest] == list(range(1, 11)) and {line["action"] for line in rest} <= {0, 1}
    assert last == {"return": 10.0, "steps": 10, "why": "truncated"}
    for t, line in enumerate([first, *rest]):
        kind, _, data = line["image"].partition(",")
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        assert kind == "data:image/png;base64" and picture.shape == (6, 8, 3) and picture[0, 0].tolist() == [t, 37, 0]


def test_faults_of_an_environment_are_the_answer(workers: Workers) -> None:
    before = episode(workers, 30)
    broken = episode(workers, RAISES)
    assert len(broken) == 4 and "step 3" in broken[-1]["error"] and "the motor is broken" in broken[-1]["error"]
    assert "render returned uint8 [6, 8]; rgb_array is uint8 [H, W, 3]" in episode(workers, GREY)[-1]["error"]
    assert len(episode(workers, PRINTS)) == 12  # what it prints is no line of the answer
    assert "['odd'], without" not in str(before) and before == episode(workers, 30)
    assert "its render_modes are [], without 'rgb_array'" in episode(workers, 1, "blind")[-1]["error"]


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (NOTHING, "no request 'nothing'; there are episode"),
        ({}, "no request None"),
        ({"do": ["episode"]}, "no request"),
        ({"do": "episode", "seed": "1"}, "seed must be a whole number from 0"),
        ({"do": "episode", "index": -1}, "index must be a whole number from 0"),
        ({"do": "episode", "seed": 2**40}, "is too large"),
        ({"do": "episode", "checkpoint": 99}, "99"),
        ({"do": "episode", "number": 5, "stop": 5, "seed": True}, "seed must be a whole number"),
    ],
)
def test_bad_requests_are_refused(request_: dict[str, Any], why: str, workers: Workers) -> None:
    (line,) = workers.ask("odd", request_)
    assert why in line["error"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../odd", "odd/", "/etc", "--help", "od\0d", "odd\n", "x" * 5000, "odd@1", "\ud800"]
)
def test_names_that_are_no_run_start_nothing(name: str, runs: Path) -> None:
    with Workers(runs) as workers:
        (line,) = workers.ask(name, NOTHING)
        assert line["error"].startswith("no run") and "\n" not in line["error"] and not workers._alive


def test_a_run_may_have_any_name_that_a_folder_has(runs: Path, tmp_path: Path) -> None:
    names = ["--help", "a b", "é\n", "'; exit 1"]
    for name in names:
        (tmp_path / name).mkdir()
        shutil.copy(runs / "odd/recipe.yaml", tmp_path / name)
    with Workers(tmp_path) as workers:
        for name in names:
            (line,) = workers.ask(name, NOTHING)
            assert "no request" in line["error"]


def test_a_stopped_request_does_not_disturb_the_next(workers: Workers) -> None:
    whole = episode(workers, 60)
    for read in (1, 3):
        lines = workers.ask("odd", {"do": "episode", "seed": 61})
        assert [next(lines) for _ in range(read)] and not lines.close()
        assert episode(workers, 60) == whole
    lines = workers.ask("odd", {"do": "episode", "seed": HANGS})
    assert [next(lines) for _ in range(3)]
    wait_until(lambda: is_asleep(pid(workers)))  # it hangs, so the next one waits for its deadline
    lines.close()
    assert list(workers.ask("odd", {"do": "episode"}, 1.0)) == [{"error": "took longer than 1 s"}]


def test_requests_to_a_run_are_answered_one_after_another(workers: Workers) -> None:
    episode(workers, 30)
    order: list[tuple[int, int]] = []

    def ask(seed: int) -> None:
        order.extend((seed, k) for k, _ in enumerate(workers.ask("odd", {"do": "episode", "seed": seed})))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in (70, 71, 72)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(order) == 36 and [order[i][1] for i in range(36)] == [*range(12)] * 3


def test_a_process_that_dies_or_hangs_gives_its_last_words_and_is_replaced(runs: Path) -> None:
    with Workers(runs) as workers:
        gone = episode(workers, EXITS)
        assert [list(line) for line in gone] == [["more"]] * 3 + [["error"]]
        assert "exit code 7" in gone[-1]["error"] and "these are my last words" in gone[-1]["error"]
        lines = workers.ask("odd", {"do": "episode", "seed": HANGS})
        assert [next(lines) for _ in range(3)]
        first = pid(workers)
        threading.Timer(0.2, os.kill, [first, signal.SIGKILL]).start()
        (line,) = lines
        assert "SIGKILL" in line["error"]
        lines = workers.ask("odd", {"do": "episode", "seed": HANGS}, 8.0)  # with the start of a process
        begun = time.monotonic()
        assert [list(line) for line in lines][-1] == ["error"] and 7 < time.monotonic() - begun < 60
        assert not workers._alive["odd"].is_alive
        assert "no request" in next(workers.ask("odd", NOTHING))["error"] and pid(workers) != first


def is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def is_asleep(number: int) -> bool:
    return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_processes_end_with_the_server_when_it_is_killed(runs: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rllab.board.workers import Workers\n"
        "print([m for m in ('torch', 'gymnasium') if m in sys.modules])\n"
        f"workers = Workers(Path({str(runs)!r}))\n"
        f"for line in workers.ask('odd', {{'do': 'episode', 'seed': {HANGS}}}):\n"
        "    print(workers._alive['odd']._process.pid, flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdout.readline() == "[]\n"
        (number,) = {int(server.stdout.readline()) for _ in range(3)}
        assert is_alive(number)
        server.kill()
        wait_until(lambda: not is_alive(number))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_two_are_alive_at_most_and_idle_ones_are_ended(runs: Path, tmp_path: Path) -> None:
    for name in "abc":
        shutil.copytree(runs / "odd", tmp_path / name)
    with Workers(tmp_path, idle=0.5) as workers:
        numbers = {}
        for name in "abac":
            list(workers.ask(name, NOTHING))
            numbers[name] = pid(workers, name)
            assert len(workers._alive) <= 2
        assert list(workers._alive) == ["a", "c"] and not is_alive(numbers["b"])
        held = [workers.ask(name, {"do": "episode", "seed": 1}) for name in "ac"]
        assert [next(lines) for lines in held]  # both are in the middle of an answer
        (line,) = workers.ask("b", NOTHING, 0.2)
        assert line["error"] == "a and c are busy; 2 runs are loaded at a time"
        for lines in held:
            lines.close()
        assert workers._alive
        wait_until(lambda: not workers._alive)
        assert not any(map(is_alive, numbers.values()))
        list(workers.ask("a", NOTHING))
        last = pid(workers, "a")
    assert not is_alive(last) and list(workers.ask("a", NOTHING)) == [{"error": "the board was closed"}]


def apart(function: Any, *arguments: Any) -> Any:
    """Runs a coroutine in a thread: a browser of other tests may have a running loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(anyio.run, function, *arguments).result()


def test_two_boards_answer_alike_and_a_client_that_leaves_stops_its_request(runs: Path, workers: Workers) -> None:
    whole = episode(workers, 80)

    async def read(asked: Workers, most: int) -> list[bytes]:
        lines = streamed(asked.ask("odd", {"do": "episode", "seed": 80}))
        read = [line async for line, _ in aenumerate(lines, most)]
        await lines.aclose()  # type: ignore[attr-defined]
        return read

    async def aenumerate(lines: Any, most: int) -> Any:
        k = 0
        async for line in lines:
            yield line, k
            if (k := k + 1) == most:
                return

    with Workers(runs) as other:
        assert [json.loads(line) for line in apart(read, other, 99)] == whole
        assert len(apart(read, other, 2)) == 2
        assert not other._alive["odd"].users and [json.loads(line) for line in apart(read, other, 99)] == whole
    assert episode(workers, 80) == whole


def test_a_newer_checkpoint_is_loaded(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "odd", tmp_path / "odd")
    with Workers(tmp_path) as workers:
        assert episode(workers, 1)[0]["more"]["checkpoint"] == 1
        run(read_recipe(ODD, "odd.yaml", TESTS, "odd", ["total_steps=3"]), tmp_path / "odd")
        assert episode(workers, 1)[0]["more"]["checkpoint"] == 3
        assert episode(workers, 1, checkpoint=1)[0]["more"]["checkpoint"] in (1, 3)
