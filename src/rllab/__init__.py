"""rllab: one trainer core for reinforcement learning and language-model alignment.

Names are loaded on first use, so that `import rllab` and the command line start without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rllab.board.notebook import show
    from rllab.core.algorithm import Algorithm, Batch, Context, Metrics, Outputs, Update
    from rllab.core.load import load_run as load
    from rllab.core.recipe import load_recipe
    from rllab.core.trainer import Trainer

__version__ = "0.1.0"
__all__ = ["Algorithm", "Batch", "Context", "Metrics", "Outputs", "Trainer", "Update", "load", "load_recipe", "show"]

_HOMES = dict.fromkeys(("Algorithm", "Batch", "Context", "Metrics", "Outputs", "Update"), "rllab.core.algorithm")
_HOMES |= {"Trainer": "rllab.core.trainer", "load": "rllab.core.load", "load_recipe": "rllab.core.recipe"}
_HOMES |= {"show": "rllab.board.notebook"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rllab' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), {"load": "load_run"}.get(name, name))
