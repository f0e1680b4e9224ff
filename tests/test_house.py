"""The architecture as facts: who imports whom, how long the files are that a student reads, what starts quickly."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RANKS = {
    "core": 0,
    **dict.fromkeys(["answers", "bradley_terry", "stats", "nets", "replay", "vector", "search", "text"], 1),
}
RANKS |= {
    "control": 2,
    "rewards": 2,
    "algos": 3,
    "evals": 4,
    "board": 4,
    "cluster": 4,
    "progress": 4,
    "tables": 4,
    "talk": 4,
    "play": 4,
    "demo": 4,
    "doctor": 4,
}
RANKS |= {"cli": 5, "testing": 5}
LINES = {"core/trainer.py": 180, **{f"algos/{a}.py": 200 for a in ("dqn", "ppo", "sac", "sft", "reward_model", "dpo")}}


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (tuple(a.name.split(".")) for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield tuple(node.module.split("."))


def sources(base: str) -> list[Path]:
    return sorted((ROOT / base).rglob("*.py"))


@pytest.mark.parametrize("path", sources("src/rllab"), ids=lambda p: p.relative_to(ROOT / "src/rllab").as_posix())
def test_nobody_imports_upwards(path: Path) -> None:
    here = path.relative_to(ROOT / "src/rllab").parts[0].removesuffix(".py")
    for name in imports(path):
        if here == "core":
            assert name[0] not in ("gymnasium", "transformers", "trl", "peft"), name
        assert name[0] != "rllab_envs", "rllab reaches environments by a name in a recipe"
        if name[0] == "rllab" and len(name) > 1 and here not in ("__init__", "__main__"):
            assert RANKS[name[1]] <= RANKS[here], ".".join(name)


@pytest.mark.parametrize("path", sources("envs/rllab_envs"), ids=lambda p: p.relative_to(ROOT / "envs").as_posix())
def test_environments_know_the_core_alone(path: Path) -> None:
    assert all(name[0] != "rllab" or name[1:2] == ("core",) for name in imports(path))


@pytest.mark.parametrize(("file", "limit"), LINES.items())
def test_files_that_are_read_top_to_bottom_are_short(
    file: str, limit: int, record_property: pytest.FixtureRequest
) -> None:
    lines = len((ROOT / "src/rllab" / file).read_text(encoding="utf-8").splitlines())
    print(f"{file}: {lines} lines")
    assert lines < limit


def test_nothing_unpickles() -> None:
    for path in [*sources("src"), *sources("envs")]:
        text = path.read_text(encoding="utf-8")
        assert not any(word in text for word in ("pickle.load", "torch.load", "eval(", "exec(")), path


def test_the_command_line_starts_without_torch() -> None:
    code = (
        "import sys; import rllab.cli; print([m for m in ('torch', 'numpy', 'gymnasium', 'rich') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_signals_are_caught_before_torch_is_there() -> None:
    code = "import sys; import rllab.core.stop; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_control_needs_no_language_models() -> None:
    code = "import sys; import rllab.algos.dqn, rllab.cli; print('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_threads_do_not_spin_where_others_want_their_core() -> None:
    code = "import os; import rllab.core.engine; print(os.environ['GOMP_SPINCOUNT'])"
    env = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    for given, said in (({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")):
        done = subprocess.run([sys.executable, "-c", code], env=env | given, capture_output=True, text=True)
        assert done.stdout.strip() == said
