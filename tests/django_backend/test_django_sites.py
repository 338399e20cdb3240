"""Sessions, the cache middleware and template fragments over layercache, asked for as a browser does."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.utils import make_template_fragment_key
from django.test import AsyncClient, Client, override_settings
from django_project import ran

import layercache
from layercache import EncodeError, get_cache

CACHED_SITE = [
    "django.middleware.cache.UpdateCacheMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.cache.FetchFromCacheMiddleware",
]
CACHE, CACHED_DB = "django.contrib.sessions.backends.cache", "django.contrib.sessions.backends.cached_db"
PREFIX = {CACHE: "django.contrib.sessions.cache", CACHED_DB: "django.contrib.sessions.cached_db"}
PICKLED = "django_project.PickleSerializer"


def text(response: Any) -> str:
    assert response.status_code == 200
    body: str = response.content.decode()
    return body


class TestSessions:
    def test_a_session_lives_in_the_cache(self, site):
        with override_settings(SESSION_ENGINE=CACHE):
            browser, other = Client(), Client()

            assert [text(browser.get("/visit/")) for _ in range(3)] == ["1", "2", "3"]
            assert text(other.get("/visit/")) == "1"

            key = browser.cookies["sessionid"].value
            stored = caches["default"].get(PREFIX[CACHE] + key)
            assert len(stored["visits"]) == 3
            assert stored["visits"][0][1] == {1, 2}

    def test_it_lives_as_long_as_its_cookie(self, site):
        with override_settings(SESSION_ENGINE=CACHE, SESSION_COOKIE_AGE=1234):
            browser = Client()
            browser.get("/visit/")

            made = caches["default"].make_key(PREFIX[CACHE] + browser.cookies["sessionid"].value)
            assert get_cache("site").ttl_left(made) == pytest.approx(1234, abs=10)

    def test_who_leaves_leaves_nothing(self, site):
        with override_settings(SESSION_ENGINE=CACHE):
            browser = Client()
            browser.get("/visit/")
            key = browser.cookies["sessionid"].value

            assert text(browser.get("/leave/")) == "left"

            assert not caches["default"].has_key(PREFIX[CACHE] + key)
            browser.cookies["sessionid"] = key
            assert text(browser.get("/visit/")) == "1"
            assert browser.cookies["sessionid"].value != key

    def test_a_session_gets_another_key_and_keeps_what_it_has(self, site):
        with override_settings(SESSION_ENGINE=CACHE):
            browser = Client()
            browser.get("/visit/")
            key = browser.cookies["sessionid"].value

            browser.get("/rotate/")

            assert browser.cookies["sessionid"].value != key
            assert not caches["default"].has_key(PREFIX[CACHE] + key)
            assert text(browser.get("/visit/")) == "2"

    def test_when_its_time_is_over_it_begins_anew(self, open_world, clock):
        open_world("memory")
        with override_settings(SESSION_ENGINE=CACHE, SESSION_COOKIE_AGE=100):
            browser = Client()
            browser.get("/visit/")
            clock.advance(99)
            assert text(browser.get("/visit/")) == "2"

            clock.advance(100)

            assert text(browser.get("/visit/")) == "1"

    def test_a_database_behind_the_cache_remembers_what_it_forgot(self, site, database):
        with override_settings(SESSION_ENGINE=CACHED_DB, SESSION_SERIALIZER=PICKLED):
            browser = Client()
            assert [text(browser.get("/visit/")) for _ in range(2)] == ["1", "2"]
            key = PREFIX[CACHED_DB] + browser.cookies["sessionid"].value
            assert len(caches["default"].get(key)["visits"]) == 2
            caches["default"].clear()

            assert text(browser.get("/visit/")) == "3"

            assert len(caches["default"].get(key)["visits"]) == 3
            browser.get("/leave/")
            assert not caches["default"].has_key(key)

    @pytest.mark.parametrize("engine", [CACHE, CACHED_DB])
    def test_an_async_view_has_a_session_too(self, site, database, engine):
        async def visits() -> list[str]:
            browser = AsyncClient()
            found = [text(await browser.get("/avisit/")) for _ in range(3)]
            await layercache.aclose()
            return found

        with override_settings(SESSION_ENGINE=engine):
            assert asyncio.run(visits()) == ["1", "2", "3"]

    def test_under_wsgi_each_request_of_an_async_view_has_a_loop_of_its_own(self, site):
        with override_settings(SESSION_ENGINE=CACHE):
            browser = Client()

            assert [text(browser.get("/avisit/")) for _ in range(5)] == list("12345")

    def test_the_store_itself_works_on_both_faces(self, site):
        store = import_module(CACHE).SessionStore

        async def main() -> None:
            session = store()
            await session.aset("a", (1, {2}))
            await session.asave()
            assert await store(session.session_key).aget("a") == (1, {2})
            assert await session.aexists(session.session_key)
            await session.adelete()
            assert not await session.aexists(session.session_key)
            await layercache.aclose()

        session = store()
        session["a"] = 1
        session.save()
        assert store(session.session_key)["a"] == 1
        asyncio.run(main())


class TestMiddleware:
    @pytest.fixture(autouse=True)
    def _cached(self, site):
        with override_settings(MIDDLEWARE=CACHED_SITE, CACHE_MIDDLEWARE_SECONDS=300):
            yield

    def test_a_page_is_made_once(self):
        assert [text(Client().get("/page/")) for _ in range(3)] == ["page 1"] * 3
        assert text(Client().get("/page/?other")) == "page 2"
        assert ran["page"] == 2

    def test_a_page_keeps_its_headers(self):
        first, second = (Client().get("/page/") for _ in range(2))

        assert {name: second[name] for name in first.headers} == first.headers  # and some have an Age
        assert second["Cache-Control"] == "max-age=300"

    def test_pages_that_vary_are_kept_apart(self):
        shops = ("de", "ko", "de", "ko")

        pages = [text(Client().get("/varied/", headers={"X-Shop": each})) for each in shops]

        assert pages == ["de 1", "ko 2", "de 1", "ko 2"]

    def test_what_is_private_or_a_post_is_not_kept(self):
        assert [text(Client().get("/private/")) for _ in range(2)] == ["private 1", "private 2"]
        assert [text(Client().post("/page/")) for _ in range(2)] == ["page 1", "page 2"]

    def test_a_page_lives_as_long_as_it_says(self, open_world, clock):
        open_world("memory")
        assert [text(Client().get("/brief/")) for _ in range(2)] == ["brief 1"] * 2
        clock.advance(7)

        assert text(Client().get("/brief/")) == "brief 2"

    def test_head_is_answered_from_a_get(self):
        Client().get("/page/")

        assert Client().head("/page/").status_code == 200
        assert ran["page"] == 1

    def test_clear_has_pages_made_anew(self):
        Client().get("/page/")
        caches["default"].clear()

        assert text(Client().get("/page/")) == "page 2"

    def test_a_page_is_made_once_under_asgi_too(self):
        async def main() -> list[str]:
            pages = [text(await AsyncClient().get("/page/")) for _ in range(2)]
            await layercache.aclose()
            return pages

        assert asyncio.run(main()) == ["page 1", "page 1"]

    def test_json_cannot_carry_a_page_and_says_so(self, site):
        with (
            override_settings(CACHE_MIDDLEWARE_ALIAS="json"),
            pytest.raises(EncodeError, match="HttpResponse"),
        ):
            Client().get("/page/")


def test_a_view_may_be_cached_alone(site):
    with override_settings(MIDDLEWARE=[]):
        assert [text(Client().get("/decorated/")) for _ in range(2)] == ["decorated 1"] * 2


class TestFragments:
    def test_a_fragment_is_rendered_once_for_each_of_what_it_varies_on(self, site):
        with override_settings(MIDDLEWARE=[]):
            pages = [text(Client().get(f"/fragment/?user={user}")) for user in ("ann", "bob", "ann")]

        assert pages == ["<b>ann 1 &lt;i&gt;</b> 1", "<b>bob 2 &lt;i&gt;</b> 2", "<b>ann 1 &lt;i&gt;</b> 3"]

    def test_its_key_drops_it(self, site):
        with override_settings(MIDDLEWARE=[]):
            text(Client().get("/fragment/?user=ann"))
            key = make_template_fragment_key("sidebar", ["ann"])
            made = caches["default"].make_key(key)
            assert get_cache("site").ttl_left(made) == pytest.approx(500, abs=10)

            assert caches["default"].delete(key)

            assert text(Client().get("/fragment/?user=ann")).startswith("<b>ann 2 ")
