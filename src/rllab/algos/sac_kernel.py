"""The losses of SAC's critics and actor for perceptrons, and their gradients, with programs in numba (`core/fused.py`).

Axes: B batch, A components of an action, F features of an observation, Q quantiles.
"""

import math

import numpy as np
import torch
from numba import njit

from rllab.algos.sac import SAC, Actor, Temperature, smaller
from rllab.control.networks import MLP
from rllab.control.off_policy import Critics
from rllab.control.quantile_kernel import loss_and_gradient
from rllab.control.quantiles import quantile_huber, quantile_levels
from rllab.core.algorithm import Batch
from rllab.core.perceptron import Given

PARTS = (SAC.critic_loss, SAC.loss, Actor, Critics, Temperature, smaller, quantile_huber)
DIGEST = "36b40bfec7c4e667"
_HALF, _ONE, _NONE = np.float32(0.5), np.float32(1), np.float32(0)  # numba computes with Python's floats in float64
_LOW, _HIGH = np.float32(-20), np.float32(2)  # of log standard deviations
_NORMAL, _TWO = np.float32(0.5 * math.log(2 * math.pi)), np.float32(math.log(2))


def fits(sac: SAC) -> bool:
    """Whether all networks are perceptrons, on features without weights."""
    nets = sac.actor, sac.critic, sac.target
    known = (type(sac.actor), type(sac.critic), type(sac.target)) == (Actor, Critics, Critics)
    if not known or type(sac.actor.net) is not MLP or any(list(net.encoder.parameters()) for net in nets):
        return False
    return all(net.flatten() is not None for net in (sac.actor.net, sac.critic, sac.target))


def critic_loss(sac: SAC, batch: Batch) -> Given | None:
    """What `SAC.critic_loss` returns, and the gradient of the critics' outputs."""
    actor, critic, target = sac.actor.net.flatten(), sac.critic.flatten(), sac.target.flatten()
    if actor is None or critic is None or target is None:
        return None
    next_features = sac.actor.encoder(batch["next_obs"])
    _, next_out = actor.apply(next_features)
    noise, reward, discount, weight = (
        batch[k].contiguous().numpy() for k in ("next_noise", "reward", "discount", "weight")
    )
    next_x, _, next_logp = squashed(next_features.contiguous().numpy(), next_out.numpy(), noise)
    _, next_both = target.apply(torch.from_numpy(next_x))
    aim = targets(next_both.numpy(), next_logp, reward, discount, _alpha(sac))
    seen, both_2BQ = critic.apply(torch.cat([sac.critic.encoder(batch["obs"]), batch["action"]], 1))
    if sac.quantiles == 1:
        losses, gradient = squares(both_2BQ.numpy(), aim)
    else:
        levels = quantile_levels(sac.quantiles).numpy()
        each = [loss_and_gradient(q_BQ, aim, levels) for q_BQ in both_2BQ.numpy()]
        losses, gradient = each[0][0] + each[1][0], np.stack([of_q for _, of_q in each])
    gradient *= weight[:, None]
    q_B = both_2BQ[0].mean(1)
    outputs = {"q": q_B, "td_error": (q_B - torch.from_numpy(aim).mean(1)).abs()}
    return Given(torch.tensor(weight @ losses), outputs, [(critic, seen, torch.from_numpy(gradient))])


def loss(sac: SAC, batch: Batch) -> Given | None:
    """What `SAC.loss` returns, and the gradient of the actor's output."""
    actor, critic = sac.actor.net.flatten(), sac.critic.flatten()
    if actor is None or critic is None or critic.trained is not False:
        return None
    features = sac.actor.encoder(batch["obs"])
    seen, out = actor.apply(features)
    noise, weight = batch["noise"].contiguous().numpy(), batch["weight"].contiguous().numpy()
    x, raw, logp = squashed(features.contiguous().numpy(), out.numpy(), noise)
    seen_by_critic, both_2BQ = critic.apply(torch.from_numpy(x))
    q, of_both = least(both_2BQ.numpy(), weight)
    of_x = critic.backward(seen_by_critic, torch.from_numpy(of_both), True)
    assert of_x is not None
    alpha = _alpha(sac)
    gradient = of_actor(of_x.numpy(), out.numpy(), raw, noise, weight, alpha)
    total = torch.tensor(weight @ (alpha * logp - q))
    outputs = {"policy/entropy": -torch.from_numpy(logp)}
    return Given(total, outputs, [(actor, seen, torch.from_numpy(gradient))])


def _alpha(sac: SAC) -> np.float32:
    """The temperature."""
    return np.float32(sac.log_alpha().detach().exp().item())


@njit(cache=True, error_model="numpy")
def squashed(features: np.ndarray, out: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(features and drawn actions [B, F + A], actions before tanh [B, A], log-probabilities [B]), as `Actor` draws.

    features [B, F]; out [B, 2 A]: means and log standard deviations; noise [B, A]. All numbers are float32.
    """
    count, size = noise.shape
    width = features.shape[1]
    x, raw, logp = np.empty((count, width + size), np.float32), np.empty_like(noise), np.zeros(count, np.float32)
    for b in range(count):
        x[b, :width] = features[b]
        for a in range(size):
            log_std = min(max(out[b, size + a], _LOW), _HIGH)
            r = out[b, a] + np.exp(log_std) * noise[b, a]
            raw[b, a], x[b, width + a] = r, np.tanh(r)
            softplus = max(-r - r, _NONE) + np.log1p(np.exp(-abs(r + r)))
            squash = _TWO - r - softplus
            logp[b] += -_HALF * noise[b, a] * noise[b, a] - log_std - _NORMAL - (squash + squash)
    return x, raw, logp


@njit(cache=True, error_model="numpy")
def targets(
    both: np.ndarray, logp: np.ndarray, reward: np.ndarray, discount: np.ndarray, alpha: np.float32
) -> np.ndarray:
    """The critics' targets [B, Q], from the quantiles [2, B, Q] and log-probabilities [B] of the next actions."""
    count, quantiles = both.shape[1:]
    aim = np.empty((count, quantiles), np.float32)
    for b in range(count):
        chosen = 0 if both[0, b].sum() <= both[1, b].sum() else 1
        for i in range(quantiles):
            aim[b, i] = reward[b] + discount[b] * (both[chosen, b, i] - alpha * logp[b])
    return aim


@njit(cache=True, error_model="numpy")
def squares(both: np.ndarray, aim: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(loss [B], its gradient [2, B, 1]) of the squared errors of critics with values [2, B, 1], for targets [B, 1]."""
    losses, gradient = np.zeros(both.shape[1], np.float32), np.empty_like(both)
    for m in range(2):
        for b in range(len(losses)):
            error = both[m, b, 0] - aim[b, 0]
            losses[b] += _HALF * error * error
            gradient[m, b, 0] = error
    return losses, gradient


@njit(cache=True, error_model="numpy")
def least(both: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the smaller mean [B] of quantiles [2, B, Q], the gradient [2, B, Q] of minus its sum with weight [B])."""
    count, quantiles = both.shape[1:]
    q, gradient = np.empty(count, np.float32), np.zeros_like(both)
    for b in range(count):
        first, second = both[0, b].sum(), both[1, b].sum()
        chosen = 1 if second < first or second != second else 0  # NaN is the smaller one, as for torch's amin
        q[b] = (second if chosen else first) / np.float32(quantiles)
        gradient[chosen, b] = -weight[b] / np.float32(quantiles)
    return q, gradient


@njit(cache=True, error_model="numpy")
def of_actor(
    of_x: np.ndarray, out: np.ndarray, raw: np.ndarray, noise: np.ndarray, weight: np.ndarray, alpha: np.float32
) -> np.ndarray:
    """The gradient [B, 2 A] of the actor's output, from that of features and actions [B, F + A].

    The gradient of -log(1 - tanh(x)^2) is 2 tanh x; `clamp` has none outside of its bounds.
    """
    count, size = noise.shape
    width = of_x.shape[1] - size
    gradient = np.empty((count, 2 * size), np.float32)
    for b in range(count):
        for a in range(size):
            action = np.tanh(raw[b, a])
            of_raw = of_x[b, width + a] * (_ONE - action * action) + weight[b] * alpha * (action + action)
            log_std = out[b, size + a]
            gradient[b, a] = of_raw
            of_log_std = of_raw * np.exp(log_std) * noise[b, a] - weight[b] * alpha
            gradient[b, size + a] = of_log_std if _LOW <= log_std <= _HIGH else _NONE
    return gradient
