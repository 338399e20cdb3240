"""What is wrong by the thresholds of the settings is said once when it begins, and once when it ends."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until, until_collected

import layercache
from layercache import Alert, Caches, ConfigError, alerts, windows
from layercache.alerts import Alerts
from layercache.core.stats import LayerStats
from layercache.testing import Clock
from layercache.windows import Sampler


def settings(**thresholds: Any) -> dict[str, Any]:
    return {
        "backends": {"m": {"type": "memory", "max_entries": 100}},
        "caches": {"default": {"backend": "m"}, "other": {"backend": "m"}},
        "alerts": thresholds,
    }


class Watch:
    """A world whose thresholds are looked at when the test says so."""

    def __init__(self, clock: Clock, **thresholds: Any) -> None:
        self.world, self.clock, self.told = Caches(settings(**thresholds)), clock, list[Alert]()
        self.cache = self.world["default"]
        self.sampler = Sampler(lambda: self.world.opened, clock)
        self.alerts = Alerts(self.world.settings.alerts, lambda: [self.told.append], clock)
        self.look(0)

    def look(self, after: float = 5.0) -> list[tuple[str, str, str]]:
        """Let time pass, look, and return what was told."""
        self.clock.advance(after)
        seen = self.sampler.look()
        self.told.clear()
        self.alerts.check([(stats, self.sampler.windows(cache)) for cache, stats in seen])
        return [(alert.kind, alert.name, alert.state) for alert in self.told]

    def read(self, hits: int = 0, misses: int = 0) -> None:
        self.cache.set("k", 1)
        for _ in range(hits):
            self.cache.get("k")
        for _ in range(misses):
            self.cache.get("nothing")

    def load(self, works: int = 0, fails: int = 0) -> None:
        def fail() -> None:
            raise OSError

        for number in range(works):
            self.cache.refresh(f"{number}", lambda: 1)
        for _ in range(fails):
            with pytest.raises(OSError):
                self.cache.refresh("bad", fail)


WatchOf = Callable[..., Watch]


@pytest.fixture
def watch_of(clock: Clock) -> Iterator[WatchOf]:
    """Watches, whose worlds are closed in the end."""
    made: list[Watch] = []

    def make(**thresholds: Any) -> Watch:
        made.append(Watch(clock, **thresholds))
        return made[-1]

    yield make
    for watch in made:
        watch.world.close()


def test_an_alert_is_told_once_when_it_begins_and_once_when_it_ends(
    watch_of: WatchOf, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "layercache.alerts")
    watch = watch_of(window="1m", hit_rate_under=0.5)

    watch.read(hits=40, misses=60)
    assert watch.look() == [("hit rate", "default", "began")]
    assert watch.told[0].value == pytest.approx(0.4)
    assert watch.told[0].threshold == 0.5
    assert watch.look() == []
    watch.read(hits=900)
    assert watch.look() == []  # right again, which may not last
    assert watch.look(30) == [("hit rate", "default", "ended")]
    assert watch.look(30) == []

    assert caplog.messages == [
        "alert: cache 'default' answered 40.0% of 100 reads in 1m, under 50.0%",
        "alert over: cache 'default' answered 40.0% of 100 reads in 1m, under 50.0%",
    ]


def test_what_comes_and_goes_within_half_a_minute_is_one_alert(watch_of: WatchOf) -> None:
    watch = watch_of(memory_over=0.9)

    def fill(entries: int) -> None:
        watch.cache.clear()
        watch.cache.set_many({f"{number}": 1 for number in range(entries)})

    told = []
    for entries in (95, 10, 95, 10, 95):
        fill(entries)
        told += watch.look(20)
    assert told == [("memory", "m", "began")]
    fill(10)
    assert [*watch.look(20), *watch.look(20)] == [("memory", "m", "ended")]


def test_rates_of_few_reads_or_loads_say_nothing(watch_of: WatchOf) -> None:
    watch = watch_of(hit_rate_under=0.5, load_errors_over=0.1)

    watch.read(misses=89)
    watch.load(fails=9)  # each of them looks, and misses
    assert watch.look() == []
    watch.read(misses=20)
    watch.load(fails=1)
    assert sorted(watch.look()) == [("hit rate", "default", "began"), ("load errors", "default", "began")]


def test_what_is_over_goes_out_of_the_window(watch_of: WatchOf) -> None:
    watch = watch_of(window="1m", load_errors_over=0.2)

    watch.load(works=7, fails=3)
    assert watch.look() == [("load errors", "default", "began")]
    told = [what for _ in range(20) for what in watch.look()]
    assert told == [("load errors", "default", "ended")]


def test_caches_that_are_ignored_are_not_looked_at(watch_of: WatchOf) -> None:
    watch = watch_of(hit_rate_under=0.5, ignore=["Default"])

    watch.read(misses=200)

    assert watch.look() == []


def far(**gauges: float) -> Any:
    """The counters of a cache over one far layer, as they would be."""
    with Caches(settings()) as world:
        stats = world["default"].stats()
    return layercache.CacheStats(
        **{
            **{name: getattr(stats, name) for name in stats.__dataclass_fields__},
            "layers": (LayerStats("far", "redis", 0, 0, 0, False, gauges),),
        }
    )


def test_a_circuit_has_to_be_open_for_a_while(clock: Clock) -> None:
    chosen = Caches(settings(circuit_open_longer_than="30s")).settings.alerts
    told: list[Alert] = []
    looked = Alerts(chosen, lambda: [told.append], clock)
    windows_ = dict.fromkeys(windows.WINDOWS, windows.Window("5m", 0.0, far()))

    def look(opened: int, openings: int) -> list[str]:
        told.clear()
        looked.check([(far(circuits_open=opened, circuit_openings=openings), windows_)])
        clock.advance(20)
        return [alert.state for alert in told]

    assert look(1, 1) == []
    assert look(1, 1) == []
    assert look(1, 2) == []  # it was closed in between
    assert look(1, 2) == []
    assert look(1, 2) == ["began"]
    assert look(0, 2) == []
    assert look(0, 2) == ["ended"]


def test_a_log_that_lags_behind_is_told(clock: Clock) -> None:
    chosen = Caches(settings(log_lag_over="10s")).settings.alerts
    told: list[Alert] = []
    looked = Alerts(chosen, lambda: [told.append], clock)
    windows_ = dict.fromkeys(windows.WINDOWS, windows.Window("5m", 0.0, far()))

    looked.check([(far(log_lag=0.5), windows_)])
    assert told == []
    looked.check([(far(log_lag=11.5), windows_)])
    assert [(alert.kind, alert.name, alert.value) for alert in told] == [("log lag", "far", 11.5)]
    assert told[0].message == "layer 'far' was last heard of 11.5 s ago, over 10s"


def test_a_hook_that_fails_keeps_nobody_from_being_told(
    watch_of: WatchOf, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    watch = watch_of(hit_rate_under=0.5)
    told: list[Alert] = []

    def fail(alert: Alert) -> None:
        raise OSError

    watch.alerts = Alerts(watch.world.settings.alerts, lambda: [fail, told.append], clock)
    watch.read(misses=200)
    watch.look()

    assert len(told) == 1
    assert "a hook of alerts failed" in caplog.text


class TestThread:
    @pytest.fixture(autouse=True)
    def often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(windows, "_INTERVAL", 0.01)
        self.before = set(threading.enumerate())  # those of worlds of other tests may still be about to end

    def threads(self) -> int:
        begun = set(threading.enumerate()) - self.before
        return sum(thread.name == "layercache windows" for thread in begun)

    def test_it_looks_from_the_first_cache_on_until_the_world_is_closed(self) -> None:
        told: list[Alert] = []
        with Caches(settings(hit_rate_under=0.5, least_reads=1)) as world:
            assert world.on_alert(told.append) == told.append
            assert self.threads() == 0
            cache = world["default"]
            assert self.threads() == 1
            until(lambda: cache.get("nothing") is not None or told)
            world["other"]
            assert self.threads() == 1
        until(lambda: self.threads() == 0)

    def test_without_thresholds_there_is_none(self) -> None:
        with Caches(settings()) as world:
            world["default"]
            assert self.threads() == 0

    def test_a_world_that_nobody_has_any_more_is_not_kept(self) -> None:
        Caches(settings(hit_rate_under=0.5))["default"].get("k")

        until_collected(lambda: self.threads() == 0)

    def test_hooks_of_the_process_are_those_of_the_default_world(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(alerts, "of_the_process", [])
        told: list[Alert] = []
        layercache.on_alert(told.append)

        with Caches(settings(hit_rate_under=0.5, least_reads=1)) as world:
            assert world._hooks() == []
        layercache.configure(settings(hit_rate_under=0.5, least_reads=1))
        cache = layercache.get_cache()
        until(lambda: cache.get("nothing") is not None or told)

        assert told[0].name == "default"

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_the_child_of_a_fork_has_alerts_of_its_own(self, tmp_path: Path) -> None:
        with Caches(settings(hit_rate_under=0.5, least_reads=1)) as world:
            cache, parent, told = world["default"], os.getpid(), tmp_path / "told"
            world.on_alert(lambda alert: told.write_text(f"{os.getpid() != parent} {alert.name}"))
            child = os.fork()
            if child == 0:
                try:
                    until(lambda: cache.get("nothing") is not None or (told.exists() and told.read_text()))
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            assert told.read_text() == "True default"


def test_faults_are_told_with_their_paths() -> None:
    with pytest.raises(ConfigError) as told:
        Caches(
            settings(
                hit_rate_under=2, window="2m", memory="90%", circuit_open_longer_than=-1, ignore=["dfault"]
            )
        )

    assert {fault.path for fault in told.value.faults} == {
        "alerts.hit_rate_under",
        "alerts.window",
        "alerts.memory",
        "alerts.circuit_open_longer_than",
    }
    with pytest.raises(ConfigError) as told:
        Caches(settings(ignore=["dfault"]))
    (fault,) = told.value.faults
    assert fault.path == "alerts.ignore[0]"
    assert "did you mean 'default'" in fault.message
