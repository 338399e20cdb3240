"""Let time pass for a real server, which has no clock to turn: every expiry under a prefix comes nearer."""

from __future__ import annotations

import time
from collections.abc import Callable

import redis

from layercache.testing import Clock

# in one step on the server, so that no time is lost between look and change; PEXPIRETIME came with Redis 7
_NEARER = """
local left = redis.call('PTTL', KEYS[1])
if left > 0 then redis.call('PEXPIRE', KEYS[1], left - ARGV[1]) end
"""


class ServerClock(Clock):
    """A clock that moves a server's expiries along. It starts at the server's own time and stands still, while
    the server's goes on; what a test measures in seconds does not see the milliseconds between them."""

    def __init__(self, server: redis.Redis, pattern: str) -> None:
        super().__init__(time.time())
        self._server, self._pattern = server, pattern

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        for key in self._server.scan_iter(match=self._pattern, count=1000):
            self._server.eval(_NEARER, 1, key, int(seconds * 1000))


NewClock = Callable[[], Clock]
