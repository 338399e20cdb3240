"""Seals: what no holder of a key has made for this place is refused, and nothing of it is decoded before."""

from __future__ import annotations

import hmac
import math
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from altering import altered, frames
from hypothesis import given, settings
from hypothesis import strategies as st

from layercache import MissingExtra
from layercache.codecs.encrypt import EncryptOptions, EncryptStage
from layercache.codecs.frame import Frame, pack, sealed_with, sealed_with_parts, unpack
from layercache.codecs.json import JsonOptions, JsonStage
from layercache.codecs.normal import NormalForm, TypedForm
from layercache.codecs.pickle import PickleOptions, PickleStage
from layercache.codecs.pipeline import Pipeline
from layercache.codecs.seals import SealKey, Unverified
from layercache.codecs.sign import SignOptions, SignStage
from layercache.codecs.zstd import ZstdOptions, ZstdStage
from layercache.entry import MISSING, Entry
from layercache.errors import DecodeError, EncodeError
from layercache.spi import Seal

KEY = b"app:stock:quote:AAPL"
MB = 1 << 20
NEW, OLD, STRANGE = (
    SealKey.parsed(f"{id}:{start}0123456789abcdefghijklmnopqrstuvwxyz")
    for id, start in (("new", "n"), ("old", "o"), ("new", "s"))
)
PICKLE = PickleStage(PickleOptions())
FORM = NormalForm(PICKLE)

ran: list[str] = []


def run(what: str) -> str:
    ran.append(what)
    return what


class Bomb:
    """Whoever unpickles it, runs it."""

    def __reduce__(self) -> Any:
        return run, ("boom",)


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def sign(*keys: SealKey) -> SignStage:
    return SignStage(SignOptions(), keys)


def encrypt(*keys: SealKey) -> EncryptStage:
    return EncryptStage(EncryptOptions(), keys)


both = pytest.mark.parametrize("seal", [sign, encrypt])


def pipeline(*seals: Seal) -> Pipeline:
    return Pipeline([PICKLE, ZstdStage(ZstdOptions(min_bytes=64)), *seals], MB)


def entry_of(value: Any) -> Entry:
    return Entry(PICKLE.dumps(value), MISSING, 1.0, 2.0, 3.0, (("*", 5), ("news", 6)), 0.5)


class TestASeal:
    @both
    @given(st.binary(max_size=300), st.binary(max_size=60))
    @settings(max_examples=50)
    def test_what_was_sealed_is_unsealed_in_its_place(self, seal: Any, payload: bytes, place: bytes) -> None:
        one = seal(NEW)

        assert one.unseal(one.seal(payload, place), place) == payload

    @both
    @given(st.data(), st.binary(max_size=100), st.binary(max_size=40))
    @settings(max_examples=60)
    def test_what_is_altered_is_refused(self, seal: Any, data: Any, payload: bytes, place: bytes) -> None:
        one = seal(NEW, OLD)
        sealed = one.seal(payload, place)
        changed = data.draw(altered(sealed))

        if changed != sealed:
            with pytest.raises(Unverified):
                one.unseal(changed, place)

    @both
    @given(st.data(), st.binary(max_size=60), st.binary(max_size=60))
    @settings(max_examples=60)
    def test_no_place_can_pass_for_another(self, seal: Any, data: Any, payload: bytes, place: bytes) -> None:
        """Nor a piece of one for a piece of the payload."""
        one = seal(NEW)
        sealed = one.seal(payload, place)
        cut = data.draw(st.integers(0, len(payload)))

        for other in {place + payload[:cut], place[:-1], data.draw(altered(place))} - {place}:
            with pytest.raises(Unverified):
                one.unseal(sealed, other)
            with pytest.raises(Unverified):
                one.unseal(sealed[: len(sealed) - cut], other)

    @both
    def test_the_first_key_seals_and_all_unseal(self, seal: Any) -> None:
        before, during, after = seal(OLD), seal(NEW, OLD), seal(NEW)

        assert during.unseal(before.seal(b"v", b"p"), b"p") == b"v"
        assert after.unseal(during.seal(b"v", b"p"), b"p") == b"v"
        with pytest.raises(Unverified, match="not here"):
            after.unseal(before.seal(b"v", b"p"), b"p")

    @both
    def test_another_key_of_the_same_id_is_another(self, seal: Any) -> None:
        with pytest.raises(Unverified, match="for this place"):
            seal(NEW).unseal(seal(STRANGE).seal(b"v", b"p"), b"p")

    @both
    def test_the_label_that_names_the_key_is_sealed_as_well(self, seal: Any) -> None:
        renamed = SealKey("old", NEW.secret)
        sealed = seal(NEW).seal(b"v", b"p")

        with pytest.raises(Unverified):
            seal(renamed).unseal(b"\x03old" + sealed[4:], b"p")

    @both
    @pytest.mark.parametrize("sealed", [b"", b"\x03", b"\x03new", b"\x03new" + bytes(11), b"\xff" * 40])
    def test_what_is_too_short_is_refused(self, seal: Any, sealed: bytes) -> None:
        with pytest.raises(Unverified):
            seal(NEW).unseal(sealed, b"p")

    @both
    def test_one_serves_all_threads(self, seal: Any) -> None:
        one = seal(NEW)

        def turns(number: int) -> int:
            payloads = [bytes([number]) * size for size in range(200)]
            return sum(one.unseal(one.seal(payload, b"p"), b"p") == payload for payload in payloads)

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(turns, range(4))) == [200] * 4

    @both
    def test_without_a_key_none_is_opened(self, seal: Any) -> None:
        with pytest.raises(ValueError, match="seal_keys"):
            seal()

    def test_no_nonce_is_used_twice_and_nothing_is_readable(self) -> None:
        one = encrypt(NEW)
        sealed = [one.seal(b"hunter2" * 10, b"p") for _ in range(500)]

        assert len({each[4:16] for each in sealed}) == 500
        assert not any(b"hunter2" in each for each in sealed)

    def test_a_signature_is_what_the_page_says(self) -> None:
        secret = hmac.digest(hmac.digest(b"layercache seal", NEW.secret, "sha256"), b"sign\x01", "sha256")
        expected = hmac.digest(secret, b"\x03new" + (5).to_bytes(8) + b"place" + b"value", "sha256")

        assert sign(NEW).seal(b"value", b"place") == b"\x03new" + expected + b"value"

    def test_each_kind_of_seal_has_a_key_of_its_own(self) -> None:
        assert len({NEW.derived("sign"), NEW.derived("encrypt"), OLD.derived("sign")}) == 3

    def test_signatures_are_compared_in_constant_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []
        monkeypatch.setattr(hmac, "compare_digest", lambda one, other: asked.append(1))

        with pytest.raises(Unverified):
            sign(NEW).unseal(sign(NEW).seal(b"v", b"p"), b"p")

        assert asked

    def test_without_its_package_encrypt_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)

        with pytest.raises(MissingExtra, match=r"layercache-framework\[encrypt\]"):
            encrypt(NEW)


class TestSealKeys:
    @pytest.mark.parametrize(
        "text",
        [
            "", "x", ":" + "0123456789abcdef" * 3, "x:short", "x:" + "ab" * 40, "x y:" + "0123456789abcdef" * 3,
            "x" * 33 + ":" + "0123456789abcdef" * 3, "x:0123456789abcdef 0123456789abcdef", 5, None,
        ],
    )  # fmt: skip
    def test_what_is_no_key_or_a_weak_one_is_refused_and_not_repeated(self, text: Any) -> None:
        with pytest.raises(ValueError, match="token_urlsafe") as caught:
            SealKey.parsed(text)

        assert not (isinstance(text, str) and len(text) > 3 and text in str(caught.value))

    def test_a_key_is_shown_without_its_secret(self) -> None:
        assert (
            f"{NEW} {NEW!r} {[NEW]}" == "new:********** SealKey('new:**********') [SealKey('new:**********')]"
        )


class TestTheWholeFrame:
    @given(frames, st.binary(max_size=30))
    @settings(max_examples=50)
    def test_a_reader_binds_what_the_writer_bound(self, frame: Frame, key: bytes) -> None:
        assert sealed_with(pack(frame, key), key) == sealed_with_parts(frame, key)

    @given(frames, frames, st.binary(max_size=30), st.binary(max_size=30))
    @settings(max_examples=50)
    def test_frames_that_differ_but_in_the_payload_are_bound_to_different_things(
        self, one: Frame, other: Frame, key: bytes, other_key: bytes
    ) -> None:
        same = (one._replace(payload=b""), key) == (other._replace(payload=b""), other_key)

        assert (sealed_with_parts(one, key) == sealed_with_parts(other, other_key)) is same

    @both
    @pytest.mark.parametrize(
        "change",
        [
            {"created_at": 0.5}, {"fresh_until": 2.5}, {"dead_at": math.inf}, {"stamps": (("*", 5),)}, {"spread": 0.0},
            {"stamps": (("*", 4), ("news", 6))}, {"stages": ("pickle", "zstd")}, {"stages": ("pickle",)},
        ],
        ids=str,
    )  # fmt: skip
    def test_whoever_changes_a_part_and_puts_the_checksum_right_is_found_out(
        self, seal: Any, change: dict[str, Any]
    ) -> None:
        codec = pipeline(seal(NEW))
        frame = unpack(codec.encode(entry_of("x" * 500), KEY), KEY)
        if "stages" in change:  # one that was applied left out
            change = {"stages": (*change["stages"][:-1], frame.stages[-1])}
        forged = pack(frame._replace(**change), KEY)

        with pytest.raises(DecodeError):
            codec.decode(forged, KEY)
        assert codec.unverified == 1

    @both
    def test_a_frame_filed_under_another_key_or_cache_is_refused(self, seal: Any) -> None:
        codec = pipeline(seal(NEW))
        frame = unpack(codec.encode(entry_of("x"), KEY), KEY)

        for other in (KEY + b"2", b"app:news:quote:AAPL", b"other:stock:quote:AAPL"):
            with pytest.raises(Unverified):
                codec.decode(pack(frame, other), other)

    @pytest.mark.parametrize(
        "stages",
        [
            ("pickle",),
            ("pickle", "zstd"),
            ("sign",),
            ("pickle", "sign", "zstd"),
            ("pickle", "encrypt"),
            ("sign", "pickle"),
        ],
    )
    def test_what_is_not_sealed_is_not_unpickled(self, stages: tuple[str, ...]) -> None:
        codec = pipeline(sign(NEW))
        forged = pack(Frame(stages, 1.0, 2.0, 3.0, (), PICKLE.dumps(Bomb())), KEY)

        with pytest.raises(DecodeError, match="unsealed"):
            codec.decode(forged, KEY)
        assert (codec.unverified, ran) == (1, [])

    @both
    def test_nothing_is_decompressed_before_it_is_verified(
        self, seal: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        strange, ours = pipeline(seal(STRANGE)), pipeline(seal(NEW))
        frame = strange.encode(entry_of("x" * 500), KEY)
        assert unpack(frame, KEY).stages[1] == "zstd"
        monkeypatch.setattr(ZstdStage, "decode", lambda *_: ran.append("decompressed"))

        with pytest.raises(Unverified):
            ours.decode(frame, KEY)

        assert ran == []

    def test_signed_and_encrypted_both_are_verified_whichever_comes_first(self) -> None:
        for seals in ((sign, encrypt), (encrypt, sign)):
            codec = pipeline(*(seal(NEW) for seal in seals))
            frame = codec.encode(entry_of("x" * 500), KEY)

            assert PICKLE.loads(codec.decode(frame, KEY).payload or b"") == "x" * 500
            for strangers in ((STRANGE, NEW), (NEW, STRANGE)):
                other = pipeline(*(seal(key) for seal, key in zip(seals, strangers, strict=True)))
                with pytest.raises(Unverified):
                    other.decode(frame, KEY)

    def test_who_has_no_seal_reads_no_sealed_frame_and_the_other_way_round(self) -> None:
        json = JsonStage(JsonOptions())
        plain, sealed = Pipeline([json], MB), Pipeline([json, sign(NEW)], MB)
        entry = Entry(b"1", MISSING, 1.0, 2.0, 3.0)

        for writer, reader in ((plain, sealed), (sealed, plain)):
            with pytest.raises(DecodeError):
                reader.decode(writer.encode(entry, KEY), KEY)

    def test_a_sealed_pipeline_takes_no_dictionary(self) -> None:
        assert pipeline(sign(NEW)).dictionaries is None


class Place:
    def __init__(self, at: Any) -> None:
        self.at = at

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self.at == other.at

    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return f"Place({self.at})"


class TestPickle:
    @pytest.mark.parametrize(
        "value",
        [
            None, 5, 2**70, "a", b"a", (1, "a"), (1, [2]), [1, (2,)], {1: "a", (2,): "b"}, {"a": 1}, {1, 2}, 1 + 2j,
            OrderedDict(a=1), Place([1]), {Place(1): 2}, float("inf"), "\ud800",
        ],
        ids=repr,
    )  # fmt: skip
    def test_what_goes_in_comes_out_of_the_same_type_and_is_each_reader_s_own(self, value: Any) -> None:
        payload, shared = FORM.encode(value)
        for entry in (Entry(payload, shared, 0, 1, 1), Entry(payload, MISSING, 0, 1, 1)):
            one, other = FORM.decode(entry), FORM.decode(entry)

            assert (one, type(one)) == (value, type(value))
            if isinstance(value, list | dict | set | Place):
                assert one is not other
                assert one is not value

    def test_keys_of_a_dict_that_can_be_changed_are_not_shared_either(self) -> None:
        value = {Place([1]): 1}
        entry = Entry(*FORM.encode(value), 0, 1, 1)

        (one,), (other,) = FORM.decode(entry), FORM.decode(entry)

        assert one is not other
        assert one is not next(iter(value))

    @pytest.mark.parametrize(
        "value", [lambda: 1, sys, (part for part in "ab")], ids=["a lambda", "a module", "a generator"]
    )
    def test_what_cannot_be_pickled_is_refused(self, value: Any) -> None:
        with pytest.raises(EncodeError, match="pickle cannot carry the value, a "):
            FORM.encode(value)

    @pytest.mark.parametrize("payload", [b"", b"x", b"\x80\x05cnowhere\nNothing\n.", PICKLE.dumps(5)[:-1]])
    def test_what_cannot_be_unpickled_here_is_a_decode_error(self, payload: bytes) -> None:
        with pytest.raises(DecodeError, match="cannot be unpickled here"):
            FORM.decode(Entry(payload, MISSING, 0, 1, 1))

    def test_typed_values_are_checked_as_with_json(self) -> None:
        form = TypedForm(PICKLE, dict[str, int])

        assert form.decode(Entry(*form.encode({"a": 1}), 0, 1, 1)) == {"a": 1}
        with pytest.raises(EncodeError):
            form.encode({"a": "b"})
        with pytest.raises(DecodeError):
            form.decode(Entry(PICKLE.dumps([1]), MISSING, 0, 1, 1))
