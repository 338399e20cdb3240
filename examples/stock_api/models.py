"""What the service speaks of: quotes, price histories, companies and their news."""

from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel

Period = Literal["5d", "1mo", "3mo", "6mo", "1y"]


class Quote(BaseModel, frozen=True):
    symbol: str
    name: str
    exchange: str
    currency: str
    price: float
    previous_close: float
    volume: int
    at: datetime


class Candle(BaseModel, frozen=True):
    day: date
    open: float
    high: float
    low: float
    close: float
    volume: int


class History(BaseModel, frozen=True):
    symbol: str
    currency: str
    period: Period
    candles: list[Candle]


class Profile(BaseModel, frozen=True):
    symbol: str
    name: str
    exchange: str
    sector: str | None = None  # funds and indices have neither sector nor industry
    industry: str | None = None


class Headline(BaseModel, frozen=True):
    title: str
    publisher: str
    link: str
    published_at: datetime
