"""Which tokens are learned of a conversation, on the tokenizers and chat templates of published families."""

import json
from pathlib import Path
from typing import Any

import pytest
from families import ANSWERS, ASKS, CALL, CHATS, FAMILIES, SAYS, TALK, USER, WEATHER, by_hand, tokenizer, turns
from transformers import PreTrainedTokenizerFast

from rllab.core.errors import FieldMistake
from rllab.text.chat import RowMistake, documents, prompt_ids, prompt_texts, reply_ids
from rllab.text.template import Template
from rllab.text.tokenizers import unknown_token

AS_THEY_ARE = [name for name in CHATS if name != "qwen3"]  # qwen3 writes an empty thought before its last answer
CALLED = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


def learned_of(tokenizer: PreTrainedTokenizerFast, row: dict[str, Any]) -> list[str]:
    """The text of each run of learned tokens."""
    (document,) = documents(tokenizer, [row])
    runs: list[list[int]] = []
    for ids, mask in zip(document.completions, document.learned, strict=True):
        for i, (token, yes) in enumerate(zip(ids, mask, strict=True)):
            if yes and (i == 0 or not mask[i - 1]):
                runs.append([])
            if yes:
                runs[-1].append(token)
    return [str(tokenizer.decode(run)) for run in runs]


@pytest.mark.parametrize("messages", [TALK[:2], TALK], ids=["one turn", "three turns"])
@pytest.mark.parametrize("name", AS_THEY_ARE)
def test_the_turns_of_the_assistant_are_learned_with_their_ends(name: str, messages: list[dict[str, str]]) -> None:
    words = tokenizer(name)
    ids, learned = by_hand(words, turns(name, messages))
    (document,) = documents(words, [{"messages": messages}])
    first = learned.index(True)
    assert document.prompt == ids[:first] and document.completions == [ids[first:]]
    assert list(document.learned[0]) == learned[first:]
    ends = [i for i, m in enumerate(learned) if m and (i + 1 == len(learned) or not learned[i + 1])]
    assert len(ends) == len(messages) // 2  # each turn ends with the family's end, not with eos_token
    end = words.convert_tokens_to_ids(FAMILIES[name].end)
    assert all(end in ids[at - 1 : at + 1] for at in ends)  # smollm3 marks the line's end, too


@pytest.mark.parametrize("name", AS_THEY_ARE)
def test_completions_of_several_messages_stand_behind_the_prompt_that_a_policy_completes(name: str) -> None:
    words = tokenizer(name)
    row = {"prompt": TALK[:3], "completions": [TALK[3:], TALK[3:4], "It is 2."], "ranks": [0, 1, 1]}
    (document,) = documents(words, [row])
    if name == "r1":  # the answer has no thought, and so does not stand behind the tag that the prompt would open
        assert prompt_texts(words, [row])[0] == words.decode(document.prompt) + "<think>\n"
    else:
        assert [document.prompt] == prompt_ids(words, [row])
    whole, short, text = document.completions
    expected, learned = by_hand(words, turns(name, TALK))
    assert document.prompt + whole == expected and text == short == whole[: len(short)]
    own = learned[len(document.prompt) :]
    if name != "smollm3":  # of the first turn it marks the header, too, which is the prompt's
        assert list(document.learned[0]) == own and list(document.learned[1]) == own[: len(short)]
    assert all(document.learned[1])


def test_thinking_is_learned_where_it_is_rendered() -> None:
    """Qwen 3 renders the thinking of the last turn alone: an earlier turn that thinks is not learned without it."""
    words = tokenizer("qwen3")
    thinks = [dict(m, reasoning_content="we add") if m["role"] == "assistant" else m for m in TALK[:4]]
    inline = [dict(m, content=f"<think>\nwe add\n</think>\n\n{m['content']}") if m in SAYS else m for m in TALK[:4]]
    for messages in (thinks, inline):
        assert learned_of(words, {"messages": messages}) == ["<think>\nwe add\n</think>\n\nIt is 2.<|im_end|>"]
        row = {"prompt": messages[:1], "completion": messages[1:2]}
        assert learned_of(words, row) == ["<think>\nwe add\n</think>\n\nThe answer is 1.<|im_end|>"]
    last = "<think>\n\n</think>\n\nIt is 2.<|im_end|>"
    assert learned_of(words, {"messages": TALK[:4]}) == ["The answer is 1.<|im_end|>", last]
    row = {"prompt": TALK[:1], "completion": TALK[1:2], "style": "direct"}  # the prompt holds the empty thought
    assert learned_of(words, row) == ["The answer is 1.<|im_end|>"]
    for name in ("qwen2.5", "gemma"):
        with pytest.raises(
            RowMistake, match="leaves out the thinking of a conversation of user, assistant, which ends"
        ):
            documents(tokenizer(name), [{"messages": thinks[:2]}])


def test_a_template_that_opens_the_thinking_gets_no_second_tag() -> None:
    words = tokenizer("r1")
    prompt, thought = (
        "<｜begin▁of▁sentence｜><｜User｜>What is 0 plus 1?<｜Assistant｜><think>\n",
        "we add\n</think>\n\n",
    )
    answers: list[Any] = [
        "<think>\nwe add\n</think>\n\nThe answer is 1.",
        [{"role": "assistant", "content": "The answer is 1.", "reasoning_content": "we add"}],
        [{"role": "assistant", "content": "we add\n</think>\n\nThe answer is 1."}],
    ]
    for answer in answers:
        row = {"prompt": USER[:1], "completion": answer}
        (document,) = documents(words, [row])
        assert [document.prompt] == prompt_ids(words, [row]) and words.decode(document.prompt) == prompt
        assert learned_of(words, row) == [thought + "The answer is 1.<｜end▁of▁sentence｜>"]
    both = {"prompt": USER[:1], "chosen": answers[0], "rejected": "The answer is 2."}
    (document,) = documents(words, [both])
    assert words.decode(document.prompt) + "<think>\n" == prompt
    assert words.decode(document.completions[0]) == "<think>\n" + learned_of(words, both)[0]
    assert learned_of(words, both)[1] == "The answer is 2.<｜end▁of▁sentence｜>"


def test_calls_of_tools_are_learned_as_they_are_rendered() -> None:
    words = tokenizer("qwen2.5")
    row = {"messages": ASKS + ANSWERS, "tools": [WEATHER]}
    assert learned_of(words, row) == [f"{CALLED}<|im_end|>", "The sun is out.<|im_end|>"]
    (document,) = documents(words, [row])
    assert words.decode(document.prompt + document.completions[0]) == words.apply_chat_template(
        [ASKS[0], {**ASKS[1], "content": ""}, *ANSWERS], tools=[WEATHER], tokenize=False
    ).removesuffix("\n")  # fmt: skip
    assert learned_of(words, {"messages": ASKS, "tools": [WEATHER]}) == [f"{CALLED}<|im_end|>"]
    assert WEATHER["function"]["description"] in words.decode(document.prompt)  # type: ignore[index]


@pytest.mark.parametrize(
    "call",
    [
        {"role": "assistant", "tool_calls": [CALL]},  # without content
        {"role": "assistant", "content": None, "tool_calls": [CALL], "name": None, "tool_call_id": None},
        {"role": "assistant", "content": "", "tool_calls": [CALL["function"]]},
        {"role": "assistant", "content": [], "function_call": {"name": "weather", "arguments": '{"city": "Paris"}'}},
        {"role": "assistant", "tool_calls": json.dumps([CALL]), "refusal": None},
    ],
)
def test_all_forms_of_a_call_are_one(call: dict[str, Any]) -> None:
    words = tokenizer("qwen2.5")
    expected = documents(words, [{"messages": ASKS + ANSWERS, "tools": [WEATHER]}])
    parts = [{"type": "text", "text": "How is "}, {"type": "text", "text": "Paris?"}]
    result = {"role": "function", "name": "weather", "content": '{"sun": true}'}
    messages = [{"role": "user", "content": parts, "tool_calls": None}, call, result, ANSWERS[1]]
    for tools in ([WEATHER], [WEATHER["function"]], json.dumps([WEATHER]), [WEATHER | {"strict": None}]):
        assert documents(words, [{"messages": messages, "tools": tools}]) == expected


def test_nulls_of_parquet_are_absent_keys(tmp_path: Path) -> None:
    """A column of messages has all keys in all messages there, and the missing ones are null."""
    import datasets

    clock = {"type": "function", "function": {"name": "clock", "parameters": {"properties": {"zone": {"type": "x"}}}}}
    rows = [{"messages": ASKS + ANSWERS, "tools": [WEATHER, clock]}] * 3
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "mine.parquet")
    read = datasets.Dataset.from_parquet(str(tmp_path / "mine.parquet"), keep_in_memory=True)
    assert read[0]["messages"][0]["tool_calls"] is None
    assert read[0]["tools"][0]["function"]["parameters"]["properties"]["zone"] is None
    words = tokenizer("qwen2.5")
    assert documents(words, list(read)) == documents(words, rows)


def test_what_a_template_does_not_know_is_refused_by_row() -> None:
    with pytest.raises(RowMistake, match=r"does not render `tools` \(weather\): take a model whose template") as error:
        documents(tokenizer("phi3"), [{"messages": TALK}, {"messages": TALK, "tools": [WEATHER]}])
    assert error.value.index == 1 and error.value.field == "model"
    with pytest.raises(RowMistake, match=r"does not render `tool_calls` \(weather\)"):
        documents(tokenizer("phi3"), [{"messages": ASKS}])
    with pytest.raises(RowMistake, match=r"the chat template fails on .*: no system role"):
        documents(tokenizer("gemma"), [{"messages": [{"role": "system", "content": "x"}, *TALK]}])
    for name in ("gpt2", "llama3-base"):
        with pytest.raises(RowMistake, match="has no chat template, which conversations need: take") as error:
            documents(tokenizer(name), [{"prompt": "1 + 1", "completion": " 2"}, {"messages": TALK}])
        assert error.value.index == 1
    broken: list[tuple[dict[str, Any], str]] = [
        ({"messages": [{"content": "Hello"}]}, "its message 1 has no role"),
        (
            {"messages": [*USER[:1], {"role": "assistant", "tool_calls": [{"id": "1"}]}]},
            "message 2, of assistant: a cal",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, SAYS[0]]}, "types image_url; only text"),
        ({"messages": USER[:1]}, "none of its messages is by the assistant"),
        ({"messages": [*USER[:1], dict(SAYS[0], weight=0)]}, "nothing is learned of a conversation"),
        ({"messages": TALK, "tools": "weather"}, "its tools are no JSON: weather"),
        ({"messages": TALK, "chat_template_kwargs": "x"}, "its chat_template_kwargs is 'x', not an object"),
        ({"messages": [*USER[:1], dict(SAYS[0], tool_calls="weather")]}, "its tool_calls are no JSON list: weather"),
        ({"prompt": "Hello", "chosen": TALK[:2], "rejected": TALK[:2]}, r"begins otherwise, with 'What is 0 plus 1\?'"),
    ]
    for row, message in broken:
        with pytest.raises(RowMistake, match=message) as error:
            documents(tokenizer("qwen2.5"), [{"messages": TALK}, row])
        assert error.value.field == "task" and error.value.index == 1


def test_the_header_of_a_turn_is_not_learned_with_its_whitespace() -> None:
    """Phi-3's header takes the whitespace behind it, also that of the content."""
    messages = [USER[0], {"role": "assistant", "content": "  The answer is 1."}]
    assert learned_of(tokenizer("phi3"), {"messages": messages}) == ["The answer is 1.<|end|>"]


def test_a_turn_of_weight_zero_is_read_and_not_learned() -> None:
    for name in ("qwen2.5", "marked"):
        messages = [
            TALK[0],
            dict(TALK[1], weight=0),
            TALK[2],
            dict(TALK[3], weight=1),
            TALK[4],
            dict(TALK[5], train=False),
        ]
        assert learned_of(tokenizer(name), {"messages": messages}) == ["It is 2.<|im_end|>"]


def test_ultrafeedback_as_published() -> None:
    words = tokenizer("qwen2.5")
    row = {"chosen": TALK[:2], "rejected": [TALK[0], SAYS[1]], "score_chosen": 8.0, "messages": None}
    expected = documents(words, [{"prompt": TALK[:1], "chosen": TALK[1:2], "rejected": SAYS[1:2]}])
    del row["messages"]
    assert documents(words, [row | {"prompt": "What is 0 plus 1?"}]) == expected
    assert documents(words, [row | {"prompt": TALK[:1]}]) == expected
    assert prompt_ids(words, [row | {"prompt": "What is 0 plus 1?"}]) == [expected[0].prompt]


@pytest.mark.parametrize("name", [*FAMILIES])
def test_plain_texts_begin_as_the_tokenizer_begins_a_text(name: str) -> None:
    words = tokenizer(name)
    end, text = words.eos_token_id, "What is 0 plus 1?"
    (document, whole) = documents(words, [{"prompt": text, "completion": " The answer is 1."}, {"text": text}])
    assert document.prompt == words(text).input_ids and prompt_ids(words, [{"prompt": text}]) == [document.prompt]
    assert document.prompt + document.completions[0] == [*words(f"{text} The answer is 1.").input_ids, end]
    first = words.bos_token_id if words.bos_token_id is not None else end
    assert whole.prompt == [first] and whole.completions == [[*words(text, add_special_tokens=False).input_ids, end]]
    written = str(words.bos_token or "") + text + str(words.eos_token)  # a text may hold its ends
    if words(text).input_ids[0] == words.bos_token_id:
        assert documents(words, [{"text": written}]) == [whole]
        assert prompt_ids(words, [{"prompt": written}])[0][:2] == words(text).input_ids[:2]


@pytest.mark.parametrize("name", ["mistral", "phi3", "gemma", "gpt2"])
def test_a_completion_gets_no_space_that_it_has_not(name: str) -> None:
    """A prompt that ends with a space, or within a word: the completion is tokenized as it stands behind it."""
    words = tokenizer(name)
    for prompt, completion in (("The answer is ", "The sun"), ("The answ", "er is 1."), ("we add\n", "The sun")):
        (document,) = documents(words, [{"prompt": prompt, "completion": completion}])
        assert document.prompt == words(prompt).input_ids
        tokens = words.convert_ids_to_tokens(document.completions[0][:-1])
        assert "".join(tokens).replace("▁", " ").replace("Ġ", " ") == completion


@pytest.mark.parametrize("name", CHATS)
def test_a_reply_is_what_the_template_renders_of_it(name: str) -> None:
    words = tokenizer(name)
    prompt = prompt_texts(words, [{"prompt": TALK[:1]}])[0].removesuffix("<think>\n")
    space = " " if name in ("mistral", "mixtral") else ""
    model = words(prompt + space + SAYS[0]["content"] + FAMILIES[name].end, add_special_tokens=False).input_ids
    expected = words.apply_chat_template(TALK[:3], add_generation_prompt=True, tokenize=True)["input_ids"]
    assert model + reply_ids(words, TALK[2:3], {}) == expected
    if name.startswith("qwen"):
        result = "\n<|im_start|>user\n<tool_response>\n5\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
        row = {"tools": [WEATHER]}
        assert words.decode(reply_ids(words, [{"role": "tool", "content": "5"}], row)) == result


@pytest.mark.parametrize(
    "end, ends",
    [
        ("{{ '\n\n' }}", ("", "")),
        ("{{ ' END\n' }}", (" END", " END")),
        ("{{ '\n<|im_end|>\n\n' }}", ("\n<|im_end|>", "\n<|im_end|>")),
        ("{% if loop.last %}<|endoftext|>{% else %}<|im_end|>{% endif %}", ("<|endoftext|>", "<|im_end|>")),
    ],
)
def test_the_end_of_a_turn_is_the_templates(end: str, ends: tuple[str, str]) -> None:
    words = tokenizer("qwen2.5")
    words.chat_template = (
        "{% for m in messages %}{{ m.role + ': ' + m.content }}" + end + "{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    assert Template(words, {}).ends == ends
    learned = learned_of(words, {"messages": TALK[:4]})
    assert [text.strip() for text in learned] == [
        (SAYS[0]["content"] + ends[1]).strip(),
        (SAYS[1]["content"] + ends[0]).strip(),
    ]


def test_a_template_for_one_answer_alone_is_taken() -> None:
    words = tokenizer("qwen2.5")
    once = "{% if messages | length > 2 %}{{ raise_exception('one question') }}{% endif %}"
    words.chat_template = once + str(words.chat_template)
    assert learned_of(words, {"messages": TALK[:2]}) == ["The answer is 1.<|im_end|>"]
    with pytest.raises(RowMistake, match=r"the chat template fails on .*: one question"):
        documents(words, [{"messages": TALK}])


def test_tokenizers_that_read_any_text_have_no_unknown_words() -> None:
    from rllab.text.tokenizers import word_tokenizer

    for name in FAMILIES:
        assert unknown_token(tokenizer(name)) is None
    words = word_tokenizer(["plus"])
    assert unknown_token(words) == words.unk_token_id == 1


def test_generation_marks_must_fit_the_turns() -> None:
    words = tokenizer("marked")
    words.chat_template = str(words.chat_template).replace(
        "m.role == 'assistant'", "m.role == 'assistant' and loop.last"
    )
    with pytest.raises(
        FieldMistake, match=r"marks 1 turns by {% generation %} in a conversation of user, assistant, u"
    ):
        documents(words, [{"messages": TALK[:4]}])


def test_a_message_that_a_template_leaves_out_is_refused() -> None:
    system = [{"role": "system", "content": "Be brief."}, *TALK]
    with pytest.raises(RowMistake, match=r"leaves out message 1 \(system\) of a conversation of system, user"):
        documents(tokenizer("mistral"), [{"messages": system}])
    with pytest.raises(RowMistake, match=r"leaves out message 1 \(system\)"):
        prompt_texts(tokenizer("mistral"), [{"prompt": system[:2]}])
    words = tokenizer("qwen2.5")  # escaped, and not left out
    words.chat_template = words.chat_template.replace("'\\n' + m.content }}", "'\\n' }}{{ m.content | tojson }}")
    quoted = [{"role": "system", "content": 'Be "brief".'}, *TALK]
    assert '\\"brief' in words.decode(documents(words, [{"messages": quoted}])[0].prompt)


@pytest.mark.parametrize("text", ["", "hello", "{% for m in messages %}{{ '<|im_end|>' }}{% endfor %}"])
def test_a_template_that_leaves_out_answers_is_refused(text: str) -> None:
    words = tokenizer("qwen2.5")
    words.chat_template = text
    for row in ({"messages": TALK}, {"prompt": USER[:1], "completion": SAYS[:1]}):
        with pytest.raises(RowMistake, match=r"renders the answer of .* so that it cannot be recognized"):
            documents(words, [row])


def test_named_templates_are_chosen_by_the_row() -> None:
    words = tokenizer("qwen2.5")
    expected = documents(words, [{"messages": TALK}, {"messages": ASKS, "tools": [WEATHER]}])
    chatml = str(words.chat_template)
    words.chat_template = {"default": chatml.partition("{% endif %}")[2], "tool_use": chatml}
    assert documents(words, [{"messages": TALK}, {"messages": ASKS, "tools": [WEATHER]}]) == expected


def test_an_answer_with_two_thoughts_of_which_a_template_keeps_one_is_refused() -> None:
    twice = [USER[0], {"role": "assistant", "content": "<think>x</think>first<think>y</think>second"}]
    with pytest.raises(RowMistake, match="so that it cannot be recognized"):
        documents(tokenizer("qwen3"), [{"messages": twice}])
    assert documents(tokenizer("qwen2.5"), [{"messages": twice}])
