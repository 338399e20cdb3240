"""Who may use the management API: tokens and scopes; without tokens this machine alone, and no page of another site."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from asking import OWN, READ, WRITE, Api, bearer, problem, settings
from fastapi import FastAPI

import layercache.admin
from layercache import Caches, ConfigError
from layercache.admin import access

LOOKS = [
    "/caches",
    "/caches/stock/stats",
    "/caches/stock/keys",
    "/caches/stock/keys/k",
    "/caches/stock/prefixes",
    "/health",
    "/metrics",
]
CHANGES = [
    ("DELETE", "/caches/stock/keys/k"),
    ("POST", "/caches/stock/invalidate"),
    ("POST", "/caches/stock/clear"),
    ("POST", "/caches/stock/warm"),
]


# -- tokens


@pytest.mark.parametrize("path", LOOKS)
def test_with_tokens_looking_needs_one(guarded: Api, path: str) -> None:
    assert problem(guarded.get(path)) == "token-wanted"
    assert guarded.get(path).headers["www-authenticate"].startswith("Bearer")
    assert problem(guarded.get(path, headers=bearer("x" * 32))) == "token-wanted"
    for token in (READ, WRITE):
        assert guarded.get(path, headers=bearer(token)).status_code in {200, 404}


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_changing_needs_the_write_token(guarded: Api, method: str, path: str) -> None:
    body = {"tags": ["t"]} if path.endswith("invalidate") else None

    assert guarded(method, path, json=body, headers=OWN).status_code == 401
    refused = guarded(method, path, json=body, headers=bearer(READ) | OWN)
    assert problem(refused) == "not-permitted"
    assert "insufficient_scope" in refused.headers["www-authenticate"]
    assert guarded(method, path, json=body, headers=bearer(WRITE)).status_code == 200


def test_this_machine_needs_a_token_as_well_where_there_is_one(guarded: Api) -> None:
    local = Api(guarded.app)

    assert local.get("/caches").status_code == 401
    assert local.post("/caches/stock/clear", headers=OWN).status_code == 401


def test_with_a_read_token_alone_nobody_can_change_anything() -> None:
    with Caches(settings(read_token=READ)) as world:
        api = Api(layercache.admin.app(world))

        assert api.get("/caches", headers=bearer(READ)).status_code == 200
        assert api.post("/caches/stock/clear", headers=bearer(READ) | OWN).status_code == 403


@pytest.mark.parametrize(
    "given", ["Basic x", "Bearer", "Bearer ", f"Bearer  {'x' * 32}", WRITE, f"Token {WRITE}"]
)
def test_what_is_no_bearer_token_is_none(guarded: Api, given: str) -> None:
    assert guarded.get("/caches", headers={"Authorization": given}).status_code == 401


def test_tokens_are_compared_as_digests_in_constant_time(
    guarded: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = access.compare_digest
    monkeypatch.setattr(
        access, "compare_digest", lambda one, two: compared.append((one, two)) or compare(one, two)
    )

    for token in ("short", READ, WRITE):
        guarded.get("/caches", headers=bearer(token))

    assert len(compared) == 6, "each with both"
    assert {len(part) for pair in compared for part in pair} == {32}


@pytest.mark.parametrize("token", ["s3cret", "x" * 31, "blank " * 8, "é" * 40])
def test_a_token_that_is_none_is_a_fault_of_the_settings_which_does_not_repeat_it(token: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Caches(settings(read_token=token))

    assert raised.value.faults[0].path == "admin.read_token"
    assert token not in str(raised.value)


def test_one_token_for_both_scopes_is_a_fault() -> None:
    with pytest.raises(ConfigError, match="the same as `read_token`"):
        Caches(settings(read_token=READ, write_token=READ))


def test_tokens_are_shown_nowhere(guarded: Api) -> None:
    with Caches(settings(read_token=READ, write_token=WRITE)) as world:
        assert READ not in repr(world.settings)
        assert WRITE not in repr(world.settings)
    assert READ not in guarded.get("/openapi.json").text


# -- without tokens


def test_without_tokens_this_machine_is_served(api: Api) -> None:
    for address in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        assert Api(api.app, address).get("/caches").status_code == 200
    for host in ("localhost", "localhost:8790", "[::1]:8790", "127.0.0.1"):
        assert Api(api.app, host=host).get("/caches").status_code == 200


@pytest.mark.parametrize(
    "address", ["203.0.113.7", "10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "testclient", ""]
)
def test_and_nobody_else(api: Api, address: str) -> None:
    for path in LOOKS:
        assert problem(Api(api.app, address).get(path)) == "not-permitted"
    assert Api(api.app, address).post("/caches/stock/clear", headers=OWN).status_code == 403


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host", "Via"])
def test_what_was_forwarded_is_refused_whatever_it_claims(api: Api, header: str) -> None:
    assert problem(api.get("/caches", headers={header: "127.0.0.1"})) == "not-permitted"
    assert Api(api.app, "203.0.113.7").get("/caches", headers={header: "127.0.0.1"}).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8790", "10.0.0.1"]
)
def test_a_name_that_was_bound_to_this_machine_is_refused(api: Api, host: str) -> None:
    assert problem(Api(api.app, host=host).get("/caches")) == "not-permitted"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_origin_is_refused(api: Api, headers: dict[str, str]) -> None:
    assert problem(api.get("/caches", headers=headers)) == "not-permitted"
    assert problem(api.post("/caches/stock/clear", headers=headers | OWN)) == "not-permitted"


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_without_tokens_a_change_needs_our_header(api: Api, world: Caches, method: str, path: str) -> None:
    world["stock"].set("k", 1, tags=["t"])
    body = {"tags": ["t"]} if path.endswith("invalidate") else None

    assert problem(api(method, path, json=body)) == "not-permitted"
    assert world["stock"].get("k") == 1
    assert api(method, path, json=body, headers=OWN | {"Origin": "http://127.0.0.1:8790"}).status_code == 200


def test_nothing_is_ever_said_to_pages_of_other_origins(api: Api) -> None:
    answer = api("OPTIONS", "/caches/stock/clear", headers={"Origin": "https://evil.example"})

    assert answer.status_code == 405
    for each in (answer, api.get("/caches")):
        assert not [name for name in each.headers if name.startswith("access-control")]
        assert "set-cookie" not in each.headers


# -- bodies


def test_a_body_is_bounded_and_only_read_of_who_is_admitted(api: Api, guarded: Api) -> None:
    long = {"tags": ["t" * 70_000]}

    assert problem(api.post("/caches/stock/invalidate", json=long, headers=OWN)) == "too-long"
    assert problem(guarded.post("/caches/stock/invalidate", json=long)) == "token-wanted"
    assert guarded.post("/caches/stock/invalidate", content="{").status_code == 401


def test_a_body_in_chunks_is_refused(api: Api) -> None:
    async def chunks() -> Any:
        yield b"{}"

    assert problem(api.post("/caches/stock/warm", content=chunks(), headers=OWN)) == "length-wanted"


# -- the log of changes


def test_every_change_is_logged_and_what_was_refused_as_well(
    guarded: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "layercache.admin")

    guarded.delete("/caches/stock/keys/quote:AAPL", headers=bearer(WRITE))
    guarded.post("/caches/stock/invalidate", json={"tags": ["news"], "soft": True}, headers=bearer(WRITE))
    guarded.post("/caches/stock/clear", headers=bearer(READ))
    guarded.post("/caches/stok/clear", headers=bearer(WRITE))
    guarded.get("/caches", headers=bearer(READ))

    told = [record.layercache_admin for record in caplog.records if record.name == "layercache.admin"]  # type: ignore[attr-defined]
    assert [(each["action"], each["name"]) for each in told] == [
        ("delete", "stock"),
        ("invalidate", "stock"),
        ("clear", "stock"),
        ("clear", "stok"),
    ]
    assert told[0]["key"] == "quote:AAPL"
    assert told[0]["who"].startswith("write:")
    assert told[0]["address"] == "203.0.113.7"
    assert told[0]["outcome"] == "done (200): it was not there"
    assert told[1]["outcome"] == "done (200): tags ['news'], soft"
    assert told[2]["who"] == "nobody admitted"
    assert told[2]["outcome"].startswith("refused (403)")
    assert told[3]["outcome"].startswith("refused (404)")
    assert READ not in caplog.text
    assert WRITE not in caplog.text


def test_a_line_of_the_log_is_one_line_whatever_the_key(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "layercache.admin")

    api.delete("/caches/stock/keys/a%0Aroot%20was%20here%1b", headers=OWN)

    (line,) = [record.getMessage() for record in caplog.records if record.name == "layercache.admin"]
    assert line.isprintable()


def test_a_change_that_fails_is_logged_as_failed(
    api: Api, world: Caches, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "layercache.admin")

    async def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(world["stock"], "aclear", fail)
    with pytest.raises(ZeroDivisionError):
        api.post("/caches/stock/clear", headers=OWN)

    assert "failed: ZeroDivisionError" in caplog.text


# -- in an application


def test_in_an_application_it_is_guarded_as_well_and_leaves_the_rest_alone(world: Caches) -> None:
    app = FastAPI()
    app.include_router(layercache.admin.router(world), prefix="/cache")
    app.add_api_route("/own", lambda: {"mine": True})
    here, elsewhere = Api(app), Api(app, "203.0.113.7", "app.example.com")

    assert here.get("/cache/caches").status_code == 200
    assert problem(elsewhere.get("/cache/caches")) == "not-permitted"
    assert elsewhere.get("/own").json() == {"mine": True}
    assert elsewhere.get("/nope").headers["content-type"] == "application/json", "the application's own"
    assert here("PUT", "/cache/caches/stock/keys/k").headers["allow"] == "DELETE, GET"
    assert problem(here("PUT", "/cache/caches/stock/keys/k")) == "wrong-method"
    assert problem(here.get("/cache/caches/stock/keys?limit=0")) == "invalid-request"


def test_without_a_world_it_is_about_the_default_one() -> None:
    layercache.configure({"backends": {"m": {"type": "memory"}}, "caches": {"default": {"backend": "m"}}})
    api = Api(layercache.admin.app())

    assert [cache["name"] for cache in api.get("/caches").json()["caches"]] == ["default"]
    layercache.configure({"backends": {"m": {"type": "memory"}}, "caches": {"other": {"backend": "m"}}})
    assert [cache["name"] for cache in api.get("/caches").json()["caches"]] == ["other"]
