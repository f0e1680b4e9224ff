"""Decision transformer (Chen et al. 2021): reinforcement learning as the prediction of a sequence.

Recorded episodes become sequences of three tokens a step: the return still to come R (the sum of the rewards up to the
end of the episode), the state s, and the action a. A causal transformer learns to predict each action from its state
token, and so from what came before:

    ... R_t, s_t, a_t, R_t+1, s_t+1, a_t+1 ...        loss = -log π(a_t | R_t-K+1, s_t-K+1, a_t-K+1, ..., R_t, s_t)

To act, it is given the return that is wanted, `target_return`, which is reduced by each reward. Nothing is maximized,
and no value is learned: it clones what was done in episodes with such a return.

A round: `gradient_steps` updates on windows of up to `context` steps of recorded episodes.
Axes: B batch, K steps of a window, N environments, A actions or components of an action, D width.

The batch:
- obs [B, K, ...]; action int64 [B, K], or float32 [B, K, A] in [-1, 1]
- return_to_go [B, K]: divided by the largest magnitude in the data set
- valid bool [B, K]: false after the end of an episode
- weight [B]: 1 / `batch_size`; the loss of a window is the sum over its valid steps, divided by K

Departures from the paper:
- The transformer is that of `shape`, by default the lab's small Qwen3, in place of GPT-2. Its rotary embeddings give
  positions in the window; there is no embedding of the step in the episode, which would be untrained beyond the longest
  recorded episode.
- Continuous actions are learned by the squared error, as in the paper, discrete ones by the cross-entropy.
- Observations are not standardized; a wrapper of the environment may do so.
"""

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from rllab.control.algorithm import masked
from rllab.control.networks import Encoder
from rllab.control.offline import Offline
from rllab.control.vector import Transition
from rllab.core.algorithm import Batch, Context, Metrics, Outputs, Round
from rllab.core.errors import FieldMistake
from rllab.core.ranges import Count

SMALL = {
    "model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 192,
}  # fmt: skip


@dataclass(kw_only=True)
class DecisionTransformer(Offline):
    """Learns actions given the return that follows them, and acts towards `target_return`."""

    target_return: float  # the return that is asked for in evaluation
    targets: list[float] = field(default_factory=list)  # further ones; 25 is measured as eval/return_25
    context: Count = 10  # K, steps of a window
    shape: dict[str, Any] = field(default_factory=lambda: dict(SMALL))  # settings of transformers' config

    def setup(self, ctx: Context) -> None:
        recorded = self.make_data(ctx)
        self._windows = recorded.steps(recorded.whole)  # a window begins at one of these steps
        ends = recorded.first + recorded.lengths
        self._end = self.tensor(np.repeat(ends, recorded.lengths))
        self._scale = max(float(np.abs(recorded.returns_to_go[self._windows]).max()), 1e-6)
        self._tensors["return_to_go"] = self.tensor(recorded.returns_to_go / np.float32(self._scale))
        ctx.seed_torch("weights")
        discrete = self._bounds is None
        self.net = SequenceModel(self.envs.observation_space, self._actions, discrete, self.shape).to(ctx.device)
        if self.model:
            self.start_from(self.net, self.model)
        self._target = self.target_return
        self._acted = np.zeros(0), np.zeros(0)  # the last observation and action of `act`
        self.reset_policy(np.ones(1, bool))

    def parts(self) -> dict[str, nn.Module]:
        return {"model": self.net}

    def collect(self, step: int) -> Round:
        for starts, weight in self.draws(step, self._windows):
            yield self.window(starts) | {"weight": weight}
        return self.counted()

    def window(self, starts: Tensor) -> Batch:
        """The windows [B, K, ...] that begin at steps [B]; after the end of an episode its last step is repeated."""
        at_BK = starts[:, None] + torch.arange(self.context, device=starts.device)
        last_B1 = self._end[starts][:, None] - 1
        rows_BK = torch.minimum(at_BK, last_B1)
        return {k: self._tensors[k][rows_BK] for k in ("obs", "action", "return_to_go")} | {"valid": at_BK <= last_B1}

    def loss(self, batch: Batch) -> tuple[Tensor, Outputs]:
        out_BKA = self.net(batch["obs"], batch["return_to_go"], batch["action"])
        if self._bounds is None:
            loss_BK = nn.functional.cross_entropy(out_BKA.movedim(-1, 1), batch["action"], reduction="none")
        else:
            loss_BK = (out_BKA - batch["action"]).square().sum(-1)
        loss_B = torch.where(batch["valid"], loss_BK, 0.0).sum(1) / self.context
        return batch["weight"] @ loss_B, {"error": loss_B}

    def evaluate(self, step: int) -> Metrics:
        """Greedy episodes towards `target_return`, and towards each of `targets`."""
        metrics = super().evaluate(step)
        for target in self.targets:
            self._target = target
            returns, *_ = self._measure(self.eval_episodes, 0, step)
            metrics[f"eval/return_{target:g}"] = float(returns.mean())
        self._target = self.target_return
        return metrics

    def reset_policy(self, which: np.ndarray) -> None:
        """As `Control.reset_policy`, with bool [N]: forgets the steps before, and asks for the whole target again."""
        begins = torch.from_numpy(which).to(self.ctx.device)
        if which.all():
            blank = self.window(torch.zeros(len(which), dtype=torch.int64, device=self.ctx.device))
            self._past = {k: torch.zeros_like(blank[k]) for k in ("obs", "action", "return_to_go")}
            self._count = torch.zeros(len(which), dtype=torch.int64, device=self.ctx.device)  # steps in `_past` [N]
            self._left = torch.zeros(len(which), device=self.ctx.device)  # the return that is still asked for [N]
        self._count[begins], self._left[begins] = 0, self._target / self._scale

    def greedy(self, obs: Tensor, mask: Tensor | None) -> Tensor:
        every = torch.arange(len(obs), device=obs.device)
        self._past["obs"][every, self._count] = obs.to(self._past["obs"].dtype)
        self._past["return_to_go"][every, self._count] = self._left
        out_NA = self.net(self._past["obs"], self._past["return_to_go"], self._past["action"])[every, self._count]
        return masked(out_NA, mask).argmax(1) if self._bounds is None else self.to_env(out_NA)

    def observe(self, step: Transition) -> None:
        """Remembers a step, and the oldest no more where the window is full; reduces the target by the reward."""
        every, action = torch.arange(len(step.reward), device=self.ctx.device), step.action
        scaled = action if self._bounds is None else self._bounds.from_env(action)
        now = {"obs": self.tensor(step.obs), "return_to_go": self._left, "action": self.tensor(scaled)}
        full = self._count == self.context - 1
        for name, past in self._past.items():
            past[every, self._count] = now[name].to(past.dtype)
            past[full] = past[full].roll(-1, 1)
        self._count = torch.where(full, self._count, self._count + 1)
        self._left = self._left - self.tensor(step.reward).float() / self._scale

    def act(self, obs: Any, mask: Any = None, reward: float | None = None) -> Any:
        """As `Control.act`. reward: that of the step before; None at the first observation of an episode."""
        if reward is None:
            self.reset_policy(np.ones(1, bool))
        else:
            seen, action = self._acted
            never = np.zeros(1, bool)
            self.observe(Transition(seen, action, np.array([reward]), seen, never, never, None))
        chosen = super().act(obs, mask)
        self._acted = np.asarray(self.envs.one(obs)[0])[None], np.asarray(chosen)[None]
        return chosen


class SequenceModel(nn.Module):
    """A causal transformer over the tokens R, s, a of each step, with the actions as outputs."""

    def __init__(self, space: gym.Space[Any], actions: int, discrete: bool, shape: dict[str, Any]) -> None:
        super().__init__()
        try:
            config = AutoConfig.for_model(**shape, vocab_size=1, pad_token_id=None)
            self.body = AutoModel.from_config(config, dtype=torch.float32).train(False)  # type: ignore[no-untyped-call]
        except (KeyError, ValueError, TypeError) as error:
            raise FieldMistake("shape", f"transformers cannot make this model: {error}") from None
        self.body.get_input_embeddings().requires_grad_(False)  # tokens are embedded by the layers below
        width = config.hidden_size
        self.encoder, self.discrete = Encoder(space), discrete
        self.embed_return, self.embed_obs = nn.Linear(1, width), nn.Linear(self.encoder.size, width)
        self.embed_action = nn.Embedding(actions, width) if discrete else nn.Linear(actions, width)
        self.head = nn.Linear(width, actions)

    def forward(self, obs: Tensor, return_to_go: Tensor, action: Tensor) -> Tensor:
        """Logits, or actions in [-1, 1], [B, K, A], each from the tokens up to its state.

        obs [B, K, ...], return_to_go [B, K], action [B, K] or [B, K, A]: an action has no effect on its own output.
        """
        batch, steps = return_to_go.shape
        obs_BKD = self.embed_obs(self.encoder(obs.flatten(0, 1))).view(batch, steps, -1)
        tokens = [self.embed_return(return_to_go[..., None]), obs_BKD, self.embed_action(action)]
        hidden = self.body(inputs_embeds=torch.stack(tokens, 2).flatten(1, 2), use_cache=False).last_hidden_state
        out_BKA: Tensor = self.head(hidden[:, 1::3])
        return out_BKA if self.discrete else out_BKA.tanh()
