"""The service itself: every fact is one cached function over the market.

Which backends the cache has, and how long each kind of fact lives, is in settings.toml.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import StringConstraints
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import layercache.admin
from layercache import Cache, cached
from layercache.integrations.fastapi import cache, lifespan
from stock_api.market import MarketUnavailable, UnknownSymbol, chosen_market
from stock_api.models import Headline, History, Period, Profile, Quote

market = chosen_market()

# "aapl" and "AAPL" are one symbol, and so one key; what cannot be a symbol never reaches the market
Symbol = Annotated[str, StringConstraints(to_upper=True, pattern=r"^[A-Za-z0-9.^=-]{1,16}$")]


class WorkerHeader:
    """Says in `X-Worker` which process answered, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Worker"] = str(os.getpid())
            await send(message)

        await self._app(scope, receive, send_signed)


@asynccontextmanager
async def open_market(_: FastAPI) -> AsyncGenerator[None]:
    yield
    await market.aclose()


app = FastAPI(title="stock_api", lifespan=lifespan("stock", around=open_market))
app.add_middleware(WorkerHeader)
app.include_router(layercache.admin.router(), prefix="/cache")  # for this machine only, as there is no token


@app.get("/quotes/{symbol}")
@cached(cache="stock", key="quote:{symbol}")
async def quote(symbol: Symbol) -> Quote:
    return await market.quote(symbol)


@app.get("/quotes/{symbol}/history")
@cached(cache="stock", key="history:{symbol}:{period}")
async def history(symbol: Symbol, period: Period = "1mo") -> History:
    return await market.history(symbol, period)


@app.get("/companies/{symbol}")
@cached(cache="stock", key="profile:{symbol}")
async def profile(symbol: Symbol) -> Profile:
    return await market.profile(symbol)


@app.get("/companies/{symbol}/news")
@cached(cache="stock", key="news:{symbol}")
async def news(symbol: Symbol) -> list[Headline]:
    return await market.news(symbol)


@app.get("/stats")
async def stats(stock: Annotated[Cache[Any], Depends(cache("stock"))]) -> dict[str, Any]:
    """Tell what this worker's cache has done so far."""
    return {"worker": os.getpid(), **stock.stats().as_dict()}


@app.get("/health")
async def health() -> dict[str, int]:
    return {"worker": os.getpid()}


@app.exception_handler(UnknownSymbol)
async def answer_unknown(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=404)


@app.exception_handler(MarketUnavailable)
async def answer_unavailable(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=502)
