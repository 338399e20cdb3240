"""The example service as its users meet it: real processes, real HTTP, a real Valkey."""

import asyncio
import os
from contextlib import ExitStack

import httpx
import pytest
from pydantic import TypeAdapter

from stock_api.fleet import FleetError, Service, fleet
from stock_api.market import LocalMarket, MarketUnavailable, UnknownSymbol, YahooMarket
from stock_api.models import Headline, History, Profile, Quote
from stock_api.traffic import lines_to

pytestmark = pytest.mark.slow

LATENCY = "0.05"


@pytest.fixture(scope="module")
def running():
    with fleet(LATENCY) as running:
        yield running


@pytest.fixture(scope="module")
def workers(running):
    """One client for each worker, on a connection that stays with it."""
    with ExitStack() as stack:
        yield [client_of(pid, running.api, stack) for pid in sorted(running.workers)]


@pytest.fixture(scope="module")
def calls(running):
    """How often the market was asked, all kinds together."""
    with client(running.upstream) as upstream:
        yield lambda: sum(upstream.get("/calls").json().values())


def client(url):
    limits = httpx.Limits(max_connections=1, keepalive_expiry=None)
    return httpx.Client(base_url=url, trust_env=False, limits=limits)


def client_of(pid, url, stack):
    for _ in range(200):
        candidate = stack.enter_context(client(url))
        if candidate.get("/health").json()["worker"] == pid:
            return candidate
        candidate.close()
    pytest.fail(f"worker {pid} takes no connection")


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_one_worker_loaded_the_other_serves_too(running, workers, calls):
    before = calls()

    answers = [worker.get("/quotes/005930.KS") for worker in workers]

    assert {answer.headers["X-Worker"] for answer in answers} == {str(pid) for pid in running.workers}
    assert answers[0].json() == answers[1].json()
    assert calls() == before + 1


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/quotes/000660.KS", Quote),
        ("/quotes/000660.KS/history?period=3mo", History),
        ("/companies/000660.KS", Profile),
        ("/companies/000660.KS/news", list[Headline]),
    ],
)
def test_a_hit_has_the_shape_of_a_miss(workers, calls, path, kind):
    before = calls()

    loaded, near, far = workers[0].get(path), workers[0].get(path), workers[1].get(path)

    assert TypeAdapter(kind).validate_json(loaded.content)
    assert loaded.json() == near.json() == far.json()
    assert calls() == before + 1


def test_a_period_left_out_is_the_same_key_as_the_default(workers, calls):
    workers[0].get("/quotes/AAPL/history")
    before = calls()

    answer = workers[0].get("/quotes/AAPL/history?period=1mo")

    assert answer.json()["period"] == "1mo"
    assert calls() == before


def test_small_letters_are_the_same_symbol(workers, calls):
    workers[0].get("/quotes/MSFT")
    before = calls()

    answer = workers[0].get("/quotes/msft")

    assert answer.json()["symbol"] == "MSFT"
    assert calls() == before


def test_many_at_once_on_one_worker_are_one_call(running, calls):
    async def ask():
        async with lines_to(running.api, running.workers, each=4) as lines:
            await asyncio.gather(*(line.seconds("/quotes/TSLA") for line in lines[min(running.workers)]))

    before = calls()

    asyncio.run(ask())

    assert calls() == before + 1


@pytest.mark.parametrize(
    "path", ["/quotes/NOPE", "/quotes/NOPE/history", "/companies/NOPE", "/companies/NOPE/news"]
)
def test_an_unknown_symbol_is_not_found_and_asked_for_again(workers, calls, path):
    before = calls()

    answers = [workers[0].get(path) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert "NOPE" in answers[0].json()["detail"]
    assert calls() == before + 2


def test_what_cannot_be_a_symbol_never_reaches_the_market(workers, calls):
    before = calls()

    answer = workers[0].get("/quotes/two words")

    assert answer.status_code == 422
    assert calls() == before


def test_stats_tell_hits_by_layer(workers):
    def hits(worker):
        stats = worker.get("/stats").json()
        return stats["hits"], {layer["type"]: layer["hits"] for layer in stats["layers"]}

    workers[0].get("/companies/NVDA")
    workers[1].get("/companies/NVDA")
    total, layers = hits(workers[1])

    workers[1].get("/companies/NVDA")

    assert hits(workers[1]) == (total + 1, {**layers, "memory": layers["memory"] + 1})
    assert layers["redis"] > 0


def test_yahoo_and_the_local_market_tell_the_same(running):
    async def facts(market):
        quote = await market.quote("035420.KS")
        slow = (
            await market.history("AAPL", "6mo"),
            await market.profile("035420.KS"),
            await market.news("035420.KS"),
        )
        await market.aclose()
        return quote, slow

    local_quote, local = asyncio.run(facts(LocalMarket(running.upstream)))
    yahoo_quote, yahoo = asyncio.run(facts(YahooMarket(running.upstream)))

    assert yahoo == local
    moving = {"price", "at"}
    assert yahoo_quote.model_dump(exclude=moving) == local_quote.model_dump(exclude=moving)
    assert yahoo_quote.price == pytest.approx(local_quote.price, rel=0.01)
    assert yahoo_quote.at.utcoffset() == local_quote.at.utcoffset()


@pytest.mark.parametrize("kind", [LocalMarket, YahooMarket])
@pytest.mark.parametrize("question", ["quote", "profile", "news"])
def test_both_markets_name_an_unknown_symbol(running, kind, question):
    async def ask():
        market = kind(running.upstream)
        try:
            await getattr(market, question)("NOPE")
        finally:
            await market.aclose()

    with pytest.raises(UnknownSymbol, match="NOPE"):
        asyncio.run(ask())


def test_an_answer_that_cannot_be_read_is_a_market_unavailable(running):
    class Misled(LocalMarket):
        async def quote(self, symbol):
            return await self._answer(Quote, symbol, "/health")

    async def ask():
        market = Misled(running.upstream)
        try:
            await market.quote("AAPL")
        finally:
            await market.aclose()

    with pytest.raises(MarketUnavailable, match="AAPL cannot be read"):
        asyncio.run(ask())


def test_a_market_that_fails_is_a_bad_gateway(tmp_path):
    nobody = "http://127.0.0.1:1"

    with Service("app", tmp_path, STOCK_UPSTREAM=nobody) as api, client(api.url) as worker:
        answer = worker.get("/quotes/AAPL")

    assert answer.status_code == 502
    assert "did not answer about AAPL" in answer.json()["detail"]


def test_the_service_answers_while_valkey_is_dead():
    with fleet(LATENCY) as running, client(running.api) as worker:
        kept = worker.get("/companies/005380.KS").json()

        running.valkey.kill()
        hit, load = worker.get("/companies/005380.KS"), worker.get("/companies/META")

        assert hit.json() == kept
        assert load.json()["symbol"] == "META"


def test_nothing_is_left_when_the_fleet_has_ended():
    with fleet(LATENCY) as running:
        assert all(map(lives, running.workers))

    assert not any(map(lives, running.workers))
    assert not running.valkey.answers()
    with pytest.raises(httpx.ConnectError), client(running.upstream) as upstream:
        upstream.get("/health")


def test_everything_is_ended_when_the_block_fails():
    with pytest.raises(KeyboardInterrupt), fleet(LATENCY) as running:
        raise KeyboardInterrupt

    assert not any(map(lives, running.workers))


def test_a_service_that_does_not_start_tells_its_log(tmp_path):
    with (
        pytest.raises(FleetError, match="'local' or 'yahoo'"),
        Service("app", tmp_path, STOCK_MARKET="nasdaq"),
    ):
        pass


def test_wrong_settings_end_the_start_rather_than_the_first_request(tmp_path):
    with (
        pytest.raises(FleetError, match="no such environment"),
        Service("app", tmp_path, LAYERCACHE_ENV="prod"),
    ):
        pass
