"""Win rate: how often a model's answers are preferred to another model's, by default the one that it began as.

Both answer the same held-out prompts. A reward scores the two answers to a prompt as a group; the higher score is
preferred, and a tie is half a win (Stiennon et al. 2020; Ouyang et al. 2022). A judge that compares two answers sees
them in both orders. Axes: P prompts, 2 answers, the run's first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rllab.algos.rollouts import Group, score_groups
from rllab.core.errors import Mistake
from rllab.evals.figures import canvas, save
from rllab.evals.reward import read_reward
from rllab.evals.run_sampler import RunSampler, initial_model
from rllab.rewards.scoring import Rewards
from rllab.stats import wilson
from rllab.text.models import LanguageModel

GOLD = "gold"  # names the task's own score of an answer, or whether the answer is right


@dataclass(frozen=True)
class Match:
    """Answers of a run's model and of another: a group of two for each prompt, the run's first."""

    run: str
    against: str
    model: LanguageModel
    pairs: list[Group]


def play(run: str, against: str, prompts: int, seed: int, runs: Path) -> Match:
    """Samples the answers of a run's model and of another to the first `prompts` test prompts of the run's task.

    against: a model as named on the command line; "": the one that the run began with. Both are sampled with the same
    random numbers; a model ties with itself.

    Raises:
        Mistake: the run trains no language model, or `against` is "" and the run began with none.
    """
    against = against or initial_model(run, runs, "name the model to compare it with by --against")
    own = RunSampler(run, runs, seed=seed)
    rows, other = own.rows(prompts), own.with_model(against, runs)
    pairs = [both(a, b) for a, b in zip(own.groups(rows), other.groups(rows), strict=True)]
    return Match(own.run, title(against), own.lm, pairs)


def title(model: str) -> str:
    """Returns a model's name for a table; for the folder of a checkpoint it is the name of its run."""
    run = next((p.parent for p in Path(model).parents if p.name == "checkpoints"), None)
    return run.name if run else model


def both(first: Group, second: Group) -> Group:
    """Joins two groups of answers to the same prompt into one."""
    lists = ("completions", "texts", "correct", "turns", "gold")
    return replace(first, **{name: getattr(first, name) + getattr(second, name) for name in lists})


def result(match: Match, by: str, seed: int, runs: Path) -> dict[str, Any]:
    """Returns a row of the table: how often the run's answers are preferred, with a 95 % interval over prompts.

    by: `gold`, or a reward named as in a recipe.

    Raises:
        Mistake: the task has no gold scorer, there is no such reward, or it applies to no pair.
    """
    score_P2 = gold_of(match) if by == GOLD else scores_by(read_reward(by, runs), match, seed)
    won = preferred(score_P2)
    if not len(won):
        raise Mistake(f"{by} applies to no pair of answers of {match.run}")
    tokens_P2 = np.array([[len(c.logp) for c in pair.completions] for pair in match.pairs])
    own, other = tokens_P2.mean(0).tolist()
    row = {"model": match.run, "against": match.against, "by": by, "win_rate": float(won.mean())}
    row |= {"interval": wilson(float(won.sum()), len(won)), "ties": float((won == 0.5).mean()), "prompts": len(won)}
    return row | {"tokens": own, "tokens_against": other}


def gold_of(match: Match) -> np.ndarray:
    """Returns the task's own scores of the answers [P, 2]; 1 and 0 for right and wrong where it has no other.

    Raises:
        Mistake: the task neither scores answers nor tells right from wrong.
    """
    pairs = match.pairs
    if not pairs[0].gold and pairs[0].correct[0] is None:
        raise Mistake(f"the task of {match.run} has no gold scorer: name a reward or a judge with --by")
    return np.array([pair.gold or pair.correct for pair in pairs], float)


def scores_by(rewards: Rewards, match: Match, seed: int) -> np.ndarray:
    """Returns a reward's scores of the answers [P, 2]; not a number where the reward does not apply or failed."""
    rewards.start()
    rewards.begin(match.model)
    score_groups(rewards, match.pairs, seed)
    return np.stack([pair.scores[:, 0] for pair in match.pairs])


def preferred(score_P2: np.ndarray) -> np.ndarray:
    """Returns 1 where the first answer has the higher score, 0 where the second has, 1/2 for a tie.

    score_P2: [P, 2]. Pairs with a score that is not a number are left out: the result is [Q], Q <= P.
    """
    known = score_P2[~np.isnan(score_P2).any(1)]
    won: np.ndarray = 0.5 + 0.5 * np.sign(known[:, 0] - known[:, 1])
    return won


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws a bar with its interval for each row, and a line at 1/2, where two equal models are.

    path: .svg, .png or .pdf.

    Raises:
        Mistake: matplotlib is not installed, or does not write such files.
    """
    figure, (axes,) = canvas((6, 1 + 0.4 * len(rows)))
    names, won = [f"{r['model']}, {r['by']}" for r in rows], np.array([r["win_rate"] for r in rows])
    low, high = np.array([r["interval"] for r in rows]).T
    axes.barh(names, won, xerr=np.stack([won - low, high - won]))
    axes.axvline(0.5, color="black", linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"win rate against {', '.join(dict.fromkeys(r['against'] for r in rows))}")
    axes.invert_yaxis()
    save(figure, path)
