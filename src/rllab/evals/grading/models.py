"""Language models that are submitted: whole models, and adapters on the assignment's base.

Their weights are read from safetensors, and no code that came with them runs. A generation config has no say.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rllab.core.errors import FieldMistake, Mistake
from rllab.core.files import read_json
from rllab.evals.grading.part import Place, Row

if TYPE_CHECKING:
    from torch import Tensor

    from rllab.text.models import Head, LanguageModel


def open_submitted(place: Place, head: "Head" = "lm") -> "LanguageModel":
    """Opens a submitted model on the fastest device. Adapters are merged into the assignment's base.

    head: as of `rllab.text.load.load_base`. For a reward head the base is opened anew, and fp32 is kept on a GPU.

    Raises:
        Mistake: the model cannot be used; the message names no path of the grader's.
    """
    import torch

    from rllab.text.models import without_generation_config
    from rllab.text.open import open_model, open_on_base

    at = place_of_model(place)
    try:
        if at.kind == "adapter":
            if at.base is None:
                raise Mistake("these are adapters, and the assignment names no base: submit the merged model")
            base_model = at.base if head == "lm" else open_model(at.base.name, head=head)
            lm = open_on_base(str(at.path), base_model)
        else:
            lm = open_model(str(at.path), head=head)
    except FieldMistake as error:
        base = at.base.name if at.base else str(at.path)
        raise Mistake(str(error).replace(str(at.path), at.path.name).replace(base, "the assignment's base")) from None
    if torch.cuda.is_available():
        dtype = torch.bfloat16 if head == "lm" and torch.cuda.is_bf16_supported() else torch.float32
        torch.nn.Module.to(lm.model, "cuda", dtype)
    return without_generation_config(lm)


def warm_up(lm: "LanguageModel | None") -> None:
    """Compiles what sampling on a CPU needs, before processes are forked that may not write the compiler's cache.

    lm: a model that is open; None to make a small one.
    """
    from rllab.text.models import new_model
    from rllab.text.sampler import Sampling, generate
    from rllab.text.tokenizers import word_tokenizer

    shape = {"model_type": "qwen3", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "head_dim": 4}
    lm = lm or new_model(shape | {"num_attention_heads": 2, "num_key_value_heads": 2}, word_tokenizer(["a"]))
    for prompts in ([[0, 0], [0]], [[0]]):  # arrays of one sequence have a layout of their own
        generate(lm, prompts, Sampling(max_new_tokens=2))


def place_of_model(place: Place) -> Place:
    """Returns where the model lies, and its kind: that of a run is in its newest checkpoint."""
    if place.kind != "run":
        return place
    from rllab.evals.grading.runs import model_folder_of

    folder = model_folder_of(place.path)
    return replace(place, path=folder, kind="adapter" if (folder / "adapter_config.json").is_file() else "model")


def inspect_model(place: Place) -> Row:
    """Returns `weights`, a hash of the values of all weights, and `flags`.

    Raises:
        Mistake: the weights are pickled, missing, empty, damaged, or not finite.
    """
    import torch

    at = place_of_model(place)
    digest, zero = hashlib.sha256(), True
    for name, tensor in _tensors(at.path):
        if tensor.is_floating_point() and not bool(_computable(tensor).isfinite().all()):
            raise Mistake(f"its weights are not finite: {name} has values that are NaN or infinite")
        zero = zero and ("lora_B" not in name or not bool(_computable(tensor).any()))
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    flags = []
    if at.kind == "adapter":
        if zero:
            flags.append(["zero", "its adapters change nothing: all their products are zero"])
        if other := _other_base(at):
            flags.append(["other base", other])
    flags += [["prompts", text] for text in _rewrites(at)]
    return {"weights": digest.hexdigest(), "flags": flags}


def _rewrites(place: Place) -> Iterator[str]:
    """Yields what rewrites prompts, other than in the base: a template or a tokenizer can write answers into them."""
    from rllab.text.load import load_tokenizer

    if place.base is None or not (place.path / "tokenizer_config.json").is_file():
        return
    own, base = load_tokenizer(str(place.path)), place.base.tokenizer
    if own.chat_template != base.chat_template:
        yield "its chat template is not the base's, and could write answers into prompts: read it"
    if _steps(own) != _steps(base):
        yield "its tokenizer changes texts otherwise than the base's, and could write answers into them: read it"


def _steps(words: Any) -> list[Any]:
    """What a tokenizer does to texts, but for its words: each step in JSON."""
    whole = words.backend_tokenizer
    steps = whole.normalizer, whole.pre_tokenizer, whole.post_processor, whole.decoder
    return [step and step.__getstate__() for step in steps]


def _computable(tensor: "Tensor") -> "Tensor":
    """Returns a tensor in fp32 where torch cannot compute in its type, as those of 8 bits."""
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() < 2 else tensor


def _tensors(folder: Path) -> "Iterator[tuple[str, Tensor]]":
    """Yields the tensors of the safetensors files in a folder by name."""
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
        why = f"they are pickled ({pickled[0]}), and a pickle can run code" if pickled else "there are none"
        raise Mistake(f"its weights cannot be read: {why}; save them with safe_serialization=True")
    count = 0
    for file in files:
        try:
            with safe_open(file, "pt") as opened:
                for name in sorted(opened.keys()):
                    count += 1
                    yield name, opened.get_tensor(name)
        except SafetensorError as error:
            raise Mistake(f"{file.name} is damaged ({error}): submit it again") from None
    if not count:
        raise Mistake("its weights are empty: there is no tensor in them")


def _other_base(place: Place) -> str:
    """Returns what the adapters say of their base where that is not the assignment's; "" otherwise.

    Raises:
        Mistake: they record other weights than the base has.
    """
    from rllab.text.adapters import weights_hash

    record = place.path / "base.json"
    if place.base is None:
        return ""
    if record.is_file():  # the lab writes it beside adapters
        content = read_json(record).get("content")
        if content and content != weights_hash(place.base.name):
            raise Mistake("its adapters were trained on another base than the assignment's, as their base.json records")
        return ""
    named: Any = read_json(place.path / "adapter_config.json").get("base_model_name_or_path")
    if isinstance(named, str) and Path(named).name == Path(place.base.name).name:
        return ""
    return f"its adapter_config.json names the base {str(named)[:200]!r}"
