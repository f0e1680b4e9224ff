"""Rollouts that a vLLM server samples (`rllab.text.server`): it is given the weights of each round, and checked.

Its probabilities differ a little from the trainer's, as other kernels and another precision compute them. So the tokens
come with the log-probabilities that they were sampled with, and GRPO's weights are corrected by them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from rllab.algos.online import Policy
from rllab.algos.rollouts import Group
from rllab.core.algorithm import Batch, Context, Line, Metrics
from rllab.core.errors import FieldMistake, MachineFault
from rllab.core.ranges import Positive
from rllab.core.sharding import gather, is_split
from rllab.text.models import LanguageModel
from rllab.text.open import whole_weights
from rllab.text.server import RolloutServer

_FAR = 0.5  # mean difference of a log-probability in nats; by precision alone it is about 0.01, in bf16


class Served:
    """The server of a run. length: the most tokens of a prompt and a completion. seconds: how long to wait for it."""

    def __init__(self, ctx: Context, length: int, seconds: float) -> None:
        self._ctx, self._length, self._seconds = ctx, length, seconds
        self.server: RolloutServer | None = None

    def renew(self, lm: LanguageModel) -> None:
        """Gives the server the model's present weights. The first call waits until it is up. Every rank must call it.

        Raises:
            FieldMistake: there is no server, or it serves another model.
            MachineFault: it is not up in time, or fails.
        """
        if self.server is None:
            if lm.new_tokens:
                raise FieldMistake("use_vllm", f"the chat template needs {len(lm.new_tokens)} tokens that {lm.name} "
                                   "does not have; a server cannot learn them")  # fmt: skip
            server = RolloutServer.of_environment(self._seconds, self._ctx.stop)
            self._ctx.tell(f"waiting for the vLLM server at {server.url}")
            server.wait(lm, self._length)
            self.server = server
        first = self._ctx.rank == 0
        if first or is_split(lm.model):
            weights = gather(whole_weights(lm), first)
            if first:
                self.server.push(weights)
        self._ctx.sum(0.0)  # no rank samples before

    def check(self, batches: Sequence[Batch]) -> None:
        """Checks that the server has sampled from about the weights that it was given. Every rank must call it.

        batches: with `sampled_logp` and `old_logp` [B, L].

        Raises:
            MachineFault: its log-probabilities are far from the trainer's.
        """
        sums = torch.zeros(2, dtype=torch.float64)
        for batch in batches:
            learned = batch["learned"] != 0
            gap = (batch["old_logp"] - batch["sampled_logp"])[learned].abs().double()
            sums += torch.stack([gap.sum().cpu(), learned.sum().cpu().double()])
        gap, count = self._ctx.total(sums).tolist()
        if count and not gap / count < _FAR:
            where = self.server.url if self.server else ""
            raise MachineFault(
                f"the vLLM server at {where} samples from another model: its log-probabilities are {gap / count:.2g} "
                "nats a token from the trainer's. It must serve the recipe's `model`, unquantized, to one run at a "
                "time, by rllab serve, which sets --logprobs-mode processed_logprobs"
            )


@dataclass(kw_only=True)
class ServedPolicy(Policy):
    """A policy whose completions to learn from may be sampled by a server, and are corrected for the sampler."""

    importance_sampling_clip_max: Positive | None = None  # weights times min(pi_old / pi_sampler, this); None: not
    use_vllm: bool = False  # completions to learn from are sampled by the vLLM server at RLLAB_SERVER (docs/cluster.md)
    vllm_server_timeout: Positive = 600.0  # seconds to wait until that server is up, and for each of its answers

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.use_vllm and (refused := self._refused()):
            raise ValueError(f"use_vllm: {refused}")

    def _refused(self) -> str:
        """What of the settings a server cannot do; "" if nothing."""
        if not self.model:
            return "a server cannot load a new model of `shape`: set model, as to a run that has trained it"
        if self.lora is not None and self.lora.quantize != "none":
            return "adapters are merged into their base for the server, which a quantized base does not allow"
        if self.top_p < 1.0 or self.top_k:
            return "a server gives the log-probabilities after top_p and top_k, and those before are needed: unset both"
        if self.importance_sampling_clip_max is None:
            return "a server's probabilities differ a little, which biases gradients: set importance_sampling_clip_max"
        return ""

    @property
    def unrepeatable(self) -> str:
        return "completions to learn from, which a vLLM server samples" if self.use_vllm else ""

    def open_policy(self, ctx: Context) -> None:
        super().open_policy(ctx)
        self._served = Served(ctx, self.length, self.vllm_server_timeout) if self.use_vllm else None

    def shard(self) -> None:
        if self.use_vllm and self.lora is not None:
            raise FieldMistake("shard", "sharded adapters cannot be merged for a server: set it to false")
        super().shard()

    def sample_groups(self) -> tuple[list[Group], Metrics]:
        if self._served:
            self._served.renew(self._lm)
        return super().sample_groups()

    def served(self, lm: LanguageModel) -> LanguageModel:
        return replace(lm, server=self._served.server) if self._served else lm

    def check_sampler(self, batches: Sequence[Batch]) -> None:
        """Checks that a server has sampled a round's batches from about the weights that it was given."""
        if self._served:
            self._served.check(batches)

    def preflight(self) -> dict[str, Line]:
        """Adds what is sampled elsewhere in training; the answers of this report are sampled here."""
        line = {"not repeated": Line(f"{self.unrepeatable}: a run that is resumed learns from others")}
        return super().preflight() | (line if self.use_vllm else {})
