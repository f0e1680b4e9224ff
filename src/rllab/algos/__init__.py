"""The algorithms, one file each; a file is imported when its algorithm is first named."""

from importlib import import_module
from typing import Any

__all__ = [
    "A2C", "BC", "CQL", "DPO", "DQN", "GRPO", "IQL", "MPC", "PPO", "RLHF", "SAC", "SFT", "TD3", "Adversary",
    "AlphaZero", "DecisionTransformer", "Distill", "Imitation", "PrefPPO", "RecurrentPPO", "Reinforce", "RewardModel",
    "Tabular",
]  # fmt: skip
_FILES = {
    "DecisionTransformer": "decision_transformer",
    "RecurrentPPO": "recurrent_ppo",
    "RewardModel": "reward_model",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rllab.algos' has no attribute {name!r}")
    return getattr(import_module(f"rllab.algos.{_FILES.get(name, name.lower())}"), name)
