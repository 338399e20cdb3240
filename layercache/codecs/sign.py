"""The stage `sign`: HMAC-SHA-256 (RFC 2104) over a payload and its place. Whoever can write to the store but has no key
can neither change a value nor move one; whoever can read there reads it.

    label   1 byte and the id of the key
    MAC     32 bytes, over the label, the length of the place (8), the place, and the payload
    payload
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from layercache.codecs.seals import KeyRing, SealKey, Unverified
from layercache.options import options
from layercache.spi import Seal

__all__ = ["SignOptions", "SignStage"]

_SIZE: Final = 32


@options
class SignOptions:
    """The stage has nothing to set; the backend has its keys, `seal_keys`."""


class SignStage(Seal):
    """Seals payloads with HMAC-SHA-256."""

    name: ClassVar[str] = "sign"
    Options: ClassVar[type[Any]] = SignOptions

    def __init__(self, options: Any, keys: Sequence[SealKey]) -> None:
        super().__init__(options, keys)
        # each is copied for its next use: begun anew for each, small values take half as long again
        self._ring = KeyRing(keys, lambda key: hmac.new(key.derived(self.name), digestmod="sha256"))

    def seal(self, payload: bytes, place: bytes) -> bytes:
        label = self._ring.label
        return b"".join((label, _mac(self._ring.first, label, place, payload), payload))

    def unseal(self, sealed: bytes, place: bytes) -> bytes:
        begun, label, rest = self._ring.found(sealed)
        mac, payload = rest[:_SIZE], rest[_SIZE:]
        if not hmac.compare_digest(mac, _mac(begun, label, place, payload)):
            raise Unverified("not signed for this place, or altered since")
        return payload


def _mac(begun: hmac.HMAC, label: bytes, place: bytes, payload: bytes) -> bytes:
    mac = begun.copy()
    mac.update(label + len(place).to_bytes(8) + place)
    mac.update(payload)
    return mac.digest()
