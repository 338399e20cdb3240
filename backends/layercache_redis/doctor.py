"""Looks at the servers of a backend and says how they are, and what to do about it.

Rules:
1. Nothing here changes anything on a server.
2. What a user may not look at is a finding that says so. Errors are what a cache cannot work with.
3. No message and no fix holds a password: of the options only addresses and the user's name are shown.
"""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from statistics import median
from time import monotonic, perf_counter
from typing import Any, Final

from redis.exceptions import (
    NoPermissionError,
    RedisError,
    ResponseError,
)

from layercache.codecs.dictionaries import Dictionary
from layercache.codecs.frame import BadFrame, unpack_stamps
from layercache.entry import CACHE_TAG
from layercache.errors import DecodeError
from layercache.sizes import rough_size
from layercache.spi import Finding, Seal, Transform
from layercache_redis.client import Reached, batches, client_of, connected
from layercache_redis.diagnoses import counted, listed, of_info, why_unreachable
from layercache_redis.names import Names, log_name, shards_name
from layercache_redis.options import RedisOptions
from layercache_redis.stamps import packed_stamp

__all__ = ["examined"]

_PINGS: Final = 20
_PING_SECONDS: Final = 1.0  # for all of them
_SLOW: Final = 0.1  # of the time-out, which a load of the server multiplies
_SCAN_SECONDS: Final = 1.0  # for the keys of all caches
_SAMPLE: Final = 100  # keys of a cache that are looked into
_CLOCKS_APART: Final = 0.5  # seconds: entries live for seconds and more
_DIGITS: Final = 10  # of a dictionary's id, which has 32 bits
_HEAD: Final = 1024  # bytes of a frame, in which its head is, but for one with dozens of tags

_UNSAVED: Final = "where nothing on the server has to outlive it:"
_AUTHENTICATED: Final = (
    "have the server ask for a password (requirepass, or an ACL user), and give username and password of the backend "
    "in .secrets.toml"
)


def examined(options: RedisOptions, now: Callable[[], float], caches: Sequence[str]) -> Iterator[Finding]:
    """Yield what there is to say of the servers, and of each of `caches` on them.

    Args:
        now: the wall clock that entries are written by, in seconds.
    """
    try:
        with connected(options) as reached:
            for server in reached.primaries.values():
                _ping(server)
            answer = "answers" if len(reached.primaries) == 1 else "answer"
            yield Finding("ok", "connection", f"{listed(reached.primaries)} {answer}")
            yield from _Examination(options, now, caches, reached).findings()
    except (RedisError, OSError) as error:
        yield why_unreachable(options, error)


def _ping(server: Any) -> None:
    try:
        server.ping()
    except NoPermissionError as error:
        if "ping" not in str(error).lower():  # which would be an answer all the same
            raise


class _Examination:
    """One look at the servers of a backend."""

    def __init__(
        self, options: RedisOptions, now: Callable[[], float], caches: Sequence[str], reached: Reached
    ) -> None:
        self._options, self._now, self._reached = options, now, reached
        self._names = {cache: Names(options.prefix, cache) for cache in caches}
        self._user = options.login()[0] or "default"
        self._application = log_name(options.prefix).decode().rpartition(":")[0]
        self._policies: set[str] = set()

    def findings(self) -> Iterator[Finding]:
        yield from self._of_each("latency", self._latency)
        yield from self._of_each("server", self._info)
        yield from self._of_each("topology", self._topology)
        yield from self._of_each("persistence", self._persistence)
        yield self._password()
        yield from self._of_each("clock", self._clock)
        yield from self._of_each("rights", self._rights)
        yield from self._seen("log", self._log())
        yield from self._seen("dictionary", self._dictionaries())
        yield from self._seen("fill", self._fill())

    def _of_each(self, subject: str, look: Callable[[Any], Iterable[Finding]]) -> Iterator[Finding]:
        """Yield what `look` finds on the servers, once where it is the same on all."""
        primaries = self._reached.primaries
        found: dict[Finding, list[str]] = {}
        for place, server in primaries.items():
            for finding in self._seen(subject, look(server)):
                found.setdefault(finding, []).append(place)
        # what is said of one thing stands together
        subjects = list(dict.fromkeys(finding.subject for finding in found))
        for finding, places in sorted(found.items(), key=lambda pair: subjects.index(pair[0].subject)):
            where = f"{listed(places)}: " if len(places) < len(primaries) else ""
            yield finding._replace(message=where + finding.message)

    def _seen(self, subject: str, findings: Iterable[Finding]) -> Iterator[Finding]:
        """Yield `findings`; where the server refuses what they are drawn from, that."""
        try:
            yield from findings
        except ResponseError as error:
            fix = "have the server's operator look, or allow the command"
            if isinstance(error, NoPermissionError):
                fix = self._granted([error])
            yield Finding("warning", subject, f"cannot see: {error}", fix)

    def _granted(self, refusals: Iterable[ResponseError]) -> str:
        """Return the command that gives the user what was refused."""
        matches = [re.search(r"'([\w|]+)' command", str(error)) for error in refusals]
        # where no command is named, keys were refused
        rights = [f"+{match[1].lower()}" if match else f"~{self._application}:*" for match in matches]
        return f"ACL SETUSER {self._user} {' '.join(dict.fromkeys(rights))}"

    def _latency(self, server: Any) -> Iterator[Finding]:
        took: list[float] = []
        while len(took) < _PINGS and sum(took) < _PING_SECONDS:
            began = perf_counter()
            server.ping()
            took.append(perf_counter() - began)
        p50, limit = median(took), self._options.timeout
        message = (
            f"PING takes {p50 * 1000:.2f} ms (median of {len(took)}), of a timeout of {limit * 1000:g} ms"
        )
        if p50 < limit * _SLOW:
            yield Finding("ok", "latency", message)
        else:
            fix = "move the two together, look for what keeps the server busy (SLOWLOG GET), or raise timeout"
            yield Finding("warning", "latency", message, fix)

    def _info(self, server: Any) -> Iterator[Finding]:
        info = server.info()
        self._policies.add(str(info.get("maxmemory_policy")))
        yield from of_info(info, self._options)

    def _topology(self, server: Any) -> Iterator[Finding]:
        if self._options.url.is_sentinel:
            yield from self._sentinels()
        elif self._options.url.is_cluster:
            yield self._cluster(server)

    def _sentinels(self) -> Iterator[Finding]:
        service, primary = self._options.url.service, listed(self._reached.primaries)
        places, silent = self._options.places(), dict[str, str]()
        for place in places:
            try:
                with client_of(self._options, place, sentinel=True) as sentinel:
                    sentinel.ping()
            except RedisError as error:
                silent[str(place)] = str(error)
        message = f"{counted(len(places), 'sentinel')}; {primary} is the primary of {service!r}"
        if silent:
            said = "; ".join(f"{place}: {error}" for place, error in silent.items())
            fix = "start the sentinels that do not answer: a failover takes a majority of them"
            yield Finding("warning", "topology", f"{message}; not all answer: {said}", fix)
        else:
            yield Finding("ok", "topology", message)

    def _cluster(self, server: Any) -> Finding:
        said: Mapping[str, Any] = server.execute_command("CLUSTER INFO")
        state, covered = str(said.get("cluster_state")), int(said.get("cluster_slots_ok", 0))
        primaries = counted(int(said.get("cluster_size", 0)), "primary", "primaries")
        message = f"a cluster of {primaries}, state {state}, {covered:,} of 16,384 slots served"
        if state == "ok" and covered == 1 << 14:
            return Finding("ok", "topology", message)
        fix = "start the nodes that are down, or give their slots to others (CLUSTER NODES, redis-cli --cluster fix)"
        return Finding("error", "topology", message, fix)

    def _persistence(self, server: Any) -> Iterator[Finding]:
        is_kept = False
        if server.info("persistence").get("aof_enabled"):
            is_kept = True
            fix = f"{_UNSAVED} CONFIG SET appendonly no"
            yield Finding("warning", "persistence", "appendonly: every write goes to the disk as well", fix)
        save = server.config_get("save").get("save")
        if save:
            is_kept = True
            message = f"save {save}: for each snapshot the server forks, and copies what is written meanwhile"
            yield Finding("warning", "persistence", message, f'{_UNSAVED} CONFIG SET save ""')
        if not is_kept:
            yield Finding("ok", "persistence", "none, which a cache has no need of")

    def _password(self) -> Finding:
        if self._options.login()[1] is not None:
            return Finding("ok", "password", f"given, for the user {self._user}")
        distant = [place for place in self._reached.primaries if not _is_here(place)]
        if not distant:
            return Finding("ok", "password", "none, as the server is on this host")
        message = (
            f"none, and {listed(distant)} is reached over a network: who else reaches it reads and writes all"
        )
        return Finding("warning", "password", message, _AUTHENTICATED)

    def _clock(self, server: Any) -> Iterator[Finding]:
        before = self._now()
        seconds, microseconds = server.time()
        after = self._now()
        offset = seconds + microseconds / 1e6 - (before + after) / 2
        # the answer was given at some time in between
        apart = max(0.0, abs(offset) - (after - before) / 2)
        message = (
            f"the server's is {abs(offset) * 1000:,.0f} ms {'ahead of' if offset > 0 else 'behind'} ours"
        )
        if apart < _CLOCKS_APART:
            yield Finding("ok", "clock", f"the server's and ours are less than {_CLOCKS_APART:g} s apart")
        else:
            fix = "let both hosts follow a time server: by their clocks entries are fresh, and dead"
            yield Finding("warning", "clock", message, fix)

    def _rights(self, server: Any) -> Iterator[Finding]:
        with server.pipeline(transaction=False) as pipeline:
            for command in _needed(f"{self._application}:%doctor"):
                pipeline.execute_command(*command)
            replies = pipeline.execute(raise_on_error=False)
        refused = [reply for reply in replies if isinstance(reply, NoPermissionError)]
        if refused:
            message = f"the user {self._user} lacks some that a cache needs: {refused[0]}"
            yield Finding("error", "rights", message, self._granted(refused))
        else:
            yield Finding("ok", "rights", f"the user {self._user} has all that a cache needs")

    # -- what is ours on the server

    def _log(self) -> Iterator[Finding]:
        options, server = self._options, self._reached.whole
        for number in range(options.log_shards):
            stream = f"stream {number + 1} of {options.log_shards}: " if options.log_shards > 1 else ""
            finding = self._stream(log_name(options.prefix, number), options.log_length)
            yield finding._replace(message=stream + finding.message)
        said = len(server.get(shards_name(options.prefix)) or b"") - 1
        if said > options.log_shards:
            message = (
                f"log_shards is {options.log_shards} here, and some process has said {said} within a day"
            )
            fix = f"have all processes say the same; until a day after that, each follows all {said}"
            yield Finding("warning", "log", message, fix)

    def _stream(self, name: bytes, kept: int) -> Finding:
        server = self._reached.whole
        length = server.xlen(name)
        if not length:
            return Finding("ok", "log", "empty: no process follows it yet")
        ends = [*server.xrange(name, count=1), *server.xrevrange(name, count=1)]
        oldest, newest = (int(id.partition(b"-")[0]) / 1000 for id, _ in ends)
        message = f"{length:,} entries, of about {kept:,} that are kept, over {newest - oldest:,.1f} s"
        if length < kept or newest - oldest > self._options.max_staleness:
            return Finding("ok", "log", message)
        fix = "raise log_length: who is away for longer forgets all that it knows"
        return Finding("warning", "log", message, fix)

    def _dictionaries(self) -> Iterator[Finding]:
        stages = [stage.open(self._options.seal_keys) for stage in self._options.codecs]
        if any(isinstance(stage, Seal) for stage in stages):
            return  # then none is used
        if any(isinstance(stage, Transform) and stage.dictionaries is not None for stage in stages):
            for cache, names in self._names.items():
                yield self._dictionary(cache, names)

    def _dictionary(self, cache: str, names: Names) -> Finding:
        server = self._reached.whole
        id = server.get(names.dictionary())
        if id is None:
            return Finding("ok", "dictionary", f"{cache}: none trained")
        number = int(id) if id.isdigit() and len(id) <= _DIGITS else 0
        data = server.get(names.dictionary(number)) or b""
        try:
            is_sound = Dictionary(data).id == number
        except DecodeError:
            is_sound = False
        if not is_sound:
            message = f"{cache}: {number} is in use and not there: processes that start now cannot read what needs it"
            return Finding("warning", "dictionary", message, f"layercache train-dictionary -c {cache}")
        message = f"{cache}: {number}, of {rough_size(len(data))}"
        evicting = sorted(policy for policy in self._policies if policy.startswith("allkeys"))
        if evicting:
            message += f"; the memory policy {listed(evicting)} may drop it, as it is read seldom"
            fix = "CONFIG SET maxmemory-policy volatile-lru, where all entries have a ttl"
            return Finding("warning", "dictionary", message, fix)
        return Finding("ok", "dictionary", message)

    def _fill(self) -> Iterator[Finding]:
        counts, dropped, looked_into = Counter[str](), Counter[str](), Counter[str]()
        is_exact = True
        for server in self._reached.primaries.values():
            keys, share = self._scanned(server)
            is_exact = is_exact and share == 1
            for cache, found in keys.items():
                counts[cache] += round(len(found) / share)
                sample = found[:_SAMPLE]
                looked_into[cache] += len(sample)
                dropped[cache] += self._invalid(server, self._names[cache], sample)
        for cache in self._names:
            about = "" if is_exact else "about "
            message = f"{cache}: {about}{counted(counts[cache], 'entry', 'entries')}"
            useless = dropped[cache] / looked_into[cache] if looked_into[cache] else 0.0
            if useless > 0.5:
                message += f"; of {looked_into[cache]:,} of them {dropped[cache]:,} are of no use since it was cleared"
                yield Finding("warning", "fill", message, f"layercache purge -c {cache}")
            else:
                yield Finding("ok", "fill", message)

    def _scanned(self, server: Any) -> tuple[dict[str, list[bytes]], float]:
        """Return keys of each cache, and of all keys the share that was looked through in the time there is."""
        of_cache = {names.values.encode(): cache for cache, names in self._names.items()}
        found: dict[str, list[bytes]] = {cache: [] for cache in self._names}
        seen, deadline = 0, monotonic() + _SCAN_SECONDS / len(self._reached.primaries)
        for keys in batches(server):
            for key in keys:
                prefix, colon, rest = key.partition(b":")
                cache = of_cache.get(b"%b:%b:" % (prefix, rest.partition(b":")[0])) if colon else None
                if cache is not None:
                    found[cache].append(key)
            seen += len(keys)
            if monotonic() > deadline:
                return found, min(1.0, max(seen, 1) / max(server.dbsize(), 1))
        return {cache: list(dict.fromkeys(keys)) for cache, keys in found.items()}, 1.0

    def _invalid(self, server: Any, names: Names, keys: Sequence[bytes]) -> int:
        """Return how many of `keys` hold an entry that does not carry the cache's stamp."""
        stamp = self._reached.whole.get(names.stamp(CACHE_TAG))
        with server.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.getrange(key, 0, _HEAD - 1)
            heads = pipeline.execute(raise_on_error=False)
        stamps = [_stamp_of(head) for head in heads if isinstance(head, bytes)]
        return sum(found is not None and found != stamp for found in stamps)


def _needed(key: str) -> list[tuple[str | int, ...]]:
    """Return what a service asks of a server, so that none of it has an effect where `key` is not there."""
    return [
        ("GET", key),
        ("HMGET", key, "n"),
        ("HEXISTS", key, "n"),
        ("HINCRBY", key, "n", "none"),
        ("PTTL", key),
        ("GETRANGE", key, 0, 0),
        ("DEL", key),
        ("UNLINK", key),
        ("PEXPIRE", key, 1),
        ("PERSIST", key),
        ("SET", key, "", "XX"),
        ("SETRANGE", key, 0, ""),
        ("XADD", key, "NOMKSTREAM", "*", "n", ""),
        ("XRANGE", key, "-", "+"),
        ("XREAD", "STREAMS", key, "$"),
        ("EVAL", "return 0", 1, key),
        ("EVALSHA", "0" * 40, 1, key),
    ]


def _stamp_of(head: bytes) -> bytes | None:
    """Return the stamp of the frame that begins so; None where that cannot be told, as of what is not ours."""
    try:
        return packed_stamp(next((stamp for tag, stamp in unpack_stamps(head) if tag == CACHE_TAG), 0))
    except BadFrame:
        return None


def _is_here(place: str) -> bool:
    """Whether what listens at `place` is on this host, and asked over no network."""
    if place.startswith("/"):
        return True
    host = place.rpartition(":")[0].strip("[]")
    addresses = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host, None)}
    return all(ip_address(address).is_loopback for address in addresses)
