"""Quotes, as services of this kind keep them: what they have in common is what a trained dictionary lives of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from string import ascii_uppercase

import orjson

FIRST_DAY = datetime(2024, 1, 2, 8, tzinfo=UTC)
EXCHANGES = [
    ("NMS", "NASDAQ", "USD", "America/New_York"),
    ("NYQ", "NYSE", "USD", "America/New_York"),
    ("LSE", "LSE", "GBP", "Europe/London"),
    ("GER", "XETRA", "EUR", "Europe/Berlin"),
    ("PAR", "Euronext Paris", "EUR", "Europe/Paris"),
    ("JPX", "Tokyo", "JPY", "Asia/Tokyo"),
    ("KSC", "KSE", "KRW", "Asia/Seoul"),
]
HEADS = [
    "Aber", "Atlas", "Beacon", "Bright", "Cal", "Cobalt", "Delta", "Dyna", "Ever", "Falcon", "Grand", "Harbor",
    "Iron", "Juniper", "Kestrel", "Lumen", "Meridian", "North", "Oak", "Pinnacle", "Quantum", "Red", "Summit",
    "Terra", "Union", "Vertex", "West", "Xenon", "Zephyr",
]  # fmt: skip
TAILS = [
    "bridge", "dale", "field", "gate", "lake", "land", "line", "mark", "point", "port", "star", "stone", "tech",
    "view", "wood", "works",
]  # fmt: skip
KINDS = ["Inc.", "Corporation", "plc", "AG", "S.A.", "Holdings Ltd.", "Group", "& Co.", "Bancorp", "Energy"]


def quote(number: int) -> bytes:
    """A quote with the fields that market data services send, about 1 KB; each number gives another."""
    random = Random(number)

    def near(base: float, share: float, digits: int = 2) -> float:
        return round(base * random.uniform(1 - share, 1 + share), digits)

    def moment() -> datetime:
        return FIRST_DAY + timedelta(milliseconds=random.randrange(700 * 86_400_000))

    code, exchange, currency, zone = random.choice(EXCHANGES)
    price, eps = round(random.lognormvariate(4, 1.2), 2), round(random.gauss(3, 4), 2)
    close, low, high, average = (
        near(price, 0.04),
        near(price * 0.7, 0.2),
        near(price * 1.3, 0.2),
        near(price, 0.1),
    )
    shares, volume = int(random.lognormvariate(19, 1.5)), int(random.lognormvariate(14, 1.5))
    return orjson.dumps(
        {
            "symbol": "".join(random.choices(ascii_uppercase, k=random.randint(2, 4))),
            "isin": f"{random.choice(['US', 'GB', 'DE', 'JP', 'KR', 'FR'])}{random.randrange(10**10):010}",
            "shortName": f"{random.choice(HEADS)}{random.choice(TAILS)} {random.choice(KINDS)}",
            "exchange": code,
            "fullExchangeName": exchange,
            "exchangeTimezoneName": zone,
            "currency": currency,
            "marketState": random.choice(["REGULAR", "PRE", "POST", "CLOSED"]),
            "regularMarketPrice": price,
            "regularMarketChange": round(price - close, 2),
            "regularMarketChangePercent": round((price / close - 1) * 100, 4),
            "regularMarketOpen": near(price, 0.02),
            "regularMarketDayHigh": near(price, 0.02),
            "regularMarketDayLow": near(price, 0.02),
            "regularMarketPreviousClose": close,
            "regularMarketVolume": volume,
            "regularMarketTime": moment().isoformat(timespec="milliseconds"),
            "bid": near(price, 0.001),
            "bidSize": random.randint(1, 60) * 100,
            "ask": near(price, 0.001),
            "askSize": random.randint(1, 60) * 100,
            "averageDailyVolume3Month": int(near(volume, 0.6)),
            "averageDailyVolume10Day": int(near(volume, 0.6)),
            "marketCap": int(price * shares),
            "sharesOutstanding": shares,
            "trailingPE": round(price / eps, 4) if eps > 0 else None,
            "epsTrailingTwelveMonths": eps,
            "trailingAnnualDividendYield": random.choice([None, round(random.uniform(0.1, 6), 2)]),
            "fiftyTwoWeekLow": low,
            "fiftyTwoWeekLowChangePercent": round((price / low - 1) * 100, 4),
            "fiftyTwoWeekHigh": high,
            "fiftyTwoWeekHighChangePercent": round((price / high - 1) * 100, 4),
            "fiftyDayAverage": average,
            "fiftyDayAverageChange": round(price - average, 4),
            "earningsDate": moment().date().isoformat(),
            "exchangeDataDelayedBy": random.choice([0, 15, 20]),
            "tradeable": random.random() < 0.9,
        }
    )
