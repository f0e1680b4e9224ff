"""The loss of PPO for one discrete action, and its gradient, as one program in numba (`core/fused.py`).

Axes: B batch, A actions.
"""

import numpy as np
import torch
from numba import njit

from rllab.algos.ppo import PPO
from rllab.control.actor_critic import ActionDistribution, ActorCritic, log_softmax_of
from rllab.control.networks import MLP
from rllab.core.algorithm import Batch
from rllab.core.perceptron import Given

PARTS = (PPO.loss, PPO.loss_of, ActorCritic, ActionDistribution, log_softmax_of)
DIGEST = "4687e4825584d99f"
_HALF, _ONE, _NONE = np.float32(0.5), np.float32(1), np.float32(0)  # numba computes with Python's floats in float64


def fits(ppo: PPO) -> bool:
    """Whether the policy has one discrete action, and both networks are perceptrons on features without weights."""
    net = ppo.net
    plain = type(net) is ActorCritic and type(net.policy) is type(net.value) is MLP
    if not plain or net.sizes is None or len(net.sizes) > 1 or list(net.encoder.parameters()):
        return False
    return net.policy.flatten() is not None and net.value.flatten() is not None


def loss(ppo: PPO, batch: Batch) -> Given | None:
    """What `PPO.loss` returns, and the gradients of the outputs of both networks."""
    policy, value = ppo.net.policy.flatten(), ppo.net.value.flatten()
    if policy is None or value is None or "mask" in batch:
        return None
    x = ppo.net.encoder(batch["obs"])
    seen_by_policy, out_BA = policy.apply(x)
    seen_by_value, value_B1 = value.apply(x)
    names = "action", "old_logp", "advantage", "return", "weight"
    action, old_logp, advantage, returns, weight = (batch[k].contiguous().numpy() for k in names)
    bounds = np.float32(1 - ppo.clip_range), np.float32(1 + ppo.clip_range)
    coefs = np.float32(ppo.vf_coef), np.float32(ppo.ent_coef)
    total, columns, of_policy, of_value = loss_and_gradient(
        out_BA.numpy(), value_B1.numpy(), action, old_logp, advantage, returns, weight, *bounds, *coefs
    )
    outputs = dict(zip(("policy", "value", "policy/entropy", "kl", "clipped"), torch.from_numpy(columns), strict=True))
    calls = [(policy, seen_by_policy, torch.from_numpy(of_policy)), (value, seen_by_value, torch.from_numpy(of_value))]
    return Given(torch.tensor(total), outputs, calls)


@njit(cache=True, error_model="numpy")
def loss_and_gradient(
    out: np.ndarray,
    value: np.ndarray,
    action: np.ndarray,
    old_logp: np.ndarray,
    advantage: np.ndarray,
    returns: np.ndarray,
    weight: np.ndarray,
    low: np.float32,
    high: np.float32,
    vf_coef: np.float32,
    ent_coef: np.float32,
) -> tuple[np.float32, np.ndarray, np.ndarray, np.ndarray]:
    """(loss, its outputs [5, B], gradients of the logits [B, A] and of the values [B, 1]).

    out [B, A] and value [B, 1] are those of the networks; low and high bound the ratio. All numbers are float32.
    """
    count, actions = out.shape
    total, columns = _NONE, np.empty((5, count), np.float32)
    of_policy, of_value = np.empty((count, actions), np.float32), np.empty((count, 1), np.float32)
    logp = np.empty(actions, np.float32)
    for b in range(count):
        largest, chosen = out[b].max(), action[b]
        rest = _NONE
        for a in range(actions):
            rest += np.exp(out[b, a] - largest)
        entropy = _NONE
        for a in range(actions):
            logp[a] = out[b, a] - largest - np.log(rest)
            entropy -= np.exp(logp[a]) * logp[a]
        log_ratio = logp[chosen] - old_logp[b]
        ratio = np.exp(log_ratio)
        clipped = min(max(ratio, low), high)
        gain = min(ratio * advantage[b], clipped * advantage[b])
        error = value[b, 0] - returns[b]
        total += weight[b] * (vf_coef * _HALF * error * error - gain - ent_coef * entropy)
        columns[0, b], columns[1, b], columns[2, b] = -gain, _HALF * error * error, entropy
        columns[3, b] = ratio - _ONE - log_ratio
        columns[4, b] = _ONE if ratio != clipped else _NONE
        # the smaller of both products is the unclipped one, or its ratio has no gradient
        of_logp = _NONE if ratio * advantage[b] > clipped * advantage[b] else -ratio * advantage[b]  # NaN stays NaN
        for a in range(actions):
            p = np.exp(logp[a])
            of_ratio = of_logp * ((_ONE if a == chosen else _NONE) - p)
            of_policy[b, a] = weight[b] * (of_ratio + ent_coef * p * (logp[a] + entropy))
        of_value[b, 0] = weight[b] * vf_coef * error
    return total, columns, of_policy, of_value
