"""Samples the replies of a model, each once: what was sampled before is read from the cache.

A reply is a function of the model's content, the prompt's tokens, the decoding and the number of the sample, and its
key in the cache is a hash of these. So two models never share a reply, and a run that was killed samples only what is
missing. The cache is a file of JSON lines for each model and decoding below `$RLLAB_HOME/replies`; each reply is
appended when it ends.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rllab.core.errors import Stopped
from rllab.core.files import read_jsonl
from rllab.core.stages import home
from rllab.core.stop import Stop
from rllab.evals.asked import VERSION
from rllab.text.models import LanguageModel
from rllab.text.sampler import Completion, Sampling, generate

_ON_CPU, _ON_GPU = 64, 1024  # sequences in a batch; a processor's cache holds no more activations


@dataclass(frozen=True)
class Call:
    """A reply that is asked for. prompt: token ids. sample: its number. limit: most new tokens."""

    prompt: tuple[int, ...]
    sample: int
    limit: int


@dataclass(frozen=True)
class Reply:
    """Token ids that the model sampled. finished: it ended its reply; otherwise it was cut off."""

    ids: list[int]
    finished: bool


class Replies:
    """The replies of a model. sampled, cached: how many were sampled, and how many read from the cache.

    content: the hash of the model's content. folder: of the cache; None to sample everything anew. stop: a request to
    stop, which is obeyed when a reply has ended.
    """

    def __init__(
        self, lm: LanguageModel, content: str, folder: Path | None, seed: int = 0, stop: Stop | None = None
    ) -> None:
        self.lm, self.sampled, self.cached = lm, 0, 0
        self._content, self._folder, self._seed, self._stop = content, folder, seed, stop
        self._known: dict[str, dict[str, Reply]] = {}  # by the decoding, by key

    def __call__(self, calls: Sequence[Call], sampling: Sampling) -> list[Reply]:
        """Returns the reply to each call. The most new tokens are those of the call, not of `sampling`.

        Raises:
            Stopped: a stop was requested. What was sampled is in the cache.
        """
        file, known = self._file(sampling)
        keys = [self._key(call, sampling.temperature > 0) for call in calls]
        missing = {key: call for key, call in zip(keys, calls, strict=True) if key not in known}
        self.cached += len(calls) - len(missing)
        by_prompt = defaultdict[tuple[tuple[int, ...], int], list[tuple[int, str]]](list)
        for key, call in missing.items():
            by_prompt[call.prompt, call.limit].append((call.sample, key))
        by_count = defaultdict[int, list[tuple[tuple[int, ...], int]]](list)
        for prompt, samples in by_prompt.items():
            by_count[len(samples)].append(prompt)
        for count, prompts in by_count.items():
            with open(os.devnull if file is None else file, "ab", buffering=0) as log:
                self._sample(prompts, [by_prompt[p] for p in prompts], count, sampling, known, log)
        return [known[key] for key in keys]

    @property
    def at_once(self) -> int:
        """The number of sequences that are sampled fastest at the same time."""
        return _ON_CPU if self.lm.model.device.type == "cpu" else _ON_GPU

    def _sample(
        self,
        prompts: Sequence[tuple[tuple[int, ...], int]],
        samples: Sequence[Sequence[tuple[int, str]]],
        count: int,
        sampling: Sampling,
        known: dict[str, Reply],
        log: Any,
    ) -> None:
        """Samples `count` replies to each (prompt, limit). samples: the number and the key of each."""

        def uniforms(row: int, sample: int) -> np.ndarray:
            seed = np.random.SeedSequence([self._seed, samples[row][sample][0], *_words(prompts[row][0])])
            return np.random.Generator(np.random.PCG64(seed)).random(sampling.max_new_tokens)

        def keep(completion: Completion, over: bool) -> None:
            if not over:
                return
            key = samples[completion.row][completion.sample][1]
            known[key] = Reply(completion.ids, completion.finished)
            log.write(json.dumps({"key": key, "ids": completion.ids, "finished": completion.finished}).encode() + b"\n")
            self.sampled += 1
            if self._stop is not None:
                self._stop.rounds += 1
            if self._stop:
                raise Stopped(f"by {self._stop.reason}; the same command samples what is missing", self._stop.rounds)

        generate(
            self.lm,
            [list(prompt) for prompt, _ in prompts],
            sampling,
            count,
            uniforms if sampling.temperature else None,
            at_once=self.at_once,
            limits=[limit for _, limit in prompts],
            watch=keep,
        )

    def _key(self, call: Call, random: bool) -> str:
        sample = (call.sample, self._seed) if random else 0
        return hashlib.sha256(repr((sample, call.limit, call.prompt)).encode()).hexdigest()[:32]

    def _file(self, sampling: Sampling) -> tuple[Path | None, dict[str, Reply]]:
        """Returns the file of the cache, and the replies that it has."""
        settings = asdict(sampling) | {"max_new_tokens": 0, "version": VERSION, "content": self._content}
        settings |= {"dtype": str(self.lm.model.dtype), "stop_tokens": sorted(self.lm.stop_ids)}
        name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]
        file = None if self._folder is None else self._folder / f"{name}.jsonl"
        if name not in self._known:
            self._known[name] = _read(file) if file is not None and file.is_file() else {}
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
        return file, self._known[name]


def cache_folder() -> Path:
    """Returns the folder of the cache."""
    return home() / "replies"


def _words(ids: Sequence[int]) -> list[int]:
    """Returns a hash of token ids as the words of a seed."""
    digest = hashlib.sha256(np.array(ids, "<i8").tobytes()).digest()
    return [int(word) for word in np.frombuffer(digest, "<u4")]


def _read(file: Path) -> dict[str, Reply]:
    """Reads a file of the cache. A line that was torn by a kill is sampled again, and so is any that is damaged."""
    replies = {}
    for _, row in read_jsonl(file, lambda line, fault: None):
        ids = row.get("ids")
        if isinstance(row.get("key"), str) and isinstance(ids, list) and all(isinstance(i, int) for i in ids):
            replies[row["key"]] = Reply(ids, row.get("finished") is True)
    if file.read_bytes()[-1:] not in (b"", b"\n"):
        with open(file, "ab") as log:  # else the next line would be appended to the torn one
            log.write(b"\n")
    return replies
