"""Tool calls in a model's text: as published templates write them, malformed ones, and the turns of a policy."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trl
from families import CALL, CHATML, USER, WEATHER, tokenizer
from transformers import PreTrainedTokenizerFast

from rllab.core.errors import FieldMistake, Mistake
from rllab.text.calls import check_calls, message_of
from rllab.text.models import LanguageModel, new_model
from rllab.text.sampler import Completion, Sampling
from rllab.text.template import Template
from rllab.text.turns import converse

TEMPLATES = Path(trl.__file__).parent / "chat_templates"  # those of published models
CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOLS = [WEATHER, {"type": "function", "function": {"name": "look", "description": "x", "parameters": CITY}}]
CALLS = [CALL, {"type": "function", "function": {"name": "look", "arguments": {"city": "7", "days": 7}}}]
MISTRAL = (
    "{{ tools | tojson if tools else '' }}{% for m in messages %}"
    "{% if m.tool_calls %}{{ '[TOOL_CALLS][' }}{% for c in m.tool_calls %}"
    "{{ c.function | tojson }}{{ ', ' if not loop.last }}{% endfor %}{{ ']' + eos_token }}{% else %}"
    "{{ '[' + m.role + ']' + m.content + eos_token if m.role == 'assistant' else '[INST]' + m.content + '[/INST]' }}"
    "{% endif %}{% endfor %}"
)
NAMED = (
    MISTRAL.replace("'[TOOL_CALLS]['", "''")
    .replace("']' + eos_token", "eos_token", 1)
    .replace(
        "{{ c.function | tojson }}{{ ', ' if not loop.last }}",
        "{{ '[TOOL_CALLS]' + c.function.name + '[ARGS]' + c.function.arguments | tojson }}",
    )
)


def words_of(template: str, *special: str) -> PreTrainedTokenizerFast:
    words = tokenizer("qwen2.5")
    words.add_special_tokens({"additional_special_tokens": list(special)})
    file = TEMPLATES / f"{template}.jinja"
    words.chat_template = file.read_text() if file.name in map(str, (p.name for p in TEMPLATES.iterdir())) else template
    return words


ROUND_TRIPS = [
    ("qwen2_5", 2), ("qwen3", 2), ("qwen3_instruct_2507", 2), ("qwen3_5_think", 2), ("nemotron_3_nano", 2),
    ("llama3_1", 1), ("llama3_2", 1), (MISTRAL, 2), (NAMED, 2),
]  # fmt: skip


@pytest.mark.parametrize(("template", "count"), ROUND_TRIPS, ids=lambda x: str(x)[:20])
@pytest.mark.parametrize("content", ["", "Let me look."])
def test_calls_are_read_as_published_templates_write_them(template: str, count: int, content: str) -> None:
    words = words_of(template)
    if (content and count == 1) or template in (MISTRAL, NAMED):
        content = ""  # it leaves out content beside a call
    says = {"role": "assistant", "content": content, "tool_calls": CALLS[:count]}
    rendered = Template(words, {"tools": TOOLS, "enable_thinking": False}).conversation([USER[0], says])
    text = rendered.text[rendered.begin :].removesuffix("<|im_end|>").removesuffix("<|eot_id|>").removesuffix("\n")
    text = text.split("</think>")[-1]
    assert "weather" in text and message_of(text, text, TOOLS) == says


@pytest.mark.parametrize(
    "text",
    [
        "I call nothing.",
        '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}',
        '<tool_call>{"name": "weather"}</tool_call>',
        '<tool_call>{"name": 3, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": "Paris"}</tool_call>',
        '<tool_call>["weather"]</tool_call>',
        "<tool_call></tool_call>",
        '<tool_call>{"name": "weather", "arguments": {}}</tool_call> and <tool_call>weather</tool_call>',
        "<tool_call><function=weather>Paris</function></tool_call>",
        "[TOOL_CALLS]weather Paris",
        '[TOOL_CALLS]{"name": "weather"}',
        "[TOOL_CALLS]3",
        '{"name": "weather", "parameters": "',
        '{"name": "weather"}',
        '{"a": 1}',
        "<tool_call>" + "[" * 100_000,
    ],
    ids=lambda text: text[:30],
)
def test_a_malformed_call_is_a_text(text: str) -> None:
    assert message_of(text, text, TOOLS) == {"role": "assistant", "content": text}


def test_several_calls_and_the_text_beside_them() -> None:
    text = (
        'First.\n<tool_call>\n{"name": "weather", "arguments": "{\\"city\\": \\"Paris\\"}"}\n</tool_call>\n'
        '<tool_call>\n{"name": "unknown", "arguments": {}}</tool_call>'
    )
    message = message_of(text, text, TOOLS)
    assert message["content"] == "First." and message["tool_calls"][0] == CALL
    assert message["tool_calls"][1]["function"] == {"name": "unknown", "arguments": {}}
    bare = '{"name": "weather", "parameters": {"city": "Paris"}}'
    two = message_of(f"<|python_tag|>{bare}; {bare}", "", TOOLS)
    assert two["tool_calls"] == [CALL, CALL]


def test_a_template_whose_calls_are_not_read_is_told() -> None:
    row = {"prompt": USER[:1], "tools": [WEATHER]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_calls(tokenizer("qwen2.5"), [{"prompt": "plain"}, row])
        check_calls(tokenizer("phi3"), [{"prompt": USER[:1]}])
    with pytest.warns(UserWarning, match="`reply` gets the text of a call instead of `tool_calls`: '<call weather"):
        check_calls(words_of(CHATML.replace('<tool_call>\\n{"name": "', "<call ")), [row])


def test_a_reply_that_the_template_leaves_out_is_refused() -> None:
    result = [{"role": "tool", "content": 'sun "and"\nrain', "name": "weather"}]
    assert json.dumps(result[0]["content"])[1:-1] in Template(words_of("llama3_1"), {"tools": TOOLS}).reply(result)[1]
    with pytest.raises(FieldMistake, match=r"leaves out a reply of the role 'tool': let the task reply as the user"):
        Template(words_of("gemma4"), {"tools": TOOLS}).reply(result)


class Weather:
    """Answers calls by results, and a malformed call by a hint."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def reply(self, row: dict[str, Any], messages: list[Any]) -> list[dict[str, str]]:
        self.seen.append(messages[-1])
        if calls := messages[-1].get("tool_calls"):
            return [{"role": "tool", "content": f"sun in {c['function']['arguments']['city']}"} for c in calls]
        return [{"role": "user", "content": "That is no call."}] if "<tool_call>" in messages[-1]["content"] else []


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    return new_model(sizes | {"model_type": "llama", "intermediate_size": 16}, tokenizer("qwen2.5"))


def test_a_task_gets_calls_and_replies_to_them(lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    written: Iterator[str] = iter([call + "\n" + call, "<tool_call>\nweather", "The sun is out."])
    contexts: list[str] = []

    def generate(lm: LanguageModel, prompts: list[list[int]], *_: Any, **__: Any) -> list[Completion]:
        contexts.append(str(lm.tokenizer.decode(prompts[0])))
        ids = lm.tokenizer(next(written) + "<|im_end|>", add_special_tokens=False).input_ids
        return [Completion(0, 0, ids, [0.0] * len(ids), True)]

    monkeypatch.setattr("rllab.text.turns.generate", generate)
    task, row = Weather(), {"prompt": USER[:1], "tools": [WEATHER]}
    _, (talk,) = converse(lm, task, [row], Sampling(max_new_tokens=2000))
    says = {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}
    assert task.seen == [says, {"role": "assistant", "content": "<tool_call>\nweather"}, talk.messages[-1]]
    assert talk.text == "The sun is out." and [m["role"] for m in talk.messages].count("tool") == 2
    whole = lm.tokenizer.apply_chat_template([*USER[:1], *talk.messages], tools=[WEATHER], tokenize=False)
    assert str(whole).rstrip() == contexts[-1] + "The sun is out.<|im_end|>"


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("higher", "its message 1 has no role"),
        ([{"role": "tool", "content": 5}], "its content is a int"),
        ([5], "no role"),
    ],
)
def test_a_reply_that_is_no_message_is_refused(
    reply: Any, fault: str, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = [Completion(0, 0, [lm.tokenizer.eos_token_id], [0.0], True)]  # type: ignore[list-item]
    monkeypatch.setattr("rllab.text.turns.generate", lambda *_, **__: ends)
    task = SimpleNamespace(reply=lambda row, messages: reply)
    with pytest.raises(Mistake, match=f"reply fails on '': ValueError: .*{fault}"):
        converse(lm, task, [{"prompt": USER[:1]}], Sampling())
