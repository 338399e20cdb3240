"""Caches on a real server, each with a prefix of its own."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
import trustme
from far import FACES, Far, face
from tls import tls_proxy

from layercache import Cache, Caches
from layercache.testing import ValkeyServer

Opener = Callable[..., Cache[Any]]


@pytest.fixture
def prefix(server: redis.Redis) -> Iterator[str]:
    """A prefix of this test's own; whatever it left behind is removed."""
    prefix = f"t{uuid4().hex[:12]}"
    yield prefix
    for key in server.scan_iter(match=f"{prefix}*", count=1000):
        server.delete(key)


@pytest.fixture
def open_cache(server_url: str, prefix: str) -> Iterator[Opener]:
    """Opens the cache `c` on a Redis backend with some options, in a world of its own."""
    with ExitStack() as worlds:

        def open_cache(now: Callable[[], float] | None = None, **options: Any) -> Cache[Any]:
            backend = {"type": "redis", "url": server_url, "prefix": prefix, "timeout": "10s", **options}
            settings = {"backends": {"far": backend}, "caches": {"c": {"backend": "far", "ttl": 60}}}
            world = Caches(settings, **({} if now is None else {"now": now}))
            return worlds.enter_context(world)["c"]

        yield open_cache


@pytest.fixture
def cache(open_cache: Opener) -> Cache[Any]:
    return open_cache()


@pytest.fixture(params=FACES)
def far(request: pytest.FixtureRequest, open_cache: Opener) -> Iterator[Far]:
    """A cache as this process has it, on each face."""
    with face(request.param) as runner:
        yield Far(open_cache(), runner)


@pytest.fixture
def other(open_cache: Opener) -> Far:
    """Another process."""
    return Far(open_cache())


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The `rediss://` address of a server, and the file of the authority that signed its certificate."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    with ValkeyServer() as server, tls_proxy(context, server.port) as port:
        yield f"rediss://localhost:{port}/0", str(tmp_path / "authority.pem")
