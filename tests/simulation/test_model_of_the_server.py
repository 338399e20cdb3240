"""The simulated server answers as a real one does: each command that the client sends goes to both."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from server import SCRIPTS, Server

from layercache.codecs.normal import NormalForm
from layercache.codecs.pipeline import Pipeline
from layercache.core.changes import Add
from layercache.entry import MISSING, Entry, Stamps
from layercache.registry import stage_named
from layercache.spi import Lease
from layercache_redis.calls import Setting
from layercache_redis.commands import Commands
from layercache_redis.names import Names, Node, log_name
from layercache_redis.scripts import text_of
from layercache_redis.stamps import KnownStamps
from layercache_redis.tail import Tail
from layercache_redis.wire import Command, Refusal, Steps

_JSON = stage_named("json")
_SERIALIZER: Any = _JSON(_JSON.Options())
_PIPELINE = Pipeline([_SERIALIZER], 1 << 20)
_FORM = NormalForm(_SERIALIZER)


class Both:
    """A client of both servers at once; what they answer has to be the same.

    The ids of the log are by the clock of each server: they are compared by what they stand for.
    """

    def __init__(self, real: redis.Redis) -> None:
        self.real, self.model = real, Server(time.time)
        self.prefix = f"a{uuid4().hex[:12]}"
        # of two processes one trusts what it knows, and the other asks
        self.processes = [self._process(trusts) for trusts in (True, False)]
        self.tail = Tail(log_name(self.prefix), Node(), 10_000, 1.0, time.time, time.monotonic)
        self.leases: dict[tuple[str, bytes], Lease] = {}
        self._ids: dict[bytes, bytes] = {}  # the real server's, by the model's

    def _process(self, trusts: bool) -> Commands:
        setting = Setting("far", False, 10_000, Node(), time.time)
        return Commands(setting, Names(self.prefix, "c"), _PIPELINE, KnownStamps(lambda: trusts))

    def run(self, steps: Steps[Any]) -> Any:
        try:
            commands = next(steps)
            while True:
                commands = steps.send(self._exchange(list(commands)))
        except StopIteration as end:
            return end.value

    def _exchange(self, commands: list[Command]) -> list[Any]:
        with self.real.pipeline(transaction=False) as at_once:
            for command in commands:
                words = [self._ids.get(word, word) if type(word) is bytes else word for word in command]
                at_once.execute_command(*(words[:3] + words[5:] if words[0] == "XREAD" else words))
            real = at_once.execute(raise_on_error=False)
        modelled = [self.model.execute(command) for command in commands]
        for command, ours, theirs in zip(commands, modelled, real, strict=True):
            self._compare(command, ours, theirs)
        return modelled

    def _compare(self, command: Command, ours: Any, theirs: Any) -> None:
        if isinstance(ours, Refusal):
            assert isinstance(theirs, redis.exceptions.NoScriptError), command
        elif command[0] == "XADD":
            self._ids[ours] = theirs
        elif command[0] in {"XREAD", "XRANGE"}:
            of_one = command[0] == "XREAD"
            modelled, real = ((reply[0][1] if of_one else reply) if reply else [] for reply in (ours, theirs))
            assert [fields for _, fields in modelled] == [fields for _, fields in real], command
            self._ids.update((id, other) for (id, _), (other, _) in zip(modelled, real, strict=True))
        else:
            assert _roughly(ours) == _roughly(theirs), command

    def are_alike(self) -> None:
        """The same is there on both, and lives as long."""
        keys = self.real.keys(f"{self.prefix}*")
        assert sorted(keys) == sorted(self.model.values)
        self._exchange([("XRANGE", log_name(self.prefix), "-", "+"), *(("PTTL", key) for key in keys)])

    def act(self, trusts: bool, name: str, *words: Any) -> None:
        commands = self.processes[not trusts]
        match name, words:
            case "set many", (keys, life, tags):
                stamps = self.run(commands.stamps(tags)) if tags else ()
                self.run(commands.set_many({key: _entry(life, stamps) for key in keys}))
            case "add", (key, life):
                self.run(commands.update(key, Add(_entry(life), _FORM, time.time())))
            case "swap", (key, life):
                self.run(commands.update(key, lambda found: found and _entry(life)))
            case "lease", (keys, token, tags, anew):
                leases = self.run(commands.lease_many(keys, token, 100, math.inf if anew else 0.0, tags))
                self.leases.update(((key, token), lease) for key, lease in leases.items())
            case "fill", (key, token, life):
                lease = self.leases.get((key, token))
                if lease is not None:
                    self.run(commands.fill_many(token, {key: _entry(life, lease.stamps)}))
            case "late stamps", (tags,):
                mark = next((lease.mark for lease in self.leases.values()), None)
                self.run(commands.late_stamps(tags, mark))
            case "follow", ():
                self.run(self.tail.turn())
            case "lose", (tag,):
                at = commands.names.stamp(tag)
                self._exchange([("UNLINK", at)])
            case _:
                self.run(getattr(commands, name)(*words))


def _roughly(reply: Any) -> Any:
    """A reply, with what is left of a life to some ten seconds."""
    if isinstance(reply, list):
        return [_roughly(each) for each in reply]
    if type(reply) is int and reply > 10_000:
        return round(reply / 10_000)
    return b"OK" if reply == "OK" else reply


def _entry(life: float, stamps: Stamps = ()) -> Entry:
    now = time.time()
    return Entry(b'"value"', MISSING, now, now + life / 2, now + life, stamps)


_KEYS = st.lists(st.sampled_from(["k", "l", "m"]), min_size=1, max_size=3, unique=True)
_KEY = st.sampled_from(["k", "l"])
_TAGS = st.lists(st.sampled_from(["t", "u"]), max_size=2, unique=True)
_TOKEN = st.sampled_from([b"token a", b"token b"])
_LIFE = st.sampled_from([1_000.0, 10_000_000.0, math.inf])

_ACTS = st.lists(
    st.one_of(
        st.tuples(st.booleans(), name, *arguments)
        for name, *arguments in (
            (st.just("get"), _KEY),
            (st.just("get_many"), _KEYS),
            (st.just("set many"), _KEYS, _LIFE, _TAGS),
            (st.just("add"), _KEY, _LIFE),
            (st.just("swap"), _KEY, _LIFE),
            (st.just("delete_many"), _KEYS),
            (st.just("invalidate"), _TAGS, st.booleans()),
            (st.just("clear"),),
            (st.just("stamps"), _TAGS),
            (st.just("lease"), _KEYS, _TOKEN, _TAGS, st.booleans()),
            (st.just("fill"), _KEY, _TOKEN, _LIFE),
            (st.just("release_many"), _KEYS, _TOKEN, st.sampled_from([0.0, 100.0])),
            (st.just("late stamps"), _TAGS),
            (st.just("follow"),),
            (st.just("lose"), st.sampled_from(["*", "t"])),
        )
    ),
    min_size=1,
    max_size=30,
)


@pytest.fixture(scope="module")
def real(server_url: str) -> Iterator[redis.Redis]:
    """A client that gives back what the server says as it says it."""
    with redis.Redis.from_url(server_url, protocol=2) as client:
        for command in list(client.response_callbacks):
            client.set_response_callback(command, lambda reply, **_: reply)
        for sha in SCRIPTS:
            client.script_load(text_of(sha))
        yield client


@given(acts=_ACTS)
@settings(max_examples=80)
def test_the_model_answers_as_a_real_server_does(real: redis.Redis, acts: list[Any]) -> None:
    both = Both(real)

    for act in acts:
        both.act(*act)

    both.are_alike()
    for key in real.keys(f"{both.prefix}*"):
        real.delete(key)
