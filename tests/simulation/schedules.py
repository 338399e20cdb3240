"""Schedules: what the users of a fleet do, and what goes wrong meanwhile, as a seed says."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

from histories import Objection, objections
from server import Server, Stream
from simulated import MAX_STALENESS, Fleet, Member

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
    "calm", "slow", "lossy", "cut off", "deaf", "crashes", "trimmed", "stopped", "emptied", "set back", "clocks",
    "evicted", "everything",
)  # fmt: skip


def run(seed: int, kind: str, *, acts: int = 7) -> Fleet:
    """Run one schedule to its end: users of each node, with faults of `kind`; then all heals, and is looked at."""
    fleet = Fleet(seed, serves=seed % 3 > 0, shards=seed % 4 == 0)
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
        _settle(fleet)
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
            fault = chance.choice(
                ["cut off", "deaf", "crashes", "trimmed", "stopped", "emptied", "clocks", "evicted"]
            )
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
                log = chance.choice(_streams(server))
                stream = server.values.get(log)
                if isinstance(stream, Stream):
                    del stream.entries[: len(stream.entries) - chance.choice([0, 0, 1, 3])]
                    if chance.random() < 0.3:
                        del server.values[log]
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


def _streams(server: Server) -> list[bytes]:
    return [key for key in server.values if key.startswith(_LOG)] or [_LOG]


async def _set_back(fleet: Fleet) -> None:
    """Restart the server with data of the past, and note until when that may show."""
    world, chance, network, server = fleet.world, fleet.world.chance, fleet.network, fleet.server
    since, data = world.time, server.snapshot()
    await world.sleep(chance.random() * 2)
    network.stop()
    # what nobody had heard of yet, nobody misses
    is_missed = any(
        tail._name in data[0] and tail._last > b"%d-%d" % data[0][tail._name].last
        for member in fleet.members
        for tail in member.tails
    )
    await world.sleep(chance.random() * 0.5)
    server.restart(data)
    network.start()
    noticed = sum(member.set_backs for member in fleet.members)

    def is_made_good() -> bool:
        """Whether somebody has missed what was lost, and has cleared the cache."""
        return sum(member.set_backs for member in fleet.members) > noticed and any(
            member.set_backs and member.outbox.is_empty for member in fleet.members
        )

    fleet.watch_set_back(
        since, is_made_good if is_missed else lambda: False, within=3.0 if is_missed else math.inf
    )


def _settle(fleet: Fleet) -> None:
    """Have time pass until all outages are over, and then as long as what is near may be behind."""
    world, members = fleet.world, fleet.members
    world.until(lambda: not any(member.far.is_out or not member.outbox.is_empty for member in members))
    settled = world.clock.now + MAX_STALENESS + 0.3
    world.until(lambda: world.clock.now > settled)


def _heal(fleet: Fleet) -> None:
    fleet.network.cut_off.clear()
    fleet.network.losing = 0.0
    fleet.network.start()
    for member in fleet.members:
        member.shift = 0.0
    for task in [task for task in fleet.world.waiting if task.name == "faults"]:
        fleet.world.waiting.remove(task)
        fleet.world._end(task)
