"""What goes over a connection: packed as the driver packs it, and read back as it was."""

from __future__ import annotations

from typing import Any

from hiredis import pack_command
from hypothesis import example, given
from hypothesis import strategies as st

from layercache_redis.wire import Command, Packed, packed, pattern

words = st.one_of(st.binary(max_size=40), st.text(max_size=20), st.integers(-(2**63), 2**63))
names = st.sampled_from(["GET", "EVALSHA", "PTTL"])


def as_sent(command: Any) -> bytes:
    sent: bytes = pack_command(command)
    return sent


def spelt(word: str | bytes | int) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()


@given(names, st.lists(st.tuples(words, st.booleans()), max_size=8))
@example("GET", [(b"100%", False), (b"%d%b", True), ("%%", False), (b"\r\n$1\r\n", True), ("", True)])
def test_a_pattern_with_its_words_is_the_command(name: str, parts: list[tuple[Any, bool]]) -> None:
    holes = [None if is_given else word for word, is_given in parts]
    given_words = [spelt(word) for word, is_given in parts if is_given]

    filled = pattern(name, *holes) % tuple(part for word in given_words for part in (len(word), word))

    assert filled == as_sent((name, *[word for word, _ in parts]))


@given(st.lists(st.tuples(names, words, words), min_size=1, max_size=5))
def test_what_is_packed_is_read_back(commands: list[Command]) -> None:
    data = b"".join(map(as_sent, commands))

    sent = Packed(data, len(commands))

    assert packed(sent) == data == packed(commands)
    assert len(sent) == len(commands)
    assert list(sent) == [(name, *map(spelt, rest)) for name, *rest in commands]
    assert packed(list(sent)) == data
    assert packed(sent[1:]) == packed(commands[1:])
