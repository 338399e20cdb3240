"""Where the facts come from: one small protocol, the real market and a local stand-in.

    MarketError
    ├── UnknownSymbol          the market has no such symbol
    └── MarketUnavailable      it could not be reached, or its answer could not be read

Both markets speak HTTP and differ only in paths and wire shapes. Neither knows of any cache.
"""

import os
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from itertools import starmap
from typing import Protocol, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from stock_api.models import Candle, Headline, History, Period, Profile, Quote

T = TypeVar("T")

_SECONDS_TO_ANSWER = 10.0
_HEADLINES = 8
# Yahoo turns away the names that HTTP libraries give themselves
_USER_AGENT = "Mozilla/5.0 (compatible; stock-api-example)"


class MarketError(Exception):
    """The market has no answer to give."""


class UnknownSymbol(MarketError):
    """The market has no such symbol."""

    def __init__(self, symbol: str) -> None:
        super().__init__(f"the market knows no symbol {symbol!r}")
        self.symbol = symbol


class MarketUnavailable(MarketError):
    """The market could not be reached, or its answer could not be read; the cause is chained."""


class Market(Protocol):
    """What the service needs of a market. Each call raises `MarketError` when it has no answer."""

    async def quote(self, symbol: str) -> Quote: ...
    async def history(self, symbol: str, period: Period) -> History: ...
    async def profile(self, symbol: str) -> Profile: ...
    async def news(self, symbol: str) -> list[Headline]: ...
    async def aclose(self) -> None: ...


def chosen_market(environment: Mapping[str, str] = os.environ) -> Market:
    """Return the market that `STOCK_MARKET` names: "local", which is the default, or "yahoo"."""
    name = environment.get("STOCK_MARKET", "local")
    if name == "yahoo":
        return YahooMarket()
    if name == "local":
        return LocalMarket(environment.get("STOCK_UPSTREAM", "http://127.0.0.1:8001"))
    raise ValueError(f"STOCK_MARKET is {name!r}; it can be 'local' or 'yahoo'")


class _HttpMarket:
    """The HTTP that both markets share: one client, its errors named."""

    def __init__(self, base_url: str, *, trust_env: bool = True) -> None:
        self._http = httpx.AsyncClient(
            base_url=base_url,
            trust_env=trust_env,
            timeout=_SECONDS_TO_ANSWER,
            headers={"User-Agent": _USER_AGENT},
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _answer(self, kind: type[T], symbol: str, path: str, **params: str | int) -> T:
        """GET `path`, which asks about `symbol`, and return the answer read as a `kind`."""
        try:
            response = await self._http.get(path, params=params)
            if response.status_code == 404:
                raise UnknownSymbol(symbol)
            response.raise_for_status()
            return TypeAdapter(kind).validate_json(response.content)
        except httpx.HTTPError as error:
            raise MarketUnavailable(f"the market did not answer about {symbol}: {error!r}") from error
        except ValidationError as error:
            raise MarketUnavailable(f"the market's answer about {symbol} cannot be read: {error}") from error


class LocalMarket(_HttpMarket):
    """The server of `upstream.py`, which answers in the service's own models."""

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url, trust_env=False)  # no proxy lies between processes of one machine

    async def quote(self, symbol: str) -> Quote:
        return await self._answer(Quote, symbol, f"/quote/{symbol}")

    async def history(self, symbol: str, period: Period) -> History:
        return await self._answer(History, symbol, f"/history/{symbol}", period=period)

    async def profile(self, symbol: str) -> Profile:
        return await self._answer(Profile, symbol, f"/profile/{symbol}")

    async def news(self, symbol: str) -> list[Headline]:
        return await self._answer(list[Headline], symbol, f"/news/{symbol}")


class YahooMarket(_HttpMarket):
    """Yahoo Finance: the chart endpoint for prices, the search endpoint for all else."""

    def __init__(self, base_url: str = "https://query1.finance.yahoo.com") -> None:
        super().__init__(base_url)

    async def quote(self, symbol: str) -> Quote:
        meta = (await self._chart(symbol, "1d")).meta
        return Quote(
            symbol=meta.symbol,
            name=meta.long_name or meta.symbol,
            exchange=meta.full_exchange_name,
            currency=meta.currency,
            price=meta.regular_market_price,
            # the close before the first bar: of a chart of one day, yesterday's
            previous_close=meta.chart_previous_close,
            volume=meta.regular_market_volume,
            at=meta.regular_market_time,
        )

    async def history(self, symbol: str, period: Period) -> History:
        chart = await self._chart(symbol, period)
        return History(symbol=symbol, currency=chart.meta.currency, period=period, candles=chart.candles())

    async def profile(self, symbol: str) -> Profile:
        match, _ = await self._search(symbol)
        return Profile(
            symbol=match.symbol,
            name=match.longname or match.symbol,
            exchange=match.exch_disp,
            sector=match.sector,
            industry=match.industry,
        )

    async def news(self, symbol: str) -> list[Headline]:
        _, stories = await self._search(symbol, stories=_HEADLINES)
        return [
            Headline(
                title=story.title,
                publisher=story.publisher,
                link=story.link,
                published_at=story.provider_publish_time,
            )
            for story in stories
        ]

    async def _chart(self, symbol: str, period: str) -> "_Chart":
        path = f"/v8/finance/chart/{symbol}"
        envelope = await self._answer(_ChartEnvelope, symbol, path, range=period, interval="1d")
        return envelope.chart.result[0]

    async def _search(self, symbol: str, stories: int = 0) -> "tuple[_Match, list[_Story]]":
        path = "/v1/finance/search"
        found = await self._answer(_Found, symbol, path, q=symbol, quotesCount=4, newsCount=stories)
        for match in found.quotes:
            if match.symbol == symbol:
                return match, found.news
        raise UnknownSymbol(symbol)  # a search without a match is a 200, unlike such a chart


class _Wire(BaseModel, alias_generator=to_camel):
    """A part of Yahoo's JSON: only what is read of it, under names of this house."""


class _Meta(_Wire):
    symbol: str
    long_name: str | None = None
    full_exchange_name: str
    currency: str
    regular_market_price: float
    regular_market_time: datetime
    regular_market_volume: int = 0  # indices have none
    chart_previous_close: float
    gmtoffset: timedelta


class _Bars(_Wire):
    """Columns as long as the timestamps; a bar without trade is null in all of them."""

    open: list[float | None] = []
    high: list[float | None] = []
    low: list[float | None] = []
    close: list[float | None] = []
    volume: list[int | None] = []


class _Indicators(_Wire):
    quote: tuple[_Bars]


class _Chart(_Wire):
    meta: _Meta
    timestamp: list[datetime] = []
    indicators: _Indicators

    def candles(self) -> list[Candle]:
        bars = self.indicators.quote[0]
        # a bar begins at the opening, which is on the day before in UTC where the sun rises early
        days = [(opening + self.meta.gmtoffset).date() for opening in self.timestamp]
        rows = zip(days, bars.open, bars.high, bars.low, bars.close, bars.volume, strict=True)
        candles = starmap(_candle, rows)
        return [candle for candle in candles if candle is not None]


def _candle(
    day: date,
    opened: float | None,
    high: float | None,
    low: float | None,
    close: float | None,
    volume: int | None,
) -> Candle | None:
    if opened is None or high is None or low is None or close is None:
        return None
    return Candle(day=day, open=opened, high=high, low=low, close=close, volume=volume or 0)


class _ChartResult(_Wire):
    result: tuple[_Chart]


class _ChartEnvelope(_Wire):
    chart: _ChartResult


class _Match(_Wire):
    symbol: str
    longname: str | None = None
    exch_disp: str = ""
    sector: str | None = None
    industry: str | None = None


class _Story(_Wire):
    title: str
    publisher: str
    link: str
    provider_publish_time: datetime


class _Found(_Wire):
    quotes: list[_Match]
    news: list[_Story] = []
