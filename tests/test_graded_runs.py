"""Submitted runs: what is taken from them, what is refused, and that no code of theirs runs (rllab.evals.grading)."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import run, smoke_runs
from safetensors.torch import load_file, save_file

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.recipe import load_recipe, recipe_path
from rllab.evals.grading.assignment import read_assignment
from rllab.evals.grading.games import Score
from rllab.evals.grading.part import Part, Place
from rllab.evals.grading.returns import Return
from rllab.evals.grading.runs import AGENTS, OWN, PLAYERS, model_folder_of, open_run

NAMES = ("cartpole", "cartpole-ppo", "pendulum-sac", "tictactoe", "reward-model")
CODE = "from pathlib import Path\nPath({!r}).touch()\ndef fn(*a, **k): return 0.0\nclass Thing: pass\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest runs of `NAMES`, and `trained`, a DQN that balances the pole."""
    folder = smoke_runs(tmp_path_factory.mktemp("runs"), *NAMES)
    run(load_recipe("cartpole"), folder / "trained")
    return folder


@pytest.fixture
def copied(runs: Path, tmp_path: Path) -> Callable[..., Path]:
    """copied("cartpole", env="other"): a copy of a run with other lines in its recipe."""

    def copy(name: str, **lines: str) -> Path:
        folder = shutil.copytree(runs / name, tmp_path / "submitted")
        recipe = folder / "recipe.yaml"
        kept = {k: v for k, v in yaml.safe_load(recipe.read_text()).items() if k not in lines}
        recipe.write_text(yaml.safe_dump(kept) + "".join(f"{k}: {v}\n" for k, v in lines.items()))
        return folder

    return copy


def place(folder: Path) -> Place:
    return Place(folder, "run", None, 0, 60.0, 4.0, folder)


def prepared(part: Part, folder: Path = Path()) -> Any:
    part.prepare(folder, 0, False)
    part.forget_gold()
    return part


def a_return(recipe: str = "cartpole", episodes: int = 30) -> Return:
    made: Return = prepared(Return(points=1.0, recipe=recipe, episodes=episodes))
    return made


def a_score(against: list[str], games: int = 20, folder: Path = Path()) -> Score:
    part = Score(points=1.0, recipe="tictactoe", against=against, games=games, simulations=16)
    made: Score = prepared(part, folder)
    return made


def rows_of(part: Part, folder: Path, done: int = 0) -> list[Any]:
    batches = list(part.measure(place(folder), done))
    assert json.loads(json.dumps(batches)) == batches
    return batches


def judged(part: Part, folder: Path) -> Any:
    return part.judge([row for batch in rows_of(part, folder) for row in batch])


def test_a_trained_agent_has_a_higher_return_than_an_untrained_one(runs: Path) -> None:
    part = a_return()
    good, bad = judged(part, runs / "trained"), judged(part, runs / "cartpole")
    assert good.value > 400 > 200 > bad.value
    assert good.interval[0] <= good.value <= good.interval[1]
    assert [item.id for item in good.items] == [item.id for item in bad.items] == [str(i + 1) for i in range(30)]
    assert good.credits["1"] == good.items[0].credit


def test_episodes_begin_alike_for_all_submissions_and_unlike_those_of_the_lab(runs: Path) -> None:
    from rllab.control.vector import Envs

    part, starts = a_return(), []
    for name in ("trained", "cartpole-ppo"):
        agent: Any = open_run(runs / name, ("DQN", "PPO"), load_recipe("cartpole"), 0)
        starts.append(Envs(agent.envs.spec, 3, agent.ctx, "graded", agent.envs).obs)
        for purpose in ("episode", "evaluation"):
            assert (Envs(agent.envs.spec, 3, agent.ctx, purpose).obs != starts[0]).all()
    assert (starts[0] == starts[1]).all()
    assert part.judge(rows_of(part, runs / "trained")[0] + rows_of(part, runs / "trained")[1]).value


@pytest.mark.parametrize("name", ["cartpole", "cartpole-ppo", "pendulum-sac"])
def test_measured_again_or_from_a_later_batch_the_episodes_are_the_same(name: str, runs: Path) -> None:
    part = a_return("pendulum-sac" if name == "pendulum-sac" else "cartpole")
    every = rows_of(part, runs / name)
    assert len(every) == 2 and len({row["return"] for batch in every for row in batch}) > 2
    assert rows_of(part, runs / name) == every and rows_of(part, runs / name, 1) == every[1:]


def test_each_algorithm_that_is_graded_opens_with_its_weights(runs: Path) -> None:
    for name, recipe in (("cartpole", "cartpole"), ("cartpole-ppo", "cartpole"), ("pendulum-sac", "pendulum-sac")):
        agent = open_run(runs / name, ("DQN", "PPO", "SAC"), load_recipe(recipe), 0)
        saved = model_folder_of(runs / name)
        part, module = next(iter(agent.parts().items()))
        file = next(f for f in (saved / part / "model.safetensors", saved / "model.safetensors") if f.is_file())
        assert all(torch.equal(w, module.state_dict()[k]) for k, w in load_file(file).items())


def test_a_search_stronger_than_chance_scores_more_than_half(runs: Path) -> None:
    part = a_score(["random", "perfect"])
    measured = judged(part, runs / "tictactoe")
    assert len(measured.items) == 40 and set(measured.facts) == {"against random", "against perfect"}
    random = [item.credit for item in measured.items if "random" in item.id]
    perfect = [item.credit for item in measured.items if "perfect" in item.id]
    assert sum(random) / 20 > 0.7 > 0.55 > sum(perfect) / 20
    assert measured.value == pytest.approx((sum(random) + sum(perfect)) / 40)


def test_games_are_the_same_when_measured_again_and_begin_alike_for_all(runs: Path) -> None:
    part = a_score(["UCT 4", "random"], games=40)
    every = rows_of(part, runs / "tictactoe")
    assert len(every) == 4
    assert rows_of(part, runs / "tictactoe") == every and rows_of(part, runs / "tictactoe", 3) == every[3:]
    weaker: Score = prepared(Score(points=1.0, recipe="tictactoe", against=["UCT 4", "random"], simulations=0))
    others = rows_of(weaker, runs / "tictactoe")
    assert others != every
    opened = [[row["moves"].split()[:4] for batch in rows for row in batch] for rows in (every, others)]
    assert opened[0] == opened[1] and len({str(x) for x in opened[0]}) > 20


def test_a_run_draws_against_itself(runs: Path) -> None:
    (runs / "runs").mkdir(exist_ok=True)
    shutil.copytree(runs / "tictactoe", runs / "runs" / "rival", dirs_exist_ok=True)
    by_name, by_folder = (a_score([name], folder=runs) for name in ("run:rival", "tictactoe"))
    assert judged(by_name, runs / "tictactoe").value == 0.5 == judged(by_folder, runs / "tictactoe").value


def test_a_lost_game_is_no_credit_and_a_forged_row_none_at_all() -> None:
    part: Score = prepared(Score(points=1.0, recipe="tictactoe", against="random", games=2))
    first = {"against": "random", "opening": 0, "first": True, "moves": "1 2", "result": 1}
    second = first | {"first": False, "result": -1}
    assert part.judge([first, second]).value == 0.5
    for forged in ({"result": 2}, {"result": "1"}, {"against": "me"}, {"opening": None}, {"result": float("nan")}):
        with pytest.raises(Mistake, match="1 of 2 games"):
            part.judge([first, second | forged])


BOMB = (
    "[&a [1, 2, 3, 4, 5, 6, 7, 8, 9], "
    + ", ".join(f"&{y} [{f'*{x}, ' * 9}]" for x, y in zip("abcde", "bcdef", strict=True))
    + "]"
)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ({"algo": "mine.py:Thing"}, "its algo is 'mine.py:Thing'"),
        ({"algo": "mine:Thing"}, "its algo is 'mine:Thing'"),
        ({"algo": "rllab.algos:DQN"}, "its algo is"),
        ({"algo": "SFT"}, "its algo is"),
        ({"algo": "[DQN]"}, "its algo is"),
        ({"env": "mine.py:Maze-v0"}, "trained with env: 'mine.py:Maze-v0'"),
        ({"env": "mine:Maze-v0"}, "trained with env: 'mine:Maze-v0'"),
        ({"env": "rllab/Acrobot-v1"}, "trained with env: 'Acrobot-v1', .* measures with env: 'CartPole-v1'"),
        ({"env_kwargs": "{render_mode: human}"}, "trained with env_kwargs"),
        ({"wrappers": "[mine.py:Thing]"}, "trained with wrappers"),
        ({"wrappers": "[{name: mine:Thing}]"}, "trained with wrappers"),
        ({"hidden": "mine.py:fn"}, "hidden: expected a list"),
        ({"hidden": "[mine.py:fn]"}, "expected a whole number, got 'mine.py:fn'"),
        ({"hidden": "[-3]"}, "must be at least 1"),
        ({"hidden": "[1000000, 1000000]"}, "need more memory than this part has"),
        ({"dueling": "true"}, "another network than its recipe.yaml makes"),
        ({"double": "!!python/object/apply:os.system ['touch ran']"}, "python/object/apply:os.system is not a value"),
        ({"double": "&a [*a]"}, "contains itself"),
        ({"double": BOMB}, "the aliases make too many values"),
        ({"double": "{a: " * 200 + "1" + "}" * 200}, "nested too deeply"),
        ({"double": "[" * 5000}, "nested too deeply"),
        ({"double": "x" * 200_000}, "more than 100,000 bytes"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_hostile_recipe_is_refused_and_runs_nothing(
    lines: dict[str, str], why: str, copied: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied("cartpole", **lines)
    with_code(folder, monkeypatch)
    with pytest.raises(Mistake, match=why) as refused:
        a_return().inspect(place(folder))
    assert str(folder) not in str(refused.value)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    "lines",
    [
        {"reward": "mine.py:fn"},
        {"reward": "mine:fn"},
        {"model": "run:mine"},
        {"model": "/etc"},
        {"optim": "{name: mine.py:fn}"},
        {"num_envs": "100000000000"},
        {"buffer_size": "100000000000"},
        {"eval_episodes": "mine.py:fn"},
        {"anything": "mine.py:fn"},
    ],
    ids=str,
)
def test_settings_of_training_are_not_read(
    lines: dict[str, str], runs: Path, copied: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied("cartpole", **lines)
    with_code(folder, monkeypatch)
    part = a_return(episodes=5)
    assert rows_of(part, folder) == rows_of(part, runs / "cartpole")
    assert not (folder / "ran").exists()


def with_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds modules to a run that leave a file where they run, and makes it the working directory."""
    (folder / "sources").mkdir(exist_ok=True)
    for name in ("mine.py", "sources/mine.py", "sitecustomize.py"):
        (folder / name).write_text(CODE.format(str(folder / "ran")))
    monkeypatch.chdir(folder)


def test_the_code_of_the_hostile_runs_would_leave_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rllab.core.names import find

    with_code(tmp_path, monkeypatch)
    find("mine.py:fn", "", tmp_path)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("game", ["mine.py:Thing", "mine:Thing", "othello", "{name: connect_four, rows: 5}"])
def test_a_run_of_another_game_is_refused(
    game: str, copied: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied("tictactoe", game=game)
    with_code(folder, monkeypatch)
    with pytest.raises(Mistake, match=r"it was trained with game: .* measures with game: 'tictactoe'"):
        a_score(["random"]).inspect(place(folder))
    assert not (folder / "ran").exists()


def test_a_run_of_another_family_is_refused(runs: Path) -> None:
    with pytest.raises(Mistake, match=r"its algo is 'AlphaZero'; runs of A2C, .*, TD3 are graded here"):
        a_return().inspect(place(runs / "tictactoe"))
    with pytest.raises(Mistake, match="its algo is 'DQN'; runs of AlphaZero, Imitation"):
        a_score(["random"]).inspect(place(runs / "cartpole"))
    with pytest.raises(Mistake, match="env: 'Pendulum-v1', and this part measures with env: 'CartPole-v1'"):
        a_return().inspect(place(runs / "pendulum-sac"))


def change_weights(folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Changes the first weight of a run's newest checkpoint, and its manifest to match."""
    import hashlib

    (file,) = model_folder_of(folder).glob("*.safetensors")
    weights = load_file(file)
    name = next(iter(weights))
    save_file(weights | {name: change(weights[name]).contiguous()}, file)
    manifest = json.loads((file.parent / "manifest.json").read_text())
    manifest["files"][file.name] = [file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()]
    (file.parent / "manifest.json").write_text(json.dumps(manifest))


def test_weights_that_are_not_finite_are_refused(copied: Callable[..., Path]) -> None:
    folder = copied("cartpole")
    change_weights(folder, lambda w: w * float("nan"))
    with pytest.raises(Mistake, match="its weights are not finite"):
        a_return().inspect(place(folder))


def test_weights_of_another_shape_are_refused(copied: Callable[..., Path]) -> None:
    folder = copied("cartpole")
    change_weights(folder, lambda w: w[..., :-1])
    with pytest.raises(Mistake, match=r"its weights are those of another network than .*: size mismatch"):
        a_return().inspect(place(folder))


def test_the_hash_is_that_of_the_weights(runs: Path, copied: Callable[..., Path]) -> None:
    part, folder = a_return(), copied("cartpole", seed="7")
    assert part.inspect(place(folder))["weights"] == part.inspect(place(runs / "cartpole"))["weights"]
    change_weights(folder, lambda w: w + 1e-3)
    assert part.inspect(place(folder))["weights"] != part.inspect(place(runs / "cartpole"))["weights"]


def test_the_newest_intact_checkpoint_is_used(copied: Callable[..., Path]) -> None:
    folder = copied("cartpole")
    newest = model_folder_of(folder)
    shutil.copytree(newest, newest.with_name("00000099"))
    (newest.with_name("00000099") / "model.safetensors").write_bytes(b"pickled")
    with pytest.warns(UserWarning, match="damaged"):
        assert model_folder_of(folder) == newest


@pytest.mark.parametrize(
    "manifest", ["", "[]", '{"format": 2}', '{"format": 2, "world": 1, "segments": [], "files": 7}']
)
@pytest.mark.filterwarnings("ignore:.* is damaged")
def test_a_broken_manifest_is_a_mistake(manifest: str, copied: Callable[..., Path]) -> None:
    folder = copied("cartpole")
    for path in (folder / "checkpoints").glob("*/manifest.json"):
        path.write_text(manifest)
    with pytest.raises(Mistake, match=r"damaged|cannot be read"):
        a_return().inspect(place(folder))


def test_a_run_without_checkpoint_or_weights_is_a_mistake(copied: Callable[..., Path]) -> None:
    folder = copied("cartpole")
    for file in (folder / "checkpoints").glob("*/*.safetensors"):
        manifest = file.with_name("manifest.json")
        kept = json.loads(manifest.read_text())
        del kept["files"][file.name]
        manifest.write_text(json.dumps(kept))
        file.unlink()
    with pytest.raises(Mistake, match="its weights cannot be read"):
        a_return().inspect(place(folder))
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(Mistake, match="it has no checkpoint: submit the whole folder"):
        a_return().inspect(place(folder))


def test_an_own_submission_plays_other_episodes_than_the_grade(runs: Path, tmp_path: Path) -> None:
    path = tmp_path / "assignment.yaml"
    path.write_text("parts: {balance: {metric: return, recipe: cartpole, episodes: 10, points: 1}}")

    def played(own: bool) -> list[Any]:
        assignment = read_assignment(path)
        assignment.prepare(own)
        return rows_of(assignment.parts["balance"], runs / "cartpole")

    assert played(False) == played(False) != played(True)


@pytest.mark.filterwarnings("ignore:.* is damaged")
def test_a_run_is_handed_in_without_what_only_training_needs(copied: Callable[..., Path]) -> None:
    folder, part = copied("cartpole"), a_return()
    whole = part.inspect(place(folder))
    for trainer in (folder / "checkpoints").glob("*/trainer"):
        shutil.rmtree(trainer)
    assert part.inspect(place(folder)) == whole
    for path in (folder / "checkpoints").glob("*/model.safetensors"):
        path.rename(path.with_name("model.pt"))
    with pytest.raises(Mistake, match=r"damaged \(model.safetensors is missing .*: submit it again"):
        part.inspect(place(folder))


def test_the_model_of_a_language_model_run_is_found_without_reading_its_recipe(copied: Callable[..., Path]) -> None:
    folder = copied("reward-model", algo="mine.py:Thing")
    assert (model_folder_of(folder) / "config.json").is_file()


def test_what_is_asked_decides_the_identity_of_a_part(tmp_path: Path) -> None:
    one = a_return().identity()
    assert a_return().identity() == one != a_return(episodes=31).identity()
    (tmp_path / "own.yaml").write_text("algo: DQN\nenv: rllab/CartPole-v1\ntotal_steps: 1\neval_max_steps: 7\n")
    other: Return = prepared(Return(points=1.0, recipe="own.yaml", episodes=30), tmp_path)
    assert other.identity() != one


def test_the_assignments_recipe_limits_episodes(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("algo: DQN\nenv: rllab/CartPole-v1\ntotal_steps: 1\neval_max_steps: 7\n")
    part: Return = prepared(Return(points=1.0, recipe="own.yaml", episodes=3), tmp_path)
    measured = judged(part, runs / "trained")
    assert measured.value == 7 and measured.remarks == ["3 episodes were ended after 7 steps"]


@pytest.mark.parametrize(
    ("part", "field", "why"),
    [
        (Return(points=1.0, recipe="cartpol"), "recipe", "did you mean 'cartpole'"),
        (Return(points=1.0, recipe="none.yaml"), "recipe", "no such recipe file"),
        (Return(points=1.0, recipe="tictactoe"), "recipe", "AlphaZero acts in no environment"),
        (Score(points=1.0, recipe="cartpole"), "recipe", "DQN plays no board game"),
        (Score(points=1.0, recipe="othello6", against="perfect"), "against", "has no perfect play"),
        (Score(points=1.0, recipe="tictactoe", against="UTC 10"), "against", "an opponent is random, perfect, UCT N"),
        (Score(points=1.0, recipe="tictactoe", against="run:none"), "against", "no run 'none'"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named(part: Part, field: str, why: str) -> None:
    with pytest.raises(FieldMistake, match=why) as wrong:
        prepared(part)
    assert wrong.value.field == field


def test_settings_of_a_submissions_own_are_those_that_make_its_network_or_choose_moves() -> None:
    """A field that is new must be sorted: into OWN, or here."""
    from dataclasses import fields

    from rllab import algos

    training = (
        "gamma double n_step huber learning_starts train_freq gradient_steps batch_size "
        "target_update_interval tau epsilon_start epsilon_end epsilon_steps gae_lambda num_steps "
        "update_epochs num_minibatches clip_range vf_coef ent_coef target_kl temperature target_entropy "
        "reward eval_episodes headline_episodes model comparisons initial_share clip_length recent_clips "
        "end_penalty error_rate noise reward_updates reward_batch_size reward_std moves simulations "
        "dirichlet_alpha noise_share temperature_moves late_temperature openings td_lambda window "
        "value_weight average gate gate_every gate_games eval_simulations eval_games eval_rollouts "
        "eval_perfect teacher_games teacher_rollouts held_out_games num_envs buffer_size num_games env "
        "env_kwargs wrappers game eval_max_steps eval_views eval_env_kwargs eval_wrappers labels policy_delay "
        "eval_epsilon priority_alpha priority_beta "
        "baseline max_steps value_updates exploration_noise target_noise target_noise_clip "
    )
    known = {f.name for name in (*AGENTS, *PLAYERS) for f in fields(getattr(algos, name))}
    assert known == {*training.split(), *OWN}


CONFINED = """
import sys, json, tempfile
from pathlib import Path
from rllab.evals.grading.games import Score
from rllab.evals.grading.part import Place
from rllab.sandbox.confine import confine

part = Score(points=1.0, recipe="connect-four-quick", against=["perfect", "UCT 8"], games=2, simulations=4, opening=30)
part.prepare(Path(), 0, False)
scratch = Path(tempfile.mkdtemp())
if len(sys.argv) > 2 and not confine(str(scratch)):
    sys.exit("no Landlock")
print(json.dumps(list(part.measure(Place(Path(sys.argv[1]), "run", None, 0, 60.0, 4.0, scratch), 0))))
"""


def test_a_process_that_may_not_write_plays_the_same_games(runs: Path) -> None:
    """Numba writes what it compiles, and refuses to import a file beside which it cannot."""
    smoke_runs(runs, "connect-four-quick")
    line = [sys.executable, "-c", CONFINED, str(runs / "connect-four-quick")]
    free, confined = (subprocess.run([*line, *more], capture_output=True, text=True) for more in ([], ["confined"]))
    if "no Landlock" in confined.stderr:
        pytest.skip("this kernel has no Landlock")
    assert confined.stdout == free.stdout and json.loads(free.stdout)[1][1]["against"] == "UCT 8", confined.stderr


@pytest.fixture(scope="module")
def normalized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe `own.yaml` with a wrapper that keeps statistics, and its run `ann`."""
    folder = tmp_path_factory.mktemp("normalized")
    text = (recipe_path("cartpole").read_text()).replace("rllab/CartPole-v1", "CartPole-v1")
    (folder / "own.yaml").write_text(f"{text}wrappers: [NormalizeObservation]\n")
    run(load_recipe(folder / "own.yaml", smoke=True), folder / "ann")
    return folder


def test_the_statistics_of_wrappers_are_those_of_the_run(normalized: Path) -> None:
    agent: Any = open_run(normalized / "ann", ("DQN",), load_recipe(normalized / "own.yaml"), 0)
    saved = json.loads((model_folder_of(normalized / "ann") / "wrappers.json").read_text())
    (statistics,) = agent.envs.statistics.shared.values()
    assert statistics.mean.tolist() == saved["NormalizeObservation.obs_rms"]["mean"] != [0.0] * 4


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"NormalizeObservation.obs_rms": 7}',
        '{"NormalizeObservation.obs_rms": {"__class__": "x"}}',
        '{"NormalizeObservation.obs_rms": {"mean": [1, 2]}}',
        '{"NormalizeObservation.obs_rms": {"mean": [NaN, 1, 1, 1]}}',
        '{"Other.rms": {"mean": 0}}',
    ],
)
def test_hostile_statistics_are_a_mistake(content: str, normalized: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(normalized / "ann", tmp_path / "ann")
    file = model_folder_of(folder) / "wrappers.json"
    file.write_text(content)
    manifest = json.loads(file.with_name("manifest.json").read_text())
    del manifest["files"]["wrappers.json"]
    file.with_name("manifest.json").write_text(json.dumps(manifest))
    part: Return = prepared(Return(points=1.0, recipe="own.yaml", episodes=3), normalized)
    with pytest.raises(Mistake) as refused:
        rows_of(part, folder)
    assert str(tmp_path) not in str(refused.value)
