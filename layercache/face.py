"""Cache: the face. Every verb in two kinds, one line each; the logic is in `core`.

Rule: a twin differs from its verb in nothing but how it waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, Unpack, cast, overload

from layercache.codecs.normal import NormalForm, TypedForm
from layercache.core.context import LoadContext
from layercache.core.explaining import Explanation, explained
from layercache.core.layer import Layer
from layercache.core.loading import Loading
from layercache.core.policy import NOTHING, CallOptions, LoadOptions, Overrides, Policy
from layercache.core.stats import CacheStats, LayerStats
from layercache.core.times import Times
from layercache.core.verbs import Verbs
from layercache.core.warming import Item
from layercache.durations import DEFAULT, Duration, Ttl
from layercache.entry import MISSING
from layercache.errors import InvalidOption
from layercache.hits import hit_path, near_set
from layercache.inline import InlinePort, run
from layercache.loop import LoopPort

if TYPE_CHECKING:
    from layercache.core.flights import Flights
    from layercache.core.port import Port
    from layercache.core.watching import Watcher
    from layercache.decorator import Decorator
    from layercache.spi import KeyPage, NearRecord
    from layercache.warming import Schedule, WarmReport

__all__ = ["Cache"]

_MOST_LISTED: Final = 10_000

T = TypeVar("T")
D = TypeVar("D")
U = TypeVar("U")


class Cache(Generic[T]):
    """One cache: a policy over a backend, with a key space of its own. Shared freely by threads and tasks.

    Made by `get_cache(name)`; not by calling this class. Verbs have Django's meaning where Django has the verb.
    On a chain they never raise for a far layer that fails; on a Redis backend alone they raise `BackendError`
    within its `timeout`. Every key is a non-empty `str` of at most `max_key_bytes`, else `InvalidKey`.

    `ttl` arguments take seconds, a `timedelta`, text such as "15s" or "1h30m", None for ever, and mean the
    cache's own (or the key's pattern's) when left out. 0 or less: not stored, and what was there is gone.
    """

    def __init__(
        self,
        name: str,
        layer: Layer,
        policy: Policy,
        form: NormalForm,
        flights: Flights,
        ports: tuple[InlinePort, LoopPort],
        close: Callable[[], None],
    ) -> None:
        self.name = name
        self._layer, self._policy, self._form, self._flights = layer, policy, form, flights
        self._inline, self._loop = ports
        self._verbs = Verbs(layer, policy, form)
        self._loading = Loading(self._verbs, flights)
        self._close = close
        # this cache and the typed views of it, by type: one key space, one statistic
        self._views: dict[Any, Cache[Any]] = {Any: self}
        self.schedules: set[Schedule] = set()  # what keeps keys of it warm; of the views too
        self._watcher: Watcher | None = None

        self._bind()

    def _bind(self) -> None:
        """Put the hit path in front of the verbs below, where this process's memory may have the answer."""
        near = self._layer.space.near
        if near is None:
            return
        slow = {verb: getattr(self, verb) for verb in ("get", "aget", "get_or_set", "aget_or_set", "set")}
        vars(self).update(hit_path(near, self._form, slow))
        if near is cast("Any", self._layer.space):
            vars(self)["set"] = near_set(near, self._form, self._policy, slow["set"])

    def _after_fork(self, new_lock: Callable[[], AbstractContextManager[Any]]) -> None:
        self._flights.reset(new_lock())
        self._layer.tickets.reset(new_lock())
        self._loop.after_fork()

    def unbind(self) -> None:
        """Take the hit path away, so that every verb asks the key space again, and end schedules; for `Caches`."""
        for schedule in list(self.schedules):
            schedule.cancel()
        for view in list(self._views.values()):
            for verb in ("get", "aget", "get_or_set", "aget_or_set", "set", "hit"):
                vars(view).pop(verb, None)

    # -- reading

    def hit(self, key: str) -> Any:
        """Return the value that this process's memory holds, or `MISSING`; never blocks, counts hits only."""
        return MISSING

    @overload
    def get(self, key: str, default: None = None) -> T | None: ...
    @overload
    def get(self, key: str, default: D) -> T | D: ...
    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default` when there is none. A stored None is a hit."""
        return run(self._verbs.get(self._inline, key, default))

    @overload
    async def aget(self, key: str, default: None = None) -> T | None: ...
    @overload
    async def aget(self, key: str, default: D) -> T | D: ...
    async def aget(self, key: str, default: Any = None) -> Any:
        """As `get`, without blocking the event loop."""
        return await self._verbs.get(self._loop, key, default)

    def get_many(self, keys: Iterable[str]) -> dict[str, T]:
        """Return the values of those `keys` that have one, in the order asked for."""
        return run(self._verbs.get_many(self._inline, keys))

    async def aget_many(self, keys: Iterable[str]) -> dict[str, T]:
        """As `get_many`, without blocking the event loop."""
        return await self._verbs.get_many(self._loop, keys)

    def has_key(self, key: str) -> bool:
        """Return whether `get` would find a value."""
        return run(self._verbs.has_key(self._inline, key))

    async def ahas_key(self, key: str) -> bool:
        """As `has_key`, without blocking the event loop."""
        return await self._verbs.has_key(self._loop, key)

    def __contains__(self, key: str) -> bool:
        return self.has_key(key)

    def ttl_left(self, key: str) -> float | None:
        """Return the seconds that `key` has left, None for ever, 0.0 when it is not there."""
        return run(self._verbs.ttl_left(self._inline, key))

    async def attl_left(self, key: str) -> float | None:
        """As `ttl_left`, without blocking the event loop."""
        return await self._verbs.ttl_left(self._loop, key)

    # -- writing

    def set(self, key: str, value: T, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()) -> None:
        """Store `value`, replacing what was there.

        Args:
            tags: names that `invalidate` drops it by, besides those that the settings give its key.

        Raises `EncodeError` when the codec cannot carry it, `ValueTooLarge` when it takes too many bytes.
        """
        run(self._verbs.set(self._inline, key, value, ttl, tags))

    async def aset(self, key: str, value: T, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()) -> None:
        """As `set`, without blocking the event loop."""
        await self._verbs.set(self._loop, key, value, ttl, tags)

    def set_many(self, values: Mapping[str, T], ttl: Ttl = DEFAULT, tags: Iterable[str] = ()) -> list[str]:
        """Store all `values`; return the keys that were not stored. A value or key that is refused by
        an error is refused before any of them is stored."""
        return run(self._verbs.set_many(self._inline, values, ttl, tags))

    async def aset_many(
        self, values: Mapping[str, T], ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> list[str]:
        """As `set_many`, without blocking the event loop."""
        return await self._verbs.set_many(self._loop, values, ttl, tags)

    def add(self, key: str, value: T, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()) -> bool:
        """Store `value` only where nothing is, atomically; return whether it was stored."""
        return run(self._verbs.add(self._inline, key, value, ttl, tags))

    async def aadd(self, key: str, value: T, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()) -> bool:
        """As `add`, without blocking the event loop."""
        return await self._verbs.add(self._loop, key, value, ttl, tags)

    def touch(self, key: str, ttl: Ttl = DEFAULT) -> bool:
        """Let `key` live `ttl` from now; return whether it was there."""
        return run(self._verbs.touch(self._inline, key, ttl))

    async def atouch(self, key: str, ttl: Ttl = DEFAULT) -> bool:
        """As `touch`, without blocking the event loop."""
        return await self._verbs.touch(self._loop, key, ttl)

    def incr(self, key: str, delta: int = 1) -> int:
        """Add `delta` to the int under `key`, atomically, and return the sum; its ttl stays.

        Raises `KeyNotFound` (a `ValueError`) when there is none, `NotACounter` when it is no int.
        """
        return run(self._verbs.incr(self._inline, key, delta))

    async def aincr(self, key: str, delta: int = 1) -> int:
        """As `incr`, without blocking the event loop."""
        return await self._verbs.incr(self._loop, key, delta)

    def decr(self, key: str, delta: int = 1) -> int:
        """As `incr` with `-delta`."""
        return self.incr(key, -delta)

    async def adecr(self, key: str, delta: int = 1) -> int:
        """As `decr`, without blocking the event loop."""
        return await self.aincr(key, -delta)

    def delete(self, key: str, *, strict: bool = False) -> bool:
        """Drop `key` and return whether it was there.

        What does not reach a farther layer of a chain is brought to it as soon as that answers again.

        Args:
            strict: raise `BackendError` where it does not reach every layer now; what it did not reach is brought later
                all the same.
        """
        return run(self._verbs.delete(self._inline, key, strict=strict))

    async def adelete(self, key: str, *, strict: bool = False) -> bool:
        """As `delete`, without blocking the event loop."""
        return await self._verbs.delete(self._loop, key, strict=strict)

    def delete_many(self, keys: Iterable[str], *, strict: bool = False) -> int:
        """Drop all `keys` and return how many were there; `strict` as for `delete`."""
        return run(self._verbs.delete_many(self._inline, keys, strict=strict))

    async def adelete_many(self, keys: Iterable[str], *, strict: bool = False) -> int:
        """As `delete_many`, without blocking the event loop."""
        return await self._verbs.delete_many(self._loop, keys, strict=strict)

    def clear(self, *, strict: bool = False) -> None:
        """Drop every key of this cache; other caches of the same backend keep theirs. `strict` as for `delete`."""
        run(self._verbs.clear(self._inline, strict=strict))

    async def aclear(self, *, strict: bool = False) -> None:
        """As `clear`, without blocking the event loop."""
        await self._verbs.clear(self._loop, strict=strict)

    def invalidate(self, *tags: str, soft: bool = False, strict: bool = False) -> None:
        """Drop every entry that carries one of `tags`, whatever their number, and void the loads that are under way for
        such.

        Args:
            tags: the names.
            soft: the entries are stale from now on, for the rest of their lives, and not gone: `get` finds nothing, and
                `get_or_set` serves them as it does all that is stale.
            strict: as for `delete`.

        Raises `InvalidOption` for what is no tag.
        """
        run(self._verbs.invalidate(self._inline, tags, soft, strict=strict))

    async def ainvalidate(self, *tags: str, soft: bool = False, strict: bool = False) -> None:
        """As `invalidate`, without blocking the event loop."""
        await self._verbs.invalidate(self._loop, tags, soft, strict=strict)

    # -- loading

    def get_or_set(
        self,
        key: str,
        loader: Callable[[], T] | Callable[[LoadContext[T]], T] | T,
        ttl: Ttl | Callable[[T], Ttl] = DEFAULT,
        **options: Unpack[LoadOptions],
    ) -> T:
        """Return the value of `key`; when there is no fresh one, store and return what `loader` gives.

        Args:
            key: the key.
            loader: a function without arguments, or of one that is given a `LoadContext`, or (as in Django) the value
                itself. While it runs, other callers of the same key, in every process as far as the backend is
                shared, wait for it instead of running theirs. `MISSING` from it means "do not store", and is
                returned; `NotModified` keeps the stale value for another ttl.
            ttl: how long the value is fresh when it is loaded, or a function of the value that says so.
            options: what this load does otherwise than the settings say; see `LoadOptions`.

        What the loader raises reaches every caller that waited for it, unless a stale value can be served, and
        nothing is stored. A value whose load began before a `set`, `delete`, `invalidate` or `clear` that concerns
        it is returned and not stored.

        Blocks while the loader runs: at most `wait` for another's and `hard_timeout` for its own, then it raises
        `LoadTimeout`. Raises `WouldDeadlock` where waiting could never end, and `RecursiveLoad` where a loader asks
        for its own key.
        """
        return cast(
            "T", run(self._loading.get_or_set(self._inline, key, _loader(loader), _overrides(ttl, options)))
        )

    async def aget_or_set(
        self,
        key: str,
        loader: Callable[[], Awaitable[T]]
        | Callable[[LoadContext[T]], Awaitable[T]]
        | Callable[[], T]
        | Callable[[LoadContext[T]], T]
        | T,
        ttl: Ttl | Callable[[T], Ttl] = DEFAULT,
        **options: Unpack[LoadOptions],
    ) -> T:
        """As `get_or_set`, without blocking the event loop.

        The loader may be async; a plain function runs in a worker thread. The load goes on when the caller is
        cancelled, as long as somebody else waits for it.
        """
        return cast(
            "T",
            await self._loading.get_or_set(self._loop, key, _loader(loader), _overrides(ttl, options)),
        )

    def get_or_set_many(
        self,
        keys: Iterable[str],
        loader: Callable[[list[str]], Mapping[str, T]],
        ttl: Ttl | Callable[[T], Ttl] = DEFAULT,
        **options: Unpack[LoadOptions],
    ) -> dict[str, T]:
        """Return the values of `keys`, in that order; load those that are not there with one call of `loader`.

        Args:
            keys: the keys; repetitions are harmless.
            loader: given the list of the keys that are not there and that nobody loads just now, returns a mapping of
                them to values. What it leaves out is not stored and not returned.
            ttl, options: as for `get_or_set`, of each value.
        """
        return run(self._loading.get_or_set_many(self._inline, keys, loader, _overrides(ttl, options)))

    async def aget_or_set_many(
        self,
        keys: Iterable[str],
        loader: Callable[[list[str]], Awaitable[Mapping[str, T]]] | Callable[[list[str]], Mapping[str, T]],
        ttl: Ttl | Callable[[T], Ttl] = DEFAULT,
        **options: Unpack[LoadOptions],
    ) -> dict[str, T]:
        """As `get_or_set_many`, without blocking the event loop; the loader may be async."""
        return await self._loading.get_or_set_many(self._loop, keys, loader, _overrides(ttl, options))

    def refresh(
        self,
        key: str,
        loader: Callable[[], T] | Callable[[LoadContext[T]], T],
        ttl: Ttl | Callable[[T], Ttl] = DEFAULT,
        **options: Unpack[LoadOptions],
    ) -> T:
        """Load `key` anew whatever is there, store and return it. What the loader raises is raised; what was there
        stays."""
        return cast("T", run(self._loading.refresh(self._inline, key, loader, _overrides(ttl, options))))

    async def arefresh(
        self,
        key: str,
        loader: Callable[[], Awaitable[T]]
        | Callable[[LoadContext[T]], Awaitable[T]]
        | Callable[[], T]
        | Callable[[LoadContext[T]], T],
        ttl: Ttl | Callable[[T], Ttl] = DEFAULT,
        **options: Unpack[LoadOptions],
    ) -> T:
        """As `refresh`, without blocking the event loop; the loader may be async."""
        return cast("T", await self._loading.refresh(self._loop, key, loader, _overrides(ttl, options)))

    def peek(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, fresh or stale, or `default`; loads nothing and counts nothing."""
        return run(self._verbs.peek(self._inline, key, default))

    async def apeek(self, key: str, default: Any = None) -> Any:
        """As `peek`, without blocking the event loop."""
        return await self._verbs.peek(self._loop, key, default)

    def cached(
        self,
        key: str | None = None,
        *,
        ttl: Ttl | Callable[..., Ttl] = DEFAULT,
        ignore: Iterable[str] = (),
        warm: Iterable[Any] | None = None,
        refresh_every: Duration | None = None,
        **options: Unpack[CallOptions],
    ) -> Decorator:
        """Return a decorator that caches what a function, `def` or `async def`, returns; see `layercache.cached`."""
        from layercache.decorator import Decorator

        return Decorator(lambda: self, key, ttl, options, ignore, warm, refresh_every)

    def warm(
        self,
        loader: Callable[[str], T],
        keys: Iterable[str],
        *,
        concurrency: int = 8,
        refresh_every: Duration | None = None,
        ttl: Ttl | Callable[[T], Ttl] = DEFAULT,
        **options: Unpack[LoadOptions],
    ) -> WarmReport:
        """Load those of `keys` that are not there, or not fresh.

        Args:
            loader: called with a key for its value; it finds its load with `current_load()`.
            concurrency: how many keys are loaded at a time, each on a thread.
            refresh_every: also load them anew in this interval, on a daemon thread, until the report's `cancel()`, the
                end of the cache, or that of the process. What another host has loaded since is not loaded again.
            ttl, options: as for `get_or_set`.

        Of many processes that warm the same keys one loads each, as far as the backend is shared. What a loader raises
        is in the report, by key, and the others go on.
        """
        from layercache.warming import checked_every, warm

        items = self._items(loader, keys, _overrides(ttl, options))
        return warm(self, items, concurrency, checked_every(refresh_every))

    async def awarm(
        self,
        loader: Callable[[str], Awaitable[T]] | Callable[[str], T],
        keys: Iterable[str],
        *,
        concurrency: int = 8,
        refresh_every: Duration | None = None,
        ttl: Ttl | Callable[[T], Ttl] = DEFAULT,
        **options: Unpack[LoadOptions],
    ) -> WarmReport:
        """As `warm`, with tasks of the running loop, and over with it; the loader may be async."""
        from layercache.warming import awarm, checked_every

        items = self._items(loader, keys, _overrides(ttl, options))
        return await awarm(self, items, concurrency, checked_every(refresh_every))

    def _items(self, loader: Callable[[str], Any], keys: Iterable[str], overrides: Overrides) -> list[Item]:
        return [Item(key, partial(loader, key), overrides) for key in self._verbs.check_all(keys)]

    # -- seen from outside

    def explain(self, key: str, *, value: bool = False) -> Explanation:
        """Return what each layer has under `key`, how fresh, who holds its lease, and what `get_or_set` would do now.

        Counts nothing, changes nothing and never raises for a layer that fails; in each far layer it costs two round
        trips. The value comes along where `value` says so.
        """
        return run(self._explained(self._inline, key, value))

    async def aexplain(self, key: str, *, value: bool = False) -> Explanation:
        """As `explain`, without blocking the event loop."""
        return await self._explained(self._loop, key, value)

    def _explained(self, port: Port, key: str, value: bool) -> Coroutine[Any, Any, Explanation]:
        self._verbs.check(key)
        plan, leading = self._policy.plan_for(key), self._loading.leading
        return explained(port, self.name, key, self._layer, plan, self._flights, leading, value=value)

    def list_keys(self, prefix: str = "", *, limit: int = 100, cursor: str = "") -> KeyPage:
        """Return about `limit` of the keys that begin with `prefix`; of a chain, those in its farthest layer that
        answers.

        Args:
            limit: 1 to 10,000. A page may hold a few more, or fewer and even none although there are more: it takes
                bounded time, whatever there is.
            cursor: that of the page before, for the next one; None in it says that there is none.

        What is there from the first page to the last is on one of them, with some stores on several. Raises
        `CannotList` where the store cannot, and `BackendError` where it fails.
        """
        return run(self._inline.list_keys(self._layer.space, *_listing(prefix, limit, cursor)))

    async def alist_keys(self, prefix: str = "", *, limit: int = 100, cursor: str = "") -> KeyPage:
        """As `list_keys`, without blocking the event loop."""
        return await self._loop.list_keys(self._layer.space, *_listing(prefix, limit, cursor))

    # -- for the decorator, which has looked near already, and has its options checked

    def _load(self, key: str, loader: Callable[[], Any], overrides: Overrides) -> Any:
        return run(self._loading.get_or_set(self._inline, key, loader, overrides))

    def _aload(self, key: str, loader: Callable[[], Any], overrides: Overrides) -> Coroutine[Any, Any, Any]:
        return self._loading.get_or_set(self._loop, key, loader, overrides)

    def _reload(self, key: str, loader: Callable[[], Any], overrides: Overrides) -> Any:
        return run(self._loading.refresh(self._inline, key, loader, overrides))

    def _areload(self, key: str, loader: Callable[[], Any], overrides: Overrides) -> Coroutine[Any, Any, Any]:
        return self._loading.refresh(self._loop, key, loader, overrides)

    # -- the whole

    @overload
    def typed(self, type_: type[U]) -> Cache[U]: ...
    @overload
    def typed(self, type_: Any) -> Cache[Any]: ...
    def typed(self, type_: Any) -> Cache[Any]:
        """Return a view of this cache whose values are of one type: a pydantic model, a dataclass, `datetime`,
        `list[Quote]`, `int | None`, whatever pydantic knows.

        The view shares keys, times and statistics with the cache. What is there but does not
        fit the type (it was stored by an older version of the model, say) is a miss.
        """
        known: Any = type_
        try:
            hash(type_)
        except TypeError:  # Annotated[int, [1]] has no hash
            known = repr(type_)
        view: Cache[Any] | None = self._views.get(known)
        if view is None:
            form = TypedForm(self._form.serializer, type_, by_reference=self._form.by_reference)
            view = Cache(
                self.name,
                self._layer,
                self._policy,
                form,
                self._flights,
                (self._inline, self._loop),
                self._close,
            )
            view._views, view.schedules = self._views, self.schedules
            view._watch_loads(self._watcher)
            view = self._views.setdefault(known, view)
        return view

    def stats(self) -> CacheStats:
        """Return the counters of this process, without I/O."""
        own = self._layer.stats()
        views = list(self._views.values())
        loadings = [view._loading for view in views]  # noqa: SLF001
        leading = [loading.leading for loading in loadings]
        undecodable = sum(view._verbs.undecodable for view in views)  # noqa: SLF001
        return CacheStats(
            name=self.name,
            hits=own.hits - undecodable,
            misses=own.misses + undecodable,
            stale_hits=sum(loading.stale_hits for loading in loadings),
            loads=sum(each.loads for each in leading),
            load_failures=sum(each.failures for each in leading),
            load_seconds=sum(each.load_seconds for each in leading),
            waits=sum(loading.waits for loading in loadings),
            timeouts=sum(loading.timeouts for loading in loadings),
            refreshes=sum(each.refreshes for each in leading),
            fills_refused=sum(each.refused for each in leading),
            undecodable=undecodable,
            layers=own.layers or (own,),
            load_times=reduce(Times.together, [each.times.times() for each in leading]),
        )

    def layer_stats(self) -> tuple[LayerStats, ...]:
        """Return the counters of its layers, nearest first, without I/O."""
        own = self._layer.stats()
        return own.layers or (own,)

    def watch(self, watcher: Watcher | None) -> None:
        """Have `watcher` told of each load and each far operation; None: nobody. For `Caches`."""
        for view in list(self._views.values()):
            view._watch_loads(watcher)  # noqa: SLF001
        for layer in self._layer.space.layers() or (self._layer,):
            layer.watch(self.name, watcher)

    def _watch_loads(self, watcher: Watcher | None) -> None:
        self._watcher, leading, name = watcher, self._loading.leading, self.name
        if watcher is None:
            leading.watch(None)
        else:
            leading.watch(lambda keys, background: watcher.loading(name, keys, background=background))

    def near_records(self) -> Mapping[str, NearRecord] | None:
        """Return what this process's memory holds of its keys, to be looked at only; None where it keeps none."""
        near = self._layer.space.near
        return None if near is None else near.records

    def close(self) -> None:
        """Close this cache: its verbs raise `CacheClosed` from now on, and `get_cache` opens it anew.

        The backend stays open for the other caches that use it, until `Caches.close()`.
        """
        self._close()

    async def aclose(self) -> None:
        """As `close`."""
        self._close()

    def __repr__(self) -> str:
        return f"<Cache {self.name!r} on {self._layer.name!r} ({self._layer.type})>"


def _listing(prefix: str, limit: int, cursor: str) -> tuple[str, int, str]:
    if not 1 <= limit <= _MOST_LISTED:
        raise InvalidOption(f"a page has 1 to {_MOST_LISTED:,} keys, not {limit}")
    return prefix, limit, cursor


def _loader(loader: Any) -> Callable[..., Any]:
    return loader if callable(loader) else lambda: loader


def _overrides(ttl: Any, options: Any) -> Overrides:
    return NOTHING if ttl is DEFAULT and not options else Overrides(ttl, options)
