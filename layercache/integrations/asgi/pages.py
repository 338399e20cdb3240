"""A stored response, and how it stands in the cache: as JSON, like every value.

A body that is text stands as text, any other in base64. Measured: 17.5 kB of HTML take 20.2 kB of JSON as text and
23.4 as base64, and after zstd 0.76 against 1.39 kB; 20 kB of compressed content 26.7 kB as base64 and 41.3 as
latin-1, which JSON has to escape or to double, and after zstd 20.1 against 27.0 kB. UTF-8 is the text, as it needs
no second encoding.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import blake2b
from math import inf
from typing import Any, Final, NamedTuple

from layercache.integrations.asgi.rules import Headers, Request, first, variant_of

__all__ = ["Page"]

_FORM: Final = 1  # of what is stored; what another version stored is nobody's page


class Page(NamedTuple):
    """A response as it is stored, or (`passes`) that there is none to be stored, and nobody need wait for one.

    Attributes:
        began: when the application was asked for it, wall-clock seconds.
        at: when it had answered.
        lifetime: seconds that it is fresh from then on; None is for ever.
        stale, on_error: as in `Terms`.
        age: the Age that it came with.
        vary: the names of the request headers that chose it.
        variant: what these were, as `variant_of`.
        generation: of the other variants, which are kept under keys of their own: they are forgotten with this one.
    """

    began: float
    at: float
    passes: bool = False
    status: int = 200
    headers: Headers = []  # noqa: RUF012  (nobody adds to it)
    body: bytes = b""
    lifetime: float | None = None
    stale: float | None = None
    on_error: float | None = None
    age: int = 0
    vary: tuple[str, ...] = ()
    variant: str = ""
    generation: str = ""

    @classmethod
    def of(cls, value: Any) -> Page | None:
        """Return the page that a value of the cache is, None for what is none, such as a value of somebody else's."""
        if not isinstance(value, Mapping) or value.get("form") != _FORM:
            return None
        if value.get("passes"):
            return cls(value["began"], value["at"], passes=True)
        text = value.get("text")
        return cls(
            began=value["began"],
            at=value["at"],
            status=value["status"],
            headers=[(name, content) for name, content in value["headers"]],
            body=b64decode(value["base64"]) if text is None else text.encode(),
            lifetime=value["lifetime"],
            stale=value["stale"],
            on_error=value["on_error"],
            age=value["age"],
            vary=tuple(value["vary"]),
            variant=value["variant"],
            generation=value["generation"],
        )

    def as_value(self) -> dict[str, Any]:
        """Return what a cache stores of the page."""
        value: dict[str, Any] = {"form": _FORM, "began": self.began, "at": self.at}
        if self.passes:
            return {**value, "passes": True}
        try:
            body = {"text": self.body.decode()}
        except UnicodeDecodeError:
            body = {"base64": b64encode(self.body).decode()}
        return {
            **value,
            "status": self.status,
            "headers": [[name, content] for name, content in self.headers],
            **body,
            "lifetime": self.lifetime,
            "stale": self.stale,
            "on_error": self.on_error,
            "age": self.age,
            "vary": list(self.vary),
            "variant": self.variant,
            "generation": self.generation,
        }

    def with_etag(self) -> Page:
        """Return the page with an ETag, made of its body where the application has given none.

        A strong one: the same in every process, and another for each other sequence of bytes (RFC 9110 §8.8.3).
        """
        if self.status != 200 or first(self.headers, "etag") is not None:
            return self
        digest = blake2b(self.body, digest_size=16).hexdigest()
        return self._replace(headers=[*self.headers, ("etag", f'"{digest}"')])

    def serves(self, request: Request) -> bool:
        """Whether it is this variant that the request is for (§4.1)."""
        return not self.vary or self.variant == variant_of(request, self.vary)

    def age_at(self, now: float) -> float:
        """Return its current age (§4.2.3)."""
        return self.age + max(0.0, now - self.at)

    def left_at(self, now: float) -> float:
        """Return for how long it is still fresh; less than 0 where it is stale."""
        return inf if self.lifetime is None else self.at + self.lifetime - now
