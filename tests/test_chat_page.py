"""A chat with a run's language model in a browser, with its base beside it."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import axe, becomes, board, browser_page, chromium, overflow  # noqa: F401 - fixtures

from rllab.board import chat, play
from rllab.board.workers import Workers
from rllab.core.recipe import load_recipe
from rllab.core.trainer import Trainer
from rllab.text.open import open_model
from rllab.text.reply import base_of, reply
from rllab.text.sampler import Sampling

SAID = "Ana has 20 books."
MARKUP = "<img src=x onerror=\"document.title='own'\"><script>document.title='own'</script>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    list(Trainer(load_recipe("pocket", {"total_steps": 4}, smoke=True), folder / "small"))
    settings = {"model": str(folder / "small" / "checkpoints" / "00000004"), "shape": {}, "optim.lr": 0.05}
    list(Trainer(load_recipe("sft-lora", settings, smoke=True), folder / "tuned"))
    list(Trainer(load_recipe("cartpole", {"total_steps": 1, "expect": {}}, smoke=True), folder / "pole"))
    return folder


@pytest.fixture(scope="module")
def workers(runs: Path) -> Iterator[Workers]:
    with Workers(runs) as asked:
        yield asked


@pytest.fixture
def opened(board: Callable[..., str], browser_page: Callable[..., Any], runs: Path, workers: Workers) -> Any:  # noqa: F811
    address = board(runs, play.routes(workers), chat.routes(workers)).replace("/?", "/chat?run={}&")

    def open_page(run: str, **settings: Any) -> Any:
        page = browser_page(**settings)
        page.goto(address.format(run))
        return page

    return open_page


def said(page: Any, text: str) -> None:
    """Sends a message, and waits for the replies."""
    page.fill("#text", text)
    page.keyboard.press("Enter")
    becomes(page, "asked === null && document.querySelectorAll('.turn').length > 0")


def test_a_reply_is_streamed_and_is_the_model_s(runs: Path, workers: Workers) -> None:
    request = {"do": "reply", "messages": [{"role": "user", "content": SAID}], "style": "free", "max_new_tokens": 200}
    *more, end = workers.ask("small", request)
    lm = open_model(str(runs / "small" / "checkpoints" / "00000004"))
    whole = reply(lm, request["messages"], "free", Sampling(max_new_tokens=200))  # type: ignore[arg-type]
    assert end["end"]["text"] == whole and all(whole.startswith(line["more"]["text"]) for line in more)
    assert len(more) >= 2, "it came at once"
    for wrong, why in (
        ({"messages": []}, "messages must be"),
        ({"style": "loud"}, "style must be one of direct, think, free"),
        ({"max_new_tokens": 0}, "must be a whole number from 1 to 4,096"),
        ({"messages": [{"role": "user", "content": SAID * 200}]}, "and the model's context has 512"),
    ):
        (line,) = workers.ask("small", request | wrong)
        assert why in line["error"]


def test_a_chat_beside_the_base(opened: Any, runs: Path) -> None:
    page = opened("tuned", width=390, height=800)
    page.check("#base")
    page.fill("#tokens", "12")
    said(page, SAID)
    folder = str(runs / "tuned" / "checkpoints" / "00000004")
    for who, name in (("model", folder), ("base", base_of(folder))):
        messages = [{"role": "user", "content": SAID}]
        whole = reply(open_model(name), messages, "free", Sampling(max_new_tokens=12))
        assert page.evaluate(f"messages.{who}[1].content") == whole
        shown = page.locator(f"article[data-who={who}] .text").inner_text()
        assert whole.split() == shown.split() or "(empty)" in shown or "thought" in shown
    said(page, "Ana has 5 cups.")
    assert page.evaluate("messages.model.length") == 4 and page.locator(".turn").count() == 2
    assert overflow(page) <= 0
    page.click("#new")
    assert page.locator(".turn").count() == 0 and page.evaluate("messages.model.length") == 0
    said(page, "again")
    assert axe(page) == []


def test_a_full_context_is_refused_and_the_message_kept(opened: Any) -> None:
    page = opened("small")
    said(page, SAID * 200)
    assert "the model's context has 512: begin a new conversation" in page.locator("#problem").inner_text()
    assert page.input_value("#text") == (SAID * 200) and page.evaluate("messages.model.length") == 0


def test_a_reply_is_stopped(opened: Any) -> None:
    page = opened("small")
    page.fill("#tokens", "480")
    said(page, SAID)
    whole = page.evaluate("messages.model[1].content")
    page.click("#new")
    page.fill("#text", SAID)
    page.keyboard.press("Enter")
    becomes(page, "document.querySelector('[data-who=model] .text')?.textContent.length > 0")
    page.click("#stop")
    becomes(page, "asked === null")
    kept = page.evaluate("messages.model[1].content")
    assert "(stopped)" in page.locator(".turn").inner_text() and whole.startswith(kept) and len(kept) < len(whole)
    page.fill("#tokens", "5")
    said(page, "Ana has 5 cups.")  # the conversation goes on
    assert page.evaluate("messages.model.length") == 4


def test_what_models_and_people_write_is_inert(opened: Any) -> None:
    page = opened("small", scheme="dark")
    page.fill("#tokens", "4")
    said(page, MARKUP)
    assert MARKUP in page.locator(".mine .text").inner_text()
    parts = [[True, f" {MARKUP} "], [False, f"{MARKUP} #### 5"]]
    page.evaluate(f"fill(document.querySelector('[data-who=model] .text'), {json.dumps(parts)}, true)")
    shown = page.locator("[data-who=model] .text")
    assert MARKUP in shown.inner_text() and shown.locator("details.thinking summary").inner_text() == "thought, 3 words"
    shown.locator("summary").click()
    assert shown.inner_text().count(MARKUP) == 2
    assert page.locator("main img, main script").count() == 0 and page.title() == "rllab: chat with small"


def test_a_model_that_writes_markup_is_inert(opened: Any, runs: Path) -> None:
    folder = runs / "hostile" / "checkpoints" / "00000004"
    shutil.copytree(runs / "small", runs / "hostile")
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text().replace('"<think>"', json.dumps(MARKUP)))
    words = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {(MARKUP + "x" * i if i >= 10 else word): i for word, i in words.items()}
    file.write_text(json.dumps(tokenizer))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["tokenizer.json"] = [file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    page = opened("hostile")
    page.fill("#tokens", "20")
    said(page, SAID)
    if page.locator("summary").count():
        page.locator("summary").click()
    assert page.locator("[data-who=model] .text").inner_text().count(MARKUP) > 0
    assert page.locator("main img, main script").count() == 0 and page.title() == "rllab: chat with hostile"


def test_pages_are_named_on_the_page_of_a_run(opened: Any) -> None:
    page = opened("small")
    page.get_by_role("link", name="small").click()
    assert page.get_by_role("link", name="chat with small").is_visible()
    page.goto(page.url.replace("small", "pole"))
    assert not page.get_by_role("link", name="chat with pole").count()
    assert not page.get_by_role("link", name="play pole").count()
    page.problems.clear()
