"""LoRA (Hu et al. 2021) with peft's layers: adapters on a base that stays as it is.

What is trained, saved and loaded is the adapters alone, in peft's own format; beside them `base.json` says what they
were trained on, so that another base is found out.
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
    """The adapters of a model as a part: its state is theirs alone, under peft's names."""

    weights_file = WEIGHTS

    def __init__(self, peft: PeftModel, base: str) -> None:
        super().__init__()
        self.peft, self.base = peft, base
        self._noise = _Noise()
        for layer in _layers(peft):
            for key, dropout in layer.lora_dropout.items():
                if isinstance(dropout, nn.Dropout) and dropout.p > 0:
                    layer.lora_dropout[key] = RowDropout(dropout.p, self._noise)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """The adapters' weights."""
        state: dict[str, Tensor] = get_peft_model_state_dict(self.peft, save_embedding_layers=False)
        return state

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Puts back what `state_dict` returned."""
        return set_peft_model_state_dict(self.peft, dict(state_dict))

    def seed_dropout(self, seeds: list[int], counts: list[int]) -> None:
        """What dropout draws from in the next loss: a number for each row, and how many tokens a row has."""
        self._noise.seeds, self._noise.counts = seeds, counts

    @property
    def dropout_active(self) -> bool:
        """Whether dropout is to draw."""
        return bool(self._noise.seeds) and torch.is_grad_enabled()

    @contextmanager
    def off(self) -> Iterator[None]:
        """The base alone."""
        with self.peft.disable_adapter():
            yield

    def write_files(self, folder: Path) -> None:
        """Writes what stands beside the weights: peft's config, and what the base was."""
        config = self.peft.peft_config["default"]
        config.base_model_name_or_path = self.base
        config.save_pretrained(str(folder))
        write_atomic(
            folder / "base.json", json.dumps({"base": self.base, "content": content_hash(self.base)}, indent=1)
        )

    def largest_change(self, model: PreTrainedModel, ids: Tensor) -> float:
        """How much they change a logit at most, on tokens [B, L]; warns where they change nothing."""
        with torch.no_grad():
            on = model(input_ids=ids, use_cache=False).logits
            with self.off():
                off = model(input_ids=ids, use_cache=False).logits
        change = float((on - off).abs().max())
        if change == 0.0:
            warnings.warn(f"the adapters on {self.base} change nothing", stacklevel=2)
        return change

    def trained_share(self) -> float:
        """The share of the parameters that is trained."""
        counts = [(p.numel(), p.requires_grad) for p in self.peft.parameters()]
        return sum(n for n, trained in counts if trained) / sum(n for n, _ in counts)


@dataclass
class _Noise:
    seeds: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    layers: int = 0


class RowDropout(nn.Module):
    """Dropout whose mask follows from a seed for each row of the batch, and so is the same however it is split."""

    def __init__(self, p: float, noise: _Noise) -> None:
        super().__init__()
        self.p, self._noise, self._number = p, noise, noise.layers
        noise.layers += 1

    def forward(self, x: Tensor) -> Tensor:
        """x [T, D] with a share p of its numbers at 0, and the others larger by as much; x where nothing is learned."""
        if not self._noise.seeds or not torch.is_grad_enabled():
            return x
        masks = []
        for seed, count in zip(self._noise.seeds, self._noise.counts, strict=True):
            generator = torch.Generator(x.device).manual_seed(seed * 8191 + self._number)
            masks.append(torch.rand(count, x.shape[-1], generator=generator, device=x.device) >= self.p)
        return x * torch.cat(masks).view(x.shape) / (1.0 - self.p)


def new_adapters(model: PreTrainedModel, lora: Lora, base: str, modules_to_save: list[str] | None = None) -> Adapters:
    """New adapters on a model, which change nothing yet; drawn from torch's own generator.

    base: the name that the model was loaded by. modules_to_save: modules that are trained whole, such as a new head.

    Raises:
        FieldMistake: peft finds none of the target modules, or does not take these settings.
    """
    settings = {k: v for k, v in asdict(lora).items() if k != "quantize"}
    task = "CAUSAL_LM" if hasattr(model, "lm_head") else "SEQ_CLS"
    try:
        return Adapters(_peft(model, LoraConfig(task_type=task, modules_to_save=modules_to_save, **settings)), base)
    except ValueError as error:
        raise FieldMistake("lora", str(error).splitlines()[0]) from None


def base_of(folder: Path) -> str:
    """The name of the base that a folder of adapters was trained on.

    Raises:
        FieldMistake: the adapters are pickled, or the base now holds other weights.
    """
    if not (folder / WEIGHTS).is_file():
        raise FieldMistake("model", f"{folder} cannot be loaded: it has no {WEIGHTS} (pickled adapters are not read)")
    base, record = str(PeftConfig.from_pretrained(str(folder)).base_model_name_or_path), folder / "base.json"
    if record.is_file():
        wanted, now = json.loads(record.read_text(encoding="utf-8"))["content"], content_hash(base)
        if wanted and now and wanted != now:
            raise FieldMistake("model", f"{folder}: these adapters were trained on another base than {base} now holds")
    return base


def read_adapters(model: PreTrainedModel, folder: Path, base: str) -> Adapters:
    """The adapters of a folder on their base.

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
    """A name for what a local model's folder holds; of the hub's, and of one that is gone, ''."""
    folder, digest = Path(base), hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("config.json")]) if folder.is_dir() else []:
        with open(file, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16] if folder.is_dir() else ""


def _layers(peft: PeftModel) -> list[Any]:
    return [m for m in peft.modules() if hasattr(m, "lora_dropout")]
