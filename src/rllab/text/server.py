"""A vLLM server that samples completions in place of the lab's own sampler, on another GPU or node.

`rllab serve` starts it. Trainers speak vLLM's HTTP protocol and import no vLLM, which needs its own versions of torch
and transformers, so the server has a Python environment of its own:

    GET  /health, /v1/models       whether it is up, what it serves
    POST /v1/completions           token ids to token ids with their log-probabilities, one request a prompt
    POST /collective_rpc           `reload_weights` from a folder that trainer and server share
    POST /reset_prefix_cache       forgets what the old weights have computed

Written against vLLM 0.33, and `trl vllm-serve` of TRL 1.16. TRL's own client sends weights by NCCL instead: then the
trainer must import the same vLLM, and waits for ever if the server dies meanwhile.

Whatever is wrong with an answer is an error: a server that is gone or hangs, too few completions, tokens that the
vocabulary does not have, log-probabilities that are not numbers.
"""

import os
import shutil
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from torch import Tensor

from rllab.core.checkpoint import WEIGHTS
from rllab.core.errors import FieldMistake, MachineFault, RllabError, Stopped
from rllab.core.split_files import write_whole
from rllab.core.stages import home
from rllab.core.stop import Stop
from rllab.text.models import LanguageModel
from rllab.text.sampler import Completion, Ends, Sampling, Uniforms
from rllab.text.snapshots import located

_AT_ONCE = 64  # requests at the same time; the server computes them together
_CONNECT = 5.0  # seconds for a connection, and for an answer of /health
_GRACE = 2.0  # seconds within which a stop that has ended the server as well reaches this process
_LINES = 20  # of the server's log in an error
_CERTAIN = 1e-3  # a log-probability may be above 0 by its rounding
_NEVER = -9999.0  # what vLLM writes for the log-probability of what cannot be


class RolloutServer:
    """A client of a vLLM server.

    url: the server's address. seconds: how long to wait until it is up, and for an answer. stop: whether the run was
    asked to stop. log: the server's log, whose end is shown if the server fails. weights: a folder that the server
    reads as well, for the weights that it is given. A server serves one run at a time.
    """

    def __init__(self, url: str, seconds: float, stop: Stop, log: Path | None, weights: Path | None) -> None:
        self.url, self._seconds, self._stop, self._log = url.rstrip("/"), seconds, stop, log
        self._weights = (weights or home() / "server") / urlsplit(url).netloc.replace(":", "-")
        self._model, self._pushes = "", 0

    @classmethod
    def of_environment(cls, seconds: float, stop: Stop) -> "RolloutServer":
        """The server at RLLAB_SERVER, with the log RLLAB_SERVER_LOG and the folder RLLAB_SERVER_WEIGHTS.

        Raises:
            FieldMistake: RLLAB_SERVER is not set, or is no address.
        """
        url, log, weights = (os.environ.get(f"RLLAB_SERVER{x}", "") for x in ("", "_LOG", "_WEIGHTS"))
        if not url:
            raise FieldMistake(
                "use_vllm",
                "RLLAB_SERVER is not set, the address of a vLLM server, as in http://node2:8000. The job scripts "
                "slurm/vllm.sbatch and slurm/vllm.qsub start one and set it; by hand: rllab serve RECIPE. "
                "use_vllm=false needs none",
            )
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname in (None, "0.0.0.0", "::"):
            raise FieldMistake("use_vllm", f"RLLAB_SERVER={url}: expected an address, as in http://node2:8000")
        return cls(url, seconds, stop, Path(log) if log else None, Path(weights) if weights else None)

    def wait(self, lm: LanguageModel, length: int) -> None:
        """Waits until the server is up, and checks that it serves the model and reads `length` tokens.

        Raises:
            MachineFault: it is not up in time, or is no vLLM server.
            FieldMistake: it serves another model, or reads fewer tokens.
            Stopped: the run was asked to stop meanwhile.
        """
        end = time.monotonic() + self._seconds
        while reason := self._not_up():
            if self._stop:
                raise Stopped(f"by {self._stop.reason}, while it waited for the vLLM server at {self.url}", 0)
            if time.monotonic() > end:
                raise self._fault(f"is not up after {self._seconds:g} seconds (vllm_server_timeout): {reason}")
            time.sleep(0.5)
        served = self._ask("GET", "/v1/models").get("data")
        if not isinstance(served, list) or not served or not isinstance(served[0], dict):
            raise self._fault("names no model in /v1/models: it is no vLLM server")
        self._model, longest = str(served[0].get("id")), served[0].get("max_model_len")
        if self._model != lm.name and Path(self._model).resolve() != located(lm.name).resolve():
            raise FieldMistake(
                "model", f"the server at {self.url} serves {self._model}; for this recipe: rllab serve {lm.name}"
            )
        if isinstance(longest, int) and longest < length:
            raise FieldMistake("length", f"the server at {self.url} reads {longest} tokens at most: start it with "
                               f"--max-model-len {length}, or take a smaller length")  # fmt: skip

    def _not_up(self) -> str:
        """Why the server is not up; "" if it is."""
        try:
            with self._client() as http:
                answer = http.get(f"{self.url}/health", timeout=_CONNECT)
        except httpx2.HTTPError as error:
            return str(error) or type(error).__name__
        return "" if answer.is_success else f"/health answers {answer.status_code}"

    def push(self, weights: dict[str, Tensor]) -> None:
        """Gives the server weights [...] by their published names, and waits until it samples from them.

        Raises:
            MachineFault: it cannot load them.
            OSError: the disk is full, and the like.
        """
        for left in self._weights.glob("weights-*"):  # by a trainer that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._pushes += 1
        folder = self._weights / f"weights-{os.getpid()}-{self._pushes}"  # a new name: network file systems have caches
        folder.mkdir(parents=True)
        try:
            write_whole(folder / WEIGHTS, weights)
            where = {"weights_path": str(folder.resolve())}
            self._ask("POST", "/collective_rpc", {"method": "reload_weights", "kwargs": where})
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if self._ask("POST", "/reset_prefix_cache").get("success") is False:
            raise self._fault("cannot forget what the old weights have computed: does another program use it?")

    def generate(
        self,
        lm: LanguageModel,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        samples: int,
        uniforms: Uniforms | None,
        limits: Sequence[int],
    ) -> list[Completion]:
        """As `rllab.text.sampler.generate`; the first random number of a prompt is its seed on the server.

        Raises:
            MachineFault: the server fails, or its answer is not what was asked for.
        """
        ends = Ends(lm, sampling.stop)
        vocabulary = lm.vocabulary

        def of_prompt(row: int) -> list[Completion]:
            question = _question(lm, sampling) | {"model": self._model, "prompt": prompts[row], "n": samples}
            question |= {"max_tokens": limits[row]}
            if uniforms is not None:
                question["seed"] = int(uniforms(row, 0)[0] * 2**53)
            choices = self._ask("POST", "/v1/completions", question, http).get("choices")
            try:
                each = [_read(choice, vocabulary, question) for choice in _in_order(choices, samples)]
                return [Completion(row, s, *_ended(*read, ends, question)) for s, read in enumerate(each)]
            except ValueError as error:
                raise self._fault(f"answers wrongly to prompt {row + 1} of {len(prompts)}: {error}") from None

        with self._client() as http, ThreadPoolExecutor(_AT_ONCE) as pool:
            return [c for completions in pool.map(of_prompt, range(len(prompts))) for c in completions]

    def _client(self) -> httpx2.Client:
        timeout = httpx2.Timeout(self._seconds, connect=_CONNECT)
        limits = httpx2.Limits(max_connections=_AT_ONCE)
        transport = httpx2.HTTPTransport(limits=limits, socket_options=_keepalive())
        return httpx2.Client(transport=transport, timeout=timeout, trust_env=False)  # no proxy within a cluster

    def _ask(
        self, method: str, path: str, question: dict[str, Any] | None = None, http: httpx2.Client | None = None
    ) -> dict[str, Any]:
        """The server's answer, which is {} where it has no content. http: connections that are open."""
        try:
            with nullcontext(http) if http else self._client() as client:
                answer = client.request(method, self.url + path, json=question)
        except httpx2.TimeoutException:
            raise self._gone(f"has not answered {path} after {self._seconds:g} seconds (vllm_server_timeout)") from None
        except httpx2.HTTPError as error:
            raise self._gone(f"is gone: {path}: {str(error) or type(error).__name__}") from None
        if answer.status_code == 404 and path in ("/collective_rpc", "/reset_prefix_cache"):
            raise self._fault(f"has no {path}: start it with rllab serve, which sets VLLM_SERVER_DEV_MODE=1")
        if not answer.is_success:
            raise self._fault(f"answers {path} with {answer.status_code}: {answer.text[:500]}")
        try:
            content = answer.json() if answer.content else {}
        except ValueError:
            raise self._fault(f"answers {path} with something that is not JSON: {answer.text[:200]!r}") from None
        if not isinstance(content, dict):
            raise self._fault(f"answers {path} with {str(content)[:200]!r}")
        return content

    def _gone(self, what: str) -> RllabError:
        """The error that the server fails; a stop of the whole job may have ended the server first."""
        end = time.monotonic() + _GRACE
        while not self._stop and time.monotonic() < end:
            time.sleep(0.1)
        if self._stop:
            return Stopped(f"by {self._stop.reason}, and the vLLM server with it; the same command continues from the "
                           "last checkpoint", self._stop.rounds)  # fmt: skip
        return self._fault(what)

    def _fault(self, what: str) -> MachineFault:
        """The error, with the end of the server's log."""
        message = f"the vLLM server at {self.url} {what}. The last checkpoint is intact"
        if self._log is None:
            return MachineFault(message)
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LINES:]
        except OSError as error:
            return MachineFault(f"{message}. Its log cannot be read: {error}")
        return MachineFault("\n".join([f"{message}. The end of {self._log}:", *(f"  {line}" for line in lines)]))


def _question(lm: LanguageModel, sampling: Sampling) -> dict[str, Any]:
    """The part of a request that all prompts share; the defaults of a model's generation config have no say."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "logprobs": 0,  # of the sampled token alone
        "return_token_ids": True,
        "ignore_eos": True,  # the stop tokens are those of the lab's sampler
        "stop_token_ids": sorted(lm.stop_ids),
        "stop": [*sampling.stop, *lm.stop_texts],
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
    }


def _in_order(choices: Any, samples: int) -> list[dict[str, Any]]:
    """The completions of a prompt, [samples] of them in their order."""
    count = len(choices) if isinstance(choices, list) else 0
    if count != samples:
        raise ValueError(f"{count} completions, and {samples} were asked for")
    numbers = [choice.get("index") if isinstance(choice, dict) else None for choice in choices]
    if any(i not in numbers for i in range(samples)):
        raise ValueError(f"completions numbered {str(numbers)[:100]}")
    return [choices[numbers.index(i)] for i in range(samples)]


def _read(choice: dict[str, Any], vocabulary: int, question: dict[str, Any]) -> tuple[list[int], list[float], str]:
    """The token ids of a completion [T], their log-probabilities [T], and why the server ended it.

    Raises:
        ValueError: they are not what was asked for.
    """
    ids, logp = choice.get("token_ids"), (choice.get("logprobs") or {}).get("token_logprobs")
    if choice.get("prompt_token_ids") != question["prompt"]:
        raise ValueError("it has read other tokens than the prompt's")
    if not isinstance(ids, list) or not 0 < len(ids) <= question["max_tokens"]:
        raise ValueError(f"token_ids are {str(ids)[:100]}; expected from 1 to {question['max_tokens']}")
    if not all(isinstance(i, int) and 0 <= i < vocabulary for i in ids):
        raise ValueError(f"a token that the model does not have: it has {vocabulary}, and the highest is {max(ids)}")
    if not isinstance(logp, list) or len(logp) != len(ids):
        raise ValueError(f"log-probabilities are {str(logp)[:100]}; expected one for each of {len(ids)} tokens")
    if not all(map(_is_logp, logp)):
        raise ValueError(f"log-probabilities that are none: {[x for x in logp if not _is_logp(x)][:5]}")
    stopped_by_text = choice.get("finish_reason") == "stop" and choice.get("stop_reason") in question["stop"]
    return ids, [float(x) for x in logp], "text" if stopped_by_text else str(choice.get("finish_reason"))


def _ended(
    ids: list[int], logp: list[float], reason: str, ends: Ends, question: dict[str, Any]
) -> tuple[list[int], list[float], bool]:
    """The tokens [T] up to the completion's end by the lab's rule, their log-probabilities [T], and whether it ends.

    Raises:
        ValueError: it ends neither there nor with its last possible token.
    """
    end = next((t for t in range(1, len(ids) + 1) if ends(ids[:t])), None)
    if end is None and reason != "text" and len(ids) < question["max_tokens"]:
        raise ValueError(f"a completion ended after {len(ids)} of {question['max_tokens']} tokens and without a stop "
                         f"token, by {reason!r}: has the server a small --max-model-len?")  # fmt: skip
    return ids[:end], logp[:end], end is not None or reason == "text"


def _is_logp(x: Any) -> bool:
    return isinstance(x, (int, float)) and _NEVER < x <= _CERTAIN


def _keepalive() -> list[tuple[int, int, int]]:
    """Options of a connection by which a node that is gone is noticed within half a minute."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    times = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    return options + [(socket.IPPROTO_TCP, getattr(socket, n), s) for n, s in times.items() if hasattr(socket, n)]
