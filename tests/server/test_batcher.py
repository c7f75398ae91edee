"""Requests that wait together: batches, mistakes, and a full queue."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from mmembed.errors import ConfigError
from mmembed.inputs.items import parse_item
from mmembed.server.api.batcher import Batcher, Work
from mmembed.server.errors import RequestError


class Slow:
    """Stands for a model whose first batch takes as long as a test wants."""

    dim = 2

    def __init__(self) -> None:
        self.go = threading.Event()
        self.seen: list[list[str]] = []

    def encode_stream(self, items: Any, **options: Any) -> Any:
        self.seen.append([item.parts[0].text for item in items])
        self.go.wait(60)
        if any("bad" in text for text in self.seen[-1]):
            raise ConfigError("no such task")
        return list(self.seen[-1])


def work(text: str, **options: Any) -> Work:
    return Work([parse_item(text)], **options)


def test_what_arrives_meanwhile_goes_together() -> None:
    slow: Any = Slow()
    batcher = Batcher(slow)

    async def ask() -> list[Any]:
        first = asyncio.create_task(batcher.run(work("first")))
        while not slow.seen:
            await asyncio.sleep(0.01)
        rest = [asyncio.create_task(batcher.run(work(text))) for text in ("a", "b", "c")]
        other = asyncio.create_task(batcher.run(work("q", role="query")))
        gone = asyncio.create_task(batcher.run(work("gone")))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.wait([gone])
        slow.go.set()
        return await asyncio.gather(first, *rest, other)

    assert asyncio.run(ask()) == [["first"], ["a"], ["b"], ["c"], ["q"]]
    assert slow.seen == [["first"], ["a", "b", "c"], ["q"]]
    assert batcher.waiting == 0
    batcher.close()


def test_one_request_s_mistake_is_no_other_s() -> None:
    slow: Any = Slow()
    batcher = Batcher(slow)

    async def ask() -> list[Any]:
        tasks = [asyncio.create_task(batcher.run(work(t))) for t in ("first", "a", "bad", "c")]
        await asyncio.sleep(0.05)
        slow.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, a, bad, c = asyncio.run(ask())
    assert [first, a, c] == [["first"], ["a"], ["c"]]
    assert isinstance(bad, ConfigError)
    batcher.close()


def test_a_full_queue_refuses_and_a_closed_one_too() -> None:
    slow: Any = Slow()
    batcher = Batcher(slow, queue_tokens=4)

    async def ask() -> list[Any]:
        tasks = [asyncio.create_task(batcher.run(work("first")))]
        while not slow.seen:
            await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(batcher.run(work(text))) for text in ("a", "word " * 40)]
        await asyncio.sleep(0.05)
        slow.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, third = asyncio.run(ask())
    assert [first, second] == [["first"], ["a"]]
    assert isinstance(third, RequestError)
    assert (third.status_code, third.headers) == (429, {"retry-after": "1"})
    batcher.close()
    with pytest.raises(RequestError) as stopped:
        asyncio.run(batcher.run(work("late")))
    assert stopped.value.status_code == 503
