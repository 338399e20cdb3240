"""Every backend keeps the contract; so does one of a third party, made of one file and one entry point."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from shifting import ServerClock

from layercache.errors import BackendError
from layercache.spi import Backend
from layercache.testing import BackendContract, Clock, LeasingContract
from layercache.testing.contract import open_backend


class WithClock(BackendContract):
    clock: Clock

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


class WithLeases(WithClock, LeasingContract):
    pass


class TestMemory(WithClock):
    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        self.clock = Clock()
        backend = open_backend("memory", now=self.clock)
        yield backend
        backend.close()


class TestNull(WithClock):
    remembers = False

    @pytest.fixture
    def backend(self) -> Backend:
        self.clock = Clock()
        return open_backend("null", now=self.clock)


class TestRedis(WithLeases):
    codecs = ("json", "zstd")

    @pytest.fixture
    def backend(self, server: redis.Redis, server_url: str) -> Iterator[Backend]:
        self.clock = ServerClock(server, "contract-redis:*")
        backend = open_backend(
            "redis",
            now=self.clock,
            url=server_url,
            timeout="10s",
            prefix="contract-redis",
            codecs=list(self.codecs),
            seal_keys=["a:0123456789abcdefghijklmnopqrstuvwxyz"],
        )
        yield backend
        backend.close()


class TestRedisWithGzipAndSeals(TestRedis):
    codecs = ("json", "gzip", "sign", "encrypt")


class TestChain(WithLeases):
    @pytest.fixture
    def backend(self, server: redis.Redis, server_url: str) -> Iterator[Backend]:
        self.clock = ServerClock(server, "contract-chain:*")
        far = {"type": "redis", "url": server_url, "prefix": "contract-chain", "timeout": "10s"}
        backend = open_backend("chain", now=self.clock, layers={"near": {"type": "memory"}, "far": far})
        yield backend
        backend.close()
        backend._backends[1].close()


class TestChainWithoutItsFarLayer(WithLeases):
    """Nothing listens there: the near layer keeps every promise alone, and each process loads for itself."""

    excludes = False

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        self.clock = Clock()
        far = {"type": "redis", "url": "redis://127.0.0.1:1/0"}
        layers = {"near": {"type": "memory"}, "far": far}
        backend = open_backend("chain", now=self.clock, layers=layers, degraded_ttl="forever")
        with pytest.raises(BackendError):
            backend._backends[1].key_space("c").get("k")
        yield backend
        backend.close()


class TestToy(WithClock):
    """A third party's backend, found through the entry point of an installed distribution."""

    finds_tagged = False

    @pytest.fixture
    def backend(self, toy_distribution: None) -> Backend:
        self.clock = Clock()
        return open_backend("toy", now=self.clock, shelves=3)


class TestChainOfAToy(WithLeases):
    """Its farther layer grants no leases."""

    excludes = finds_tagged = False

    @pytest.fixture
    def backend(self, toy_distribution: None) -> Backend:
        self.clock = Clock()
        layers = {"near": {"type": "memory"}, "far": {"type": "toy", "shelves": 3}}
        return open_backend("chain", now=self.clock, layers=layers)


class TestChainOfTwoToys(TestChainOfAToy):
    @pytest.fixture
    def backend(self, toy_distribution: None) -> Backend:
        self.clock = Clock()
        layers = {name: {"type": "toy", "shelves": 3} for name in ("near", "far")}
        return open_backend("chain", now=self.clock, layers=layers)


class TestChainOfOne(WithLeases):
    excludes = False

    @pytest.fixture
    def backend(self) -> Backend:
        self.clock = Clock()
        return open_backend("chain", now=self.clock, layers={"near": {"type": "memory"}})
