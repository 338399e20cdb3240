"""The clients of the demo: connections that stay with one worker, and what they ask for.

Which worker answers is decided when a connection is opened. So a *line*, one connection that is kept
alive, always reaches the same worker, and a phase can choose whom it asks.
"""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import accumulate
from typing import Any

import httpx

from stock_api.recorded import LISTINGS

_ATTEMPTS_PER_LINE = 40
_SECONDS_TO_ANSWER = 15.0

# what users of such a service look at, and how often each for one look at a profile
_SHARES = {
    "/quotes/{symbol}": 5,
    "/quotes/{symbol}/history?period=1mo": 2,
    "/companies/{symbol}/news": 2,
    "/companies/{symbol}": 1,
}


Done = Callable[[], None]  # called after each answer


class TrafficError(RuntimeError):
    """The service gave an answer that makes the measurement void."""


class Line:
    """One kept connection to the worker `pid`, with one request at a time on it."""

    def __init__(self, http: httpx.AsyncClient, pid: int) -> None:
        self._http, self.pid = http, pid

    async def seconds(self, path: str) -> float:
        """Ask for `path` and return how long the answer took."""
        began = time.perf_counter()
        response = await self._http.get(path)
        took = time.perf_counter() - began
        self._check(response)
        return took

    async def json(self, path: str) -> Any:
        response = await self._http.get(path)
        self._check(response)
        return response.json()

    def _check(self, response: httpx.Response) -> None:
        if not response.is_success:
            raise TrafficError(f"{response.url.path} answered {response.status_code}: {response.text[:200]}")
        if response.headers["X-Worker"] != str(self.pid):
            raise TrafficError(f"a connection to worker {self.pid} was answered by another")


Lines = dict[int, list[Line]]


@asynccontextmanager
async def lines_to(url: str, workers: Iterable[int], each: int) -> AsyncGenerator[Lines]:
    """Open `each` lines to each of the `workers`, whom only the kernel chooses between."""
    lines: Lines = {pid: [] for pid in workers}
    tls = ssl.create_default_context()  # unused with http, but each client would make its own, slowly
    async with AsyncExitStack() as stack:
        for _ in range(_ATTEMPTS_PER_LINE * each * len(lines)):
            if all(len(some) == each for some in lines.values()):
                break
            http = await stack.enter_async_context(_one_connection(url, tls))
            pid = int((await http.get("/health")).headers["X-Worker"])
            if len(lines[pid]) < each:
                lines[pid].append(Line(http, pid))
            else:
                await http.aclose()
        else:
            raise TrafficError("one worker takes all connections")
        yield lines


def _one_connection(url: str, tls: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        verify=tls,
        trust_env=False,
        timeout=_SECONDS_TO_ANSWER,
        limits=httpx.Limits(max_connections=1, keepalive_expiry=None),
    )


def paths_of(symbols: int) -> list[str]:
    """Return every path about the first `symbols` listings; quotes, which live shortest, last."""
    listings = LISTINGS[:symbols]
    return [path.format(symbol=listing.symbol) for path in reversed(_SHARES) for listing in listings]


async def ask_once(paths: Sequence[str], lines: Sequence[Line], done: Done) -> list[float]:
    """Ask for each path once, by whichever line is free; return how long each took."""
    waiting = iter(paths)  # shared, so that a path goes to one line

    async def work(line: Line) -> list[float]:
        times: list[float] = []
        for path in waiting:
            times.append(await line.seconds(path))
            done()
        return times

    return [took for times in await asyncio.gather(*map(work, lines)) for took in times]


async def browse(lines: Sequence[Line], seconds: float, pause: float, done: Done) -> list[float]:
    """Let one user on each line look around for `seconds`, `pause` seconds between looks on average.

    Few symbols draw most of the looks (Zipf), every run draws the same sequence for each user, and
    what was asked for in time is waited for.
    """
    pick = _zipf_picker()
    ends = time.monotonic() + seconds

    async def user(line: Line, random: random.Random) -> list[float]:
        times: list[float] = []
        while True:
            await asyncio.sleep(random.expovariate(1 / pause))
            if time.monotonic() > ends:
                return times
            times.append(await line.seconds(pick(random)))
            done()

    users = [user(line, random.Random(number)) for number, line in enumerate(lines)]
    return [took for times in await asyncio.gather(*users) for took in times]


def _zipf_picker() -> Callable[[random.Random], str]:
    """Return a function that draws a path: the symbol of rank n is n times rarer than the first."""
    paths: list[str] = []
    weights: list[float] = []
    for rank, listing in enumerate(LISTINGS, start=1):
        for path, share in _SHARES.items():
            paths.append(path.format(symbol=listing.symbol))
            weights.append(share / rank)
    cumulated = list(accumulate(weights))
    return lambda random: random.choices(paths, cum_weights=cumulated)[0]
