"""Logs of lm-evaluation-harness 0.4.13 and of Inspect 0.3.285, in small files of their form."""

import gzip
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from test_score import rllab, write

from rllab.core.errors import Mistake
from rllab.evals import logs
from rllab.evals.logs import recorded_rows
from rllab.evals.problems import Problems
from rllab.evals.score import score
from rllab.evals.summary import summaries

Row = dict[str, Any]


def harness_rows(*filters: str) -> list[Row]:
    """A log of three documents with two samples each, of which every filter repeats all documents."""
    texts = [["It is 2.", "#### 3"], ["5", "5"], ["so #### 6", "7"]]
    return [
        {
            "doc_id": n,
            "doc": {"question": f"q{n}", "answer": f"so #### {target}"},
            "target": f"so #### {target}",
            "arguments": {"gen_args_0": {"arg_0": f"Q: q{n}\nA:", "arg_1": {"until": ["\n\n"], "max_gen_toks": 8}}},
            "resps": [texts[n]],
            "filtered_resps": ["[invalid]" if name == "strict" else "2"],
            "filter": name,
            "metrics": ["exact_match"],
            "exact_match": 0.0,
        }
        for name in filters
        for n, target in enumerate((2, 5, 6))
    ]


def scored(path: Path) -> tuple[list[tuple[Any, list[bool]]], Problems]:
    """(id, which samples are right) of each item."""
    problems = Problems()
    (file,), _ = score([path], None, "rllab", problems)
    return [(item[0].id, [s.graded.correct for s in item]) for item in file.items()], problems


@pytest.mark.parametrize("filters", [("none",), ("strict-match", "flexible-extract")])
def test_each_document_of_the_harness_counts_once(filters: tuple[str, ...], tmp_path: Path) -> None:
    items, problems = scored(write(tmp_path / "samples_gsm8k.jsonl", harness_rows(*filters)))
    assert items == [(0, [True, False]), (1, [True, True]), (2, [True, False])] and not problems
    rows = [row | {"doc": row["doc"] | {"id": f"d{row['doc_id']}"}} for row in harness_rows(*filters)]
    assert [name for name, _ in scored(write(tmp_path / "named.jsonl", rows))[0]] == ["d0", "d1", "d2"]


def test_a_log_of_the_harness_is_scored_by_a_key(tmp_path: Path) -> None:
    key = write(tmp_path / "gold.jsonl", [{"id": n, "target": t} for n, t in enumerate(("2", "5", "7", "8"))])
    done = rllab("score", "--key", key, write(tmp_path / "samples.jsonl", harness_rows("a", "b")), "--json")
    assert done.returncode == 0 and "such as id 2: 'so #### 6', not '7'" in done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["items"], row["samples"], row["missing"], row["differing"]) == (4, 6, 1, 1)
    assert row["accuracy"] == pytest.approx((0.5 + 1 + 0.5 + 0) / 4) and row["pass_at_k"][1] == 0.75


def test_log_likelihoods_are_no_completions(tmp_path: Path) -> None:
    row = harness_rows("none")[0] | {"resps": [[["-0.1", "False"]], [["-0.5", "True"]]]}
    broken = [{"doc_id": 1, "resps": 3, "filter": "none"}, {"doc_id": 1, "resps": [["1"]], "filter": "none", "doc": 0}]
    with pytest.raises(Mistake, match="it holds log-likelihoods and no completions") as error:
        scored(write(tmp_path / "s.jsonl", [row, *broken]))
    assert "s.jsonl:2: it does not have the form of such logs" in str(error.value)
    assert "s.jsonl:3: 'target' is null" in str(error.value)


def sample(ident: str | int, target: Any, text: str, epoch: int = 1, **more: Any) -> Row:
    parts = [{"type": "reasoning", "reasoning": "The answer is 99."}, {"type": "text", "text": text}]
    message = {"content": parts, "role": "assistant"}
    output = {"choices": [{"message": message, "stop_reason": "stop"}], "completion": text}
    asked = [{"role": "user", "content": f"q{ident}"}]
    return {"id": ident, "epoch": epoch, "input": asked, "target": target, "output": output, "scores": {}} | more


SAMPLES = [sample("a", "2", "It is 2."), sample(7, ["4"], "5"), sample("a", "2", "3", 2), sample(7, ["4"], "#### 4", 2)]


def log(samples: list[Row], status: str = "success") -> Row:
    return {"version": 2, "status": status, "eval": {"task": "t"}, "samples": samples}


def eval_log(path: Path, entries: dict[str, bytes], zstandard: bool = True) -> Path:
    """A zip file; with `zstandard` compressed as by Inspect, which zipfile before Python 3.14 cannot write."""
    if not zstandard:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in entries.items():
                file.writestr(name, data)
        return path
    body, directory = b"", b""
    for name, data in entries.items():
        packed = pyarrow.Codec("zstd").compress(data, asbytes=True)
        fields = struct.pack("<HHHHIIIHH", 0, 93, 0, 33, zlib.crc32(data), len(packed), len(data), len(name), 0)
        directory += b"PK\1\2" + struct.pack("<HH", 63, 63) + fields + struct.pack("<HHHII", 0, 0, 0, 0, len(body))
        directory += name.encode()
        body += b"PK\3\4" + struct.pack("<H", 63) + fields + name.encode() + packed
    end = struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), len(directory), len(body), 0)
    path.write_bytes(body + directory + b"PK\5\6" + end)
    return path


def entries(samples: list[Row], status: str = "success") -> dict[str, bytes]:
    files = {f"samples/{s['id']}_epoch_{s['epoch']}.json": json.dumps(s).encode() for s in samples}
    return {"_journal/start.json": b"{}", **files, "header.json": json.dumps(log([], status)).encode()}


@pytest.mark.parametrize("form", ["json", "zstandard", "deflated"])
def test_epochs_of_inspect_are_samples_of_an_item(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"log.{'json' if form == 'json' else 'eval'}"
    if form == "json":
        path.write_text(json.dumps(log(SAMPLES), indent=2))
    else:
        eval_log(path, entries(SAMPLES), form == "zstandard")
    items, problems = scored(path)
    assert items == [("a", [True, False]), (7, [False, True])] and not problems and not problems.remarks
    assert recorded_rows(path, problems)[0][1] == {"id": "a", "target": "2", "question": "qa", "completion": "It is 2."}


def test_what_a_log_lacks_is_reported(tmp_path: Path) -> None:
    failed = sample("f", "1", "") | {"output": {"choices": []}, "error": {"message": "timed out"}}
    several, odd = sample("s", ["4", "four"], "4"), {"id": "o", "epoch": 1, "output": 3}
    path = eval_log(tmp_path / "l.eval", entries([*SAMPLES, failed, several, odd], "error"))
    items, problems = scored(path)
    assert [ident for ident, _ in items] == ["a", 7]
    assert problems.remarks == [f"{path}: the status of the log is 'error'; it may lack samples"]
    faults = "\n".join(problems.messages())
    for fault in (
        'it has no output: "timed out"',
        '\'target\' is ["4", "four"]',
        "does not have the form of such logs",
    ):
        assert fault in faults
    unfinished = {name: data for name, data in entries(SAMPLES).items() if name != "header.json"}
    assert "is 'started'; it may lack samples" in scored(eval_log(path, unfinished))[1].remarks[0]
    apart = sample("x", "2", "attachment://ab") | {"attachments": {"ab": "It is 2."}}
    path.with_suffix(".json").write_text(json.dumps(log([apart])))
    assert scored(path.with_suffix(".json"))[0] == [("x", [True])]


def test_a_log_is_read_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = entries(SAMPLES)
    bomb = good | {"samples/b_epoch_1.json": b" " * 2**21, "../../evil.json": b"{}", "samples/n.json": b"[" * 200_000}
    bomb |= {"samples/t.json": b'{"id": '}
    monkeypatch.setattr(logs, "MOST_OF_A_SAMPLE", 2**20)
    for zstandard in (True, False):
        items, problems = scored(eval_log(tmp_path / "bomb.eval", bomb, zstandard))
        assert len(items) == 2 and len(problems) == 3 and "it is larger than 1 MiB" in problems.messages()[0]
        assert [p.name for p in tmp_path.iterdir()] == ["bomb.eval"] and not (tmp_path.parent / "evil.json").exists()
    lying = (tmp_path / "bomb.eval").read_bytes()
    whole = struct.pack("<I", 2**21)  # a bomb that declares 9 bytes: no more are read
    (tmp_path / "bomb.eval").write_bytes(lying.replace(whole, struct.pack("<I", 9)))
    assert len(scored(tmp_path / "bomb.eval")[1]) == 3
    monkeypatch.setattr(logs, "MOST_OF_A_LOG", 2**20)
    with pytest.raises(Mistake, match="larger than 0 GiB together"):
        recorded_rows(eval_log(tmp_path / "bomb.eval", bomb), Problems())


@pytest.mark.parametrize("zstandard", [True, False])
def test_damaged_logs_are_reported_and_never_misread(zstandard: bool, tmp_path: Path) -> None:
    whole = eval_log(tmp_path / "l.eval", entries(SAMPLES), zstandard).read_bytes()
    original = [row for _, row in recorded_rows(tmp_path / "l.eval", Problems())]
    for at in range(0, len(whole), 5):
        (tmp_path / "l.eval").write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :])
        try:
            assert all(row in original for _, row in recorded_rows(tmp_path / "l.eval", Problems()))
        except Mistake as error:
            assert "l.eval" in str(error)
        (tmp_path / "l.eval").write_bytes(whole[:at])
        with pytest.raises(Mistake, match="no log of Inspect"):
            recorded_rows(tmp_path / "l.eval", Problems())


def test_other_json_is_read_as_jsonl(tmp_path: Path) -> None:
    row = {"id": "1", "target": "2", "completion": "2", "samples": 3, "eval": ""}
    (tmp_path / "one.json").write_text(json.dumps(row))
    assert scored(tmp_path / "one.json")[0] == [("1", [True])]
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress((json.dumps(row) + "\n").encode()))
    assert scored(tmp_path / "rows.jsonl.gz")[0] == [("1", [True])]
    assert summaries(score([tmp_path / "one.json"], None, "rllab", Problems())[0], "")[0]["missing"] == 0
