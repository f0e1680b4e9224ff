"""Language models and their tokenizers: made on the spot, or loaded from a folder or a hub.

A model is an ordinary Hugging Face folder: safetensors alone, and no code that came with it is run.
"""

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from rllab.core.algorithm import Batch, Context
from rllab.core.errors import FieldMistake
from rllab.text.attention import Packed
from rllab.text.chat import checked_template
from rllab.text.forward import Shape, hidden_states
from rllab.text.packing import sequences
from rllab.text.tokenizers import CHAT

if TYPE_CHECKING:
    from rllab.text.adapters import Adapters

Head = Literal["lm", "reward"]
HEADS: dict[Head, Any] = {"lm": AutoModelForCausalLM, "reward": AutoModelForSequenceClassification}


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model and its tokenizer.

    name: what it was loaded by. shape: what our own forward pass needs to know of it; None: transformers' is used.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    name: str = ""
    shape: Shape | None = None
    adapters: "Adapters | None" = None

    @property
    def part(self) -> nn.Module:
        """What is trained and saved: the adapters where there are any, else the model."""
        return self.adapters or self.model

    def compute_again(self) -> None:
        """Gradient checkpointing: layers keep nothing for the way back, and are computed again there."""
        enable = getattr(self.model, "activation_checkpointing_enable", None)  # transformers' name since 5.20
        (enable or self.model.gradient_checkpointing_enable)()
        for layer in self.model.modules():
            if hasattr(layer, "gradient_checkpointing"):
                layer.training = True  # transformers asks for it; what is in the layer does not drop anything out

    def drop_out(self, batch: Batch) -> None:
        """Lets the adapters' dropout draw from a packed batch's `noise`, a number for each row."""
        if self.adapters is None:
            return
        if self.shape is not None:
            self.adapters.seed(batch["noise"].tolist(), (batch["document"] >= 0).sum(1).tolist())
        else:  # transformers gets each completion in a row of its own, padded to the longest
            places = sequences(batch)
            row = places[:, 0] // batch["document"].shape[1]
            seeds = batch["noise"][row] * 64 + batch["completion"].flatten()[places.amax(1)]
            self.adapters.seed(seeds.tolist(), [places.shape[1]] * len(places))

    def write_files(self, folder: Path) -> None:
        """Writes what stands beside the weights in a Hugging Face folder: config, tokenizer, chat template."""
        self.tokenizer.save_pretrained(folder)
        if self.adapters is not None:
            self.adapters.write_files(folder)
            return
        self.model.config.architectures = [type(self.model).__name__]  # other programs choose their class by it
        self.model.config.save_pretrained(folder)
        if getattr(self.model, "generation_config", None) is not None:
            self.model.generation_config.save_pretrained(folder)


@dataclass(kw_only=True, frozen=True)
class Lora:
    """peft's settings, by peft's names."""

    r: int = 8
    lora_alpha: int = 16  # adapters count lora_alpha / r times (with use_rslora: lora_alpha / sqrt(r))
    target_modules: str | list[str] = "all-linear"
    lora_dropout: float = 0.0
    use_dora: bool = False  # Liu et al. 2024
    use_rslora: bool = False  # Kalajdzievski 2023
    quantize: Literal["none", "nf4"] = "none"  # of the base (QLoRA); needs a GPU and bitsandbytes

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ValueError(f"r must be at least 1, got {self.r}")
        if not 0.0 <= self.lora_dropout < 1.0:
            raise ValueError(f"lora_dropout must be at least 0 and below 1, got {self.lora_dropout}")


def open_model(
    name: str,
    shape: dict[str, Any],
    lora: Lora | None,
    tokenizer: Callable[[], PreTrainedTokenizerFast],
    ctx: Context,
    *,
    head: Head = "lm",
) -> LanguageModel:
    """The model that a recipe names, or a new one of `shape` with `tokenizer()`, on the run's device.

    With `lora` it gets new adapters, and its own weights are kept in bf16 on a GPU that multiplies it.
    """
    frozen = torch.bfloat16 if lora and ctx.device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if shape:
        lm = make(shape, tokenizer(), head=head)
    else:
        lm = load(name, head=head, dtype=frozen, quantize=lora is not None and lora.quantize != "none")
    if lora is None or lora.quantize == "none":
        nn.Module.to(lm.model, ctx.device)
    if lora is None:
        return lm
    from rllab.text.adapters import adapt

    ctx.seed_torch("adapters")
    return adapt(lm, lora, also=["score"] if head == "reward" else None)


def make(shape: dict[str, Any], tokenizer: PreTrainedTokenizerFast, *, head: Head = "lm") -> LanguageModel:
    """A new model, of transformers' architecture `model_type` with the other settings of `shape`.

    Its weights are drawn from torch's own generator.

    Raises:
        FieldMistake: transformers knows no such architecture, or does not take these settings.
    """
    shape = dict(shape)
    try:
        config = AutoConfig.for_model(
            shape.pop("model_type"),
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            **({} if head == "lm" else {"num_labels": 1}),
            **shape,
        )
        model = HEADS[head].from_config(config, dtype=torch.float32)
    except (KeyError, ValueError, TypeError) as error:
        raise FieldMistake("shape", f"transformers cannot make this model: {error}") from None
    return LanguageModel(model.train(False), tokenizer, shape=native_shape(model))


def load(name: str, *, head: Head = "lm", dtype: torch.dtype = torch.float32, quantize: bool = False) -> LanguageModel:
    """The model in a folder, or of that name on the hub; adapters are merged into the base that they name.

    head: "lm", or "reward" for one number a token (`score`), newly drawn where the folder has none.

    Raises:
        FieldMistake: there is none, its weights are not safetensors, or its tokenizer cannot be used.
    """
    if (Path(name) / "adapter_config.json").is_file():
        from rllab.text.adapters import merged  # peft is imported where adapters are

        return merged(name, head=head, dtype=dtype)
    _check_folder(name)
    more: dict[str, Any] = {} if head == "lm" else {"num_labels": 1}
    if quantize:
        more |= _quantized()
    with _told(name), _quietly():
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    _check_tokenizer(name, tokenizer)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    foreign = tokenizer.chat_template is not None and tokenizer.chat_template != CHAT
    with checked_template(tokenizer, name) if foreign else nullcontext(), _told(name), _quietly():
        model = HEADS[head].from_pretrained(name, use_safetensors=True, trust_remote_code=False, dtype=dtype, **more)
    model.config.pad_token_id = tokenizer.pad_token_id
    return LanguageModel(model, tokenizer, name, native_shape(model))


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Whatever a broken folder makes transformers raise, as a mistake of whoever named it."""
    try:
        yield
    except Exception as error:
        raise FieldMistake("model", f"{name} cannot be loaded: {_reason(name, error)}") from None


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' progress bar, and its warning of a head that is new."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def native_shape(model: PreTrainedModel) -> Shape | None:
    """What our own forward pass needs to know of a model; None where it cannot run it, and transformers' does.

    A model that looks known is tried on a few tokens: where its outputs are not transformers', it is not trusted.
    """
    shape = Shape.of(model)
    if shape is None:
        return None
    position = torch.arange(16, device=model.device)
    ids = position * 7919 % model.config.vocab_size
    alone = Packed(torch.ones_like(position[None], dtype=torch.bool), (position[:, None] >= position)[None, None])
    with torch.no_grad():
        hidden = hidden_states(model, shape, ids, position, alone)
        ours = model.lm_head(hidden) if hasattr(model, "lm_head") else hidden
        theirs = (
            model(ids[None], use_cache=False).logits[0] if hasattr(model, "lm_head") else model.model(ids[None])[0][0]
        )
    largest = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-9))
    if largest > (1e-3 if theirs.dtype == torch.float32 else 5e-2):
        warnings.warn(
            f"{model.config.model_type}: our forward pass differs from transformers' by {largest:.1%} of the largest "
            "output; transformers' own is used, which is slower",
            stacklevel=2,
        )
        return None
    return shape


def _check_folder(name: str) -> None:
    """Says what a local folder lacks, in fewer words than transformers does."""
    folder = Path(name)
    if not folder.is_dir():
        if folder.is_absolute() or name.startswith("."):
            raise FieldMistake("model", f"{name} cannot be loaded: there is no such folder")
        return
    if not (folder / "config.json").is_file():
        raise FieldMistake("model", f"{name} cannot be loaded: it has no config.json, so it is no model's folder")
    if not list(folder.glob("*.safetensors")):
        pickled = [p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(pattern)]
        why = f"its weights are pickled ({pickled[0]}), and a pickle can run code" if pickled else "it has no weights"
        raise FieldMistake("model", f"{name} cannot be loaded: {why}; save it with safe_serialization=True")


def _reason(name: str, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if not Path(name).is_dir() and ("connect" in str(error).lower() or "offline" in str(error).lower()):
        return (
            "there is no such folder, it is not in the hub's cache, and the hub does not answer; "
            f"on a cluster fetch it first on a node that has a network: hf download {name}"
        )
    if "trust_remote_code" in str(error):
        return "it needs code that came with it, which is not run here"
    return lines[0]


def _check_tokenizer(name: str, tokenizer: Any) -> None:
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise FieldMistake("model", f"{name}: its tokenizer has no tokenizer.json; only fast tokenizers are read")
    if tokenizer.eos_token_id is None:
        raise FieldMistake("model", f"{name}: its tokenizer has no eos_token, so no completion could end; set one in "
                           "tokenizer_config.json")  # fmt: skip
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token


def _quantized() -> dict[str, Any]:
    """Weights in four bits (QLoRA, Dettmers et al. 2023)."""
    if not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None:
        missing = "a GPU, and torch sees none here" if not torch.cuda.is_available() else "bitsandbytes, not installed"
        raise FieldMistake("lora", f"quantize: nf4 needs {missing}; use quantize: none")
    four = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": four}
