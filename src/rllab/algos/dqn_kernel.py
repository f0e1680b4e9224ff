"""The loss of DQN with a plain perceptron, and its gradient, as one program in numba (`core/fused.py`).

Axes: B batch, A actions, I inputs.
"""

import numpy as np
import torch
from numba import njit

from rllab.algos.dqn import DQN
from rllab.control.networks import MLP
from rllab.control.qnetwork import QNetwork, taken
from rllab.core.algorithm import Batch
from rllab.core.perceptron import Given
from rllab.core.perceptron_kernel import Layout, forward

PARTS = (DQN.loss, DQN.td_target, QNetwork, taken)
DIGEST = "c23e296dc058536e"
_HALF, _ONE, _NONE = np.float32(0.5), np.float32(1), np.float32(0)  # numba computes with Python's floats in float64


def fits(dqn: DQN) -> bool:
    """Whether Q is a perceptron that gives each action's value, on features without weights."""
    nets = dqn.q, dqn.target
    if dqn.dueling or dqn.quantiles or any(type(q) is not QNetwork or list(q.encoder.parameters()) for q in nets):
        return False
    return all(isinstance(q.net, MLP) and q.net.flatten() is not None for q in nets)


def loss(dqn: DQN, batch: Batch) -> Given | None:
    """What `DQN.loss` returns, and the gradient of Q's output."""
    assert isinstance(dqn.q.net, MLP) and isinstance(dqn.target.net, MLP)  # of `fits`
    online, target = dqn.q.net.flatten(), dqn.target.net.flatten()
    if online is None or target is None or "next_mask" in batch:
        return None
    x, next_x = (dqn.q.encoder(batch[k]).contiguous().numpy() for k in ("obs", "next_obs"))
    names = "action", "reward", "discount", "weight"
    action, reward, discount, weight = (batch[k].contiguous().numpy() for k in names)
    hidden, flags = np.empty(online.hidden * len(x), np.float32), (dqn.double, dqn.huber)
    total, q, error, gradient = loss_and_gradient(
        online.layout, target.layout, x, next_x, hidden, action, reward, discount, weight, *flags
    )
    outputs = {"td_error": torch.from_numpy(error), "q": torch.from_numpy(q)}
    return Given(torch.tensor(total), outputs, [(online, (x, hidden), torch.from_numpy(gradient))])


@njit(cache=True, error_model="numpy")
def loss_and_gradient(
    online: Layout,
    target: Layout,
    x: np.ndarray,
    next_x: np.ndarray,
    hidden: np.ndarray,
    action: np.ndarray,
    reward: np.ndarray,
    discount: np.ndarray,
    weight: np.ndarray,
    double: bool,
    huber: bool,
) -> tuple[np.float32, np.ndarray, np.ndarray, np.ndarray]:
    """(loss, Q(s, a) [B], size of the TD error [B], gradient of Q(s, ·) [B, A]); fills `hidden` for Q at x [B, I].

    online, target: the layouts of the networks (`Flat.layout`). All numbers are float32.
    """
    count, actions = len(x), online[1][-1]
    values = np.empty((1, count, actions), np.float32)
    next_values, choice = np.empty_like(values), np.empty_like(values)
    spare = np.empty_like(hidden)
    forward(target, next_x, spare, next_values)
    if double:
        forward(online, next_x, spare, choice)
    else:
        choice = next_values
    forward(online, x, hidden, values)
    total, q, size = _NONE, np.empty(count, np.float32), np.empty(count, np.float32)
    gradient = np.zeros((count, actions), np.float32)
    for b in range(count):
        q[b] = values[0, b, action[b]]
        error = q[b] - (reward[b] + discount[b] * next_values[0, b, choice[0, b].argmax()])
        size[b] = abs(error)
        if huber and size[b] > _ONE:
            total += weight[b] * (size[b] - _HALF)
            gradient[b, action[b]] = weight[b] * np.sign(error)
        elif huber:
            total += weight[b] * _HALF * error * error
            gradient[b, action[b]] = weight[b] * error
        else:
            total += weight[b] * error * error
            gradient[b, action[b]] = weight[b] * (error + error)
    return total, q, size, gradient
