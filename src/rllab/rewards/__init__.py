"""Reward functions (`rllab.core.protocols.Reward`); a bare name in a recipe is an attribute of this module.

A reward is called by name with `prompts`, `completions`, `completion_ids` and the rows' other columns, as TRL's are; it
declares those that it needs, and returns a number for each completion, or None where it does not apply. Keyword-only
parameters are its settings.
"""

import importlib
from typing import Any

from rllab.rewards.accuracy import accuracy
from rllab.rewards.code import code
from rllab.rewards.form import format, noise, repetition
from rllab.rewards.http import http
from rllab.rewards.judge import judge
from rllab.rewards.length import brevity, cosine_length, soft_overlong
from rllab.rewards.self_verification import flaw_named, verifying

__all__ = [
    "accuracy", "brevity", "code", "cosine_length", "flaw_named", "format", "http", "judge", "noise", "proving",
    "repetition", "self_judge", "soft_overlong", "verifier", "verifying",
]  # fmt: skip

_IN_TRAINER = {  # they need torch, which the processes of other rewards do not import
    "proving": ("rllab.rewards.verified", "Proving"),
    "self_judge": ("rllab.rewards.own", "SelfJudge"),
    "verifier": ("rllab.rewards.verified", "Verifier"),
}


def __getattr__(name: str) -> Any:
    if name not in _IN_TRAINER:
        raise AttributeError(name)
    module, attribute = _IN_TRAINER[name]
    return getattr(importlib.import_module(module), attribute)
