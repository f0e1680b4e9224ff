"""How often people would like a model's answers better than those of another, most often of the one it began as.

Both answer the same held-out prompts, and whoever judges sees the two answers to a prompt as a group: what is paid
more is preferred, a tie is half a win (Stiennon et al. 2020; Ouyang et al. 2022). Judges that compare two answers see
them in both orders.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rllab.algos.rollouts import Group, pay
from rllab.core.errors import Mistake
from rllab.evals.figures import canvas, save
from rllab.evals.reward import read_reward
from rllab.evals.speaker import Speaker, began_with
from rllab.rewards.scoring import Rewards
from rllab.stats import bootstrap
from rllab.text.models import LanguageModel

GOLD = "gold"  # the judge that every task brings along: its score of an answer, or whether it is right


@dataclass(frozen=True)
class Match:
    """What a run's model answered beside another: a group of two for each prompt, its own first."""

    run: str
    against: str
    model: LanguageModel
    pairs: list[Group]


def play(run: str, against: str, prompts: int, seed: int, runs: Path) -> Match:
    """Has a run's model and another answer so many test prompts of the run's task.

    against: a model as a person names it; "": the one that the run began with. Both draw the same numbers, so that a
    model ties with itself.

    Raises:
        Mistake: the run trains no language model, or began with none.
    """
    against = against or began_with(run, runs, "say with --against which other one it is to be compared with")
    mine = Speaker(run, runs, seed=seed)
    rows, other = mine.rows(prompts), mine.with_model(against, runs)
    pairs = [both(a, b) for a, b in zip(mine.answers(rows), other.answers(rows), strict=True)]
    return Match(mine.run, title(against), mine.lm, pairs)


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
        raise Mistake(f"{by} says nothing of the answers of {match.run}")
    tokens_P2 = np.array([[len(c.logp) for c in pair.completions] for pair in match.pairs])
    mine, other = tokens_P2.mean(0).tolist()
    told = {"model": match.run, "against": match.against, "by": by, "win_rate": float(won.mean())}
    told |= {"interval": bootstrap(won), "ties": float((won == 0.5).mean()), "prompts": len(won)}
    return told | {"tokens": mine, "tokens_against": other}


def gold_of(match: Match) -> np.ndarray:
    """What the task itself thinks of the answers [P, 2]."""
    pairs = match.pairs
    if not pairs[0].gold and pairs[0].correct[0] is None:
        raise Mistake(f"the task of {match.run} has no gold scorer: name a reward or a judge with --by")
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


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """A bar for each row, with its interval, beside the half that equal models have; .svg, .png or .pdf.

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
