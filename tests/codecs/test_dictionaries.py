"""Trained dictionaries: a quote takes a quarter, whatever was written stays readable, nothing altered is believed."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from random import Random
from typing import Any

import pytest
import zstandard
from altering import altered
from hypothesis import given, settings
from hypothesis import strategies as st
from quotes import quote

from layercache.codecs.dictionaries import Dictionaries, Dictionary, TooFewSamples, UnknownDictionary, train
from layercache.codecs.zstd import ZstdOptions, ZstdStage
from layercache.errors import CacheError, DecodeError

KB = 1024
MB = 1024 * KB

SAMPLES = [quote(number) for number in range(1000)]
OTHERS = [quote(number) for number in range(10_000, 10_500)]


@cache
def trained(first: int = 0, count: int = 1000, **how: int) -> bytes:
    return train([quote(first + number) for number in range(count)], **how)


MAGIC = b"\x28\xb5\x2f\xfd"  # which the stage leaves out
OLD, NEW = trained(), trained(5000, 200, max_bytes=8 * KB)


def id_of(dictionary: bytes) -> int:
    return int.from_bytes(dictionary[4:8], "little")


def stage(current: bytes | None = None, *known: bytes, **options: Any) -> ZstdStage:
    made = ZstdStage(ZstdOptions(**options))
    for dictionary in known:
        made.dictionaries.add(dictionary)
    if current is not None:
        made.dictionaries.use(made.dictionaries.add(current))
    return made


def encoded(payload: bytes, current: bytes | None = None, **options: Any) -> bytes:
    made = stage(current, **options).encode(payload)
    assert made is not None
    return made


def named_in(frame: bytes) -> int:
    return zstandard.get_frame_parameters(MAGIC + frame).dict_id


# like the samples, unlike them, and in pieces; on either side of what is too small for the stage
payloads = st.one_of(
    st.integers(0, 20_000).map(quote),
    st.builds(lambda number, size: quote(number)[:size], st.integers(0, 20_000), st.integers(0, 300)),
    st.binary(max_size=400),
    st.builds(lambda part, times: part * times, st.binary(min_size=1, max_size=40), st.integers(1, 200)),
)
dictionaries = st.sampled_from([None, OLD, NEW])


class TestSizes:
    def test_a_quote_is_about_1_kb(self) -> None:
        sizes = [len(payload) for payload in SAMPLES + OTHERS]

        assert 950 < min(sizes) < 1000 < max(sizes) < 1060

    def test_with_a_dictionary_a_quote_takes_at_most_a_quarter(self) -> None:
        shares = [len(encoded(payload, OLD)) / len(payload) for payload in OTHERS]

        assert not set(SAMPLES) & set(OTHERS)
        assert max(shares) <= 0.25

    def test_a_dictionary_of_few_samples_is_made_for_more_than_them(self) -> None:
        shares = [len(encoded(payload, trained(count=100))) / len(payload) for payload in OTHERS]

        assert sum(shares) / len(shares) <= 0.25

    def test_without_one_it_takes_at_most_three_fifths(self) -> None:
        shares = [len(encoded(payload)) / len(payload) for payload in OTHERS]

        assert max(shares) <= 0.60


class TestEncode:
    @given(payloads, dictionaries, dictionaries, st.sampled_from([1, 3, 9]))
    def test_what_was_written_with_any_dictionary_is_read_whichever_is_current(
        self, payload: bytes, then: bytes | None, now: bytes | None, level: int
    ) -> None:
        frame = stage(then, min_bytes=0, level=level).encode(payload)

        if frame is not None:
            assert len(frame) < len(payload)
            assert stage(now, OLD, NEW).decode(frame, len(payload)) == payload

    def test_a_frame_names_the_dictionary_that_was_current(self) -> None:
        quotes = stage()
        assert named_in(quotes.encode(OTHERS[0]) or b"") == 0

        quotes.dictionaries.use(quotes.dictionaries.add(OLD))
        old = quotes.encode(OTHERS[0]) or b""
        quotes.dictionaries.use(quotes.dictionaries.add(NEW))
        new = quotes.encode(OTHERS[0]) or b""
        quotes.dictionaries.use(None)
        plain = quotes.encode(OTHERS[0]) or b""

        assert [named_in(frame) for frame in (old, new, plain)] == [id_of(OLD), id_of(NEW), 0]
        assert [quotes.decode(frame, MB) for frame in (old, new, plain)] == [OTHERS[0]] * 3

    def test_to_add_a_dictionary_is_not_to_use_it(self) -> None:
        assert named_in(stage(None, OLD).encode(OTHERS[0]) or b"") == 0

    def test_a_dictionary_makes_a_quarter_of_min_bytes_worth_it(self) -> None:
        for options, plain, with_dictionary in (({}, 256, 64), ({"min_bytes": 400}, 400, 100)):
            for current, fewest in ((None, plain), (OLD, with_dictionary)):
                made = stage(current, **options)

                assert made.encode(b"a" * (fewest - 1)) is None
                assert made.encode(b"a" * fewest) is not None

    def test_what_does_not_shrink_is_left_plain(self) -> None:
        noise = Random(1).randbytes(5000)

        for current in (None, OLD, NEW):
            for size in (0, 1, 20, 64, 1000, 5000):
                assert stage(current, min_bytes=0).encode(noise[:size]) is None

    def test_what_is_larger_than_64_kib_gains_nothing_by_a_dictionary(self) -> None:
        large = b"".join(OTHERS)
        for size, named in ((64 * KB, id_of(OLD)), (64 * KB + 1, 0)):
            assert named_in(encoded(large[:size], OLD)) == named

        assert encoded(large, OLD) == encoded(large)

    def test_each_level_has_tables_of_its_own(self) -> None:
        shared = Dictionaries()
        shared.use(shared.add(OLD))
        sizes = []
        for level in (3, 19, 1, 19):
            one = stage(level=level)
            one.dictionaries = shared
            sizes.append(sum(len(one.encode(payload) or b"") for payload in OTHERS))

        assert sizes[1] == sizes[3] < sizes[0] < sizes[2]

    def test_dictionaries_are_a_stage_s_own_until_it_is_given_others(self) -> None:
        one, other = stage(OLD), stage()
        frame = one.encode(OTHERS[0]) or b""
        with pytest.raises(UnknownDictionary):
            other.decode(frame, MB)

        other.dictionaries = one.dictionaries

        assert other.decode(frame, MB) == OTHERS[0]
        assert other.encode(OTHERS[0]) == frame

    def test_what_was_made_for_a_dictionary_that_is_no_longer_current_is_let_go(self) -> None:
        quotes = stage(None, OLD, NEW)
        for id in (None, id_of(OLD), id_of(NEW), id_of(OLD), id_of(NEW)):
            quotes.dictionaries.use(id)
            quotes.encode(OTHERS[0])

        assert quotes._own.compressors.keys() == {None, quotes.dictionaries.get(id_of(NEW))}


class TestDecode:
    def test_a_dictionary_that_is_not_here_is_named(self) -> None:
        frame = encoded(OTHERS[0], NEW)
        quotes = stage(OLD)

        with pytest.raises(UnknownDictionary, match=f"no zstd dictionary {id_of(NEW)} here") as caught:
            quotes.decode(frame, MB)

        assert isinstance(caught.value, DecodeError)
        assert caught.value.id == id_of(NEW)
        quotes.dictionaries.add(NEW)
        assert quotes.decode(frame, MB) == OTHERS[0]

    @pytest.mark.parametrize("id", [1, 255, 256, 40_000, 65_536, (1 << 32) - 1])
    def test_a_dictionary_of_another_program_is_named_however_long_its_id(self, id: int) -> None:
        foreign = zstandard.ZstdCompressionDict(OLD[:4] + id.to_bytes(4, "little") + OLD[8:])
        frame = zstandard.ZstdCompressor(dict_data=foreign).compress(OTHERS[0])[4:]

        with pytest.raises(UnknownDictionary) as caught:
            stage(OLD).decode(frame, MB)

        assert caught.value.id == id

    @given(st.data(), payloads, dictionaries)
    def test_altered_bytes_break_nothing(self, data: Any, payload: bytes, current: bytes | None) -> None:
        frame = stage(current, min_bytes=0).encode(payload) or payload
        changed = data.draw(altered(frame))

        try:
            back = stage(None, OLD, NEW).decode(changed, 10_000)
        except DecodeError:
            return

        assert 0 < len(back) <= 10_000

    @given(st.data(), dictionaries, st.integers(10_000, 20_000).map(quote))
    def test_a_truncated_or_extended_frame_is_refused(
        self, data: Any, current: bytes | None, payload: bytes
    ) -> None:
        frame = encoded(payload, current)
        shorter = frame[: data.draw(st.integers(0, len(frame) - 1))]
        longer = frame + data.draw(st.one_of(st.binary(min_size=1, max_size=30), st.just(frame)))

        for wrong in (shorter, longer):
            with pytest.raises(DecodeError, match="zstd"):
                stage(None, OLD, NEW).decode(wrong, MB)

    def test_content_of_just_the_limit_is_read_and_one_byte_more_refused(self) -> None:
        frame, size = encoded(OTHERS[0], OLD), len(OTHERS[0])

        assert stage(OLD).decode(frame, size) == OTHERS[0]
        with pytest.raises(DecodeError, match=f"zstd content of {size} bytes; 1 to {size - 1} are read"):
            stage(OLD).decode(frame, size - 1)

    def test_a_frame_that_does_not_say_its_size_is_refused(self) -> None:
        tables = zstandard.ZstdCompressionDict(OLD)
        frame = zstandard.ZstdCompressor(dict_data=tables, write_content_size=False).compress(OTHERS[0])[4:]

        with pytest.raises(DecodeError, match="zstd content of -1 bytes"):
            stage(OLD).decode(frame, MB)

    def test_a_frame_that_hides_which_dictionary_it_needs_is_not_read_without_one(self) -> None:
        tables = zstandard.ZstdCompressionDict(OLD)
        frame = zstandard.ZstdCompressor(dict_data=tables, write_dict_id=False).compress(OTHERS[0])[4:]

        quotes = stage(OLD)

        for _ in range(2):
            with pytest.raises(DecodeError, match="not zstd"):
                quotes.decode(frame, MB)
            assert quotes.decode(encoded(OTHERS[0], OLD), MB) == OTHERS[0]


class TestDictionaries:
    def test_one_is_current_only_when_it_is_known(self) -> None:
        ours = Dictionaries()
        assert ours.current is None
        with pytest.raises(UnknownDictionary) as caught:
            ours.use(id_of(OLD))
        assert caught.value.id == id_of(OLD)

        id = ours.add(OLD)
        assert ours.current is None
        ours.use(id)

        assert ours.current is ours.get(id)
        assert (ours.current.id, ours.current.data) == (id_of(OLD), OLD)

    def test_one_that_is_refused_leaves_the_current_one(self) -> None:
        ours = stage(OLD).dictionaries

        for refused in (lambda: ours.add(b"no dictionary"), lambda: ours.use(5)):
            with pytest.raises(DecodeError):
                refused()

        assert ours.current is not None
        assert ours.current.id == id_of(OLD)

    def test_to_add_one_again_changes_nothing(self) -> None:
        ours = Dictionaries()
        before = ours.get(ours.add(OLD))

        assert ours.get(ours.add(bytes(bytearray(OLD)))) is before

    @given(st.data())
    def test_a_dictionary_that_was_altered_is_refused(self, data: Any) -> None:
        changed = data.draw(altered(NEW))

        if changed != NEW:
            with pytest.raises(
                DecodeError, match="not a zstd dictionary that `train` made, or altered since"
            ):
                Dictionaries().add(changed)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            OLD[:4],
            OLD[:8],
            b"raw content, which zstd would take as a dictionary without an id" * 10,
            OLD[:4] + bytes(4) + OLD[8:],  # the id 0, of what has none
            zstandard.train_dictionary(4 * KB, list(SAMPLES)).as_bytes(),  # with an id of zstd's choice
        ],
        ids=["empty", "only magic", "only an id", "raw content", "id 0", "zstd's own"],
    )
    def test_what_train_did_not_make_is_no_dictionary(self, data: bytes) -> None:
        with pytest.raises(DecodeError, match="not a zstd dictionary"):
            Dictionaries().add(data)

    @pytest.mark.parametrize("data", [OLD[:100], b"content" + OLD[7:]], ids=["truncated", "raw content"])
    def test_what_only_has_the_right_id_is_no_dictionary(
        self, data: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("layercache.codecs.dictionaries._id_of", id_of)

        with pytest.raises(DecodeError, match="not a zstd dictionary: could not"):
            Dictionary(data)

    def test_compressors_of_one_level_share_its_tables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        dictionary, made = Dictionary(OLD), []
        monkeypatch.setattr(
            "layercache.codecs.dictionaries._parsed",
            lambda data: made.append(zstandard.ZstdCompressionDict(data)) or made[-1],
        )

        for level in (3, 9, 3, 9, 3):
            dictionary.compressor(level)

        assert len(made) == 2


class TestTrain:
    def test_an_id_is_of_those_for_private_use_and_says_which_bytes(self) -> None:
        made = [trained(first, 50) for first in range(0, 1000, 50)]

        ids = {stage().dictionaries.add(data) for data in made}

        assert len(ids) == len(made)
        assert all(1 << 15 <= id < 1 << 31 for id in ids)
        assert ids == {zstandard.ZstdCompressionDict(data).dict_id() for data in made}

    @pytest.mark.parametrize(
        ("check", "id"),
        [
            (0, 1 << 15),
            (1 << 30, (1 << 30) + (1 << 15)),
            ((1 << 31) - (1 << 15) - 1, (1 << 31) - 1),
            ((1 << 31) - (1 << 15), 1 << 15),
            ((1 << 32) - 1, 1 << 16 | (1 << 15) - 1),
        ],
    )
    def test_whatever_the_bytes_the_id_is_one_for_private_use(
        self, check: int, id: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("layercache.codecs.dictionaries.crc32", lambda *_: check)

        assert id_of(train(SAMPLES[:20])) == id

    def test_equal_samples_give_equal_dictionaries(self) -> None:
        assert train(SAMPLES) == OLD != train(SAMPLES[1:])

    @pytest.mark.parametrize("max_bytes", [256, 257, 4 * KB, 64 * KB])
    def test_a_dictionary_is_no_larger_than_asked_for(self, max_bytes: int) -> None:
        assert 0.9 * max_bytes <= len(train(SAMPLES, max_bytes)) <= max_bytes

    def test_it_is_no_larger_than_a_third_of_its_samples(self) -> None:
        samples = SAMPLES[:60]

        assert len(train(samples, 64 * KB)) <= sum(map(len, samples)) // 3

    def test_less_than_256_bytes_hold_no_dictionary(self) -> None:
        with pytest.raises(ValueError, match="max_bytes has to be 256 or more"):
            train(SAMPLES, 255)

    def test_it_is_made_for_a_level(self) -> None:
        def size(level: int) -> int:
            high = stage(train(SAMPLES, level=level), level=19)
            return sum(len(high.encode(payload) or b"") for payload in OTHERS[:100])

        assert size(19) < size(3)

    @given(st.lists(st.binary(min_size=1, max_size=60) | st.just(b"{}" * 30), min_size=20, max_size=60))
    @settings(max_examples=50)
    def test_enough_of_whatever_it_is_gives_a_dictionary(self, samples: list[bytes]) -> None:
        samples = [*samples, bytes(800)]

        made = stage(train(samples), min_bytes=0)

        for sample in samples:
            frame = made.encode(sample)
            assert frame is None or made.decode(frame, len(sample)) == sample

    @pytest.mark.parametrize(
        ("samples", "count", "size"),
        [
            ([], 0, 0),
            (SAMPLES[:19], 19, sum(map(len, SAMPLES[:19]))),
            ([b"1234567"] * 109, 109, 763),
            ([bytes(64 * KB + 1)] * 50, 0, 0),
            ([b""] * 500, 0, 0),
            ([b""] * 2000 + [b"abc" * 300] * 3, 3, 2700),  # zstd itself would end the process
        ],
        ids=["none", "19", "too small", "too large", "empty", "almost all empty"],
    )
    def test_too_few_samples_are_refused_saying_what_is_right(
        self, samples: list[bytes], count: int, size: int
    ) -> None:
        with pytest.raises(TooFewSamples) as caught:
            train(samples)

        assert (caught.value.count, caught.value.size) == (count, size)
        assert str(caught.value) == (
            f"{count:,} samples of {size:,} bytes are too few to train a dictionary from; right are 20 or more, "
            "better hundreds, of together 768 bytes or more "
            "(empty ones, and those of more than 65,536 bytes, do not count)"
        )

    def test_just_enough_samples_are_taken(self) -> None:
        assert train(SAMPLES[:20])
        assert train([bytes(64 * KB)] * 20)
        assert train([b"12345678"] * 96)

    def test_samples_that_no_dictionary_is_used_for_have_no_say(self) -> None:
        large = [Random(number).randbytes(64 * KB + 1) for number in range(20)]

        assert train([*SAMPLES, *large]) == OLD


@pytest.mark.parametrize("error", [TooFewSamples(3, 120), UnknownDictionary(40_000)])
def test_the_errors_travel(error: CacheError) -> None:
    back = pickle.loads(pickle.dumps(error))

    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


def test_threads_share_a_stage_while_its_dictionary_changes() -> None:
    shared = stage(None, OLD, NEW, min_bytes=0)
    together = threading.Barrier(9)

    def work(number: int) -> int:
        together.wait()
        frames = [(payload, shared.encode(payload) or b"") for payload in OTHERS[number::8] * 5]
        return sum(shared.decode(frame, MB) == payload for payload, frame in frames)

    def change() -> int:
        together.wait()
        for turn in range(2000):
            shared.dictionaries.use([None, id_of(OLD), id_of(NEW)][turn % 3])
        return 0

    with ThreadPoolExecutor(9) as pool:
        tasks: list[Callable[[], int]] = [
            *(lambda number=number: work(number) for number in range(8)),
            change,
        ]
        done = [pool.submit(task) for task in tasks]

        assert sum(task.result() for task in done) == len(OTHERS) * 5


def test_threads_may_add_and_use_the_same_dictionary_at_once() -> None:
    shared = stage()
    together = threading.Barrier(8)

    def work(number: int) -> bytes | None:
        together.wait()
        shared.dictionaries.use(shared.dictionaries.add(OLD))
        return shared.encode(OTHERS[0])

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(8))) == {encoded(OTHERS[0], OLD)}
