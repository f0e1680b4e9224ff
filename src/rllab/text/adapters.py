"""LoRA (Hu et al. 2021) with peft's layers: adapters on a frozen base model.

Only the adapters are trained, saved and loaded, in peft's own format. `base.json` beside them records the base that
they were trained on, and a hash of its weights: loading them onto other weights is an error. Folders that peft wrote
are read as well, with their own tokenizer, and with embeddings that were resized for its added tokens.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
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
from rllab.core.sharding import split_like
from rllab.text.folders import base_name
from rllab.text.lora import Lora
from rllab.text.snapshots import ADAPTERS, split

WEIGHTS = "adapter_model.safetensors"
_FIRST = "first"  # the name of the adapters that training began with
_TWICE = ".modules_to_save."
_NOISE = 0.05  # standard deviation


class Adapters(nn.Module):
    """The adapters of a model as a trainable part. Its state holds the adapters' weights alone, under peft's names."""

    weights_file = WEIGHTS

    def __init__(self, peft: PeftModel, base: str) -> None:
        super().__init__()
        self.peft, self.base, self._first = peft, base, False
        self.resized = False  # the embeddings have another size than the base's, and are saved, too
        self._dropout = _DropoutSeeds()
        for layer in _layers(peft):
            for key, dropout in layer.lora_dropout.items():
                if isinstance(dropout, nn.Dropout) and dropout.p > 0:
                    layer.lora_dropout[key] = RowDropout(dropout.p, self._dropout)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """The adapters' weights; with them the embeddings, where those are not of the base's size."""
        state: dict[str, Tensor] = get_peft_model_state_dict(self.peft, save_embedding_layers=self.resized)
        return state

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Loads a state that `state_dict` returned."""
        return set_peft_model_state_dict(self.peft, dict(state_dict))

    def seed_dropout(self, seeds: list[int], counts: list[int]) -> None:
        """Seeds the dropout masks of the next loss: a seed and the number of tokens of each row."""
        self._dropout.seeds, self._dropout.counts = seeds, counts

    @contextmanager
    def dropout_of(self, tokens: Tensor) -> Iterator[None]:
        """Context in which the inputs of layers are those of some tokens: indices [P] into the tokens of all rows."""
        self._dropout.tokens = tokens
        try:
            yield
        finally:
            self._dropout.tokens = None

    @property
    def dropout_active(self) -> bool:
        """Whether the next forward pass applies dropout: masks are seeded, and gradients are computed."""
        return self._dropout.active

    @contextmanager
    def off(self) -> Iterator[None]:
        """Context in which the model runs without its adapters."""
        with self.peft.disable_adapter():
            yield

    def keep_first(self) -> None:
        """Keeps a frozen copy of the present adapters for `as_begun`."""
        with _peft_warnings():
            self.peft.add_adapter(_FIRST, self.peft.peft_config["default"])
        present = {k: v.clone() for k, v in get_peft_model_state_dict(self.peft, save_embedding_layers=False).items()}
        set_peft_model_state_dict(self.peft, present, adapter_name=_FIRST)
        self.peft.set_adapter("default")
        self._first = True

    @contextmanager
    def as_begun(self) -> Iterator[None]:
        """Context with the model that training began with: the copy of `keep_first`, else without adapters."""
        if not self._first:
            with self.off():
                yield
            return
        self.peft.set_adapter(_FIRST, inference_mode=True)
        try:
            yield
        finally:
            self.peft.set_adapter("default")

    @contextmanager
    @torch.no_grad()
    def noise(self) -> Iterator[None]:
        """Context in which noise is added to the trained weights, so that new adapters change the outputs, too."""
        weights = [p for p in self.peft.parameters() if p.requires_grad]
        kept, generator = [p.clone() for p in weights], torch.Generator().manual_seed(0)
        try:
            for p in weights:
                p.add_(split_like(torch.randn(p.shape, generator=generator).to(p.dtype), p).to(p.device), alpha=_NOISE)
            yield
        finally:
            for p, before in zip(weights, kept, strict=True):
                p.copy_(before)

    def merged(self) -> PreTrainedModel:
        """The base with the adapters in its weights; they cannot be used apart any more.

        Tied embeddings that the adapters make different are no longer tied.
        """
        base: Any = self.peft.get_base_model()
        _untie(base)
        with _peft_warnings():
            model: Any = self.peft.merge_and_unload()
        embed, head = _ends(model)
        if head is not None and embed.weight.shape == head.weight.shape and model.config.tie_word_embeddings:
            if torch.equal(embed.weight, head.weight):
                head.weight = embed.weight
            else:
                model.config.tie_word_embeddings = False
        return model  # type: ignore[no-any-return]

    def write_files(self, folder: Path) -> None:
        """Writes the files beside the weights: peft's config, and `base.json` with the base's name and hash."""
        config = self.peft.peft_config["default"]
        config.base_model_name_or_path, config.revision = split(self.base)
        config.save_pretrained(str(folder))
        record = {"base": self.base, "content": weights_hash(self.base)}
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
    tokens: Tensor | None = None  # which of the tokens [P] a layer gets; None: all

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

        T: the tokens of all rows, in order, or those of `Adapters.dropout_of`. Returns x unchanged where no seeds are
        set or no gradient is computed.
        """
        if not self._rows.active:
            return x
        masks = []
        for seed, count in zip(self._rows.seeds, self._rows.counts, strict=True):
            generator = torch.Generator(x.device).manual_seed(seed * 8191 + self._layer)
            masks.append(torch.rand(count, x.shape[-1], generator=generator, device=x.device) >= self.p)
        mask = torch.cat(masks)
        mask = mask.view(x.shape) if self._rows.tokens is None else mask[self._rows.tokens]
        return x * mask / (1.0 - self.p)


def new_adapters(model: PreTrainedModel, lora: Lora, base: str, modules_to_save: list[str] | None = None) -> Adapters:
    """Puts new adapters on a model. They do not change its outputs before they are trained.

    Their weights are drawn from torch's global generator. base: the name that the model was loaded by.
    modules_to_save: more modules that are trained in full beside the adapters, such as a new head.

    Raises:
        FieldMistake: the model has none of the target modules, or peft rejects the settings.
    """
    settings = {k: v for k, v in asdict(lora).items() if k not in ("quantize", "create_new_adapter")}
    settings["modules_to_save"] = [*(lora.modules_to_save or []), *(modules_to_save or [])] or None
    names = [name for name, _ in model.named_modules()]
    missing = [n for n in lora.modules_to_save or [] if not any(f".{name}".endswith(f".{n}") for name in names)]
    if missing:
        raise FieldMistake("lora", f"modules_to_save: the model has no module named {missing[0]!r}")
    task = "CAUSAL_LM" if hasattr(model, "lm_head") else "SEQ_CLS"
    try:
        return Adapters(_peft(model, LoraConfig(task_type=task, **settings)), base)
    except (ValueError, TypeError) as error:
        raise FieldMistake("lora", str(error).splitlines()[0]) from None


def base_of(folder: Path) -> str:
    """The name of the base model that a folder of adapters was trained on.

    Raises:
        FieldMistake: the adapters are pickled or not LoRA, or the base's weights have changed since.
    """
    if not (folder / WEIGHTS).is_file():
        raise FieldMistake("model", f"{folder} cannot be loaded: it has no {WEIGHTS} (pickled adapters are not read)")
    config_of(folder)  # refuses what is no LoRA
    record = folder / "base.json"
    base = base_name(folder / ADAPTERS)
    if record.is_file():
        wanted, now = json.loads(record.read_text(encoding="utf-8"))["content"], weights_hash(base)
        if wanted and now and wanted != now:
            raise FieldMistake("model", f"{folder}: these adapters were trained on other weights than {base} now holds")
    return base


def config_of(folder: Path) -> LoraConfig:
    """peft's config of a folder of adapters.

    Raises:
        FieldMistake: peft cannot read it, or the adapters are not LoRA.
    """
    with _peft_mistakes(folder):
        config = PeftConfig.from_pretrained(str(folder))
    kind = "aLoRA" if getattr(config, "alora_invocation_tokens", None) else str(config.peft_type).split(".")[-1]
    if kind != "LORA" or not isinstance(config, LoraConfig):
        raise FieldMistake(
            "model",
            f"{folder}: its adapters are of the kind {kind}, and only LoRA is read; merge them into their base with "
            "peft's merge_and_unload, and name that folder",
        )
    return config


@contextmanager
def _peft_mistakes(folder: Path) -> Iterator[None]:
    """Turns the errors that peft has with a config of any content into a FieldMistake."""
    try:
        yield
    except (FieldMistake, MemoryError):
        raise
    except Exception as error:  # of any kind: a number may be a text, and a pattern no regular expression
        if "allocate memory" in str(error):
            raise
        why = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise FieldMistake("model", f"{folder}: peft cannot use its adapter_config.json: {why}") from None


def read_adapters(model: PreTrainedModel, folder: Path, base: str, new_tokens: Sequence[int] = ()) -> Adapters:
    """Puts the adapters of a folder on their base model, whose embeddings get the size that they have in the folder.

    new_tokens: those whose embeddings are not the base's; the folder must hold them.

    Raises:
        FieldMistake: they do not fit this base.
    """
    config, stored = config_of(folder), load_file(folder / WEIGHTS)
    again = {k for k in stored if k.replace(_TWICE, ".") in stored and _TWICE in k}  # peft writes such weights twice
    weights = {k: v for k, v in stored.items() if k not in again}
    config.inference_mode = False
    _fit_embeddings(model, weights, config, folder, new_tokens)
    with _peft_mistakes(folder):
        adapters = Adapters(_peft(model, config), base)
    trained = {name for name, p in adapters.peft.named_parameters() if p.requires_grad}
    try:
        loaded = adapters.load_state_dict(weights)
    except (RuntimeError, KeyError):  # of another size, or without modules that are trained in full
        loaded = None
    if loaded is None or loaded.unexpected_keys or trained & set(loaded.missing_keys):
        raise FieldMistake("model", f"{folder}: its adapters do not fit {base}; they were trained on another base")
    adapters.resized = bool(set(weights) - set(adapters.state_dict()))
    return adapters


def _fit_embeddings(
    model: PreTrainedModel, weights: dict[str, Tensor], config: LoraConfig, folder: Path, new_tokens: Sequence[int]
) -> None:
    """Gives the embeddings the number of rows that `weights` have, and checks that they hold all new tokens.

    Raises:
        FieldMistake: a new token has no trained embedding.
    """
    names, rows = embedding_names(model), dict[str, int]()
    for key, weight in weights.items():
        name = next((n for n in names if key.startswith(f"base_model.model.{n}.")), None)
        if name and key.endswith(".weight") and "lora_" not in key:
            rows[name] = len(weight)
    if rows:
        with torch.random.fork_rng(devices=[]), _peft_warnings():
            model.resize_token_embeddings(max(rows.values()), mean_resizing=False)
    learned = config.trainable_token_indices or []
    missing = [n for n in names if n not in rows and not set(new_tokens) <= set(_of_module(learned, n))]
    if new_tokens and missing:
        raise FieldMistake(
            "model",
            f"{folder}: its tokenizer has {len(new_tokens)} tokens that the base does not have, and its adapters hold "
            f"no weights of {missing[0]} for them; merge them where they were trained, and save the whole model",
        )


def _of_module(learned: Any, name: str) -> list[int]:
    """The indices of peft's `trainable_token_indices` for a module: a list for all, or one for each name."""
    if isinstance(learned, Mapping):
        return next((list(v) for k, v in learned.items() if name.split(".")[-1] == k.split(".")[-1]), [])
    return list(learned)


def embedding_names(model: PreTrainedModel) -> list[str]:
    """The names of the modules that have a row for each token: the embeddings, and the head if it is not tied."""
    embed, head = _ends(model)
    tied = head is None or head.weight is embed.weight
    return [name for name, m in model.named_modules() if m is embed or (m is head and not tied)]


def _ends(model: Any) -> tuple[Any, Any]:
    return model.get_input_embeddings(), model.get_output_embeddings()


def _untie(model: PreTrainedModel) -> None:
    """Gives the head weights of its own where it shares them with the embeddings, and adapters are on one of them."""
    embed, head = _ends(model)
    if head is None or (type(embed) is nn.Embedding and type(head) is nn.Linear):
        return
    shared = {id(p) for p in embed.parameters()}
    for module in head.modules():
        weight = module._parameters.get("weight")
        if weight is not None and id(weight) in shared:
            module.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)


def _peft(model: PreTrainedModel, config: PeftConfig) -> Any:
    with _peft_warnings():
        return get_peft_model(model, config)


@contextmanager
def _peft_warnings() -> Iterator[None]:
    """Hides warnings of peft that do not concern the user."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # peft's own call
        warnings.filterwarnings("ignore", "(?s).*tie_word_embeddings")  # `merged` unties embeddings
        warnings.filterwarnings("ignore", "(?s).*embeddings are no longer tied")
        yield


def weights_hash(base: str) -> str:
    """A hash of the weights and config in a local model folder; '' for a name that is no folder here."""
    folder, digest = Path(base), hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("config.json")]) if folder.is_dir() else []:
        with open(file, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16] if folder.is_dir() else ""


def _layers(peft: PeftModel) -> list[Any]:
    return [m for m in peft.modules() if hasattr(m, "lora_dropout")]
