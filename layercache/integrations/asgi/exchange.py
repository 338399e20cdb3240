"""One run of the application, whose response is collected to be stored, or handed on to the client as it comes.

Rules:
1. It is decided at the response's first message, and again at each part of its body, whether it can be stored.
   Once it cannot, nobody waits any longer: what came so far and all that follows is the client's, if there is one.
2. The application runs in a task of its own, which outlives the load: it may have work to do after its response.
3. It is asked for the whole response of a GET, whatever the client has asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from layercache.integrations.asgi.pages import Page
from layercache.integrations.asgi.rules import Headers, Terms, first, is_buffered

__all__ = ["ASGIApp", "Exchange", "Message", "Receive", "Scope", "Send", "headers_of"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("layercache.asgi")

_CONDITIONS: Final = frozenset({b"if-none-match", b"if-modified-since", b"if-range"})

_running: Final[set[asyncio.Task[None]]] = set()  # a loop keeps no task alive by itself


class Exchange:
    """One run of the application.

    Args:
        terms_of: says of status and headers on which terms the response may be stored, if it may.
        most: bytes of a body that is stored.

    Attributes:
        status, headers: of the response, once there is one.
        terms: on which it may be stored; None: it may not, or there is none yet.
        error: what the application raised instead of a response.
        page: what was made of the response.
    """

    def __init__(
        self,
        app: ASGIApp,
        scope: Scope,
        receive: Receive,
        terms_of: Callable[[int, Headers], Terms | None],
        most: int,
    ) -> None:
        self.status = 0
        self.headers: Headers = []
        self.terms: Terms | None = None
        self.error: BaseException | None = None
        self.page: Page | None = None
        self._terms_of, self._most = terms_of, most
        self._receive, self._was_asked = receive, False
        self._held: list[Message] = []
        self._size = 0
        self._settled, self._going_on = asyncio.Event(), asyncio.Event()
        self._is_whole = self._is_left = self._is_awaited = False
        self._target: Send | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(app, _unconditional(scope)))
        _running.add(self._task)
        self._task.add_done_callback(self._ended)

    @property
    def body(self) -> bytes:
        """What came of its body so far."""
        return b"".join([message.get("body", b"") for message in self._held])

    @property
    def is_for_the_client(self) -> bool:
        """Whether there is a response, and it cannot be stored."""
        return self._settled.is_set() and self.error is None and self.terms is None

    async def settled(self) -> None:
        """Wait until there is a whole response that can be stored, or one that cannot. Raises what the application
        does."""
        try:
            await self._settled.wait()
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if self.error is not None:
            raise self.error

    async def hand_over(self, send: Send) -> None:
        """Give the client what came so far and all that follows, until the application has ended."""
        for message in self._held:
            await send(message)
        self._target = send
        self._going_on.set()
        await self.ended()

    async def ended(self) -> None:
        """Wait for what the application does after its response. Raises what it raises."""
        self._is_awaited = True
        await self._task

    def leave(self) -> None:
        """End a run whose response nobody wants: neither cache nor client."""
        self._is_left = True
        if self.is_for_the_client and self._target is None:
            self._task.cancel()

    # -- as the application sees it

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        await app(scope, self._give, self._take)

    async def _give(self) -> Message:
        if not self._was_asked:
            self._was_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        # whether the client of this request has gone is no matter, as long as others may wait for the response
        await self._going_on.wait()
        if self._target is None:
            return {"type": "http.disconnect"}
        message = await self._receive()
        # that it was given already: Django takes no second one
        return await self._receive() if message["type"] == "http.request" else message

    async def _take(self, message: Message) -> None:
        if self._target is not None:
            await self._target(message)
            return
        if self._is_whole:
            return  # one too many
        self._held.append(message)
        self._look_at(message)
        if self.terms is None:
            self._settled.set()
            if self._is_left:
                self._task.cancel()
            await self._going_on.wait()
        elif self._is_whole:
            self._settled.set()
            self._going_on.set()

    def _look_at(self, message: Message) -> None:
        """Find out whether the response can be stored, as far as it is known with `message`, and whether that is
        all."""
        kind = message["type"]
        if kind == "http.response.start":
            self.status, self.headers = message["status"], headers_of(message)
            if not message.get("trailers") and is_buffered(self.headers, self._most):
                self.terms = self._terms_of(self.status, self.headers)
            return
        self._size += len(message.get("body", b""))
        if kind != "http.response.body" or self._size > self._most:
            self.terms = None
        elif not message.get("more_body", False):
            stated = first(self.headers, "content-length")
            if stated is not None and stated.strip() != str(self._size):
                self.terms = None  # it is incomplete (§3.3)
            self._is_whole = self.terms is not None

    def _ended(self, task: asyncio.Task[None]) -> None:
        _running.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if not self._settled.is_set():
            self.error = (
                error  # without one it has ended in the middle of its response, as the client will see
            )
            self.terms = None
            self._settled.set()
        elif error is not None and not (self._is_awaited or task.cancelled()):
            log.error("the application failed after its response", exc_info=error)


def headers_of(message: Message) -> Headers:
    """Return the headers of an ASGI message as text, their names in lower case."""
    return [
        (bytes(name).decode("latin-1").lower(), bytes(value).decode("latin-1"))
        for name, value in message.get("headers", ())
    ]


def _unconditional(scope: Scope) -> Scope:
    """Return the scope of a request for the whole response, sent in plain messages that can be kept."""
    extensions = {
        name: value
        for name, value in (scope.get("extensions") or {}).items()
        if not name.startswith("http.response.")
    }
    headers = [pair for pair in scope["headers"] if bytes(pair[0]).lower() not in _CONDITIONS]
    return {**scope, "method": "GET", "headers": headers, "extensions": extensions}
