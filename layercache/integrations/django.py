"""Django's cache API over a cache of layercache.

    CACHES = {
        "default": {
            "BACKEND": "layercache.integrations.django.LayerCacheBackend",
            "LOCATION": "site",
        }
    }

`LOCATION` is the name of a cache in layercache's own settings, which say where it is and how it is bounded. Needs
Django (the extra `layercache-framework[django]`).

Rule: each verb makes and validates its keys as Django does, and hands over to the cache; the async ones await the
cache's own twins, so none of them hops to a thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from inspect import isawaitable
from typing import Any

from layercache.default import get_cache
from layercache.durations import DEFAULT, Ttl, parse_duration
from layercache.errors import InvalidTtl, MissingExtra
from layercache.face import Cache

try:
    from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, InvalidCacheBackendError
except ImportError as error:
    raise MissingExtra(__name__, "django", "django") from error

__all__ = ["LayerCacheBackend"]


class LayerCacheBackend(BaseCache):
    """One cache of layercache, as Django's `caches` hand it out. It holds nothing: Django makes one for each thread.

    Args:
        location: the name of the cache; "" is "default".
        params: `TIMEOUT`, `KEY_PREFIX`, `VERSION`, `KEY_FUNCTION` as Django has them; without a `TIMEOUT` the cache's
            own ttl. `OPTIONS` has nothing to say here.

    Raises `InvalidCacheBackendError` for params that cannot be right. The cache itself is opened at the first use, and
    raises `UnknownCache` then where settings do not define it.
    """

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        if not isinstance(location, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidCacheBackendError(
                "LOCATION is the name of one cache of layercache, such as 'default'"
            )
        if params.get("OPTIONS"):
            options = ", ".join(map(repr, params["OPTIONS"]))
            raise InvalidCacheBackendError(
                f"OPTIONS ({options}) say nothing to this backend; bounds, servers and codecs stand in the settings "
                "of layercache"
            )
        self._name = location or "default"
        self._timeout: Ttl = params.get("timeout", params.get("TIMEOUT", DEFAULT))
        if self._timeout is not DEFAULT:
            try:
                parse_duration(self._timeout)
            except InvalidTtl as error:
                raise InvalidCacheBackendError(f"TIMEOUT: {error}") from error

    @property
    def layercache(self) -> Cache[Any]:
        """The cache itself, for what Django has no verb for: tags, `stats()`, `ttl_left`… Its keys are made ones."""
        return get_cache(self._name)

    def _ttl(self, timeout: Any) -> Ttl:
        return self._timeout if timeout is DEFAULT_TIMEOUT else timeout

    def _made(self, keys: Iterable[Any], version: int | None) -> dict[str, Any]:
        """Return the given keys by the made ones."""
        return {self.make_and_validate_key(key, version=version): key for key in keys}

    # -- reading

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return self.layercache.get(self.make_and_validate_key(key, version=version), default)

    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return await self.layercache.aget(self.make_and_validate_key(key, version=version), default)

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        made = self._made(keys, version)
        return {made[key]: value for key, value in self.layercache.get_many(made).items()}

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        made = self._made(keys, version)
        return {made[key]: value for key, value in (await self.layercache.aget_many(made)).items()}

    def has_key(self, key: Any, version: int | None = None) -> bool:
        return self.layercache.has_key(self.make_and_validate_key(key, version=version))

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        return await self.layercache.ahas_key(self.make_and_validate_key(key, version=version))

    # -- writing

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        self.layercache.set(self.make_and_validate_key(key, version=version), value, self._ttl(timeout))

    async def aset(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        await self.layercache.aset(
            self.make_and_validate_key(key, version=version), value, self._ttl(timeout)
        )

    def set_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        made = self._made(data, version)
        values = {key: data[given] for key, given in made.items()}
        return [made[key] for key in self.layercache.set_many(values, self._ttl(timeout))]

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        made = self._made(data, version)
        values = {key: data[given] for key, given in made.items()}
        return [made[key] for key in await self.layercache.aset_many(values, self._ttl(timeout))]

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        made = self.make_and_validate_key(key, version=version)
        return self.layercache.add(made, value, self._ttl(timeout))

    async def aadd(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        made = self.make_and_validate_key(key, version=version)
        return await self.layercache.aadd(made, value, self._ttl(timeout))

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        return self.layercache.touch(self.make_and_validate_key(key, version=version), self._ttl(timeout))

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        made = self.make_and_validate_key(key, version=version)
        return await self.layercache.atouch(made, self._ttl(timeout))

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return self.layercache.incr(self.make_and_validate_key(key, version=version), delta)

    async def aincr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return await self.layercache.aincr(self.make_and_validate_key(key, version=version), delta)

    def delete(self, key: Any, version: int | None = None) -> bool:
        return self.layercache.delete(self.make_and_validate_key(key, version=version))

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        return await self.layercache.adelete(self.make_and_validate_key(key, version=version))

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        self.layercache.delete_many(self._made(keys, version))

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        await self.layercache.adelete_many(self._made(keys, version))

    def clear(self) -> None:
        """Drop every key of this cache, whatever its prefix and version; other caches of the server keep theirs."""
        self.layercache.clear()

    async def aclear(self) -> None:
        await self.layercache.aclear()

    async def aclose(self, **kwargs: Any) -> None:
        """Do nothing, as `close`; Django 6.1 would go to a thread for that."""

    # -- loading: one caller at a time, where Django has them all compute the value

    def get_or_set(
        self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """Return the value of `key`; where there is none, store and return `default`, called if it can be.

        Of several callers that find nothing, in all processes that share the backend, one calls `default`, and the
        others wait for what it gives.
        """
        made = self.make_and_validate_key(key, version=version)
        return self.layercache.get_or_set(made, _loader(default), self._ttl(timeout))

    async def aget_or_set(
        self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """As `get_or_set`; `default` is called on the event loop, as Django does, and what it returns is awaited where
        it can be."""
        made = self.make_and_validate_key(key, version=version)
        return await self.layercache.aget_or_set(made, _aloader(default), self._ttl(timeout))


def _loader(default: Any) -> Callable[[], Any]:
    # a function without parameters, whatever those of `default`: Django calls it with none
    def load() -> Any:
        return default() if callable(default) else default

    return load


def _aloader(default: Any) -> Callable[[], Awaitable[Any]]:
    async def load() -> Any:
        value = default() if callable(default) else default
        return await value if isawaitable(value) else value

    return load
