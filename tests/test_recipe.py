"""Recipes: what they may contain, and how mistakes are reported."""

import textwrap
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from rllab.core.errors import Mistake
from rllab.core.recipe import load_recipe, read_recipe, recipe_names

BAD = """\
algo: DQN
env: CartPole-v1
lerning_starts: 100
total_steps: many
gamma: 0.9
num_envs: 32.5
double: yes
optim:
  lrr: 1e-4
  name: adam
device: gpu
batch_size: 64
batch_size: 128
smoke: {total_step: 2}
"""


def mistakes(text: str, words: list[str] | None = None, folder: Path = Path()) -> list[str]:
    with pytest.raises(Mistake) as error:
        read_recipe(textwrap.dedent(text), "bad.yaml", folder, "bad", words or [])
    return str(error.value).splitlines()


def test_all_mistakes_are_reported_at_once() -> None:
    assert sorted(mistakes(BAD)) == sorted(
        [
            "bad.yaml:3: lerning_starts: no such setting; did you mean 'learning_starts'?",
            "bad.yaml:4: total_steps: expected a whole number, got 'many'",
            "bad.yaml:6: num_envs: expected a whole number, got 32.5",
            "bad.yaml:7: double: expected true or false, got 'yes'",
            "bad.yaml:9: optim.lrr: no such setting; did you mean 'optim.lr'?",
            "bad.yaml:10: optim.name: expected one of adamw, sgd, muon, got 'adam'; did you mean 'adamw'?",
            "bad.yaml:11: device: expected one of auto, cpu, cuda, mps, got 'gpu'; did you mean 'cpu'?",
            "bad.yaml:13: batch_size: set twice; line 12 sets it too",
            "bad.yaml:14: total_step: no such setting; did you mean 'total_steps'?",
        ]
    )


GOOD = "algo: DQN\nenv: CartPole-v1\ntotal_steps: 5\noptim: {lr: 1e-4}\n"


def test_numbers_are_numbers() -> None:
    for written, value in [
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        ("3", 3.0),
        (".5", 0.5),
        ("1_000.5", 1000.5),
        ("-2.5e+2", -250.0),
    ]:
        text = GOOD.replace("DQN", "SAC") + f"target_entropy: {written}\n"
        recipe = read_recipe(text, "good.yaml", Path(), "good")
        assert recipe.algorithm.target_entropy == value, written  # type: ignore[attr-defined]
    assert recipe.settings.optim.lr == 1e-4  # type: ignore[union-attr]
    assert read_recipe(GOOD + "buffer_size: 10_000\n", "g", Path(), "g").algorithm.buffer_size == 10_000  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lr=1"], "command line: lr=1: lr: no such setting; did you mean 'optim.lr'?"),
        (["optim.lr=fast"], "command line: optim.lr=fast: optim.lr: expected a number, got 'fast'"),
        (["optim.lr=-1"], "command line: optim.lr=-1: optim.lr must be positive, got -1.0"),
        (["total_steps=0"], "command line: total_steps=0: total_steps must be at least 1, got 0"),
        (["algo=dqn"], "command line: algo=dqn: algo: rllab.algos has no 'dqn'; did you mean 'DQN'?"),
        (["algo=torch:randn"], "command line: algo=torch:randn: algo: is not an algorithm"),
        (["reward=nothing.py:fn"], "command line: reward=nothing.py:fn: reward: no such file"),
        (["reward=gone.module:fn"], "reward: 'gone.module:fn': no module 'gone'"),
        (["wrappers=[FlattenObservations]"], "has no 'FlattenObservations'; did you mean 'FlattenObservation'?"),
        (["hidden=64"], "hidden: expected a list, as in [a, b], got 64"),
        (["hidden=[64, x]"], "hidden[1]: expected a whole number, got 'x'"),
        (["env=5"], "env: expected text, got 5; put it in quotes"),
        (["until={eval/return: soon}"], "until.eval/return: could not convert"),
        (["seed=[1"], "this is not YAML"),
        (["optim.betas=[0.9]"], "optim.betas: expected 2 values, got 1"),
        (["nonsense"], "'nonsense': expected key=value, as in optim.lr=1e-3"),
    ],
)
def test_mistakes_on_the_command_line_quote_it(words: list[str], message: str) -> None:
    assert message in "\n".join(mistakes(GOOD, words))


def test_a_renamed_key_is_refused_with_its_new_name(tmp_path: Path) -> None:
    text = "algo: {}\ntask: pocket\nmodel: run:pocket\ntotal_steps: 1\nkept: pocket\n"
    refused = "bad.yaml:5: kept: no such setting; kept is now retention_task"
    assert mistakes(text.format("SFT")) == [refused]
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom rllab.algos import SFT\n\n\n"
        "@dataclass(kw_only=True)\nclass Mine(SFT):\n    new: int = 1\n    renamed = {'old': 'new'}\n"
    )
    both = mistakes(text.format("mine.py:Mine") + "old: 3\n", folder=tmp_path)
    assert both == [refused, "bad.yaml:6: old: no such setting; old is now new"]
    assert "kept: no such setting" in mistakes(GOOD + "kept: 1\n")[0] and "now" not in mistakes(GOOD + "kept: 1\n")[0]


def test_required_settings() -> None:
    assert mistakes("total_steps: 3") == ["bad.yaml:1: algo: must be set"]
    assert mistakes("algo: DQN\ntotal_steps: 3") == ["bad.yaml:1: env: must be set"]
    assert mistakes("- a list") == ["bad.yaml: a recipe must be a mapping of settings, as in 'algo: DQN'"]
    assert mistakes("a: [1")[0].startswith("bad.yaml:1: this is not YAML")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("env: &x [*x]", "bad.yaml:2: this value contains itself by an alias"),
        ("optim: &o\n  lr: {a: [*o]}", "bad.yaml:2: this value contains itself by an alias"),
        ("env: !!python/object:os.system {}", "bad.yaml:2: !!python/object:os.system is not a value of a recipe"),
        ("env: !!python/object/apply:os.system [ls]", "bad.yaml:2: !!python/object/apply:os.system is not a value"),
        ("env: !own 3", "bad.yaml:2: !own is not a value of a recipe"),
        ("env: !!set {a, b}", "bad.yaml:2: !!set is not a value of a recipe"),
        ("seed: !!int many", "bad.yaml:2: 'many' is no !!int"),
        ("seed: !!bool many", "bad.yaml:2: 'many' is no !!bool"),
        ("seed: =", "bad.yaml:2: !!value is not a value of a recipe"),
        ("? [a, b]\n: 3", "bad.yaml:2: a key is a list or a mapping"),
        ("env: \x00", "bad.yaml: this is not YAML: unacceptable character"),
        ("env: " + "[" * 3000, "bad.yaml: its values are nested too deeply"),
        ("env: " + "[" * 200 + "]" * 200, "bad.yaml:2: its values are nested too deeply"),
        ("env:\n  a: &a [1, 1]\n" + "".join(f"  b{i}: &{'abcdefghijklmnopqrst'[i + 1]} "
         f"[{', '.join(['*' + 'abcdefghijklmnopqrst'[i]] * 9)}]\n" for i in range(9)),
         "the aliases make too many values"),
    ],
)  # fmt: skip
def test_values_that_no_recipe_has_are_refused(text: str, fault: str) -> None:
    (line,) = mistakes("algo: DQN\n" + text)
    assert fault in line
    if "\n" not in text and "\x00" not in text and len(text) < 50:
        key, _, value = text.partition(": ")
        assert fault.partition(": ")[2] in mistakes("algo: DQN\n", [f"{key}={value}"])[0]


def test_aliases_and_merges_that_end_are_followed() -> None:
    assert "contains itself" not in str(mistakes("algo: DQN\nuntil: &u {a: 1}\nexpect: *u\n"))


def test_a_bad_name_hides_no_other_mistake() -> None:
    assert len(mistakes("algo: DQM\ntotal_steps: x\n")) == 2


def test_settings_of_named_functions(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def fn(obs, action, next_obs, reward, terminated, info, *, scale: float, power: int = 1):\n"
        "    return scale * reward**power\n"
    )
    recipe = read_recipe(GOOD + "reward: {name: 'mine.py:fn', scale: 2}\n", "g", tmp_path, "g")
    reward = recipe.algorithm.reward  # type: ignore[attr-defined]
    assert reward(0, 0, 0, 3.0, False, {}) == 6.0 and reward.__name__ == "fn"
    assert recipe.plain["reward"] == {"name": "mine.py:fn", "scale": 2}
    assert "reward.scale: must be set" in mistakes(GOOD + "reward: 'mine.py:fn'\n", folder=tmp_path)[0]
    messages = mistakes(GOOD + "reward: {name: 'mine.py:fn', scale: 2, powr: 3}\n", folder=tmp_path)
    assert messages == ["bad.yaml:5: reward.powr: no such setting; did you mean 'reward.power'?"]


def test_a_field_that_every_run_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom rllab.algos import DQN\n\n\n"
        "@dataclass(kw_only=True)\nclass Mine(DQN):\n    keep: int = 1\n"
    )
    messages = mistakes(GOOD.replace("algo: DQN", "algo: mine.py:Mine"), folder=tmp_path)
    assert any(
        "algo: has a field 'keep', which is a setting of every run: give it another name" in t for t in messages
    ), messages


def test_plain_recipe_is_complete_and_reads_back() -> None:
    for name in recipe_names():
        recipe = load_recipe(name)
        again = read_recipe(yaml.safe_dump(recipe.plain, sort_keys=False), "again", Path(), "again")
        assert again.plain == recipe.plain
        assert repr((again.settings, again.algorithm)) == repr((recipe.settings, recipe.algorithm))
        settings = {f.name for f in [*fields(recipe.settings), *fields(recipe.algorithm)]}
        assert recipe.plain.keys() == settings and {"seed", "optim", "precision"} <= settings


def test_optim_for_each_part() -> None:
    recipe = load_recipe("pendulum-sac", ["optim={actor: {lr: 1e-4}, critic: {lr: 1e-3}, temperature: {lr: 3e-4}}"])
    assert {k: o.lr for k, o in recipe.settings.optim.items()} == {"actor": 1e-4, "critic": 1e-3, "temperature": 3e-4}  # type: ignore[union-attr]


def test_missing_and_unknown_parts_in_optim_are_errors(tmp_path: Path) -> None:
    from rllab.core.trainer import Trainer

    for words, message in [
        ("optim={actor: {lr: 1e-4}}", r"optim=.*: optim: has no settings for the part 'critic'"),
        ("optim={actr: {lr: 1e-4}}", r"there is no part 'actr'; did you mean 'actor'\?; parts: actor, critic"),
    ]:
        with pytest.raises(Mistake, match=message):
            next(iter(Trainer(load_recipe("pendulum-sac", [words], smoke=True), tmp_path / words[:12])))


def test_unknown_environments_are_reported_with_their_line(tmp_path: Path) -> None:
    from rllab.core.trainer import Trainer

    recipe = read_recipe(GOOD.replace("CartPole", "CartPoel"), "mine.yaml", Path(), "mine")
    with pytest.raises(Mistake, match=r"recipe.yaml:\d+: env: .*CartPoel.*Did you mean: `CartPole`"):
        next(iter(Trainer(recipe, tmp_path)))


def test_recipe_names_are_suggested() -> None:
    with pytest.raises(Mistake, match="no recipe named 'cartpol'; did you mean 'cartpole'"):
        load_recipe("cartpol")
    with pytest.raises(Mistake, match=r"no such recipe file: nothing\.yaml"):
        load_recipe("nothing.yaml")
