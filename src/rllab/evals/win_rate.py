"""How often people would like a model's answers better than those of another, most often of the one it began as.

Both answer the same held-out prompts, and whoever judges sees the two answers to a prompt as a group: what is paid
more is preferred, a tie is half a win (Stiennon et al. 2020; Ouyang et al. 2022). Judges that compare two answers see
them in both orders.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rllab.algos.reward_model import RewardModel
from rllab.core.algorithm import Context
from rllab.core.errors import Mistake
from rllab.core.load import model_folder
from rllab.core.run import RunFolder
from rllab.evals.reward import read_reward
from rllab.rewards.rollouts import Group, pay, roll_out
from rllab.rewards.scoring import Rewards
from rllab.stats import bootstrap
from rllab.text.algorithm import TextAlgorithm
from rllab.text.models import LanguageModel, load
from rllab.text.rows import Rows
from rllab.text.sampler import Sampling

GOLD = "gold"  # the judge that every task brings along: its score of an answer, or whether it is right


@dataclass(frozen=True)
class Match:
    """What a run's model answered beside another: a group of two for each prompt, its own first."""

    run: RunFolder
    against: str
    model: LanguageModel
    pairs: list[Group]


def play(run: RunFolder, against: str, prompts: int, seed: int, runs: Path) -> Match:
    """Has a run's model and another answer so many test prompts of the run's task, at temperature 1.

    against: a model as a person names it; "": the one that the run began with. Both draw the same numbers, so that a
    model ties with itself.

    Raises:
        Mistake: the run trains no language model, or began with none.
    """
    recipe = run.recipe()
    algorithm = recipe.algorithm
    if not isinstance(algorithm, TextAlgorithm) or isinstance(algorithm, RewardModel):
        raise Mistake(f"{run.path} is a run of {type(algorithm).__name__}, which trains no language model that answers")
    began = against or algorithm.model
    if not began:
        raise Mistake(
            f"{run.path} began with a new model: say with --against which other one it is to be compared with"
        )
    task, ctx = algorithm.task(), Context(seed, torch.device("cpu"))
    rows = Rows(task, ctx).held_out("test", prompts)
    sampling = Sampling(max_new_tokens=algorithm.max_new_tokens, temperature=1.0)

    def uniforms(row: int, sample: int) -> np.ndarray:
        return ctx.rng("answers", row, sample).random(algorithm.max_new_tokens)

    def answers(lm: LanguageModel) -> list[Group]:
        return roll_out(lm, task, rows, range(len(rows)), sampling, 1, uniforms)

    model, other = (load(model_folder(name, runs)) for name in (str(run.path), began))
    pairs = [both(a, b) for a, b in zip(answers(model), answers(other), strict=True)]
    return Match(run, title(began), model, pairs)


def title(model: str) -> str:
    """A model's name as a table has it: of a checkpoint's folder that of its run."""
    run = next((p.parent for p in Path(model).parents if p.name == "checkpoints"), None)
    return run.name if run else model


def both(first: Group, second: Group) -> Group:
    """Two groups of answers to the same prompt as one."""
    lists = ("completions", "texts", "correct", "turns", "gold")
    return replace(first, **{name: getattr(first, name) + getattr(second, name) for name in lists})


def result(match: Match, by: str, seed: int, runs: Path) -> dict[str, Any]:
    """A row of the table: how often a judge prefers the run's answers, with a 95 % interval over prompts.

    by: `gold`, or a reward as a recipe names it.

    Raises:
        Mistake: the task has no gold scorer, there is no such reward, or it applies to no pair.
    """
    paid_P2 = gold_of(match) if by == GOLD else paid_by(read_reward(by, runs), match, seed)
    won = preferred(paid_P2)
    if not len(won):
        raise Mistake(f"{by} says nothing of the answers of {match.run.path}")
    tokens_P2 = np.array([[len(c.logp) for c in pair.completions] for pair in match.pairs])
    mine, other = tokens_P2.mean(0).tolist()
    told = {"model": match.run.path.name, "against": match.against, "by": by, "win_rate": float(won.mean())}
    told |= {"interval": bootstrap(won), "ties": float((won == 0.5).mean()), "prompts": len(won)}
    return told | {"tokens": mine, "tokens_against": other}


def gold_of(match: Match) -> np.ndarray:
    """What the task itself thinks of the answers [P, 2]."""
    pairs = match.pairs
    if not pairs[0].gold and pairs[0].correct[0] is None:
        raise Mistake(f"the task of {match.run.path} has no gold scorer: name a reward or a judge with --by")
    return np.array([pair.gold or pair.correct for pair in pairs], float)


def paid_by(rewards: Rewards, match: Match, seed: int) -> np.ndarray:
    """What a reward pays for the answers [P, 2]; not a number where it does not apply or has failed."""
    rewards.start()
    rewards.begin(match.model)
    pay(rewards, match.pairs, seed)
    return np.stack([pair.scores[:, 0] for pair in match.pairs])


def preferred(paid_P2: np.ndarray) -> np.ndarray:
    """How much the first is preferred: 1, 0, 1/2 for a tie; of pairs of which both are judged."""
    known = paid_P2[~np.isnan(paid_P2).any(1)]
    won: np.ndarray = 0.5 + 0.5 * np.sign(known[:, 0] - known[:, 1])
    return won
