"""Loads a language model and its tokenizer from a Hugging Face folder or from the hub.

Weights are read from safetensors only, and no code that came with a model is run.
"""

import importlib.util
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from rllab.core.errors import FieldMistake
from rllab.core.run import RunFolder
from rllab.text.channels import HARMONY
from rllab.text.models import HEADS, Head, LanguageModel, native_shape
from rllab.text.published import with_published_names
from rllab.text.snapshots import located
from rllab.text.template_process import checked_template
from rllab.text.tokenizers import CHAT


def load_base(
    name: str,
    *,
    head: Head = "lm",
    dtype: torch.dtype = torch.float32,
    quantize: bool = False,
    tokenizer: str = "",
    grow: bool = False,
) -> LanguageModel:
    """Loads the model in a folder, or of a name on the hub. The folder must hold a whole model, not adapters.

    head: "lm" for next-token logits, "reward" for one score a token. A folder without a reward head gets a new one,
    drawn from torch's global generator. dtype: of the weights. quantize: 4-bit weights (nf4). tokenizer: the folder
    of another tokenizer. grow: tokens that the model has no embeddings for get new ones, as transformers draws them.

    Raises:
        FieldMistake: there is no such model, its weights are not safetensors, or its tokenizer cannot be used.
    """
    folder = located(name)
    check_folder(name, folder)
    more = (_quantized() if quantize else {}) | read_generation_config(name, folder)
    written_in = tokenizer or name
    words = load_tokenizer(written_in)
    with foreign_template(words, written_in), as_mistakes(name), quietly():
        more |= {"use_safetensors": True, "trust_remote_code": False, "output_loading_info": True}
        model, loading = HEADS[head].from_pretrained(folder, config=config_of(folder, head), dtype=dtype, **more)
    model.name_or_path = name  # peft records it as the base of adapters
    _check_weights(name, model, sorted(loading["missing_keys"]), head)
    new_tokens = fit_tokenizer(model, words, name, grow)
    return LanguageModel(with_published_names(model), words, name, native_shape(model), new_tokens=new_tokens)


def config_of(folder: Path, head: Head) -> Any:
    """The config of a model. It does not say how attention is computed: it could name code on the hub."""
    labels = {} if head == "lm" else {"num_labels": 1}
    config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False, **labels)
    config._attn_implementation = config._experts_implementation = None
    return config


def fit_tokenizer(model: Any, words: PreTrainedTokenizerFast, name: str, grow: bool) -> range:
    """Gives a model an embedding for each token, and returns the tokens that are new. The arguments: `load_base`.

    Raises:
        FieldMistake: there are new tokens, and `grow` is False.
    """
    model.config.pad_token_id = words.pad_token_id
    new_tokens = range(model.get_input_embeddings().weight.shape[0], len(words))
    if new_tokens and not grow:
        raise FieldMistake("model", f"{name}: its tokenizer has {len(words)} tokens, and the model embeddings for "
                           f"{new_tokens.start}; train it first, or save it resized")  # fmt: skip
    if new_tokens:
        with quietly():
            model.resize_token_embeddings(len(words))
    return new_tokens


def foreign_template(words: PreTrainedTokenizerFast, name: str) -> AbstractContextManager[None]:
    """Context in which a chat template that is not the lab's is tried in a process of its own."""
    return checked_template(words, name) if words.chat_template not in (None, CHAT, HARMONY) else nullcontext()


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Loads the tokenizer in a folder, or of a name on the hub.

    Raises:
        FieldMistake: there is none, or it cannot be used.
    """
    folder = located(name, weights=False)
    with as_mistakes(name), quietly():
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    _check_tokenizer(name, tokenizer)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return tokenizer


def check_folder(name: str, folder: Path) -> None:
    """Raises a FieldMistake that names what the folder of a model lacks."""
    quantized = name if name.endswith(".gguf") else next(iter(sorted(map(str, folder.glob("*.gguf")))), "")
    if quantized and not (folder / "config.json").is_file():
        raise FieldMistake(
            "model",
            f"{quantized} is a GGUF file, and a Hugging Face folder is needed: take the model that the file was made "
            "from, or convert it as docs/language-models.md shows",
        )
    if not folder.is_dir():
        raise FieldMistake("model", f"{name} cannot be loaded: there is no such folder")
    above = folder.resolve().parents[1:3]  # the second where the model is one of several parts
    run = next((RunFolder(path) for path in above if (path / "recipe.yaml").is_file()), None)
    if not (folder / "config.json").is_file() and run is not None:
        raise FieldMistake("model", f"{run.path} is a run of {run.plain()['algo']} and holds no language model")
    if not (folder / "config.json").is_file():
        raise FieldMistake("model", f"{name} cannot be loaded: it has no config.json, so it is not a model folder")
    if not list(folder.glob("*.safetensors")):
        pickled = [p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(pattern)]
        why = f"its weights are pickled ({pickled[0]}), and a pickle can run code" if pickled else "it has no weights"
        raise FieldMistake("model", f"{name} cannot be loaded: {why}; save it with safe_serialization=True")
    _check_index(folder / "model.safetensors.index.json")


def _check_index(path: Path) -> None:
    """Raises a FieldMistake where weights would be read from other files than the folder's safetensors files."""
    if not path.is_file():
        return
    try:
        named = set(json.loads(path.read_bytes())["weight_map"].values())
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        why = "it is no index of weights, which has a weight_map of files"
    else:
        own = {file.name for file in path.parent.glob("*.safetensors")}
        if named <= own:
            return
        other = next(iter(named - own))
        why = f"it names {str(other)[:200]!r}, which is no safetensors file of the folder"
    raise FieldMistake("model", f"{path}: {why}; save the model again with save_pretrained")


def _check_weights(name: str, model: PreTrainedModel, missing: list[str], head: Head) -> None:
    """Raises a FieldMistake where weights are missing, which transformers draws at random. A reward head may be new."""
    if head == "reward":
        missing = [key for key in missing if key.startswith(f"{model.base_model_prefix}.")]
    if missing:
        more = f" and {len(missing) - 1} others" if missing[1:] else ""
        raise FieldMistake("model", f"{name} cannot be loaded: its weights lack {missing[0]}{more}")


def read_generation_config(name: str, folder: Path) -> dict[str, Any]:
    """Arguments of `from_pretrained` where the generation config of a model cannot be read, and so is ignored."""
    try:
        GenerationConfig.from_pretrained(folder)
    except OSError:  # there is none, or it is not JSON: transformers ignores it, too
        return {}
    except Exception as error:
        warnings.warn(f"{name}: its generation_config.json is ignored: {_reason(error)}", stacklevel=2)
        return {"generation_config": GenerationConfig()}  # type: ignore[no-untyped-call]
    return {}


def _quantized() -> dict[str, Any]:
    """Arguments of `from_pretrained` for 4-bit weights (QLoRA, Dettmers et al. 2023).

    Raises:
        FieldMistake: there is no GPU, or bitsandbytes is not installed.
    """
    if not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None:
        missing = "bitsandbytes, which is not installed" if torch.cuda.is_available() else "a GPU, and torch finds none"
        raise FieldMistake("lora", f"quantize: nf4 needs {missing}; use quantize: none")
    four = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": four}


@contextmanager
def as_mistakes(name: str) -> Iterator[None]:
    """Turns any error of transformers into a FieldMistake of the field `model`."""
    try:
        yield
    except Exception as error:
        raise FieldMistake("model", f"{name} cannot be loaded: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    unknown = re.search(r"Unrecognized configuration class <class '[\w.]*\.(\w+)Config'> .* AutoModel: (\w+)", lines[0])
    if unknown:
        head = "reward head" if "Classification" in unknown[2] else "head for next tokens"
        return f"transformers has no {head} for {unknown[1]} models ({unknown[2]}); take another architecture"
    if "backend tokenizer" in str(error):
        return "it has no tokenizer.json; save its tokenizer in the same folder"
    if type(error).__name__ == "SafetensorError":
        return f"a safetensors file is damaged ({lines[0]}); copy or download it again"
    if "ignore_mismatched_sizes" in str(error):
        return "its weights have other shapes than its config.json says"
    if "trust_remote_code" in str(error):
        return "it needs code that came with it, and such code is not run here"
    if isinstance(error, MemoryError) or "allocate memory" in lines[0]:
        return "it needs more memory than it may use; compare the sizes in its config.json with those of its weights"
    if isinstance(error, ImportError):
        return f"it needs a library that is not installed here ({lines[0]}); save it without quantization"
    if isinstance(error, OSError) or (isinstance(error, ValueError) and not lines[0].endswith(":")):
        return lines[0]
    what = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return (
        f"its files do not describe a model ({type(error).__name__}: {what}); compare its config.json with that of a "
        "model of the same kind, or save it again with save_pretrained"
    )


@contextmanager
def quietly() -> Iterator[None]:
    """Context that turns off transformers' progress bar and its warnings, such as the one about a new head."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _check_tokenizer(name: str, tokenizer: Any) -> None:
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise FieldMistake("model", f"{name}: its tokenizer has no tokenizer.json; only fast tokenizers are read")
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):  # transformers makes one without words
        raise FieldMistake("model", f"{name}: it has no tokenizer.json; save its tokenizer in the same folder")
    if tokenizer.eos_token_id is None:
        raise FieldMistake("model", f"{name}: its tokenizer has no eos_token, so no completion could end; set it in "
                           "tokenizer_config.json")  # fmt: skip
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
