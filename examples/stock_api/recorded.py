"""The facts that the local upstream tells: made up, looking recorded, the same in every run.

A price is a function of symbol and time alone: waves over months, days and minutes around a base
price. So quotes move a little while one looks, and histories agree with them.
"""

import math
import zlib
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from stock_api.models import Candle, Headline, History, Period, Profile, Quote

_DAY = 86_400.0
# each a share of the price, and the seconds from crest to crest
_WAVES = ((0.15, 97 * _DAY), (0.04, 11 * _DAY), (0.008, 5_400.0), (0.002, 60.0))
_TICKS = {"KRW": 100.0, "USD": 0.01}
_CALENDAR_DAYS: dict[Period, int] = {"5d": 7, "1mo": 30, "3mo": 91, "6mo": 182, "1y": 365}
_HOURS_SAMPLED = (0, 2, 4, 6)  # of a trading day of six hours, the opening first
_OPENING = time(0, 0, tzinfo=UTC)  # nine o'clock in Seoul
_STORIES = (
    "{name} shares move as investors weigh the outlook for {industry}",
    "Analysts revise their view of {name} before results",
    "What the latest quarter says about {name} and {sector}",
    "{name} names a new head of strategy",
)


class Listing(NamedTuple):
    """A company at an exchange, with the price that its own moves around."""

    symbol: str
    name: str
    exchange: str
    currency: str
    base_price: float
    sector: str
    industry: str

    @property
    def seed(self) -> int:
        """A number of its own, the same in every process (`hash` of a str is not)."""
        return zlib.crc32(self.symbol.encode())


def _korean(code: str, name: str, price: float, sector: str, industry: str) -> Listing:
    return Listing(f"{code}.KS", name, "KSE", "KRW", price, sector, industry)


def _american(symbol: str, name: str, price: float, sector: str, industry: str) -> Listing:
    return Listing(symbol, name, "NasdaqGS", "USD", price, sector, industry)


LISTINGS = (  # the most asked for first
    _korean("005930", "Samsung Electronics Co., Ltd.", 71_400, "Technology", "Consumer Electronics"),
    _american("NVDA", "NVIDIA Corporation", 131.20, "Technology", "Semiconductors"),
    _korean("000660", "SK hynix Inc.", 198_000, "Technology", "Semiconductors"),
    _american("AAPL", "Apple Inc.", 227.50, "Technology", "Consumer Electronics"),
    _korean("035420", "NAVER Corporation", 187_300, "Communication Services", "Internet Content"),
    _american("MSFT", "Microsoft Corporation", 421.30, "Technology", "Software"),
    _korean("035720", "Kakao Corp.", 41_200, "Communication Services", "Internet Content"),
    _american("TSLA", "Tesla, Inc.", 252.80, "Consumer Cyclical", "Auto Manufacturers"),
    _korean("005380", "Hyundai Motor Company", 243_500, "Consumer Cyclical", "Auto Manufacturers"),
    _american("GOOGL", "Alphabet Inc.", 168.40, "Communication Services", "Internet Content"),
    _korean("373220", "LG Energy Solution, Ltd.", 366_500, "Industrials", "Electrical Equipment"),
    _american("AMZN", "Amazon.com, Inc.", 187.90, "Consumer Cyclical", "Internet Retail"),
    _korean("207940", "Samsung Biologics Co., Ltd.", 812_000, "Healthcare", "Biotechnology"),
    _american("META", "Meta Platforms, Inc.", 572.10, "Communication Services", "Internet Content"),
    _korean("068270", "Celltrion, Inc.", 179_400, "Healthcare", "Biotechnology"),
    _american("AVGO", "Broadcom Inc.", 174.60, "Technology", "Semiconductors"),
    _korean("051910", "LG Chem, Ltd.", 318_000, "Basic Materials", "Chemicals"),
    _american("AMD", "Advanced Micro Devices, Inc.", 156.30, "Technology", "Semiconductors"),
    _korean("105560", "KB Financial Group Inc.", 78_900, "Financial Services", "Banks"),
    _american("NFLX", "Netflix, Inc.", 705.40, "Communication Services", "Entertainment"),
    _korean("000270", "Kia Corporation", 112_800, "Consumer Cyclical", "Auto Manufacturers"),
    _american("COST", "Costco Wholesale Corporation", 889.70, "Consumer Defensive", "Discount Stores"),
    _korean("006400", "Samsung SDI Co., Ltd.", 352_000, "Technology", "Electronic Components"),
    _american("INTC", "Intel Corporation", 22.70, "Technology", "Semiconductors"),
)


def quote_of(listing: Listing, now: datetime) -> Quote:
    *_, yesterday = _closed_days("5d", now)
    return Quote(
        symbol=listing.symbol,
        name=listing.name,
        exchange=listing.exchange,
        currency=listing.currency,
        price=_price_at(listing, now),
        previous_close=_candle(listing, yesterday).close,
        volume=_volume(listing, now.date()),
        at=now,
    )


def history_of(listing: Listing, period: Period, now: datetime) -> History:
    candles = [_candle(listing, day) for day in _closed_days(period, now)]
    return History(symbol=listing.symbol, currency=listing.currency, period=period, candles=candles)


def profile_of(listing: Listing) -> Profile:
    return Profile(
        symbol=listing.symbol,
        name=listing.name,
        exchange=listing.exchange,
        sector=listing.sector,
        industry=listing.industry,
    )


def news_of(listing: Listing, now: datetime) -> list[Headline]:
    """Return one story for each of the last mornings, the newest first."""
    morning = datetime.combine(now.date(), _OPENING)
    return [
        Headline(
            title=story.format(**listing._asdict()),
            publisher="The Recorded Times",
            link=f"https://news.example/{listing.symbol}/{days}",
            published_at=morning - timedelta(days=days),
        )
        for days, story in enumerate(_STORIES)
    ]


def _price_at(listing: Listing, moment: datetime) -> float:
    seconds = moment.timestamp()
    drift = sum(share * math.sin(seconds / length * math.tau + listing.seed) for share, length in _WAVES)
    tick = _TICKS[listing.currency]
    return round(round(listing.base_price * (1 + drift) / tick) * tick, 2)


def _candle(listing: Listing, day: date) -> Candle:
    opening = datetime.combine(day, _OPENING)
    prices = [_price_at(listing, opening + timedelta(hours=hour)) for hour in _HOURS_SAMPLED]
    return Candle(
        day=day,
        open=prices[0],
        high=max(prices),
        low=min(prices),
        close=prices[-1],
        volume=_volume(listing, day),
    )


def _volume(listing: Listing, day: date) -> int:
    return 1_000_000 + (listing.seed + day.toordinal() * 7_919) % 9_000_000


def _closed_days(period: Period, now: datetime) -> Iterator[date]:
    """Yield the weekdays of the `period` that ends yesterday, the oldest first."""
    for ago in range(_CALENDAR_DAYS[period], 0, -1):
        day = now.date() - timedelta(days=ago)
        if day.weekday() < 5:
            yield day
