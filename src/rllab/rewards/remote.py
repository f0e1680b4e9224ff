"""Requests to a service over HTTP, with retries while it is busy or unreachable."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx2

_TRIES, _FIRST_WAIT = 5, 0.5  # seconds, doubled each time
_BUSY = (408, 409, 425, 429)


async def ask_all(
    url: str, questions: Sequence[Any], *, headers: dict[str, str] | None = None, seconds: float, at_once: int
) -> list[Any]:
    """Posts questions as JSON, `at_once` of them at a time, and returns the answers, parsed from JSON, in their order.

    seconds: for one request.

    Raises:
        ConnectionError: the service does not answer, or not with JSON; the message has its address, status and text.
    """
    turn = asyncio.Semaphore(at_once)
    async with httpx2.AsyncClient(timeout=seconds, headers=headers) as client:

        async def one(question: Any) -> Any:
            async with turn:
                return await _ask(client, url, question)

        return list(await asyncio.gather(*map(one, questions)))


async def _ask(client: httpx2.AsyncClient, url: str, question: Any) -> Any:
    fault = ""
    for tried in range(_TRIES):
        wait = _FIRST_WAIT * 2**tried
        try:
            answer = await client.post(url, json=question)
        except httpx2.HTTPError as error:
            fault = f"does not answer: {error or type(error).__name__}"
        else:
            if answer.is_success:
                return _json(url, answer)
            fault = f"answers {answer.status_code} {answer.reason_phrase}: {answer.text[:200]!r}"
            if answer.status_code < 500 and answer.status_code not in _BUSY:
                break
            asked = answer.headers.get("retry-after", "")
            wait = float(asked) if asked.isdigit() else wait
        if tried < _TRIES - 1:
            await asyncio.sleep(wait)
    raise ConnectionError(f"{url} {fault}")


def _json(url: str, answer: httpx2.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise ConnectionError(f"{url} answers with something that is not JSON: {answer.text[:200]!r}") from None
