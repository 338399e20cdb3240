"""What HTTP says of responses, without any: headers to answers."""

from __future__ import annotations

from typing import Any

import pytest

from layercache.integrations.asgi.rules import (
    Directives,
    Request,
    end_to_end,
    is_not_modified,
    terms_of,
    variant_of,
    varies_on,
)

NOW = 1_782_900_000.0
AN_HOUR_LATER = "Wed, 01 Jul 2026 11:00:00 GMT"
IN_JULY = "Wed, 01 Jul 2026 10:00:00 GMT"


def request(**headers: str) -> Request:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"method": "GET", "headers": named})


def terms(status: int = 200, *, asked: Request | None = None, **headers: str) -> Any:
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return terms_of(asked or request(), status, named, NOW)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["max-age=60"], {"max-age": "60"}),
        (["Max-Age = 60 , PUBLIC"], {"max-age": "60", "public": None}),
        (['private="set-cookie, x", max-age="5"'], {"private": "set-cookie, x", "max-age": "5"}),
        (["max-age=1, max-age=2", "max-age=3"], {"max-age": "1"}),
        ([r'ext="a\"no-store\"", public'], {"ext": 'a"no-store"', "public": None}),
        (["", ",,;,", "=", '"'], {}),
    ],
)
def test_directives_are_read(values: list[str], expected: dict[str, str | None]) -> None:
    assert dict(Directives(values)) == expected


@pytest.mark.parametrize(
    ("headers", "lifetime"),
    [
        ({}, None),
        ({"cache_control": "public"}, None),
        ({"cache_control": "max-age=60"}, 60),
        ({"cache_control": "max-age=60, s-maxage=10"}, 10),
        ({"cache_control": "max-age=60", "age": "15"}, 45),
        ({"cache_control": "max-age=60", "expires": AN_HOUR_LATER}, 60),
        ({"expires": AN_HOUR_LATER, "date": IN_JULY}, 3600),
        ({"cache_control": "max-age=99999999999"}, 365 * 86_400),
    ],
)
def test_a_lifetime_is_what_the_response_states_less_its_age(
    headers: dict[str, str], lifetime: float
) -> None:
    assert terms(**headers).lifetime == lifetime


@pytest.mark.parametrize(
    "headers",
    [
        {"cache_control": "max-age=0"},
        {"cache_control": "max-age=soon"},
        {"cache_control": "max-age=-1"},
        {"cache_control": "max-age=60", "age": "60"},
        {"cache_control": "max-age=60, no-store"},
        {"cache_control": "max-age=60, private"},
        {"cache_control": 'max-age=60, private="x-own"'},
        {"cache_control": "no-cache, max-age=60"},
        {"expires": "0"},
        {"expires": IN_JULY, "date": AN_HOUR_LATER},
        {"cache_control": "public, max-age=60", "set_cookie": "a=b"},
        {"cache_control": "public, max-age=60", "vary": "Accept, *"},
        {"content_range": "bytes 0-1/2"},
    ],
)
def test_what_may_not_be_stored_has_no_terms(headers: dict[str, str]) -> None:
    assert terms(**headers) is None


def test_must_understand_outweighs_no_store_where_the_status_is_understood() -> None:
    assert terms(cache_control="must-understand, no-store, max-age=9").lifetime == 9
    assert terms(299, cache_control="must-understand, no-store, max-age=9") is None


@pytest.mark.parametrize(
    ("stated", "staleness"),
    [
        ("max-age=9", (None, None)),
        ("max-age=9, stale-while-revalidate=30", (30, 30)),
        ("max-age=9, stale-if-error=60", (0, 60)),
        ("max-age=9, stale-while-revalidate=30, stale-if-error=60", (30, 60)),
        ("s-maxage=9", (0, 0)),
        ("s-maxage=9, stale-while-revalidate=30", (30, 30)),
        ("max-age=9, must-revalidate, stale-while-revalidate=30", (0, 0)),
        ("max-age=9, proxy-revalidate", (0, 0)),
    ],
)
def test_how_long_a_response_may_be_served_stale(stated: str, staleness: tuple[Any, Any]) -> None:
    assert terms(cache_control=stated)[1:] == staleness


@pytest.mark.parametrize("stated", ["public", "s-maxage=5", "max-age=5, must-revalidate"])
def test_a_response_to_authorization_is_stored_only_where_it_says_that_it_is_for_others(stated: str) -> None:
    asked = request(authorization="Bearer a")

    assert terms(asked=asked, cache_control=stated) is not None
    assert terms(asked=asked, cache_control="max-age=5") is None
    assert terms(asked=asked) is None


def test_pragma_is_heard_where_there_is_no_cache_control() -> None:
    assert "no-cache" in request(pragma="no-cache").directives
    assert "no-cache" not in request(pragma="no-cache", cache_control="max-age=5").directives


def test_variants_are_told_by_the_headers_that_are_named() -> None:
    names = varies_on([("vary", "Accept-Language, accept"), ("vary", "ACCEPT")])
    assert names == ("accept", "accept-language")

    same = [request(accept="a,  b"), request(accept=" a,b")]
    others = [
        request(accept="b, a"),
        request(accept=""),
        request(),
        request(accept="a, b", accept_language="en"),
    ]

    assert len({variant_of(each, names) for each in same}) == 1
    assert len({variant_of(each, names) for each in (*same, *others)}) == 5
    assert variant_of(request(accept="a"), ()) == ""


def test_headers_of_one_connection_are_not_end_to_end() -> None:
    headers = [
        ("connection", "X-Hop, keep-alive"),
        ("x-hop", "1"),
        ("upgrade", "h2"),
        ("age", "5"),
        ("x-own", "2"),
    ]

    assert end_to_end(headers) == [("x-own", "2")]


@pytest.mark.parametrize(
    ("asked", "has_it"),
    [
        ({"if_none_match": '"a"'}, True),
        ({"if_none_match": '"b", W/"a"'}, True),
        ({"if_none_match": "*"}, True),
        ({"if_none_match": '"b"'}, False),
        ({"if_none_match": '"b"', "if_modified_since": AN_HOUR_LATER}, False),
        ({"if_none_match": "a"}, False),
        ({"if_modified_since": AN_HOUR_LATER}, True),
        ({"if_modified_since": "yesterday"}, False),
        ({}, False),
    ],
)
def test_a_client_has_a_response_already(asked: dict[str, str], has_it: bool) -> None:
    headers = [("etag", '"a"'), ("last-modified", IN_JULY)]

    assert is_not_modified(request(**asked), headers) is has_it
