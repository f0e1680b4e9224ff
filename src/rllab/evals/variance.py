"""How far the policy gradients of single episodes scatter, under each baseline of REINFORCE, on the same episodes."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from rllab.algos.reinforce import Baseline, Reinforce, advantages
from rllab.control.actor_critic import Value
from rllab.control.whole_episodes import Episodes, rewards_to_go
from rllab.core.errors import Mistake
from rllab.core.load import load_run
from rllab.stats import bootstrap

BASELINES: tuple[Baseline, ...] = get_args(Baseline)
LEAST = 4  # episodes: each half fits a value network for the other
_UPDATES, _ENTRIES = 1_000, 1_024  # of a value network, and observations in each


def variances(name: str, runs: str | Path, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Plays `count` episodes by the policy of a run, RUN or RUN@STEP; returns a row for each baseline.

    trace: of the covariance of the gradients of single episodes, which is the mean squared distance of such a gradient
    from their mean. An update with N episodes has a variance of trace / N. times_less: the trace of `whole_return`
    divided by this one, None where this one is 0 in some resample, as where all episodes are alike. Both have the 95 %
    interval of a bootstrap over episodes. length: of the episodes, mean.

    Raises:
        Mistake: there is no such run, it is of another algorithm, or `count` is too small.
    """
    if count < LEAST:
        raise Mistake(f"--episodes {count}: a variance needs at least {LEAST} episodes")
    algorithm = load_run(name, runs)
    if not isinstance(algorithm, Reinforce):
        raise Mistake(f"{name} is a run of {type(algorithm).__name__}, and the baselines are those of Reinforce")
    episodes = algorithm.fixed_episodes(count, seed)
    assert episodes.alive.shape[1] == count
    inner = {b: _inner_products(gradients(algorithm, episodes, b)) for b in BASELINES}
    length = float(episodes.alive.sum() / count)
    return [_row(name, length, b, inner["whole_return"], inner[b]) for b in BASELINES]


def gradients(algorithm: Reinforce, episodes: Episodes, baseline: Baseline) -> Tensor:
    """The gradients of the policy's loss by single episodes [E, P], of E episodes and P parameters.

    Means over others are over all other episodes, and the values are those of a network that has learned from the half
    of the episodes to which an episode does not belong.
    """
    value_TN = values_by_halves(algorithm, episodes) if baseline == "value" else torch.zeros_like(episodes.reward)
    weight_TN = advantages(baseline, episodes.reward, episodes.alive, algorithm.gamma, value_TN).float()
    parameters, rows = list(algorithm.net.parameters()), []
    for i in range(episodes.alive.shape[1]):
        alive_T = episodes.alive[:, i]
        own = {k: v[alive_T, i] for k, v in episodes.entries.items()}
        logp_T, _ = algorithm.net.log_prob(algorithm.net(own["obs"]), own["action"], own.get("mask"))
        grads = torch.autograd.grad(-(logp_T @ weight_TN[alive_T, i]), parameters)
        rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows)


def values_by_halves(algorithm: Reinforce, episodes: Episodes) -> Tensor:
    """V [T, N] at the observations of each of N episodes, by a network that has learned from the other half of them."""
    obs, alive_TN = episodes.entries["obs"], episodes.alive
    to_go_TN = rewards_to_go(episodes.reward, algorithm.gamma).float()
    value_TN, half_N = torch.zeros_like(to_go_TN), torch.arange(alive_TN.shape[1], device=alive_TN.device) % 2
    for half in (0, 1):
        learned_TN = alive_TN & (half_N != half)
        net = _regression(algorithm, obs[learned_TN], to_go_TN[learned_TN], half)
        value_TN[:, half_N == half] = net(obs[:, half_N == half].flatten(0, 1)).view(len(alive_TN), -1)
    return value_TN


def _regression(algorithm: Reinforce, obs: Tensor, target_B: Tensor, half: int) -> Any:
    """A value network that has learned targets [B] at observations [B, ...]: observations -> values."""
    algorithm.ctx.seed_torch("variance")
    net = Value(algorithm.envs.observation_space, algorithm.hidden).to(obs.device)
    mean, std = target_B.mean(), target_B.std(correction=0).clamp(min=1e-8)
    optimizer, rng = torch.optim.Adam(net.parameters(), 3e-3), algorithm.ctx.rng("variance", half)
    for _ in range(_UPDATES):
        rows = torch.from_numpy(rng.integers(len(target_B), size=_ENTRIES)).to(obs.device)
        loss = (net(obs[rows]) - (target_B[rows] - mean) / std).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return lambda seen: (mean + std * net(seen)).detach()


def _inner_products(gradient_EP: Tensor) -> np.ndarray:
    """Of the gradients of E episodes [E, parameters]: [E, E]. All that a trace needs."""
    rows = gradient_EP.double()
    products: np.ndarray = (rows @ rows.T).cpu().numpy()
    return products


def traces(products_EE: np.ndarray, drawn_RE: np.ndarray) -> np.ndarray:
    """The trace of the covariance [R] of each of R samples of E episodes [R, E], from inner products [E, E]."""
    size = drawn_RE.shape[1]
    places = drawn_RE + size * np.arange(len(drawn_RE))[:, None]
    count_RE = np.bincount(places.ravel(), minlength=places.size).reshape(places.shape).astype(float)
    squares_R = count_RE @ products_EE.diagonal()
    total_R = ((count_RE @ products_EE) * count_RE).sum(1)
    trace_R: np.ndarray = (squares_R - total_R / size).clip(0) / (size - 1)
    return trace_R


def _row(run: str, length: float, baseline: str, whole_EE: np.ndarray, own_EE: np.ndarray) -> dict[str, Any]:
    every = np.arange(len(own_EE))

    def times_less(drawn_RE: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio_R: np.ndarray = traces(whole_EE, drawn_RE) / traces(own_EE, drawn_RE)
        return ratio_R

    trace, ratio = (float(fn(every[None])[0]) for fn in (lambda drawn: traces(own_EE, drawn), times_less))
    less = bootstrap(every, times_less)
    finite = bool(np.isfinite([ratio, *less]).all())
    measured = {"trace": trace, "interval": bootstrap(every, lambda drawn: traces(own_EE, drawn))}
    measured |= {"times_less": ratio if finite else None, "times_less_interval": less if finite else None}
    return {"run": run, "episodes": len(every), "length": length, "baseline": baseline} | measured
