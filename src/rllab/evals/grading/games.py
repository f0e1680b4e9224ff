"""Metric `score`: the score of a run in games against given opponents. All submissions play the same openings."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.ranges import Count, Natural
from rllab.evals.grading.part import Kind, Measured, Part, Place, Row, Shown
from rllab.evals.grading.runs import PLAYERS, assigned_recipe, open_run, weights_hash, world_of
from rllab.stats import wilson

if TYPE_CHECKING:
    from rllab.algos.alphazero import AlphaZero
    from rllab.core.algorithm import Context
    from rllab.core.protocols import Game
    from rllab.search.match import Player

AT_ONCE = 10  # openings of a batch
_UCT = re.compile(r"uct ([1-9]\d*)", re.IGNORECASE)
_RESULTS = {1: "won", 0: "drawn", -1: "lost"}


@dataclass(kw_only=True)
class Score(Part):
    """The score of a run in a game: 1 for a win, 1/2 for a draw.

    recipe: its game is played; the name of a recipe, or a YAML file beside the assignment. against: `random`, `perfect`
    (from as many stones on as the game's solver allows), `UCT N` with N simulations a move, `run:NAME` of a run in
    `runs` beside the assignment or of a recipe, or the folder of a run; one, or a list. games: against each; an even
    number, since each opening is played from either side (in a game for one player each plays alone). simulations: of
    the submission's search for a move, and of an opponent's that is a run; 0 plays by the policy alone. opening: random
    moves at the start, so that games differ.
    """

    METRIC: ClassVar[str] = "score"
    KINDS: ClassVar[tuple[Kind, ...]] = ("run",)
    ASKED: ClassVar[tuple[str, ...]] = ("against", "games", "simulations", "opening")

    recipe: str
    against: list[str] | str = field(default_factory=lambda: ["UCT 100"])
    games: Count = 40
    simulations: Natural = 64
    opening: Natural = 4

    def __post_init__(self) -> None:
        if self.games % 2:
            raise ValueError("games: name an even number, since each opening is played from either side")
        if not self.opponents or len(set(self.opponents)) < len(self.opponents):
            raise ValueError("against: name one or more, each once, as [random, UCT 100]")

    @property
    def opponents(self) -> list[str]:
        """The names of the opponents."""
        return [self.against] if isinstance(self.against, str) else self.against

    def prepare(self, folder: Path, seed: int, own: bool) -> None:
        import torch

        from rllab.algos.alphazero import AlphaZero
        from rllab.core.algorithm import Context
        from rllab.core.games import make_game

        self._recipe, self._folder = assigned_recipe(self.recipe, folder), folder
        if not isinstance(self._recipe.algorithm, AlphaZero):
            name = type(self._recipe.algorithm).__name__
            raise FieldMistake("recipe", f"{self.recipe}: {name} plays no board game; name a recipe of AlphaZero")
        self._game, self._ctx = make_game(self._recipe.algorithm.game), Context(seed, torch.device("cpu"))
        self._sides = (True, False)[: self._game.players]  # whether the submission moves first behind the opening
        self._runs = dict[str, AlphaZero]()  # opponents
        self._make = {name: self._opponent(name) for name in self.opponents}
        self._compile()

    def _compile(self) -> None:
        """Compiles the kernels of search and of opponents, which a process that may not write files cannot."""
        from rllab.algos.alphazero import AlphaZero

        newborn = AlphaZero(game=lambda: self._game, channels=1, blocks=0, num_games=1)
        newborn.setup(self._ctx)
        rng = np.random.default_rng(0)
        for make in self._make.values():
            self._play(newborn.player(2), make(rng), 1, rng)

    def _opponent(self, name: str) -> Callable[[np.random.Generator], "Player"]:
        """Returns a function that makes the player of a name from a generator, its source of chance.

        Raises:
            FieldMistake: there is no such player of this game.
        """
        from rllab.search.evaluate import sample_actions
        from rllab.search.match import perfect_player, uct_player

        game: Any = self._game
        if match := _UCT.fullmatch(name):
            return lambda rng: uct_player(game, int(match[1]), rng)
        if name == "random":
            return lambda rng: lambda board: sample_actions(game.legal(board), rng.random(len(game.legal(board))))
        if name == "perfect" and hasattr(game, "perfect"):
            return lambda rng: perfect_player(game, rng)
        if name == "perfect":
            raise FieldMistake(
                "against", f"{self.recipe}: its game has no perfect play; name UCT's simulations instead"
            )
        run = self._runs[name] = _opponent_run(name, self._folder, game, self._ctx)
        return lambda rng: run.player(self.simulations)

    def forget_gold(self) -> None:
        """There is none."""

    def inspect(self, place: Place) -> Row:
        return {"weights": weights_hash(self._open(place)), "flags": []}

    def measure(self, place: Place, done: int) -> Iterator[list[Row]]:
        agent = self._open(place)
        batches = [(name, first) for name in self.opponents for first in range(0, self._openings, AT_ONCE)]
        for name, first in batches[done:]:
            rng = self._ctx.rng("graded games", self.opponents.index(name), first)
            players = agent.player(self.simulations), self._make[name](rng)
            rows = self._play(*players, min(AT_ONCE, self._openings - first), rng)
            yield [row | {"against": name, "opening": first + row["opening"]} for row in rows]

    @property
    def _openings(self) -> int:
        return self.games // len(self._sides)

    def _play(self, player: "Player", opponent: "Player", count: int, rng: np.random.Generator) -> list[Row]:
        """Returns the rows of the games from `count` openings."""
        from rllab.search.evaluate import random_openings
        from rllab.search.outside import MoveRecorder

        recorder, rows = MoveRecorder(self._game), list[Row]()
        board, _ = random_openings(recorder, np.full(count, self.opening), rng)
        for first in self._sides:
            if len(self._sides) == 1:  # each plays alone, and the higher return wins
                (own, moves), (theirs, _) = (_play_out(recorder, board, [who]) for who in (player, opponent))
                won = (own - theirs).round(5)
            else:
                won, moves = _play_out(recorder, board, [player, opponent] if first else [opponent, player])
            results = np.sign(won if first else -won).astype(int).tolist()
            rows += [
                {"opening": i, "first": first, "moves": text, "result": result}
                for i, (text, result) in enumerate(zip(moves, results, strict=True))
            ]
        return rows

    def _open(self, place: Place) -> "AlphaZero":
        from rllab.algos.alphazero import AlphaZero

        agent = open_run(place.path, PLAYERS, self._recipe, place.seed)
        assert isinstance(agent, AlphaZero)
        return agent

    def judge(self, rows: Sequence[Row]) -> Measured:
        played = {(row.get("against"), row.get("opening"), row.get("first")): row for row in rows if _is_played(row)}
        each = [(n, i, first) for n in self.opponents for i in range(self._openings) for first in self._sides]
        games = [played[key] for key in each if key in played]
        if len(games) < len(each):
            raise Mistake(f"{len(games)} of {len(each)} games were played")
        items = [_shown(row) for row in games]
        total, facts = sum(item.credit for item in items), dict[str, Any]()
        for name in self.opponents:
            own = [row["result"] for row in games if row["against"] == name]
            facts[f"against {name}"] = ", ".join(f"{own.count(k)} {word}" for k, word in _RESULTS.items())
        return Measured(total / len(items), wilson(total, len(items)), "share", items, facts)

    def content(self) -> Any:
        return [world_of(self._recipe), {name: weights_hash(run) for name, run in self._runs.items()}]


def _opponent_run(name: str, folder: Path, game: "Game", ctx: "Context") -> "AlphaZero":
    """Returns the algorithm of an opponent, a run of the assignment's author.

    Raises:
        FieldMistake: there is no such run, or it plays another game.
    """
    from rllab.algos.alphazero import AlphaZero
    from rllab.core.load import load_checkpoint, model_folder
    from rllab.search.match import same_rules

    where = name if name.startswith("run:") else str(folder / name)
    try:
        run = load_checkpoint(model_folder(where, folder / "runs"), ctx)
    except Mistake as error:
        hint = "an opponent is random, perfect, UCT N, run:NAME, or the folder of a run"
        raise FieldMistake("against", f"{name}: {error}; {hint}") from error
    if not isinstance(run, AlphaZero) or not same_rules(game, run.board_game):
        raise FieldMistake("against", f"{name} does not play the game of the recipe")
    return run


def _play_out(recorder: Any, board: Any, players: Sequence["Player"]) -> tuple[np.ndarray, list[str]]:
    """Plays positions to the end of their games; returns (the first player's returns [B], the moves of each game)."""
    from rllab.core.games import rows
    from rllab.search.outside import MOVES, without_moves

    count = len(board[MOVES])
    won, moves, going, turn = np.zeros(count), [""] * count, np.arange(count), 0
    while len(going):
        sign = -1.0 if turn % len(players) else 1.0
        board, reward, over = recorder.play(board, players[turn % len(players)](without_moves(board)))
        won[going] += sign * reward
        for i, text in zip(going[over].tolist(), board[MOVES][over], strict=True):
            moves[i] = str(text).strip()
        going, board, turn = going[~over], rows(board, ~over), turn + 1
    return won, moves


def _is_played(row: Row) -> bool:
    """Whether a row records a game."""
    return type(row.get("opening")) is int and type(row.get("result")) is int and row["result"] in _RESULTS


def _shown(row: Row) -> Shown:
    name, number = row["against"], row["opening"] + 1
    side = "first" if row["first"] else "second"
    result = _RESULTS[row["result"]]
    question = f"opening {number} against {name}; the submission moves {side} after it"
    return Shown(f"{name} {number} {side}", question, str(row.get("moves")), (row["result"] + 1) / 2, result)
