"""Analysis of positions in a file by a run, and a game against a run in the terminal."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import call

from rllab.cli.play import analyse_file, play
from rllab.core.errors import Mistake
from rllab.core.games import moves
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.evals.analysis import analyse, counts, thinking
from rllab.evals.strength import load_player


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    list(Trainer(load_recipe("connect-four", smoke=True), folder / "four"))
    list(Trainer(load_recipe("cartpole", smoke=True), folder / "pole"))
    return folder


@pytest.fixture
def four(runs: Path) -> Any:
    return load_player("four", runs)


def test_positions_are_analysed(four: Any, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("4453\n112233\n\n1112223334\n")
    rows, problems = analyse_file(four, tmp_path / "in.txt", 30, tmp_path / "out.jsonl")
    assert not problems and rows == [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [r["moves"] for r in rows] == ["4453", "112233", "", "1112223334"]
    assert rows[1] | {"visits": {}} == {"moves": "112233", "best": "4", "value": 1.0, "proven": True, "visits": {}}
    assert set(rows[0]["visits"]) == set("1234567") and sum(rows[0]["visits"].values()) == 30
    again, _ = analyse_file(four, tmp_path / "in.txt", 30, None)
    assert again == rows and analyse(four, [], 10) == []
    many = analyse(four, [moves(four.board_game, "4453")] * 1030, 2)
    assert len(many) == 1030 and all(row["visits"].keys() == rows[0]["visits"].keys() for row in many)


def test_a_win_in_two_moves_is_proven(four: Any, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("3344\n")  # 3 and 5 are open, so that two more make four at either side
    rows, _ = analyse_file(four, tmp_path / "in.txt", 2000, None)
    assert rows[0]["best"] in "25" and rows[0]["proven"] and rows[0]["value"] == 1.0


@pytest.mark.parametrize("search", ["puct", "gumbel"])
def test_a_search_is_seen_while_it_grows(four: Any, search: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(four, "search", search)
    board = moves(four.board_game, "4453")
    rows = list(thinking(four, board, 100))
    assert [row["simulations"] for row in rows] == [16, 32, 64, 100] == counts(100)
    assert [sum(row["visits"].values()) for row in rows] == [16, 32, 64, 100]
    (alone,) = analyse(four, [board], 100)
    assert {k: rows[-1][k] for k in alone} == alone
    if search == "puct":  # with Gumbel the plan of the visits depends on the number of simulations
        assert [{k: row[k] for k in alone} for row in rows] == [analyse(four, [board], n)[0] for n in counts(100)]
    for row in rows:
        assert row["line"][0] == row["best"] and len(row["line"]) > 1
        moves(four.board_game, "4453" + "".join(row["line"]))  # which is legal


def test_the_principal_line_of_a_proven_win_ends_with_it(four: Any) -> None:
    *_, last = thinking(four, moves(four.board_game, "3344"), 4000)
    assert last["proven"] and last["simulations"] < 4000  # it has ended early
    board = moves(four.board_game, "3344" + "".join(last["line"]))
    wins = four.board_game.wins(board).any()  # a win in one is known without a visit, and ends the line before it
    assert wins == (len(last["line"]) % 2 == 0) and (wins or not four.board_game.legal(board).any())


def test_bad_lines_are_reported_and_the_games_of_others_analysed(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("44\n4444444\n4x\n1122334\n77\n")
    line = ["-m", "rllab", "analyse", "four", str(tmp_path / "in.txt"), "--runs", str(runs)]
    done = call(*line, "--out", str(tmp_path / "o.jsonl"))
    assert done.returncode == 2 and len((tmp_path / "o.jsonl").read_text().splitlines()) == 2
    for message in (
        "3 positions were left out",
        "in.txt:2: ConnectFour: move 7",
        "in.txt:3:",
        "in.txt:4: the game is over",
    ):
        assert message in done.stderr
    shown = call(*line, "--simulations", "20").stdout
    assert shown.split()[:5] == ["moves", "best", "value", "proven", "visits"]


def test_runs_that_play_no_board_game_are_refused(runs: Path) -> None:
    with pytest.raises(Mistake, match="pole is a run of DQN, which plays no board game"):
        load_player("pole", runs)


def transcript(algorithm: Any, typed: list[str], second: bool = False) -> list[str]:
    output: list[str] = []
    lines: Iterator[str] = iter([f"{t}\n" for t in typed])
    play(algorithm, 20, second, lines, output.append)
    return output


def test_a_game_is_played_to_its_end(four: Any) -> None:
    lines = transcript(four, ["4", "/hint", "/back", "9", "/what", "4"])
    assert lines[1] == "you are X, and move first"
    assert lines[3].startswith("it plays ") and lines[4].count("X") == 1 and lines[4].count("O") == 1
    assert "for you); visits: " in lines[5]
    assert "X" not in lines[6] and "'9', is no move" in lines[7] and lines[8] == lines[0]
    assert transcript(four, ["help"])[-1] == lines[0] and len(transcript(four, ["quit", "4"])) == 3
    over = transcript(four, [c for _ in range(6) for c in "1234567"] + ["/hint", "/new"])
    assert any(s.startswith("the game is over; /new") for s in over) and over[-2] == "the game is over"
    assert over[-1].count(".") == 42
    assert transcript(four, [], second=True)[1] == "you are O, and X moves first"
    assert transcript(four, [], second=True)[2].startswith("it plays ")
