"""AlphaZero: search improves a policy, and a network learns from both (Silver et al. 2017, 2018).

A network (p, v) = f(position) judges positions. In self-play a tree search that f guides chooses the moves; then f is
trained towards the search's policy pi and towards how its games went on, z:

    loss = CE(z, v) - pi . log p          the paper's L2 penalty is the optimizer's weight_decay

z mixes how a game ended with what later searches found (`td_lambda`; 1 is the paper's), and is exact from where a
search has proven it. `search: gumbel` is Gumbel AlphaZero (Danihelka et al. 2022). A moving average of the weights
plays, so that no arena has to decide between old and new ones; with `gate` one does, as in AlphaGo Zero.

A round: `moves` moves in each of `num_games` games, then `gradient_steps` updates on draws from a window of the newest
positions. Axes: G games, A actions, B batch.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rllab.control.replay import Window
from rllab.core.algorithm import Algorithm, Batch, Context, Headline, Metrics, Outputs, Round, split
from rllab.core.games import GAMES, make_game, rows
from rllab.core.optim import soft_update
from rllab.core.protocols import Board, Exam, Game
from rllab.search.evaluate import Judge, Network, drawn
from rllab.search.match import Player, match, perfect, rollouts, total
from rllab.search.networks import board_network
from rllab.search.parallel import side_by_side, threads_on
from rllab.search.search import Found, gumbel, puct
from rllab.search.selfplay import OpenGames
from rllab.stats import bootstrap, wilson


@dataclass(kw_only=True)
class AlphaZero(Algorithm):
    """Learns a game by playing against itself."""

    unit: ClassVar[str] = "data/positions"
    large_products: ClassVar[bool] = True

    game: Annotated[Any, GAMES]
    network: Literal["convolutions", "lines"] = "convolutions"
    channels: int = 64
    blocks: int = 4
    num_games: int = 256  # side by side
    moves: int = 8  # in each game, a round
    search: Literal["puct", "gumbel"] = "puct"
    simulations: int = 64  # of a move
    c_puct: float = 1.5
    fpu: float = 0.2  # how much worse than its parent an action counts that was not tried
    dirichlet_alpha: float = 1.0
    noise_share: float = 0.25  # of the root's priors
    temperature: float = 1.0  # actions are drawn in proportion to visits ** (1 / temperature)
    temperature_moves: int = 14  # for so many moves of a game,
    late_temperature: float = 0.35  # and with this temperature from then on
    openings: int = 10  # half of the games begin with up to so many moves at random
    td_lambda: float = 0.9  # how much the end of a game counts, rather than what searches found on the way
    window: float = 0.6  # share of all positions so far, the newest, that is learned from
    batch_size: int = 1024
    gradient_steps: int = 8
    value_weight: float = 1.0  # of the value's loss beside the policy's
    average: float = 0.98  # how much of the weights that play stays with each update
    gate: float = 0.0  # new weights play once they have scored more than this against those that do; 0: the average
    gate_every: int = 10  # rounds between these matches
    gate_games: int = 400  # of a match
    eval_simulations: int = 64
    eval_views: int = 1  # outside self-play a position is judged through so many symmetries, and their mean counts
    eval_games: int = 100  # against UCT, where no positions with known moves come with the game
    eval_rollouts: int = 100  # of UCT, for a move
    eval_perfect: int = 0  # games against a player that never errs, of a game that is solved

    def __post_init__(self) -> None:
        counts = ("num_games", "moves", "simulations", "batch_size", "eval_simulations", "eval_games")
        for name in (*counts, "gate_every", "gate_games"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("window", "td_lambda", "noise_share", "average", "gate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")

    def setup(self, ctx: Context) -> None:
        self.ctx = ctx
        self._game = make_game(self.game)
        ctx.seed_torch("weights")
        learner = board_network(self._game, self.network, self.channels, self.blocks)
        player = deepcopy(learner).requires_grad_(False)
        self.model = nn.ModuleDict({"learner": learner, "player": player}).to(ctx.device)
        self.games = OpenGames(self._game, self.num_games, self.openings, self.td_lambda)
        self.seen = Window()
        self.positions = 0  # searched so far, over all ranks

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self.model}

    def collect(self, step: int) -> Round:
        metrics = self.self_play(step)
        missing = max(0, self.batch_size - len(self.seen))
        if self.ctx.sum(missing) == 0:
            for batch in self.minibatches(step):
                yield batch
                if not self.gate:
                    soft_update(self.model["player"], self.model["learner"], 1.0 - self.average)
            if self.gate and (step + 1) % self.gate_every == 0:
                metrics |= self.arena(step)
        return metrics

    def self_play(self, step: int) -> Metrics:
        """`moves` moves in each game; the positions of those that end go to the window."""
        if not step:
            self.games.begin(np.arange(self.num_games), self.ctx.rng("opening"))
        judges = self._judges()
        for move in range(self.moves):
            rng = self.ctx.rng("move", step, move)
            found = self.found_in_games(judges, self._noise(rng))
            action = found.action
            if self.search == "puct":  # Gumbel's noise has drawn the action already
                action = drawn(self._sharpened(found.policy), rng.random(self.num_games))
            self.games.move(found, action, rng)
        self.positions += self.moves * self.num_games * self.ctx.world
        positions, lengths = self.games.learned()
        if positions:
            self.seen.add(positions)
            self.seen.keep(int(self.window * self.seen.added) + 1)
        ended = self.ctx.total(torch.tensor([len(lengths), sum(lengths)], dtype=torch.float64)).tolist()
        told = {"data/positions": self.positions, "play/games": ended[0]}
        told["play/known"] = sum(j.known for j in judges) / max(1, sum(j.asked for j in judges))
        return told | ({"play/length": ended[1] / ended[0]} if ended[0] else {})

    def found_in_games(self, judges: list[Judge], noise_GA: np.ndarray) -> Found:
        """A search of each open game."""
        return self.searched(self.games.boards, self.simulations, judges, noise_GA)

    def arena(self, step: int) -> Metrics:
        """Games of the weights that learn against those that play; they take their place if they score enough."""
        game, rng = self._game, self.ctx.rng("arena", step)
        new, old = (self.player(self.simulations, self._judges(who=who)) for who in ("learner", "player"))
        won = (match(game, new, old, -(-self.gate_games // self.ctx.world), rng) + 1) / 2
        points, games = self.ctx.total(torch.tensor([won.sum(), len(won)], dtype=torch.float64)).tolist()
        passed = points / games > self.gate
        if passed:
            soft_update(self.model["player"], self.model["learner"], 1.0)
        return {"gate/score": points / games, "gate/passed": float(passed)}

    def searched(
        self, boards: Board, simulations: int, judges: list[Judge] | None = None, noise_GA: np.ndarray | None = None
    ) -> Found:
        """A search of each position, in as many threads as there are judges."""
        search: Any = puct if self.search == "puct" else gumbel

        def part(which: slice, judge: Judge) -> Found:
            noise, own = None if noise_GA is None else noise_GA[which], self._settings(judge)
            found: Found = search(self._game, rows(boards, which), judge, simulations, noise=noise, **own)
            return found

        return side_by_side(part, len(next(iter(boards.values()))), judges or self._judges(self.eval_views))

    def _settings(self, judge: Judge) -> dict[str, Any]:
        """What a search takes beside positions, network and noise."""
        own = {"c_puct": self.c_puct, "fpu": self.fpu}
        return own | ({"noise_share": self.noise_share} if self.search == "puct" else {})

    def preferred(self, boards: Board, judges: list[Judge] | None = None) -> np.ndarray:
        """The action of each position [B] that the network likes best, without a search."""
        legal = self._game.legal(boards)
        policy, _ = (judges or self._judges(self.eval_views))[0](boards, legal)
        found: np.ndarray = np.where(legal, policy, -np.inf).argmax(1)
        return found

    @property
    def board_game(self) -> Game:
        """The game itself, once `setup` is done."""
        return self._game

    def player(self, simulations: int, judges: list[Judge] | None = None) -> Player:
        """Plays by a search, or with 0 simulations by the policy alone; until the weights change."""
        kept = judges or self._judges(self.eval_views)

        def plays(board: Board) -> np.ndarray:
            return self.searched(board, simulations, kept).action if simulations else self.preferred(board, kept)

        return plays

    def _judges(self, views: int = 1, who: str = "player") -> list[Judge]:
        """One for each thread; what the network has said is kept while its weights stay."""
        judge, count = self._network(who), threads_on(self.ctx.device, self.num_games)
        return [Judge(self._game, judge, self.ctx, views=views) for _ in range(count)]

    def _network(self, who: str) -> Network:
        """What judges positions by the weights as they are now, in the numbers in which it is only asked."""
        network: Any = deepcopy(self.model[who])
        judge: Network = network.to(self.ctx.dtype, memory_format=torch.channels_last).judge
        return judge

    def _noise(self, rng: np.random.Generator) -> np.ndarray:
        """What is added at the root of each open game [G, A]: Gumbel's noise, or Dirichlet's over legal actions."""
        legal = self._game.legal(self.games.boards)
        if self.search == "gumbel":
            return rng.gumbel(size=legal.shape).astype(np.float32)
        gamma = (rng.gamma(self.dirichlet_alpha, size=legal.shape) + 1e-9) * legal
        noise: np.ndarray = (gamma / gamma.sum(1, keepdims=True)).astype(np.float32)
        return noise

    def _sharpened(self, policy_GA: np.ndarray) -> np.ndarray:
        """What actions are drawn from [G, A]."""
        early = self.games.played[:, None] < self.temperature_moves
        sharp: np.ndarray = policy_GA ** (1.0 / np.where(early, self.temperature, self.late_temperature))
        return sharp

    def minibatches(self, step: int) -> Iterator[Batch]:
        """The round's minibatches, each position seen through a symmetry that is drawn for it."""
        count, rng = self.batch_size * self.gradient_steps, self.ctx.rng("minibatch", step)
        row = self.seen.take(rng.integers(0, len(self.seen), count))
        observation = self._game.observe({k[6:]: v for k, v in row.items() if k.startswith("board.")})
        policy = row["policy"]
        if hasattr(self._game, "symmetries"):
            cells, actions = self._game.symmetries
            which, flat = rng.integers(0, len(cells), count), observation.reshape(*observation.shape[:2], -1)
            observation = np.take_along_axis(flat, cells[which][:, None], 2).reshape(observation.shape)
            policy = np.take_along_axis(policy, actions[which], 1)
        weight = np.full(count, 1 / (self.batch_size * self.ctx.world), np.float32)
        arrays = {"observation": observation, "policy": policy, "value": row["value"], "weight": weight}
        yield from split({k: torch.from_numpy(v).to(self.ctx.device) for k, v in arrays.items()}, self.batch_size)

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        policy_BA, outcome_B3 = self.model["learner"](batch["observation"])
        policy_B = -(batch["policy"] * policy_BA.float().log_softmax(1)).sum(1)
        z_B = batch["value"]
        z_B3 = torch.stack([z_B.clamp(min=0.0), 1.0 - z_B.abs(), (-z_B).clamp(min=0.0)], 1)  # won, drawn, lost
        value_B = -(z_B3 * outcome_B3.float().log_softmax(1)).sum(1)
        return (batch["weight"] * (policy_B + self.value_weight * value_B)).sum(), {
            "policy": policy_B,
            "value": value_B,
        }

    def preflight(self) -> dict[str, Any]:
        one, size = self._game.start(1), sum(p.numel() for p in self.model["learner"].parameters())
        planes = " x ".join(map(str, self._game.observe(one).shape[1:]))
        moves = self.num_games * self.moves
        return {
            "a position": f"planes {planes}, {self._game.legal(one).shape[1]} actions",
            "parameters": f"{size:,}",
            "a round": f"{moves:,} positions, {moves * self.simulations:,} simulations",
        }

    def evaluate(self, step: int) -> Metrics:
        """How it plays positions whose best moves are known, by search and by its policy alone; else against UCT.

        In a game for one player also what it wins in a game from the start.
        """
        return {f"eval/{k}": float(np.mean(v)) for k, v in self._measured("validation").items()}

    def headline(self) -> Headline:
        """The share of test positions in which it keeps the outcome; its score against UCT where none are known."""
        name, each = next(iter(self._measured("test").items()))
        interval = wilson(int(each.sum()), len(each)) if name == "keeps" else bootstrap(each)
        return Headline(f"eval/{name}", float(each.mean()), interval)

    def _measured(self, part: str) -> dict[str, np.ndarray]:
        """What each position or game of an evaluation showed."""
        player, rng = self.player(self.eval_simulations), self.ctx.rng(part, shared=True)
        if hasattr(self._game, "exam"):
            found = self._examined(self._game.exam(part), player)
        else:
            opponent = rollouts(self._game, self.eval_rollouts, rng)
            found = {"score": (match(self._game, player, opponent, self.eval_games, rng) + 1) / 2}
        if self._game.players == 1:
            found["return"] = total(self._game, self._game.start(1), [player])
        if self.eval_perfect:
            solved = perfect(self._game, rng)
            found["unbeaten"] = match(self._game, player, solved, self.eval_perfect, rng, opening=0) >= 0
        return found

    def _examined(self, exam: Exam, player: Player) -> dict[str, np.ndarray]:
        """In which positions it keeps the outcome, and the distance too; and the first by its policy alone."""
        each, raw, action = np.arange(len(exam.keeps)), self.preferred(exam.board), player(exam.board)
        return {
            "keeps": exam.keeps[each, action],
            "best": exam.best[each, action],
            "keeps_raw": exam.keeps[each, raw],
        }
