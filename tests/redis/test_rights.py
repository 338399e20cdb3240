"""The rights that docs/redis-server.md grants: enough for everything, and none for nothing.

Runs on a server of its own: users are the server's, and what it was asked is counted from its start.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from waiting import until

from layercache import Caches
from layercache.spi import Finding
from layercache.testing import ValkeyCluster, ValkeyServer

PAGE = Path(__file__).parents[2] / "docs" / "redis-server.md"
ELSEWHERE = {"asking", "cluster|slots", "ping", "role", "select"}
"""What is asked of a cluster, of what sentinels name, of a server that was gone, or for a database with a number."""

SECRETS = {"stockapi": "a-long-secret", "stockapi-tools": "another-secret"}


def granted(user: str) -> list[str]:
    """The words of the page's ACL SETUSER for a user."""
    found = re.search(
        rf"^ACL SETUSER {user} (.*?)\n(?:\n|```)", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert found is not None
    return found[1].replace("\\\n", " ").split()


def commands(user: str) -> set[str]:
    return {word[1:] for word in granted(user) if word.startswith("+")}


@pytest.fixture(scope="module")
def guarded() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def operator(guarded: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis(port=guarded.port, decode_responses=True) as client:
        for user in ("stockapi", "stockapi-tools"):
            client.execute_command("ACL", "SETUSER", user, "reset", *granted(user))
        client.script_flush()
        client.config_resetstat()
        client.execute_command("ACL", "LOG", "RESET")
        yield client
        client.flushall()


def world_of(server: ValkeyServer | ValkeyCluster, user: str) -> Caches:
    backend = {
        "type": "redis",
        "url": server.url,
        "username": user,
        "password": SECRETS[user],
        "prefix": "stockapi",
        "codecs": ["json", "zstd"],
        "timeout": "5s",
        "log_shards": 2,
    }
    caches = {"default": {"backend": "shared"}, "stock": {"stale_ttl": "1m"}}
    return Caches({"backends": {"shared": backend}, "caches": caches})


def asked(operator: redis.Redis) -> set[str]:
    """The commands that the server was asked since, in scripts or alone, whoever asked."""
    return {name.removeprefix("cmdstat_") for name in operator.info("commandstats")}


def every_verb(world: Caches) -> None:
    cache = world["stock"]
    cache.set("quote:AAPL", {"price": 1}, tags=["market"])
    assert cache.get("quote:AAPL") == {"price": 1}
    assert cache.add("count", 1)
    assert cache.incr("count") == 2
    assert cache.touch("count", ttl=None)
    assert cache.touch("count", ttl="1m")
    cache.set("for ever", 1, ttl=None)
    assert cache.set_many({"a": 1, "b": 2}) == []
    assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
    assert cache.get_or_set("loaded", lambda: 1, tags=["market"]) == 1
    assert cache.get_or_set("told late", lambda: {"tag": "t"}, tags=lambda value: [value["tag"]])
    cache.invalidate("market", soft=True)
    assert cache.get_or_set("loaded", lambda: 2) == 1  # stale, and refreshed behind
    cache.invalidate("market", "t")
    assert cache.get_or_set("told late", lambda: {"tag": "t"}, tags=lambda value: [value["tag"]])
    assert cache.get_or_set_many(["x", "y"], lambda keys: dict.fromkeys(keys, 1)) == {"x": 1, "y": 1}
    with pytest.raises(RuntimeError):
        cache.get_or_set("fails", fail)
    assert cache.explain("a").cache == "stock"
    assert cache.delete("a")
    assert cache.delete_many(["b", "x"]) == 2
    cache.clear()
    assert cache.get("quote:AAPL") is None


def everything_of_the_tools(world: Caches) -> dict[str, Finding]:
    cache, backend = world["stock"], world.backend("shared")
    cache.set_many({f"quote:{number}": {"name": "Company " * 9, "price": number} for number in range(100)})
    listed = cache.list_keys("quote:", limit=500)
    assert listed.keys
    found = {finding.subject: finding for finding in backend.examine(["stock"])}
    assert backend.train_dictionary("stock", 100).samples == 100
    cache.clear()
    assert sum(dropped for _, dropped in backend.purge("stock")) >= 100
    return found


async def some_awaited(world: Caches) -> None:
    cache = world["stock"]
    await asyncio.gather(*(cache.aset(f"k{number}", number) for number in range(5)))
    assert await cache.aget_many(["k1", "k2"]) == {"k1": 1, "k2": 2}
    assert await cache.aget_or_set("awaited", lambda: 1) == 1
    await world.aclose()


def fail() -> Any:
    raise RuntimeError("the market is down")


def refusals(operator: redis.Redis) -> list[Any]:
    return [(entry["username"], entry["object"]) for entry in operator.acl_log()]


def test_a_service_can_do_everything_with_the_rights_of_the_page(
    guarded: ValkeyServer, operator: redis.Redis
) -> None:
    with world_of(guarded, "stockapi") as world, world_of(guarded, "stockapi") as other:
        other["stock"].get("k")  # which follows the log meanwhile
        every_verb(world)
        asyncio.run(some_awaited(world))

    assert refusals(operator) == []


def test_it_has_no_right_that_it_does_not_use(guarded: ValkeyServer, operator: redis.Redis) -> None:
    with world_of(guarded, "stockapi") as world:
        every_verb(world)
        assert until(lambda: "xread" in asked(operator))  # of the thread that follows the log

    assert commands("stockapi") - asked(operator) == ELSEWHERE


def test_the_tools_can_do_their_work_with_the_rights_of_the_page(
    guarded: ValkeyServer, operator: redis.Redis
) -> None:
    with world_of(guarded, "stockapi-tools") as world:
        every_verb(world)
        found = everything_of_the_tools(world)
        assert until(lambda: "xread" in asked(operator))

    assert found["rights"].level == "ok"
    assert not [finding for finding in found.values() if "cannot see" in finding.message]
    assert refusals(operator) == []
    assert commands("stockapi-tools") - asked(operator) == (
        ELSEWHERE - {"cluster|slots", "ping"} | {"cluster", "command", "dbsize"}
    )


def test_the_doctor_misses_a_right_that_is_missing(guarded: ValkeyServer, operator: redis.Redis) -> None:
    operator.execute_command("ACL", "SETUSER", "stockapi-tools", "-hincrby")

    with world_of(guarded, "stockapi-tools") as world:
        found = {finding.subject: finding for finding in world.backend("shared").examine(["stock"])}

    assert found["rights"].level == "error"
    assert found["rights"].fix == "ACL SETUSER stockapi-tools +hincrby"


def test_other_prefixes_are_out_of_reach(guarded: ValkeyServer, operator: redis.Redis) -> None:
    with redis.Redis(port=guarded.port, username="stockapi", password="a-long-secret") as client:
        for command in (("GET", "other:k"), ("SET", "other:k", 1), ("FLUSHALL",), ("KEYS", "*"), ("SCAN", 0)):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)
        with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)acl|permission|can't access"):
            client.eval("return redis.call('GET', 'other:k')", 1, "stockapi:k")


def test_the_rights_of_the_page_do_for_a_cluster() -> None:
    with ValkeyCluster(nodes=2) as cluster:
        for node in cluster.nodes:
            for user in SECRETS:
                node.ask("ACL", "SETUSER", user, "reset", *granted(user))
        with world_of(cluster, "stockapi") as world:
            every_verb(world)
        with world_of(cluster, "stockapi-tools") as world:
            every_verb(world)
            found = everything_of_the_tools(world)
        logs = [node.ask("ACL", "LOG") for node in cluster.nodes]

    assert found["rights"].level == "ok"
    assert not any(logs)
