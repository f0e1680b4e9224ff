"""Which families of models are tested with which methods: the data of tests/test_matrix.py and of a table in docs/.

A member is a tiny model of a family: transformers' architecture with what is particular to it, and the tokenizer and
chat template of its kind (tests/families.py).
"""

from dataclasses import dataclass, field
from typing import Any

METHODS = ("one turn", "three turns", "tools", "thinking", "DPO", "reward model", "GRPO")
PLAIN = "no chat template"
_NO_TOOLS, _NO_CALLS, _NO_HEAD = "template without tools", "template without calls", "no reward head in transformers"
MESSAGES = {  # what a refusal says, by its reason in the table
    PLAIN: "its tokenizer has no chat template, which conversations need: take its instruct version",
    _NO_TOOLS: r"its chat template does not render `tools` \(weather\): take a model whose template knows tools",
    _NO_CALLS: r"its chat template does not render `tool_calls` \(weather\): take a model whose template knows tools",
    _NO_HEAD: "transformers has no reward head for Mamba models",
}


@dataclass(frozen=True)
class Member:
    """A tiny model.

    name: of the family in the table. shape: its config in transformers. tokenizer: its kind in tests/families.py.
    native: whether the lab's own forward pass runs it. refused: the methods that are refused, each with the reason.
    thinking: where a message's thinking is read from by its template: "key" (and content), "content", or "".
    """

    name: str
    shape: dict[str, Any]
    tokenizer: str
    native: bool = False
    refused: dict[str, str] = field(default_factory=dict)
    thinking: str = "content"


_SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_LLAMA = {**_SIZE, "intermediate_size": 48, "num_key_value_heads": 2}
_GEMMA = {**_LLAMA, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 16}
_IMAGES = {
    "vision_config": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 28,
        "patch_size": 14,
    },
    "mm_tokens_per_image": 4,
    "image_token_index": 5,
    "boi_token_index": 6,
    "eoi_token_index": 7,
}
_TEXTS = {"refused": dict.fromkeys(("three turns", "tools", "thinking"), PLAIN), "thinking": ""}
_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
MEMBERS = {
    "gpt2": Member("GPT-2", {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4}, "gpt2", **_TEXTS),
    "llama3": Member("Llama 3", {"model_type": "llama", **_LLAMA}, "llama3", native=True),
    "llama3.1": Member("Llama 3.1", {"model_type": "llama", **_LLAMA, "rope_parameters": _ROPE}, "llama3", native=True),
    "mistral": Member("Mistral", {"model_type": "mistral", **_LLAMA, "sliding_window": None}, "mistral", native=True),
    "mistral-window": Member(
        "Mistral 0.1 (sliding window)",
        {"model_type": "mistral", **_LLAMA, "sliding_window": 8},
        "mixtral",
        refused={"tools": _NO_TOOLS},
    ),
    "gemma2": Member(
        "Gemma 2",
        {"model_type": "gemma2", **_GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        "gemma",
        refused={"tools": _NO_TOOLS},
    ),
    "gemma3": Member(
        "Gemma 3",
        {"model_type": "gemma3_text", **_GEMMA, "layer_types": ["sliding_attention", "full_attention"]},
        "gemma",
        refused={"tools": _NO_TOOLS},
    ),
    "gemma3-images": Member(
        "Gemma 3, a model of images and text",
        {"model_type": "gemma3", "text_config": {**_GEMMA, "sliding_window_pattern": 2}, **_IMAGES},
        "gemma",
        refused={"tools": _NO_TOOLS},
    ),
    "phi3": Member("Phi-3", {"model_type": "phi3", **_LLAMA}, "phi3", refused={"tools": _NO_TOOLS}),
    "qwen2.5": Member("Qwen 2.5", {"model_type": "qwen2", **_LLAMA}, "qwen2.5", native=True),
    "qwen3": Member("Qwen 3", {"model_type": "qwen3", **_LLAMA, "head_dim": 8}, "qwen3", native=True, thinking="key"),
    "qwen3-moe": Member(
        "Qwen3-MoE",
        {
            "model_type": "qwen3_moe",
            **_LLAMA,
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "norm_topk_prob": True,
            "tie_word_embeddings": True,
        },
        "qwen3",
        thinking="key",
    ),
    "mixtral": Member(
        "Mixtral",
        {"model_type": "mixtral", **_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2},
        "mixtral",
        refused={"tools": _NO_TOOLS},
    ),
    "smollm3": Member(
        "SmolLM3",
        {"model_type": "smollm3", **_LLAMA, "no_rope_layers": [1, 0]},
        "smollm3",
        refused={"tools": _NO_CALLS},
    ),
    "opt": Member("OPT", {"model_type": "opt", **_SIZE, "ffn_dim": 48, "word_embed_proj_dim": 16}, "opt", **_TEXTS),
    "bloom": Member("Bloom", {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 4}, "bloom", **_TEXTS),
    "mamba": Member(
        "Mamba",
        {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
        "gpt2",
        refused=_TEXTS["refused"] | {"reward model": _NO_HEAD},
        thinking="",
    ),
}


def table() -> str:
    """The matrix as a Markdown table: a row a family, a column a method."""
    heads = ["family", "forward pass", *(f"SFT, {m}" if m in METHODS[:4] else m for m in METHODS)]
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    for member in MEMBERS.values():
        cells = [f"no: {member.refused[m]}" if m in member.refused else "yes" for m in METHODS]
        if member.thinking == "content":
            cells[METHODS.index("thinking")] = "in the content"
        lines.append(" | ".join([member.name, "the lab's" if member.native else "transformers'", *cells]))
    return "\n".join(f"| {line} |" for line in lines)
