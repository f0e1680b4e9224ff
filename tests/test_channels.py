"""Chat templates of Harmony's kind in training, sampling, chat and evaluation: gpt-oss's own, and the lab's."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from conftest import read_jsonl
from evaluated import Here, write
from families import ANSWERS, ASKS, CALL, SAYS, TALK, USER, WEATHER, tokenizer
from test_conversations import SHAPE
from test_families import learned_of
from test_harmony import CALLED, GOLDEN, TWO, WEATHERS, function
from transformers import PreTrainedTokenizerFast

from rllab.board.pages import render as page
from rllab.cli.talk import talk
from rllab.core.errors import Mistake
from rllab.core.harmony import HarmonyMessage
from rllab.core.messages import answer_of, thinks
from rllab.core.recipe import read_recipe
from rllab.core.run import RunFolder
from rllab.core.trainer import Trainer
from rllab.rewards.form import format
from rllab.text.calls import check_calls, message_of
from rllab.text.channels import HARMONY, in_fields, with_harmony
from rllab.text.chat import RowMistake, documents, prompt_texts, reply_ids
from rllab.text.harmony import Developer, System, render
from rllab.text.models import LanguageModel, new_model
from rllab.text.open import open_model
from rllab.text.reply import reply
from rllab.text.sampler import Sampling, completion_text
from rllab.text.template import Template
from rllab.text.tokenizers import word_tokenizer
from rllab.text.turns import converse

GPT_OSS = (Path(trl.__file__).parent / "chat_templates" / "gptoss.jinja").read_text(encoding="utf-8")
TEMPLATES = pytest.mark.parametrize("template", [HARMONY, GPT_OSS], ids=["lab", "gpt-oss"])
THOUGHT, FINAL = "<|channel|>analysis<|message|>we add<|end|><|start|>assistant", "<|channel|>final<|message|>"
THINKS: list[dict[str, Any]] = [dict(m, reasoning_content="we add") if m in SAYS else m for m in TALK[:4]]
CHAIN = [ASKS[0], dict(ASKS[1], reasoning_content="look"), ANSWERS[0], dict(ANSWERS[1], reasoning_content="sun")]


def words_of(template: str) -> PreTrainedTokenizerFast:
    words = tokenizer("gpt-oss")
    words.chat_template = template
    return words


@TEMPLATES
def test_what_the_assistant_writes_is_learned_with_its_channels(template: str) -> None:
    words = words_of(template)
    row: dict[str, Any] = {"prompt": TALK[:3], "completion": THINKS[3:]}
    assert learned_of(words, row) == [THOUGHT + FINAL + "It is 2.<|return|>"]
    assert learned_of(words, {"messages": THINKS}) == [THOUGHT + FINAL + "It is 2.<|return|>"]  # the first is cut
    # the end of an earlier answer stands where a model samples <|return|>
    assert learned_of(words, {"messages": TALK[:4]}) == [FINAL + "The answer is 1.", FINAL + "It is 2.<|return|>"]
    inline = [dict(m, content=f"<think>\nwe add\n</think>\n\n{m['content']}") if m in SAYS else m for m in TALK[:4]]
    raw = [dict(m, content=f"{THOUGHT}{FINAL}{m['content']}<|return|>") if m in SAYS else m for m in TALK[:4]]
    for messages in (inline, raw):
        assert documents(words, [{"messages": messages}]) == documents(words, [{"messages": THINKS}])
        assert "we add" not in prompt_texts(words, [{"prompt": messages[:3]}])[0]
    brief = [{"role": "developer", "content": "Be brief."}, *TALK[:2]]
    (document,) = documents(words, [{"messages": brief}])
    assert "<|start|>developer<|message|># Instructions\n\nBe brief." in words.decode(document.prompt)


def test_thinking_is_handed_to_templates_under_both_names() -> None:
    """gpt-oss's template reads `thinking`, which not every transformers makes of `reasoning_content`."""
    (says,) = in_fields(THINKS[1:2], GPT_OSS)
    assert says == {"role": "assistant", "content": SAYS[0]["content"], "reasoning_content": "we add"} | {
        "thinking": "we add"
    }
    assert in_fields([says], GPT_OSS) == [says]
    assert in_fields([dict(SAYS[0], thinking=" ")], GPT_OSS) == SAYS[:1]  # it would write an empty message


@TEMPLATES
def test_calls_are_learned_behind_the_thinking_that_the_model_saw(template: str) -> None:
    words, kind = words_of(template), " <|constrain|>json" if template == HARMONY else " json"
    call = f' to=functions.weather<|channel|>commentary{kind}<|message|>{{"city": "Paris"}}<|call|>'
    sun = "<|channel|>analysis<|message|>sun<|end|><|start|>assistant" + FINAL + "The sun is out."
    look = THOUGHT.replace("we add", "look") + call
    assert learned_of(words, {"messages": CHAIN, "tools": [WEATHER]}) == [look, sun + "<|return|>"]
    twice = {"messages": [*CHAIN, *CHAIN], "tools": [WEATHER]}
    assert learned_of(words, twice) == [FINAL + "The sun is out.", look, sun + "<|return|>"]
    assert learned_of(words, {"messages": ASKS, "tools": [WEATHER]}) == [call]
    (document,) = documents(words, [{"messages": CHAIN, "tools": [WEATHER]}])
    text = words.decode(document.prompt + document.completions[0])
    asked = prompt_texts(words, [{"prompt": CHAIN[:3], "tools": [WEATHER]}])[0]
    assert text == asked + sun + "<|return|>"  # the same as a policy sees and samples
    two = {"messages": [ASKS[0], {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}], "tools": [WEATHER]}
    with pytest.raises(RowMistake, match=r"calls one tool at most|does not render `tool_calls`"):
        documents(words, [two])


@TEMPLATES
def test_replies_follow_the_call_or_the_answer(template: str) -> None:
    words, row = words_of(template), {"prompt": USER[:1], "tools": [WEATHER]}
    says, result = [{"role": "user", "content": "No."}], [{"role": "tool", "content": "3"}]
    asked = "<|start|>user<|message|>No.<|end|><|start|>assistant"
    assert words.decode(reply_ids(words, says, row)) == asked
    assert words.decode(reply_ids(words, says, row, ended=False)) == "<|end|>" + asked
    shown = "3" if template == HARMONY else '"3"'
    for calls, name in ((["look"], "look"), ([], "weather")):
        told = f"<|start|>functions.{name} to=assistant<|channel|>commentary<|message|>{shown}<|end|><|start|>assistant"
        assert words.decode(reply_ids(words, result, row, calls=calls)) == told
        assert words.decode(reply_ids(words, result, row, calls=calls, ended=False)) == "<|call|>" + told


@TEMPLATES
def test_calls_are_read(template: str) -> None:
    words = words_of(template)
    check_calls(words, [{"prompt": USER[:1], "tools": [WEATHER]}])  # it warns where it cannot
    says = dict(ASKS[1], content="", reasoning_content="look")
    rendered = Template(words, {"tools": [WEATHER]}).conversation([ASKS[0], says])
    text = rendered.text[rendered.begin :]
    for raw in (text, text.removesuffix("<|call|>")):
        assert message_of(raw, "", [WEATHER]) == says
    announced = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant" + text.rpartition("assistant")[2]
    assert message_of(announced, "", []) == {"role": "assistant", "content": "I look.", "tool_calls": [CALL]}
    for broken in (text.replace("}", ""), text.replace('{"city": "Paris"}', "[3]")):
        assert message_of(broken, "as text", [WEATHER]) == {"role": "assistant", "content": "as text"}
    prompt = [ASKS[0], {"role": "assistant", "content": announced}, ANSWERS[0]]
    history = prompt_texts(words, [{"prompt": prompt, "tools": [WEATHER]}])[0]
    assert "I look.<|end|><|start|>assistant to=functions.weather" in history


def model(template: str) -> LanguageModel:
    torch.manual_seed(0)
    return new_model(SHAPE, words_of(template))


@TEMPLATES
def test_return_and_call_end_a_completion_and_end_does_not(template: str) -> None:
    lm = model(template)
    ids = {name: lm.tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("return", "call", "end", "endoftext")}
    lm.model.generation_config.eos_token_id = [ids["end"], ids["endoftext"]]
    assert lm.stop_ids == {ids["return"], ids["call"], ids["endoftext"]} and lm.stop_texts == ()
    text = THOUGHT + FINAL + "5<|endoftext|><|return|>"
    sampled = lm.tokenizer.encode(text, add_special_tokens=False)
    assert completion_text(lm, "", sampled) == THOUGHT + FINAL + "5"
    assert completion_text(lm, "<|start|>assistant" + FINAL, sampled[-3:]) == FINAL + "5"


def test_the_labs_template_writes_what_the_renderer_writes() -> None:
    words = words_of(HARMONY)
    kinds = {"a": {"type": ["integer", "null"]}, "b": {"type": "array", "items": {"type": "number"}, "default": [1]}}
    kinds |= {"c": {"type": "object", "properties": {"d": {"type": "boolean", "nullable": True}}}, "e": {}}
    tools = [*WEATHERS[:3], function("kinds", "All\nkinds.", kinds, ("a",))]
    named = {"model_identity": "I am a lab.", "knowledge_cutoff": "2024-06", "current_date": "2025-06-28"}
    options: dict[str, Any] = named | {"reasoning_effort": "high", "tools": tools}
    system = System(**named, reasoning="high")
    for instructions in ("", "Answer in rhymes."):
        own = [{"role": "system", "content": instructions}] if instructions else []
        text = words.apply_chat_template([*own, USER[0]], tokenize=False, add_generation_prompt=True, **options)
        user = HarmonyMessage("user", USER[0]["content"])
        assert text == render([system, Developer(instructions or None, tools), user], "assistant")
    plain = words.apply_chat_template(
        [{"role": m.role, "content": m.content} if m.channel != "analysis" else
         {"role": "assistant", "reasoning_content": m.content, "content": TWO[i + 1].content}
         for i, m in enumerate(TWO) if m.channel != "final"], tokenize=False)  # fmt: skip
    assert plain == render(TWO, training=True)
    arguments, result = json.loads(CALLED[2].content), {"role": "tool", "content": CALLED[3].content}
    call = {"type": "function", "function": {"name": "lookup_weather", "arguments": arguments}}
    thinks = {"role": "assistant", "reasoning_content": CALLED[1].content, "content": "", "tool_calls": [call]}
    asked = {"role": "user", "content": CALLED[0].content}
    chain = words.apply_chat_template([asked, thinks, result], tokenize=False, add_generation_prompt=True)
    last = CALLED[3]
    to = HarmonyMessage(last.role, last.content, last.name, "assistant", "commentary")
    assert chain == render([*CALLED[:3], to], "assistant") != render(GOLDEN["simple_convo"][0], "assistant")


def test_a_new_model_may_speak_it(tmp_path: Path) -> None:
    words = with_harmony(word_tokenizer(["2", "+", "=", "5", "####", "final"]))
    (document,) = documents(
        words, [{"prompt": [{"role": "user", "content": "2 + 2"}], "completion": "<think> 2 + 2 = 5 </think> #### 5"}]
    )
    assert words.unk_token_id not in [*document.prompt, *document.completions[0]]
    assert words.decode(document.completions[0]).replace(" ", "") == (
        "<|channel|>analysis<|message|>2+2=5<|end|><|start|>assistant<|channel|>final<|message|>####5<|return|>"
    )
    for style, opening in {"direct": "final", "think": "analysis", "free": ""}.items():
        (text,) = prompt_texts(words, [{"prompt": [{"role": "user", "content": "2"}], "style": style}])
        assert text.endswith("assistant" + (f"<|channel|>{opening}<|message|>" if opening else ""))
    recipe = "algo: SFT\ntask: pocket\nmodel: x\nchat_template: harmony\ntotal_steps: 1"
    with pytest.raises(Mistake, match="chat_template: only a new model of `shape` is given one"):
        read_recipe(recipe, "mine.yaml", tmp_path, "mine")


def test_the_format_of_channels_is_rewarded() -> None:
    texts = [THOUGHT + FINAL + "5", FINAL + "5", THOUGHT, THOUGHT + FINAL, THOUGHT + THOUGHT + FINAL + "5"]
    texts += [THOUGHT.replace("<|end|>", "") + FINAL + "5", THOUGHT.replace("analysis", "<think>") + FINAL + "5"]
    assert format(texts) == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert format([FINAL + "5"], pattern=r"<\|channel\|>final.*") == [1.0]


def test_a_page_folds_the_thinking() -> None:
    sample = {"step": 1, "prompt": "?", "completion": THOUGHT + FINAL + "<b>5"}
    text = page("sample_list", samples=[sample], ranges={})
    assert "we add" in text and "&lt;b&gt;5" in text and "<|channel|>" not in text and "&lt;|channel" not in text


@pytest.fixture(scope="module", params=[HARMONY, GPT_OSS], ids=["lab", "gpt-oss"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a tiny model that has learned an answer, with its thinking, by heart."""
    folder = tmp_path_factory.mktemp("harmony")
    lm = model(request.param)
    lm.model.save_pretrained(folder / "base")
    lm.write_files(folder / "base")
    rows = [
        {"prompt": [{"role": "user", "content": "What is 3?"}], "completion": [
            {"role": "assistant", "reasoning_content": "not 4", "content": "#### 3"}],
         "target": "3", "kind": "number", "question": "What is 3?"}
    ] * 24  # fmt: skip
    (folder / "mine").mkdir()
    for name in ("train", "validation", "test"):
        write(folder / "mine" / f"{name}.jsonl", rows)
    write(folder / "mine.jsonl", rows[:1])
    recipe = (
        f"algo: SFT\ntask: {{name: dataset, path: {folder / 'mine'}}}\nmodel: {folder / 'base'}\n"
        "total_steps: 40\nbatch_size: 4\nlength: 512\n"
        "optim: {lr: 0.01}\nmax_new_tokens: 40\nstyles: [free]\nheadline_rows: 1\ndevice: cpu\n"
    )
    for _ in Trainer(read_recipe(recipe, "mine.yaml", folder, "mine"), RunFolder(folder / "run")):
        pass
    return folder


def test_a_trained_model_thinks_answers_and_stops(trained: Path) -> None:
    last = trained / "run" / "checkpoints" / "00000040"
    lm = open_model(str(last))
    messages = [{"role": "user", "content": "What is 3?"}]
    text = reply(lm, messages, "free", Sampling(max_new_tokens=60))
    assert text == "<|channel|>analysis<|message|>not 4<|end|><|start|>assistant<|channel|>final<|message|>#### 3"
    shown: list[str] = []
    talk(str(last), False, "free", 60, iter(["What is 3?", "/thoughts", "What is 3?"]), shown.append)
    assert shown[1:3] == ["[thought 2 words] #### 3", "not 4"] and len(shown) == 4 and shown[3]


def test_evaluation_opens_the_channels_and_reads_the_final_one(trained: Path, here_in: Any) -> None:
    (trained / "plain.yaml").write_text("max_new_tokens: 60\ntemplate_style: free\n")
    here, styles = here_in(trained), ("plain.yaml", "direct", "zero-shot-cot", "budget")
    model = str(trained / "run" / "checkpoints" / "00000040")
    asked = [model, "--task", "mine.jsonl", "--no-cache", "--out", "out.jsonl"]
    rows = here(*asked, *[word for style in styles for word in ("--style", style)])
    assert rows[0]["accuracy"] == 1.0
    texts: dict[str, list[dict[str, Any]]] = {}
    for row in read_jsonl(trained / "out.jsonl"):
        texts.setdefault(row["style"], []).append(row)
    (plain,), (direct,), (cot,) = (texts[style] for style in ("plain", "direct", "zero-shot-cot"))
    assert plain["completion"].startswith("<|channel|>analysis<|message|>not 4<|end|>") and plain["answer"] == "3"
    assert direct["completion"].startswith(FINAL) and not thinks(direct["completion"])
    for row in (cot, *texts["budget"]):
        assert row["completion"].startswith("<|channel|>analysis<|message|>")
        assert answer_of(row["completion"]) is not None
        assert "<|end|><|start|>assistant" + FINAL in row["completion"]
        assert "<|end|>" not in row.get(
            "reasoning", ""
        )  # which ends with its channel; the answer is asked for behind it
    assert len(texts["budget"]) == 8


class Look:
    """Answers the model's first call by the number that follows its argument."""

    def reply(self, row: dict[str, Any], messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        calls = messages[-1].get("tool_calls") or []
        return [{"role": "tool", "content": str(c["function"]["arguments"]["n"] + 1)} for c in calls]


def test_a_trained_model_calls_a_tool_and_reads_its_result(tmp_path: Path) -> None:
    lm = model(HARMONY)
    lm.model.save_pretrained(tmp_path / "base")
    lm.write_files(tmp_path / "base")
    tools = [function("look", "Looks.", {"n": {"type": "integer"}})]
    call = {"type": "function", "function": {"name": "look", "arguments": {"n": 3}}}
    first = {"role": "assistant", "content": "", "reasoning_content": "I look.", "tool_calls": [call]}
    last = {"role": "assistant", "content": "#### 4", "reasoning_content": "It is here."}
    row = {"prompt": [{"role": "user", "content": "Look 3 up."}], "tools": tools}
    rows = [row | {"completion": [first, {"role": "tool", "content": "4"}, last], "number": i} for i in range(40)]
    write(tmp_path / "mine.jsonl", rows)
    recipe = f"algo: SFT\ntask: mine.jsonl\nmodel: {tmp_path / 'base'}\ntotal_steps: 50\nbatch_size: 4\nlength: 512\n"
    recipe += "optim: {lr: 0.01}\neval_rows: 1\nheadline_rows: 1\ndevice: cpu\n"
    for _ in Trainer(read_recipe(recipe, "mine.yaml", tmp_path, "mine"), RunFolder(tmp_path / "run")):
        pass
    lm = open_model(str(tmp_path / "run" / "checkpoints" / "00000050"))
    _, (conversation,) = converse(lm, Look(), [row], Sampling(max_new_tokens=150))
    assert conversation.messages == [first, {"role": "tool", "content": "4"}, last]
    completion = conversation.completion
    text = lm.tokenizer.decode(completion.ids)
    assert text.count("<|call|><|start|>functions.look to=assistant<|channel|>commentary<|message|>4<|end|>") == 1
    sampled = [i for i, learned in zip(completion.ids, completion.learned, strict=True) if learned]
    (document,) = documents(lm.tokenizer, [rows[0]])
    assert sampled == [i for i, m in zip(document.completions[0], document.learned[0], strict=True) if m]
    assert completion.ids == document.completions[0]  # what is sampled is what was learned


@pytest.fixture
def here_in(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda folder: Here(folder, capsys, monkeypatch)
