"""The way of a request: past the cache, or through it.

    a change (POST…) ──────────────── application, and what is stored of its target is dropped
    what no page answers (Range…) ─── application
    GET, HEAD ── look ── fresh ──────────────────────────────► page
                   ├──── stale ── refreshed in the background ► page
                   ├──── "passes" ── application, nobody waits
                   └──── none ── one runs the application, others wait for it
                                   ├─ it may be stored ──────► page, for all of them
                                   └─ it may not ── a note that says so; all go on at once, each to the application

A page whose response varies is kept under its URL with whichever variant was loaded first or last; the others stand
under keys of their own, which tell the generation of that page. So the most wanted variant takes one look, and what
is dropped by its URL is dropped with all variants.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, MutableMapping
from contextlib import suppress
from functools import lru_cache
from math import inf
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from layercache.core.context import LoadContext
from layercache.core.policy import checked_tags
from layercache.default import get_cache
from layercache.durations import Duration, parse_duration
from layercache.entry import MISSING
from layercache.errors import BackendError, CacheError, InvalidOption, LoadTimeout
from layercache.integrations.asgi.exchange import ASGIApp, Exchange, Message, Receive, Scope, Send, headers_of
from layercache.integrations.asgi.pages import Page
from layercache.integrations.asgi.rules import (
    Headers,
    Request,
    Terms,
    end_to_end,
    initial_age,
    is_buffered,
    is_not_modified,
    terms_of,
    variant_of,
    varies_on,
)
from layercache.keys import make_key
from layercache.sizes import parse_size

if TYPE_CHECKING:
    from layercache.face import Cache

__all__ = ["ResponseCache", "tag_response"]

log = logging.getLogger("layercache.asgi")

_TAGS: Final = "layercache.tags"  # in the scope
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110 §9.2.1
_CREDENTIALS: Final = ("authorization", "cookie")
_OF_304: Final = frozenset(
    {
        "age",
        "cache-control",
        "cache-status",
        "content-location",
        "date",
        "etag",
        "expires",
        "last-modified",
        "vary",
    }
)  # RFC 9110 §15.4.5


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
    scope.get(_TAGS, []).extend(checked)


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
        scope[_TAGS] = []
        if scope["method"] not in {"GET", "HEAD"}:
            await self._change(scope, receive, send)
            return
        request = Request(scope)
        # §5.2.1.5: nothing of it is to be stored
        bypasses = request.is_for_the_app or "no-store" in request.directives
        if bypasses or (request.has("authorization") and not self._with_authorization):
            await self.app(scope, receive, self.signed(send, "fwd=bypass"))
            return
        visit = _Visit(self, self.cache, scope, receive, request)
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
        return checked_tags([*scope[_TAGS], *[tag for tag in listed if tag]])

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


class _ServerFailed(CacheError):
    """The application answered with a server error, where a page is there that can be served instead."""


class _Visit:
    """One GET or HEAD on its way through the cache."""

    def __init__(
        self, settings: ResponseCache, cache: Cache[Any], scope: Scope, receive: Receive, request: Request
    ) -> None:
        self._settings, self._cache, self._scope, self._receive, self._request = (
            settings,
            cache,
            scope,
            receive,
            request,
        )
        self._now = cache._loop.now  # noqa: SLF001
        self._arrived = self._now()
        self._exchanges: list[Exchange] = []
        self._is_over = False
        self._credentials = "".join([name[0] for name in _CREDENTIALS if request.has(name)])
        self._key = settings.key(scope, self._credentials)
        self._forward = "uri-miss"  # why the application was asked (RFC 9211 §2.2)

    async def answer(self, send: Send) -> None:
        request = self._request
        if self._settings.obeys and "only-if-cached" in request.directives:  # §5.2.1.7
            page = await self._there()
            await (_gateway_timeout(send) if page is None else self._send_page(page, send))
            return
        try:
            page = await self._page()
        except LoadTimeout:
            if self._exchanges:
                await _gateway_timeout(send)  # the application was slower than `hard_timeout`
                return
            page = None
        except CacheError as error:
            # of the cache: the application answers; unless it was the application's own
            if any(exchange.error is error for exchange in self._exchanges):
                raise
            page = None
        own = next((exchange for exchange in reversed(self._exchanges) if exchange.is_for_the_client), None)
        if page is None and own is None:  # it ran, and only the cache has failed since
            page = next((exchange.page for exchange in self._exchanges if exchange.page is not None), None)
        if page is not None and not page.passes:
            await self._send_page(page, send)
        elif own is not None:
            await own.hand_over(self._settings.signed(send, f"fwd={self._forward}"))
        else:
            await self._pass(send, by_note=page is not None)

    def leave(self) -> None:
        self._is_over = True
        for exchange in self._exchanges:
            exchange.leave()

    # -- finding it

    async def _page(self) -> Page | None:
        """Return the page that answers, or one that passes, or None where the application is to be asked.

        Raises what the application raises, and what the cache does.
        """
        page = await self._read()
        if page is not None and not page.passes and not page.serves(self._request):
            self._forward = "vary-miss"
            self._key = self._variant_key(page)
            page = await self._read()
            if page is not None and not page.passes and not page.serves(self._request):
                return None  # it varies on something else than the page of its URL does
        return page

    async def _read(self) -> Page | None:
        page = Page.of(await self._cache.aget_or_set(self._key, self._load))
        if page is None or page.passes or not page.serves(self._request):
            return page
        if self._is_too_stale(page):
            # who finds it now waits; if the application fails, the page serves (RFC 5861 §4)
            self._forward = "stale"
            page = Page.of(await self._cache.aget_or_set(self._key, self._load, refresh="off"))
        if page is None or page.passes or self._pleases(page):
            return page
        self._forward = "request"
        return await self._anew()

    async def _there(self) -> Page | None:
        """Return the page that is there for an `only-if-cached`."""
        try:
            page = Page.of(await self._cache.apeek(self._key))
            if page is not None and not page.passes and not page.serves(self._request):
                self._key = self._variant_key(page)
                page = Page.of(await self._cache.apeek(self._key))
        except CacheError:
            return None
        if page is None or page.passes or not page.serves(self._request):
            return None
        return None if self._is_too_stale(page) or not self._pleases(page) else page

    def _variant_key(self, page: Page) -> str:
        variant = f"{page.generation}.{variant_of(self._request, page.vary)}"
        return self._settings.key(self._scope, self._credentials, variant)

    def _is_too_stale(self, page: Page) -> bool:
        """Whether it is stale, and was to be served so for a shorter time than the cache keeps it (§4.2.4)."""
        left = page.left_at(self._now())
        return left <= 0 and page.stale is not None and -left >= page.stale

    def _pleases(self, page: Page) -> bool:
        """Whether the client takes it (§5.2.1)."""
        given = self._request.directives
        if not self._settings.obeys or not len(given) or page.began > self._arrived:
            return True
        now = self._now()
        max_age, min_fresh = given.seconds("max-age"), given.seconds("min-fresh")
        if "no-cache" in given or (max_age is not None and page.age_at(now) > max_age):
            return False
        return min_fresh is None or page.left_at(now) >= min_fresh

    # -- having it made

    async def _load(self, load: LoadContext[Any]) -> Any:
        return await self._made(load, Page.of(load.stale))

    async def _anew(self) -> Page | None:
        """Return a page that was begun after the request came, whatever is there: at the client's wish.

        Of those who wish so at once one after the other is given the key; but for the first one, they find what they
        want.
        """
        found: Page | None = None

        async def load(context: LoadContext[Any]) -> Any:
            nonlocal found
            there = Page.of(await self._cache.apeek(self._key))
            if (
                there is not None
                and there.began > self._arrived
                and (there.passes or there.serves(self._request))
            ):
                found = there
                return MISSING
            return await self._made(context, there)

        value = await self._cache.arefresh(self._key, load)
        return found if value is MISSING else Page.of(value)

    async def _made(self, load: LoadContext[Any], known: Page | None) -> Any:
        """Run the application; return the page for the cache, or the note that there is none.

        Args:
            known: the page that is there.
        """
        settings, request, began = self._settings, self._request, self._now()

        def terms(status: int, headers: Headers) -> Terms | None:
            return settings.terms_of(request, status, headers, self._now())

        scope = {**self._scope, _TAGS: []}
        exchange = Exchange(settings.app, scope, self._receive, terms, settings.max_body)
        self._exchanges.append(exchange)
        if self._is_over:  # it is refreshed in the background
            exchange.leave()
        await exchange.settled()
        if exchange.terms is not None:
            try:
                load.add_tags(*settings.tags_of(scope, exchange.headers))
            except InvalidOption as error:
                log.warning("the response under %r is not stored: %s", self._key, error)
                exchange.terms = None
        stated = exchange.terms
        if stated is not None:
            if stated.lifetime is not None:
                load.ttl = stated.lifetime
            if stated.stale is not None:
                load.stale_ttl = max(stated.stale, stated.on_error or 0.0)
            exchange.page = self._whole(exchange, stated, began, known)
            return exchange.page.as_value()
        if exchange.status >= 500 and known is not None and self._may_mask(known):
            raise _ServerFailed(f"the application answered {exchange.status}")
        load.ttl, load.stale_ttl = settings.pass_ttl, 0
        return Page(began, self._now(), passes=True).as_value()

    def _whole(self, exchange: Exchange, stated: Terms, began: float, known: Page | None) -> Page:
        settings, headers = self._settings, exchange.headers
        lifetime = stated.lifetime
        if lifetime is None:
            ttl = self._cache._policy.plan_for(self._key).ttl  # noqa: SLF001
            lifetime = None if ttl == inf else ttl
        vary = varies_on(headers)
        # other variants stay as long as the page of their URL does
        generation = known.generation if known is not None and known.generation else token_hex(8)
        return Page(
            began=began,
            at=self._now(),
            status=exchange.status,
            headers=settings.kept(headers),
            body=exchange.body,
            lifetime=lifetime,
            stale=stated.stale,
            on_error=stated.on_error,
            age=initial_age(headers),
            vary=vary,
            variant=variant_of(self._request, vary),
            generation=generation,
        ).with_etag()

    def _may_mask(self, page: Page) -> bool:
        """Whether a server error is answered with `page` (RFC 5861 §4)."""
        if page.passes or not page.serves(self._request):
            return False
        return page.on_error is None or page.left_at(self._now()) > -page.on_error

    async def _pass(self, send: Send, *, by_note: bool) -> None:
        """Have the application answer, beside the cache; drop the note that had us pass where it has outlived
        itself."""
        settings, can_be_stored, size = self._settings, False, 0

        async def noticing(message: Message) -> None:
            nonlocal can_be_stored, size
            if message["type"] == "http.response.start":
                headers = headers_of(message)
                can_be_stored = is_buffered(headers, settings.max_body) and bool(
                    settings.terms_of(self._request, message["status"], headers, self._now())
                )
            size += len(message.get("body", b""))
            await send(message)

        await settings.app(self._scope, self._receive, settings.signed(noticing, f"fwd={self._forward}"))
        if by_note and can_be_stored and size <= settings.max_body:
            with suppress(CacheError):  # the layer has counted and logged it
                await self._cache.adelete(self._key)

    # -- sending it

    async def _send_page(self, page: Page, send: Send) -> None:
        """Send a page, as a 304 where the client has it; and wait for the run of the application that it came of, if
        that was for this request."""
        now = self._now()
        own = next((each for each in self._exchanges if each.page and each.page.at == page.at), None)
        headers = list(page.headers)
        if own is None or page.age:
            headers.append(("age", str(int(page.age_at(now)))))  # §5.1
        if own is not None:
            headers.append(("cache-status", f"layercache; fwd={self._forward}; stored"))
        elif page.at > self._arrived:
            headers.append(("cache-status", f"layercache; fwd={self._forward}; collapsed"))
        else:
            left = page.left_at(now)
            ttl = "" if left == inf else f"; ttl={int(left)}"
            headers.append(("cache-status", f"layercache; hit{ttl}"))
        status, body = page.status, page.body
        if status == 200 and is_not_modified(self._request, page.headers):
            status, body = 304, b""
            headers = [pair for pair in headers if pair[0] in _OF_304]
        elif status != 204:
            headers = [pair for pair in headers if pair[0] != "content-length"]
            headers.append(("content-length", str(len(body))))
        await _send(send, status, headers, body)
        if own is not None:
            await own.ended()


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


async def _gateway_timeout(send: Send) -> None:
    headers = [
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", "15"),
        ("cache-control", "no-store"),
    ]
    await _send(send, 504, headers, b"Gateway Timeout")


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head
