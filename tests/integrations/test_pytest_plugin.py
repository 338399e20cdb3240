"""The pytest plugin, in suites of somebody else's: each a process of its own."""

from __future__ import annotations

import sys

import pytest

pytest_plugins = ["pytester"]

SETTINGS = """
[default.backends.local]
type = "memory"

[default.backends.shared]
type = "redis"
url = "redis://127.0.0.1:1/0"     # nobody is there

[default.backends.forgiving]
type = "redis"
url = "redis://127.0.0.1:1/0"
on_error = "miss"

[default.backends.layered]
type = "chain"
layers = ["local", "shared"]

[default.backends.nothing]
type = "null"

[default.caches.default]
backend = "shared"
ttl = "5m"

[default.caches.stock]
backend = "layered"
ttls = { "quote:*" = "15s" }

[default.caches.near]
backend = "local"

[default.caches.kind]
backend = "forgiving"

[default.caches.off]
backend = "nothing"
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makefile(".toml", settings=SETTINGS)
    pytester.makepyfile(
        shop="""
        from layercache import cached, get_cache

        loads = []

        @cached("quote:{symbol}", cache="stock")
        def quote(symbol: str) -> float:
            loads.append(symbol)
            return 189.5
        """
    )
    return pytester


def run(suite: pytest.Pytester, *words: str) -> pytest.RunResult:
    return suite.runpytest_subprocess("-W", "error", "-p", "no:valkey", "-p", "no:cacheprovider", *words)


def test_a_world_has_the_caches_of_the_settings_found_or_given_without_their_servers(
    suite: pytest.Pytester,
) -> None:
    suite.makepyfile(
        """
        import asyncio
        import pytest
        import layercache
        from layercache import BackendError, BackendTimeout, Caches, get_cache, cache
        from shop import loads, quote

        @pytest.mark.parametrize("time", [1, 2])
        def test_each_test_has_a_clean_one(layercache_world, time):
            assert isinstance(layercache_world, Caches)
            assert list(layercache_world) == ["default", "stock", "near", "kind", "off"]
            for name in layercache_world:
                assert layercache_world[name] is get_cache(name)
                assert get_cache(name).get("k") is None
                get_cache(name).set("k", (1, 2))
                assert get_cache(name).get("k") == (None if name == "off" else [1, 2])
            loads.clear()
            assert [quote("AAPL"), quote("AAPL")] == [189.5, 189.5]
            assert loads == ["AAPL"]

        def test_their_policies_hold(layercache_world, layercache_clock):
            get_cache("stock").set("quote:AAPL", 1)
            cache.set("quote:AAPL", 1)
            layercache_clock.advance(16)
            assert get_cache("stock").get("quote:AAPL") is None
            assert cache.get("quote:AAPL") == 1

        def test_the_async_twins_speak_to_it(layercache_world):
            async def ask():
                await cache.aset("k", 1)
                await layercache.aclose()  # as an application does at its end
                return await get_cache().aget("k", "a clean one again")

            assert asyncio.run(ask()) == "a clean one again"

        def test_what_the_code_configures_is_in_memory_too(layercache_world):
            far = {"type": "redis", "url": "redis://127.0.0.1:1"}
            caches = {"default": {"backend": "far"}, "other": {}}
            layercache.configure({"backends": {"far": far}, "caches": caches})
            get_cache("other").set("k", 1)
            assert get_cache("other").get("k") == 1

        def test_outages_are_those_of_production(layercache_world, chaos):
            names = ["default", "near", "kind", "stock"]
            for name in names:
                get_cache(name).set("k", 1)
            with chaos.down():
                for name in ("default", "near"):
                    with pytest.raises(BackendError):
                        get_cache(name).get("k")
                    with pytest.raises(BackendError):
                        get_cache(name).invalidate("tag")
                assert get_cache("kind").get("k") is None
                assert get_cache("stock").get("k") == 1   # from the near layer
                assert get_cache("stock").get_or_set("l", lambda: 2) == 2
                assert quote("AAPL") == 189.5
            assert [get_cache(name).get("k") for name in names] == [1, 1, 1, 1]
            chaos.freeze()
            with pytest.raises(BackendTimeout):
                asyncio.run(get_cache().aget("k"))
            chaos.heal()
            assert get_cache().get("k") == 1

        def test_chaos_alone_has_a_world_too(chaos):
            cache.set("k", 1)
            chaos.down()
            with pytest.raises(BackendError):
                cache.get("k")

        def test_without_a_fixture_nothing_is_changed():
            with pytest.raises(BackendError):
                cache.get("k")
            layercache.close()
        """
    )

    suite.makepyfile(
        test_mapping="""
        import pytest
        from layercache import UnknownCache, get_cache

        @pytest.fixture
        def layercache_settings():
            return {"backends": {"b": {"type": "memory"}}, "caches": {"mine": {"backend": "b"}}}

        def test_it(layercache_world):
            assert list(layercache_world) == ["mine"]
            with pytest.raises(UnknownCache):
                get_cache("stock")
        """,
        test_file="""
        import pytest
        from layercache import ConfigError, get_cache

        @pytest.fixture
        def layercache_settings(tmp_path):
            file = tmp_path / "other.toml"
            file.write_text('[default.backends.b]\\ntype = "memory"\\n[default.caches.other]\\nbackend = "b"\\n')
            return file

        def test_it(layercache_world):
            assert list(layercache_world) == ["other"]

        class TestWrongOnes:
            @pytest.fixture
            def layercache_settings(self):
                return {"backends": {}, "caches": {"mine": {"backend": "b"}}}

            def test_are_told(self, chaos):
                with pytest.raises(ConfigError):
                    get_cache("mine")
        """,
    )

    run(suite).assert_outcomes(passed=11)


def test_every_test_can_have_one_and_the_world_from_before_is_there_afterwards(
    suite: pytest.Pytester,
) -> None:
    suite.makeini("[pytest]\nlayercache_world = true\n")
    suite.makeconftest(
        """
        import layercache
        layercache.configure({"backends": {"b": {"type": "memory"}}, "caches": {"default": {"backend": "b"}}})
        layercache.cache.set("k", "of the session")

        def pytest_sessionfinish():
            assert layercache.cache.get("k") == "of the session"
            layercache.close()
        """
    )
    suite.makepyfile(
        """
        import unittest
        from layercache import cache

        def test_one():
            assert cache.get("k") is None
            cache.set("k", 1)

        class TestAnother(unittest.TestCase):
            def test_it(self):
                assert cache.get("k") is None
        """
    )

    run(suite).assert_outcomes(passed=2)


def test_a_suite_that_has_no_use_for_it_pays_for_one_small_module(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import sys

        def test_it():
            ours = {name for name in sys.modules if name.startswith("layercache.testing")}
            assert ours == {"layercache.testing", "layercache.testing.pytest_plugin"}
            assert not {"pydantic", "dynaconf", "redis", "zstandard", "layercache.face"} & set(sys.modules)
        """
    )

    result = run(suite)

    result.assert_outcomes(passed=1)
    assert sys.modules["layercache.testing.pytest_plugin"].__doc__
