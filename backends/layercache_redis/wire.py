"""What goes over a connection: packed commands, replies, and the first words after connecting. No I/O.

A reply that is an error comes as a `Refusal` in its place among the replies; it is not raised, so the replies
after it are read all the same.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar, overload

from hiredis import Reader, pack_command
from redis.exceptions import AuthenticationError, InvalidResponse, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from layercache_redis.options import Place, RedisOptions

__all__ = [
    "Command",
    "ConnectionEnded",
    "Greeting",
    "NotPrimary",
    "Packed",
    "Refusal",
    "Steps",
    "new_reader",
    "packed",
    "pattern",
    "tls_context",
]

R = TypeVar("R")

Command: TypeAlias = tuple[str | bytes | int, ...]

Steps: TypeAlias = Generator[Sequence[Command], list[Any], R]
"""An operation, whoever sends it: it yields commands that go in one round trip, is sent the list of their replies (an
error as a `Refusal` in its place), and returns the result."""

_OUTAGES: Final = frozenset({"LOADING", "MASTERDOWN", "CLUSTERDOWN", "BUSY"})

_HOLE: Final = b"$%d\r\n%b\r\n"

_pack: Final[Callable[[Command], bytes]] = pack_command  # type: ignore[assignment]  # its stub wants a tuple of one


class Refusal(ResponseError):
    """An error that the server sent in place of an answer; `code` is its first word, such as OOM or READONLY."""

    @property
    def code(self) -> str:
        """The word that the server's error begins with, such as `READONLY`."""
        return str(self).split(" ", 1)[0]

    @property
    def is_outage(self) -> bool:
        """Whether the server says that it cannot serve anybody just now."""
        # a slot that no node has is no outage of the node that says so
        return self.code in _OUTAGES and "slot not served" not in str(self)


def new_reader() -> Reader:
    """Return a parser of replies: bytes, integers, lists, None, `Refusal`; it raises `InvalidResponse`."""
    return Reader(protocolError=InvalidResponse, replyError=Refusal)


class Packed(Sequence[Command]):
    """Commands by the bytes that are sent, made from a `pattern`. Who has to take them apart (where they go to several
    servers, or a server has forgotten a script) gets their words, which are read back.

    Attributes:
        data: the bytes.
    """

    __slots__ = ("_commands", "_count", "data")

    def __init__(self, data: bytes, count: int) -> None:
        self.data, self._count = data, count
        self._commands: list[Command] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Command: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Command]: ...
    def __getitem__(self, index: int | slice) -> Command | Sequence[Command]:
        if self._commands is None:
            reader = Reader()
            reader.feed(self.data)
            asked = [reader.gets() for _ in range(self._count)]
            self._commands = [(name.decode(), *words) for name, *words in asked]
        return self._commands[index]


def pattern(*words: str | bytes | int | None) -> bytes:
    """Return a command as it is sent. Where None stands, `%` puts a word, given by its length and itself.

    What a `set` sends takes 0.6 us by a pattern, where `pack_command` takes 2.0.
    """
    return b"*%d\r\n" % len(words) + b"".join([_HOLE if word is None else _bulk(word) for word in words])


def _bulk(word: str | bytes | int) -> bytes:
    spelt = word if isinstance(word, bytes) else str(word).encode()
    return (_HOLE % (len(spelt), spelt)).replace(b"%", b"%%")


def packed(commands: Sequence[Command]) -> bytes:
    """Return the bytes of all `commands`, to be sent in one piece."""
    if type(commands) is Packed:
        return commands.data
    return _pack(commands[0]) if len(commands) == 1 else b"".join([_pack(command) for command in commands])


class ConnectionEnded(RedisConnectionError):
    """A connection that had been made is gone, and with it the answers that were owed."""


class NotPrimary(RedisConnectionError):
    """The server was reached, but is no primary any more: another is by now, or will be."""


@dataclass(frozen=True)
class Greeting:
    """What is said first on every connection: who we are, which database.

    Args:
        options: of the backend.
        name: for CLIENT LIST.
        sentinel: to a sentinel: it has no databases.
    """

    options: RedisOptions
    name: str
    sentinel: bool = False

    def commands(self) -> list[Command]:
        """Return what is sent."""
        said: list[Command] = []
        user, password = self.options.login(sentinel=self.sentinel)
        if password is not None:
            said.append(("AUTH", user, password) if user else ("AUTH", password))
        database = 0 if self.sentinel else self.options.database()
        if database:
            said.append(("SELECT", database))
        said.append(("CLIENT", "SETNAME", self.name))
        if self.options.url.is_sentinel and not self.sentinel:
            said.append(("ROLE",))
        return said

    def check(self, replies: list[Any]) -> None:
        """Raise what a refused greeting is: `AuthenticationError`, or the `Refusal` itself."""
        for command, reply in zip(self.commands(), replies, strict=True):
            if command[0] == "ROLE" and isinstance(reply, list) and reply[0] != b"master":
                raise NotPrimary("sentinels name a server as primary that is none, or none yet")
            if not isinstance(reply, Refusal):
                continue
            if command[0] in {"CLIENT", "ROLE"} and (
                reply.code == "NOPERM" or "unknown command" in str(reply)
            ):
                continue  # a user may lack the right to either, and providers take commands away
            raise AuthenticationError(str(reply)) if command[0] == "AUTH" else reply


def tls_context(options: RedisOptions, place: Place) -> ssl.SSLContext | None:
    """Return how to verify the server, None without TLS. Reads the files that the options name."""
    if not place.tls:
        return None
    context = ssl.create_default_context(cafile=options.tls("ssl_ca_certs"))
    if options.tls("ssl_check_hostname") == "false" or options.tls("ssl_cert_reqs") in {"none", "optional"}:
        context.check_hostname = False
    if options.tls("ssl_cert_reqs") == "none":
        context.verify_mode = ssl.CERT_NONE
    certificate = options.tls("ssl_certfile")
    if certificate is not None:
        context.load_cert_chain(certificate, options.tls("ssl_keyfile"))
    return context
