"""A hostile or broken submission costs itself its points, says why, and leaves the others graded.

All of them are in one class: a few honest submissions stand among them. Those that do not end are in one of their own,
with a short limit.
"""

import gzip
import json
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluated import write
from filelock import FileLock
from graded import GOLD, Course
from safetensors.torch import load_file, save_file

from rllab.cli import app
from rllab.core.messages import one_line
from rllab.evals.cells import printable
from rllab.evals.grading.accuracy import MOST_ROWS
from rllab.evals.grading.submissions import MOST_FILES

HTML = "<script>document.title = 'owned'</script><img src=x onerror=alert(1)>"
ODD = 'o"dd\n<b>\u202e\x1b[31m'
NESTED = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
PICKLE = b"\x80\x04cposix\nsystem\nV touch %s\n\x85R."


class Class(Course):
    """The submissions, and what grading them gave."""

    marker: Path

    def change(self, folder: Path, file: str, **values: Any) -> None:
        """Changes keys of a JSON file."""
        path = folder / file
        path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | values))

    def weights(self, folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
        (path,) = folder.glob("*.safetensors")
        return path, load_file(path)

    def honest(self) -> None:
        self.recorded("recorded", right=15)
        self.model("plain")
        self.adapter("adapter")

    def broken(self, qwen: Path) -> None:
        """Submissions that are broken or hostile, each in its own way."""
        self.change(self.model("generation"), "generation_config.json", num_beams=16, max_new_tokens=1, eos_token_id=5,
                    do_sample=True, temperature=9.0, repetition_penalty=9.0)  # fmt: skip
        pickled = self.model("pickled")
        next(pickled.glob("*.safetensors")).unlink()
        (pickled / "pytorch_model.bin").write_bytes(PICKLE % str(self.marker).encode())
        code = self.model("code")
        (code / "modeling_mine.py").write_text(f"open({str(self.marker)!r}, 'w')")
        auto = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "modeling_mine.Mine")
        self.change(code, "config.json", model_type="mine", auto_map=auto)
        native = self.model("native")
        (native / "modeling_mine.py").write_text(f"open({str(self.marker)!r}, 'w')")
        self.change(native, "config.json", auto_map=auto)
        self.change(self.model("huge"), "config.json", hidden_size=2**20, intermediate_size=2**20)
        tokenless = self.model("tokenless")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (tokenless / name).unlink()
        path, weights = self.weights(self.model("nan"))
        weights[next(iter(weights))][0] = float("nan")
        save_file(weights, path, {"format": "pt"})
        path, weights = self.weights(self.model("damaged"))
        path.write_bytes(path.read_bytes()[:-100])

    def late(self) -> None:
        """Models that take for ever."""
        (self.model("template") / "chat_template.jinja").write_text(NESTED)
        (self.model("long-template") / "chat_template.jinja").write_text(
            "{% for m in messages %}{% if m['content']|length > 12 %}"
            + NESTED
            + "{% endif %}{{ m['content'] }}{% endfor %}"
        )
        self.change(self.model("layers"), "config.json", num_hidden_layers=1_000_000, layer_types=None)

    def leading_elsewhere(self) -> None:
        """Models whose files name code and files that are not theirs, or that describe no model."""
        for name, file in {"of-another": "../plain/model.safetensors", "of-the-grader": "../../private.jsonl"}.items():
            folder = self.model(name)
            path, weights = self.weights(folder)
            path.rename(folder / "other.safetensors")
            index = {"metadata": {}, "weight_map": dict.fromkeys(weights, file)}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        self.change(self.model("kernels"), "config.json", _attn_implementation="someone/kernels")
        self.change(self.model("no-heads"), "config.json", num_attention_heads=0)
        self.change(self.model("not-a-number"), "config.json", rms_norm_eps=float("nan"))
        self.change(self.model("panic"), "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
        steps = {"type": "TemplateProcessing", "pair": [], "special_tokens": {}}
        steps["single"] = [{"SpecialToken": {"id": "unknown", "type_id": 0}}]
        self.change(self.submissions / "panic", "tokenizer.json", post_processor=steps)
        template = self.model("answers") / "chat_template.jinja"
        template.write_text("It is 7. " + template.read_text())
        path, weights = self.weights(self.model("eight-bits"))
        path.unlink()
        save_file({k: v.to(torch.float8_e4m3fn) for k, v in weights.items()}, path, {"format": "pt"})

    def adapters(self, qwen: Path) -> None:
        other = Path(shutil.copytree(qwen, self.folder / "other"))
        path, weights = self.weights(other)
        save_file({k: v * 1.5 for k, v in weights.items()}, path, {"format": "pt"})
        self.adapter("foreign", base=other)
        unrecorded = self.adapter("unrecorded", base=other, seed=1)
        (unrecorded / "base.json").unlink()
        wide = self.adapter("misfit")
        path, weights = self.weights(wide)
        save_file({k: torch.cat([v, v], -1) for k, v in weights.items()}, path)
        save_file({}, self.weights(self.adapter("empty"))[0])
        self.change(self.adapter("rank"), "adapter_config.json", r="2")
        self.change(self.adapter("module"), "adapter_config.json", modules_to_save=["lm_head"])
        self.adapter("zero", scale=0.0)
        shutil.copytree(self.adapter("twin", seed=2), self.submissions / "twin-too")
        pickled = self.adapter("pickled-adapter")
        self.weights(pickled)[0].unlink()
        (pickled / "adapter_model.bin").write_bytes(PICKLE % str(self.marker).encode())

    def texts(self) -> None:
        bombs = [
            "9**9**9**9",
            "10^{10^{8}}",
            "10000000!",
            "\\boxed{" * 5000,
            "1" * 200_000,
            "0." + "3" * 50_000 + "e99999",
        ]
        write(self.submissions / "bombs.jsonl",
              [{"id": g["id"], "completion": bombs[i % len(bombs)]} for i, g in enumerate(GOLD)])  # fmt: skip
        hostile = [HTML, "=HYPERLINK(1)", "\x1b[2J", "javascript:alert(1)", "\ud800", "\x00", 7, None, ["x"], {"a": 1}]
        write(self.submissions / "hostile.jsonl",
              [{"id": g["id"], "completion": hostile[i % len(hostile)]} for i, g in enumerate(GOLD)])  # fmt: skip
        (self.submissions / "torn.jsonl").write_text('{"id": "q0", "completion": "0"}\nnot json\n[1]\n{"id": ')
        (self.submissions / "noise.jsonl").write_bytes(os.urandom(5000))
        (self.submissions / "deep.jsonl").write_text('{"id": "q0", "completion": ' + "[" * 100_000)
        (self.submissions / f"{ODD}.jsonl").write_text('{"id": "q0", "completion": "0"}\n')
        (self.submissions / "notes.txt").write_text("I did it all")
        (self.submissions / "nothing").mkdir()
        with gzip.open(self.submissions / "endless.jsonl.gz", "wb", compresslevel=1) as file:
            file.write(b'{"id": "q0", "completion": "0"}\n' * (MOST_ROWS + 1))
        rows = [{"id": f"u{i}", "completion": [i]} for i in range(5000)]
        write(self.submissions / "flood.jsonl", [{"id": "q0", "completion": "0"}, *rows])
        (self.submissions / os.fsdecode(b"bytes\xff.jsonl")).write_text('{"id": "q0", "completion": "0"}\n')

    def files(self) -> None:
        linked = self.model("linked")
        (linked / "vocab.json").symlink_to(self.folder / "private.jsonl")
        os.mkfifo(self.model("pipe") / "vocab.json")
        (self.submissions / "link.jsonl").symlink_to(self.folder / "private.jsonl")
        with open(self.model("sparse") / "vocab.json", "wb") as file:
            file.truncate(1 << 40)
        self.recorded("both")
        self.model("both")
        Path(self.submissions, "buried", *"d" * 200).mkdir(parents=True)
        (self.submissions / "twice" / "twice").mkdir(parents=True)
        for i in range(MOST_FILES):
            (self.submissions / "twice" / "twice" / str(i)).mkdir()


@pytest.fixture(scope="module")
def graded(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Class:
    """The class, graded once: the workers of a test run share what the first of them makes."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "hostile"
    kept = folder / "graded.json"
    with FileLock(folder.with_suffix(".lock")):
        if not kept.exists():
            folder.mkdir()
            kept.write_text(json.dumps(_graded(folder, qwen)))
    made = Class.__new__(Class)
    made.folder, made.out, made.submissions = folder, folder / "out", folder / "submissions"
    made.marker = folder / "owned"
    made.grades, made.err = json.loads(kept.read_text())
    return made


def _graded(folder: Path, qwen: Path) -> tuple[dict[str, Any], str]:
    """Grades the class. Returns the grades by id, and the lines of progress."""
    made = Class(folder, qwen, None)  # type: ignore[arg-type]
    made.marker = folder / "owned"
    made.honest()
    made.broken(qwen)
    made.leading_elsewhere()
    made.adapters(qwen)
    made.texts()
    made.files()
    late = Class(folder / "late", qwen, None)  # type: ignore[arg-type]
    late.late()
    grades, progress = dict[str, Any](), StringIO()
    for course, seconds in ((made, 60), (late, 3)):
        course.assign(seconds=seconds, sums={"task": "private.jsonl", "max_new_tokens": 4, "points": 10})
        line = [str(course.folder / "assignment.yaml"), str(course.submissions), "--out", str(course.out), "--json"]
        with redirect_stdout(StringIO()) as output, redirect_stderr(progress):
            app(["grade", *line], standalone_mode=False)
        grades |= {grade["id"]: grade for grade in json.loads(output.getvalue())}
    return grades, progress.getvalue()


def test_the_honest_are_graded(graded: Class) -> None:
    for name in ("recorded", "plain", "adapter"):
        assert graded.grades[name]["status"] == "graded"
    assert graded.grades["recorded"]["parts"]["sums"]["value"] == 0.5


def test_nothing_that_was_submitted_ran(graded: Class) -> None:
    assert not graded.marker.exists()


FAULTS = {
    "pickled": "pickled (pytorch_model.bin)",
    "code": "code that came with it",
    "template": "did not end within 3 s",
    "long-template": "did not end within 3 s",
    "layers": "did not end within 3 s",
    "huge": "other shapes",
    "tokenless": "tokenizer",
    "nan": "not finite",
    "damaged": "damaged",
    "foreign": "another base",
    "misfit": "do not fit the assignment's base",
    "empty": "no tensor",
    "pickled-adapter": "pickled (adapter_model.bin)",
    "noise": "no completions",
    "deep": "no completions",
    "notes": "neither a folder nor a .jsonl or .py file",
    "nothing": "it has no model",
    "linked": "'vocab.json' is a link",
    "pipe": "'vocab.json' is no plain file",
    "link": "is a link",
    "sparse": "larger than 4 GiB",
    "of-another": "'../plain/model.safetensors', which is no safetensors file of the folder",
    "of-the-grader": "'../../private.jsonl', which is no safetensors file of the folder",
    "no-heads": "its files do not describe a model",
    "not-a-number": "not-a-number: its outputs are not numbers",
    "panic": "it fails when it is measured, with PanicException",
    "rank": "peft cannot use its adapter_config.json",
    "module": "do not fit the assignment's base",
    "endless": "more than 200,000 completions",
    "buried": "lies in more than 100 folders",
    "twice": "more than 10,000 files and folders",
}


def test_a_fault_costs_its_submission(graded: Class) -> None:
    grades = {name: graded.grades[name] for name in FAULTS}
    assert {name: g["why"] for name, g in grades.items() if FAULTS[name] not in g["why"]} == {}
    assert {(g["status"], g["points"]) for g in grades.values()} == {("faults", 0)}
    unfit = (str(graded.folder), "Traceback", "cannot be measured")  # for students
    assert [g["why"] for g in grades.values() if any(words in g["why"] for words in unfit)] == []


def test_several_submissions_of_an_id_are_not_graded(graded: Class) -> None:
    grade = graded.grades["both"]
    assert grade["status"] == "several" and grade["points"] == 0
    assert "'both'" in grade["why"] and "'both.jsonl'" in grade["why"]


def test_a_generation_config_changes_nothing(graded: Class) -> None:
    assert graded.grades["generation"]["parts"] == graded.grades["plain"]["parts"]
    rows = [[json.loads(line)["rows"] for line in path.read_text().splitlines() if '"rows"' in line]
            for name in ("generation", "plain") for path in graded.records(name)]  # fmt: skip
    assert rows[0] == rows[1] and rows[0]


def test_native_code_is_used_where_the_type_is_known(graded: Class) -> None:
    assert graded.grades["native"]["parts"] == graded.grades["plain"]["parts"]


def test_a_config_names_no_code(graded: Class) -> None:
    assert graded.grades["kernels"]["parts"] == graded.grades["plain"]["parts"]


def test_weights_of_eight_bits_are_graded(graded: Class) -> None:
    assert graded.grades["eight-bits"]["status"] == "graded"


def test_a_page_names_some_of_many_faults(graded: Class) -> None:
    page = (graded.out / "html" / "flood.html").read_text()
    assert "4,980 more kinds of faults" in page and len(page) < 100_000


def test_bombs_as_answers_are_wrong(graded: Class) -> None:
    grade = graded.grades["bombs"]
    assert grade["status"] == "graded" and grade["points"] == 0


def test_rows_that_cannot_be_used_are_left_out(graded: Class) -> None:
    assert graded.grades["hostile"]["status"] == graded.grades["torn"]["status"] == "graded"
    assert graded.grades["torn"]["parts"]["sums"]["value"] == pytest.approx(1 / 30)


def test_flags(graded: Class) -> None:
    flags = {name: grade["flags"] for name, grade in graded.grades.items()}
    assert any("zero" in flag for flag in flags["zero"])
    assert flags["unrecorded"] and "names the base" in flags["unrecorded"][0]
    assert flags["twin"] == ["identical: sums: the same as of twin-too"]
    assert "generation" in flags["plain"][0] and "native" in flags["plain"][0]
    assert any("prompts: sums: its chat template is not the base's" in flag for flag in flags["answers"])
    assert not any("prompts" in flag for flag in (*flags["plain"], *flags["generation"]))
    assert flags["adapter"] == flags["recorded"] == []


def test_no_output_holds_the_gold(graded: Class) -> None:
    secret = json.dumps(GOLD[17]["target"])
    for path in graded.out.rglob("*"):
        if path.is_file():
            assert f'"target": {secret}' not in path.read_text(errors="replace"), path


def test_an_odd_file_name_is_a_name_like_others(graded: Class) -> None:
    for name in (ODD, os.fsdecode(b"bytes\xff")):
        assert graded.grades[name]["status"] == "graded"
        assert graded.rows()[printable(name)]["status"] == "graded"
    assert {p.name for p in graded.out.iterdir()} >= {"grades.csv", "records"}
    assert any(one_line(ODD) in line for line in graded.err.splitlines())
