"""LoRA (Hu et al. 2021) with peft's layers: adapters on a frozen base model.

Only the adapters are trained, saved and loaded, in peft's own format. `base.json` beside them records the base that
they were trained on, and a hash of its weights: loading them onto other weights is an error.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from rllab.core.errors import FieldMistake
from rllab.core.files import write_atomic
from rllab.text.lora import Lora

WEIGHTS = "adapter_model.safetensors"


class Adapters(nn.Module):
    """The adapters of a model as a trainable part. Its state holds the adapters' weights alone, under peft's names."""

    weights_file = WEIGHTS

    def __init__(self, peft: PeftModel, base: str) -> None:
        super().__init__()
        self.peft, self.base = peft, base
        self._dropout = _DropoutSeeds()
        for layer in _layers(peft):
            for key, dropout in layer.lora_dropout.items():
                if isinstance(dropout, nn.Dropout) and dropout.p > 0:
                    layer.lora_dropout[key] = RowDropout(dropout.p, self._dropout)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """The adapters' weights."""
        state: dict[str, Tensor] = get_peft_model_state_dict(self.peft, save_embedding_layers=False)
        return state

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Loads a state that `state_dict` returned."""
        return set_peft_model_state_dict(self.peft, dict(state_dict))

    def seed_dropout(self, seeds: list[int], counts: list[int]) -> None:
        """Seeds the dropout masks of the next loss: a seed and the number of tokens of each row."""
        self._dropout.seeds, self._dropout.counts = seeds, counts

    @property
    def dropout_active(self) -> bool:
        """Whether the next forward pass applies dropout: masks are seeded, and gradients are computed."""
        return self._dropout.active

    @contextmanager
    def off(self) -> Iterator[None]:
        """Context in which the model runs without its adapters."""
        with self.peft.disable_adapter():
            yield

    def write_files(self, folder: Path) -> None:
        """Writes the files beside the weights: peft's config, and `base.json` with the base's name and hash."""
        config = self.peft.peft_config["default"]
        config.base_model_name_or_path = self.base
        config.save_pretrained(str(folder))
        record = {"base": self.base, "content": content_hash(self.base)}
        write_atomic(folder / "base.json", json.dumps(record, indent=1))

    def largest_change(self, model: PreTrainedModel, ids: Tensor) -> float:
        """The largest absolute change of a logit by the adapters, on token ids [B, L]. Warns where it is 0."""
        with torch.no_grad():
            on = model(input_ids=ids, use_cache=False).logits
            with self.off():
                off = model(input_ids=ids, use_cache=False).logits
        change = float((on - off).abs().max())
        if change == 0.0:
            warnings.warn(f"the adapters on {self.base} change nothing", stacklevel=2)
        return change

    def trained_share(self) -> float:
        """The fraction of the parameters that is trained."""
        counts = [(p.numel(), p.requires_grad) for p in self.peft.parameters()]
        return sum(n for n, trained in counts if trained) / sum(n for n, _ in counts)


@dataclass
class _DropoutSeeds:
    """The seed and the number of tokens of each row of the next batch; shared by all dropout layers of a model."""

    seeds: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    layers: int = 0

    @property
    def active(self) -> bool:
        return bool(self.seeds) and torch.is_grad_enabled()


class RowDropout(nn.Module):
    """Dropout whose mask is a function of one seed per row, so a split batch gets the same masks as a whole one."""

    def __init__(self, p: float, rows: _DropoutSeeds) -> None:
        super().__init__()
        self.p, self._rows, self._layer = p, rows, rows.layers
        rows.layers += 1

    def forward(self, x: Tensor) -> Tensor:
        """Sets elements of x [T, D] to 0 with probability p, and divides the others by 1 - p.

        T: the tokens of all rows, in order. Returns x unchanged where no seeds are set or no gradient is computed.
        """
        if not self._rows.active:
            return x
        masks = []
        for seed, count in zip(self._rows.seeds, self._rows.counts, strict=True):
            generator = torch.Generator(x.device).manual_seed(seed * 8191 + self._layer)
            masks.append(torch.rand(count, x.shape[-1], generator=generator, device=x.device) >= self.p)
        return x * torch.cat(masks).view(x.shape) / (1.0 - self.p)


def new_adapters(model: PreTrainedModel, lora: Lora, base: str, modules_to_save: list[str] | None = None) -> Adapters:
    """Puts new adapters on a model. They do not change its outputs before they are trained.

    Their weights are drawn from torch's global generator. base: the name that the model was loaded by.
    modules_to_save: modules that are trained in full beside the adapters, such as a new head.

    Raises:
        FieldMistake: the model has none of the target modules, or peft rejects the settings.
    """
    settings = {k: v for k, v in asdict(lora).items() if k != "quantize"}
    task = "CAUSAL_LM" if hasattr(model, "lm_head") else "SEQ_CLS"
    try:
        return Adapters(_peft(model, LoraConfig(task_type=task, modules_to_save=modules_to_save, **settings)), base)
    except ValueError as error:
        raise FieldMistake("lora", str(error).splitlines()[0]) from None


def base_of(folder: Path) -> str:
    """The name of the base model that a folder of adapters was trained on.

    Raises:
        FieldMistake: the adapters are pickled, or the base's weights have changed since.
    """
    if not (folder / WEIGHTS).is_file():
        raise FieldMistake("model", f"{folder} cannot be loaded: it has no {WEIGHTS} (pickled adapters are not read)")
    base, record = str(PeftConfig.from_pretrained(str(folder)).base_model_name_or_path), folder / "base.json"
    if record.is_file():
        wanted, now = json.loads(record.read_text(encoding="utf-8"))["content"], content_hash(base)
        if wanted and now and wanted != now:
            raise FieldMistake("model", f"{folder}: these adapters were trained on other weights than {base} now holds")
    return base


def read_adapters(model: PreTrainedModel, folder: Path, base: str) -> Adapters:
    """Puts the adapters of a folder on their base model.

    Raises:
        FieldMistake: they do not fit this base.
    """
    adapters = Adapters(_peft(model, PeftConfig.from_pretrained(str(folder))), base)
    loaded = adapters.load_state_dict(load_file(folder / WEIGHTS))
    if loaded.unexpected_keys:
        raise FieldMistake("model", f"{folder}: its adapters do not fit {base}; they were trained on another base")
    return adapters


def _peft(model: PreTrainedModel, config: PeftConfig) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # peft's own call
        return get_peft_model(model, config)


def content_hash(base: str) -> str:
    """A hash of the weights and config in a local model folder; '' for a name that is no folder here."""
    folder, digest = Path(base), hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("config.json")]) if folder.is_dir() else []:
        with open(file, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16] if folder.is_dir() else ""


def _layers(peft: PeftModel) -> list[Any]:
    return [m for m in peft.modules() if hasattr(m, "lora_dropout")]
