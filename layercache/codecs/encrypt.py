"""The stage `encrypt`: AES-256-GCM (NIST SP 800-38D). Who has no key can neither read, nor change, nor move a value.

    label   1 byte and the id of the key
    nonce   12 bytes, random for each frame
    payload encrypted, and 16 bytes that verify it, the label and the place

Random nonces of 96 bits allow 2**32 frames for one key, of all processes together: then two are alike with a chance of
2**-33, and what both encrypt could be told. At a thousand writes a second that is 49 days (docs/stages.md).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from layercache.codecs.seals import KeyRing, SealKey, Unverified
from layercache.errors import EncodeError, MissingExtra
from layercache.options import options
from layercache.spi import Seal

__all__ = ["EncryptOptions", "EncryptStage"]

_NONCE: Final = 12


@options
class EncryptOptions:
    """The stage has nothing to set; the backend has its keys, `seal_keys`."""


class EncryptStage(Seal):
    """Seals payloads with AES-256-GCM."""

    name: ClassVar[str] = "encrypt"
    Options: ClassVar[type[Any]] = EncryptOptions

    def __init__(self, options: Any, keys: Sequence[SealKey]) -> None:
        super().__init__(options, keys)
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise MissingExtra("the stage 'encrypt'", "cryptography", "encrypt") from error
        self._altered = InvalidTag
        self._ring = KeyRing(keys, lambda key: AESGCM(key.derived(self.name)))

    def seal(self, payload: bytes, place: bytes) -> bytes:
        label, nonce = self._ring.label, os.urandom(_NONCE)
        try:
            encrypted = self._ring.first.encrypt(nonce, payload, label + place)
        except OverflowError as error:
            raise EncodeError("the value is too large to be encrypted: 2 GiB is the most") from error
        return b"".join((label, nonce, encrypted))

    def unseal(self, sealed: bytes, place: bytes) -> bytes:
        cipher, label, rest = self._ring.found(sealed)
        try:
            return cipher.decrypt(rest[:_NONCE], rest[_NONCE:], label + place)
        except (self._altered, ValueError, OverflowError):  # ValueError: a nonce that is cut short
            raise Unverified("not encrypted for this place, or altered since") from None
