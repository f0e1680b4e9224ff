"""The architecture as facts: who imports whom, how long the files are that a student reads, what starts quickly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from architecture import violations
from prose import vague_names, without_shapes

ROOT = Path(__file__).resolve().parents[1]
LINES = {
    "core/trainer.py": 220,
    "algos/tabular.py": 215,
    **dict.fromkeys(("algos/alphazero.py", "algos/prefppo.py", "algos/rlhf.py"), 300),
}
SHARED = ("__init__", "online", "rollouts", "preference_loss")  # in algos/, and no algorithms
ALGORITHMS = [p for p in sorted((ROOT / "src/rllab/algos").glob("*.py")) if p.stem not in SHARED]


def sources(base: str) -> list[Path]:
    return sorted((ROOT / base).rglob("*.py"))


def test_the_architecture_holds() -> None:
    assert violations(ROOT / "src", ROOT / "envs") == []


@pytest.mark.parametrize(
    ("file", "line", "why"),
    [
        ("rllab/core/x.py", "from rllab.text.chat import documents", "imports upward, rllab.text.chat"),
        ("rllab/core/x.py", "from rllab import text", "imports upward, rllab.text"),
        ("rllab/core/x.py", "from .. import text", "imports upward, rllab.text"),
        ("rllab/core/x.py", "from ..text import chat", "imports upward, rllab.text.chat"),
        ("rllab/core/x.py", "import rllab.text.chat as chat", "imports upward, rllab.text.chat"),
        ("rllab/core/x.py", "def f():\n    from ..text.chat import documents", "imports upward, rllab.text.chat"),
        ("rllab/core/x.py", "if TYPE_CHECKING:\n    from rllab.text import chat", "imports upward, rllab.text.chat"),
        ("rllab/text/x.py", "from rllab import Trainer", "imports the package rllab itself"),
        ("rllab/core/x.py", "import gymnasium as gym", "the core imports gymnasium"),
        ("rllab/core/x.py", "from transformers import AutoModel", "the core imports transformers"),
        ("rllab/algos/x.py", "from rllab_envs.tasks import pocket", "by a name in a recipe"),
        ("rllab_envs/x.py", "from rllab.text import chat", "environments import rllab.text.chat"),
        ("rllab_envs/x.py", "from rllab.core import names", ""),
        ("rllab_envs/x.py", "from rllab.sandbox.process import Process", ""),
        ("rllab/text/chat.py", "from rllab.text import rows", "circle: rllab.text.chat -> rllab.text.rows"),
        ("rllab/text/chat.py", "from . import rows", "circle: rllab.text.chat -> rllab.text.rows"),
        ("rllab/text/chat.py", "def f():\n    from .rows import Rows", "circle: rllab.text.chat -> rllab.text.rows"),
        ("rllab/text/x.py", "from rllab.core import names\nfrom . import chat", ""),
    ],
)
def test_each_violation_is_named(file: str, line: str, why: str, tmp_path: Path) -> None:
    tree = {"rllab/core/names.py": "", "rllab/text/chat.py": "", "rllab/text/rows.py": "from rllab.text import chat"}
    tree |= {f"{folder}/__init__.py": "" for folder in ("rllab", "rllab/core", "rllab/text", "rllab/sandbox")}
    tree |= {"rllab/sandbox/process.py": "", "rllab_envs/tasks.py": ""}
    for name, text in (tree | {file: line + "\n"}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    lines = violations(tmp_path)
    assert len(lines) == bool(why) and why in "".join(lines), lines


@pytest.mark.parametrize("path", [*ALGORITHMS, ROOT / "src/rllab/core/trainer.py"], ids=lambda p: p.stem)
def test_files_that_are_read_top_to_bottom_are_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines < LINES.get(f"{path.parent.name}/{path.name}", 200)


def test_names_say_what_they_hold() -> None:
    assert [
        name for base in ("src", "envs", "benchmarks") for path in sources(base) for name in vague_names(path)
    ] == []


def test_public_functions_over_arrays_give_shapes() -> None:
    assert [name for base in ("src", "envs") for path in sources(base) for name in without_shapes(path)] == []


@pytest.mark.parametrize(
    ("text", "names", "shapeless"),
    [
        ("found = 1", 1, 0),
        ("def f(told): return self._said", 2, 0),
        ("rows = metrics.founder", 0, 0),
        ('def f(x: Tensor) -> Tensor:\n    """Adds."""', 0, 1),
        ('def f(x: Tensor) -> Tensor:\n    """Adds x [B, T]."""', 0, 0),
        ('def _f(x: Tensor) -> Tensor:\n    """Adds."""', 0, 0),
    ],
)
def test_the_checks_of_names_and_shapes_find_a_violation(text: str, names: int, shapeless: int, tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(text)
    assert (len(vague_names(path)), len(without_shapes(path))) == (names, shapeless)


def test_nothing_unpickles() -> None:
    for path in [*sources("src"), *sources("envs")]:
        text = path.read_text(encoding="utf-8")
        assert not any(word in text for word in ("pickle.load", "torch.load", "eval(", "exec(")), path


def test_the_command_line_starts_without_torch() -> None:
    code = (
        "import sys; import rllab.cli; print([m for m in ('torch', 'numpy', 'gymnasium', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_signals_are_caught_before_torch_is_imported() -> None:
    code = "import sys; import rllab.core.stop; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_looking_at_results_needs_no_torch(tmp_path: Path) -> None:
    """`runs`, `curves`, `samples`, `score` and `compare` read JSON, so they answer at once."""
    from conftest import smoke_runs

    runs = ["--runs", str(smoke_runs(tmp_path, "cartpole", "pocket"))]
    row = {"id": "1", "question": "1 + 1", "target": "2", "kind": "number", "completion": "2"}
    (tmp_path / "recorded.jsonl").write_text(json.dumps(row) + "\n")
    results = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    verbs = [["runs", *runs], ["curves", "cartpole", "--of", "loss/total", *runs], ["samples", "pocket", *runs]]
    verbs += [["score", str(tmp_path / "recorded.jsonl"), "--out", result] for result in results]
    for words in [*verbs, ["compare", *results], ["compare", "cartpole", "pocket", *runs]]:
        code = (
            f"import sys\nfrom rllab.cli import app\napp({words}, standalone_mode=False)\n"
            "print([m for m in ('torch', 'gymnasium', 'transformers') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == "[]", (words, done.stderr)


def test_control_needs_no_language_models() -> None:
    code = "import sys; import rllab.algos.dqn, rllab.cli; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_idle_threads_do_not_spin() -> None:
    code = "import os; import rllab.core.engine; print(os.environ['GOMP_SPINCOUNT'])"
    env = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    for given, expected in (({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")):
        done = subprocess.run([sys.executable, "-c", code], env=env | given, capture_output=True, text=True)
        assert done.stdout.strip() == expected
