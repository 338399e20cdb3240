"""An ASGI application that answers as a test says, behind the response cache, and clients of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from layercache import Caches
from layercache.integrations.asgi import ResponseCache


@dataclass
class Answer:
    body: bytes = b"hello"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    parts: tuple[bytes, ...] = ()  # instead of the body, one after the other


class Site:
    """Counts what it is asked, and answers with `answer`, or what that returns for the request's headers.

    Attributes:
        asked: the methods, in their order.
        gate: what an answer waits for, if anything.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.seen: dict[str, str] = {}
        self.answer: Any = Answer()
        self.gate: asyncio.Event | None = None
        self.after: Callable[[], Any] | None = None

    @property
    def calls(self) -> int:
        return len(self.asked)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["method"])
        self.seen = {name.decode(): value.decode() for name, value in scope["headers"]}
        await receive()
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answer
        if callable(answer):
            answer = answer(self.seen) if answer.__code__.co_argcount == 1 else answer(self.seen, scope)
        headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        for part in answer.parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"" if answer.parts else answer.body})
        if self.after is not None:
            await self.after()


class Visitor:
    """Asks a site, through its cache, from code that is not async: all requests run in one loop."""

    def __init__(self, site: Site, world: Caches, runner: asyncio.Runner, **options: Any) -> None:
        self.site, self.world, self._runner = site, world, runner
        self.app = ResponseCache(site, world["default"], **options)

    def get(self, path: str = "/", method: str = "GET", **headers: str) -> httpx.Response:
        return self.run(self.aget(path, method, **headers))

    def run(self, coroutine: Any) -> Any:
        return self._runner.run(coroutine)

    async def aget(self, path: str = "/", method: str = "GET", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
            return await client.request(method, path, headers=named)


def did(response: httpx.Response) -> str:
    """Say what the cache did: "hit", "stored", "collapsed", or why it passed."""
    words = response.headers["cache-status"].removeprefix("layercache; ").split("; ")
    return words[-1] if words[-1] in {"stored", "collapsed"} else words[0]


@contextmanager
def visiting(world: Caches, **options: Any) -> Iterator[Visitor]:
    with asyncio.Runner() as runner:
        try:
            yield Visitor(Site(), world, runner, **options)
        finally:
            runner.run(world.aclose())
