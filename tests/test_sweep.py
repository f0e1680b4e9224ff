"""Sweeps: what is searched, trials one after another and in several processes, kills, failures, the table."""

import gc
import json
import os
import random
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TESTS
from optuna.storages.journal import JournalFileBackend
from typer.testing import CliRunner

from rllab.cli import app
from rllab.cli.progress import train_to_end
from rllab.cluster.objective import Objective
from rllab.cluster.space import Space, Span, read_space
from rllab.cluster.sweep import STARTS, Sweep
from rllab.core.errors import InUse, Mistake, Stopped
from rllab.core.run import RunFolder
from rllab.core.runs import list_runs
from rllab.core.stop import Stop
from rllab.evals.seeds import mean_interval

TOY = """algo: toys.py:Sweepable
total_steps: 4
eval_every: 1
save_every: 1
device: cpu
threads: 1
expect: {eval/error: "<= 1"}
"""
SWEEPABLE = '''

@dataclass(kw_only=True)
class Sweepable(Regression):
    """Diverges, or does not fit, with some settings."""

    dies: bool = False

    def __post_init__(self) -> None:
        if self.updates > self.batch_size:
            raise ValueError("updates must be at most batch_size")

    def evaluate(self, step: int) -> Metrics:
        return super().evaluate(0)

    def collect(self, step: int) -> Round:
        if self.dies:
            import os
            os._exit(9)
        return (yield from super().collect(step))
'''
LR = "optim.lr=1e-3..0.1"
ERROR = Objective("eval/error", "minimize")
pytestmark = pytest.mark.filterwarnings("ignore:This process")  # Python 3.12 warns of forking beside threads


@pytest.fixture(autouse=True, scope="module")
def no_garbage_of_others() -> Iterator[None]:
    """What earlier tests have left is not searched for garbage after each trial, a tenth of a second each time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with toy.yaml."""
    toys = (TESTS / "toys.py").read_text().partition("\n\n@dataclass(kw_only=True)\nclass TwoParts")[0]  # read quickly
    (tmp_path / "toys.py").write_text(toys + SWEEPABLE)
    (tmp_path / "toy.yaml").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sweep(
    name: str, *words: str, most: int = 8, stop_in: tuple[str, int] | None = None, **more: Any
) -> tuple[Sweep, bool]:
    """Works on a sweep of toy.yaml; returns it, and whether all its trials are finished.

    stop_in: the run and the round in which it is asked to stop.
    """
    whole, stop = Sweep(Path("runs", name), read_space("toy.yaml", words), ERROR, most, **more), Stop()

    def train(recipe: Any, run: RunFolder, ends: Any) -> None:
        def ends_or_stops(row: dict[str, float]) -> bool:
            stop.reason = "test" if (run.path.name, row["step"]) == stop_in else None
            return bool(ends(row))

        train_to_end(recipe, run, stop, runs=Path("runs"), quiet=True, ends=ends_or_stops)

    return whole, whole.run(train, stop, lambda line: None)


def table(whole: Sweep) -> list[dict[str, Any]]:
    """What must repeat exactly."""
    return [{"settings": t.settings, "evaluations": t.evaluations} | vars(t.outcome) for t in whole.study.trials()]


def forked(work: Callable[[], object]) -> int:
    """The id of a child process that works."""
    if (child := os.fork()) == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def ended(child: int) -> int:
    """Waits for a child process; returns its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def rllab(line: str) -> Any:
    return CliRunner().invoke(app, shlex.split(line), catch_exceptions=False)


@pytest.mark.parametrize(
    ("word", "log", "whole"),
    [
        ("optim.lr=1e-4..1e-3", True, False),
        ("optim.lr=1e-4..9e-4", False, False),
        ("optim.lr=1..20:linear", False, False),
        ("batch_size=16..64", False, True),
        ("batch_size=16..64:log", True, True),
        ("noise=0..1", False, False),
        ("noise=0...5", False, False),
    ],
)
def test_ranges_have_a_scale_and_the_type_of_their_setting(word: str, log: bool, whole: bool) -> None:
    key, _, ends = word.partition("=")
    space = read_space("toy.yaml", [word, "updates=1", "seed=3"])
    low, high = ends.partition(":")[0].split("..", 1)
    assert space == Space("toy.yaml", ("updates=1",), {key: Span((low, high), log, whole)}, (3,))


def test_choices_are_words_and_seeds_belong_to_each_trial() -> None:
    space = read_space("toy.yaml", ["shape=[8,4],[8, 2]", "updates=1..3", "seed=0..2"])
    assert space.seeds == (0, 1, 2) and space.recipe({"shape": "[8, 2]"}, 1).settings.seed == 1
    assert space.combinations() == [{"shape": s, "updates": u} for s in ("[8,4]", "[8, 2]") for u in "123"]


@pytest.mark.parametrize(
    ("low", "high", "value", "word"),
    [
        ("1e-4", "1e-2", 0.00123456, "0.00123"),
        ("1e-4", "1e-2", 0.000100001, "1e-4"),
        ("0.9", "0.999", 0.956789, "0.95679"),
        ("0", "5", 3.14159, "3.142"),
        ("0", "5", 4.99999, "5"),
        ("100", "2000", 1234.567, "1230.0"),
    ],
)
def test_values_are_short_and_within_the_range(low: str, high: str, value: float, word: str) -> None:
    span = Span((low, high), float(low) > 0 and float(high) >= 10 * float(low))
    assert span.word(value) == word and float(low) <= span.number(word) <= float(high)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("optim.lr=0..1", "command line: optim.lr=0: optim.lr must be positive, got 0.0"),
        ("optim.rl=1e-4..1e-2", "optim.rl: no such setting; did you mean 'optim.lr'?"),
        ("batch_size=16,x noise=0..a", "batch_size=x: batch_size: expected a whole number, got 'x'"),
        ("batch_size=16..32.5", "command line: batch_size=32.5: batch_size: expected a whole number, got 32.5"),
        ("batch_size=64..16", "command line: batch_size=64..16: the second end of a range must be larger"),
        ("noise=0..1:log", "command line: noise=0..1:log: a logarithmic range must begin above 0"),
        ("noise=1..2:cubic", "the scale of a range is log or linear, as in 1..2:log"),
        ("batch_size=16,16", "command line: batch_size=16,16: a choice is there twice"),
        ("batch_size=16,", "command line: batch_size=16,: a choice is empty"),
        ("noise=0,1 noise=2", "command line: noise is set twice"),
        ("noise=0.1 seed=0..4", "a sweep needs a setting to search, as in optim.lr=1e-4..1e-2"),
        ("seed=0,1 noise=0,1", "seed=0,1: expected a whole number, or a range such as seed=0..4"),
        ("updates=100,200", "updates must be at most batch_size"),
        ("noise=0,1 --metric eval/error", ""),
        ("noise=0,1 --metric eval/eror --direction minimize --smoke", "; did you mean 'eval/error'?"),
        ("noise=0,1 --metric eval/loss", "--metric eval/loss: toy does not expect it: say --direction"),
        ("noise=0,1 --metric error", "--metric error: metrics are named group/name"),
        ("noise=0,1 --direction up", "--direction up: expected maximize or minimize"),
        ("noise=0,1 expect={}", "toy expects nothing (`expect`), so a sweep does not know what is good: say --metric"),
        ("noise=0,1 --name a/b", "a run's name is no path"),
        ("noise=0,1 --runs nowhere algo=toys.py:Regresion", "has no 'Regresion'; did you mean 'Regression'?"),
    ],
)
def test_mistakes_are_reported_before_the_first_trial(words: str, message: str) -> None:
    line = f"sweep toy.yaml {words} --quiet --trials 1 total_steps=2"
    if message:
        with pytest.raises(Mistake) as mistake:
            rllab(line)
        assert message in str(mistake.value)
    else:
        assert rllab(line).exit_code == 0
    assert bool(list(Path("runs").glob("*/t0/metrics.jsonl"))) == (not message or "eval/eror" in words)


def test_a_value_may_be_wrong_beside_some_others_only() -> None:
    assert read_space("toy.yaml", ["batch_size=2,64", "updates=4..20"]).searched["updates"] == Span(
        ("4", "20"), False, True
    )


def test_trials_are_runs_and_the_table_ends_with_a_line_that_repeats_the_best() -> None:
    done = rllab(f"sweep toy.yaml {LR} batch_size=8,16 --trials 8 --quiet noise=0.1")
    assert done.exit_code == 0 and len(list_runs(Path("runs/toy-sweep"))) == 8
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["trial", "optim.lr", "batch_size", "eval/error", "rounds", "state"]
    content = json.loads(rllab(f"sweep toy.yaml {LR} batch_size=8,16 --trials 8 --json noise=0.1").stdout)
    values = [t["value"] for t in content["trials"] if t["state"] == "done"]
    assert 5 <= len(values) < 8 and values == sorted(values) and content["best"] == content["trials"][0]
    best, afresh = (line.strip() for line in lines if line.startswith("  rllab train"))
    assert best == content["command"] and afresh == f"{best} seed=1..5"
    assert rllab(f"{best.removeprefix('rllab ')} --name best --quiet").exit_code == 0
    assert RunFolder(Path("runs/best")).status()["headline"]["value"] == values[0]
    assert len({tuple(t["settings"].values()) for t in content["trials"]}) == 8
    assert {row["run"] for row in json.loads(rllab("runs --runs runs/toy-sweep --json").stdout)} == {
        f"t{n}" for n in range(8)
    }


def test_a_pruned_run_is_stopped_at_a_checkpoint_and_can_go_on() -> None:
    whole, finished = sweep("x", LR)
    pruned = [t for t in whole.study.trials() if t.outcome.state == "pruned"]
    assert finished and pruned
    run, outcome = whole.runs(pruned[0])[0], pruned[0].outcome
    assert run.status()["state"] == "stopped" and run.status()["reason"] == outcome.reason
    assert 1 <= outcome.rounds < 4 and run.metrics.last()["step"] == outcome.rounds and run.has_checkpoint
    medians = sorted(t.evaluations[outcome.rounds] for t in whole.study.trials() if t.outcome.state == "done")
    assert all(4 not in t.evaluations for t in whole.study.trials()), "a trial is not pruned in its last round"
    assert min(pruned[0].evaluations.values()) > medians[len(medians) // 2 - 1]
    assert rllab(f"train {run.path} --quiet").exit_code == 0 and run.state == "done"


def test_a_sweep_that_is_killed_ends_with_the_table_of_an_undisturbed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lives end at random entries of the journal, by turns before and after they are written."""
    words, append, chance, left = (LR, "batch_size=8..32"), JournalFileBackend.append_logs, random.Random(1), [0, False]
    expected = table(sweep("whole", *words)[0])
    assert {row["state"] for row in expected} == {"done", "pruned"}

    def append_or_die(backend: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        left[0] -= 1
        if left[0] == 0 and left[1]:
            os._exit(9)
        append(backend, logs)
        if left[0] == 0:
            os._exit(9)

    with monkeypatch.context() as patch:
        patch.setattr(JournalFileBackend, "append_logs", append_or_die)
        for life in range(10):
            left[:] = chance.randint(4, 10), life % 2
            assert ended(forked(lambda: sweep("cut", *words))) == 9
    assert table(sweep("cut", *words)[0]) == expected


def test_several_processes_share_the_trials_and_take_over_those_of_the_dead() -> None:
    words, most = (LR, "slow=0.02"), 9
    children = [forked(lambda: sweep("x", *words, most=most, array=True)) for _ in range(3)]
    while not Path("runs/x/t0/metrics.jsonl").is_file():
        time.sleep(0.02)
    os.kill(children[0], signal.SIGKILL)
    children.append(forked(lambda: sweep("x", *words, most=most, array=True)))
    assert sorted(ended(c) for c in children) == [-signal.SIGKILL, 0, 0, 0]
    whole, finished = sweep("x", *words, most=most)
    trials = whole.study.trials()
    assert finished and [t.number for t in trials] == list(range(most)) and len(list_runs(whole.folder)) == most
    for trial in trials:
        (run,) = whole.runs(trial)
        steps = [row["step"] for row in run.rows()]
        assert steps == list(range(1, len(steps) + 1)) and run.plain()["optim"]["lr"] == float(
            trial.settings["optim.lr"]
        )
        if trial.outcome.state == "done":
            assert run.status()["headline"]["value"] == trial.outcome.value
    assert len({t.settings["optim.lr"] for t in trials}) == most


def test_a_run_that_another_command_trains_ends_the_sweep_and_is_no_failure() -> None:
    Path("runs/x/t0").mkdir(parents=True)
    for _ in range(STARTS + 1):
        with RunFolder(Path("runs/x/t0")).lock(), pytest.raises(InUse, match="runs/x/t0: another process"):
            sweep("x", LR, most=1)
    assert sweep("x", LR, most=1)[0].study.trials()[0].outcome.state == "done"


def test_equal_values_are_told_and_the_one_with_fewer_rounds_is_best() -> None:
    line = "sweep toy.yaml total_steps=2,3 noise=0.1 seed=4 --metric eval/error --quiet"
    Path("toys.py").write_text(Path("toys.py").read_text().replace("super().evaluate(0)", '{"eval/error": 1.0}'))
    done = rllab(line).stdout
    best = json.loads(rllab(f"{line} --json").stdout)
    assert best["best"]["settings"] == {"total_steps": "2"} and [t["rounds"] for t in best["trials"]] == [2, 3]
    assert best["command"] == "rllab train toy.yaml noise=0.1 total_steps=2 seed=4" and best["command"] in done
    assert f"Its value is also that of trial {best['trials'][1]['trial']}." in done and "seed=5..9" in done
    with pytest.raises(Mistake, match=r"runs/toy-sweep/t0 is a run and no recipe; .* runs/toy-sweep/t0/recipe\.yaml"):
        rllab("sweep runs/toy-sweep/t0 noise=0,1")


def test_one_process_at_a_time_without_array() -> None:
    child = forked(lambda: sweep("x", LR, "slow=0.2", array=True))
    while not Path("runs/x/t0/metrics.jsonl").is_file():
        time.sleep(0.02)
    with pytest.raises(InUse, match="share the sweep with --array"):
        sweep("x", LR, "slow=0.2")
    os.kill(child, signal.SIGKILL)
    ended(child)
    child = forked(lambda: sweep("y", LR, "slow=0.2"))
    while not Path("runs/y/t0/metrics.jsonl").is_file():
        time.sleep(0.02)
    with pytest.raises(InUse, match=r"runs/y: another process works on this sweep.*--array"):
        sweep("y", LR, "slow=0.2")
    os.kill(child, signal.SIGKILL)
    ended(child)


def test_a_stopped_sweep_exits_with_99_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = table(sweep("whole", LR, most=3)[0])
    monkeypatch.setenv("RLLAB_AGAIN", "again")
    monkeypatch.setenv("RLLAB_STOP_AFTER", "0")
    result = CliRunner().invoke(app, f"sweep toy.yaml {LR} --trials 3 --quiet --name x".split())
    assert isinstance(result.exception, Stopped) and result.exception.exit_code == 99, result.output
    assert "runs/x" in str(result.exception) and Path("again").read_text() == "1\n"
    monkeypatch.delenv("RLLAB_STOP_AFTER")

    def stops(*_: object) -> None:
        raise Stopped("warned before the first round")

    for _ in range(STARTS + 1):  # which are no kills
        with pytest.raises(Stopped):
            Sweep(Path("runs/x"), read_space("toy.yaml", [LR]), ERROR, 3).run(stops, Stop(), print)
    for stop_in in (("t0", 2), ("t0", 4), ("t2", 1)):
        with pytest.raises(Stopped, match=r"runs/x.*by test; the same command") as stopped:
            sweep("x", LR, most=3, stop_in=stop_in)
        assert stopped.value.rounds
    assert table(sweep("x", LR, most=3)[0]) == expected


def test_a_larger_number_of_trials_goes_on_and_another_space_is_refused() -> None:
    two, four = (table(sweep("x", LR, most=most)[0]) for most in (2, 4))
    assert four[:2] == two and four == table(sweep("y", LR, most=4)[0])
    with pytest.raises(Mistake) as mistake:
        sweep("x", "optim.lr=1e-3..0.2", "noise=0.2", "seed=0..1")
    for line in ("searched.optim.lr: '1e-3..0.1:log' there, '1e-3..0.2:log' now", "settings.noise: 0.1 there, 0.2 now",
                 "seeds: [0] there, [0, 1] now", "Use another --name"):  # fmt: skip
        assert line in str(mistake.value)
    with open("toys.py", "a") as file:
        file.write("# changed\n")
    with pytest.raises(Mistake, match=r"files\.toys\.py"):
        sweep("x", LR)


def test_a_sweep_that_has_saved_nothing_gives_way_to_a_corrected_command() -> None:
    line = "sweep toy.yaml --name x --quiet --trials 2 "
    with pytest.raises(Mistake, match=r"all 2 trials failed, the first because: round 1: .*not finite|NaN|infinite"):
        rllab(f"{line} {LR} poison=1")
    with pytest.raises(Mistake, match="all 2 trials failed"):
        rllab(f"{line} {LR} poison=1")
    assert rllab(f"{line} {LR}").exit_code == 0
    with pytest.raises(Mistake, match="holds another sweep"):
        rllab(f"{line} {LR} poison=1")


def test_finitely_many_combinations_are_tried_once_each_and_failures_are_in_the_table() -> None:
    done = rllab("sweep toy.yaml updates=1,20 batch_size=8,32 noise=0,0.5 --no-pruning --quiet")
    assert done.exit_code == 0
    assert "updates must be at most batch_size" in done.stdout and done.stdout.count("failed: ") == 2
    content = json.loads(rllab("sweep toy.yaml updates=1,20 batch_size=8,32 noise=0,0.5 --no-pruning --json").stdout)
    assert len({tuple(t["settings"].values()) for t in content["trials"]}) == len(content["trials"]) == 8
    assert [t["state"] for t in content["trials"]] == ["done"] * 6 + ["failed"] * 2


def test_a_trial_with_several_seeds_is_compared_by_their_mean() -> None:
    whole, _ = sweep("x", "optim.lr=1e-3,0.1", "seed=3..5", most=2)
    for trial in whole.study.trials():
        values = [run.status()["headline"]["value"] for run in whole.runs(trial)]
        assert [run.path.name for run in whole.runs(trial)] == [f"t{trial.number}-s{s}" for s in (3, 4, 5)]
        assert trial.outcome.value == pytest.approx(sum(values) / 3) and trial.outcome.rounds == 12
        assert trial.outcome.interval == mean_interval(np.array(values)), "a bootstrap of three values is too narrow"


def test_the_figure_has_a_curve_for_each_trial(tmp_path: Path) -> None:
    line = f"sweep toy.yaml batch_size=8,16 seed=0..1 --name x --quiet --trials 2 --figure {tmp_path / 'x.svg'}"
    with pytest.raises(Mistake, match=r"name a file that ends with \.svg"):
        rllab(line.replace(".svg", ".doc"))
    done = rllab(f"{line} --of eval/error --of loss/total")
    assert done.exit_code == 0 and "x.svg is written" in done.stderr
    text = (tmp_path / "x.svg").read_text("utf-8")
    for words in (
        "batch_size=8, interquartile mean of 2 seeds",
        "batch_size=16, inter",
        "eval/error",
        "loss/total",
        "rounds",
    ):
        assert f"<!-- {words}" in text


def test_a_trial_that_kills_its_process_fails_after_some_starts() -> None:
    for start in range(STARTS):
        child = forked(lambda: sweep("x", "dies=true,false", "seed=2", most=2))
        assert ended(child) == 9, start
    whole, finished = sweep("x", "dies=true,false", "seed=2", most=2)
    dead, alive = sorted(whole.study.trials(), key=lambda t: t.settings["dies"], reverse=True)
    assert finished and (dead.outcome.state, alive.outcome.state) == ("failed", "done")
    assert dead.outcome.reason and f"killed {STARTS} times before it saved a round" in dead.outcome.reason


def test_a_line_of_the_journal_that_was_cut_by_a_kill_is_dropped_and_other_damage_is_named() -> None:
    expected = table(sweep("x", LR, most=3)[0])
    journal = Path("runs/x/journal.log")
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-30])
    assert table(sweep("x", LR, most=3)[0]) == expected
    journal.write_bytes(whole[:200] + b"\x00" + whole[200:])
    with pytest.raises(Mistake, match=r"runs/x/journal\.log is damaged"):
        sweep("x", LR, most=3)
    journal.unlink()
    with pytest.raises(Mistake, match=r"runs/x/journal\.log is gone"):
        sweep("x", LR, most=3)


def test_without_optuna_the_command_that_installs_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(Mistake, match=r"rllab sweep needs optuna: \./lab python -m pip install optuna"):
        rllab(f"sweep toy.yaml {LR} --quiet")


def test_several_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Mistake, match=r"here are 2 ranks: ask for one task .*--array"):
        rllab(f"sweep toy.yaml {LR} --quiet")
