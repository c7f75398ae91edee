"""Asking a language model through any endpoint that speaks OpenAI's chat protocol.

Answers are kept in a file as they come, so that a run that is stopped goes on where it was and pays
for nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from mmembed.errors import ConfigError, MissingDependencyError, MmembedError

__all__ = ["BudgetError", "Endpoint", "EndpointError", "Messages"]

Messages: TypeAlias = Sequence[Mapping[str, Any]]
"""A conversation, as the chat protocol has it."""

_log = logging.getLogger(__name__)
_RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})


class EndpointError(MmembedError, RuntimeError):
    """The endpoint refused a request, or did not answer it after all retries."""


class BudgetError(MmembedError, RuntimeError):
    """The tokens that may be spent are spent; what was answered is kept."""


@dataclass(slots=True)
class Endpoint:
    """A language model somewhere.

    Attributes:
        base_url: up to and with ``/v1``.
        model: its name there.
        cache: file that every answer is added to.
        key_variable: variable of the environment that holds the key; unset sends none.
        concurrency: requests under way at once.
        retries: further tries of a request that failed for a reason that may pass.
        timeout: seconds for one answer.
        budget: tokens, of questions and answers, that may be spent in all, those of earlier runs
            with the same cache included; None for no end.
        options: more fields of every request, e.g. ``temperature``.
    """

    base_url: str
    model: str
    cache: Path
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 8
    retries: int = 5
    timeout: float = 120.0
    budget: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    spent: int = field(default=0, init=False)
    _known: dict[str, str] = field(default_factory=dict, init=False)
    _lock: Any = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"endpoint {self.base_url!r}: give a URL, like http://host:8000/v1")
        if self.cache.exists():
            self._read()

    def ask(self, questions: Iterable[Messages]) -> Iterator[str | EndpointError]:
        """The answer to each question, in order; what could not be answered comes as its error.

        Questions are read only as far ahead as they are asked.

        Raises:
            BudgetError: the budget is spent; all answers so far are in the cache.
            MissingDependencyError: httpx is not installed.
        """
        try:
            import httpx
        except ImportError as error:
            raise MissingDependencyError("Asking an endpoint", "synthesis") from error

        waiting: list[Future[str | EndpointError]] = []
        headers = {}
        if key := os.environ.get(self.key_variable):
            headers["authorization"] = f"Bearer {key}"
        with (
            httpx.Client(headers=headers, timeout=self.timeout) as client,
            ThreadPoolExecutor(self.concurrency) as pool,
        ):
            try:
                for messages in questions:
                    waiting.append(pool.submit(self._answer, client, messages))
                    while len(waiting) > 4 * self.concurrency:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                for future in waiting:
                    future.cancel()

    def _answer(self, client: Any, messages: Messages) -> str | EndpointError:
        body = {"model": self.model, "messages": list(messages), **self.options}
        text = json.dumps(body, sort_keys=True, ensure_ascii=False)
        key = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        with self._lock:
            if key in self._known:
                return self._known[key]
            if self.budget is not None and self.spent >= self.budget:
                raise BudgetError(
                    f"{self.spent} of {self.budget} tokens are spent: raise the budget, and go on"
                )
        try:
            found = self._posted(client, body)
        except EndpointError as error:
            _log.warning("%s", error)
            return error
        answer = _text_of(found)
        if answer is None:
            return EndpointError(f"{self.base_url}: an answer without text")
        tokens = int((found.get("usage") or {}).get("total_tokens") or 0)
        self._keep(key, answer, tokens)
        return answer

    def _posted(self, client: Any, body: Mapping[str, Any]) -> dict[str, Any]:
        import httpx

        url = self.base_url.rstrip("/") + "/chat/completions"
        reason = ""
        for attempt in range(self.retries + 1):
            pause = min(2.0**attempt * 0.5, 30.0)
            try:
                answer = client.post(url, json=body)
            except httpx.HTTPError as error:
                reason = type(error).__name__
            else:
                if answer.status_code == 200:
                    try:
                        found: dict[str, Any] = answer.json()
                        return found
                    except ValueError:
                        reason = "no JSON"
                elif answer.status_code in _RETRIED:
                    reason = f"status {answer.status_code}"
                    told = answer.headers.get("retry-after", "")
                    pause = float(told) if told.replace(".", "", 1).isdecimal() else pause
                else:
                    raise EndpointError(f"{url}: status {answer.status_code}: {answer.text[:300]}")
            if attempt < self.retries:
                time.sleep(pause)
        raise EndpointError(f"{url}: {reason}, after {self.retries + 1} tries")

    def _keep(self, key: str, answer: str, tokens: int) -> None:
        line = json.dumps({"key": key, "answer": answer, "tokens": tokens}, ensure_ascii=False)
        with self._lock:
            self._known[key] = answer
            self.spent += tokens
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            with self.cache.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")

    def _read(self) -> None:
        lines = self.cache.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            try:
                kept = json.loads(line)
                self._known[kept["key"]] = kept["answer"]
                self.spent += kept["tokens"]
            except (ValueError, KeyError, TypeError):
                if number + 1 < len(lines):
                    raise ConfigError(
                        f"{self.cache}:{number + 1}: is no kept answer: take the line out"
                    ) from None
                # A run was killed while it wrote: that answer is asked for again.
                self.cache.write_text("".join(x + "\n" for x in lines[:-1]), encoding="utf-8")


def _text_of(found: Mapping[str, Any]) -> str | None:
    try:
        text = found["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) else None
