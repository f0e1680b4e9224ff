"""The documentation holds: commands and snippets run, generated parts are up to date, links lead somewhere.

A page's blocks run from top to bottom in one folder. A block that begins with `# mine.py` is written to that file; bash
lines and other Python run. Commands train at the smoke size, with few games and samples.
"""

import os
import re
import shlex
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import pytest
import yaml
from forked import call
from labelled import write_poles, write_tickets
from test_logs import SAMPLES, entries, eval_log, harness_rows
from test_score import write
from typer.testing import CliRunner

from rllab.cli import app
from rllab.core import stages
from rllab.core.names import import_file
from rllab.core.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EVERY_PAGE = [*PAGES, ROOT / "benchmarks/README.md"]
FILE = r"# (\w+\.(?:py|yaml))\n"
OTHERS = ("python llama.cpp/", "hf upload")  # programs that are not the lab's; their input is checked
# which pages name and do not train
RUNS = ("earth-lora-1", "grpo-1", "tictactoe-1", "connect-four-1", "verifier-1", "prover-1")
ELSEWHERE = ("./lab demo", "./lab test", "./lab shell", "./lab python docs/generate.py")  # other tests run these
ELSEWHERE += ("./lab grade docs/assignment/", "./lab board", "./lab race ")
ELSEWHERE += (
    "sbatch ",
    "qsub ",
    "./lab fetch ",
    "./lab wheelhouse ",
    "RLLAB_WHEELHOUSE=",
    "./lab submit ",
    "./lab label grpo-1",
    "./lab label sft-1",
    "./lab label pairs.jsonl",
    "./lab label rlhf-control-1",
    "./lab label first",
    "cp slurm/site.example.sh",
    "source slurm/site.sh",
)  # those of tests/cluster/ and tests/test_labelling.py
SMALL = {r"--games \d+": "--games 2", r"--best-of \d+": "--best-of 2", r"simulations: \d+": "simulations: 4"}
SMALL |= {
    r"--simulations \d+": "--simulations 4",
    " winrate ": " winrate --prompts 4 ",
    r"( eval .*) --limit \d+": r"\1",
    r"( eval .*--max-new-tokens) \d+": r"\1 48",
    " eval ": " eval --limit 4 ",
    " verify ": " verify --rows 4 ",
    " reasoning ": " reasoning --limit 4 --samples 4 ",
    r"--rank-by '\{name: verifier[^']*'": "",  # one that is not trained writes no grades
    r"--step \d": "--step 60",
}
SMALL |= {r"python tests/weights.py.*": f"python {ROOT}/tests/weights.py cartpole"}
SMALL |= {r"python docs/offline_figure.py": f"python {ROOT}/docs/offline_figure.py"}
SMALL |= {" sweep ": " sweep --smoke ", r"--trials \d+": "--trials 2", r"( sweep .* seed=0)\.\.4": r"\1..1"}
SMALL |= {" variance ": " variance --episodes 8 "}
SMALL |= {"total_steps=250": "total_steps=4"}
SMALL |= {r"( sweep .* total_steps)=\d+ eval_every=\d+": r"\1=4 eval_every=2"}
SMALL |= {" refine ": " refine --problems 4 --samples 2 "}
GSM8K = '{"id": "%d", "question": "1 + 1?", "target": "2", "kind": "number", "completion": "It is %d. #### %d"}\n'

RESULT = '{"id": "%d", "answer": "2", "correct": %s, "reason": "", "scorer": "rllab 2"}\n'


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of each fenced block."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that pages name: runs, recordings, a script."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stages, "load_recipe", lambda name: load_recipe(name, smoke=True))
    (tmp_path / "mine.py").write_text("print('this is the lab')")
    (tmp_path / "answers.jsonl").write_text("".join(GSM8K % (i, a, a) for i, a in enumerate((2, 3))))
    for name, correct in {"before": "true false", "after": "true true"}.items():
        rows = (RESULT % (i, c) for i, c in enumerate(correct.split()))
        (tmp_path / f"{name}.jsonl").write_text("".join(rows))
    write(tmp_path / "gold.jsonl", [{"id": n, "target": target} for n, target in enumerate("256")])
    (tmp_path / "submissions").mkdir()
    for name in ("ann", "bob"):
        write(tmp_path / f"submissions/{name}.jsonl", [{"id": n, "completion": f"#### {n + 2}"} for n in range(3)])
    write(tmp_path / "samples_gsm8k.jsonl", harness_rows("strict-match", "flexible-extract"))
    write_tickets(tmp_path / "preferences.jsonl", 24)
    write_poles(tmp_path / "clips.jsonl", 12)
    eval_log(tmp_path / "log.eval", entries(SAMPLES))
    return tmp_path


def command(line: str, folder: Path) -> None:
    """Runs one line of a bash block, at the smallest size."""
    line = re.sub(r"\s+#.*$", "", line)
    if line.startswith(ELSEWHERE):
        return
    if line.startswith(OTHERS):
        model = folder / (line.split()[-1] if line.startswith("hf ") else "merged")
        assert all((model / name).is_file() for name in ("config.json", "tokenizer.json", "README.md")), line
        return
    for pattern, small in SMALL.items():
        line = re.sub(pattern, small, line)
    for run in RUNS:
        if run in line and f"--name {run}" not in line and not (folder / "runs" / run).exists():
            command(f"./lab train {run.removesuffix('-1')} --name {run}", folder)
    line, _, file = line.partition(" > ")
    words = [w for word in shlex.split(line) for w in sorted(glob(word)) or [word]]
    if words[:2] == ["mkdir", "-p"]:
        Path(words[2]).mkdir(exist_ok=True)
        return
    if words[0] == "printf":
        output = words[1].encode().decode("unicode_escape")
    elif words[:2] == ["./lab", "python"]:
        done = call(*words[2:])
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        output = done.stdout
    else:
        assert words[0] == "./lab", f"a command that no test runs: {line}"
        more = ["--smoke", "--quiet"] if words[1] == "train" else []
        if words[-1].endswith(".yaml") and more:  # a page's own recipe, at its full size: it reaches what it expects
            more = ["--strict", "--quiet"]
        if words[1] == "train" and (words[2] == "--from" or words[2].startswith("runs/")):  # which have their size
            more = ["--quiet"]
        elif words[1] == "train" and not words[2].endswith(".yaml"):
            recipe = load_recipe(words[2]).plain
            if "game" in recipe:
                more += ["eval_games=2", "eval_rollouts=2"]
            if str(recipe.get("model", "")).startswith("run:"):  # a stage at its smoke size, so that a run has a base
                more += [f"model={recipe['model']}", "shape={}"]
        result = CliRunner().invoke(app, words[1:] + more, input="/hint\n", catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        output = result.stdout
    assert output or "--quiet" in line, f"{line} prints nothing"
    if file:
        (folder / file.strip()).write_text(output)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_page_runs_from_top_to_bottom(page: Path, folder: Path, request: pytest.FixtureRequest) -> None:
    if page.stem == "atari":
        pytest.importorskip("ale_py", reason="the extra atari is not installed")
    for _, text in reversed([*blocks(page)]):  # a file may stand below the command that names it
        if name := re.match(FILE, text):
            (folder / name[1]).write_text(text)
    for language, text in blocks(page):
        if name := re.match(FILE, text):
            (folder / name[1]).write_text(text)
        elif language == "yaml":  # some settings of a run of a language model
            (folder / "problems.jsonl").write_text('{"prompt": "double", "tests": ["assert double(2) == 4"]}\n' * 300)
            assert load_recipe("grpo", yaml.safe_load(text)).algorithm
        elif language == "python" and "def collect" not in text:  # which is a part of dqn.py, as another test sees
            small = text.replace("seed=3)", "seed=3, total_steps=3, eval_every=2)")
            small = small.replace('Trainer("pocket"', 'Trainer(rllab.load_recipe("pocket", smoke=True)')
            done = call("-c", small)
            assert done.returncode == 0, done.stderr
        elif language == "bash":
            for line in text.splitlines():
                if ".jsonl" in line and page.stem in ("scoring", "language-models") and not _recordings(line, folder):
                    continue
                command(line, folder)


def _recordings(line: str, folder: Path) -> bool:
    """Links the published recordings that a command names; whether all of them are there."""
    names = re.findall(r"[\w.]+\.jsonl", line)
    published = Path(os.environ.get("RLLAB_DATA", "/nowhere"))
    for name in names:
        if not (folder / name).exists() and "results" not in name:
            files = list(published.rglob(name))
            if not files:
                return False
            (folder / name).symlink_to(files[0])
    return True


def test_the_generated_parts_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    pages = import_file(ROOT / "docs/generate.py").pages()
    assert len(pages) >= 4
    for page, text in pages.items():
        assert page.read_text("utf-8") == text, (
            f"{page.name} is not up to date; ./lab python docs/generate.py writes it"
        )


def test_the_stable_verbs_are_the_verbs() -> None:
    words = re.findall(r"`rllab (list [^`]*)`", (ROOT / "docs/stable.md").read_text("utf-8"))
    verbs = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    assert set(re.split(r"[\s|]+", words[0])) == verbs


def test_the_readme_is_short_and_shows_the_code_that_runs() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    (shown,) = [t for language, t in blocks(ROOT / "README.md") if "def collect" in t]
    source = (ROOT / "src/rllab/algos/dqn.py").read_text("utf-8")
    assert all(part in source for part in shown.partition("\n")[2].strip("\n").split("\n\n"))


def test_the_pictures_of_the_readme_are_small_and_made_by_one_script() -> None:
    pictures = re.findall(r"!\[([^\]]+)\]\((docs/[\w.]+)\)", (ROOT / "README.md").read_text("utf-8"))
    assert [name for _, name in pictures] == ["docs/capstones.svg", "docs/board.webp", "docs/budget.svg"]
    script = (ROOT / "docs/figures.sh").read_text("utf-8")
    for _, name in pictures:
        data = (ROOT / name).read_bytes()
        assert 5_000 < len(data) < 200_000, f"{name} has {len(data):,} bytes"
        assert (data[8:12] == b"WEBP") if name.endswith(".webp") else b"<svg" in data[:500], name
        assert name in script, f"docs/figures.sh does not make {name}"
    assert os.access(ROOT / "docs/figures.sh", os.X_OK)


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_links_lead_somewhere(page: Path) -> None:
    """Files that exist, and headings that are there."""
    for target in re.findall(r"\]\((?!http)([^)\s]+)\)", page.read_text("utf-8")):
        name, _, heading = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name}: {target}"
        if heading and file.suffix == ".md":
            titles = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.M)
            anchors = {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}
            assert heading in anchors, f"{page.name}: {target}"


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_paths_in_the_text_exist(page: Path) -> None:
    names = re.findall(r"`((?:src|envs|tests|docs|benchmarks|recipes|slurm)/[\w./-]+)`", page.read_text("utf-8"))
    missing = [n for n in names if "NAME" not in n and not (ROOT / n).exists()]
    assert [n for n in missing if n not in ("src/rllab/board/", "slurm/site.sh")] == []
