"""The management API as a client asks it: one request after the other, straight into the application."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from starlette.types import ASGIApp

OWN = {"X-Layercache-Admin": "1"}
BACKENDS = {"local": {"type": "memory"}}
CACHES = {"default": {"backend": "local"}, "stock": {"backend": "local", "stale_ttl": 60}}
READ, WRITE = "r" * 32, "w" * 40


def settings(**admin: object) -> dict[str, object]:
    return {"backends": BACKENDS, "caches": CACHES, "admin": admin}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Api:
    """A client at `address`, which names the application by `host`."""

    def __init__(self, app: ASGIApp, address: str = "127.0.0.1", host: str = "127.0.0.1:8790") -> None:
        self.app, self.address, self.host = app, address, host

    def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, client=(self.address, 50_000))
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{self.host}") as client:
                return await client.request(method, path, **more)

        return asyncio.run(ask())

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self("POST", path, **more)

    def delete(self, path: str, **more: Any) -> httpx.Response:
        return self("DELETE", path, **more)


def problem(response: httpx.Response) -> str:
    """The kind of problem that a response is, having looked that it is one."""
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    assert told["status"] == response.status_code >= 400
    assert told["title"]
    assert told["detail"]
    kind: str = told["type"].removeprefix("urn:layercache:")
    return kind
