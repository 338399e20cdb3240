"""Pipelines: entries to frames and back, bounded, and nothing but `DecodeError` for what is no frame of theirs."""

from __future__ import annotations

import threading
import tracemalloc
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest
import zstandard
from altering import altered, ends, moments, stamps
from hypothesis import given
from hypothesis import strategies as st

from layercache.codecs.encrypt import EncryptOptions, EncryptStage
from layercache.codecs.frame import BadFrame, Frame, pack, unpack
from layercache.codecs.gzip import GzipOptions, GzipStage
from layercache.codecs.json import JsonOptions, JsonStage
from layercache.codecs.pickle import PickleOptions, PickleStage
from layercache.codecs.pipeline import Pipeline
from layercache.codecs.seals import SealKey
from layercache.codecs.sign import SignOptions, SignStage
from layercache.codecs.zstd import ZstdOptions, ZstdStage
from layercache.entry import MISSING, Entry
from layercache.errors import DecodeError, EncodeError, ValueTooLarge
from layercache.spi import Serializer, Stage, Transform

KEY = b"app:stock:quote:AAPL"
MB = 1 << 20
CODECS = ["json", "json+zstd", "json+gzip", "json+zstd+gzip"]
SEALED = ["json+sign", "json+zstd+encrypt", "pickle+gzip+sign+encrypt"]
KEYS = [SealKey.parsed("a:0123456789abcdefghijklmnopqrstuvwxyz")]


def stage(name: str, **options: Any) -> Stage:
    match name:
        case "json":
            return JsonStage(JsonOptions())
        case "zstd":
            return ZstdStage(ZstdOptions(**options))
        case "pickle":
            return PickleStage(PickleOptions())
        case "sign":
            return SignStage(SignOptions(), KEYS)
        case "encrypt":
            return EncryptStage(EncryptOptions(), KEYS)
        case _:
            return GzipStage(GzipOptions(**options))


def pipeline(codecs: str, max_value_bytes: int = MB, **options: Any) -> Pipeline:
    return Pipeline([stage(name, **options) for name in codecs.split("+")], max_value_bytes)


def entry_of(payload: bytes) -> Entry:
    return Entry(payload, MISSING, 1.0, 2.0, 3.0)


def parts(entry: Entry) -> tuple[Any, ...]:
    return (
        entry.payload,
        entry.value,
        entry.created_at,
        entry.fresh_until,
        entry.dead_at,
        entry.stamps,
    )


def stages_of(frame: bytes) -> tuple[str, ...]:
    return unpack(frame, KEY).stages


def most_memory(act: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# compressible, incompressible, and on either side of the stages' `min_bytes`
payloads = st.one_of(
    st.binary(max_size=400),
    st.builds(lambda seed, size: Random(seed).randbytes(size), st.integers(0, 99), st.integers(200, 2000)),
    st.builds(lambda part, times: part * times, st.binary(min_size=1, max_size=40), st.integers(1, 200)),
)
entries = st.builds(Entry, payloads, st.just(MISSING), moments, ends, ends, stamps)


class TestRoundTrip:
    @pytest.mark.parametrize("codecs", CODECS + SEALED)
    @given(entries)
    def test_what_was_encoded_comes_out(self, codecs: str, entry: Entry) -> None:
        codec = pipeline(codecs, min_bytes=64)

        assert parts(codec.decode(codec.encode(entry, KEY), KEY)) == parts(entry)

    @pytest.mark.parametrize("codecs", CODECS + SEALED[:2])
    def test_a_shared_value_gets_its_payload_here(self, codecs: str) -> None:
        codec = pipeline(codecs)
        shared = Entry(None, "text", 1.0, 2.0, 3.0)

        back = codec.decode(codec.encode(shared, KEY), KEY)

        assert (back.payload, back.value) == (b'"text"', MISSING)

    @pytest.mark.parametrize(
        ("codecs", "stages"),
        [
            ("json", ("json",)),
            ("json+zstd", ("json", "zstd")),
            ("json+gzip", ("json", "gzip")),
            # what is compressed does not shrink again
            ("json+zstd+gzip", ("json", "zstd")),
        ],
    )
    def test_a_frame_names_the_stages_that_were_applied(self, codecs: str, stages: tuple[str, ...]) -> None:
        frame = pipeline(codecs).encode(entry_of(b"1234567890" * 100), KEY)

        assert stages_of(frame) == stages
        assert (len(frame) < 200) is (codecs != "json")

    def test_a_second_compression_is_applied_where_it_shrinks(self) -> None:
        codec = pipeline("json+zstd+gzip", min_bytes=0, max_value_bytes=64 * MB)
        entry = entry_of(bytes(32 * MB))  # zstd repeats itself on so much of the same

        frame = codec.encode(entry, KEY)

        assert stages_of(frame) == ("json", "zstd", "gzip")
        assert codec.decode(frame, KEY).payload == entry.payload

    @pytest.mark.parametrize("codecs", CODECS[1:])
    def test_what_is_small_is_stored_plain(self, codecs: str) -> None:
        codec = pipeline(codecs, min_bytes=100)

        assert stages_of(codec.encode(entry_of(b"a" * 99), KEY)) == ("json",)
        assert stages_of(codec.encode(entry_of(b"a" * 100), KEY)) != ("json",)

    @pytest.mark.parametrize("codecs", CODECS[1:])
    def test_what_does_not_shrink_is_stored_plain(self, codecs: str) -> None:
        noise = Random(1).randbytes(5000)

        frame = pipeline(codecs).encode(entry_of(noise), KEY)

        assert stages_of(frame) == ("json",)
        assert unpack(frame, KEY).payload == noise

    @pytest.mark.parametrize("codecs", CODECS)
    def test_equal_entries_make_equal_frames(self, codecs: str) -> None:
        entry = entry_of(b"1234567890" * 100)

        assert pipeline(codecs).encode(entry, KEY) == pipeline(codecs).encode(entry, KEY)


class TestWhatIsNotOurs:
    @pytest.mark.parametrize("codecs", CODECS + SEALED)
    @given(st.data(), entries)
    def test_whatever_happened_to_a_frame_it_is_refused_or_the_same_entry(
        self, codecs: str, data: Any, entry: Entry
    ) -> None:
        codec = pipeline(codecs, min_bytes=64)
        changed = data.draw(altered(codec.encode(entry, KEY)))

        try:
            back = codec.decode(changed, KEY)
        except DecodeError:
            return

        assert parts(back) == parts(entry)

    @pytest.mark.parametrize("codecs", CODECS + SEALED)
    @given(st.data(), entries)
    def test_a_sound_frame_around_an_altered_payload_breaks_nothing(
        self, codecs: str, data: Any, entry: Entry
    ) -> None:
        codec = pipeline(codecs, min_bytes=64, max_value_bytes=10_000)
        frame = unpack(codec.encode(entry, KEY), KEY)
        changed = frame._replace(payload=data.draw(altered(frame.payload)))

        try:
            back = codec.decode(pack(changed, KEY), KEY)
        except DecodeError:
            return

        assert back.payload is not None
        assert len(back.payload) <= 10_000

    @given(
        st.binary(max_size=300),
        st.sampled_from([("json", "zstd"), ("json", "gzip"), ("json", "gzip", "zstd")]),
    )
    def test_a_payload_that_no_stage_made_is_refused(self, payload: bytes, stages: tuple[str, ...]) -> None:
        frame = pack(Frame(stages, 1.0, 2.0, 3.0, (), payload), KEY)

        with pytest.raises(DecodeError):
            pipeline("json+zstd+gzip").decode(frame, KEY)

    def test_a_frame_of_another_key_is_refused(self) -> None:
        codec = pipeline("json")

        with pytest.raises(BadFrame, match="altered"):
            codec.decode(codec.encode(entry_of(b"1"), KEY), KEY + b"2")

    @pytest.mark.parametrize(
        "stages",
        [
            ("json", "zstd"),
            ("json", "gzip", "zstd"),
            ("pickle",),
            ("zstd", "json"),
            ("json", "json"),
            ("gzip",),
            ("",),
            ("json", "gzip", "gzip"),
        ],
    )
    def test_a_frame_of_stages_that_are_not_here_is_refused(self, stages: tuple[str, ...]) -> None:
        frame = pack(Frame(stages, 1.0, 2.0, 3.0, (), b"1"), KEY)

        with pytest.raises(BadFrame, match="stages"):
            pipeline("json+gzip").decode(frame, KEY)

    def test_frames_without_a_stage_that_was_added_later_are_read(self) -> None:
        before = pipeline("json").encode(entry_of(b"1234567890" * 100), KEY)

        assert pipeline("json+zstd").decode(before, KEY).payload == b"1234567890" * 100


class TestMaxValueBytes:
    def test_it_counts_the_payload_before_the_transforms(self) -> None:
        codec = pipeline("json+zstd", max_value_bytes=1000)

        assert codec.decode(codec.encode(entry_of(b"a" * 1000), KEY), KEY).payload == b"a" * 1000
        with pytest.raises(
            ValueTooLarge, match=r"takes 1,001 bytes, more than max_value_bytes = 1,000"
        ) as caught:
            codec.encode(entry_of(b"a" * 1001), KEY)
        assert (caught.value.size, caught.value.limit) == (1001, 1000)

    def test_it_is_never_more_than_a_frame_can_say(self) -> None:
        assert pipeline("json", max_value_bytes=1 << 40).max_value_bytes == 2**32 - 1

    @pytest.mark.parametrize("codecs", CODECS + SEALED)
    def test_a_frame_from_before_the_limit_was_lowered_is_refused(self, codecs: str) -> None:
        frame = pipeline(codecs).encode(entry_of(b"a" * 1001), KEY)

        assert pipeline(codecs, max_value_bytes=1001).decode(frame, KEY).payload == b"a" * 1001
        with pytest.raises(DecodeError):
            pipeline(codecs, max_value_bytes=1000).decode(frame, KEY)


def zstd_bomb(size: int, *, says_size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=says_size).compress(bytes(size))[
        4:
    ]  # the stage leaves out the magic number


def gzip_bomb(size: int) -> bytes:
    compressor = zlib.compressobj(1, wbits=31)
    return b"".join([compressor.compress(bytes(MB)) for _ in range(size // MB)]) + compressor.flush()


BOMBS = {
    "zstd": (("json", "zstd"), zstd_bomb(128 * MB)),
    "zstd that does not say its size": (("json", "zstd"), zstd_bomb(128 * MB, says_size=False)),
    # the size is all there is: 2 ** 62 bytes of it
    "zstd that only says its size": (
        ("json", "zstd"),
        b"\x28\xb5\x2f\xfd\xe0" + (2**62).to_bytes(8, "little"),
    ),
    "gzip": (("json", "gzip"), gzip_bomb(128 * MB)),
    "a thousand gzip streams": (("json", "gzip"), zlib.compress(bytes(MB - 1), wbits=31) * 1000),
    "gzip twice": (("json", "gzip", "gzip"), zlib.compress(gzip_bomb(128 * MB), wbits=31)),
    "zstd in gzip": (("json", "zstd", "gzip"), zlib.compress(zstd_bomb(128 * MB), wbits=31)),
    "gzip in zstd": (("json", "gzip", "zstd"), zstandard.compress(gzip_bomb(128 * MB))[4:]),
}


class TestBombs:
    @pytest.mark.parametrize("name", BOMBS)
    def test_a_bomb_is_refused_before_memory_is_spent(self, name: str) -> None:
        stages, payload = BOMBS[name]
        codec = pipeline("json+zstd+gzip", max_value_bytes=MB)
        bomb = pack(Frame(stages, 1.0, 2.0, 3.0, (), payload), KEY)

        def decode() -> None:
            with pytest.raises(DecodeError):
                codec.decode(bomb, KEY)

        # two payloads, of which zlib joins each from blocks
        assert most_memory(decode) < 2 * len(bomb) + 4 * MB

    @pytest.mark.parametrize("name", ["zstd", "gzip"])
    def test_content_of_just_the_limit_is_read_and_one_byte_more_refused(self, name: str) -> None:
        transform = stage(name)
        assert isinstance(transform, Transform)
        for size in (1, 1000, 100_000):
            content = zstd_bomb(size) if name == "zstd" else zlib.compress(bytes(size), wbits=31)

            assert transform.decode(content, size) == bytes(size)
            with pytest.raises(DecodeError, match="bytes"):
                transform.decode(content, size - 1)

    @pytest.mark.parametrize(
        "payload",
        [
            b"",
            b"not compressed at all",
            zstd_bomb(1000)[:-1],
            zstd_bomb(1000) + b"x",
            zstd_bomb(1000) + zstd_bomb(1000),
            zstd_bomb(0) + b"x",
            b"\x50\x2a\x4d\x18\x04\0\0\0skip" + zstd_bomb(1000),  # a skippable frame first
            zstd_bomb(1000, says_size=False),
            zlib.compress(bytes(1000), wbits=31),
        ],
    )
    def test_what_is_not_just_one_zstd_frame_of_known_size_is_refused(self, payload: bytes) -> None:
        zstd = ZstdStage(ZstdOptions())

        with pytest.raises(DecodeError, match="zstd"):
            zstd.decode(payload, MB)

        assert zstd.decode(zstd_bomb(1000), MB) == bytes(1000)

    @pytest.mark.parametrize(
        "payload",
        [
            b"",
            b"not compressed at all",
            zlib.compress(bytes(1000), wbits=31)[:-1],
            zlib.compress(bytes(1000), wbits=31) + b"x",
            zlib.compress(bytes(1000), wbits=31) * 2,
            zlib.compress(bytes(1000), wbits=31)[:-5] + b"\0\0\0\0\0",  # its own check is wrong
            zlib.compress(bytes(1000)),  # zlib's format, not gzip's
            zstd_bomb(1000),
        ],
    )
    def test_what_is_not_just_one_gzip_stream_is_refused(self, payload: bytes) -> None:
        with pytest.raises(DecodeError, match="gzip"):
            GzipStage(GzipOptions()).decode(payload, MB)


class Text(Serializer):
    name = "text"

    def dumps(self, value: Any) -> bytes:
        raise EncodeError("no")

    def loads(self, payload: bytes) -> Any:
        raise DecodeError("no")


class Nothing(Transform):
    """Knows one payload and needs no bytes at all for it."""

    name = "nothing"

    def encode(self, payload: bytes) -> bytes | None:
        return b"" if payload == b"known" else None

    def decode(self, payload: bytes, max_bytes: int) -> bytes:
        return b"known"


def test_a_transform_may_leave_no_bytes() -> None:
    codec = Pipeline([stage("json"), Nothing(None)], MB)

    assert stages_of(codec.encode(entry_of(b"known"), KEY)) == ("json", "nothing")
    assert codec.decode(codec.encode(entry_of(b"known"), KEY), KEY).payload == b"known"
    assert codec.decode(codec.encode(entry_of(b"other"), KEY), KEY).payload == b"other"


class TestOrder:
    @pytest.mark.parametrize(
        ("stages", "fault"),
        [
            ([], "a pipeline has at least one stage, such as 'json'"),
            (
                [stage("zstd")],
                "the first stage has to turn values into bytes, such as 'json'; 'zstd' does not",
            ),
            (
                [stage("gzip"), stage("json")],
                "the first stage has to turn values into bytes, such as 'json'; 'gzip' does not",
            ),
            ([stage("json"), Text(None)], "'text' takes values, so it can only be the first stage"),
            ([stage("json"), stage("json")], "'json' takes values, so it can only be the first stage"),
            (
                [stage("json"), stage("zstd"), stage("gzip"), stage("zstd")],
                "a stage can be named only once; here are json, zstd, gzip, zstd",
            ),
            (
                [stage("json"), stage("sign"), stage("zstd")],
                "'zstd' has to stand before 'sign': nothing is decoded that is not verified",
            ),
            (
                [stage("sign")],
                "the first stage has to turn values into bytes, such as 'json'; 'sign' does not",
            ),
            (
                [stage("pickle"), stage("zstd")],
                (
                    "reading 'pickle' runs code that the bytes name, so nobody else must be able to write them: "
                    'a stage has to follow that verifies who did, as in ["pickle", "sign"] or ["pickle", "encrypt"]'
                ),
            ),
        ],
    )
    def test_a_pipeline_in_no_order_is_refused(self, stages: list[Stage], fault: str) -> None:
        with pytest.raises(ValueError) as caught:
            Pipeline(stages, MB)

        assert str(caught.value) == fault


@pytest.mark.parametrize("name", ["zstd", "gzip"])
def test_one_stage_serves_all_threads(name: str) -> None:
    shared = stage(name, min_bytes=0)
    assert isinstance(shared, Transform)
    together = threading.Barrier(8)

    def work(number: int) -> int:
        contents = [Random(number).randbytes(50) * (20 + turn) for turn in range(100)]
        together.wait()
        return sum(shared.decode(shared.encode(content) or b"", MB) == content for content in contents)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [100] * 8
