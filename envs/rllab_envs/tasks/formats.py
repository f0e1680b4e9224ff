"""Published forms of rows (ShareGPT, Alpaca, HelpSteer, UltraFeedback, hh-rlhf) as conversations and completions.

{"conversations": [{"from": "human", "value": ...}, ...]}           ShareGPT: becomes `messages`
{"instruction": ..., "input": ..., "output": ...}                   Alpaca: `prompt` and `completion`
{"prompt": ..., "response": ..., "helpfulness": ...}                HelpSteer: `prompt` and `completion`
{"prompt", "response_1", "response_2", "preference_strength"}       HelpSteer2: a ranking, with ties
{"context", "response1", "response2", "overall_preference"}         HelpSteer3: a ranking, with ties
{"prompt": "a", "chosen": [{"role": "user", "content": "a"}, ...]}  UltraFeedback: completions behind their prompt
{"chosen": "\\n\\nHuman: ...", "rejected": "\\n\\nHuman: ..."}          hh-rlhf: the common beginning is `prompt`
"""

import re
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

from rllab_envs.tasks.messages import (
    BEFORE,
    RowFault,
    check_number,
    check_turns,
    check_written,
    completion_of,
    listed,
    messages_of,
    shown,
    text_of,
)

FORMATS = (
    ("messages",),
    ("text",),
    ("prompt", "completions", "ranks"),
    ("chosen", "rejected"),
    ("prompt", "completion"),
    ("prompt",),  # for a policy, which samples the completion
)
_LEARNED = ("messages", "text", "completions", "chosen", "completion")  # a row has one of them
_PAIRS = (  # HelpSteer2's and HelpSteer3's answers, and the preference: below 0 for the first
    ("response_1", "response_2", "preference_strength"),
    ("response1", "response2", "overall_preference"),
)


def canonical(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row in one of the forms of `FORMATS`; other columns are kept.

    Raises:
        RowFault: it has none of the forms or several, or a column is empty or no text.
    """
    named = {k: v for k, v in row.items() if v is not None}
    for convert in (_sharegpt, _alpaca, _helpsteer, _ultrafeedback):
        named = convert(named)
    columns = [c for c in _columns(named) if c != "ranks"]
    for column in columns:
        if column == "completions":
            named[column] = [completion_of(c, column) for c in listed(named[column], column)]
        elif column == "messages":
            named[column] = messages_of(named[column], column)
        else:
            named[column] = text_of(named[column], column) if column == "text" else completion_of(named[column], column)
    _check_numbers(named)
    if not isinstance(named.get("completion", ""), str):
        check_written(named["completion"], "completion")
    if "messages" in named:
        check_turns(named["messages"])
        return _with_messages(named)
    if "chosen" in named and "prompt" not in named:
        return _with_common_prompt(named)
    if "prompt" not in named:
        return named
    _check_prompt(named, columns)
    return _with_one_prompt(named, [c for c in columns if c != "prompt"])


def ranked(rows: Sequence[Mapping[str, Any]], by: str) -> dict[str, Any]:
    """Returns one ranking of canonical rows with the same prompt, whose completions are rated in the column `by`.

    The highest rating is the best. Other columns are those of the first row.

    Raises:
        RowFault: there is one row alone, or a row has no completion or no rating.
    """
    if any("completion" not in row or "prompt" not in row for row in rows):
        raise RowFault("rank_by ranks rows with prompt and completion")
    ratings = [row.get(by) for row in rows]
    for rating in ratings:
        if isinstance(rating, bool) or not isinstance(rating, (int, float)):
            raise RowFault(
                f"its {by} is {shown(rating)}, not a number to rank by; its columns are {', '.join(rows[0])}"
            )
    if len(rows) < 2:
        raise RowFault("its prompt has one completion: the rows of a prompt that rank_by compares follow each other")
    kept = {k: v for k, v in rows[0].items() if k not in ("completion", by)}
    return kept | {
        "completions": [row["completion"] for row in rows],
        "ranks": [-float(r) for r in ratings if r is not None],
    }


def learned(row: Mapping[str, Any]) -> str:
    """Returns what is learned from a canonical row, such as 'chosen as text' or 'prompt alone as conversation'."""
    column = next((c for c in _LEARNED if c in row), "prompt alone")
    parts = [row.get("prompt", ""), *(row["completions"] if column == "completions" else [row.get(column, "")])]
    return f"{column} as {'text' if all(isinstance(part, str) for part in parts) else 'conversation'}"


def filled(template: str, row: Mapping[str, Any]) -> str:
    """Returns a template such as "{instruction}\\n{input}" with the row's columns in place of their names.

    A line is left out if it names columns and all of them are empty.

    Raises:
        RowFault: the row has no such column, or it holds no text.
    """
    lines = []
    for line in template.split("\n"):
        parts = list(Formatter().parse(line))
        values = [_cell(row, name) for _, name, _, _ in parts if name is not None]
        if any(values) or not values:
            texts = iter(values)
            lines.append("".join(literal + (next(texts) if name is not None else "") for literal, name, _, _ in parts))
    return "\n".join(lines)


def check_template(template: str) -> None:
    """Checks a template for `filled`.

    Raises:
        ValueError: it names no column, or its braces do not hold the name of one.
    """
    try:
        fields = [field for field in Formatter().parse(template) if field[1] is not None]
    except ValueError:
        fields = []
    if not fields or any(not name or spec or conversion for _, name, spec, conversion in fields):
        raise ValueError(
            f"{template!r}: names columns in braces, as in '{{instruction}} {{input}}'; a brace itself is written twice"
        )


def _cell(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        raise RowFault(f"its columns are {', '.join(row)}, and a template of the task names {name!r}")
    return "" if row[name] is None else text_of(row[name], name, blank=True)


# Published forms.


def _sharegpt(row: dict[str, Any]) -> dict[str, Any]:
    """`conversations` becomes `messages`, which begin with the column `system` if there is one."""
    if "conversations" not in row or "messages" in row:
        return row
    turns = messages_of(row["conversations"], "conversations")
    if row.get("system") and turns[0]["role"] not in BEFORE:
        turns = [_by("system", row["system"], "system"), *turns]
    elif row.get("system") and turns[0]["content"].strip() != str(row["system"]).strip():
        raise RowFault("its conversations begin with another system message than its column system: leave out one")
    return {k: v for k, v in row.items() if k != "conversations"} | {"messages": turns}


def _alpaca(row: dict[str, Any]) -> dict[str, Any]:
    """`instruction`, `input` and `output` become a conversation; `output` alone where a template made the prompt."""
    if "output" not in row or "completion" in row or not {"instruction", "prompt"} & set(row) or "messages" in row:
        return row
    row = {k: v for k, v in row.items() if k != "text"}  # of some copies: all columns in one
    if "prompt" in row:
        return row | {"completion": row["output"]}
    asked = filled("{instruction}\n{input}", {"input": None} | row)
    before = [_by("system", row["system"], "system")] if row.get("system") else []
    for exchange in listed(row["history"], "history") if row.get("history") else ():
        if not isinstance(exchange, list) or len(exchange) != 2:
            raise RowFault(f"its history is {shown(exchange)}, not a question and its answer")
        before += [_by(role, text, "history") for role, text in zip(("user", "assistant"), exchange, strict=True)]
    return row | {
        "prompt": [*before, _by("user", asked, "instruction")],
        "completion": [_by("assistant", row["output"], "output")],
    }


def _helpsteer(row: dict[str, Any]) -> dict[str, Any]:
    """`response` becomes `completion`; two responses with a preference become a ranking, in which 0 is a tie."""
    prompt = row.get("prompt", row.get("context"))
    if prompt is None:
        return row
    if isinstance(prompt, str):
        prompt = [_by("user", prompt, "prompt")]
    for first, second, by in _PAIRS:
        if {first, second, by} <= set(row):
            strength = row[by]
            check_number(strength, f"its {by}")
            texts = [[_by("assistant", row[c], c)] for c in (first, second)]
            ranks = [float(strength > 0), float(strength < 0)]
            return row | {"prompt": prompt, "completions": texts, "ranks": ranks}
    if {"response", "helpfulness"} <= set(row) and "completion" not in row:
        return row | {"prompt": prompt, "completion": [_by("assistant", row["response"], "response")]}
    return row


def _ultrafeedback(row: dict[str, Any]) -> dict[str, Any]:
    """`messages` that repeat `chosen` (or `completion`, where it is renamed) are left out."""
    repeated = "messages" in row and row["messages"] in (row.get("chosen"), row.get("completion"))
    return {k: v for k, v in row.items() if k != "messages" or not repeated}


def _by(role: str, text: Any, column: str) -> dict[str, Any]:
    return {"role": role, "content": text_of(text, column)}


# Checks of the lab's own forms.


def _columns(row: Mapping[str, Any]) -> list[str]:
    """The columns of a row's form.

    Raises:
        RowFault: it has none, or several that contradict each other.
    """
    present = [c for c in _LEARNED if c in row]
    if len(present) > 1:
        raise RowFault(
            f"it has {' and '.join(present)}, and one of them is learned: rename the other, as in task: "
            f"{{name: mine.jsonl, columns: {{{present[-1]}: not_learned}}}}"
        )
    fits = next((f for f in FORMATS if all(c in row for c in f)), None)
    if fits is None:
        wanted = "; ".join(" and ".join(f) for f in FORMATS)
        raise RowFault(
            f"its columns are {', '.join(row)}; a row has {wanted}. Say which is which, as in "
            "task: {name: mine.jsonl, columns: {question: prompt, answer: completion}}"
        )
    if present and present[0] not in fits:
        needed = next(f for f in FORMATS if present[0] in f)
        raise RowFault(f"it has {present[0]}, and lacks {' and '.join(c for c in needed if c not in row)}")
    if present == ["text"] and "prompt" in row:
        raise RowFault(
            "it has text and prompt, and all of a text is learned: rename one, as in task: "
            "{name: mine.jsonl, columns: {text: not_learned}}"
        )
    return list(dict.fromkeys([*fits, *(["prompt"] if "prompt" in row else [])]))


def _check_numbers(row: Mapping[str, Any]) -> None:
    """Checks that a ranking has a rank for each completion, and that a margin is a number."""
    if "completions" in row:
        ranks = listed(row["ranks"], "ranks")
        if len(ranks) != len(row["completions"]):
            raise RowFault(f"it has {len(row['completions'])} completions and {len(ranks)} ranks: give each its rank")
        for rank in ranks:
            check_number(rank, "one of its ranks")
    if "chosen" in row and "margin" in row:
        check_number(row["margin"], "its margin")


def _check_prompt(row: Mapping[str, Any], columns: Sequence[str]) -> None:
    """Checks that a prompt does not end with the assistant, and that texts have no tools, which a template renders."""
    if not isinstance(row["prompt"], str) and row["prompt"][-1]["role"] == "assistant":
        raise RowFault("its prompt ends with a message of the assistant, which is not continued: give it as completion")
    if row.get("tools") in (None, "", "[]", "null", []) or "completions" in columns:
        return
    if all(isinstance(row[c], str) for c in columns):
        raise RowFault("it has tools, and its prompt is a text: write it as a conversation, or leave out the tools")


def _with_messages(row: dict[str, Any]) -> dict[str, Any]:
    """The `prompt` beside `messages`, as published sets repeat it, becomes the beginning of the conversation."""
    if "prompt" not in row:
        return row
    messages = row["messages"]
    until = _end_of_prompt(completion_of(row["prompt"], "prompt"), messages)
    if not until:
        raise RowFault(
            "it has messages and prompt, and they do not begin alike: rename the one that is not learned, as in task: "
            "{name: mine.jsonl, columns: {prompt: not_learned}}"
        )
    return row | {"prompt": messages[:until]}


def _end_of_prompt(prompt: str | list[dict[str, Any]], conversation: list[dict[str, Any]]) -> int:
    """How many messages of a conversation are the prompt, which it begins with; 0: it does not begin with it."""
    if not isinstance(prompt, str):
        return len(prompt) if conversation[: len(prompt)] == prompt else 0
    asked = next((i for i, m in enumerate(conversation) if m["role"] == "user"), None)
    if asked is None or conversation[asked]["content"].strip() != prompt.strip():
        return 0
    return asked + 1


def _with_one_prompt(row: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Where completions are conversations, a prompt as text becomes one, and completions begin behind the prompt."""
    if not columns:
        return row
    every = {c: row[c] if c == "completions" else [row[c]] for c in columns}
    split = {c: [_behind(row["prompt"], each, c) for each in own] for c, own in every.items()}
    prompts = [prompt for pairs in split.values() for prompt, _ in pairs]
    if any(prompt != prompts[0] for prompt in prompts):
        raise RowFault(f"its {' and '.join(columns)} are texts and conversations, or have different prompts")
    rests = {c: [rest for _, rest in pairs] for c, pairs in split.items()}
    return row | {"prompt": prompts[0]} | {c: r if c == "completions" else r[0] for c, r in rests.items()}


def _behind(prompt: Any, completion: Any, column: str) -> tuple[Any, Any]:
    """(prompt, completion) of a row whose completion may repeat its prompt, as UltraFeedback's do."""
    if isinstance(completion, str):
        return prompt, completion
    first = completion[0]["role"]
    if first == "assistant":
        return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt, completion
    until = _end_of_prompt(prompt, completion)
    if not until or [m["role"] for m in completion[until : until + 1]] != ["assistant"]:
        raise RowFault(f"its {column} begins with a message of the {first}, and not with its prompt or the assistant's")
    return completion[:until], completion[until:]


def _with_common_prompt(row: dict[str, Any]) -> dict[str, Any]:
    """The common beginning of the chosen and the rejected conversation becomes their prompt.

    Transcripts as in hh-rlhf become conversations. Other texts are cut before the last space of their common beginning.
    """
    chosen, rejected = (_transcript(row[c]) for c in ("chosen", "rejected"))
    if isinstance(chosen, str) and isinstance(rejected, str):
        alike = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), len(chosen))
        same = max(0, chosen.rfind(" ", 0, min(alike + 1, len(chosen), len(rejected))))
    elif isinstance(chosen, str) or isinstance(rejected, str):
        raise RowFault("of its chosen and rejected, one is a conversation and the other is a text: give both one form")
    else:
        same = 0
        while same < min(len(chosen), len(rejected)) - 1 and chosen[same] == rejected[same]:
            same += 1
        while same and {chosen[same]["role"], rejected[same]["role"]} != {"assistant"}:
            same -= 1  # completions begin with the assistant
        shorter, longer = sorted((chosen, rejected), key=len)
        if len(shorter) < len(longer) and longer[: len(shorter)] == shorter:
            raise RowFault("one of its chosen and rejected is the beginning of the other, so they compare nothing")
    if not same:
        raise RowFault(
            "its chosen and rejected do not begin alike, so they have no prompt: give it in a column `prompt`"
        )
    return row | {"prompt": chosen[:same], "chosen": chosen[same:], "rejected": rejected[same:]}


def _transcript(text: Any) -> Any:
    """The messages of '\\n\\nHuman: ...\\n\\nAssistant: ...' (Bai et al. 2022); anything else stays as it is."""
    turns = re.split(r"\n\n(Human|Assistant):", text) if isinstance(text, str) else []
    if len(turns) < 3:
        return text
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[who], "content": turn.strip()} for who, turn in zip(turns[1::2], turns[2::2], strict=True)]
