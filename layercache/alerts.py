"""Alerts: what is wrong by the thresholds of `[default.alerts]`, said once when it begins and once when it ends.

Rule: nothing is asked of a store; the counters of this process are looked at, every few seconds, by the thread of the
windows (`windows`). What one look finds right and the next one wrong again is one alert: it ends when it was right for
half a minute.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from layercache.durations import spell_duration

if TYPE_CHECKING:
    from layercache.core.stats import CacheStats, LayerStats
    from layercache.settings import AlertSettings
    from layercache.windows import Window

__all__ = ["Alert", "Alerts", "Hook", "of_the_process"]

log = logging.getLogger("layercache.alerts")

_Kind: TypeAlias = Literal["hit rate", "memory", "circuit", "log lag", "load errors"]

_CALM: Final = 30.0  # seconds without it, until an alert is over


@dataclass(frozen=True, slots=True)
class Alert:
    """Something is wrong, or right again.

    Attributes:
        kind: which threshold it is about.
        name: of the cache, or, of "memory", "circuit" and "log lag", of the layer.
        state: "began" or "ended".
        value: what was found: a part of one, or seconds.
        threshold: that of the settings.
        message: all of it, for people.
    """

    kind: _Kind
    name: str
    state: Literal["began", "ended"]
    value: float
    threshold: float
    message: str


Hook: TypeAlias = Callable[[Alert], object]

of_the_process: Final[list[Hook]] = []
"""The hooks of the default world, whatever its settings are."""


class _Finding(NamedTuple):
    kind: _Kind
    name: str
    value: float
    threshold: float
    is_wrong: bool
    message: str


class Alerts:
    """The alerts of one world. Looked at by one thread.

    Args:
        settings: the thresholds.
        hooks: gives whom to tell.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: AlertSettings,
        hooks: Callable[[], Iterable[Hook]],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._settings, self._hooks, self._clock = settings, hooks, clock
        self._active: dict[tuple[_Kind, str], tuple[Alert, float]] = {}  # with when it was wrong last
        self._open_since: dict[
            str, tuple[float, float]
        ] = {}  # by layer: its openings, and when they were seen

    def check(self, seen: Iterable[tuple[CacheStats, Mapping[str, Window]]]) -> None:
        """Compare what the caches did with the thresholds, and tell what began and ended."""
        now = self._clock()
        found: dict[tuple[_Kind, str], _Finding] = {
            (finding.kind, finding.name): finding for finding in self._findings(seen, now)
        }
        for what, finding in found.items():
            if finding.is_wrong:
                if what not in self._active:
                    alert = Alert(
                        finding.kind, finding.name, "began", finding.value, finding.threshold, finding.message
                    )
                    log.warning("alert: %s", alert.message)
                    self._tell(alert)
                else:
                    alert = self._active[what][0]
                self._active[what] = (alert, now)
        for what, (alert, wrong_at) in list(self._active.items()):
            if now - wrong_at >= _CALM:
                del self._active[what]
                value = found[what].value if what in found else alert.value
                log.warning("alert over: %s", alert.message)
                self._tell(replace(alert, state="ended", value=value))

    def _tell(self, alert: Alert) -> None:
        for hook in self._hooks():
            try:
                hook(alert)
            except Exception:  # of one hook: the others are told all the same
                log.exception("a hook of alerts failed")

    def _findings(
        self, seen: Iterable[tuple[CacheStats, Mapping[str, Window]]], now: float
    ) -> Iterator[_Finding]:
        layers: dict[str, LayerStats] = {}
        for stats, windows in seen:
            if stats.name in self._settings.ignore:
                continue
            yield from self._of_cache(stats.name, windows[self._settings.window].stats)
            for layer in stats.layers:
                layers.setdefault(layer.name, layer)
        for layer in layers.values():
            yield from self._of_layer(layer, now)

    def _of_cache(self, name: str, stats: CacheStats) -> Iterator[_Finding]:
        chosen = self._settings
        reads, loads = stats.hits + stats.misses, stats.loads + stats.load_failures
        if chosen.hit_rate_under is not None and reads >= chosen.least_reads:
            rate, least = stats.hit_rate, chosen.hit_rate_under
            text = (
                f"cache {name!r} answered {rate:.1%} of {reads:,} reads in {chosen.window}, under {least:.1%}"
            )
            yield _Finding("hit rate", name, rate, least, rate < least, text)
        if chosen.load_errors_over is not None and loads >= chosen.least_loads:
            rate, most = stats.load_failures / loads, chosen.load_errors_over
            text = (
                f"{rate:.1%} of {loads:,} loads of cache {name!r} failed in {chosen.window}, over {most:.1%}"
            )
            yield _Finding("load errors", name, rate, most, rate > most, text)

    def _of_layer(self, layer: LayerStats, now: float) -> Iterator[_Finding]:
        chosen, name = self._settings, layer.name
        gauges: Mapping[str, Any] = layer.gauges
        if chosen.memory_over is not None:
            full = max(
                (
                    gauges[what] / gauges[f"max_{what}"]
                    for what in ("entries", "bytes")
                    if gauges.get(f"max_{what}")
                ),
                default=0.0,
            )
            most = chosen.memory_over
            yield _Finding(
                "memory", name, full, most, full > most, f"layer {name!r} is {full:.1%} full, over {most:.1%}"
            )
        if chosen.circuit_open_longer_than is not None:
            open_for, longest = self._open_for(layer, now), chosen.circuit_open_longer_than
            text = f"the circuit of layer {name!r} is open for longer than {spell_duration(longest)}"
            is_wrong = open_for is not None and open_for >= longest
            yield _Finding("circuit", name, open_for or 0.0, longest, is_wrong, text)
        if chosen.log_lag_over is not None and "log_lag" in gauges:
            lag, most = float(gauges["log_lag"]), chosen.log_lag_over
            text = f"layer {name!r} was last heard of {lag:.1f} s ago, over {spell_duration(most)}"
            yield _Finding("log lag", name, lag, most, lag > most, text)

    def _open_for(self, layer: LayerStats, now: float) -> float | None:
        """Return for how long a circuit has been open as far as was seen; None where none is."""
        if not layer.gauges.get("circuits_open"):
            self._open_since.pop(layer.name, None)
            return None
        openings = layer.gauges.get("circuit_openings", 0)
        known = self._open_since.get(layer.name)
        if known is None or known[0] != openings:  # it was closed between two looks
            known = self._open_since[layer.name] = (openings, now)
        return now - known[1]
