"""The way of one GET or HEAD through the cache.

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
from contextlib import suppress
from math import inf
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

from layercache.core.context import LoadContext
from layercache.entry import MISSING
from layercache.errors import CacheError, InvalidOption, LoadTimeout
from layercache.integrations.asgi.exchange import Exchange, Message, Receive, Scope, Send, headers_of
from layercache.integrations.asgi.pages import Page
from layercache.integrations.asgi.rules import (
    Headers,
    Request,
    Terms,
    initial_age,
    is_buffered,
    is_not_modified,
    variant_of,
    varies_on,
)

if TYPE_CHECKING:
    from layercache.face import Cache
    from layercache.integrations.asgi.middleware import ResponseCache

__all__ = ["TAGS", "Visit"]

log = logging.getLogger("layercache.asgi")

TAGS: Final = "layercache.tags"  # in the scope
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


class _ServerFailed(CacheError):
    """The application answered with a server error, where a page is there that can be served instead."""


class Visit:
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

        scope = {**self._scope, TAGS: []}
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
