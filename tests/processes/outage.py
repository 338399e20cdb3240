"""Fork while the server is frozen and a thread of the parent probes it; prints what both found, as JSON.

outage.py URL PREFIX SERVER    where SERVER is the id of the server's process
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from forking import Worker
from inside import chain, far_gauges, fill, follow, sockets, threads
from waiting import until

URL, PREFIX, SERVER = sys.argv[1], sys.argv[2], int(sys.argv[3])


def main() -> dict[str, Any]:
    logging.getLogger("layercache").addHandler(logging.NullHandler())  # which says what it should; not here
    world = chain(URL, PREFIX, timeout="100ms")
    cache = world["default"]
    follow(cache)
    fill(cache, "near", "v")
    cache.set("deleted", "v")
    calm = len(sockets())
    os.kill(SERVER, signal.SIGSTOP)
    cache.get("not near")
    cache.delete("deleted")
    far = cache._layer.space.layers()[-1]
    assert far.outbox is not None
    assert not far.outbox.is_empty
    # a probe waits for an answer; connections that failed are closed, so it is one more than those of the log
    until(lambda: far_gauges(cache)["circuits_open"] and len(sockets()) >= calm)
    before = sockets()

    def serve(say: Callable[[Any], None], wait: Callable[[], None]) -> None:
        found = {"inherited": len(before & sockets()), "threads": threads()}
        found["owes"] = not far.outbox.is_empty
        found["open at first"] = far_gauges(cache)["circuits_open"]
        found["without it"] = cache.get("near")
        found["loaded"] = cache.get_or_set("of a worker", lambda: os.getpid()) == os.getpid()
        found["then"] = far_gauges(cache)["circuits_open"]
        say(found)
        wait()
        until(lambda: cache.get("near") == "v")
        say(far_gauges(cache)["circuits_open"])
        wait()

    workers = [Worker(serve) for _ in range(2)]
    report: dict[str, Any] = {"in it": [worker.said() for worker in workers], "hit": cache.get("near")}
    os.kill(SERVER, signal.SIGCONT)
    for worker in workers:
        worker.tell()
    report["after it"] = [worker.said() for worker in workers]
    until(lambda: not far_gauges(cache)["circuits_open"])
    until(lambda: far.outbox.is_empty)
    report["deleted"] = cache.get("deleted")
    cache.set("after", 1)
    until(lambda: cache.get("after") == 1)
    for worker in workers:
        worker.tell()
    report["codes"] = [worker.ended() for worker in workers]
    return report


if __name__ == "__main__":
    print(json.dumps(main()))  # noqa: T201
