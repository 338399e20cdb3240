from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from asking import READ, WRITE, Api

import layercache.admin
from layercache import Caches

BACKENDS = {"local": {"type": "memory"}}
CACHES = {"default": {"backend": "local"}, "stock": {"backend": "local", "stale_ttl": 60}}


def settings(**admin: object) -> dict[str, object]:
    return {"backends": BACKENDS, "caches": CACHES, "admin": admin}


@pytest.fixture
def world() -> Iterator[Caches]:
    """Without tokens."""
    with Caches(settings()) as world:
        yield world


@pytest.fixture
def api(world: Caches) -> Api:
    return Api(layercache.admin.app(world))


@pytest.fixture
def guarded() -> Iterator[Api]:
    """With a token for each scope, asked from elsewhere."""
    with Caches(settings(read_token=READ, write_token=WRITE)) as world:
        yield Api(layercache.admin.app(world), "203.0.113.7", "cache.example.com")


@contextmanager
def serving(world: Caches) -> Iterator[str]:
    import uvicorn

    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(layercache.admin.app(world), log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        sock.close()
