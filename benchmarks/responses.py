"""What a cached response costs beside the handler that makes it: `python benchmarks/responses.py`.

The applications are called as a server calls them, by the ASGI interface itself, in a loop of one task: no socket, no
client library. The floor is a FastAPI handler that returns what it has, so a hit saves at least that, besides all that
a handler does in earnest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from rounds import async_rounds, print_table

import layercache
from layercache.integrations.asgi import ResponseCache

BODIES = {"small": "<p>189.5</p>", "20 kB": "<p>189.5</p>" * 1_700}


def application(*, cached: bool) -> FastAPI:
    app = FastAPI()
    if cached:
        app.add_middleware(ResponseCache, cache="pages")

    @app.get("/{body}", response_class=HTMLResponse)
    async def page(body: str) -> str:
        return BODIES[body]

    return app


def asked(app: FastAPI, path: str) -> Callable[[], Awaitable[list[Any]]]:
    """Return one GET of `path` as a server makes it, which gives the messages of the response."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": [(b"host", b"shop")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def call() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await app(dict(scope), receive, send)
        assert sent[0]["status"] == 200
        return sent

    return call


async def answered_from_the_cache(call: Callable[[], Awaitable[list[Any]]]) -> bool:
    """Return whether the second call is a hit."""
    await call()
    (start, *_) = await call()
    return dict(start["headers"]).get(b"cache-status", b"").startswith(b"layercache; hit")


def main() -> None:
    layercache.configure(
        {"backends": {"m": {"type": "memory"}}, "caches": {"pages": {"backend": "m", "ttl": "1h"}}}
    )
    plain, cached = application(cached=False), application(cached=True)
    calls = {
        f"{name}, {body}": (asked(app, f"/{body}"), ())
        for body in BODIES
        for name, app in (("the handler", plain), ("layercache, a hit", cached))
    }
    for name, (call, _) in calls.items():
        assert asyncio.run(answered_from_the_cache(call)) == name.startswith("layercache"), name
    times = async_rounds(calls, 500)
    print_table("A response, by the ASGI interface", times, "the handler, small", "µs")


if __name__ == "__main__":
    main()
