"""Caches in FastAPI: as dependencies, open while the application runs, with responses in one of them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel
from sites import did
from starlette.middleware.gzip import GZipMiddleware

import layercache
from layercache import Cache, CacheClosed, ConfigError, InvalidOption, cached, configure, get_cache
from layercache.decorator import _declared
from layercache.integrations.asgi import ResponseCache, tag_response
from layercache.integrations.fastapi import cache, lifespan

SETTINGS = {
    "backends": {"local": {"type": "memory"}},
    "caches": {"default": {"backend": "local"}, "stock": {"ttl": "15s"}, "pages": {"ttl": "1m"}},
}


class Quote(BaseModel):
    price: float


@pytest.fixture(autouse=True)
def _settings():
    configure(SETTINGS)
    _declared.clear()  # functions of other tests that were not collected yet are none of this application


@asynccontextmanager
async def client_of(app: Any):
    """A client of an application that has started, and is ended afterwards."""
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            yield client


def test_a_handler_is_given_its_cache_by_name():
    app = FastAPI()

    @app.get("/")
    async def ask(
        stock: Annotated[Cache[Any], Depends(cache("stock"))],
        quotes: Annotated[Cache[Quote], Depends(cache("stock", Quote))],
        default: Annotated[Cache[Any], Depends(cache())],
    ) -> list[str]:
        await stock.aset("k", {"price": 1.5})
        found = await quotes.aget("k")
        assert isinstance(found, Quote)
        return [stock.name, quotes.name, default.name]

    async def run() -> Any:
        async with client_of(app) as client:
            return (await client.get("/")).json()

    assert asyncio.run(run()) == ["stock", "stock", "default"]
    assert get_cache("stock").get("k") == {"price": 1.5}


def test_a_dependency_is_one_for_each_name_and_type_and_can_be_overridden():
    class Other(BaseModel):
        price: str

    assert cache("stock") is cache("stock")
    assert len({cache("stock"), cache("stock", Quote), cache("stock", Other), cache("pages")}) == 4
    assert cache("stock", Annotated[int, [1]]) is cache("stock", Annotated[int, [1]])
    app = FastAPI()

    @app.get("/")
    async def ask(stock: Annotated[Cache[Any], Depends(cache("stock"))]) -> str:
        return stock.name

    app.dependency_overrides[cache("stock")] = lambda: get_cache("pages")

    async def run() -> Any:
        async with client_of(app) as client:
            return (await client.get("/")).json()

    assert asyncio.run(run()) == "pages"


def test_caches_are_open_while_the_application_runs_around_a_lifespan_of_its_own():
    seen: list[Any] = []

    @asynccontextmanager
    async def own(app: FastAPI):
        seen.append(await get_cache("stock").aadd("began", 1))
        yield {"state": "mine"}
        seen.append(await get_cache("stock").aget("began"))

    app = FastAPI(lifespan=lifespan(around=own))
    opened = get_cache("stock")

    async def run() -> None:
        async with app.router.lifespan_context(app) as state:
            seen.append(state)

    asyncio.run(run())

    assert seen == [True, {"state": "mine"}, 1]
    with pytest.raises(CacheClosed):
        opened.get("k")


@pytest.mark.parametrize("names", [(), ("stok",)])
def test_wrong_settings_end_the_start(names, tmp_path, monkeypatch):
    layercache.close()
    (tmp_path / "settings.toml").write_text(
        "[default.caches.stock]\nbackend = 'nowhere'\n" if not names else ""
    )
    monkeypatch.chdir(tmp_path)
    app = FastAPI(lifespan=lifespan(*names))

    async def run() -> None:
        async with app.router.lifespan_context(app):
            pytest.fail("it has started")

    with pytest.raises(ConfigError):
        asyncio.run(run())


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("warm", ["first", "background"])
def test_what_functions_list_is_loaded_at_the_start_and_kept_warm(warm, is_async):
    loaded: list[str] = []

    if is_async:

        @cached("quote:{symbol}", cache="stock", warm=["AAPL", "MSFT"], refresh_every="1h")
        async def quote(symbol: str) -> str:
            loaded.append(symbol)
            return symbol
    else:

        @cached("quote:{symbol}", cache="stock", warm=["AAPL", "MSFT"], refresh_every="1h")
        def quote(symbol: str) -> str:
            loaded.append(symbol)
            return symbol

    @cached("page:{name}", cache="pages", warm=["index"])
    async def page(name: str) -> str:
        loaded.append(name)
        return name

    app = FastAPI(lifespan=lifespan("stock", warm=warm))

    async def run() -> None:
        async with app.router.lifespan_context(app):
            schedules = get_cache("stock").schedules
            for _ in range(2000):
                if warm == "first" or schedules:
                    break
                await asyncio.sleep(0.001)
            assert [schedule.is_running for schedule in schedules] == [True]
            running = list(schedules)
        assert not running[0].is_running

    asyncio.run(run())

    assert sorted(loaded) == ["AAPL", "MSFT"]  # and nothing of a cache that was not named
    assert page.uncached
    assert quote.uncached


def test_what_cannot_be_warmed_is_logged_and_keeps_nothing_from_starting(caplog):
    @cached("quote:{symbol}", cache="stock", warm=["AAPL"])
    async def quote(symbol: str) -> str:
        raise ConnectionError("no market")

    async def run() -> None:
        app = FastAPI(lifespan=lifespan(warm="first"))
        async with app.router.lifespan_context(app):
            pass

    with caplog.at_level(logging.WARNING, "layercache.warming"):
        asyncio.run(run())

    assert "'quote:AAPL' could not be warmed" in caplog.text
    assert quote.uncached


def test_warming_can_be_left_out_and_its_word_is_checked():
    loaded: list[str] = []

    @cached("quote:{symbol}", cache="stock", warm=["AAPL"])
    async def quote(symbol: str) -> str:
        loaded.append(symbol)
        return symbol

    async def run() -> None:
        app = FastAPI(lifespan=lifespan(warm="off"))
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0.01)

    asyncio.run(run())

    assert quote.uncached
    assert loaded == []
    with pytest.raises(InvalidOption, match="background"):
        lifespan(warm="now")  # type: ignore[arg-type]


def test_warming_that_is_under_way_ends_with_the_application():
    began, ended = asyncio.Event(), asyncio.Event()

    @cached("quote:{symbol}", cache="stock", warm=["AAPL"])
    async def quote(symbol: str) -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return symbol

    async def run() -> None:
        app = FastAPI(lifespan=lifespan())
        async with app.router.lifespan_context(app):
            await began.wait()
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert "layercache-warm" not in names
        await ended.wait()

    asyncio.run(run())
    assert quote.uncached


def test_functions_over_a_cache_of_another_world_are_not_warmed():
    loaded: list[str] = []
    with layercache.Caches(SETTINGS) as other:

        @other["stock"].cached("quote:{symbol}", warm=["AAPL"])
        async def quote(symbol: str) -> str:
            loaded.append(symbol)
            return symbol

        async def run() -> None:
            app = FastAPI(lifespan=lifespan(warm="first"))
            async with app.router.lifespan_context(app):
                pass

        asyncio.run(run())
        assert quote.uncached
        assert loaded == []


def test_responses_of_fastapi_are_cached_with_all_that_it_does_around_them():
    app = FastAPI(lifespan=lifespan())
    app.add_middleware(GZipMiddleware, minimum_size=100)
    app.add_middleware(ResponseCache, cache="pages")  # around the other: it keeps what is compressed already
    calls: list[str] = []

    @app.get("/quotes/{symbol}")
    async def quote(symbol: str, request: Request, tasks: BackgroundTasks) -> Quote:
        tag_response(request, f"quote:{symbol}")
        tasks.add_task(calls.append, f"{symbol} after")
        calls.append(symbol)
        return Quote(price=1.5)

    @app.get("/long")
    def long() -> PlainTextResponse:
        calls.append("long")
        return PlainTextResponse("x" * 5000)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts():
            for number in range(3):
                yield f"{number}\n"

        calls.append("stream")
        return StreamingResponse(parts(), media_type="text/plain")

    @app.post("/quotes/{symbol}")
    async def change(symbol: str) -> None: ...

    async def run() -> None:
        async with client_of(app) as client:
            first, second = await client.get("/quotes/AAPL"), await client.get("/quotes/AAPL")
            assert first.json() == second.json() == {"price": 1.5}
            assert (did(first), did(second)) == ("stored", "hit")
            assert calls == ["AAPL", "AAPL after"]
            assert (
                await client.get("/quotes/AAPL", headers={"If-None-Match": second.headers["etag"]})
            ).status_code == 304
            await get_cache("pages").ainvalidate("quote:AAPL")
            assert did(await client.get("/quotes/AAPL")) == "stored"
            await client.post("/quotes/AAPL")
            assert did(await client.get("/quotes/AAPL")) == "stored"

            for encoding in ("gzip", "identity"):
                answers = [await client.get("/long", headers={"Accept-Encoding": encoding}) for _ in range(2)]
                assert [answer.text for answer in answers] == ["x" * 5000] * 2
                assert [did(answer) for answer in answers] == ["stored", "hit"]
                assert answers[1].headers.get("content-encoding", "identity") == encoding
            assert [(await client.get("/stream")).text for _ in range(2)] == ["0\n1\n2\n"] * 2
            assert calls.count("stream") == 1
            assert [(await client.get("/nowhere")).status_code for _ in range(2)] == [404, 404]

    asyncio.run(run())
