"""The tools that the models of Harmony's format were trained with, described in the words that they were trained on.

Source: https://github.com/openai/harmony, docs/format.md (Apache-2.0).
"""

from typing import Any

from rllab.text.signatures import Namespace

_LAST = {"type": "number", "default": -1}


def _tool(name: str, description: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required}
    return {"name": name, "description": description, "parameters": schema}


BROWSER = Namespace(
    "browser",
    "Tool for browsing.\n"
    "The `cursor` appears in brackets before each browsing display: `[{cursor}]`.\n"
    "Cite information from the tool using the following format:\n"
    "`【{cursor}†L{line_start}(-L{line_end})?】`, for example: `【6†L9-L11】` or `【8†L3】`.\n"
    "Do not quote more than 10 words directly from the tool output.\n"
    "sources=web (default: web)",
    [
        _tool(
            "search",
            "Searches for information related to `query` and displays `topn` results.",
            {"query": {"type": "string"}, "topn": {"type": "number", "default": 10}, "source": {"type": "string"}},
            ["query"],
        ),
        _tool(
            "open",
            "Opens the link `id` from the page indicated by `cursor` starting at line number `loc`, showing `num_lines`"
            " lines.\n"
            "Valid link ids are displayed with the formatting: `【{id}†.*】`.\n"
            "If `cursor` is not provided, the most recent page is implied.\n"
            "If `id` is a string, it is treated as a fully qualified URL associated with `source`.\n"
            "If `loc` is not provided, the viewport will be positioned at the beginning of the document or centered on "
            "the most relevant passage, if available.\n"
            "Use this function without `id` to scroll to a new location of an opened page.",
            {
                "id": {"type": ["number", "string"], "default": -1},
                **dict.fromkeys(("cursor", "loc", "num_lines"), _LAST),
                "view_source": {"type": "boolean", "default": False},
                "source": {"type": "string"},
            },
            [],
        ),
        _tool(
            "find",
            "Finds exact matches of `pattern` in the current page, or the page given by `cursor`.",
            {"pattern": {"type": "string"}, "cursor": _LAST},
            ["pattern"],
        ),
    ],
)
PYTHON = Namespace(
    "python",
    "Use this tool to execute Python code in your chain of thought. The code will not be shown to the user. This tool "
    "should be used for internal reasoning, but not for code that is intended to be visible to the user (e.g. when "
    "creating plots, tables, or files).\n\n"
    "When you send a message containing Python code to python, it will be executed in a stateful Jupyter notebook "
    "environment. python will respond with the output of the execution or time out after 120.0 seconds. The drive at "
    "'/mnt/data' can be used to save and persist user files. Internet access for this session is UNKNOWN. Depends on "
    "the cluster.",
)
