"""AlphaZero: value targets with known values, networks, matches, and runs from start to end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rllab_envs.games import go
from test_search import CTX, Tree
from torch import nn
from typer.testing import CliRunner

from rllab.cli import app
from rllab.control.replay import Window
from rllab.core.errors import Mistake
from rllab.core.games import moves, named_game
from rllab.core.recipe import load_recipe
from rllab.core.state import Segment
from rllab.core.trainer import Trainer
from rllab.evals import strength
from rllab.evals.strength import load_player
from rllab.search.evaluate import sample_actions
from rllab.search.match import Player, match, perfect_player, play_out, uct_player
from rllab.search.networks import Convolutions, Lines, board_network
from rllab.search.parallel import search_in_threads, search_threads
from rllab.search.search import SearchOutput, puct
from rllab.search.selfplay import OpenGames
from rllab.stats import wilson
from rllab.testing import check_algorithm

NAN = np.float32(np.nan)


def output(count: int, value: float, exact: float = NAN) -> SearchOutput:
    """The output of a search of `count` games."""
    policy = np.tile(np.array([0.25, 0.75], np.float32), (count, 1))
    root_value = np.full(count, exact if exact == exact else value, np.float32)
    every = np.full(count, exact, np.float32)
    return SearchOutput(np.zeros(count, int), policy, policy.astype(int), root_value, every, np.full((count, 2), NAN))


def scripted(players: int = 2) -> Tree:
    game = Tree(3, 2, 0, players)
    game.allowed[:] = True
    game.outcome[:] = 1.0  # the player who moves last wins
    return game


def learned(values: list[tuple[float, float]], td_lambda: float, players: int = 2) -> list[float]:
    games = OpenGames(scripted(players), 2, 0, td_lambda)
    for value, exact in values:
        games.move(output(2, value, exact), np.zeros(2, int), np.random.default_rng(0))
    positions, lengths = games.pop_finished()
    assert lengths == [3, 3] and positions["policy"].shape == (6, 2)
    assert positions["board.ply"].tolist() == [0, 0, 1, 1, 2, 2]
    return [float(z) for z in positions["z"][::2]]


def test_z_is_the_result_of_the_game_for_the_side_to_move() -> None:
    assert learned([(0.3, NAN), (-0.2, NAN), (0.5, NAN)], 1.0) == [1.0, -1.0, 1.0]
    assert learned([(0.3, NAN), (-0.2, NAN), (0.5, NAN)], 1.0, players=1) == [1.0, 1.0, 1.0]


def test_z_mixes_the_values_of_later_searches() -> None:
    last = 1.0
    middle = -(0.8 * last + 0.2 * 0.5)
    first = -(0.8 * middle + 0.2 * -0.2)
    assert learned([(0.3, NAN), (-0.2, NAN), (0.5, NAN)], 0.8) == pytest.approx([first, middle, last])


def test_z_is_exact_where_the_value_is_proven() -> None:
    assert learned([(0.3, NAN), (-0.2, 0.0), (0.5, NAN)], 1.0) == [0.0, 0.0, 1.0]


def test_new_games_replace_finished_ones_and_start_with_random_moves() -> None:
    games = OpenGames(scripted(), 40, 2, 1.0)
    rng = np.random.default_rng(1)
    games.begin(np.arange(40), rng)
    opened = games.played.copy()
    assert set(opened) == {0, 1, 2} and games.boards["ply"].tolist() == opened.tolist()
    count = 0
    for _ in range(9):
        games.move(output(40, 0.0), rng.integers(0, 2, 40), rng)
        positions, lengths = games.pop_finished()
        count += len(positions.get("z", ()))
        assert len(games.record) <= 3 and (games.played < 3).all() and set(lengths) <= {3}
        assert (games.boards["ply"] == games.played).all()
    assert count + (len(games.record) - games.begun).sum() == 9 * 40  # each position is one training row


def test_only_observed_arrays_of_a_position_are_recorded() -> None:
    game = go(size=5)
    games, rng = OpenGames(game, 3, 0, 1.0), np.random.default_rng(0)
    planes = []
    for _ in range(50):
        planes.append(game.observe(games.boards))
        policy, edges = np.full((3, 26), 1 / 26, np.float32), np.zeros((3, 26))
        output = SearchOutput(*[policy] * 3, *np.zeros((2, 3), np.float32), edges)
        games.move(output, sample_actions(game.legal(games.boards), rng.random(3)), rng)
        if games.lengths:
            break
    positions, lengths = games.pop_finished()
    kept = {k[6:]: v for k, v in positions.items() if k.startswith("board.")}
    assert set(kept) == {"cells", "moves", "last"} and len(kept["moves"]) == sum(lengths)
    seen = game.observe(kept).reshape(max(lengths), len(lengths), -1)
    assert any(np.array_equal(seen[:, 0], np.stack(planes)[:, g].reshape(len(planes), -1)) for g in range(3))


def test_a_window_keeps_the_newest() -> None:
    window = Window()
    for first in range(0, 60, 6):
        window.add({"x": np.arange(first, first + 6), "y": np.ones((6, 2), np.float32)})
        window.keep(int(0.5 * window.added))
    assert len(window) == 30 and window.added == 60
    assert window.take(np.array([0, 29]))["x"].tolist() == [30, 59]
    state = window.state_dict()
    assert all(isinstance(s, Segment) for s in state["segments"])
    again = Window()
    again.load_state_dict(state)
    assert again.added == 60 and again.take(np.arange(30))["x"].tolist() == list(range(30, 60))
    again.keep(29)
    assert len(again) == 30
    again.keep(7)
    assert again.take(np.arange(len(again)))["x"].tolist() == list(range(48, 60))


def test_several_threads_return_the_same_as_one() -> None:
    game = Tree(6, 3, 1)

    def flat(board: Any, legal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(legal.shape, np.float32), np.zeros(len(legal), np.float32)

    def part(which: slice, _: int) -> SearchOutput:
        return puct(game, {k: v[which] for k, v in game.start(7).items()}, flat, 20)

    threads = torch.get_num_threads()
    one, three = search_in_threads(part, 7, [0]), search_in_threads(part, 7, [0, 0, 0])
    np.testing.assert_array_equal(one.visits, three.visits)
    assert len(search_in_threads(part, 1, [0, 0]).action) == 1 and torch.get_num_threads() == threads


def test_a_gpu_evaluates_at_least_128_games_at_once() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert [search_threads(torch.device("cuda"), games) for games in (4, 255, 256, 4096)] == [1, 1, 2, 3]
        assert search_threads(torch.device("cpu"), 4) == 3
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("states", [2, 3])
def test_lines_are_embedded_by_the_contents_of_their_cells(states: int) -> None:
    torch.manual_seed(0)
    lines = np.array([[0, 1, 2], [0, 3, 6]])
    net = Lines((3, 3, 3), 9, lines, 4, 0, states)
    seen = torch.zeros(1, 3, 3, 3)
    seen[0, 0, 0, 0] = seen[0, 0, 0, 1] = seen[0, 1, 2, 0] = 1.0  # mine: cells 0 and 1; theirs: cell 6
    seen[0, 2, 0, 2] = 1.0  # a third state of cell 2, if it counts as one
    base = states + 1
    codes = 1 + base + (3 * base**2 if states == 3 else 0), base**3 + 1 + 2 * base**2
    looked_up = net.table.weight[list(codes)].sum(0)
    expected = net.first(torch.cat([looked_up, seen.flatten()]))
    assert torch.allclose(net.features(seen)[0], expected.relu(), atol=1e-6)
    many = Lines((3, 1, 5), 1, np.arange(5)[None], 4, 0, 3)  # its last code, 1,023, is beyond bf16's whole numbers
    full = torch.zeros(1, 3, 1, 5)
    full[0, 2] = 1.0
    assert torch.allclose(many.bfloat16().features(full.bfloat16()).float(), many.float().features(full), atol=0.05)


def test_the_line_table_has_the_gradient_of_an_embedding_bag() -> None:
    torch.manual_seed(0)
    lines = np.array([[0, 1, 2], [0, 3, 6], [2, 4, 6]])
    net = Lines((2, 3, 3), 9, lines, 4, 0, 2)
    seen = torch.randint(0, 2, (50, 2, 3, 3)).float()
    seen[:, 1] *= 1.0 - seen[:, 0]
    bag = nn.EmbeddingBag.from_pretrained(net.table.weight.detach().clone(), freeze=False, mode="sum")
    code = (torch.tensor([1.0, 2.0]) @ seen.flatten(2))[:, torch.from_numpy(lines)] @ torch.tensor([1.0, 3.0, 9.0])
    features = net.first(torch.cat([bag(code.long() + 27 * torch.arange(3)), seen.flatten(1)], 1)).relu()
    assert torch.equal(net.features(seen), features)
    net.features(seen).pow(2).sum().backward()
    features.pow(2).sum().backward()
    assert net.table.weight.grad is not None and bag.weight.grad is not None
    assert torch.allclose(net.table.weight.grad, bag.weight.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["lines", "convolutions"])
def test_new_networks_have_uniform_policies_and_value_0(name: str) -> None:
    class Square(Tree):
        lines = np.arange(16).reshape(4, 4)

    net = board_network(Square(3, 2, 0), name, 8, 2)
    assert isinstance(net, Lines if name == "lines" else Convolutions)
    policy, value = net.policy_and_value(
        nn.functional.one_hot(torch.arange(80).view(5, 1, 16) % 3, 3)[..., :2].movedim(3, 1).float()
    )
    assert policy.shape == (5, 2) and not policy.any() and not value.any()


def test_a_match_changes_sides() -> None:
    game = Tree(6, 2, 7)
    game.allowed[:] = True
    rng = np.random.default_rng(0)
    even = match(game, uct_player(game, 20, rng), uct_player(game, 20, rng), 200, rng)
    assert len(even) == 200 and set(even) <= {-1.0, 0.0, 1.0} and abs(even.mean()) < 0.25

    def first(board: Any) -> np.ndarray:
        return np.zeros(len(board["ply"]), int)

    assert match(game, uct_player(game, 200, rng), first, 100, rng).mean() > 0.2


def test_a_match_in_a_one_player_game_compares_separate_games() -> None:
    game = Tree(2, 3, 0, players=1, values=(-1.0, 0.0, 0.5))
    game.allowed[:] = True
    game.outcome[:] = [0, 0.5, -1, 0, 0.5, -1, 0, 0.5, -1]

    def always(action: int) -> Player:
        return lambda board: np.full(len(board["ply"]), action)

    rng = np.random.default_rng(0)
    assert match(game, always(1), always(0), 7, rng, opening=1).tolist() == [1.0] * 7
    assert match(game, always(2), always(0), 7, rng, opening=0).tolist() == [-1.0] * 7
    assert play_out(game, game.start(2), [always(1)]).tolist() == [0.5, 0.5]


def test_perfect_play_starts_with_random_moves_on_request() -> None:
    game = named_game("tictactoe")
    many = {k: np.repeat(v, 300, 0) for k, v in moves(game, "1").items()}
    rng = np.random.default_rng(0)
    assert set(perfect_player(game, rng)(many)) == {4}
    assert set(perfect_player(game, rng, stones=2)(many)) == set(range(1, 9))
    board = {k: np.concatenate([many[k], moves(game, "125")[k]]) for k in many}
    actions = perfect_player(game, rng, stones=2)(board)
    assert len(set(actions[:-1])) == 8 and actions[-1] == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"search": "gumbel", "game": "tictactoe", "network": "convolutions", "td_lambda": 1.0},
        {"game": {"name": "othello", "size": 4}, "network": "convolutions", "expect": {}},
        {"threads": 2, "micro_batch": 5},
    ],
    ids=str,
)
def test_variants_keep_the_contract(changes: dict[str, Any], tmp_path: Any) -> None:
    check_algorithm(load_recipe("connect-four", changes, smoke=True), tmp_path)


def test_convolutions_learn_which_moves_keep_the_outcome(tmp_path: Any) -> None:
    changes = {"network": "convolutions", "channels": 32, "num_games": 64, "simulations": 24, "total_steps": 12}
    changes |= {
        "gradient_steps": 32,
        "average": 0.9,
        "eval_every": 12,
        "eval_perfect": 0,
        "optim.lr": 5e-3,
        "expect": {},
    }
    trainer = Trainer(load_recipe("tictactoe", changes), tmp_path / "run")
    trainer.algorithm.setup(CTX)
    untrained = trainer.algorithm.evaluate(0)["eval/keeps_raw"]
    assert untrained < 0.6 and list(trainer)[-1]["eval/keeps_raw"] > 0.9  # by the policy alone, in unseen positions


def test_the_player_follows_the_learner(tmp_path: Any) -> None:
    trainer = Trainer(load_recipe("connect-four", {"average": 0.0}, smoke=True), tmp_path / "run")
    list(trainer)
    learner, player = (trainer.algorithm.model[k].state_dict() for k in ("learner", "player"))
    assert all(torch.equal(learner[k], player[k]) for k in learner)
    lines = trainer.algorithm.preflight()
    assert lines["a position"] == "planes 6 x 6 x 7, 7 actions" and lines["a round"] == "144 positions, 576 simulations"


def test_outputs_that_are_not_finite_end_the_round_with_the_position(tmp_path: Any) -> None:
    trainer = Trainer(load_recipe("connect-four", {"save_every": 1}, smoke=True), tmp_path / "run")
    with pytest.raises(
        Mistake, match="round 3: the network's output for a position of ConnectFour is not finite"
    ) as raised:
        for row in trainer:
            if row["step"] == 2:
                trainer.algorithm.model["player"].heads.bias.data[2] = float("nan")
    path = tmp_path / "run" / "failed" / "position-3.json"
    assert str(path) in str(raised.value) and np.shape(json.loads(path.read_text())["observation"]) == (6, 6, 7)
    assert [r["step"] for r in Trainer(trainer.recipe, tmp_path / "run")] == [3, 4]  # no update is lost


def test_a_game_in_plain_python_is_learned_and_its_errors_are_reported(tmp_path: Any) -> None:
    text = (Path(__file__).parents[1] / "docs" / "game.md").read_text(encoding="utf-8")
    code = next(block.split("```")[0] for block in text.split("```python\n") if block.startswith("# hex.py"))
    (tmp_path / "hex.py").write_text(code)
    changes = {
        "game": {"name": f"{tmp_path / 'hex.py'}:Hex", "size": 3},
        "network": "convolutions",
        "eval_perfect": 0,
        "expect": {},
    }
    trainer = Trainer(load_recipe("tictactoe", changes, smoke=True), tmp_path / "run")
    assert "eval/score" in list(trainer)[-1] and trainer.headline is not None
    (tmp_path / "hex.py").write_text(
        code.replace("won = self.joined(after, mover)", "won = bool(0 / (position.count(0) - 4))")
    )
    with pytest.raises(Mistake, match=r"Hex.play of \S+ after .*: fails: ZeroDivisionError"):
        list(Trainer(load_recipe("tictactoe", changes, smoke=True), tmp_path / "broken"))


def test_strength_is_reported_beside_untrained_players(tmp_path: Any) -> None:
    list(Trainer(load_recipe("tictactoe", smoke=True), tmp_path / "run"))
    algorithm = load_player("run", tmp_path)
    rows = list(strength.positions(algorithm, [0, 30], [50], "test"))
    assert [r["player"] for r in rows] == ["random", "UCT 50", "policy alone", "30 simulations"]
    assert rows[0]["keeps"] < rows[1]["keeps"] and rows[0]["keeps"] < rows[3]["keeps"] <= 1.0
    assert all(r["interval"][0] <= r["keeps"] <= r["interval"][1] and r["best"] <= r["keeps"] for r in rows)
    one, two = strength.games(algorithm, 50, [20, 0], 10)
    assert one["won"] + one["drawn"] + one["lost"] == 10 and one["against"] == "UCT 20"
    assert two["against"] == "perfect play" and two["won"] == 0
    (late,) = strength.games(algorithm, 50, [0], 40, perfect_from=7)
    assert late["against"] == "perfect play from 7 stones on" and late["won"] > 20
    points = late["won"] + late["drawn"] / 2
    assert late["interval"] == wilson(points, 40)
    (full,) = strength.games(algorithm, 50, [20], 10, opening=9)  # only moves that end the game are left
    assert full != one and full["won"] + full["drawn"] + full["lost"] == 10
    result = CliRunner().invoke(app, ["strength", "run", "--runs", str(tmp_path), "--games", "2", "--predict", "run"])
    assert result.exit_code != 0 and "--predict looks at moves in positions" in str(result.exception)
    hex_like = load_recipe("tictactoe", {"game": {"name": "othello", "size": 4}, "network": "convolutions"}, smoke=True)
    hex_like.algorithm.setup(CTX)
    with pytest.raises(Mistake, match="no positions with known moves come with Othello; --games plays"):
        list(strength.positions(hex_like.algorithm, [0], [], "test"))
    with pytest.raises(Mistake, match="Othello has no perfect play"):
        list(strength.games(hex_like.algorithm, 2, [0], 2))
