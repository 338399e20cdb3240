"""Which requests go through the cache, and which past it.

    a change (POST…) ──────────────── application, and what is stored of its target is dropped
    what no page answers (Range…) ─── application
    GET, HEAD ─────────────────────── through it: a visit

What comes of a visit is in `visit`; here is what all of them are told: keys, terms, tags and headers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, MutableMapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from layercache.core.policy import checked_tags
from layercache.default import get_cache
from layercache.durations import Duration, parse_duration
from layercache.errors import BackendError
from layercache.integrations.asgi.exchange import ASGIApp, Message, Receive, Scope, Send
from layercache.integrations.asgi.rules import (
    Headers,
    Request,
    Terms,
    end_to_end,
    terms_of,
)
from layercache.integrations.asgi.visit import TAGS, Visit
from layercache.keys import make_key
from layercache.sizes import parse_size

if TYPE_CHECKING:
    from layercache.face import Cache

__all__ = ["ResponseCache", "tag_response"]

log = logging.getLogger("layercache.asgi")

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110 §9.2.1


def tag_response(request: Any, *tags: str) -> None:
    """Have `invalidate` of any of `tags` drop the response to `request`, if it is stored.

        @app.get("/quotes/{symbol}")
        async def quote(symbol: str, request: Request) -> Quote:
            tag_response(request, f"quote:{symbol}")

    Args:
        request: an ASGI scope, or what has one as its `scope`, as the requests of Starlette, FastAPI and Django do.
        tags: what pages are known by; they add up with those of the response's `Cache-Tag`.

    Does nothing where no `ResponseCache` is. Raises `InvalidOption` for what is no tag.
    """
    checked = checked_tags(tags)
    scope: Any = request if isinstance(request, MutableMapping) else getattr(request, "scope", {})
    scope.get(TAGS, []).extend(checked)


class ResponseCache:
    """An ASGI middleware that keeps responses to GET and HEAD in a cache.

        app.add_middleware(ResponseCache, cache="pages")      # Starlette, FastAPI
        application = ResponseCache(get_asgi_application())   # Django

    How long a response lives is what it says (`Cache-Control`, `Expires`), or else the cache's ttl, or that of the
    pattern that matches its key: `page:/quotes/AAPL:…`. One request among all runs the application for a page that
    is not there. A cache that fails is left out: the application answers.

    Args:
        app: the application behind it.
        cache: a cache, or its name.
        statuses: which statuses are stored, whether the response says how long it lives or not; left out, those that
            are cacheable by definition, some of them only where it does.
        max_body: a larger body, or one that is streamed beyond it, is not stored.
        only_stated: whether responses are left alone that do not say how long they live.
        with_authorization: whether requests with `Authorization` are served too, where a response says `public`,
            `s-maxage` or `must-revalidate`; else they go to the application.
        obey_requests: whether a client may ask for a new response (`no-cache`, `max-age=0`), as browsers do at a
            reload.
        sort_query: whether `?a=1&b=2` and `?b=2&a=1` are one page.
        pass_ttl: how long a response that may not be stored lets requests of its URL pass without waiting.
        tag_header: the header of a response that lists its tags; it is removed.
    """

    def __init__(
        self,
        app: ASGIApp,
        cache: str | Cache[Any] = "default",
        *,
        statuses: Iterable[int] | None = None,
        max_body: int | str = "1MB",
        only_stated: bool = False,
        with_authorization: bool = False,
        obey_requests: bool = True,
        sort_query: bool = False,
        pass_ttl: Duration = 10.0,
        tag_header: str = "Cache-Tag",
    ) -> None:
        self.app, self._cache = app, cache
        self.statuses = None if statuses is None else frozenset(statuses)
        self.max_body, self.pass_ttl = parse_size(max_body), parse_duration(pass_ttl)
        self.stores_unstated, self.obeys = not only_stated, obey_requests
        self._with_authorization, self._sort_query = with_authorization, sort_query
        self._tag_header = tag_header.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope[TAGS] = []
        if scope["method"] not in {"GET", "HEAD"}:
            await self._change(scope, receive, send)
            return
        request = Request(scope)
        # §5.2.1.5: nothing of it is to be stored
        bypasses = request.is_for_the_app or "no-store" in request.directives
        if bypasses or (request.has("authorization") and not self._with_authorization):
            await self.app(scope, receive, self.signed(send, "fwd=bypass"))
            return
        visit = Visit(self, self.cache, scope, receive, request)
        try:
            await visit.answer(_without_body(send) if request.method == "HEAD" else send)
        finally:
            visit.leave()

    @property
    def cache(self) -> Cache[Any]:
        """Where the pages are; opened at the first request."""
        return get_cache(self._cache) if isinstance(self._cache, str) else self._cache

    def key(self, scope: Scope, credentials: str, variant: str = "") -> str:
        """Return the key of a page. Requests with credentials have their own: what they get may say less of
        itself."""
        path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        host = next((value for name, value in scope["headers"] if name.lower() == b"host"), b"")
        query: bytes = scope.get("query_string", b"")
        if self._sort_query:
            query = b"&".join(sorted(query.split(b"&"), key=lambda pair: bytes(pair).partition(b"=")[0]))
        return _key(
            path.partition(b"?")[0],
            scope.get("scheme", "http"),
            host,
            scope.get("root_path", ""),
            query,
            credentials,
            variant,
        )

    async def _change(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer, and drop what is stored of the URL if it has changed something (§4.4)."""

        async def dropping(message: Message) -> None:
            # before the client hears of it, and may ask again
            if message["type"] == "http.response.start" and is_unsafe and 200 <= message["status"] < 400:
                try:
                    await self.cache.adelete_many([self.key(scope, held) for held in ("", "a", "c", "ac")])
                except BackendError:
                    log.warning(
                        "what is stored of a URL that was changed could not be dropped", exc_info=True
                    )
            await send(message)

        is_unsafe = scope["method"] not in _SAFE
        await self.app(scope, receive, self.signed(dropping, None))

    def terms_of(self, request: Request, status: int, headers: Headers, now: float) -> Terms | None:
        """Return on which terms a response is kept; None where it is not."""
        return terms_of(
            request, status, headers, now, statuses=self.statuses, stores_unstated=self.stores_unstated
        )

    def signed(self, send: Send, status: str | None) -> Send:
        """Return a `send` that removes the tags from a response, and says what the cache did (RFC 9211)."""

        async def send_signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = self._tag_header.encode("latin-1")
                headers = [pair for pair in message.get("headers", ()) if bytes(pair[0]).lower() != own]
                if status is not None:
                    headers.append((b"cache-status", f"layercache; {status}".encode("latin-1")))
                message = {**message, "headers": headers}
            await send(message)

        return send_signed

    def tags_of(self, scope: Scope, headers: Headers) -> tuple[str, ...]:
        """Return the tags of a response; raises `InvalidOption` where one of its header is none."""
        listed = [
            tag.strip() for name, value in headers if name == self._tag_header for tag in value.split(",")
        ]
        return checked_tags([*scope[TAGS], *[tag for tag in listed if tag]])

    def kept(self, headers: Headers) -> Headers:
        """Return those of `headers` that are stored with a page."""
        return [pair for pair in end_to_end(headers) if pair[0] != self._tag_header]


# the same few thousand URLs are asked for again and again; looking one up is a tenth of spelling it anew
@lru_cache(maxsize=4096)
def _key(
    path: bytes, scheme: str, host: bytes, root: str, query: bytes, credentials: str, variant: str
) -> str:
    site = f"{scheme}://{host.decode('latin-1').lower()}{root}"
    parts = (path.decode("latin-1"), site, query.decode("latin-1"), credentials)
    return make_key("page", *parts, **({"variant": variant} if variant else {}))


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head
