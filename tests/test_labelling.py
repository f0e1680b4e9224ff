"""Labelling: where pairs come from, who is asked what, agreement, and the page in a real browser."""

import errno
import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import axe, board, browser_page, chromium, ink, overflow  # noqa: F401 - fixtures
from conftest import run, smoke_runs
from labelled import label, tickets, write_poles, write_tickets
from typer.testing import CliRunner

from rllab.board.clip_pairs import of_control_run
from rllab.board.labels import Labelling, answers, clips_of, label_routes
from rllab.board.pairs import of_file, of_runs
from rllab.cli import app
from rllab.cli.label import prepared
from rllab.control.clips import load_clips
from rllab.core.errors import Mistake
from rllab.core.labels import LabelFile, read_labels
from rllab.core.recipe import load_recipe
from rllab.core.run import RunFolder
from rllab.evals.agreement import agreement, positions


def samples(folder: Path, name: str, *rows: dict[str, Any]) -> RunFolder:
    """A run whose samples are given."""
    run = RunFolder(folder / name)
    run.path.mkdir(parents=True)
    (run.path / "recipe.yaml").write_text("algo: GRPO\nseed: 0\ntotal_steps: 1\ntask: tickets\n")
    (run.path / "samples.jsonl").write_text("".join(json.dumps({"step": 1} | row) + "\n" for row in rows))
    return run


def completions(prompt: str, row: int, *texts: str, **more: Any) -> list[dict[str, Any]]:
    return [{"row": row, "sample": i, "prompt": prompt, "completion": t} | more for i, t in enumerate(texts)]


def test_pairs_of_one_run_are_the_completions_of_a_group(tmp_path: Path) -> None:
    rows = [*completions("1 + 1", 0, "3", "2", "2", gold=0.5), *completions("2 + 2", 1, "4"), {"better": "x"}]
    run = samples(tmp_path, "grpo-1", *rows)
    pairs = of_runs([run], [None], 10, 0)
    assert [(r["prompt"], r["a"], r["b"], r["gold"], r["from"]) for r in pairs.rows] == [
        ("1 + 1", "2", "3", [0.5, 0.5], ["grpo-1", "grpo-1"])
    ]
    assert pairs.notes == ["1 pairs of equal answers are left out"]
    with pytest.raises(Mistake, match="grpo-2 have no two completions of one prompt; compare two runs"):
        of_runs([samples(tmp_path, "grpo-2", *completions("1", 0, "1"))], [None], 10, 0)
    with pytest.raises(Mistake, match="has no samples of round 7"):
        of_runs([run], [7], 10, 0)


def test_pairs_of_two_runs_are_of_the_same_row(tmp_path: Path) -> None:
    one = samples(
        tmp_path, "one", *completions("1 + 1", 0, "2", correct=True), *completions("2 + 2", 1, "5", correct=False)
    )
    two = samples(
        tmp_path, "two", *completions("2 + 2", 1, "4", correct=True), *completions("3 + 3", 2, "6", correct=True)
    )
    (row,) = of_runs([one, two], [None, None], 10, 0).rows
    assert (row["a"], row["b"], row["gold"], row["from"]) == ("4", "5", [1.0, 0.0], ["two", "one"])
    (other,) = of_runs([two, one], [None, None], 10, 0).rows
    with pytest.raises(Mistake, match="two has no samples of round 7"):
        prepared(["one@1", "two@7"], tmp_path / "p.jsonl", "", tmp_path, pairs=9, overlap=0.0, seed=0, at=(None, None))
    assert other["pair"] == row["pair"]  # the same two answers are one pair, wherever they come from


def test_an_answer_that_no_file_can_hold_is_labelled_all_the_same(tmp_path: Path) -> None:
    run = samples(tmp_path, "grpo-1", *completions("1 + 1", 0, "half of \ud83d", "2"))
    page = Labelling(of_runs([run], [None], 10, 0).rows, tmp_path / "p.jsonl", answers)
    assert len(judge(page, "ann", 1)) == 1 and read_labels(page.path).labels[0]["b"] == "half of ?"


def test_pairs_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    lines = [
        {"prompt": "1 + 1", "a": "3", "b": "2", "gold": [0, 1]},
        {"prompt": [{"role": "user", "content": "hello"}], "a": "hi", "b": "hey"},
        {"prompt": "1 + 1", "a": "2", "b": "2"},
        {"prompt": "1 + 1", "a": 2, "b": "3"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "garbage\n")
    pairs = of_file(path)
    assert [(r["a"], r["b"], r.get("gold")) for r in pairs.rows] == [("2", "3", [1, 0]), ("hey", "hi", None)]
    assert [n.partition(": ")[0] for n in pairs.notes[:2]] == [f"{path}:4", f"{path}:5"]
    path.write_text("garbage\n")
    with pytest.raises(Mistake, match=r"has no pairs\n.*pairs.jsonl:1: this line is not JSON"):
        of_file(path)


def labelling(path: Path, count: int = 20, **more: Any) -> Labelling:
    rows = [{"pair": label(content, "a", 0)["pair"]} | content for content, _ in tickets(count)]
    return Labelling(rows, path, answers, **more)


def judge(page: Labelling, who: str, count: int, side: str = "left") -> list[str]:
    """Judges the next pairs, and returns them."""
    pairs = []
    for _ in range(count):
        item = page.item(who)
        if "pair" not in item:
            break
        pairs.append(item["pair"])
        page.judge(who, item["pair"], side, f"{who}-{item['pair']}")
    return pairs


def test_a_share_of_the_pairs_is_given_to_both_and_the_others_once(tmp_path: Path) -> None:
    one, two = (labelling(tmp_path / "p.jsonl", 40, overlap=0.25) for _ in range(2))  # as two processes have them
    ann, bob = list[str](), list[str]()
    for _ in range(40):
        ann += judge(one, "ann", 1)
        bob += judge(two, "bob", 1)
    both = set(ann) & set(bob)
    assert set(ann) | set(bob) == set(one.by_id) and both == set(one._shared) and 4 <= len(both) <= 16
    assert len(ann) == len(set(ann)) and one.item("ann")["progress"]["left"] == 0 and "pair" not in one.item("ann")
    first = set(ann[:12]) & set(bob[:12])  # those who stop early share pairs as well
    assert len(first) == 3


def test_sides_are_random_by_seed_and_recorded(tmp_path: Path) -> None:
    page = labelling(tmp_path / "p.jsonl", 200)
    lefts = [page.left(pair) for pair in page.by_id]
    assert 0.4 < lefts.count("a") / len(lefts) < 0.6
    same, other = labelling(tmp_path / "q.jsonl", 200), labelling(tmp_path / "q.jsonl", 200, seed=1)
    assert lefts == [same.left(pair) for pair in page.by_id] != [other.left(pair) for pair in page.by_id]
    judge(page, "ann", 60)
    labels = read_labels(page.path).labels
    assert all(row["preferred"] == row["left"] == page.left(row["pair"]) for row in labels)
    (row,) = positions(read_labels(page.path))
    assert row["left"] == 1.0 and row["low"] > 0.9  # one who always takes the left one is noticed
    item = page.item("bob")
    content = page.by_id[item["pair"]]
    shown = ["".join(part["text"] for part in side) for side in item["sides"]]
    assert shown == ([content["a"], content["b"]] if page.left(item["pair"]) == "a" else [content["b"], content["a"]])


def test_undo_shows_the_pair_again_and_is_appended(tmp_path: Path) -> None:
    page = labelling(tmp_path / "p.jsonl")
    pairs = judge(page, "ann", 3)
    before = page.path.read_bytes()
    assert page.undo("ann", "undo-0001") == pairs[2] and page.undo("ann", "undo-0002") == pairs[1]
    assert page.path.read_bytes().startswith(before) and read_labels(page.path).withdrawn == 2
    assert page.item("ann", pairs[1])["progress"] == {"done": 1, "left": 19, "pairs": 20}
    assert page.undo("bob", "undo-0003") == ""


def test_agreement_of_labelers_and_gold(tmp_path: Path) -> None:
    """Ten pairs that both judged, of which they judge eight alike: table [[4, 1], [1, 4]], so kappa is 0.6."""
    file = LabelFile(tmp_path / "p.jsonl")
    for i in range(10):
        content = {"prompt": f"{i}", "a": "x", "b": "y", "gold": [1, 0] if i < 5 else [0, 1]}
        file.append(label(content, "a" if i < 5 else "b", i))
        file.append(label(content, "a" if i in (0, 1, 2, 3, 9) else "b", i, "bob"))
    file.append(label({"prompt": "x", "a": "x", "b": "y"}, "a", 10))
    file.append(label({"prompt": "y", "a": "x", "b": "y"}, "skip", 11, "bob"))
    labels = read_labels(file.path)
    rows = {(r["one"], r["other"]): r for r in agreement(labels)}
    assert list(rows) == [("ann", "bob"), ("ann", "gold"), ("bob", "gold")]
    assert rows["ann", "bob"]["pairs"] == 10 and rows["ann", "bob"]["kappa"] == pytest.approx(0.6)
    assert rows["ann", "bob"]["low"] < 0.6 < rows["ann", "bob"]["high"]
    assert (rows["ann", "gold"]["kappa"], rows["bob", "gold"]["agree"]) == (1.0, 0.8)
    result = CliRunner().invoke(app, ["label", "--report", "--out", str(file.path)], catch_exceptions=False)
    assert (
        result.exit_code == 0
        and "0.60 [0.1" in result.output
        and "11 of 12 pairs have a preferred one" not in result.output
    )
    result = CliRunner().invoke(app, ["label", "--report", "--json", "--out", str(file.path)], catch_exceptions=False)
    assert json.loads(result.output)["agreement"][0]["pairs"] == 10


def test_labels_of_another_source_stay_and_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = write_tickets(tmp_path / "preferences.jsonl", 5)
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(content) + "\n" for content, _ in list(tickets(8))[3:]))
    settings: dict[str, Any] = {"pairs": 10, "overlap": 0.0, "seed": 0, "at": (None, None)}
    page = prepared([str(source)], out, "ann", tmp_path, **settings)
    assert "3 of 5 pairs in" in capsys.readouterr().err
    assert page.item("ann")["progress"] == {"done": 2, "left": 3, "pairs": 5}
    with pytest.raises(Mistake, match=r"clips.jsonl:1 is a label of clips, \(3 are\): use another --out"):
        prepared([str(source)], write_poles(tmp_path / "clips.jsonl", 3), "ann", tmp_path, **settings)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smoke_runs(tmp_path_factory.mktemp("runs"), "rlhf-control")


def test_clips_of_a_control_run_train_another(control: Path, tmp_path: Path) -> None:
    """The pairs are the same in each process, their gold scores are the true returns, and labels of them train."""
    (tmp_path / "other").mkdir()
    first, second = (
        of_control_run(control / "rlhf-control", None, 6, None, 3, f) for f in (tmp_path, tmp_path / "other")
    )
    assert first == second and len({r["pair"] for r in first.rows}) == 6
    arrays = load_clips(tmp_path, first.rows[0]["clips"])
    assert arrays["obs"].shape[1:] == (8, 4) and arrays["state"].shape[1:] == (9, 4)
    assert np.allclose(arrays["obs"], arrays["state"][:, :-1], atol=1e-6)
    assert set(arrays["score"].tolist()) <= {7.0, 8.0} and len(set(arrays["score"].tolist())) == 2
    page = Labelling(first.rows, tmp_path / "preferences.jsonl", clips_of(tmp_path))
    item = page.item("ann")
    assert [len(s["states"]) for s in item["sides"]] == [9, 9] and item["sides"][0]["kind"] == "cartpole"
    assert len(judge(page, "ann", 6)) == 6
    trained = run(load_recipe("rlhf-control", [f"labels={page.path}"], smoke=True), tmp_path / "run")
    assert len(trained.algorithm.compared) == 6  # type: ignore[attr-defined]


def test_episodes_that_are_shorter_than_clips(control: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rllab.board.clip_pairs._PATIENCE", 3)
    with pytest.raises(Mistake, match=r"3 episodes have 0 clips of 400 steps: make --length smaller"):
        of_control_run(control / "rlhf-control", None, 2, 400, 0, tmp_path)
    monkeypatch.setattr("rllab.board.clip_pairs._MOST_STEPS", 60)
    pairs = of_control_run(control / "rlhf-control", None, 50, 8, 0, tmp_path)
    assert 1 <= len(pairs.rows) < 50 and "pairs instead of 50" in pairs.notes[0]


def test_clips_of_an_environment_without_a_drawing_are_pictures(tmp_path: Path) -> None:
    words = ["env=Taxi-v4", "total_steps=2", "eval_episodes=1", "headline_episodes=1"]
    pytest.importorskip("pygame")
    path = run(load_recipe("cartpole", words, smoke=True), tmp_path / "taxi").folder.path
    pairs = of_control_run(path, None, 2, 4, 0, tmp_path)
    sides = clips_of(tmp_path)(pairs.rows[0])
    assert [len(s["images"]) for s in sides] == [5, 5]
    assert all(image.startswith("data:image/png;base64,") for s in sides for image in s["images"])


def wait(page: Any, done: int) -> None:
    page.locator("#progress", has_text=re.compile(f"^{done} judged")).wait_for()
    page.locator("body[data-state=ready]").wait_for()


def test_ten_pairs_are_labelled_by_keys_and_trained_on(browser_page: Any, board: Any, tmp_path: Path) -> None:  # noqa: F811
    own = labelling(tmp_path / "preferences.jsonl", 10, who="ann")
    address = board(tmp_path, lambda _: label_routes(own), prefix="/rnode/8000").replace("/?", "/label?")
    page = browser_page()
    page.goto(address)
    wait(page, 0)
    keys = [
        "ArrowLeft",
        "1",
        "ArrowRight",
        "2",
        "t",
        "s",
        "ArrowLeft",
        "ArrowLeft",
        "u",
        "ArrowLeft",
        "ArrowLeft",
        "ArrowRight",
    ]
    done = 0
    for key in keys:
        pair = own.item("ann").get("pair")
        page.keyboard.press(key)
        done += -1 if key == "u" else 1
        wait(page, done)
        if key not in ("s", "u", "t"):
            text = page.locator("#left").inner_text()
            assert pair and text is not None
    assert page.locator("#progress").inner_text().endswith("All pairs are judged: thank you.")
    labels = read_labels(own.path)
    assert labels.withdrawn == 1 and not labels.faults and len(labels.labels) == 10
    assert {row["by"] for row in labels.labels} == {"ann"} and labels.counts()["decided"] == 8
    recipe = load_recipe("reward-model", [f"task={own.path}"], smoke=True)
    with pytest.warns(UserWarning, match=r"8 of 10 pairs have a preferred one; 1 ties \(left out\); 1 skipped"):
        trained = run(recipe, tmp_path / "run")
    assert trained.algorithm.pairs > 8 and RunFolder(tmp_path / "run").state == "done"  # type: ignore[attr-defined]


def test_hostile_answers_are_inert_and_a_lost_answer_is_sent_again(
    browser_page: Any,  # noqa: F811
    board: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    hostile = "<img src=x onerror=document.title='broken'><script>document.title='broken'</script>"
    content = {"prompt": hostile, "a": f"<think>{hostile}</think>{hostile}", "b": "b"}
    row = {"pair": label(content, "a", 0)["pair"]} | content
    own = Labelling([row], tmp_path / "p.jsonl", answers, "ann")
    page = browser_page(width=390)
    page.goto(board(tmp_path, lambda _: label_routes(own)).replace("/?", "/label?"))
    wait(page, 0)
    assert (
        page.locator(".sides details:not([open])").count() == 1
        and page.locator(".sides img, .sides script").count() == 0
    )
    assert "broken" not in page.title() and hostile in page.locator(".sides").text_content() and overflow(page) <= 0
    page.route("**/label.json", lambda route: (route.fetch(), route.abort()))  # saved, and the answer is lost
    page.keyboard.press("t")
    page.locator("#problem", has_text="not saved yet").wait_for()
    page.locator("body[data-state=ready]").wait_for()
    page.problems.clear()  # the browser's own message on the lost answer
    page.unroute("**/label.json")
    page.keyboard.press("t")
    wait(page, 1)
    labels = read_labels(own.path)
    assert len(labels.labels) == 1 and labels.repeated == 1 and labels.labels[0]["preferred"] == "tie"


def test_a_disk_that_is_full_costs_no_label(
    browser_page: Any,  # noqa: F811
    board: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = labelling(tmp_path / "p.jsonl", 2, who="ann")
    page = browser_page()
    page.goto(board(tmp_path, lambda _: label_routes(own)).replace("/?", "/label?"))
    wait(page, 0)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("rllab.core.labels.os.fsync", full)
        page.keyboard.press("ArrowLeft")
        page.locator("#problem", has_text="not saved yet: ").filter(has_text="No space left on device").wait_for()
        page.locator("body[data-state=ready]").wait_for()
    page.problems.clear()  # the browser's own message on the answer 500
    page.keyboard.press("ArrowLeft")
    wait(page, 1)
    assert len(read_labels(own.path).labels) == 1


def test_two_people_label_in_two_tabs(browser_page: Any, board: Any, tmp_path: Path) -> None:  # noqa: F811
    own = labelling(tmp_path / "p.jsonl", 6, who="ann", overlap=1.0)
    address = board(tmp_path, lambda _: label_routes(own)).replace("/?", "/label?")
    tabs = [browser_page(), browser_page()]
    for page in tabs:
        page.goto(address)
        wait(page, 0)
    tabs[1].fill("#who", "bob")
    tabs[1].keyboard.press("Enter")
    wait(tabs[1], 0)
    for done in range(6):
        for page, key in zip(tabs, ("ArrowLeft", "ArrowRight"), strict=True):
            page.keyboard.press(key)
        for page in tabs:
            wait(page, done + 1)
    labels = read_labels(own.path)
    assert sorted(row["by"] for row in labels.labels) == ["ann"] * 6 + ["bob"] * 6 and not labels.repeated
    assert agreement(labels)[0]["pairs"] == 6 and agreement(labels)[0]["agree"] == 0


def test_clips_play_side_by_side(browser_page: Any, board: Any, control: Path, tmp_path: Path) -> None:  # noqa: F811
    pairs = of_control_run(control / "rlhf-control", None, 2, 8, 0, tmp_path)
    own = Labelling(pairs.rows, tmp_path / "p.jsonl", clips_of(tmp_path), "ann")
    page = browser_page(scheme="dark")
    page.goto(board(tmp_path, lambda _: label_routes(own)).replace("/?", "/label?"))
    wait(page, 0)
    for side in ("#left", "#right"):
        page.locator(f"{side} canvas[height='400']").wait_for()
        assert ink(page, side) > 1000
    page.keyboard.press("r")
    page.keyboard.press("ArrowRight")
    wait(page, 1)
    assert overflow(page) <= 0 and read_labels(own.path).labels[0]["clips"] == pairs.rows[0]["clips"]
    assert axe(page) == []


def test_the_command_serves_the_page_and_ends_by_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(content) + "\n" for content, _ in tickets(4)))
    words = ["label", "pairs.jsonl", "--who", "ann"]
    process = subprocess.Popen([sys.executable, "-m", "rllab", *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    assert lines[0] == "4 pairs; labels go to preferences.jsonl\n" and "ssh -N -L" in lines[2]
    address = re.search(r"http\S+", lines[1])
    assert address and "/label?token=" in address[0]
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    assert b'value="ann"' in opener.open(address[0]).read()

    def ask(**request: str) -> Any:
        where = address[0].partition("?")[0] + ".json"  # type: ignore[index]
        body = urllib.request.Request(where, json.dumps(request).encode(), {"content-type": "application/json"})
        return json.loads(opener.open(body).read())

    pair = ask(do="next", who="ann")["pair"]
    assert ask(do="judge", who="ann", pair=pair, side="right", id="0123456789")["progress"]["done"] == 1
    for wrong in (
        {"do": "judge", "who": "ann", "pair": "other", "side": "left", "id": "0123456789"},
        {"do": "judge", "who": "ann", "pair": pair, "side": "up", "id": "0123456789"},
        {"do": "judge", "who": "ann", "pair": pair, "side": "left", "id": "../"},
        {"do": "next", "who": " "},
        {"do": "sing", "who": "ann"},
    ):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            ask(**wrong)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 0
    process.stdout.close()
    (row,) = read_labels(tmp_path / "preferences.jsonl").labels
    assert row["by"] == "ann" and row["left"] != row["preferred"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a run, two runs, or a JSONL file of pairs"),
        (["a", "b", "c"], "name a run, two runs, or a JSONL file of pairs"),
        (["nothing.jsonl"], "nothing.jsonl cannot be read"),
        (["nothing"], "no run"),
        (["pairs.jsonl", "--out", "nowhere/p.jsonl"], "--out nowhere/p.jsonl: there is no folder .*; make it first"),
        (["--report"], "there is no file preferences.jsonl; rllab label writes one"),
    ],
)
def test_commands_that_cannot_be_carried_out(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Mistake, match=message):
        CliRunner().invoke(app, ["label", *words], catch_exceptions=False)
