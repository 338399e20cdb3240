"""The slow market next door: a server of its own that takes 2-3 s to answer, and counts.

It tells the facts of `recorded.py` twice: under plain paths in the service's own models, and under
Yahoo's paths in Yahoo's wire shape, so that the client of the real market is tried over real HTTP.
`UPSTREAM_LATENCY` sets the seconds, as in "2.0-3.0" or "0.05".
"""

import asyncio
import os
import random
from collections import Counter
from datetime import UTC, datetime, time
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse

from stock_api.models import Candle, Headline, History, Period, Profile, Quote
from stock_api.recorded import LISTINGS, Listing, history_of, news_of, profile_of, quote_of

app = FastAPI(title="slow market")
listings = {listing.symbol: listing for listing in LISTINGS}
calls: Counter[str] = Counter()


def latency(text: str) -> tuple[float, float]:
    """Return the least and the greatest seconds that `text` names; one number is both."""
    least, _, greatest = text.partition("-")
    return float(least), float(greatest or least)


_LATENCY = latency(os.environ.get("UPSTREAM_LATENCY", "2.0-3.0"))


def counted_and_slow(kind: str) -> Any:
    """Return a dependency: each call of the path counts under `kind` and takes its time."""

    async def take_time() -> None:
        calls[kind] += 1
        await asyncio.sleep(random.uniform(*_LATENCY))

    return Depends(take_time)


def listed(symbol: str) -> Listing:
    if symbol not in listings:
        raise HTTPException(404, f"no symbol {symbol!r}")
    return listings[symbol]


def now() -> datetime:
    return datetime.now(UTC)


@app.get("/health")
async def health() -> dict[str, int]:
    return {"worker": os.getpid()}


@app.get("/calls")
async def count() -> dict[str, int]:
    """Tell how often each kind of fact was asked for."""
    return calls


# -- plain paths --------------------------------------------------------------------------------


@app.get("/quote/{symbol}", dependencies=[counted_and_slow("quote")])
async def quote(listing: Annotated[Listing, Depends(listed)]) -> Quote:
    return quote_of(listing, now())


@app.get("/history/{symbol}", dependencies=[counted_and_slow("history")])
async def history(listing: Annotated[Listing, Depends(listed)], period: Period = "1mo") -> History:
    return history_of(listing, period, now())


@app.get("/profile/{symbol}", dependencies=[counted_and_slow("profile")])
async def profile(listing: Annotated[Listing, Depends(listed)]) -> Profile:
    return profile_of(listing)


@app.get("/news/{symbol}", dependencies=[counted_and_slow("news")])
async def news(listing: Annotated[Listing, Depends(listed)]) -> list[Headline]:
    return news_of(listing, now())


# -- Yahoo's paths ------------------------------------------------------------------------------


@app.get("/v8/finance/chart/{symbol}", dependencies=[counted_and_slow("chart")])
async def chart(symbol: str, range: Period | Literal["1d"] = "1d") -> JSONResponse:
    listing = listings.get(symbol)
    if listing is None:
        error = {"code": "Not Found", "description": "No data found, symbol may be delisted"}
        return JSONResponse({"chart": {"result": None, "error": error}}, status_code=404)
    result = _chart_of(quote_of(listing, now()), history_of(listing, _bars_for(range), now()))
    return JSONResponse({"chart": {"result": [result], "error": None}})


@app.get("/v1/finance/search", dependencies=[counted_and_slow("search")])
async def search(q: str, newsCount: int = 8) -> dict[str, Any]:  # noqa: N803 - Yahoo's name
    listing = listings.get(q)
    if listing is None:
        return {"count": 0, "quotes": [], "news": []}  # Yahoo's search does not say 404
    stories = [_story_of(headline, q) for headline in news_of(listing, now())[:newsCount]]
    return {"count": 1 + len(stories), "quotes": [_match_of(profile_of(listing))], "news": stories}


_UTC_OFFSETS = {"KRW": 9 * 3600, "USD": -5 * 3600}


def _bars_for(range: Period | Literal["1d"]) -> Period:
    return "5d" if range == "1d" else range


def _chart_of(quote: Quote, history: History) -> dict[str, Any]:
    candles = history.candles
    return {
        "meta": {
            "symbol": quote.symbol,
            "longName": quote.name,
            "fullExchangeName": quote.exchange,
            "currency": quote.currency,
            "instrumentType": "EQUITY",
            "regularMarketPrice": quote.price,
            "regularMarketTime": int(quote.at.timestamp()),
            "regularMarketVolume": quote.volume,
            "chartPreviousClose": quote.previous_close,
            "gmtoffset": _UTC_OFFSETS[quote.currency],
            "dataGranularity": "1d",
        },
        "timestamp": [_opening(candle, _UTC_OFFSETS[quote.currency]) for candle in candles],
        "indicators": {
            "quote": [
                {
                    column: [getattr(candle, column) for candle in candles]
                    for column in ("open", "high", "low", "close", "volume")
                }
            ]
        },
    }


def _opening(candle: Candle, utc_offset: int) -> int:
    return int(datetime.combine(candle.day, time(9), UTC).timestamp()) - utc_offset


def _match_of(profile: Profile) -> dict[str, Any]:
    return {
        "symbol": profile.symbol,
        "shortname": profile.name,
        "longname": profile.name,
        "exchDisp": profile.exchange,
        "quoteType": "EQUITY",
        "sector": profile.sector,
        "industry": profile.industry,
        "isYahooFinance": True,
    }


def _story_of(headline: Headline, symbol: str) -> dict[str, Any]:
    return {
        "title": headline.title,
        "publisher": headline.publisher,
        "link": headline.link,
        "providerPublishTime": int(headline.published_at.timestamp()),
        "type": "STORY",
        "relatedTickers": [symbol],
    }
