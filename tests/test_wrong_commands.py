"""What a user reads after a wrong command, and the exit code; ranges of all settings; names of metrics."""

import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from conftest import TESTS, run
from typer.testing import CliRunner

import rllab
from rllab import algos
from rllab.cli import app
from rllab.cli.results import bracketed, result
from rllab.core.errors import Mistake, RllabError
from rllab.core.ranges import Range
from rllab.core.recipe import Optim, Settings, load_recipe, recipe_names
from rllab.core.run import RunFolder
from rllab.core.typed import dataclass_settings
from rllab.text.lora import Lora

TRAIN = "train cartpole --smoke --quiet "
WRONG = [
    ("trian cartpole", "No such command 'trian'. Did you mean 'train'"),
    ("train", "which recipe? rllab list shows the recipes"),
    ("train cartpol", "no recipe named 'cartpol'; did you mean 'cartpole'?"),
    ("train mine.yml", "no such recipe file: mine.yml"),
    ("train done-1", "done-1 is a run and no recipe; rllab train runs/done-1 continues it"),
    (TRAIN + "seed=0-4", "seed=0-4: expected a whole number, or a range such as seed=0..4"),
    (TRAIN + "seed=0,1,2", "seed=0,1,2: expected a whole number, or a range such as seed=0..4"),
    (TRAIN + "seed=-1", "seed=-1: expected a whole number"),
    (TRAIN + "seed=4..0", "the last seed comes before the first"),
    (TRAIN + "total_steps=1e3", "total_steps: expected a whole number, got 1e3; write 1000"),
    (TRAIN + "total_steps=ten", "total_steps: expected a whole number, got 'ten'"),
    (TRAIN + "optim.lr=1e-4,3e-4", "only seed takes several values, as in seed=0..4: start a run for each"),
    (TRAIN + "gamma=[0.9,0.99]", "only seed takes several values, as in seed=0..4: start a run for each"),
    (TRAIN + "lr=1", "lr: no such setting; did you mean 'optim.lr'?"),
    (TRAIN + "gama=0.9", "gama: no such setting; did you mean 'gamma'?"),
    (TRAIN + "gamma", "'gamma': expected key=value, as in optim.lr=1e-3"),
    (TRAIN + "gamma=1.5", "command line: gamma=1.5: gamma must be from 0 to 1, got 1.5"),
    (TRAIN + "gamma=.inf", "gamma: expected a finite number, got inf"),
    (TRAIN + "gamma=.nan", "gamma: expected a finite number, got nan"),
    (TRAIN + "batch_size=0", "batch_size must be at least 1, got 0"),
    (TRAIN + "hidden=[64,0]", "hidden[1] must be at least 1, got 0"),
    (TRAIN + "optim.lr=0", "optim.lr must be positive, got 0.0"),
    (TRAIN + "optim.betas=[0.9,1]", "optim.betas[1] must be at least 0 and below 1, got 1.0"),
    (TRAIN + "save_minutes=-1", "save_minutes must be positive, got -1.0"),
    (TRAIN + "reward=mine.py:nothere", "mine.py has no 'nothere'"),
    (TRAIN + "reward=nofile.py:fn", "no such file"),
    (TRAIN + "algo=mine.py:fn", "algo: is not an algorithm"),
    (TRAIN + "env=CartPole-v9", "CartPole"),
    (TRAIN + "expect=475", "expect: expected settings, as in {name: value}, got 475"),
    (TRAIN + "expect={return:475}", "expect: metrics are named group/name, as in eval/return; got 'return'"),
    (TRAIN + "until={eval/return:.nan}", "until.eval/return: expected a finite number"),
    (TRAIN + "expect={eval/retrun:475}", "no metric 'eval/retrun' is measured; did you mean 'eval/return'?"),
    (TRAIN + "until={loss/totl:1}", "no metric 'loss/totl' is measured; did you mean 'loss/total'?"),
    (TRAIN + "eval_every=0 expect={eval/retrun:475}", "no metric 'eval/retrun' is measured; did you mean"),
    (TRAIN + "--name ../x", "--name ../x: a run's name is no path"),
    (TRAIN + "--from nothing", "no run 'nothing' in runs"),
    ("train sft-full --smoke lora={r:0}", "lora.r must be at least 1, got 0"),
    ("train rlhf --smoke gae_lambda=2", "gae_lambda must be from 0 to 1, got 2.0"),
    ("train sft-full --smoke task={name:pocket,tickets:3}", "task.tickets must be from 0 to 1, got 3.0"),
    ("train grpo --smoke reward={name:soft_overlong,tokens:0,buffer:5}", "tokens"),
    ("chat done-1", "runs/done-1 is a run of DQN and holds no language model"),
    ("chat cartpole-7", "no run 'cartpole-7' in runs"),
    ("samples done-1", "runs/done-1 has no samples"),
    ("curves done-1 --of eval/retrun", "runs/done-1 has no round with step, eval/retrun; it measured"),
    ("curves nothing-1", "no run 'nothing-1' in runs"),
    ("show cartpol", "did you mean 'cartpole'?"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the run `done-1` of cartpole, and a file mine.py."""
    folder = tmp_path_factory.mktemp("wrong")
    run(load_recipe("cartpole", smoke=True), folder / "runs/done-1")
    (folder / "mine.py").write_text("def fn(x): return x\n")
    return folder


@pytest.mark.filterwarnings("ignore:.*had no checkpoint")  # of the command before, which failed
@pytest.mark.parametrize(("line", "message"), WRONG, ids=[line for line, _ in WRONG])
def test_what_a_user_reads_after_a_wrong_command(
    line: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    words = [re.sub(r"(?<=[\w{])([:,])(?=[\w.])", r"\1 ", w) if "={" in w else w for w in line.split()]
    result = CliRunner().invoke(app, words)
    error = result.exception
    code, text = (error.exit_code, str(error)) if isinstance(error, RllabError) else (result.exit_code, result.output)
    assert code == 2 and message in text, f"{text}\n{error!r}"
    assert len(text.splitlines()) <= 4, "a user reads a few lines"


def test_settings_from_python_are_quoted_as_written(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"^setting: sed=3: sed: no such setting; did you mean 'seed'\?$"):
        rllab.Trainer("cartpole", run=tmp_path, sed=3)
    with pytest.raises(Mistake, match="which recipe"):
        rllab.Trainer(sed=3)


def test_a_misspelt_metric_is_refused_at_the_first_evaluation(toy, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"recipe.yaml:\d+: expect: no metric 'eval/eror' is measured") as error:
        run(toy("expect={eval/eror: 1}"), tmp_path)
    assert "did you mean 'eval/error'" in str(error.value)
    assert RunFolder(tmp_path).status()["state"] == "failed" and not RunFolder(tmp_path).rows()[2:]


@pytest.mark.parametrize("every", [0, 2])
def test_a_misspelt_metric_of_any_group_is_refused_early(every: int, toy, tmp_path: Path) -> None:
    wrong = toy("expect={data/row: 1}", f"eval_every={every}")
    with pytest.raises(Mistake, match=r"no metric 'data/row' is measured; did you mean 'data/rows'\?"):
        run(wrong, tmp_path)
    assert len(RunFolder(tmp_path).rows()) < 3


def test_a_metric_that_only_the_headline_has_is_known(tmp_path: Path) -> None:
    source = (TESTS / "toys.py").read_text().replace('Headline("eval/error"', 'Headline("eval/final"')
    (tmp_path / "mine.py").write_text(source)
    (tmp_path / "r.yaml").write_text("algo: mine.py:Regression\ntotal_steps: 2\neval_every: 1\n")
    recipe = load_recipe(tmp_path / "r.yaml", {"expect": {"eval/final": "<= 1e9", "data/rows": 1}})
    assert [e["met"] for e in run(recipe, tmp_path / "a").folder.status()["expect"]] == [True, True]


def test_a_recipes_own_expectation_does_not_bind_another_task(tmp_path: Path) -> None:
    changes = {"game": {"name": "othello", "size": 4}, "network": "convolutions", "eval_perfect": 0}
    recipe = load_recipe("tictactoe", changes, smoke=True)
    assert recipe.own_goals() == [] and load_recipe("tictactoe", {"seed": 1}).own_goals() == ["until", "expect"]
    assert load_recipe("tictactoe", changes | {"expect": {"eval/x": 1}}).own_goals() == ["expect"]
    shown = result(run(recipe, tmp_path).folder)
    assert "eval/keeps expected 0.99: not measured" in shown, shown


def test_what_a_finished_run_must_reach_can_be_corrected(toy, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="no metric 'eval/eror'"):
        run(toy("expect={eval/eror: 1}", "eval_every=0", "save_every=1"), tmp_path)
    for wanted, met in (("'<= 1e9'", True), (1e9, False)):
        trainer = run(toy(f"expect={{eval/error: {wanted}}}", "eval_every=0", "save_every=1"), tmp_path)
        assert trainer.folder.status()["expect"][0]["met"] is met
    assert [r["step"] for r in trainer.folder.rows()] == [1, 2, 3, 4, 5, 6]


# settings that may be any number; the environment checks `set_point`
ANY = {"initial_value", "set_point", "target_entropy", "target_return", "targets", "threshold"}


def numbers(hint: Any, ranged: bool = False) -> Iterator[bool]:
    """Whether each number in a type has a range."""
    if get_origin(hint) is Annotated:
        yield from numbers(get_args(hint)[0], any(isinstance(a, Range) for a in get_args(hint)[1:]))
    elif hint in (int, float):
        yield ranged
    elif get_origin(hint) not in (typing.Literal, dict, Callable):
        for inner in get_args(hint):
            yield from numbers(inner)


def test_every_number_in_a_recipe_has_a_range() -> None:
    owners = [*(getattr(algos, name) for name in algos.__all__), Settings, Optim, Lora]
    bare = {
        f"{owner.__name__}.{name}"
        for owner in owners
        for name, (hint, _) in dataclass_settings(owner).items()
        if name not in ANY and not all(numbers(hint))
    }
    assert not bare, f"give these fields a type of rllab.core.ranges: {sorted(bare)}"
    assert list(numbers(get_type_hints(Optim)["betas"])) == [False, False], "the check sees a number without a range"
    assert len([f for owner in owners for f in fields(owner)]) > 200


def test_all_recipes_keep_their_ranges() -> None:
    for name in recipe_names():
        load_recipe(name)
        load_recipe(name, smoke=True)


@pytest.mark.parametrize("words", [["chat", "no/model"], ["train", "hub.yaml"]])
def test_a_name_on_the_hub_is_one_line_without_a_network(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.chdir(tmp_path)
    task = "task: {name: 'rllab_envs.tasks.dataset:Dataset', path: no/data}"
    (tmp_path / "hub.yaml").write_text(f"algo: SFT\n{task}\nmodel: no/model\ntotal_steps: 1\n")
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, Mistake) and len(str(result.exception).splitlines()) == 1, result.exception
    assert not capfd.readouterr().err, "the libraries' own lines"


def test_an_interval_without_width_is_no_interval() -> None:
    assert bracketed((0.25, 1.5)) == "[0.25, 1.5]" and bracketed([0.123456789, 1], 3) == "[0.123, 1]"
    assert bracketed((500.0, 500.0)) == "(all measured values are equal: no interval)"
