"""A chat template that came with a model is tried in a process of its own before it is used."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedTokenizerFast

from rllab.core.errors import FieldMistake
from rllab.core.stop import unwarned
from rllab.text import template

_passed = set[str]()  # what this process has asked for, and need not try again


@contextmanager
def checked_template(tokenizer: PreTrainedTokenizerFast, name: str) -> Iterator[None]:
    """Renders a chat template that came with a model, in a separate process and beside the body of the `with`.

    A template that has passed is not rendered again.

    Raises:
        FieldMistake: when the body is done, if the template fails or does not end within `template.DEADLINE`; at once
            if there are several and none is named `default`.
    """
    example = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    try:
        source = tokenizer.get_chat_template()
    except ValueError:
        names = ", ".join(sorted(tokenizer.chat_template or ()))
        raise FieldMistake("model", f"{name}: of its chat templates ({names}) none is named default: name one so, in "
                           "its tokenizer_config.json") from None  # fmt: skip
    arguments = {"conversations": [example, example[:1]], "chat_template": source, "add_generation_prompt": True}
    request = json.dumps(arguments | {k: v for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str)})
    if request in _passed:
        yield
        return
    worker = [sys.executable, "-m", "rllab.text.template_worker"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with unwarned():
        started = subprocess.Popen(worker, text=True, **pipes)  # type: ignore[call-overload]
    with started as process:
        try:
            yield
            process.stdout.readline()  # it is ready, which on a busy machine takes longer than any template
            _, failed = process.communicate(request, timeout=template.DEADLINE)
        except subprocess.TimeoutExpired:
            raise FieldMistake(
                "model", f"{name}: its chat template does not end within {template.DEADLINE:.0f} seconds"
            ) from None
        finally:
            process.kill()
    if process.returncode:
        why = (failed.strip().splitlines() or ["it ended without a message"])[-1]
        raise FieldMistake("model", f"{name}: its chat template fails on two short messages: {why}")
    _passed.add(request)
