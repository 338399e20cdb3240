"""How values are loaded, as the settings say it: for a cache, for patterns of keys, and for one call over both."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, ClassVar

import pytest

from layercache import Caches, ConfigError, InvalidOption, InvalidTtl
from layercache.config import read_settings
from layercache.core.policy import Overrides, Plan


def plan(key: str = "k", environ: dict[str, str] | None = None, **cache: Any) -> Plan:
    settings = {"backends": {"m": {"type": "memory"}}, "caches": {"default": {"backend": "m", **cache}}}
    return read_settings(settings, environ=environ).caches["default"].policy().plan_for(key)


def faults(**cache: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        plan(**cache)
    return [str(fault).removeprefix("caches.default.") for fault in caught.value.faults]


class TestCache:
    def test_without_a_word_nothing_is_stale_and_a_load_takes_as_long_as_it_takes(self) -> None:
        assert plan() == Plan(
            ttl=300.0,
            stale_ttl=0.0,
            none_ttl=None,
            jitter=0.0,
            refresh="background",
            early_beta=1.0,
            retry_after=5.0,
            wait=30.0,
            lease_ttl=30.0,
            soft_timeout=math.inf,
            hard_timeout=math.inf,
            tags=(),
        )

    def test_each_setting_reaches_the_plan(self) -> None:
        told = plan(
            ttl="10s", stale_ttl="1h", none_ttl="1s", jitter=0.1, refresh="early", early_beta=2, retry_after="2s",
            wait="forever", lease_ttl="9s", soft_timeout="50ms", hard_timeout="8s", tags=["a", "b", "a"],
        )  # fmt: skip

        assert told == Plan(10.0, 3600.0, 1.0, 0.1, "early", 2.0, 2.0, math.inf, 9.0, 0.05, 8.0, ("a", "b"))

    def test_a_variable_sets_one(self, folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LAYERCACHE_CACHES__DEFAULT__STALE_TTL", "10m")
        monkeypatch.setenv("LAYERCACHE_CACHES__DEFAULT__TAGS", '["a"]')

        with Caches() as world:
            told = world.settings.caches["default"].policy().plan_for("k")

        assert (told.stale_ttl, told.tags) == (600.0, ("a",))

    @pytest.mark.parametrize(
        ("setting", "value", "message"),
        [
            ("stale_ttl", "-1s", "less than nothing"),
            ("stale_ttl", "soon", "is no duration"),
            ("none_ttl", -1, "less than nothing"),
            ("jitter", 1.5, "has to be 1.0 or less"),
            ("refresh", "sometimes", "'background', 'early' or 'off'"),
            ("early_beta", 0, "greater than 0"),
            ("retry_after", -5, "less than nothing"),
            ("wait", 0, "no time to wait"),
            ("lease_ttl", "forever", "too long to wait"),
            ("soft_timeout", "2d", "too long to wait"),
            ("hard_timeout", -1, "no time to wait"),
            ("tags", "news", "has to be a list"),
            ("tags", ["*"], "not '*'"),
            ("tags", [""], "1 to 255 bytes"),
        ],
    )
    def test_what_cannot_be_is_a_fault_with_its_path(self, setting: str, value: Any, message: str) -> None:
        (fault,) = faults(**{setting: value})

        assert fault.startswith(f"{setting}: ")
        assert message in fault

    def test_a_load_that_may_outlast_its_lease_is_a_fault(self) -> None:
        assert faults(hard_timeout="60s") == [
            "hard_timeout: is more than `lease_ttl`: what takes longer is not stored"
        ]
        assert faults(patterns={"q:*": {"lease_ttl": "1s"}}, hard_timeout="2s") == [
            "patterns.q:*.hard_timeout: is more than `lease_ttl`: what takes longer is not stored"
        ]


class TestPatterns:
    PATTERNS: ClassVar[dict[str, Any]] = {
        "quote:*": {"ttl": "15s", "stale_ttl": "1h", "tags": ["quotes"]},
        "quote:index:*": {"ttl": "1m", "tags": ["indices"]},
        "*:slow": {"hard_timeout": "9s"},
    }

    def test_each_setting_comes_from_the_most_literal_pattern_that_has_it(self) -> None:
        told = plan("quote:index:DAX:slow", patterns=self.PATTERNS, jitter=0.5)

        assert (told.ttl, told.stale_ttl, told.hard_timeout, told.jitter) == (60.0, 3600.0, 9.0, 0.5)

    def test_tags_add_up(self) -> None:
        assert plan("quote:index:DAX", patterns=self.PATTERNS, tags=["all"]).tags == (
            "all",
            "quotes",
            "indices",
        )
        assert plan("news:AAPL", patterns=self.PATTERNS, tags=["all"]).tags == ("all",)

    def test_ttls_is_the_short_form(self) -> None:
        told = plan("quote:AAPL", ttls={"quote:*": "7s"}, patterns={"quote:*": {"stale_ttl": 5}})

        assert (told.ttl, told.stale_ttl) == (7.0, 5.0)

    def test_both_forms_of_one_ttl_are_a_fault(self) -> None:
        assert faults(ttls={"q:*": "7s"}, patterns={"q:*": {"ttl": 5}}) == [
            "patterns.q:*.ttl: stands under `ttls` as well; one is enough"
        ]

    def test_an_unknown_key_is_a_fault_with_the_nearest(self) -> None:
        (fault,) = faults(patterns={"q:*": {"stale": 5}})

        assert fault.startswith("patterns.q:*.stale: unknown key; did you mean 'stale_ttl'")


class TestCall:
    def test_what_it_says_wins_and_its_tags_add_up(self) -> None:
        base = Plan(ttl=10.0, tags=("a",))

        told = Overrides("1m", {"stale_ttl": timedelta(hours=1), "wait": None, "tags": ["b"]}).over(base)

        assert (told.ttl, told.stale_ttl, told.wait, told.tags) == (60.0, 3600.0, math.inf, ("a", "b"))
        assert (base.ttl, base.tags) == (10.0, ("a",))

    def test_functions_of_the_value_stand_beside_what_is_known_before(self) -> None:
        ttl, tags = (lambda value: 5), (lambda value: ["b"])

        told = Overrides(ttl, {"tags": tags}).over(Plan(ttl=10.0, tags=("a",)))

        assert (told.ttl_of, told.tags_of, told.tags) == (ttl, tags, ("a",))

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"stale": 5}, InvalidOption, "did you mean 'stale_ttl'"),
            ({"refresh": "never"}, InvalidOption, "'never'"),
            ({"jitter": 2}, InvalidOption, "0.0 to 1.0"),
            ({"jitter": True}, InvalidOption, "0.0 to 1.0"),
            ({"early_beta": "much"}, InvalidOption, "early_beta"),
            ({"stale_ttl": None}, InvalidTtl, "has an end"),
            ({"stale_ttl": -1}, InvalidTtl, "more than 0"),
            ({"wait": 0}, InvalidTtl, "more than 0"),
            ({"hard_timeout": "soon"}, InvalidTtl, "'soon'"),
            ({"tags": "news"}, InvalidOption, r"\['news'\]"),
            ({"tags": 5}, InvalidOption, "several names"),
            ({"tags": [5]}, InvalidOption, "1 to 255 bytes"),
            ({"tags": ["x" * 256]}, InvalidOption, "1 to 255 bytes"),
            ({"tags": ["\ud800"]}, InvalidOption, "1 to 255 bytes"),
        ],
    )
    def test_what_cannot_be_is_an_error_that_says_so(
        self, options: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            Overrides(60, options)
