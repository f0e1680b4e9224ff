"""Files of labels: no label is lost or doubled at a kill, every broken line is named, and both learners learn them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run
from labelled import label, poles, tickets, write_poles, write_tickets
from rllab_envs.tasks import dataset
from test_prefppo import CTX

import rllab
from rllab.algos.prefppo import PrefPPO
from rllab.control.clips import load_clips, save_clips
from rllab.core.algorithm import Context
from rllab.core.begin import open_run
from rllab.core.errors import FieldMistake, Mistake
from rllab.core.labels import LabelFile, LabelFollower, Labels, described, is_labels, read_labels
from rllab.core.load import preflight
from rllab.core.recipe import load_recipe
from rllab.core.run import RunFolder
from rllab.testing import check_algorithm

WRITER = """
import sys, time
from pathlib import Path
from rllab.core.labels import LabelFile, pair_id
path, by, first = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
file = LabelFile(path)
for i in range(first, first + 100_000):
    content = {"prompt": f"question {i}", "a": "x" * 3000, "b": "y"}
    print(f"{by}-{i} begins", flush=True)
    row = {"id": f"{by}-{i}", "pair": pair_id(content), "preferred": "a", "by": by, "time": "t", "left": "b"}
    file.append(row | content)
    print(f"{by}-{i} done", flush=True)
    time.sleep(0.01)
"""


def start(path: Path, by: str, first: int) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", WRITER, str(path), by, str(first)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_no_label_is_lost_or_doubled_where_one_of_two_processes_is_killed(tmp_path: Path) -> None:
    """One process labels throughout; another one is killed at random moments, and its labeler begins anew."""
    path, chance = tmp_path / "preferences.jsonl", random.Random(0)
    steady, done, begun = start(path, "ann", 0), set[str](), set[str]()
    for turn in range(4):
        killed = start(path, "bob", 1000 * turn)
        assert killed.stdout is not None
        lines = [killed.stdout.readline() for _ in range(2)]
        time.sleep(chance.uniform(0.0, 0.15))
        os.kill(killed.pid, signal.SIGKILL)
        for line in [*lines, *killed.communicate()[0].splitlines()]:
            name, what = line.split()
            (done if what == "done" else begun).add(name)
    os.kill(steady.pid, signal.SIGTERM)
    lines = steady.communicate()[0].splitlines()
    done |= {line.split()[0] for line in lines if line.endswith("done")}
    begun |= {line.split()[0] for line in lines}
    labels = read_labels(path)
    ids = [row["id"] for row in labels.labels]
    assert len(done) > 20 and sum(name.startswith("bob") for name in done) >= 4
    assert done <= set(ids) <= begun and len(ids) == len(set(ids)) and not labels.repeated
    assert len(labels.faults) <= 5  # at most one half line for each process


def test_what_a_killed_process_has_half_written_costs_its_own_line(tmp_path: Path) -> None:
    path = write_tickets(tmp_path / "preferences.jsonl", 3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert [line for line, _ in read_labels(path).faults] == [3]
    content, better = list(tickets(4))[3]
    LabelFile(path).append(label(content, better, 3))
    labels = read_labels(path)
    assert [row["id"] for row in labels.labels] == ["ann-0", "ann-1", "ann-3"]
    assert [line for line, _ in labels.faults] == [3] and "half of one" in labels.fault_lines()[0]


def written(folder: Path, *rows: object) -> Labels:
    path = folder / "preferences.jsonl"
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return read_labels(path)


def test_votes_undo_and_repeats(tmp_path: Path) -> None:
    (one, _), (two, _), (three, _), (four, _) = tickets(4)
    undo = {"id": "u1", "undo": "ann-0", "by": "ann", "time": "t"}
    labels = written(
        tmp_path,
        label(one, "a", 0), undo, label(one, "b", 1), undo,  # withdrawn, given anew; the retry counts once
        label(two, "a", 2), label(two, "b", 0, "bob"),  # as many one way as the other: a tie
        label(three, "skip", 3), label(three, "b", 1, "bob"), label(three, "tie", 2, "cy"),  # no majority
        label(four, "a", 4), label(four, "b", 5), label(four, "a", 3, "bob"), label(four, "b", 3, "cy"),
        label(four, "b", 3, "cy"),
    )  # fmt: skip
    pairs = list(labels.pairs.values())
    assert [p.preferred for p in pairs] == ["b", "tie", "tie", "b"]
    assert [p.differs for p in pairs] == [False, True, True, True]
    counts = labels.counts()
    assert (counts["withdrawn"], counts["replaced"], counts["repeated"], counts["faults"]) == (1, 1, 2, 0)
    assert counts["decided"] == 2 and counts["ties"] == 2 and counts["differing"] == 3
    assert "2 of 4 pairs have a preferred one; 2 ties (left out); 3 judged differently" in described(counts, "left out")


def test_after_an_undo_the_labelers_earlier_label_counts_again(tmp_path: Path) -> None:
    content, _ = next(tickets(1))
    undo = {"id": "u1", "undo": "ann-1", "by": "ann", "time": "t"}
    labels = written(tmp_path, label(content, "a", 0), label(content, "b", 1), undo)
    assert [p.preferred for p in labels.pairs.values()] == ["a"] and labels.replaced == 0
    labels = written(tmp_path, label(content, "a", 1), undo)
    assert labels.counts()["without_label"] == 1 and labels.labels == []


def test_bad_lines_are_named_with_their_numbers(tmp_path: Path) -> None:
    (one, _), (two, _) = tickets(2)
    good, changed = label(one, "a", 0), label(two, "a", 1) | {"a": "another answer"}
    labels = written(
        tmp_path, good, "garbage\n", "[1]\n", changed, label(two, "left", 2), {"id": "x", "by": "ann"},
        {"id": "u1", "undo": "ann-9", "by": "ann", "time": "t"},
        {"id": "u2", "undo": "ann-0", "by": "bob", "time": "t"},
        {k: v for k, v in label(two, "a", 3).items() if k not in ("a", "b")}, '{"id": "half"\n',
        label({"clips": "../../etc", "a": 0, "b": 1}, "a", 4),
    )  # fmt: skip
    assert [row["id"] for row in labels.labels] == ["ann-0"]
    lines = "\n".join(labels.fault_lines())
    assert sorted(line for line, _ in labels.faults) == list(range(2, 12)), labels.faults
    for text in (
        "line 2 to 3, 10: this line is not a JSON object",
        "line 4: its pair is another than that of its prompt, a and b",
        "line 5: its preferred is not a, b, tie or skip",
        "line 6: this is no label: it lacks pair, time",
        "line 7: this withdraws a label that is not in the file before it",
        "line 8: this withdraws a label of another labeler",
        "line 9, 11: it has neither a prompt with texts a and b, nor clips",
    ):
        assert text in lines, lines


def test_a_file_is_followed_while_it_grows(tmp_path: Path) -> None:
    path, pairs = tmp_path / "preferences.jsonl", list(tickets(4))
    lines = [json.dumps(label(content, "a", i)).encode() + b"\n" for i, (content, _) in enumerate(pairs)]
    lines[2:2] = [b"\n", b"garbage\n"]
    undo = json.dumps({"id": "u1", "undo": "ann-0", "by": "ann", "time": "t"}).encode() + b"\n"
    whole = b"".join([*lines, undo])
    follower = LabelFollower(path)
    for end in (*range(1, len(whole), 97), len(whole)):
        path.write_bytes(whole[:end])
        followed = follower.read()
        path.write_bytes(whole[: whole.rfind(b"\n", 0, end) + 1])
        expected = read_labels(path)
        assert followed.counts() == expected.counts() and followed.labels == expected.labels
    assert followed.faults == read_labels(path).faults and followed.faults[0][0] == 4
    path.write_bytes(lines[0])
    assert len(follower.read().labels) == 1 and follower.read().faults == []
    path.write_bytes(b"".join(lines[4:] * 2 + lines[:1]))  # somebody has rewritten it, and it is longer now
    assert follower.read().counts() == read_labels(path).counts() and follower.read().faults == []


def test_a_file_of_labels_is_told_from_other_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "1 + 1", "chosen": "2", "rejected": "3", "id": "x"}\n')
    assert not is_labels(path)
    content = {"prompt": "x" * 100_000, "a": "1", "b": "2"}
    path.write_text(json.dumps(label(content, "a", 0)) + "\n")
    assert is_labels(path) and not is_labels(tmp_path / "nothing.jsonl")


def test_all_pairs_of_a_prompt_are_in_one_split(tmp_path: Path) -> None:
    path, pairs = tmp_path / "preferences.jsonl", list(tickets(40))
    file = LabelFile(path)
    for i, (content, better) in enumerate(pairs):
        more = {"prompt": content["prompt"], "a": "another", "b": "yet another"}
        file.append(label(content, better, i))
        file.append(label(more, "a", 100 + i))
    task = dataset(str(path))
    prompts = {
        s: [json.dumps(task.row(i, s)["prompt"]) for i in range(task.size(s))] for s in ("train", "validation", "test")
    }
    assert all(prompts.values()) and sum(map(len, prompts.values())) == len(read_labels(path).pairs) > 60
    assert len(set().union(*prompts.values())) == sum(len(set(p)) for p in prompts.values())
    row = task.row(0, "test")
    assert (
        row["chosen"][0]["role"] == "assistant" and "gold" not in row and task.place(0, "test").startswith(f"{path}:")
    )


def test_ties_skips_and_broken_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    path = write_tickets(tmp_path / "preferences.jsonl", 30)
    file = LabelFile(path)
    for i, ((content, _), preferred) in enumerate(zip(list(tickets(33))[30:], ("tie", "skip", "tie"), strict=True)):
        file.append(label(content, preferred, 30 + i))
    with open(path, "a") as broken:
        broken.write("half of a li")
    with pytest.warns(UserWarning) as caught:
        task = dataset(str(path))
    messages = [str(w.message) for w in caught]
    assert any("line 34: this line is not a JSON object" in m for m in messages), messages
    assert any("30 of 33 pairs have a preferred one; 2 ties (left out); 1 skipped; 1 lines" in m for m in messages)
    assert sum(task.size(s) for s in ("train", "validation", "test")) == 30 and task.label_counts["ties"] == 2


def test_check_reports_the_labels(tmp_path: Path) -> None:
    path = write_tickets(tmp_path / "preferences.jsonl", 30)
    for recipe in ("reward-model", "dpo"):
        report = preflight(load_recipe(recipe, [f"task={path}"], smoke=True))
        assert report["labels"].numbers["decided"] == 30 and "30 of 30 pairs" in str(report["labels"])
    path = write_poles(tmp_path / "clips.jsonl", 6)
    report = preflight(load_recipe("rlhf-control", [f"labels={path}"], smoke=True))
    assert report["labels"].numbers["ties"] == 1 and "1 ties (1/2 for each clip)" in str(report["labels"])


def test_labels_of_the_other_kind_and_of_nothing_are_refused(tmp_path: Path) -> None:
    clips, texts = write_poles(tmp_path / "clips.jsonl", 3), write_tickets(tmp_path / "texts.jsonl", 3)
    with pytest.raises(
        FieldMistake, match=r"clips.jsonl:1 is a label of two clips of play \(3 are\).*rlhf-control labels="
    ):
        dataset(str(clips))
    with pytest.raises(Mistake, match=r"no label of clips that can be used\n.*line 1 to 3: this labels answers"):
        preflight(load_recipe("rlhf-control", [f"labels={texts}"], smoke=True))
    LabelFile(tmp_path / "tie.jsonl").append(label(next(tickets(1))[0], "tie", 0))
    with pytest.raises(FieldMistake, match=r"nothing to learn: 0 of 1 pairs have a preferred one; 1 ties"):
        dataset(str(tmp_path / "tie.jsonl"))
    with pytest.raises(Mistake, match=r"labels: no such file: .*nowhere\.jsonl"):
        load_recipe("rlhf-control", ["labels=nowhere.jsonl"])


def test_clips_of_another_environment_damaged_or_absent_are_refused(tmp_path: Path) -> None:
    path = write_poles(tmp_path / "clips.jsonl", 3)
    words = [f"labels={path}"]
    with pytest.raises(Mistake, match=r"clips have obs of shape \[4\], and those of the environment have \[3\]"):
        preflight(load_recipe("rlhf-control", [*words, "env=rllab/Pendulum-v1"], smoke=True))
    (file,) = tmp_path.glob("clips-*.safetensors")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(Mistake, match=r"line 1 to 3: .*is damaged: its content has another hash"):
        preflight(load_recipe("rlhf-control", words, smoke=True))
    file.unlink()
    with pytest.raises(Mistake, match=r"line 1 to 3: .*there is no such file; it belongs beside the labels"):
        preflight(load_recipe("rlhf-control", words, smoke=True))


def test_some_labels_that_do_not_fit_are_named_and_the_others_count(tmp_path: Path) -> None:
    path = write_poles(tmp_path / "clips.jsonl", 3)
    name = json.loads(path.read_text().split("\n")[0])["clips"]
    LabelFile(path).append(label({"clips": name, "a": 0, "b": 99}, "a", 9))
    LabelFile(path).append(label(next(tickets(1))[0], "a", 10))
    with pytest.warns(UserWarning) as caught:
        report = preflight(load_recipe("rlhf-control", [f"labels={path}"], smoke=True))
    messages = "\n".join(str(w.message) for w in caught)
    assert "line 4: it names clips [0, 99]" in messages and "line 5: this labels answers" in messages
    assert report


def test_clips_are_saved_once_and_by_their_content(tmp_path: Path) -> None:
    arrays = poles(5)
    name = save_clips(tmp_path, arrays)
    assert save_clips(tmp_path, dict(reversed(arrays.items()))) == name and len(list(tmp_path.iterdir())) == 1
    assert save_clips(tmp_path, arrays | {"score": arrays["score"] + 1}) != name
    read = load_clips(tmp_path, name)
    assert all((read[k] == v).all() and read[k].dtype == v.dtype for k, v in arrays.items())


def test_predictors_learn_labels_and_order_those_that_are_held_out(tmp_path: Path) -> None:
    path = write_poles(tmp_path / "clips.jsonl", 150, length=16)
    algorithm = PrefPPO(env="rllab/CartPole-v1", labels=str(path), reward_hidden=[16])
    algorithm.setup(CTX)
    algorithm.take_labels(0)
    rows = algorithm.everything_compared()
    assert rows["preferred"][-1] == 0.5 and len(rows["preferred"]) == 150
    before = algorithm.order_held_out()["eval/reward_accuracy"]
    optimizer = torch.optim.AdamW(algorithm.reward_net.parameters(), lr=3e-3)
    for batch in algorithm.comparison_batches(150, 0):
        optimizer.zero_grad()
        algorithm.reward_loss(batch)[0].backward()
        optimizer.step()
    after = algorithm.order_held_out()
    assert before < 0.7 and after["eval/reward_accuracy"] > 0.85, (before, after)
    assert after["eval/ties"] == pytest.approx(1 / 150)


def test_with_labels_the_true_reward_is_not_used(tmp_path: Path) -> None:
    path = write_poles(tmp_path / "clips.jsonl", 12)
    batches = []
    for factor in (1.0, 7.0):
        algorithm = PrefPPO(env="rllab/CartPole-v1", labels=str(path), num_steps=32)
        algorithm.setup(CTX)
        plain = algorithm.play
        algorithm.play = lambda *i, plain=plain, f=factor: (p := plain(*i)) | {"reward": f * p["reward"]}  # type: ignore[method-assign]
        with torch.no_grad():
            batches.append([u.batch for u in algorithm.collect(0)])  # type: ignore[union-attr]
    assert len(batches[0]) > 3
    assert all(torch.equal(v, b[k]) for a, b in zip(*batches, strict=True) for k, v in a.items())


def test_each_label_brings_as_many_updates_as_a_comparison_of_the_annotator(tmp_path: Path) -> None:
    path = write_poles(tmp_path / "clips.jsonl", 12)
    algorithm = PrefPPO(env="rllab/CartPole-v1", labels=str(path), num_steps=16, clip_length=8, reward_updates=2)
    algorithm.setup(Context(3, torch.device("cpu"), total_steps=4))
    with torch.no_grad():
        rounds = [[u for u in algorithm.collect(step) if u.parts == ("reward",)] for step in range(4)]  # type: ignore[union-attr]
    assert [len(r) for r in rounds] == [6, 8, 6, 4]


def test_a_run_on_labels_keeps_the_contract(tmp_path: Path) -> None:
    """It resumes bit-identically after a stop or a kill in each round."""
    path = write_poles(tmp_path / "clips.jsonl", 12)
    check_algorithm(load_recipe("rlhf-control", [f"labels={path}"], smoke=True), tmp_path / "runs")


def test_a_run_copies_its_labels_and_resumes_on_them(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    path = write_poles(tmp_path / "here/preferences.jsonl", 12)
    words = [f"labels={path}"]
    whole = run(load_recipe("rlhf-control", words, smoke=True), tmp_path / "whole")
    run(load_recipe("rlhf-control", words, smoke=True), tmp_path / "run", stop_after=2)
    folder = RunFolder(tmp_path / "run")
    assert folder.plain()["labels"] == "sources/preferences.jsonl"
    assert len(list((folder.path / "sources").glob("clips-*.safetensors"))) == 1
    LabelFile(path).append(label(next(tickets(1))[0], "a", 99))
    recipe = load_recipe("rlhf-control", words, smoke=True)
    with pytest.warns(
        UserWarning, match="preferences.jsonl has changed since the run began; the run uses its own copy"
    ):
        open_run(folder, recipe, None, tmp_path)
    for file in path.parent.iterdir():
        if file.is_file():
            file.unlink()
    resumed = run(folder.recipe(), folder.path)
    for part, module in whole.algorithm.parts().items():
        other = resumed.algorithm.parts()[part].state_dict()
        assert all(torch.equal(v, other[k]) for k, v in module.state_dict().items()), part
    drop = {"time"}
    rows = [
        [{k: v for k, v in r.items() if k.split("/")[0] not in drop} for r in RunFolder(tmp_path / n).rows()]
        for n in ("whole", "run")
    ]
    assert rows[0] == rows[1] and rows[0][-1]["data/comparisons"] == 12


def test_a_fork_takes_other_labels(tmp_path: Path) -> None:
    first, more = write_poles(tmp_path / "first.jsonl", 6), write_poles(tmp_path / "more.jsonl", 14)
    run(load_recipe("rlhf-control", [f"labels={first}"], smoke=True), tmp_path / "parent")
    recipe = RunFolder(tmp_path / "parent").recipe([f"labels={more}", "total_steps=6"])
    fork = run(recipe, tmp_path / "fork", fork="parent", runs=tmp_path)
    assert len(fork.algorithm.compared) == 14 and fork.algorithm.asked == 14  # type: ignore[attr-defined]
    assert RunFolder(tmp_path / "fork").plain()["labels"] == "sources/more.jsonl"


def test_a_reward_model_learns_labelled_answers(tmp_path: Path) -> None:
    """On labels of tickets it orders those that are held out."""
    path = write_tickets(tmp_path / "preferences.jsonl", 800)
    words = [f"task={path}", "total_steps=60", "batch_size=24", "eval_every=60", "optim.lr=1e-2", "headline_rows=80"]
    trained = run(load_recipe("reward-model", words, smoke=True), tmp_path / "run")
    headline = RunFolder(tmp_path / "run").status()["headline"]
    assert headline["name"] == "eval/gold_order" and headline["interval"][0] > 0.6, headline
    rows = [trained.algorithm._task.row(i, "test") for i in range(80)]  # type: ignore[attr-defined]
    model = rllab.load(tmp_path / "run")
    right = [
        np.diff(model.reward(r["prompt"][0]["content"], [r[c][0]["content"] for c in ("rejected", "chosen")]))[0] > 0
        for r in rows
    ]
    assert np.mean(right) == pytest.approx(headline["value"])
