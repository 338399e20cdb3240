"""Responses in a cache: an ASGI application behind the middleware, asked by an HTTP client."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os

import httpx
import pytest
from sites import Answer, Visitor, did, visiting
from waiting import auntil

from layercache import BackendError, Caches, InvalidOption
from layercache.integrations.asgi import ResponseCache, tag_response
from layercache.keys import make_key

AN_HOUR = {"cache-control": "max-age=3600"}


def answer(body: bytes = b"hello", status: int = 200, **headers: str) -> Answer:
    return Answer(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


# -- everywhere: in memory, on a server, on a chain


def test_a_page_is_made_once_and_served_as_it_was(everywhere):
    visitor = everywhere()
    visitor.site.answer = Answer(b'{"price": 1}', 200, {"content-type": "application/json", "x-own": "a, b"})

    made, hit = visitor.get("/quotes/AAPL"), visitor.get("/quotes/AAPL")

    assert visitor.site.asked == ["GET"]
    assert (did(made), did(hit)) == ("stored", "hit")
    assert (made.status_code, hit.status_code) == (200, 200)
    assert made.content == hit.content == b'{"price": 1}'
    assert hit.headers["x-own"] == "a, b"
    assert hit.headers["content-length"] == "12"
    assert "age" not in made.headers
    assert hit.headers["age"] == "0"


@pytest.mark.parametrize("body", [b"", b"\x00\xff\xfe binary", "한글 \U0001f600".encode(), b"\xed\xa0\x80"])
def test_every_body_comes_back_byte_by_byte(everywhere, body):
    visitor = everywhere()
    visitor.site.answer = Answer(body)

    assert [visitor.get().content for _ in range(2)] == [body, body]
    assert visitor.site.calls == 1


def test_what_the_response_says_of_its_life_counts(everywhere):
    visitor = everywhere(ttl=5)
    visitor.site.answer = answer(cache_control="max-age=60")
    visitor.get()

    visitor.world.clock.advance(59)
    hit = visitor.get()
    visitor.world.clock.advance(2)
    made = visitor.get()

    assert (did(hit), hit.headers["age"]) == ("hit", "59")
    assert did(made) == "stored"


def test_pages_are_invalidated_by_their_tags(everywhere):
    visitor = everywhere()
    visitor.site.answer = lambda _, scope: tag_response(scope, "quote:AAPL") or answer(cache_tag="quotes, us")
    cache = visitor.world["default"]
    visitor.get("/first")  # a server that never had a tag stores only the next page that tells one

    for tag in ("quote:AAPL", "quotes", "us"):
        made, hit = visitor.get(), visitor.get()
        visitor.run(cache.ainvalidate(tag))

        assert (did(made), did(hit)) == ("stored", "hit")
        assert "cache-tag" not in made.headers
        assert "cache-tag" not in hit.headers
    assert visitor.site.calls == 4


def test_a_page_that_was_invalidated_while_it_was_made_is_sent_and_not_stored(everywhere):
    visitor = everywhere()
    visitor.site.answer = answer(cache_tag="quotes")

    async def overtaken() -> httpx.Response:
        visitor.site.gate = asyncio.Event()
        request = asyncio.create_task(visitor.aget())
        await auntil(lambda: visitor.site.calls)
        await visitor.world["default"].ainvalidate("quotes")
        visitor.site.gate.set()
        return await request

    assert visitor.run(overtaken()).content == b"hello"
    visitor.get()
    assert visitor.site.calls == 2


def test_many_at_once_are_one_run_of_the_application(everywhere):
    visitor = everywhere()
    visitor.site.answer = Answer(b"x" * 1000)

    async def ask() -> list[httpx.Response]:
        visitor.site.gate = asyncio.Event()
        requests = [asyncio.create_task(visitor.aget()) for _ in range(20)]
        await auntil(lambda: visitor.site.calls)
        visitor.site.gate.set()
        return await asyncio.gather(*requests)

    responses = visitor.run(ask())

    assert visitor.site.calls == 1
    assert {response.content for response in responses} == {b"x" * 1000}
    assert sorted(map(did, responses)) == ["collapsed"] * 19 + ["stored"]


@pytest.mark.parametrize(
    "private",
    [{"cache-control": "private"}, {"set-cookie": "session=1"}, {"vary": "*"}, {"cache-control": "no-store"}],
)
def test_what_may_not_be_stored_lets_nobody_wait_for_another(everywhere, private):
    visitor = everywhere()
    visitor.site.answer = lambda _: Answer(str(visitor.site.calls).encode(), 200, private)

    async def ask() -> list[httpx.Response]:
        visitor.site.gate = asyncio.Event()
        requests = [asyncio.create_task(visitor.aget()) for _ in range(5)]
        await auntil(lambda: visitor.site.calls)
        visitor.site.gate.set()
        responses = await asyncio.gather(*requests)
        # from now on nobody waits even for the first one: all are at it together
        visitor.site.gate = asyncio.Event()
        again = [asyncio.create_task(visitor.aget()) for _ in range(5)]
        await auntil(lambda: visitor.site.calls == 10)
        visitor.site.gate.set()
        return responses + await asyncio.gather(*again)

    responses = visitor.run(ask())

    assert visitor.site.calls == len(responses) == 10
    assert not {did(response) for response in responses} & {"hit", "stored", "collapsed"}
    if "set-cookie" in private:
        assert all(response.headers["set-cookie"] == "session=1" for response in responses)


def test_variants_are_told_apart_and_each_is_made_once(everywhere):
    visitor = everywhere()
    visitor.site.answer = lambda seen: Answer(
        seen["accept-language"].encode(), 200, {"vary": "Accept-Language"}
    )

    for _ in range(3):
        for language in ("en", "ko", "de"):
            assert visitor.get(accept_language=language).text == language
    assert visitor.site.calls == 3
    visitor.get("/", "POST", accept_language="en")  # all variants go with their URL
    for language in ("en", "ko", "de"):
        assert did(visitor.get(accept_language=language)) == "stored"


def test_a_change_drops_what_is_stored_of_its_url_when_it_has_succeeded(everywhere):
    visitor = everywhere()
    visitor.get("/a?b")
    visitor.get("/c")

    visitor.site.answer = Answer(status=404)
    visitor.get("/a?b", "DELETE")
    assert did(visitor.get("/a?b")) == "hit"
    visitor.site.answer = Answer(status=204)
    visitor.get("/a?b", "PUT")
    visitor.site.answer = Answer()

    assert did(visitor.get("/a?b")) == "stored"
    assert did(visitor.get("/c")) == "hit"


def test_a_stale_page_is_served_while_a_new_one_is_made(everywhere):
    visitor = everywhere()
    visitor.site.answer = answer(b"old", cache_control="max-age=10, stale-while-revalidate=30")
    visitor.get()
    visitor.world.clock.advance(20)
    visitor.site.answer = answer(b"new", cache_control="max-age=10, stale-while-revalidate=30")

    async def ask() -> httpx.Response:
        stale = await visitor.aget()
        await auntil(lambda: visitor.site.calls == 2 and not visitor.world["default"]._flights._under_way)
        return stale

    stale = visitor.run(ask())

    assert (stale.text, stale.headers["age"]) == ("old", "20")
    assert stale.headers["cache-status"] == "layercache; hit; ttl=-10"
    assert (visitor.get().text, visitor.site.calls) == ("new", 2)


def test_a_stale_page_answers_for_an_application_that_fails(everywhere):
    visitor = everywhere()
    visitor.site.answer = answer(b"kept", cache_control="max-age=10, stale-if-error=600")
    visitor.get()
    visitor.world.clock.advance(20)
    visitor.site.answer = Answer(b"down", 503)

    failing = visitor.get()
    held_back = visitor.get()
    visitor.world.clock.advance(590)
    too_old = visitor.get()

    assert (failing.status_code, failing.text, held_back.text) == (200, "kept", "kept")
    assert visitor.site.calls == 3
    assert (too_old.status_code, too_old.text) == (503, "down")


def test_who_finds_a_page_that_is_kept_for_failures_alone_waits_for_a_new_one(everywhere):
    visitor = everywhere()
    visitor.site.answer = answer(b"old", cache_control="max-age=10, stale-if-error=600")
    visitor.get()
    visitor.world.clock.advance(20)
    visitor.site.answer = answer(b"new", cache_control="max-age=10")

    made = visitor.get()

    assert (made.text, made.headers["cache-status"]) == ("new", "layercache; fwd=stale; stored")


# -- in memory: the rest of what HTTP says


def test_head_is_answered_from_a_get(visit):
    visitor = visit()

    head, get, again = visitor.get("/", "HEAD"), visitor.get(), visitor.get("/", "HEAD")

    assert visitor.site.asked == ["GET"]
    assert (head.content, get.content, again.content) == (b"", b"hello", b"")
    assert head.headers["content-length"] == again.headers["content-length"] == "5"


def test_a_head_of_what_may_not_be_stored_has_no_body_either(visit):
    visitor = visit()
    visitor.site.answer = answer(cache_control="private")

    assert [visitor.get("/", "HEAD").content for _ in range(2)] == [b"", b""]


def test_an_etag_is_made_of_the_body_and_answers_304(visit):
    visitor, other = visit(), visit()
    visitor.site.answer = answer(content_type="text/plain")

    made = visitor.get()
    etag = made.headers["etag"]
    hit = visitor.get(if_none_match=f'"other", W/{etag}')
    miss = visitor.get("/elsewhere", if_none_match=etag)

    assert other.get().headers["etag"] == etag == '"46fb7408d4f285228f4af516ea25851b"'
    assert (hit.status_code, hit.content, hit.headers["etag"]) == (304, b"", etag)
    assert miss.status_code == 304
    assert set(hit.headers) == {"etag", "age", "cache-status"}
    assert visitor.get(if_none_match='"other"').status_code == 200
    assert "if-none-match" not in visitor.site.seen


def test_an_etag_of_the_application_stays(visit):
    visitor = visit()
    visitor.site.answer = answer(etag='W/"v1"', last_modified="Wed, 01 Jul 2026 10:00:00 GMT")
    visitor.get()

    assert visitor.get().headers["etag"] == 'W/"v1"'
    assert visitor.get(if_none_match='"v1"').status_code == 304
    assert visitor.get(if_modified_since="Wed, 01 Jul 2026 10:00:00 GMT").status_code == 304
    assert visitor.get(if_modified_since="Tue, 30 Jun 2026 10:00:00 GMT").status_code == 200
    assert (
        visitor.get(if_modified_since="Wed, 01 Jul 2026 10:00:00 GMT", if_none_match='"v0"').status_code
        == 200
    )


@pytest.mark.parametrize("status", [201, 202, 206, 304, 401, 403, 404, 418, 500, 503])
def test_other_statuses_are_not_stored(visit, status):
    visitor = visit()
    visitor.site.answer = Answer(status=status)

    assert {visitor.get().status_code for _ in range(3)} == {status}
    assert visitor.site.calls == 3


@pytest.mark.parametrize("status", [204, 301, 302, 404, 410])
def test_a_status_that_says_how_long_it_lives_is_stored(visit, status):
    visitor = visit()
    visitor.site.answer = Answer(b"", status, {**AN_HOUR, "location": "/b"})

    assert [visitor.get().status_code for _ in range(2)] == [status, status]
    assert visitor.site.calls == 1


def test_a_failure_does_not_keep_the_page_that_follows_from_being_stored(visit):
    visitor = visit()
    visitor.site.answer = Answer(status=500)
    visitor.get()
    visitor.site.answer = Answer()

    assert [did(visitor.get()) for _ in range(3)] == ["fwd=uri-miss", "stored", "hit"]


def test_requests_with_authorization_are_left_alone_unless_told(visit):
    visitor, told = visit(), visit(with_authorization=True)
    for each in (visitor, told):
        each.site.answer = answer(cache_control="max-age=60")
        each.get()
        assert did(each.get()) == "hit"

    assert [did(visitor.get(authorization="Bearer a")) for _ in range(2)] == ["fwd=bypass"] * 2
    # not even then what does not say that it is for others too (§3.5)
    assert [did(told.get(authorization="Bearer a")) for _ in range(2)] == ["fwd=uri-miss"] * 2
    told.site.answer = answer(cache_control="public, max-age=60")
    told.get(authorization="Bearer a")
    assert [did(told.get(authorization=f"Bearer {name}")) for name in "ab"] == ["stored", "hit"]


def test_a_request_with_a_cookie_is_served_only_what_says_how_it_may_be_shared(visit):
    visitor = visit()
    assert [did(visitor.get()) for _ in range(2)] == ["stored", "hit"]

    assert [did(visitor.get(cookie="session=1")) for _ in range(2)] == ["fwd=uri-miss"] * 2
    visitor.site.answer = lambda seen: Answer(seen["cookie"].encode(), 200, {"vary": "Cookie"})
    visitor.get(cookie="session=1")
    answers = [visitor.get(cookie=f"session={number}") for number in (1, 1, 2)]

    assert list(map(did, answers)) == ["stored", "hit", "stored"]
    assert answers[-1].text == "session=2"


def test_a_client_may_ask_for_a_new_response_or_for_none(visit, clock):
    visitor = visit()
    visitor.site.answer = lambda _: answer(str(visitor.site.calls).encode(), cache_control="max-age=60")
    visitor.get()
    assert visitor.get(cache_control="no-cache").text == "2"
    assert visitor.get(pragma="no-cache").text == "3"
    clock.advance(29)
    assert visitor.get(cache_control="max-age=30").text == "3"
    clock.advance(1)
    assert visitor.get(cache_control="max-age=30").text == "4"
    assert visitor.get(cache_control="min-fresh=61").text == "5"
    assert visitor.get().text == "5"
    assert visitor.get(cache_control="no-store").text == "6"
    assert visitor.get(cache_control="only-if-cached").text == "5"
    assert visitor.get("/elsewhere", cache_control="only-if-cached").status_code == 504
    assert visitor.site.calls == 6


def test_clients_that_want_a_new_response_at_once_share_one(visit):
    visitor = visit()
    visitor.get()

    async def ask() -> list[httpx.Response]:
        visitor.site.gate = asyncio.Event()
        requests = [asyncio.create_task(visitor.aget(cache_control="no-cache")) for _ in range(10)]
        await auntil(lambda: visitor.site.calls == 2)
        visitor.site.gate.set()
        return await asyncio.gather(*requests)

    responses = visitor.run(ask())

    assert visitor.site.calls == 2
    assert {response.status_code for response in responses} == {200}


def test_clients_may_be_refused_a_new_response(visit):
    visitor = visit(obey_requests=False)
    visitor.get()

    assert did(visitor.get(cache_control="no-cache")) == "hit"


@pytest.mark.parametrize(
    "headers",
    [{"range": "bytes=0-1"}, {"if_match": '"a"'}, {"content_length": "3"}, {"cache_control": "no-store"}],
)
def test_requests_that_no_whole_page_answers_go_to_the_application(visit, headers):
    visitor = visit()
    visitor.get()

    assert did(visitor.get(**headers)) == "fwd=bypass"
    assert visitor.site.calls == 2


def test_the_query_is_part_of_a_page_as_it_stands_or_sorted(visit):
    plain, ordered = visit(), visit(sort_query=True)

    for visitor in (plain, ordered):
        visitor.get("/?a=1&b=2&a=0")
        visitor.get("/?b=2&a=1&a=0")
        visitor.get("/?b=2&a=0&a=1")  # of one name the order means something

    assert (plain.site.calls, ordered.site.calls) == (3, 2)


def test_hosts_schemes_and_escapes_are_told_apart(visit):
    visitor = visit()

    for path in ("/a/b", "/a%2Fb", "https://site/a/b", "http://other/a/b"):
        visitor.get(path)

    assert visitor.site.calls == 4


def test_a_body_beyond_the_bound_is_streamed_and_not_stored(visit):
    visitor = visit(max_body=10)
    visitor.site.answer = Answer(parts=(b"12345", b"67890", b"1", b"rest"))

    assert [visitor.get().content for _ in range(2)] == [b"12345678901rest"] * 2
    assert visitor.site.calls == 2
    visitor.site.answer = Answer(parts=(b"12345", b"67890"))
    assert [did(visitor.get("/small")) for _ in range(2)] == ["stored", "hit"]
    assert visitor.get("/small").headers["content-length"] == "10"


def test_a_response_that_breaks_off_is_not_stored(visit):
    visitor = visit()
    visitor.site.answer = answer(content_length="10")

    assert [did(visitor.get()) for _ in range(2)] == ["fwd=uri-miss"] * 2


@pytest.mark.parametrize("order", ["the client is served first", "both at once", "it is refreshed first"])
def test_a_refresh_whose_response_cannot_be_stored_leaves_nothing_behind(visit, clock, order):
    visitor = visit({"stale_ttl": 600})
    visitor.get()
    clock.advance(301)
    visitor.site.answer = answer(b"now private", cache_control="private")

    async def ask() -> list[bytes]:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "query_string": b"",
            "headers": [(b"host", b"site")],
        }
        came: list[bytes] = []
        if order == "both at once":
            visitor.site.gate = asyncio.Event()

        async def send(message):
            if message["type"] == "http.response.body":
                came.append(message["body"])
            if order != "the client is served first":
                await auntil(lambda: visitor.site.calls == 2)
            if order == "it is refreshed first":
                await auntil(lambda: not visitor.world["default"]._flights)

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        await visitor.app({**scope, "raw_path": b"/"}, receive, send)
        if visitor.site.gate is not None:
            visitor.site.gate.set()
        await auntil(lambda: visitor.site.calls == 2)
        await auntil(lambda: len(asyncio.all_tasks()) == 1)
        return came

    assert visitor.run(ask()) == [b"hello"]
    assert visitor.get().text == "now private"


def test_a_stream_reaches_its_client_before_it_has_ended_and_hears_of_its_end(visit):
    visitor = visit()
    came: list[bytes] = []

    async def endless(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        gone = asyncio.create_task(receive())
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while not gone.done():
            await send({"type": "http.response.body", "body": b"tick", "more_body": True})
            await asyncio.sleep(0)
        assert gone.result() == {"type": "http.disconnect"}

    async def ask() -> None:
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
        leaves = asyncio.Event()
        requests = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive():
            if requests:
                return requests.pop()
            await leaves.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if message["type"] == "http.response.body":
                came.append(message["body"])
            if len(came) == 3:
                leaves.set()

        await ResponseCache(endless, visitor.world["default"])(scope, receive, send)

    visitor.run(ask())

    assert came[:3] == [b"tick"] * 3


def test_what_the_application_does_after_its_response_is_done(visit):
    visitor = visit()
    done: list[int] = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append(1)

    visitor.site.after = work
    visitor.get()

    assert done == [1]


def test_what_the_application_raises_is_raised(visit):
    visitor = visit()

    def fail(_):
        raise LookupError("no such quote")

    visitor.site.answer = fail

    with pytest.raises(LookupError, match="no such quote"):
        visitor.get()
    assert visitor.site.calls == 1


def test_a_client_that_goes_away_takes_its_request_along(visit):
    visitor = visit()
    began, ended = asyncio.Event(), list[str]()

    async def slow(scope, receive, send):
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def leave() -> None:
        visitor.app.app = slow
        request = asyncio.create_task(visitor.aget())
        await began.wait()
        request.cancel()
        await auntil(lambda: ended)

    visitor.run(leave())

    assert ended == ["cancelled"]


def test_another_client_keeps_the_run_of_one_that_has_gone(visit):
    visitor = visit()

    async def leave() -> httpx.Response:
        visitor.site.gate = asyncio.Event()
        gone = asyncio.create_task(visitor.aget())
        await auntil(lambda: visitor.site.calls)
        stays = asyncio.create_task(visitor.aget())
        await auntil(lambda: visitor.world["default"].stats().waits)
        gone.cancel()
        await asyncio.wait([gone])
        visitor.site.gate.set()
        return await stays

    assert visitor.run(leave()).text == "hello"
    assert visitor.site.calls == 1


def test_must_revalidate_is_never_served_stale(visit, clock):
    visitor = visit({"stale_ttl": 600})
    visitor.site.answer = answer(b"1", cache_control="max-age=10, must-revalidate")
    visitor.get("/strict")
    visitor.site.answer = answer(b"1", cache_control="max-age=10")
    visitor.get("/lenient")
    clock.advance(20)
    visitor.site.answer = answer(b"2", cache_control="max-age=10")

    assert (visitor.get("/strict").text, visitor.get("/lenient").text) == ("2", "1")


def test_the_age_that_a_response_comes_with_counts(visit, clock):
    visitor = visit()
    visitor.site.answer = answer(cache_control="max-age=60", age="50")
    made = visitor.get()
    clock.advance(9)

    hit = visitor.get()

    assert (made.headers["age"], hit.headers["age"], did(hit)) == ("50", "59", "hit")
    clock.advance(2)
    assert did(visitor.get()) == "stored"


def test_only_what_says_how_long_it_lives_is_stored_if_so_wished(visit):
    visitor = visit(only_stated=True)

    assert [did(visitor.get()) for _ in range(2)] == ["fwd=uri-miss"] * 2
    visitor.site.answer = answer(cache_control="s-maxage=9")
    assert [did(visitor.get("/b")) for _ in range(2)] == ["stored", "hit"]


def test_a_pattern_of_the_settings_may_say_how_long_pages_live(visit, clock):
    visitor = visit({"ttls": {"page:/quotes/*": "15s"}})
    for path in ("/quotes/AAPL?x=1", "/news"):
        visitor.get(path)

    clock.advance(16)

    assert (did(visitor.get("/quotes/AAPL?x=1")), did(visitor.get("/news"))) == ("stored", "hit")


def test_headers_of_a_connection_are_not_stored(visit):
    visitor = visit()
    visitor.site.answer = answer(connection="x-hop, close", x_hop="1", keep_alive="5", x_own="2")
    visitor.get()

    hit = visitor.get()

    assert not {"connection", "x-hop", "keep-alive"} & set(hit.headers)
    assert hit.headers["x-own"] == "2"


def test_a_tag_that_is_none_leaves_the_response_unstored(visit, caplog):
    visitor = visit()
    visitor.site.answer = answer(cache_tag="*")

    with caplog.at_level(logging.WARNING, "layercache.asgi"):
        assert [visitor.get().text for _ in range(2)] == ["hello"] * 2

    assert visitor.site.calls == 2
    assert "a tag is text of 1 to 255 bytes" in caplog.text
    with pytest.raises(InvalidOption):
        tag_response({}, "")
    tag_response({}, "nobody listens")


def test_a_value_of_somebody_else_under_the_key_is_no_page(visit):
    visitor = visit()
    cache = visitor.world["default"]
    key = visitor.app.key({"path": "/", "headers": [(b"host", b"site")]}, "")
    cache.set(key, "not a page")

    assert visitor.get().text == "hello"
    assert key == make_key("page", "/", "http://site", "", "")


def test_hard_timeout_ends_an_application_that_is_too_slow(visit):
    visitor = visit({"hard_timeout": 0.02})

    async def ask() -> httpx.Response:
        visitor.site.gate = asyncio.Event()
        return await visitor.aget()

    assert visitor.run(ask()).status_code == 504


class TestACacheThatFails:
    @pytest.fixture
    def visitor(self, visit) -> Visitor:
        visitor = visit()
        visitor.failing = set()
        cache = visitor.world["default"]
        space = cache._layer.space
        cache.unbind()

        def broken(name, operation):
            def call(*args, **kwargs):
                if name in visitor.failing:
                    raise BackendError("memory", "it is down")
                return operation(*args, **kwargs)

            return call

        space.near = None
        for name in ("get", "fill", "set", "delete", "delete_many"):
            setattr(space, name, broken(name, getattr(space, name)))
        return visitor

    def test_has_the_application_answer(self, visitor):
        visitor.failing |= {"get", "fill", "set", "delete", "delete_many"}

        assert [visitor.get().text for _ in range(3)] == ["hello"] * 3
        assert visitor.get("/", "POST").text == "hello"
        assert visitor.get(cache_control="no-cache").text == "hello"
        assert visitor.get(cache_control="only-if-cached").status_code == 504
        assert visitor.site.calls == 5

    def test_runs_it_once_where_only_storing_fails(self, visitor):
        visitor.failing |= {"fill", "set"}

        assert [visitor.get().text for _ in range(2)] == ["hello"] * 2
        assert visitor.site.calls == 2

    def test_is_told_from_an_application_that_raises_the_same(self, visitor):
        def fail(_):
            raise BackendError("other", "of the application's own")

        visitor.site.answer = fail

        with pytest.raises(BackendError, match="of the application's own"):
            visitor.get()
        assert visitor.site.calls == 1


def test_a_page_that_the_cache_cannot_carry_is_sent_and_made_once_for_it(server_url):
    backends = {"far": {"type": "redis", "url": server_url, "prefix": "large", "max_value_bytes": 4000}}
    world = Caches({"backends": backends, "caches": {"default": {"backend": "far"}}})
    with visiting(world) as visitor:
        visitor.site.answer = Answer(os.urandom(9000))

        assert [len(visitor.get().content) for _ in range(2)] == [9000, 9000]
        assert visitor.site.calls == 2


def test_a_stored_page_is_plain_json(visit):
    visitor = visit()
    visitor.site.answer = Answer("한글".encode(), 200, AN_HOUR)
    visitor.get()
    (key,) = visitor.world["default"]._layer.space.records
    value = visitor.world["default"].get(key)

    assert json.loads(json.dumps(value)) == value
    assert value["text"] == "한글"
    visitor.site.answer = Answer(b"\xff", 200, AN_HOUR)
    visitor.get(cache_control="no-cache")
    assert base64.b64decode(visitor.world["default"].get(key)["base64"]) == b"\xff"
