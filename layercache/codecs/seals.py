"""Seal keys: what seals have in common.

A key has an *id*, which stands in clear before what it sealed, so that keys can be replaced: the first of a list seals,
all of them unseal. Each kind of seal works with a key of its own derived from the secret (HKDF, RFC 5869), so that one
list serves a signature and encryption.

Rule: a secret is in no repr, message or settings as shown.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from layercache.errors import DecodeError

__all__ = ["RIGHT_KEY", "KeyRing", "SealKey", "Unverified"]

T = TypeVar("T")

_KEY: Final = re.compile(r"([A-Za-z0-9_.-]{1,32}):([!-~]*)")
_SHORTEST: Final = 32
_FEWEST: Final = (
    10  # different characters; random text of 32 hexadecimal digits has fewer once in 40,000 keys
)
RIGHT_KEY: Final = (
    'right is an id and a secret, such as "2026-06:" and what '
    'python -c "import secrets; print(secrets.token_urlsafe(32))" prints'
)


class Unverified(DecodeError):
    """What is sealed was not sealed for this place by a holder of one of our keys, or was altered since."""


@dataclass(frozen=True, slots=True, repr=False)
class SealKey:
    """A secret and the id that frames call it by. Shown without the secret."""

    id: str
    secret: bytes

    @classmethod
    def parsed(cls, text: Any) -> SealKey:
        """Return the key that settings spell `id:secret`. Raises `ValueError`, never repeating any of it."""
        if isinstance(text, SealKey):
            return text
        match = _KEY.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f"is no seal key; {RIGHT_KEY}")
        id, secret = match.groups()
        if len(secret) < _SHORTEST:
            raise ValueError(f"has a secret of fewer than {_SHORTEST} characters; {RIGHT_KEY}")
        if len(set(secret)) < _FEWEST:
            raise ValueError(f"has a secret that is not random; {RIGHT_KEY}")
        return cls(id, secret.encode())

    def derived(self, purpose: str) -> bytes:
        """Return 32 bytes for one purpose, which say nothing of those for another."""
        extracted = hmac.digest(b"layercache seal", self.secret, "sha256")
        return hmac.digest(extracted, purpose.encode() + b"\x01", "sha256")

    def __str__(self) -> str:
        return f"{self.id}:**********"

    def __repr__(self) -> str:
        return f"SealKey({str(self)!r})"


class KeyRing(Generic[T]):
    """What a seal has made of each of its keys, by id.

    Attributes:
        label: of the first key, to stand before what it seals.
        first: what was made of it.
    """

    def __init__(self, keys: Sequence[SealKey], made: Callable[[SealKey], T]) -> None:
        self._all = {key.id.encode(): made(key) for key in keys}
        id = keys[0].id.encode()
        self.label, self.first = bytes((len(id),)) + id, self._all[id]

    def found(self, sealed: bytes) -> tuple[T, bytes, bytes]:
        """Return what was made of the key that `sealed` names, the label that names it, and what follows that."""
        end = 1 + sealed[0] if sealed else 0
        one = self._all.get(sealed[1:end])
        if one is None:
            raise Unverified("sealed with a key that is not here")
        return one, sealed[:end], sealed[end:]
