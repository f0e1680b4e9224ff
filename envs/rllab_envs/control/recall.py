"""Recall: a cue is seen at the first step and asked for at the last one, so a policy must remember it."""

import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode

from rllab_envs.control.batched import BatchedEnv, Floats, One


class Recall(BatchedEnv):
    """Episodes of `delay` + 1 steps. Actions: the `cues`. Reward: 1 if the last action is the cue of the first step.

    Observation [cues + 1]: the cue, one-hot, in the first one; the last number is 1 where the answer is asked for. A
    policy without memory is right once in `cues` episodes.
    """

    def __init__(
        self,
        num_envs: int = 1,
        cues: int = 4,
        delay: int = 8,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        if cues < 2 or delay < 1:
            raise ValueError(f"there must be at least 2 cues and a delay of 1 step, got {cues} and {delay}")
        self.cues, self.delay = cues, delay
        space = Box(0.0, 1.0, (cues + 1,), np.float32)
        super().__init__(num_envs, space, Discrete(cues), max_episode_steps, autoreset_mode)

    def draw(self, rng: np.random.Generator) -> Floats:
        """A start state [2]: the cue, and 0 steps."""
        return np.array([rng.integers(self.cues), 0.0])

    def advance(self, action: np.ndarray) -> tuple[Floats, np.ndarray]:
        """One step by actions [N]; returns rewards [N] and whether the episode has ended [N]."""
        cue, steps = self.state
        asked = steps >= self.delay
        self.state = np.array([cue, steps + 1])
        return (asked & (action == cue)).astype(float), asked

    def observe(self) -> np.ndarray:
        cue, steps = self.state
        shown = (np.arange(self.cues) == cue[:, None]) & (steps == 0)[:, None]
        return np.column_stack([shown, steps >= self.delay]).astype(np.float32)


class OneRecall(One):
    """One environment, as Gymnasium's `make` returns it; the arguments are those of `Recall`."""

    kind = Recall
