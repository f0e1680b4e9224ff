"""The algorithms, one file each; a file is imported when its algorithm is first named."""

from importlib import import_module
from typing import Any

__all__ = [
    "DPO", "DQN", "GRPO", "PPO", "RLHF", "SAC", "SFT", "Adversary", "AlphaZero", "Distill", "Imitation", "PrefPPO",
    "RecurrentPPO", "RewardModel", "Tabular",
]  # fmt: skip
_FILES = {"RecurrentPPO": "recurrent_ppo", "RewardModel": "reward_model"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rllab.algos' has no attribute {name!r}")
    return getattr(import_module(f"rllab.algos.{_FILES.get(name, name.lower())}"), name)
