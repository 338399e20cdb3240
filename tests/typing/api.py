"""How the public API types. Not run: mypy --strict and pyright check it.

A line with an ignore is one that has to be an error: both complain of an ignore that is not needed.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import Any, assert_type

from layercache import (
    AsyncCachedFunction,
    Cache,
    CachedFunction,
    Caches,
    Invalidation,
    LoadContext,
    WarmReport,
    aemit,
    cache,
    cached,
    current_load,
    emit,
    get_cache,
    make_key,
    on,
)


class Quote:
    price: float


stock = get_cache("stock")
assert_type(stock, Cache[Any])
assert_type(Caches()["stock"], Cache[Any])
assert_type(cache, Cache[Any])

quotes = stock.typed(Quote)
assert_type(quotes, Cache[Quote])
assert_type(quotes.get("k"), Quote | None)
assert_type(quotes.get("k", 0), Quote | int)
assert_type(quotes.get_many(["k"]), dict[str, Quote])
assert_type(quotes.get_or_set("k", Quote), Quote)
assert_type(quotes.get_or_set("k", Quote(), ttl="15s"), Quote)
assert_type(stock.typed(list[Quote]), Cache[list[Quote]])
assert_type(stock.typed(int | None), Cache[Any])
assert_type(make_key("quote", "AAPL", 1, period="1d"), str)
quotes.set("k", Quote(), None)
quotes.set("k", "no quote")  # type: ignore[arg-type]
quotes.set("k", Quote(), ttl=[])  # type: ignore[arg-type]


@cached("quote:{symbol}", cache="stock")
def quote(symbol: str, *, live: bool = False) -> Quote:
    raise NotImplementedError


@cached(ttl="1h")
async def aquote(symbol: str) -> Quote:
    raise NotImplementedError


@stock.cached("history:{symbol}")
def history(symbol: str) -> list[float]:
    raise NotImplementedError


assert_type(quote("AAPL", live=True), Quote)
assert_type(history("AAPL"), list[float])
quote(7)  # type: ignore[arg-type]

assert_type(quote.key("AAPL", live=True), str)
assert_type(quote.invalidate("AAPL"), bool)
assert_type(quote.refresh("AAPL", live=True), Quote)
assert_type(quote.peek("AAPL"), Quote | None)
assert_type(quote.uncached("AAPL"), Quote)
quote.key(7)  # type: ignore[arg-type]
quote.invalidate(7)  # type: ignore[arg-type]
quote.refresh()  # type: ignore[call-arg]
quote.peek("AAPL", "default")  # type: ignore[arg-type,call-arg]
quote.uncached("AAPL", live="yes")  # type: ignore[arg-type]
kept: CachedFunction[[str], list[float]] = history
akept: AsyncCachedFunction[[str], Quote] = aquote

cached(tll="1h")  # type: ignore[call-arg]
cached(ttl=[])  # type: ignore[arg-type]
cached(refresh="late")  # type: ignore[arg-type]
cached(
    "quote:{symbol}",
    ttl=lambda quote, symbol: "1h" if quote is None else 15,
    ignore=["session"],
    stale_ttl="1h",
    none_ttl=None,
    jitter=0.1,
    refresh="early",
    hard_timeout="2s",
    tags=["quote:{symbol}"],
)
cached(tags=lambda symbol, period: [f"quote:{symbol}", period])
stock.cached(tags=lambda symbol: (symbol,))
cached(tags=lambda symbol: 7)  # type: ignore[arg-type,return-value]
quotes.invalidate("quote:AAPL", "quotes", soft=True)
quotes.invalidate("quote:AAPL", "quotes", True)  # type: ignore[arg-type]


class Market:
    @cached("quote:{symbol}")
    def quote(self, symbol: str, *, live: bool = False) -> Quote:
        raise NotImplementedError

    @cached(ignore=["self"])
    async def aquote(self, symbol: str) -> Quote:
        raise NotImplementedError

    @staticmethod
    @cached()
    def at(symbol: str) -> Quote:
        raise NotImplementedError


assert_type(quote.warm(concurrency=4), WarmReport)
assert_type(quotes.warm(lambda key: Quote(), ["k"], refresh_every="1m"), WarmReport)
quotes.warm(lambda key: "no quote", ["k"])  # type: ignore[arg-type,return-value]
cached(warm=["AAPL", ("AAPL",), {"symbol": "AAPL"}], refresh_every="1m")

market = Market()
assert_type(market.quote.warm(), WarmReport)
assert_type(market.quote("AAPL", live=True), Quote)
assert_type(market.quote.key("AAPL"), str)
assert_type(market.quote.invalidate("AAPL", live=True), bool)
assert_type(market.quote.refresh("AAPL"), Quote)
assert_type(market.quote.peek("AAPL"), Quote | None)
assert_type(market.quote.uncached("AAPL"), Quote)
assert_type(Market.quote(market, "AAPL"), Quote)
assert_type(Market.at("AAPL"), Quote)
market.quote(7)  # type: ignore[arg-type]
market.quote.refresh(market, "AAPL")  # type: ignore[call-arg,arg-type]

on("price_updated", tags=["quote:{symbol}"], cache="stock", soft=True)
on("price_updated", ["quote:{symbol}"])  # type: ignore[call-arg]
assert_type(emit("price_updated", symbol="AAPL", event=1), list[Invalidation])
assert_type(Caches().emit("price_updated"), list[Invalidation])
assert_type(Caches().on("price_updated", tags=("quotes",)), None)
assert_type(emit("price_updated")[0].tags, tuple[str, ...])

load = current_load()
assert_type(load, LoadContext[Any] | None)


async def main() -> None:
    assert_type(await aquote("AAPL"), Quote)
    assert_type(aquote.key("AAPL"), str)
    assert_type(await aquote.invalidate("AAPL"), bool)
    assert_type(await aquote.refresh("AAPL"), Quote)
    assert_type(await aquote.peek("AAPL"), Quote | None)
    assert_type(await aquote.uncached("AAPL"), Quote)
    await aquote.refresh(7)  # type: ignore[arg-type]
    assert_type(await aquote.warm(), WarmReport)
    assert_type(await market.aquote("AAPL"), Quote)
    assert_type(await market.aquote.warm(), WarmReport)
    assert_type(market.aquote.key("AAPL"), str)
    assert_type(await market.aquote.refresh("AAPL"), Quote)
    assert_type(await market.aquote.peek("AAPL"), Quote | None)
    await market.aquote.invalidate(7)  # type: ignore[arg-type]

    await quotes.ainvalidate("quotes", soft=True)
    assert_type(await aemit("price_updated", symbol="AAPL"), list[Invalidation])
    assert_type(await Caches().aemit("price_updated"), list[Invalidation])
    assert_type(await quotes.aget("k"), Quote | None)
    assert_type(await quotes.aget_or_set("k", Quote), Quote)

    async def load() -> Quote:
        raise NotImplementedError

    assert_type(await quotes.aget_or_set("k", load), Quote)

    async def load_one(key: str) -> Quote:
        raise NotImplementedError

    assert_type(await quotes.awarm(load_one, ["k"]), WarmReport)
