"""Fixtures and options of the tests."""

import copy
import hashlib
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from rllab.core.recipe import Recipe, load_recipe, read_recipe
from rllab.core.run import RunFolder
from rllab.core.stop import Stop
from rllab.core.trainer import Trainer

pytest_plugins = ["evaluated", "graded"]  # fixtures of several files
TESTS = Path(__file__).parent
TOY = "algo: toys.py:{algo}\ntotal_steps: 6\neval_every: 2\noptim: {{lr: 0.01, warmup: 2, decay: linear}}\n"

QWEN = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nightly", action="store_true", help="also run tests marked nightly (tests/NIGHTLY.md)")


def pytest_configure() -> None:
    """Lets programs of the tests be interrupted where a shell started the tests in its background, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects tests marked `nightly` unless `--nightly` is given."""
    nightly = [item for item in items if item.get_closest_marker("nightly")]
    if nightly and not config.getoption("nightly"):
        items[:] = [item for item in items if item not in nightly]
        config.hook.pytest_deselected(items=nightly)


@pytest.fixture(autouse=True, scope="session")
def trained_once() -> Iterator[None]:
    """A byte-pair tokenizer is trained once for the same texts. test_rows.py tests that a second training is equal.

    The texts of a task that cannot change are drawn once.
    """
    from rllab_envs.tasks.calculator import Calculator

    from rllab.text import tokenizers

    train, kept = tokenizers.byte_pair_tokenizer, dict[str, Any]()
    draw, drawn = tokenizers._texts, dict[Any, list[str]]()

    def trained(texts: Iterable[str], *size: int) -> Any:
        texts = list(texts)
        key = hashlib.sha256(json.dumps([texts, size]).encode()).hexdigest()
        if key not in kept:
            kept[key] = train(texts, *size)
        return copy.deepcopy(kept[key])

    def texts_of(task: Any) -> Iterable[str]:
        if not isinstance(task, Calculator):
            return draw(task)
        if task not in drawn:
            drawn[task] = list(draw(task))
        return drawn[task]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizers, "byte_pair_tokenizer", trained)
        patch.setattr(tokenizers, "_texts", texts_of)
        yield


@pytest.fixture(autouse=True, scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hides the runs of this machine's user from the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLLAB_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def toy() -> Callable[..., Recipe]:
    """toy("total_steps=3", algo="TwoParts"): a recipe of tests/toys.py."""

    def make(*words: str, algo: str = "Regression") -> Recipe:
        return read_recipe(TOY.format(algo=algo), "toy.yaml", TESTS, "toy", words)

    return make


def run(recipe: Recipe, folder: Path, *, stop_after: int | None = None, **more: object) -> Trainer:
    """Trains to the end, or is asked to stop after a step."""
    stop = Stop()
    trainer = Trainer(recipe, RunFolder(folder), stop=stop, **more)  # type: ignore[arg-type]
    for row in trainer:
        if row["step"] == stop_after:
            stop.reason = "test"
    return trainer


def smoke_runs(folder: Path, *names: str) -> Path:
    """A folder with a run of each recipe's smallest size, under the recipe's name."""
    for name in names:
        run(load_recipe(name, smoke=True), folder / name)
    return folder


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects in a file, one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def data() -> Path:
    """Benchmark files, in the folder that RLLAB_DATA names."""
    where = os.environ.get("RLLAB_DATA", "")
    if not where:
        pytest.skip("RLLAB_DATA names no folder with benchmark files")
    return Path(where)


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2 with a byte-level BPE tokenizer and Qwen's chat format, in a folder like those of the hub."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

    folder = tmp_path_factory.mktemp("qwen")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    text = ["How many clips did Natalia sell altogether in April and May? 48 + 24 = 72\n"] * 20
    tokenizer.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = QWEN
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(fast),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


class Server:
    """An HTTP service on this machine. `answer` makes its replies; `asked` keeps path, headers and body of requests."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.answer: Callable[[Any], tuple[int, Any]] = lambda body: (200, [0.0] * len(body["prompts"]))
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                status, reply = outer.answer(body)
                text = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.send_header("retry-after", "0")
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("rllab.rewards.remote._FIRST_WAIT", 0.01)
    service = Server()
    yield service
    service.close()
