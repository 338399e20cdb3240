"""Whatever is late, lost, restarted or set back, reads keep the two rules of `histories`; and each of our protections
is one without which they do not.

`LAYERCACHE_TEST_SCHEDULES=2000` runs so many schedules of each kind, `LAYERCACHE_TEST_SEED=7` that one alone; what
fails says which it is, with all that was done.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from math import inf
from random import randrange
from typing import Any
from unittest.mock import patch

import pytest
import server
from schedules import KINDS, judged, run
from simulated import Fleet

from layercache.core.outbox import Outbox
from layercache.core.tickets import Ticket
from layercache.entry import CACHE_TAG
from layercache_chain.hearing import Hearing, Trust
from layercache_redis.leases import Leases
from layercache_redis.tail import Tail

IN_CI = os.environ.get("CI") == "true"
SCHEDULES = int(os.environ.get("LAYERCACHE_TEST_SCHEDULES", "150" if IN_CI else "30"))  # of each kind
MOST = 200  # in which every fault of our own has to show

if "LAYERCACHE_TEST_SEED" in os.environ:
    first = int(os.environ["LAYERCACHE_TEST_SEED"])
    SEEDS = range(first, first + 1)
else:
    # as examples: the same in CI each time, new ones at everybody's desk
    first = 0 if IN_CI else randrange(10**9)
    SEEDS = range(first, first + SCHEDULES)


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """There are thousands of outages."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def report(fleet: Fleet, kind: str, seed: int, wrong: list[Any]) -> str:
    events = sorted(fleet.events(), key=lambda event: (event.began, event.ended))
    return "\n".join(
        [
            f"kind {kind!r}, seed {seed}; to see it again: LAYERCACHE_TEST_SEED={seed} pytest {__file__} -k '{kind}'",
            *map(str, events),
            *map(str, wrong),
        ]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_was_written_and_is_not_older_than_it_may_be(kind: str) -> None:
    reads = hits = 0
    for seed in SEEDS:
        fleet = run(seed, kind)
        wrong = judged(fleet, kind)
        assert not wrong, report(fleet, kind, seed, wrong)
        reads, hits = reads + fleet.reads, hits + fleet.hits

    # else the rules would be kept for want of anything that could break them
    assert len(SEEDS) < 20 or hits > reads / 20


def test_a_seed_is_a_schedule() -> None:
    first, second = run(7, "everything"), run(7, "everything")

    assert first.events() == second.events()
    assert first.events() != run(8, "everything").events()


# -- one protection less


def no_ticket() -> AbstractContextManager[Any]:
    """What is void by now is kept near all the same."""
    return patch.object(Ticket, "permits", lambda ticket, entry: True)


def no_lease() -> AbstractContextManager[Any]:
    """A load fills whatever has happened since it began."""

    def fill(call: Any) -> int:
        _, frame, px = call.own
        if call.current_stamp() != call.stamp:
            return 0
        call.put(call.keys[0], frame, px)
        call.written()
        return 1

    return patch.dict(server.SCRIPTS, {server.FILL.sha: fill})


def no_second_look() -> AbstractContextManager[Any]:
    """Who follows the log does not look whether what it has seen is still there."""
    turn = Tail.turn

    def blind(tail: Tail) -> Generator[Any, Any, bool]:
        steps = turn(tail)
        try:
            commands = next(steps)
            while True:
                replies = yield commands
                if commands[0][0] == "XREAD":
                    replies = [replies[0], [[tail._last, tail._fields]]]
                commands = steps.send(replies)
        except StopIteration as end:
            return bool(end.value)

    return patch.object(Tail, "turn", blind)


def stamps_read_after_the_load() -> AbstractContextManager[Any]:
    fill_many = Leases.fill_many

    def late(leases: Leases, token: bytes, entries: Any) -> Generator[Any, Any, list[str]]:
        for entry in entries.values():
            tags = [tag for tag, _ in entry.stamps if tag != CACHE_TAG]
            entry.stamps = yield from leases._stamping.stamps(tags)
        return (yield from fill_many(leases, token, entries))

    return patch.object(Leases, "fill_many", late)


def no_outbox() -> AbstractContextManager[Any]:
    """What did not arrive is forgotten."""
    return patch.object(Outbox, "owe", lambda outbox, owed: None)


def trust_without_end() -> AbstractContextManager[Any]:
    """What is near is believed for ever."""

    def weigh(trust: Trust) -> None:
        trust.until = inf
        if trust._near is not None:
            trust._near.trusted_until = inf

    return patch.object(Trust, "weigh", weigh)


def writes_that_were_lost_are_not_missed() -> AbstractContextManager[Any]:
    return patch.object(Hearing, "lost_writes", lambda hearing: None)


@pytest.mark.parametrize(
    ("protection", "kind"),
    [
        (no_ticket, "lossy"),
        (no_lease, "set back"),
        (no_second_look, "trimmed"),
        (stamps_read_after_the_load, "deaf"),
        (no_outbox, "stopped"),
        (trust_without_end, "deaf"),
        (writes_that_were_lost_are_not_missed, "set back"),
    ],
)
def test_with_one_protection_less_the_rules_are_broken_and_that_is_noticed(
    protection: Callable[[], AbstractContextManager[Any]], kind: str
) -> None:
    with protection():
        assert any(judged(run(seed, kind), kind) for seed in range(MOST))
