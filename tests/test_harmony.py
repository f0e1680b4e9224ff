"""Harmony: texts rendered byte for byte as OpenAI renders them, and a parser to which the split into pieces is nothing.

The golden texts are those of OpenAI's own renderer and parser (RLLAB_DATA/harmony_golden).
"""

import random
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from families import tokenizer
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from rllab.core.errors import Mistake
from rllab.core.harmony import BadHarmony, HarmonyMessage, Parser, parse
from rllab.text.harmony import Conversation, Developer, System, TokenParser, render
from rllab.text.harmony_tools import BROWSER, PYTHON

USER, NOW = HarmonyMessage("user", "What is 2 + 2?"), System(current_date="2025-06-28")
ASSISTANT = HarmonyMessage("assistant", "")
THOUGHT, FINAL = replace(ASSISTANT, channel="analysis"), replace(ASSISTANT, channel="final")
CAPITAL = HarmonyMessage("user", "What is the capital of the largest country in the world?")
ROBOT = Developer("Answer the user's questions like a robot.")
JSON = "<|constrain|>json"


def function(name: str, description: str, properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


UNIT = {"format": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"}}
CITY = {"type": "string", "description": "The city and state, e.g. San Francisco, CA"}
CITIES = {"type": "array", "items": {"type": "string"}}
CITIES["description"] = 'List of city and state, e.g. ["San Francisco, CA", "New York, NY"]'
SINK = function(
    "kitchensink",
    "A function with various complex schemas.",
    {
        "string": {"type": "string", "title": "STRING", "description": "A string", "examples": ["hello", "world"]},
        "string_nullable": {
            "type": "string",
            "nullable": True,
            "description": "A nullable string",
            "default": "the default",
        },
        "string_enum": {"type": "string", "enum": ["a", "b", "c"]},
        "oneof_string_or_number": {
            "oneOf": [
                {"type": "string", "default": "default_string_in_oneof"},
                {"type": "number", "description": "numbers can happen too"},
            ],
            "description": "a oneof",
            "default": 20,
        },
    },
)
SINK["function"]["parameters"]["description"] = "params object"
WEATHERS = [
    {"name": "get_location", "description": "Gets the location of the user."},
    function(
        "get_current_weather",
        "Gets the current weather in the provided location.",
        {"location": CITY, **UNIT},
        ("location",),
    ),
    function(
        "get_multiple_weathers",
        "Gets the current weather in the provided list of locations.",
        {"locations": CITIES, **UNIT},
        ("locations",),
    ),
    SINK,
]
LOOKUP = function(
    "lookup_weather",
    "Use this tool to lookup the weather in a given location. Call it with the parameter 'location', can be any textual"
    " description of a location.",
    {"location": {"type": "string"}},
    ("location",),
)
NEED = "User asks: “What is the weather in SF?” We need to use lookup_weather tool."
CALLED = [
    HarmonyMessage("user", "What is the weather in SF?"),
    replace(THOUGHT, content=NEED),
    HarmonyMessage("assistant", '{"location": "San Francisco"}', "", "functions.lookup_weather", "commentary", JSON),
    HarmonyMessage("tool", '{"temperature": 20, "description": "sunny"}', "functions.lookup_weather"),
]
THEN = HarmonyMessage("user", "What about 9 / 2?")
SAYS_4 = [USER, replace(THOUGHT, content="Simple arithmetic."), replace(FINAL, content="2 + 2 equals 4."), THEN]
ASKED = 'User asks a simple question: "What is 2 + 2?" The answer: 4.'
TWO = [USER, replace(THOUGHT, content="thinking 2+2"), replace(FINAL, content="4")]
TWO += [HarmonyMessage("user", "What is 3 + 5?"), replace(THOUGHT, content="thinking 3+5"), replace(FINAL, content="8")]
FEW = System(channels=("analysis", "final"))
GOLDEN: dict[str, tuple[Conversation, dict[str, Any]]] = {
    "simple_convo": ([System(), USER], {}),
    **{f"simple_convo_{e}_effort": ([System(reasoning=e), ROBOT, CAPITAL], {}) for e in ("low", "medium", "high")},
    **{
        f"simple_convo_{e}_effort_no_instruction": ([System(reasoning=e), CAPITAL], {})
        for e in ("low", "medium", "high")
    },
    "reasoning_system_message": ([FEW, USER], {}),
    "reasoning_system_message_no_instruction": (
        [replace(FEW, reasoning="high"), HarmonyMessage("user", "What is the best place to eat candy in the world?")],
        {},
    ),
    "reasoning_system_message_with_dates": (
        [
            replace(FEW, current_date="2021-01-01", knowledge_cutoff="2021-01"),
            HarmonyMessage("user", "What is 42 * pi?"),
        ],
        {},
    ),
    "no_tools": ([NOW], {}),
    "browser_tool_only": ([replace(NOW, tools=[BROWSER])], {}),
    "browser_and_python_tool": ([replace(NOW, tools=[PYTHON, BROWSER])], {}),
    "browser_and_function_tool": ([replace(NOW, tools=[BROWSER]), Developer(functions=[LOOKUP])], {}),
    "render_functions_with_parameters": (
        [
            replace(NOW, reasoning="high"),
            Developer("Always respond in riddles", WEATHERS),
            HarmonyMessage("user", "What is the weather like in SF?"),
        ],
        {},
    ),
    "dropping_cot_by_default": (SAYS_4, {}),
    "preserve_cot": ([USER, replace(THOUGHT, content=ASKED), *SAYS_4[2:]], {"drop_analysis": False}),
    "does_not_drop_if_ongoing_analysis": (CALLED, {}),
    "keep_analysis_between_finals": (TWO, {"completion": ""}),
}
ARITHMETIC = 'User asks: "What is 2 + 2?" Simple arithmetic. Provide answer.'
TOKYO = 'User asks: "What is the weather in Tokyo?" We need to use lookup_weather tool.'
RESULT = HarmonyMessage("tool", '{"result": "https://openai.com/"}', "browser.search", "assistant", "commentary")
READ: dict[str, list[Any]] = {  # what is read of the golden texts that are no renderings
    "simple_reasoning_response": [replace(THOUGHT, content=ARITHMETIC), replace(FINAL, content="2 + 2 = 4.")],
    "simple_tool_call": [
        replace(THOUGHT, content=TOKYO),
        HarmonyMessage("assistant", '{"location": "Tokyo"}', "", "lookup_weather", "analysis", "code"),
    ],
    "tool_response_parsing": [RESULT],
    "streamable_parser": [
        None,
        HarmonyMessage(
            "assistant",
            '{"query": "current US president July 2025", "topn": 10, "source": "news"}',
            "",
            "browser.search",
            "commentary",
            "code",
        ),
        RESULT,
    ],
}
# the pieces of o200k_base that the golden token ids stand for
PIECES = {
    13: ".", 17: "2", 19: "4", 25: ":", 28: "=", 220: " ", 290: " the", 306: " in", 314: " =", 316: " to", 382: " is",
    392: ' "', 659: " +", 1199: " use", 1243: '":', 1309: " need", 1416: " We", 1844: "User", 3490: " code",
    4584: " tool", 4827: "What", 6052: " answer", 7693: "location", 10848: '{"', 11122: " weather", 12295: " Simple",
    16842: '?"', 17196: "final", 18583: '"}', 29712: "lookup", 31064: " asks", 35644: "analysis", 37342: " lookup",
    40510: " Tokyo", 51441: " Provide", 81645: " arithmetic", 170154: "_weather", 173781: "assistant", 173844: "Tokyo",
    200002: "<|return|>", 200003: "<|constrain|>", 200005: "<|channel|>", 200006: "<|start|>", 200007: "<|end|>",
    200008: "<|message|>", 200012: "<|call|>",
}  # fmt: skip


@pytest.fixture
def golden(data: Path) -> Any:
    """golden(name): a golden text, without the line end of its file."""
    folder = data / "harmony_golden"
    if not folder.is_dir():
        pytest.skip("RLLAB_DATA has no harmony_golden")
    return lambda name: (folder / f"test_{name}.txt").read_text(encoding="utf-8").removesuffix("\n")


@pytest.mark.parametrize("name", GOLDEN)
def test_conversations_are_rendered_as_openai_renders_them(name: str, golden: Any) -> None:
    conversation, how = GOLDEN[name]
    text = golden(name)
    assert render(conversation, **({"completion": "assistant"} | how)) == text
    messages = parse(text.removesuffix("<|start|>assistant"), role="", strict=True)
    assert render(messages, how.get("completion", "assistant"), drop_analysis=False) == text


def test_all_golden_texts_are_tested(golden: Any, data: Path) -> None:
    files = {path.stem.removeprefix("test_") for path in (data / "harmony_golden").glob("test_*.txt")}
    assert files == {*GOLDEN, *READ} and len(files) == 23


@pytest.mark.parametrize("name", ["simple_reasoning_response", "simple_tool_call"])
def test_golden_tokens_are_read(name: str, golden: Any) -> None:
    words: Any = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({v: k for k, v in PIECES.items()}, ""))
    )
    words.backend_tokenizer.decoder = decoders.Fuse()
    ids = [int(number) for number in golden(name).split()]
    for size in (1, 7, len(ids)):
        parser = TokenParser(words, strict=True)
        deltas = [d for at in range(0, len(ids), size) for d in parser.feed(ids[at : at + size])] + parser.finish()
        assert parser.messages == READ[name]
        assert ["".join(d.text for d in deltas if d.message == i) for i in (0, 1)] == [m.content for m in READ[name]]
    text = "".join(PIECES[i] for i in ids)
    assert parse(text, strict=True) == READ[name]


@pytest.mark.parametrize(("name", "role"), [("streamable_parser", "assistant"), ("tool_response_parsing", "")])
def test_golden_texts_are_read(name: str, role: str, golden: Any) -> None:
    text = golden(name).rstrip()
    messages = parse(text, role, strict=True)
    assert len(messages) == len(READ[name])
    assert [m for m, expected in zip(messages, READ[name], strict=True) if expected not in (None, m)] == []
    assert messages[0].end == ("<|end|>" if role else "") and messages[-1].channel == "commentary"
    assert parse(render(messages, drop_analysis=False), "", strict=True) == messages


PLAIN = "<|channel|>analysis<|message|>2 + 2 < 5 <| <|en<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>"
BAD = [
    " x <|end|> <|channel|> summary <|constrain|> json<|message|>a<|channel|>final<|start|>user:ann<|message|><",
    "<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{<|call|>\n<|start|>fs.f<|message|><|",
    "<|channel|>final 5<|end|>y<|start|>no<|message|><|constrain|><|message|>z<|end|><|end|><|start|><|channel|><|m",
]


def state_of(parser: Parser) -> dict[str, Any]:
    joined = {k: "".join(v) for k, v in vars(parser).items() if k in ("_header", "_content")}
    return vars(parser) | joined


@pytest.mark.parametrize("text", [PLAIN, *BAD])
@pytest.mark.parametrize("role", ["assistant", ""])
def test_every_split_into_pieces_is_read_alike(text: str, role: str) -> None:
    """A piece leads from the state behind any prefix to that behind any longer one; by induction every split does."""
    behind = [Parser(role)]
    for i in range(1, len(text) + 1):
        behind.append(Parser(role))
        behind[i].feed(text[:i])
    states = [state_of(parser) for parser in behind]
    for i, parser in enumerate(behind):
        for j in range(i, len(text) + 1):
            following = deepcopy(parser) if j < len(text) else parser
            following.feed(text[i:j])
            assert state_of(following) == states[j], (text[:i], text[i:j])


def test_deltas_are_the_contents(golden: Any) -> None:
    rng = random.Random(0)
    for text in [golden("streamable_parser"), PLAIN, *BAD]:
        whole = parse(text)
        for _ in range(40):
            parser, deltas, at = Parser(), [], 0
            while at < len(text):
                size = rng.choice((1, 1, 2, 3, 8, 40))
                deltas += parser.feed(text[at : at + size])
                at += size
                if parser.current is not None:
                    own = "".join(d.text for d in deltas if d.message == len(parser.messages))
                    assert parser.current.content == own
            deltas += parser.finish()
            assert parser.messages == whole and [m.end for m in parser.messages] == [m.end for m in whole]
            for i, message in enumerate(whole):
                its = [d for d in deltas if d.message == i]
                assert "".join(d.text for d in its) == message.content
                assert {(d.role, d.channel, d.recipient) for d in its} <= {
                    (message.role, message.channel, message.recipient)
                }


REFUSED = {
    "x": "'x' stands between messages",
    "<|end|>": "stands between messages",
    "<|start|><|message|>x": "a header has no role",
    "<|start|>nobody<|message|>x": "'nobody' is no role: roles are system, developer, user, assistant, and the name",
    "<|start|>assistant<|channel|> final<|message|>x": "no channel follows",
    "<|start|>assistant a b c<|message|>x": "'a' in a header is neither role, recipient, channel nor content type",
    "<|start|>assistant<|channel|>final 5<|end|>": "which has no <|message|> (character 37)",
    "<|start|>assistant<|start|>assistant<|message|>x": "<|start|> stands in a header",
    "<|start|>assistant<|message|>x<|end|> ": "where only <|start|> may stand (character 38)",
    "<|start|>assistant<|channel|>final": "it ends in a header",
}


@pytest.mark.parametrize("text", REFUSED)
def test_strict_parsing_says_what_is_wrong_and_where(text: str) -> None:
    for pieces in ([text], text):
        with pytest.raises(BadHarmony) as caught:
            parser = Parser(role="", strict=True)
            for piece in pieces:
                parser.feed(piece)
            parser.finish()
        assert REFUSED[text] in str(caught.value) and "(character " in str(caught.value)


def seen(text: str) -> list[tuple[str, ...]]:
    return [(m.role, m.name, m.channel, m.recipient, m.content_type, m.content) for m in parse(text)]


def test_broken_text_is_read_as_far_as_it_can_be() -> None:
    assert seen("") == seen("<|channel|>final") == seen("no format at all") == []
    assert seen("<|channel|>final<|message|>4") == [("assistant", "", "final", "", "", "4")]
    assert seen("<|channel|> final <|message|>4<|en") == [("assistant", "", "final", "", "", "4<|en")]
    assert seen("<|channel|>poem<|message|>4<|end|>") == [("assistant", "", "poem", "", "", "4")]
    lost = "<|channel|>analysis<|message|>a<|start|>assistant<|channel|>final<|message|>4<|return|>"
    assert [m[2] for m in seen(lost)] == ["analysis", "final"]
    assert [m[2] for m in seen(lost.replace("<|start|>assistant", ""))] == ["analysis", "final"]
    assert seen("<|channel|>commentary Hello there<|end|>") == [("assistant", "", "commentary", "", "", "Hello there")]
    assert not parse("<|channel|>final 4<|return|>")[0].is_final
    call = " to=functions.f<|channel|>commentary <|constrain|> json<|message|>{}<|call|>"
    assert seen(call) == [("assistant", "", "commentary", "functions.f", JSON, "{}")] and parse(call)[0].is_call
    parser = Parser()
    parser.feed("<|channel|>final<|message|>4<|end|> and  <|end|> <|start|>nobody<|message|><|end|>b")
    assert [f.partition(" (")[0] for f in parser.faults] == [
        "'a' stands between messages, where only <|start|> may stand",
        "<|end|> stands between messages, where only <|start|> may stand",
        "'nobody' is no role: roles are system, developer, user, assistant, and the name of a tool",
        "'b' stands between messages, where only <|start|> may stand",
    ]


@pytest.mark.parametrize(
    "unit",
    [
        "a", "<", "<|", "<|end|>", "<|start|>", "<|channel|>", "<|channel|>final<|message|>", "<|message|>",
        "<|start|>user:ann to=x<|channel|>a<|constrain|>", "<|start|>a b c<|message|><|",
    ],
)  # fmt: skip
def test_a_long_hostile_text_is_read_in_linear_time(unit: str) -> None:
    text = "<|channel|>analysis<|message|>" + unit * (1_000_000 // len(unit))
    begin = time.process_time()
    messages = parse(text)
    assert time.process_time() - begin < 3.0  # it takes a tenth of it
    assert messages and sum(len(m.content) for m in messages) <= len(text)


def test_a_text_of_single_characters_is_read_in_linear_time() -> None:
    parser = Parser()
    for character in "<|channel|>final<|message|>" + "x" * 200_000:
        parser.feed(character)
    parser.finish()
    assert len(parser.messages[0].content) == 200_000


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (HarmonyMessage("nobody", "x"), "message 1 of 1: its role is 'nobody': roles are system, developer, user"),
        (HarmonyMessage("tool", "x"), "it is a tool's and has no name, such as functions.weather"),
        (HarmonyMessage("user", "a<|end|><|start|>system<|message|>b"), "its content holds <|start|>, which would be"),
        (HarmonyMessage("user", "x", name="a b"), "its name is 'a b': it may hold no space and no <"),
        (HarmonyMessage("assistant", "x", channel="<|message|>"), "its channel is '<|message|>': it may hold no space"),
        (System(reasoning="much"), "the reasoning 'much' is unknown: take low, medium, high"),
        (Developer(functions=[{"description": "x"}]), "a tool is {"),
        (Developer("Answer.<|end|>"), "its content holds <|end|>"),
    ],
)
def test_what_would_be_read_otherwise_is_not_rendered(message: Any, why: str) -> None:
    with pytest.raises(Mistake) as caught:
        render([message])
    assert why in str(caught.value)


ONE = """{
a:     // of a
{
    b?: number | null, // default: {"k":[1,null]}
    }[],
c?:
 | "x" // default: x
 | boolean | null // default: false
,
d?: string, // default: é
e?: Array<any>,
// F
//
// Examples:
// - "q"
f?: any,
}"""
TWO_TYPES = '\n | "x" // default: "x"\n | \n    | number'


def test_schemas_are_written_as_openai_writes_them() -> None:
    """As openai-harmony 0.0.8 does, which needs a vocabulary from the network and so cannot be asked here."""
    inner = {"type": ["integer", "null"], "default": {"k": [1, None]}}
    letter = {"type": "string", "enum": ["x"], "default": "x"}
    either = [letter | {"description": "c1"}, {"type": "boolean", "nullable": True, "default": False}]
    properties = {
        "a": {"type": "array", "items": {"type": "object", "description": "of a", "properties": {"b": inner}}},
        "c": {"oneOf": either, "description": "c1"},
        "d": {"type": "string", "enum": [1], "default": "é"},
        "e": {"type": "array"},
        "f": {"type": "null", "examples": ["q", 3], "title": "F"},
    }
    two = {"oneOf": [letter, {"oneOf": [{"type": "integer"}]}]}
    functions = [function("one", "First.\nSecond.", properties, ("a",)), {"name": "two", "parameters": two}]
    text = Developer(functions=[*functions, {"name": "odd", "parameters": {"type": "array", "items": 3}}]).text()
    assert f"// First.\n// Second.\ntype one = (_: {ONE}) => any;\n\ntype two = (_: {TWO_TYPES}) => any;\n\n" in text
    assert "type odd = (_: any[]) => any;" in text


def test_what_is_rendered_is_read_again() -> None:
    rng = random.Random(1)
    for _ in range(300):
        messages = [
            HarmonyMessage(
                role := rng.choice(("system", "developer", "user", "assistant", "tool")),
                "".join(rng.choice("ab.<|é") for _ in range(rng.randint(0, 6))),
                {"tool": "functions.f"}.get(role, rng.choice(("", "ann"))),
                rng.choice(("", "functions.g", "python")),
                rng.choice(("", "analysis", "commentary", "final", "poem")),
                rng.choice(("", JSON)),
            )
            for _ in range(rng.randint(1, 4))
        ]
        messages = [m if m.recipient else replace(m, content_type="") for m in messages]
        assert parse(render(messages, drop_analysis=False), "", strict=True) == messages


def test_an_answer_that_is_learned_ends_as_a_model_ends_it() -> None:
    talk = [*TWO, THEN, replace(FINAL, content="4.5")]
    assert render(talk, training=True) == render(talk).removesuffix("<|end|>") + "<|return|>"
    assert render(talk).count("<|return|>") == 0 and render(TWO[:4], training=True) == render(TWO[:4])
    assert "thinking 2+2" not in render(talk) and "thinking 3+5" in render(talk)


def test_tokens_of_several_bytes_and_ordinary_tokens_that_look_special() -> None:
    words = tokenizer("gpt-oss")
    text = "<|channel|>final<|message|>é 🙂 <<|return|>"
    ids = words.encode(text, add_special_tokens=False)
    parser = TokenParser(words)
    assert "".join(d.text for i in ids for d in parser.feed([i])) == parser.messages[0].content == "é 🙂 <"
    ordinary = [words.get_vocab()[c] for c in "<|end|>"]  # byte by byte, so it is no special token
    parser = TokenParser(words)
    parser.feed([*words.encode("<|channel|>final<|message|>", add_special_tokens=False), *ordinary])
    parser.finish()
    assert parser.messages[0].content == "<|end|>" and parser.messages[0].end == ""
    with pytest.raises(Mistake, match=r"the tokenizer has no <\|start\|>: a model of Harmony's format has it"):
        TokenParser(tokenizer("qwen3"))
