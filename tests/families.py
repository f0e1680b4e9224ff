"""Tiny tokenizers of the kinds that published models have, with chat templates that behave as those of their families.

`tokenizer("gemma")` is one. `turns(name, messages)` writes a family's conversation by hand, without its template: the
pieces of its text, each with whether the assistant writes it.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from rllab.core.harmony import SPECIALS

TEXTS = [
    "What is 0 plus 1? The answer is 1.\nAnd plus 2? It is 2. Hello there, I am fine, how are you?\n\n",
    "How is the weather of the city? The sun is out. we add the numbers. You are a helpful assistant.\n",
    '{"name": "weather", "arguments": {"city": "Paris"}} {"type": "function", "function": {"description": "x"}}\n',
]
Kind = Literal["gpt2", "bytes", "metaspace", "gemma"]
# how the byte-level tokenizers after GPT-2's split a text: line ends stay together, also before a word
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)

_TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\\n# Tools\\n<tools>' }}{% for t in tools %}{{ '\\n' + t | tojson }}"
    "{% endfor %}{{ '\\n</tools><|im_end|>\\n' }}{% endif %}"
)
_CALLS = (
    "{% for c in m.tool_calls or [] %}{% if c.function %}{% set c = c.function %}{% endif %}"
    "{% if m.content or not loop.first %}{{ '\\n' }}{% endif %}{{ '<tool_call>\\n{\"name\": \"' + c.name + "
    "'\", \"arguments\": ' }}{{ c.arguments | tojson }}{{ '}\\n</tool_call>' }}{% endfor %}"
)
_RESULT = (  # results of tools that follow each other are one turn of the user
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}"
    "{{ '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}"
)
_START = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
_SYSTEM = "<|im_start|>system\nYou are Qwen.<|im_end|>\n"  # where a conversation has no system message of its own
CHATML = (
    _TOOLS
    + "{% if not tools and messages[0].role != 'system' %}{{ '"
    + _SYSTEM.replace("\n", "\\n")
    + "' }}{% endif %}"
    + "{% for m in messages %}{% if m.role == 'tool' %}"
    + _RESULT
    + "{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}"
    + _CALLS
    + "{{ '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    + _START
)
# thinking is kept behind the last user's message only; there it is rendered even where it is empty
QWEN3 = (
    _TOOLS
    + "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    + "{% endif %}{% endfor %}{% for m in messages %}{% if m.role == 'tool' %}"
    + _RESULT
    + "{% elif m.role == 'assistant' %}{% set thought = m.reasoning_content or '' %}{% set content = m.content %}"
    + "{% if not thought and '</think>' in content %}"
    + "{% set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}"
    + "{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}{{ '<|im_start|>assistant\\n' }}"
    + "{% if loop.index0 > ns.last and (loop.last or thought) %}"
    + "{{ '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}"
    + "{% else %}{{ content }}{% endif %}"
    + _CALLS
    + "{{ '<|im_end|>\\n' }}{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}"
    + "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    + "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    + "{% endif %}"
)
LLAMA3 = (  # writes tools into the first message, and takes one call at once
    "{{ bos_token }}{% for m in messages %}{% if m.tool_calls %}"
    "{% if m.tool_calls | length != 1 %}{{ raise_exception('one call at once') }}{% endif %}"
    "{% set c = m.tool_calls[0].function %}"
    '{{ \'<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "\' + c.name'
    " + '\", \"parameters\": ' }}{{ c.arguments | tojson }}{{ '}<|eot_id|>' }}{% elif m.role == 'tool' %}"
    "{{ '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}{{ m.content | tojson }}{{ '<|eot_id|>' }}{% else %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}{% if tools and loop.first %}"
    "{% for t in tools %}{{ t | tojson + '\\n\\n' }}{% endfor %}"
    "{% endif %}{{ m.content | trim + '<|eot_id|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
GEMMA = (  # refuses what Gemma's refuses: a system message, and roles that do not alternate
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + m.content | trim "
    "+ '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
PHI3 = (  # a conversation that is not to be continued ends with the end of text
    "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)
MIXTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = (  # writes tools before the user's last message, and needs an id of nine characters of each call
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "{% if tools and loop.index0 == ns.last %}{{ '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' }}"
    "{% endif %}{{ '[INST] ' + m.content + '[/INST]' }}{% elif m.tool_calls %}{{ '[TOOL_CALLS] [' }}"
    "{% for c in m.tool_calls %}"
    "{% if c.id | default('') | length != 9 %}{{ raise_exception('an id has 9 characters') }}{% endif %}"
    "{{ (c.function | tojson)[:-1] + ', \"id\": \"' + c.id + '\"}' + ('' if loop.last else ', ') }}{% endfor %}"
    "{{ ']' + eos_token }}{% elif m.role == 'tool' %}"
    "{% if m.tool_call_id | default('') | length != 9 %}{{ raise_exception('an id has 9 characters') }}{% endif %}"
    "{{ '[TOOL_RESULTS] {\"content\": ' + m.content + ', \"call_id\": \"' + m.tool_call_id + '\"}[/TOOL_RESULTS]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}"
)
SMOLLM3 = (  # marks the whole turn of the assistant, with its header; renders tools, but no calls
    "{{ '<|im_start|>system\\nReasoning Mode: ' }}"
    "{{ '/no_think' if enable_thinking is defined and not enable_thinking else '/think' }}"
    "{% for t in tools or [] %}{{ '\\n' + t | tojson }}{% endfor %}{{ '<|im_end|>\\n' }}"
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n' }}{% endif %}"
    "{{ m.content.lstrip('\\n') + '<|im_end|>\\n' }}{% endgeneration %}{% else %}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n' }}{% endif %}{% endif %}"
)
MARKED = (  # marks what the assistant writes
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}{% else %}{{ m.content + '<|im_end|>\\n' }}{% endif %}"
    "{% endfor %}" + _START
)
R1 = (  # opens the thought in the generation prompt, and leaves the thinking out of all messages
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}"
    "{% elif m.role == 'assistant' %}{% set content = m.content.split('</think>')[-1] %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A tokenizer's kind, its chat template, and its special tokens.

    end: the text that ends a turn of the assistant. user, assistant: what stands before and behind a message of each.
    added: further tokens, which are not special. front: whether the tokenizer puts `bos` before a text.
    """

    template: str | None
    eos: str
    end: str = ""
    kind: Kind = "bytes"
    bos: str | None = None
    front: bool = True
    unk: str | None = None
    special: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    begin: str = ""
    user: tuple[str, str] = ("", "")
    assistant: tuple[str, str] = ("", "")


_IM: Any = {
    "special": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "added": ("<tool_call>", "</tool_call>", "<think>", "</think>"),
    "user": ("<|im_start|>user\n", "<|im_end|>\n"),
    "assistant": ("<|im_start|>assistant\n", "\n"),
    "end": "<|im_end|>",
}
_MISTRALS = ("INST", "AVAILABLE_TOOLS", "TOOL_RESULTS")
FAMILIES = {
    "gpt2": Family(
        None,
        "<|endoftext|>",
        kind="gpt2",
        bos="<|endoftext|>",
        front=False,
        unk="<|endoftext|>",
        special=("<|endoftext|>",),
    ),
    "opt": Family(None, "</s>", kind="gpt2", bos="</s>", unk="</s>", special=("<s>", "<pad>", "</s>", "<unk>")),
    "bloom": Family(None, "</s>", bos="<s>", front=False, unk="<unk>", special=("<unk>", "<s>", "</s>", "<pad>")),
    "qwen2.5": Family(CHATML, "<|im_end|>", begin=_SYSTEM, **_IM),
    "qwen2.5-base": Family(CHATML, "<|endoftext|>", begin=_SYSTEM, unk="<|endoftext|>", **_IM),
    "qwen3": Family(QWEN3, "<|im_end|>", **_IM),
    "smollm3": Family(SMOLLM3, "<|im_end|>", begin="<|im_start|>system\nReasoning Mode: /think<|im_end|>\n", **_IM),
    "marked": Family(MARKED, "<|im_end|>", **_IM),
    "llama3": Family(
        LLAMA3,
        "<|eot_id|>",
        "<|eot_id|>",
        bos="<|begin_of_text|>",
        special=("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        begin="<|begin_of_text|>",
        user=("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),
        assistant=("<|start_header_id|>assistant<|end_header_id|>\n\n", ""),
    ),
    "llama3-base": Family(
        None, "<|end_of_text|>", bos="<|begin_of_text|>", special=("<|begin_of_text|>", "<|end_of_text|>")
    ),
    "gemma": Family(
        GEMMA,
        "<eos>",
        "<end_of_turn>",
        kind="gemma",
        bos="<bos>",
        unk="<unk>",
        special=("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
        begin="<bos>",
        user=("<start_of_turn>user\n", "<end_of_turn>\n"),
        assistant=("<start_of_turn>model\n", "\n"),
    ),
    "phi3": Family(
        PHI3,
        "<|endoftext|>",
        "<|end|>",
        kind="metaspace",
        bos="<s>",
        front=False,
        unk="<unk>",
        special=("<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|user|>", "<|end|>"),
        user=("<|user|>\n", "<|end|>\n"),
        assistant=("<|assistant|>\n", "\n"),
    ),
    "mixtral": Family(
        MIXTRAL,
        "</s>",
        "</s>",
        kind="metaspace",
        bos="<s>",
        unk="<unk>",
        special=("<unk>", "<s>", "</s>"),
        begin="<s>",
        user=("[INST] ", " [/INST]"),
        assistant=("", ""),
    ),
    "mistral": Family(
        MISTRAL,
        "</s>",
        "</s>",
        kind="metaspace",
        bos="<s>",
        unk="<unk>",
        special=("<unk>", "<s>", "</s>", "[TOOL_CALLS]", *(f"[{a}{b}]" for a in ("", "/") for b in _MISTRALS)),
        begin="<s>",
        user=("[INST] ", "[/INST]"),
        assistant=("", ""),
    ),
    "gpt-oss": Family(
        None, "<|return|>", kind="bytes", special=("<|endoftext|>", *SPECIALS), begin="", end="<|return|>"
    ),
    "r1": Family(
        R1,
        "<｜end▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        bos="<｜begin▁of▁sentence｜>",
        special=("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
        added=("<think>", "</think>"),
        begin="<｜begin▁of▁sentence｜>",
        user=("<｜User｜>", ""),
        assistant=("<｜Assistant｜>", ""),
    ),
}
CHATS = [name for name, family in FAMILIES.items() if family.template]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}

USER = [{"role": "user", "content": text} for text in ("What is 0 plus 1?", "And plus 2?", "How are you?")]
SAYS = [{"role": "assistant", "content": text} for text in ("The answer is 1.", "It is 2.", "I am fine, thank you.")]
TALK = [message for pair in zip(USER, SAYS, strict=True) for message in pair]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
ASKS = [{"role": "user", "content": "How is Paris?"}, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
ANSWERS = [{"role": "tool", "content": '{"sun": true}'}, {"role": "assistant", "content": "The sun is out."}]
CALLING = [  # with what Mistral's template needs, an id of nine characters
    USER[0],
    {"role": "assistant", "content": "", "tool_calls": [{"id": "call00001", **CALL}]},
    {"role": "tool", "content": '{"sun": true}', "tool_call_id": "call00001"},
    *TALK[1:4],
]


@functools.cache
def _trained(kind: Kind) -> str:
    """The model and vocabulary of a kind of tokenizer, as JSON."""
    tokenizer = Tokenizer(models.BPE())
    if kind in ("gpt2", "bytes"):
        split: list[Any] = [pre_tokenizers.Split(Regex(_SPLIT), "isolated")] if kind == "bytes" else []
        split.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "gpt2"))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)  # type: ignore[assignment]
        trainer = trainers.BpeTrainer(
            vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
        tokenizer.train_from_iterator(TEXTS * 9, trainer)
        return str(tokenizer.to_str())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False, special_tokens=["<unk>"])
    tokenizer.train_from_iterator([text.replace("\n", " ") for text in TEXTS * 9], trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(learned["vocab"]) | {f"<0x{b:02X}>": len(learned["vocab"]) + b for b in range(256)}
    if kind == "gemma":
        vocabulary["\n"] = len(vocabulary)
    merges = [tuple(m) for m in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if kind == "gemma":
        tokenizer.normalizer = normalizers.Replace(" ", "▁")  # type: ignore[assignment]
    else:
        front = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        tokenizer.normalizer = normalizers.Sequence(front)  # type: ignore[assignment]
    strip = [] if kind == "gemma" else [decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(  # type: ignore[assignment]
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return str(tokenizer.to_str())


def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A new tokenizer of a family."""
    family = FAMILIES[name]
    backend = Tokenizer.from_str(_trained(family.kind))
    strips = {"<|assistant|>", "<|system|>", "<|user|>", "<|end|>"} if name == "phi3" else set()
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False, rstrip=t in strips) for t in family.special]
    )
    backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in family.added])
    after: list[Any] = [processors.ByteLevel(trim_offsets=True)] if family.kind in ("gpt2", "bytes") else []
    if family.bos and family.front:
        first = (family.bos, backend.token_to_id(family.bos))
        front = f"{family.bos} $A"
        after.append(processors.TemplateProcessing(single=front, pair=f"{front} $B", special_tokens=[first]))
    backend.post_processor = processors.Sequence(after)  # type: ignore[assignment]
    pad = next((t for t in ("<pad>", "<|endoftext|>") if t in family.special), family.eos)
    named = {k: v for k, v in {"bos_token": family.bos, "unk_token": family.unk}.items() if v}
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=family.eos, pad_token=pad, **named)
    fast.chat_template = family.template
    return fast


def turns(name: str, messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool]]:
    """A conversation of users and assistants as a family writes it: pieces of text, and whether each is learned.

    Only for families that render what a message says as it is, without tools, thinking or system messages. What stands
    behind the assistant's last turn is left out.
    """
    family = FAMILIES[name]
    pieces = [(family.begin, False)]
    for message in messages:
        before, behind = family.user if message["role"] == "user" else family.assistant
        if message["role"] == "user":
            pieces.append((before + message["content"] + behind, False))
        elif name == "smollm3":  # its marks hold the header and the line's end
            pieces.append((before + message["content"] + family.end + behind, True))
        else:
            space = " " if name in ("mistral", "mixtral") else ""
            pieces += [(before, False), (space + message["content"] + family.end, True), (behind, False)]
    if name != "smollm3":
        pieces.pop()
    return [(text, learned) for text, learned in pieces if text]


def by_hand(tokenizer: PreTrainedTokenizerFast, pieces: list[tuple[str, bool]]) -> tuple[list[int], list[bool]]:
    """(ids, which are learned) of a text in pieces; a token belongs to the piece of its first character."""
    encoded = tokenizer("".join(text for text, _ in pieces), add_special_tokens=False, return_offsets_mapping=True)
    owner = [learned for text, learned in pieces for _ in text]
    return encoded["input_ids"], [owner[first] for first, _ in encoded["offset_mapping"]]
