"""Connections: their kinds, their number, their end, and what a server that fails looks like."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from typing import Any

import pytest
import redis
from calling import answered

from layercache import BackendError, BackendTimeout, Cache, Caches, CircuitOpen
from layercache.testing import ValkeyServer


def connections(server: redis.Redis, part: str = "layercache") -> set[str]:
    """The connections of ours that the server has, by id; those of earlier tests may end at any time."""
    return {client["id"] for client in server.client_list() if client["name"].startswith(part)}


def opened_since(server: redis.Redis, before: set[str]) -> int:
    """How many work for callers; the log's own is not among them."""
    return len(connections(server, "layercache:") - before)


def all_closed_since(server: redis.Redis, before: set[str]) -> bool:
    """The server learns of a closed socket when its own loop comes round: ask until it has, so many times."""
    return any(not connections(server) - before for _ in range(2000))


def one_cache(**options: Any) -> Caches:
    backend = {"type": "redis", "timeout": "10s", **options}
    return Caches({"backends": {"far": backend}, "caches": {"default": {"backend": "far"}}})


def answers(cache: Cache[Any]) -> bool:
    cache.set("sync", 1)

    async def main() -> Any:
        await cache.aset("async", 2)
        return await cache.aget("sync"), await cache.aget("async")

    return asyncio.run(main()) == (1, 2) and cache.get("async") == 2


class TestKinds:
    def test_a_unix_socket(self) -> None:
        with ValkeyServer(unix_socket=True) as server, one_cache(url=server.url) as world:
            assert answers(world["default"])

    def test_a_database_by_number(self, server_url: str, server: redis.Redis) -> None:
        with one_cache(url=server_url, db=3, prefix="in-db-3") as world:
            assert answers(world["default"])
            assert not list(server.scan_iter(match="in-db-3*"))
            world["default"].clear()

    def test_a_password_and_a_user(self) -> None:
        with ValkeyServer(requirepass="s3cret-default") as server:
            client = redis.Redis.from_url(server.url, password="s3cret-default")
            client.acl_setuser(
                "app", enabled=True, passwords=["+s3cret-app"], keys=["app:*"], commands=["+@all"]
            )
            client.close()
            with one_cache(url=server.url, password="s3cret-default") as world:
                assert answers(world["default"])
            with one_cache(url=server.url, username="app", password="s3cret-app", prefix="app") as world:
                assert answers(world["default"])
            for wrong in (
                {"password": "wr0ng"},
                {},
                {"username": "app", "password": "s3cret-app", "prefix": "other"},
            ):
                with one_cache(url=server.url, **wrong) as world, pytest.raises(BackendError) as caught:
                    world["default"].set("k", 1)
                assert "s3cret" not in str(caught.value)
                assert "wr0ng" not in str(caught.value)

    def test_tls_with_the_certificate_verified(self, tls_server: tuple[str, str]) -> None:
        url, authority = tls_server
        with one_cache(url=url, tls_ca_file=authority) as world:
            assert answers(world["default"])
        with one_cache(url=url) as world, pytest.raises(BackendError, match="CERTIFICATE_VERIFY_FAILED"):
            world["default"].get("k")


class TestNumber:
    def test_threads_share_at_most_max_connections(self, server_url: str, server: redis.Redis) -> None:
        before = connections(server)
        with one_cache(url=server_url, max_connections=2) as world:
            cache = world["default"]

            def work() -> None:
                for number in range(30):
                    cache.set(f"k{number}", number, 5)

            threads = [threading.Thread(target=work) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

            # idle connections stay in the pool, so what was ever opened is still there
            assert 1 <= opened_since(server, before) <= 2

    def test_close_ends_the_connections_of_threads(self, server_url: str, server: redis.Redis) -> None:
        before = connections(server)
        world = one_cache(url=server_url)
        world["default"].set("k", 1, 5)
        assert opened_since(server, before) == 1

        world.close()

        assert all_closed_since(server, before)

    @pytest.mark.parametrize("closed", [True, False], ids=["closed", "forgotten"])
    def test_a_loop_that_ends_leaves_no_connection_and_no_warning(
        self, server_url: str, server: redis.Redis, closed: bool
    ) -> None:
        before = connections(server)
        world = one_cache(url=server_url)

        async def main() -> None:
            cache = world["default"]
            await asyncio.gather(*(cache.aset(f"k{number}", number, 5) for number in range(20)))
            if closed:
                await world.aclose()

        for _ in range(3):
            asyncio.run(main())
        gc.collect()  # a connection left open would warn here, and warnings are errors

        assert any(not opened_since(server, before) for _ in range(2000))
        world.close()

    def test_a_world_that_nobody_has_any_more_leaves_no_connection_and_no_thread(
        self, server_url: str, server: redis.Redis
    ) -> None:
        before, threads = connections(server), threading.active_count()
        world = one_cache(url=server_url)
        world["default"].set("k", 1, 5)
        world["default"].get("k")
        assert threading.active_count() == threads + 1  # the log's

        del world
        gc.collect()

        assert all_closed_since(server, before)
        assert threading.active_count() == threads

    def test_each_loop_has_connections_of_its_own(self, server_url: str) -> None:
        with one_cache(url=server_url) as world:
            cache = world["default"]
            found: list[Any] = []

            async def main(number: int) -> None:
                for _ in range(20):
                    await cache.aset(f"k{number}", number, 5)
                    found.append(await cache.aget(f"k{number}") == number)

            threads = [threading.Thread(target=lambda n=n: asyncio.run(main(n))) for n in range(4)]  # type: ignore[misc]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

            assert found == [True] * 80

    def test_async_verbs_never_hop_to_a_thread(
        self, cache: Cache[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def main() -> Any:
            def refuse(*_: Any) -> None:
                raise AssertionError("a thread was asked for")

            monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", refuse)
            await cache.aset("k", 1)
            await cache.aset_many({"l": 2})
            await cache.aincr("k")
            await cache.aadd("m", 3)
            await cache.atouch("m", 50)
            found = await cache.aget_many(["k", "l", "m"])
            await cache.aclear()
            return found

        assert asyncio.run(main()) == {"k": 2, "l": 2, "m": 3}


class TestFailure:
    def test_a_server_that_is_not_there_is_a_backend_error(self) -> None:
        with one_cache(url="redis://127.0.0.1:1/0") as world:
            cache = world["default"]

            with pytest.raises(BackendError, match="backend 'far'") as caught:
                cache.get("k")
            assert isinstance(caught.value.__cause__, redis.ConnectionError)
            with pytest.raises(BackendError):
                asyncio.run(cache.aget("k"))

    def test_a_server_that_hangs_is_a_timeout_and_its_return_is_noticed(self) -> None:
        with ValkeyServer() as server, one_cache(url=server.url, timeout="100ms") as world:
            cache = world["default"]
            cache.set("k", 1)
            server.pause()

            with pytest.raises(BackendTimeout):
                cache.get("k")
            with pytest.raises(CircuitOpen, match="did not answer in time"):
                asyncio.run(cache.aget("k"))

            server.resume()
            assert answered(lambda: cache.get("k")) == 1
            assert asyncio.run(cache.aget("k")) == 1

    def test_a_restarted_server_is_used_again_at_once(self) -> None:
        with ValkeyServer() as server, one_cache(url=server.url) as world:
            cache = world["default"]

            async def main() -> list[Any]:
                await cache.aset("k", 1)
                cache.set("l", 2)
                server.kill()
                with pytest.raises(BackendError):
                    await cache.aget("k")
                with pytest.raises(BackendError):
                    cache.get("l")
                server.start()
                answered(lambda: cache.get("m"))
                return [await cache.aget("k"), cache.get("l"), await cache.aget_or_set("k", lambda: 3)]

            assert asyncio.run(main()) == [None, None, 3]

    def test_a_refused_write_is_a_backend_error_that_says_why(self) -> None:
        options = {"maxmemory": "2mb", "maxmemory_policy": "noeviction"}
        with ValkeyServer(**options) as server, one_cache(url=server.url) as world:
            cache = world["default"]

            with pytest.raises(BackendError, match="OOM"):
                for number in range(100):
                    cache.set(f"k{number}", "x" * 100_000)

    def test_a_cancelled_call_disturbs_no_other(self, cache: Cache[Any]) -> None:
        async def main() -> list[Any]:
            await cache.aset_many({f"k{number}": number for number in range(50)})
            results: list[Any] = []
            for number in range(50):
                cancelled = asyncio.create_task(cache.aget(f"k{(number + 1) % 50}"))
                for _ in range(number % 6):
                    await asyncio.sleep(0)
                cancelled.cancel()
                results.append(await cache.aget(f"k{number}"))
            return results

        assert asyncio.run(main()) == list(range(50))

    def test_scripts_that_the_server_forgot_are_loaded_again(
        self, cache: Cache[Any], server: redis.Redis
    ) -> None:
        cache.set("n", 1)
        for _ in range(2):
            server.script_flush()
            cache.incr("n")

        assert cache.get("n") == 3

    def test_settings_name_the_extra_when_the_driver_is_missing(self) -> None:
        script = (
            "import sys; sys.modules['redis'] = None\n"
            "from layercache import Caches, MissingExtra\n"
            "settings = {'backends': {'m': {'type': 'memory'}, 'r': {'type': 'redis'}},"
            " 'caches': {'default': {'backend': 'm'}, 'far': {'backend': 'r'}}}\n"
            "caches = Caches(settings)\n"
            "caches['default'].set('k', 1)\n"
            "try: caches['far']\n"
            "except MissingExtra as error: print(error)\n"
        )

        printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

        assert "pip install 'layercache-framework[redis]'" in printed.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_the_child_of_a_fork_has_connections_of_its_own(cache: Cache[Any], server: redis.Redis) -> None:
    cache.set("k", "parent")
    before = connections(server)

    child = os.fork()
    if child == 0:
        try:
            good = cache.get("k") == "parent" and opened_since(server, before) == 1
            cache.set("from the child", 1)
            os._exit(0 if good else 1)
        except BaseException:
            os._exit(2)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cache.get("from the child") == 1
