"""Board games against a run, and lists of moves, in a browser."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import pytest
from browser import TOKEN, axe, becomes, board, browser_page, chromium, overflow  # noqa: F401 - fixtures

from rllab.board import chat, play
from rllab.board.loaded import LoadedRun
from rllab.board.positions import Position, grid, played, replayed, search, shown
from rllab.board.workers import Workers
from rllab.core.errors import Mistake
from rllab.core.games import named_game
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.evals.analysis import analyse
from rllab.evals.replay import replay

SHORT = {"total_steps": 1, "num_games": 4, "moves": 1, "gradient_steps": 1, "batch_size": 8, "expect": {}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, recipe in {"four": "connect-four", "pegs": "peg-solitaire"}.items():
        list(Trainer(load_recipe(recipe, SHORT, smoke=True), folder / name))
    return folder


@pytest.fixture(scope="module")
def workers(runs: Path) -> Iterator[Workers]:
    with Workers(runs) as asked:
        yield asked


@pytest.fixture
def opened(board: Callable[..., str], browser_page: Callable[..., Any], runs: Path, workers: Workers) -> Any:  # noqa: F811
    address = board(runs, play.routes(workers), chat.routes(workers)).replace("/?", "/play?run={}&")

    def open_page(run: str, **settings: Any) -> Any:
        page = browser_page(**settings)
        page.set_default_timeout(60_000)
        page.goto(address.format(run))
        settled(page)
        return page

    return open_page


def settled(page: Any) -> None:
    """Waits until no request is in progress and a position is shown."""
    becomes(page, "position !== null && asked === null")


def last(answer: Any) -> tuple[list[Any], Any]:
    lines = []
    while True:
        try:
            lines.append(next(answer))
        except StopIteration as done:
            return lines, done.value


def test_a_position_is_drawn_from_the_planes() -> None:
    game = named_game("connect_four")
    position = Position(game.start(1))
    for name in "4453":
        position = played(game, position, name)
    drawn = grid(game, position)
    assert drawn is not None and (drawn["rows"], drawn["columns"], drawn["kind"]) == (6, 7, "columns")
    assert drawn["names"][-7:] == list("1234567") and drawn["changed"] == [37]
    assert np.reshape(drawn["stones"], (6, 7))[-2:].tolist() == [[0, 0, 0, 2, 0, 0, 0], [0, 0, 2, 1, 1, 0, 0]]
    with pytest.raises(Mistake, match="move 5, '8', is no move"):
        played(game, position, "8")
    assert shown(game, position)["result"] is None and not drawn["line"]
    for name in "617":
        position = played(game, position, name)
    drawn = shown(game, position)["grid"]
    assert shown(game, position)["result"] == 1.0 and drawn["line"] == [38, 39, 40, 41]


@pytest.mark.parametrize(
    ("name", "moves", "cells"),
    [("tictactoe", "5 1", {4: 1, 0: 2}), ("othello", "d3", {19: 1}), ("go", "e5 d5", {40: 1, 39: 2})],
)
def test_cells_are_where_their_names_say(name: str, moves: str, cells: dict[int, int]) -> None:
    game = named_game(name)
    position = Position(game.start(1))
    for move in moves.split():
        position = played(game, position, move)
        drawn = grid(game, position)
        assert drawn is not None and drawn["names"].index(move) in drawn["changed"]
    assert drawn is not None and {i: drawn["stones"][i] for i in cells} == cells


def test_jumps_of_peg_solitaire_are_two_cells() -> None:
    game = named_game("peg_solitaire")
    position = played(game, Position(game.start(1)), "d6d4")
    drawn = grid(game, position)
    assert drawn is not None and drawn["stones"].count(-1) == 16 and drawn["stones"].count(1) == 31
    at = {name: drawn["stones"][drawn["names"].index(name)] for name in ("d6", "d5", "d4", "a7")}
    assert at == {"d6": 0, "d5": 0, "d4": 1, "a7": -1} and len(drawn["changed"]) == 3


def test_moves_are_replayed_to_the_first_illegal_one(runs: Path) -> None:
    _, answer = last(replayed(LoadedRun(runs / "pegs"), {"moves": "d6d4 d3d5 d1d3 d6d4 b4d4"}))
    problems = [frame["problem"] for frame in answer["frames"]]
    assert problems[:4] == [""] * 4 and problems[4].startswith("move 4, 'd6d4', is not legal; legal are")
    assert len(problems) == 5 and answer["frames"][4]["picture"] == answer["frames"][3]["picture"]
    assert [frame["move"] for frame in answer["frames"]] == ["", *answer["moves"][:4]]


def test_any_simulator_is_replayed() -> None:
    def climb(height: int, move: str) -> int:
        if move == "down" and not height:
            raise Mistake("it is on the ground")
        return height + (1 if move == "up" else -1)

    frames = replay(["up", "down", "down", "up"], 0, climb)
    assert [(f.move, f.picture, f.problem) for f in frames[-2:]] == [
        ("down", "0", ""),
        ("down", "0", "it is on the ground"),
    ]


def test_the_search_is_the_run_s_own(runs: Path) -> None:
    run = LoadedRun(runs / "four")
    request = {"moves": list("4453"), "think": "reply", "simulations": 40}
    lines, answer = last(search(run, request))
    board_now: Any = Position(run.algorithm().board_game.start(1))
    for name in "4453":
        board_now = played(run.algorithm().board_game, board_now, name)
    (row,) = analyse(run.algorithm(), [board_now.board], 40)
    assert [line["search"]["simulations"] for line in lines[1:]] == [16, 32, 40]
    assert lines[-1]["search"]["value"] == row["value"] and answer["move"] == row["best"]
    assert dict(lines[-1]["search"]["visits"]) == {k: v for k, v in row["visits"].items() if v}
    for wrong, why in (({"simulations": 0}, "simulations must be"), ({"moves": "4"}, "list of names")):
        with pytest.raises(Mistake, match=why):
            last(search(run, request | wrong))
    with pytest.raises(Mistake, match="too large"):
        run.algorithm().board_game.names = [str(i) for i in range(1, 8)] * 2000
        last(search(run, request | {"simulations": 10_000}))


def test_a_whole_game_of_connect_four_is_played_by_clicks(opened: Any) -> None:
    page = opened("four")
    page.fill("#simulations", "20")
    assert page.locator(".cell").count() == 42 and page.locator("#state").inner_text() == "your move; you are X"
    for _ in range(21):
        page.locator(".cell.open").first.click()
        becomes(page, "moves.length > 0")
        settled(page)
        if page.evaluate("position.result !== null"):
            break
    moves = page.evaluate("moves")
    assert 7 <= len(moves) <= 42 and page.evaluate("position.legal.length") == 0
    game = named_game("connect_four")
    position = Position(game.start(1))
    for name in moves:
        position = played(game, position, name)  # each move is legal, by the rules themselves
    assert shown(game, position)["result"] is not None
    stones = page.locator(".cell.s1").count(), page.locator(".cell.s2").count()
    assert stones == ((len(moves) + 1) // 2, len(moves) // 2)
    words = {1.0: "you win as X", -1.0: "the run wins, you were X", 0.0: "the game is a draw"}
    assert page.locator("#state").inner_text() == words[shown(game, position)["result"]]
    assert page.locator(".cell.line").count() >= 4 or shown(game, position)["result"] == 0.0
    page.locator(".cell").nth(41).click()
    becomes(page, "document.getElementById('problem').textContent !== ''")
    assert "comes after the end" in page.locator("#problem").inner_text() and page.evaluate("moves") == moves


def test_moves_are_taken_back_refused_and_hinted(opened: Any) -> None:
    page = opened("four", width=390, height=800)
    page.fill("#simulations", "50")
    page.locator(".cell").nth(38).click()
    becomes(page, "moves.length === 2")
    settled(page)
    assert page.locator("#line").inner_text() and page.locator("#visits tr").count() > 1
    assert "for the run's move" in page.locator("#about").inner_text()
    page.fill("#move", "9")
    page.keyboard.press("Enter")
    becomes(page, "document.getElementById('problem').textContent !== ''")
    assert "move 3, '9', is no move" in page.locator("#problem").inner_text()
    assert page.evaluate("moves.length") == 2 and page.locator("#state").inner_text() == "your move; you are X"
    page.click("#back")
    becomes(page, "moves.length === 0")
    settled(page)
    assert page.locator(".cell.s1").count() == 0 and page.locator("#back").is_disabled()
    page.click("#hint")
    becomes(page, "document.getElementById('about').textContent.startsWith('50 of 50 simulations for your')")
    assert page.evaluate("moves.length") == 0
    page.select_option("#side", "1")  # the run moves first now
    becomes(page, "moves.length === 1")
    settled(page)
    assert page.locator("#state").inner_text() == "your move; you are O" and overflow(page) <= 0
    assert axe(page) == []


def test_the_search_is_seen_while_it_thinks_and_stopped(opened: Any) -> None:
    page = opened("four")
    page.fill("#simulations", "10000")
    page.click("#hint")
    about = "document.getElementById('about').textContent"
    becomes(page, f"/^[1-9][0-9,]* of 10,000 simulations for your move …$/.test({about})")
    page.click("#stop")
    settled(page)
    assert page.locator("#stop").is_disabled() and not page.locator("#about").inner_text().startswith("10,000")
    assert page.evaluate("moves.length") == 0
    page.fill("#simulations", "20")
    page.locator(".cell").nth(38).click()
    becomes(page, "moves.length === 2")


def test_stones_of_both_sides_are_drawn(opened: Any) -> None:
    page = opened("four")
    page.fill("#simulations", "5")
    page.locator(".cell").nth(38).click()
    becomes(page, "moves.length === 2")
    look = "getComputedStyle(document.querySelector('#board .cell.s{}'), '::before').{}"
    assert page.evaluate(look.format(1, "backgroundColor")) == "rgb(31, 119, 180)"
    assert "rgb(184, 69, 15)" in page.evaluate(look.format(2, "backgroundImage"))


def test_a_game_is_played_by_the_keyboard_alone(opened: Any) -> None:
    page = opened("four")
    page.fill("#simulations", "10")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('cell')"):
            break
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    becomes(page, "moves.length === 2")
    settled(page)
    assert page.evaluate("moves[0]") == "2"
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("column 2, row 5")
    page.keyboard.press("Space")
    becomes(page, "moves.length === 4")


def test_a_game_for_one_player_and_its_replay(opened: Any) -> None:
    page = opened("pegs", scheme="dark")
    page.fill("#simulations", "20")
    assert page.locator("#sides").is_hidden() and page.locator(".cell.outside").count() == 16
    page.get_by_label("d6, piece, legal").click()
    assert page.locator(".cell[aria-pressed=true]").count() == 1
    page.get_by_label("d4, empty").click()
    becomes(page, "moves.length === 1")
    settled(page)
    assert page.locator("#board .cell.s1").count() == 31 and page.locator("#board .cell.changed").count() == 3
    page.get_by_label("a5, piece").click()
    page.get_by_label("d4, piece").click()  # another peg is chosen instead
    page.get_by_label("d6, empty").click()
    becomes(page, "document.getElementById('problem').textContent !== ''")
    assert "move 2, 'd4d6', is not legal" in page.locator("#problem").inner_text()
    page.click("#hint")
    settled(page)
    page.fill("#list", "d6d4 d3d5 d3d5 b4d4")
    page.get_by_role("button", name="replay", exact=True).click()
    page.wait_for_selector("#steps button.bad")
    assert page.locator("#steps button.bad").inner_text().startswith("d3d5")
    assert "move 3, 'd3d5', is not legal" in page.locator("#shown").inner_text()
    assert page.locator("#steps span.muted").inner_text() == "b4d4" and page.locator("#on").is_disabled()
    page.focus("#frame")
    page.keyboard.press("Home")
    assert page.locator("#picture .cell.s1").count() == 32
    page.keyboard.press("ArrowRight")
    assert page.locator("#picture .cell.s1").count() == 31 and page.locator("#shown").inner_text().endswith("d6d4")
    page.click("#on")
    becomes(page, "moves.length === 1 && asked === null")


def test_a_game_of_open_spiel_is_played_as_text(opened: Any, runs: Path) -> None:
    pytest.importorskip("pyspiel", reason="open_spiel is not installed")
    nim = {"game": {"name": "open_spiel", "game": "nim(pile_sizes=1;2)"}, "network": "convolutions", "eval_perfect": 0}
    list(Trainer(load_recipe("tictactoe", SHORT | nim, smoke=True), runs / "odd"))
    page = opened("odd")
    page.fill("#simulations", "20")
    assert page.locator(".picture").inner_text() and page.locator(".cell").count() == 0
    for _ in range(8):
        if page.evaluate("position.result !== null"):
            break
        before = page.evaluate("moves.length")
        page.locator(".legal button").first.click()
        becomes(page, f"moves.length > {before}")
        settled(page)
    assert page.evaluate("position.result") in (-1, 1)


def test_what_is_no_request_is_refused(board: Callable[..., str], runs: Path, workers: Workers) -> None:  # noqa: F811
    address = board(runs, play.routes(workers))

    def posted(body: bytes, run: str = "four", kind: str = "application/json", cookie: str = TOKEN) -> int:
        url = urlsplit(address)
        headers = {"content-type": kind, "cookie": f"rllab-board-{url.port}={cookie}"}
        request = Request(f"http://{url.netloc}/search?run={run}", body, headers)
        try:
            with urlopen(request) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code

    assert posted(b"{") == posted(b"[]") == 400 and posted(b" " * 1_000_001) == 413
    assert posted(b"{}", run="none") == posted(b"{}", run="../four") == 404
    assert posted(b"{}", kind="text/plain") == 415 and posted(b"{}", cookie="x") == 403 and posted(b"{}") == 200


def test_a_game_is_played_behind_a_proxy(board: Any, browser_page: Any, runs: Path, workers: Workers) -> None:  # noqa: F811
    page = browser_page()
    page.goto(board(runs, play.routes(workers), prefix="/node/gpu1").replace("/?", "/play?run=four&"))
    settled(page)
    page.fill("#simulations", "5")
    page.locator(".cell").nth(38).click()
    becomes(page, "moves.length === 2")


def test_a_run_that_plays_no_board_game_says_so(runs: Path) -> None:
    list(Trainer(load_recipe("cartpole", smoke=True), runs / "pole"))
    with Workers(runs) as asked:
        lines = list(asked.ask("pole", {"do": "search", "moves": [], "simulations": 5}))
    assert lines == [{"error": "pole is a run of DQN, which plays no board game"}]
