"""The weights of a model under the names that are published, which other programs read.

transformers holds some models otherwise than they are published: the experts of a mixture are one tensor in memory, and
many in files. Such a model's `state_dict` gives, and its `load_state_dict` takes, what stands in files.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    PrefixChange,
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
    revert_weight_conversion,
)


def with_published_names(model: PreTrainedModel) -> PreTrainedModel:
    """The model, with a state of published names; within another module, as under adapters, its state is as it was."""
    if _conversions(model):
        model.register_state_dict_post_hook(_publish)  # type: ignore[no-untyped-call]
        model.register_load_state_dict_pre_hook(_read)  # type: ignore[no-untyped-call]
    return model


def _conversions(model: Any) -> list[Any]:
    """What transformers does with the published weights of a model: those of its folder, or else of its kind."""
    used = getattr(model, "_weight_conversions", None)
    if used is not None:
        return list(used)
    return [c for c in get_model_conversion_mapping(model, add_legacy=False) if not isinstance(c, PrefixChange)]


def _renaming(model: PreTrainedModel) -> Callable[[str], tuple[str, str | None]]:
    """A function: a published name to (the name in memory, the pattern of a conversion by which it is found)."""
    conversions = _conversions(model)
    renamings = [c for c in conversions if isinstance(c, WeightRenaming)]
    converters = [c for c in conversions if isinstance(c, WeightConverter)]
    return lambda name: rename_source_key(name, renamings, converters)


def _publish(model: Any, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    if not prefix:
        order = {name: i for i, name in enumerate(state)}  # of tied weights the first name is saved
        published = revert_weight_conversion(model, dict(state))
        state.clear()
        rename = _renaming(model)
        state.update(sorted(published.items(), key=lambda named: order.get(rename(named[0])[0], len(order))))


def _read(model: Any, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    if not prefix:
        weights = in_memory(model, state)
        state.clear()
        state.update(weights)


def in_memory(model: PreTrainedModel, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a model as it holds them, from those of published names; each of any shape."""
    rename = _renaming(model)
    converters = [c for c in _conversions(model) if isinstance(c, WeightConverter)]
    of_pattern = {pattern: c for c in converters for pattern in c.source_patterns}
    each: dict[str, Any] = {}
    for name in sorted(published, key=dot_natural_key):
        own, pattern = rename(name)
        if own not in each:
            each[own] = WeightRenaming(name, own) if pattern is None else deepcopy(of_pattern[pattern])
        each[own].add_tensor(own, name, name if pattern is None else pattern, published[name])
    weights: dict[str, Any] = {}
    for own, conversion in each.items():
        weights |= conversion.convert(own, model=model, config=model.config)
    return {name: value[0] if isinstance(value, list) else value for name, value in weights.items()}
