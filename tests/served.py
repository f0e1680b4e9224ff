"""A stand-in for vLLM's server: the same requests and answers over HTTP, from a small model on the CPU.

As a program it takes the words of `vllm serve` or of `trl vllm-serve`: python tests/served.py serve FOLDER --port 8000.
STANDIN_DIES=N in its environment: it dies in the middle of round N, with a line in its log. `as_vllm` makes a package
of it that TRL takes for vLLM.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from rllab.text.open import open_model
from rllab.text.sampler import Completion, Sampling, generate

Answer = tuple[int, Any]  # status, content


class StandIn:
    """A server on a free port of this machine, whose `answer` a test may replace. asked: (path, question) of each."""

    def __init__(self, model: str | Path, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.name, self.lm = str(model), open_model(str(model))
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.noise, self.pushes, self.max_model_len = 0.0, 0, 4096
        self._turn = Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._reply({})

            def do_POST(self) -> None:
                self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}"))

            def _reply(self, question: dict[str, Any]) -> None:
                with outer._turn:
                    outer.asked.append((self.path, question))
                    status, content = outer.answer(self.path, question)
                body = b"" if content is None else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(address, Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def start(self) -> "StandIn":
        """Serves from a thread."""
        Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def answer(self, path: str, question: dict[str, Any]) -> Answer:
        """What vLLM answers."""
        if path == "/v1/models":
            return 200, {"data": [{"id": self.name, "max_model_len": self.max_model_len}]}
        if path == "/v1/completions":
            return 200, {"choices": self.choices(question)}
        if path == "/collective_rpc":
            assert question["method"] == "reload_weights"
            self.reload(Path(question["kwargs"]["weights_path"]))
            return 200, {"results": [None]}
        return 200, {"success": True} if path == "/reset_prefix_cache" else None

    def reload(self, folder: Path) -> None:
        """Loads the weights of a folder; `noise` is the deviation of what is added to each."""
        (file,) = folder.glob("*.safetensors")
        weights, tied = load_file(file), self.lm.model.state_dict().keys()
        generator = torch.Generator().manual_seed(self.pushes)
        for w in weights.values():
            w += self.noise * torch.randn(w.shape, generator=generator)
        missing, unexpected = self.lm.model.load_state_dict(weights, strict=False)
        assert not unexpected and all("lm_head" in name for name in missing), (missing, unexpected, tied)
        self.pushes += 1

    def choices(self, question: dict[str, Any]) -> list[dict[str, Any]]:
        """Completions of one prompt."""
        assert question["model"] == self.name and question["ignore_eos"] and question["logprobs"] == 0
        assert set(question["stop_token_ids"]) == self.lm.stop_ids
        sampling = Sampling(max_new_tokens=question["max_tokens"], temperature=question["temperature"])

        def uniforms(_: int, sample: int) -> np.ndarray:
            return np.random.default_rng(question["seed"] + sample).random(sampling.max_new_tokens)

        each = generate(self.lm, [question["prompt"]], sampling, question["n"], uniforms)
        return [self.choice(c, question) for c in each]

    def choice(self, c: Completion, question: dict[str, Any]) -> dict[str, Any]:
        """A completion as vLLM writes it."""
        names = [self.lm.tokenizer.decode([i]) for i in c.ids]
        return {
            "index": c.sample,
            "text": "".join(names),
            "token_ids": c.ids,
            "prompt_token_ids": question["prompt"],
            "logprobs": {"tokens": names, "token_logprobs": c.logp, "top_logprobs": [None] * len(c.ids)},
            "finish_reason": "stop" if c.finished else "length",
            "stop_reason": c.ids[-1] if c.finished else None,
        }


class Mortal(StandIn):
    """A stand-in that ends its process in the middle of a round."""

    def __init__(self, *args: Any, dies: int) -> None:
        super().__init__(*args)
        self._dies, self._prompts = dies, 0

    def answer(self, path: str, question: dict[str, Any]) -> Answer:
        self._prompts = self._prompts + 1 if path == "/v1/completions" else 0
        if self.pushes == self._dies and self._prompts == 2:
            print("torch.OutOfMemoryError: CUDA out of memory (a stand-in for it)", file=sys.stderr, flush=True)
            os._exit(1)
        return super().answer(path, question)


def as_vllm(folder: Path) -> Path:
    """Writes a package `vllm` of a version that TRL knows, whose command is this file; returns its folder."""
    command = folder / "vllm/entrypoints/cli/main.py"
    command.parent.mkdir(parents=True)
    for package in (command.parent, command.parents[1], command.parents[2]):
        (package / "__init__.py").touch()
    command.write_text(f"import runpy\nrunpy.run_path({__file__!r}, run_name='__main__')\n")
    (record := folder / "vllm-0.31.0.dist-info").mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.31.0\n")
    (record / "top_level.txt").write_text("vllm\n")
    return folder


def flag(name: str, otherwise: str) -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else otherwise


if __name__ == "__main__":
    seen = {name: os.environ.get(name) for name in ("VLLM_SERVER_DEV_MODE", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE")}
    print(f"words: {' '.join(sys.argv[1:])}; environment: {seen}", flush=True)
    model = flag("serve", flag("--model", ""))
    where = (flag("--host", "0.0.0.0"), int(flag("--port", "8000")))
    dies = int(os.environ.get("STANDIN_DIES", 0))
    server = Mortal(model, where, dies=dies) if dies else StandIn(model, where)
    print(f"serving {model} on port {where[1]}", flush=True)
    server.http.serve_forever(0.05)
