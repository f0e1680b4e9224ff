"""AlphaZero: search improves a policy, and a network learns from the search (Silver et al. 2017, 2018).

A network (p, v) = f(position) evaluates positions. In self-play a tree search guided by f selects the moves. Then f is
trained towards the search's policy pi and towards the outcome z for the side to move:

    loss = CE(z, v) - pi . log p          the paper's L2 penalty is the optimizer's weight_decay

A round: `moves` moves in each of `num_games` games, then `gradient_steps` updates on samples of a window of the newest
positions. Batch: `observation` [B, C, H, W], `policy` [B, A] (pi), `z` [B] from -1 to 1, `weight` [B].
Axes: G games, A actions, B batch; C, H, W planes, rows and columns of a board.

Departures from the papers, most of them to learn within minutes on a few cores:
- v is a distribution over win, draw and loss, trained with cross-entropy, instead of a scalar with squared error.
- z mixes the result with the values of later searches (`td_lambda`; 1 is the paper's); it has less variance. Proven
  values go up the search tree (`rllab.search.tree`), and z is exact where the value is proven.
- A moving average of the weights plays, so no arena has to choose between old and new ones. AlphaZero plays with the
  newest weights, and AlphaGo Zero has an arena (`gate`).
- Half of the games begin with random moves (`openings`), for more variety. Actions are sampled in proportion to visits
  for `temperature_moves` moves, then at `late_temperature`; in AlphaGo Zero the best action is played from then on.
- An untried action counts as the mean of its node minus `fpu`, instead of 0. Trees are not reused for the next move,
  and no game is resigned. The window grows with the run (`window`), instead of holding the newest 500,000 games.
- Networks have no batch normalisation, so that a split batch has the same gradient. Symmetries of the game augment
  minibatches, as in AlphaGo Zero, and share entries of the cache (`rllab.search.evaluate`).
- `search: gumbel` is Gumbel AlphaZero (Danihelka et al. 2022), with PUCT below the root.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rllab.control.replay import Window
from rllab.core.algorithm import Algorithm, Batch, Context, Headline, Line, Metrics, Outputs, Round, split
from rllab.core.games import GAMES, rows
from rllab.core.optim import soft_update
from rllab.core.protocols import Board, Exam, Game
from rllab.core.ranges import Count, Natural, NotNegative, Positive, Share
from rllab.core.rules import checked_game
from rllab.search.evaluate import Evaluator, Network, sample_actions
from rllab.search.match import Player, match, perfect_player, play_out, uct_player
from rllab.search.networks import board_network
from rllab.search.parallel import search_in_threads, search_threads
from rllab.search.search import SearchOutput, Trees, gumbel, gumbel_outputs, puct, puct_outputs
from rllab.search.selfplay import OpenGames
from rllab.stats import wilson


@dataclass(kw_only=True)
class AlphaZero(Algorithm):
    """Learns a game by playing against itself."""

    unit: ClassVar[str] = "data/positions"
    rising: ClassVar[tuple[str, ...]] = ("eval/keeps", "eval/score", "eval/return")
    large_products: ClassVar[bool] = True

    game: Annotated[Any, GAMES]  # a name of `rllab_envs.games`, with settings if any, or mine.py:Game
    network: Literal["convolutions", "lines"] = "convolutions"  # `lines` needs a game with `lines`
    channels: Count = 64  # width of the network
    blocks: Natural = 4  # residual blocks
    num_games: Count = 256  # open games, side by side
    moves: Count = 8  # in each game, per round
    search: Literal["puct", "gumbel"] = "puct"  # of AlphaGo Zero, or Gumbel AlphaZero
    simulations: Count = 64  # per move
    c_puct: Positive = 1.5  # weight of the exploration term
    fpu: NotNegative = 0.2  # first-play urgency: how far below its node's mean an untried action counts
    dirichlet_alpha: Positive = 1.0  # of the noise on the root's priors, with `search: puct`
    noise_share: Share = 0.25  # weight of that noise in the root's priors
    temperature: Positive = 1.0  # actions are sampled in proportion to visits ** (1 / temperature)
    temperature_moves: Natural = 14  # the first moves of a game, to which `temperature` applies
    late_temperature: Positive = 0.35  # the temperature after these
    openings: Natural = 10  # the most random moves at the start of a game; half of the games have some
    td_lambda: Share = 0.9  # the weight of a game's result in z; the rest are values of later searches
    window: Share = 0.6  # the share of all positions so far, the newest, that batches are sampled from
    batch_size: Count = 1024  # positions in an update, over all ranks
    gradient_steps: Count = 8  # updates per round
    value_weight: NotNegative = 1.0  # of the value loss; the policy loss has weight 1
    average: Share = 0.98  # decay of the moving average that plays, per update
    gate: Share = 0.0  # new weights play once they score more than this against the current ones; 0: the average plays
    gate_every: Count = 10  # rounds between these arena matches
    gate_games: Count = 400  # of an arena match
    eval_simulations: Count = 64  # per move in an evaluation
    eval_views: Count = 1  # symmetries over which an evaluation is averaged outside self-play
    eval_games: Count = 100  # against UCT, for games without an exam
    eval_rollouts: Count = 100  # simulations of that UCT, per move
    eval_perfect: Natural = 0  # games against perfect play, for games that have it

    def setup(self, ctx: Context) -> None:
        self.ctx = ctx
        self._game = checked_game(self.game, "game")
        ctx.seed_torch("weights")
        learner = board_network(self._game, self.network, self.channels, self.blocks)
        player = deepcopy(learner).requires_grad_(False)
        self.model = nn.ModuleDict({"learner": learner, "player": player}).to(ctx.device)
        self.games = OpenGames(self._game, self.num_games, self.openings, self.td_lambda)
        self.seen = Window()
        self.positions = 0  # searched so far, on all ranks
        ctx.check_share("batch_size", self.batch_size)
        self._own = len(ctx.share(range(self.batch_size)))  # of a batch

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self.model}

    def collect(self, step: int) -> Round:
        metrics = self.self_play(step)
        missing = max(0, self._own - len(self.seen))
        if self.ctx.sum(missing) == 0:
            for batch in self.minibatches(step):
                yield batch
                if not self.gate:
                    soft_update(self.model["player"], self.model["learner"], 1.0 - self.average)
            if self.gate and (step + 1) % self.gate_every == 0:
                metrics |= self.arena(step)
        return metrics

    def self_play(self, step: int) -> Metrics:
        """Plays `moves` moves in each game. The training rows of games that end are added to the window."""
        if not step:
            self.games.begin(np.arange(self.num_games), self.ctx.rng("opening"))
        evaluators = self._evaluators()
        for move in range(self.moves):
            rng = self.ctx.rng("move", step, move)
            output = self.search_games(evaluators, self._noise(rng))
            action = output.action
            if self.search == "puct":  # with Gumbel noise the action is a sample already
                action = sample_actions(self._sharpened(output.policy), rng.random(self.num_games))
            self.games.move(output, action, rng)
        self.positions += self.moves * self.num_games * self.ctx.world
        finished, lengths = self.games.pop_finished()
        if finished:
            self.seen.add(finished)
            self.seen.keep(int(self.window * self.seen.added) + 1)
        ended = self.ctx.total(torch.tensor([len(lengths), sum(lengths)], dtype=torch.float64)).tolist()
        metrics = {"data/positions": self.positions, "play/games": ended[0]}
        metrics["play/cache_hits"] = sum(e.hits for e in evaluators) / max(1, sum(e.requests for e in evaluators))
        return metrics | ({"play/length": ended[1] / ended[0]} if ended[0] else {})

    def search_games(self, evaluators: list[Evaluator], noise_GA: np.ndarray) -> SearchOutput:
        """Searches each open game; noise_GA [G, A]: see `_noise`."""
        return self.run_search(self.games.boards, self.simulations, evaluators, noise_GA)

    def arena(self, step: int) -> Metrics:
        """A match of the learner against the player; the player gets the learner's weights if these score enough."""
        game, rng = self._game, self.ctx.rng("arena", step)
        new, old = (self.player(self.simulations, self._evaluators(who=who)) for who in ("learner", "player"))
        won = (match(game, new, old, -(-self.gate_games // self.ctx.world), rng) + 1) / 2
        points, games = self.ctx.total(torch.tensor([won.sum(), len(won)], dtype=torch.float64)).tolist()
        passed = points / games > self.gate
        if passed:
            soft_update(self.model["player"], self.model["learner"], 1.0)
        return {"gate/score": points / games, "gate/passed": float(passed)}

    def run_search(
        self,
        boards: Board,
        simulations: int,
        evaluators: list[Evaluator] | None = None,
        noise_GA: np.ndarray | None = None,
    ) -> SearchOutput:
        """Searches each position [B], in a thread for each evaluator. noise_GA [B, A]: see `_noise`."""
        search: Callable[..., SearchOutput] = puct if self.search == "puct" else gumbel

        def part(which: slice, evaluator: Evaluator) -> SearchOutput:
            noise, settings = None if noise_GA is None else noise_GA[which], self._search_settings(evaluator)
            return search(self._game, rows(boards, which), evaluator, simulations, noise=noise, **settings)

        count, used = len(next(iter(boards.values()))), evaluators or self._evaluators(self.eval_views)
        return search_in_threads(part, count, used)

    def search_outputs(self, boards: Board, looks: Sequence[int]) -> Iterator[tuple[SearchOutput, Trees]]:
        """Searches positions [B] in one thread; the output so far and its trees after each of `looks` simulations."""
        evaluator = self._evaluators(self.eval_views)[0]
        outputs: Any = puct_outputs if self.search == "puct" else gumbel_outputs
        trees = Trees(self._game, boards, evaluator, looks[-1], True, self._search_settings(evaluator).get("opponent"))
        return ((output, trees) for output in outputs(trees, looks, self.c_puct, self.fpu))

    def _search_settings(self, evaluator: Evaluator) -> dict[str, Any]:
        """The keyword arguments of a search other than its noise."""
        settings = {"c_puct": self.c_puct, "fpu": self.fpu}
        return settings | ({"noise_share": self.noise_share} if self.search == "puct" else {})

    def policy_actions(self, boards: Board, evaluators: list[Evaluator] | None = None) -> np.ndarray:
        """The action with the highest prior in each position: int [B], without a search."""
        legal = self._game.legal(boards)
        policy, _ = (evaluators or self._evaluators(self.eval_views))[0](boards, legal)
        actions: np.ndarray = np.where(legal, policy, -np.inf).argmax(1)
        return actions

    @property
    def board_game(self) -> Game:
        """The game, after `setup`."""
        return self._game

    def player(self, simulations: int, evaluators: list[Evaluator] | None = None) -> Player:
        """Plays with a search, or by the policy alone with 0 simulations. Make a new one when the weights change."""
        used = evaluators or self._evaluators(self.eval_views)

        def plays(board: Board) -> np.ndarray:
            return self.run_search(board, simulations, used).action if simulations else self.policy_actions(board, used)

        return plays

    def _evaluators(self, views: int = 1, who: str = "player") -> list[Evaluator]:
        """An evaluator for each thread, with the weights of `who` as they are now: `player` or `learner`."""
        network, count = self._network(who), search_threads(self.ctx.device, self.num_games)
        return [Evaluator(self._game, network, self.ctx, views=views) for _ in range(count)]

    def _network(self, who: str) -> Network:
        """A copy of the network for inference, in the run's precision."""
        network: Any = deepcopy(self.model[who])
        evaluate: Network = network.to(self.ctx.dtype, memory_format=torch.channels_last).policy_and_value
        return evaluate

    def _noise(self, rng: np.random.Generator) -> np.ndarray:
        """Root noise of each open game [G, A]: Gumbel noise, or Dirichlet noise over the legal actions."""
        legal = self._game.legal(self.games.boards)
        if self.search == "gumbel":
            return rng.gumbel(size=legal.shape).astype(np.float32)
        gamma = (rng.gamma(self.dirichlet_alpha, size=legal.shape) + 1e-9) * legal
        noise: np.ndarray = (gamma / gamma.sum(1, keepdims=True)).astype(np.float32)
        return noise

    def _sharpened(self, policy_GA: np.ndarray) -> np.ndarray:
        """The weights [G, A] that actions are sampled by: the policy at the temperature of each game's move."""
        early = self.games.played[:, None] < self.temperature_moves
        sharp: np.ndarray = policy_GA ** (1.0 / np.where(early, self.temperature, self.late_temperature))
        return sharp

    def minibatches(self, step: int) -> Iterator[Batch]:
        """The round's minibatches; each position is seen through a random symmetry."""
        count, rng = self._own * self.gradient_steps, self.ctx.rng("minibatch", step)
        row = self.seen.take(rng.integers(0, len(self.seen), count))
        observation = self._game.observe({k[6:]: v for k, v in row.items() if k.startswith("board.")})
        policy = row["policy"]
        if hasattr(self._game, "symmetries"):
            cells, actions = self._game.symmetries
            which, flat = rng.integers(0, len(cells), count), observation.reshape(*observation.shape[:2], -1)
            observation = np.take_along_axis(flat, cells[which][:, None], 2).reshape(observation.shape)
            policy = np.take_along_axis(policy, actions[which], 1)
        weight = np.full(count, 1 / self.batch_size, np.float32)
        arrays = {"observation": observation, "policy": policy, "z": row["z"], "weight": weight}
        yield from split({k: torch.from_numpy(v).to(self.ctx.device) for k, v in arrays.items()}, self._own)

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        policy_BA, outcome_B3 = self.model["learner"](batch["observation"])
        policy_B = -(batch["policy"] * policy_BA.float().log_softmax(1)).sum(1)
        z_B = batch["z"]
        z_B3 = torch.stack([z_B.clamp(min=0.0), 1.0 - z_B.abs(), (-z_B).clamp(min=0.0)], 1)  # won, drawn, lost
        value_B = -(z_B3 * outcome_B3.float().log_softmax(1)).sum(1)
        loss = (batch["weight"] * (policy_B + self.value_weight * value_B)).sum()
        return loss, {"policy": policy_B, "value": value_B}

    def preflight(self) -> dict[str, Line]:
        one, size = self._game.start(1), sum(p.numel() for p in self.model["learner"].parameters())
        shape, actions = list(self._game.observe(one).shape[1:]), self._game.legal(one).shape[1]
        planes = " x ".join(map(str, shape))
        moves, simulations = self.num_games * self.moves, self.num_games * self.moves * self.simulations
        work = f"{moves:,} positions, {simulations:,} simulations"
        return {
            "a position": Line(f"planes {planes}, {actions} actions", planes=shape, actions=actions),
            "parameters": Line(f"{size:,}", all=size),
            "a round": Line(work, positions=moves, simulations=simulations),
        }

    def evaluate(self, step: int) -> Metrics:
        """Exam positions, with the search and with the policy alone; the score against UCT in games without an exam.

        In a game for one player also the return of a game from the start.
        """
        return {f"eval/{k}": float(np.mean(v)) for k, v in self._measurements("validation").items()}

    def headline(self) -> Headline:
        """The share of test positions in which the move keeps the outcome; the score against UCT without an exam."""
        name, each = next(iter(self._measurements("test").items()))
        return Headline(f"eval/{name}", float(each.mean()), wilson(float(each.sum()), len(each)))

    def _measurements(self, part: str) -> dict[str, np.ndarray]:
        """The metrics of an evaluation, one entry for each position or game."""
        player, rng = self.player(self.eval_simulations), self.ctx.rng(part, shared=True)
        if hasattr(self._game, "exam"):
            results = self._grade_exam(self._game.exam(part), player)
        else:
            opponent = uct_player(self._game, self.eval_rollouts, rng)
            results = {"score": (match(self._game, player, opponent, self.eval_games, rng) + 1) / 2}
        if self._game.players == 1:
            results["return"] = play_out(self._game, self._game.start(1), [player])
        if self.eval_perfect:
            solved = perfect_player(self._game, rng)
            results["unbeaten"] = match(self._game, player, solved, self.eval_perfect, rng, opening=0) >= 0
        return results

    def _grade_exam(self, exam: Exam, player: Player) -> dict[str, np.ndarray]:
        """Whether each move keeps the outcome and is best [B], and whether the policy alone keeps the outcome."""
        (keeps, best), (keeps_raw, _) = map(exam.grade, (player(exam.board), self.policy_actions(exam.board)))
        return {"keeps": keeps, "best": best, "keeps_raw": keeps_raw}
