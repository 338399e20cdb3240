"""Schedules: what the users of a fleet do, and what goes wrong meanwhile, as a seed says."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

from fleet import MAX_STALENESS, Fleet, Member
from histories import Objection, objections
from server import Stream

__all__ = ["KINDS", "judged", "run"]

Act: TypeAlias = Callable[[], Coroutine[Any, Any, Any]]

_KEYS = ("k", "l")
_TAGS = ("t", "u")
_LOG = b"p:%log"

_SELDOM = ["clear", "set many", "get many", "delete many", "add", "replace", "soften"]
# what users do, as often as it is named
_HABITS = {
    "all": [*["get"] * 16, *["set"] * 6, *["load"] * 7, *["delete"] * 3, *["invalidate"] * 3, *_SELDOM],
    "loads": [*["get"] * 8, *["load"] * 6, *["invalidate"] * 3, "delete", "soften"],
    "reads": [*["get"] * 20, "set", "load", "delete", "invalidate"],
}

KINDS = (
    "calm", "slow", "lossy", "cut off", "deaf", "crashes", "trimmed", "stopped", "emptied", "set back", "clocks", "evicted",
    "everything",
)  # fmt: skip


def run(seed: int, kind: str, *, acts: int = 7) -> Fleet:
    """Run one schedule to its end: users of each node, with faults of `kind`; then all heals, and is looked at."""
    fleet = Fleet(seed, serves=seed % 3 > 0)
    world, chance = fleet.world, fleet.world.chance
    fleet.network.slow = 0.15
    habit, pace = chance.choice(list(_HABITS)), 2.0 if kind == "deaf" else 0.8
    running = {"users": 0}

    async def user(index: int) -> None:
        for _ in range(acts):
            await world.sleep(chance.random() ** 4 * pace)
            await _done(fleet, index, _act(fleet.members[index], chance, habit))
        running["users"] -= 1

    for index in range(len(fleet.members)):
        for _ in range(2):
            running["users"] += 1
            world.start(user(index), "user")
    world.start(_faults(fleet, kind), "faults")
    world.until(lambda: not running["users"])
    _heal(fleet)
    if kind not in {"calm", "slow"}:
        settled = world.clock.now + MAX_STALENESS + 1
        world.until(lambda: world.clock.now > settled)
    looking: list[None] = []

    async def look(index: int) -> None:
        for key in _KEYS:
            await _done(fleet, index, partial(fleet.members[index].get, key))
        looking.append(None)

    for index in range(len(fleet.members)):
        world.start(look(index), "looks")
    world.until(lambda: len(looking) == len(fleet.members))
    world.end()
    return fleet


def judged(fleet: Fleet, kind: str) -> list[Objection]:
    """Return what is wrong with what was read."""
    # a clock that is set back while the log cannot be heard is noticed when the turn that is under way has failed
    grace = 0.8 if kind in {"clocks", "everything"} else 0.0
    return objections(fleet.events(), MAX_STALENESS + grace)


async def _done(fleet: Fleet, index: int, act: Act) -> None:
    """Wait until a node has done something, or died of it."""
    member, over = fleet.members[index], []

    async def acting() -> None:
        await act()
        over.append(None)

    member.start(acting(), "act")
    await fleet.world.pause(lambda: bool(over) or member.is_dead)


def _act(member: Member, chance: Any, habit: str) -> Act:
    key = chance.choice(_KEYS)
    tags = tuple(tag for tag in _TAGS if chance.random() < 0.5)
    tag, late = chance.choice(_TAGS), chance.random() < 0.3
    acts: dict[str, Act] = {
        "get": lambda: member.get(key),
        "set": lambda: member.set(key, tags),
        "load": lambda: member.get_or_set(key, tags, late=late),
        "delete": lambda: member.delete(key),
        "invalidate": lambda: member.invalidate((tag,)),
        "clear": member.clear,
        "set many": lambda: member.set_many(_KEYS),
        "get many": lambda: member.get_many(_KEYS),
        "delete many": lambda: member.delete_many(_KEYS),
        "add": lambda: member.add(key),
        "replace": lambda: member.replace(key),
        "soften": lambda: member.soften((tag,)),
    }
    return acts[chance.choice(_HABITS[habit])]


async def _faults(fleet: Fleet, kind: str) -> None:
    world, chance, network, server = fleet.world, fleet.world.chance, fleet.network, fleet.server
    if kind == "calm":
        return
    if kind == "slow":
        network.slow = 0.6
        return
    if kind == "lossy":
        network.losing = chance.choice([0.02, 0.1])
        return
    while True:
        await world.sleep(chance.random() * (0.5 if kind in {"deaf", "trimmed"} else 2.0))
        fault = kind
        if kind == "everything":
            fault = chance.choice(["cut off", "deaf", "crashes", "trimmed", "stopped", "emptied", "clocks", "evicted"])
            network.losing = chance.choice([0.0, 0.0, 0.05])
        match fault:
            case "cut off":
                member = chance.choice(fleet.members)
                network.cut_off.add(member)
                await world.sleep(chance.random() * 3)
                network.cut_off.discard(member)
            case "deaf":
                ear = chance.choice(fleet.members).ear
                network.cut_off.add(ear)
                await world.sleep(2 + chance.random() * 2)
                network.cut_off.discard(ear)
            case "crashes":
                fleet.replace(chance.choice(fleet.members))
            case "trimmed":
                ear = chance.choice(fleet.members).ear
                network.cut_off.add(ear)
                await world.sleep(chance.random())
                network.cut_off.discard(ear)
                stream = server.values.get(_LOG)
                if isinstance(stream, Stream):
                    del stream.entries[: len(stream.entries) - chance.choice([0, 0, 1, 3])]
                    if chance.random() < 0.3:
                        del server.values[_LOG]
            case "stopped":
                network.stop()
                await world.sleep(chance.random() * 2)
                network.start()
            case "emptied":
                network.stop()
                await world.sleep(chance.random())
                server.restart()
                network.start()
            case "set back":
                await _set_back(fleet)
            case "clocks":
                chance.choice(fleet.members).shift = chance.choice([-3600.0, -30.0, 0.0, 30.0, 3600.0])
            case "evicted":
                stamps = [key for key in server.values if b"%tag" in key]
                if stamps:
                    del server.values[chance.choice(stamps)]


async def _set_back(fleet: Fleet) -> None:
    """Restart the server with data of the past, and note until when that may show."""
    world, chance, network, server = fleet.world, fleet.world.chance, fleet.network, fleet.server
    since, data = world.time, server.snapshot()
    await world.sleep(chance.random() * 2)
    network.stop()
    seen = max(member.tail._last for member in fleet.members)
    stream = data[0].get(_LOG)
    # what nobody had heard of yet, nobody misses
    is_missed = stream is not None and seen > b"%d-%d" % stream.last
    await world.sleep(chance.random() * 0.5)
    server.restart(data)
    network.start()
    began, noticed = world.time, sum(member.tail.set_backs for member in fleet.members)

    def is_made_good() -> bool:
        return is_missed and any(
            member.tail.set_backs and member.outbox.is_empty for member in fleet.members
        ) and sum(member.tail.set_backs for member in fleet.members) > noticed

    await world.sleep(3.0 if is_missed else math.inf, is_made_good)
    fleet.note_outage(began, since)


def _heal(fleet: Fleet) -> None:
    fleet.network.cut_off.clear()
    fleet.network.losing = 0.0
    fleet.network.start()
    for member in fleet.members:
        member.shift = 0.0
    for task in [task for task in fleet.world.waiting if task.name == "faults"]:
        fleet.world.waiting.remove(task)
        fleet.world._end(task)
