"""How the public API types. Not run: mypy --strict and pyright check it."""

from typing import Any, assert_type

from layercache import Cache, Caches, cache, cached, get_cache, make_key


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
quotes.set("k", "no quote")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
quotes.set("k", Quote(), ttl=[])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


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
quote(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def main() -> None:
    assert_type(await aquote("AAPL"), Quote)
    assert_type(await quotes.aget("k"), Quote | None)
    assert_type(await quotes.aget_or_set("k", Quote), Quote)

    async def load() -> Quote:
        raise NotImplementedError

    assert_type(await quotes.aget_or_set("k", load), Quote)
