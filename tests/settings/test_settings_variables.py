"""What environment variables say: `LAYERCACHE_…`, and the seed variables that many services have already."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from layercache import ConfigError
from layercache.config import read_settings
from layercache.settings import CacheSettings, Settings


@pytest.fixture
def given(monkeypatch):
    """Set variables and read the settings."""

    def read(source: Any = None, environment: str | None = None, **variables: str) -> Settings:
        for name, text in variables.items():
            monkeypatch.setenv(name, text)
        return read_settings(source, environment)

    return read


def faults(read: Any, **variables: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(**variables)
    return [str(fault) for fault in caught.value.faults]


class TestOurOwn:
    def test_one_sets_a_key_of_a_cache_that_the_file_names(self, plain, given):
        stock = given(LAYERCACHE_CACHES__STOCK__TTL="10").caches["stock"]

        assert stock == CacheSettings(backend="local", ttl=10.0, ttls={"quote:*": 15.0, "News:*": 900.0})

    def test_one_defines_a_cache_that_the_file_does_not_name(self, plain, given):
        settings = given(LAYERCACHE_CACHES__BONDS__TTL="10")

        assert settings.caches["bonds"] == CacheSettings(backend="local", ttl=10.0)

    @pytest.mark.parametrize("name", ["LAYERCACHE_CACHES__STOCK__TTL", "LayerCache_caches__Stock__ttl"])
    def test_its_name_is_read_without_case(self, plain, given, name):
        assert given(**{name: "10"}).caches["stock"].ttl == 10

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("10", 10), ("2.5", 2.5), ("5m", 300), ('"5m"', 300), ("1h30m", 5400), ("forever", float("inf"))],
    )
    def test_it_gives_durations(self, plain, given, text, seconds):
        assert given(LAYERCACHE_CACHES__STOCK__TTL=text).caches["stock"].ttl == seconds

    def test_it_gives_sizes_lists_and_tables(self, plain, given):
        settings = given(
            LAYERCACHE_BACKENDS__LOCAL__MAX_BYTES="1KB",
            LAYERCACHE_BACKENDS__SHARED__CODECS='["json", { type = "zstd", level = 9 }]',
            LAYERCACHE_BACKENDS__LAYERED__LAYERS='["shared"]',
            LAYERCACHE_CACHES__STOCK__TTLS='{ "Quote:*" = "1m", "a__b" = 2 }',
        )

        assert settings.backends["local"].options.max_bytes == 1024
        assert settings.backends["shared"].options.codecs[1].options.level == 9
        assert settings.backends["layered"].options.layers == ("shared",)
        assert settings.caches["stock"].ttls == {"quote:*": 15, "News:*": 900, "Quote:*": 60, "a__b": 2}

    def test_it_gives_whole_tables_which_merge(self, plain, given):
        settings = given(
            LAYERCACHE_CACHES="{ stock = { ttl = 3 }, bonds = {} }", LAYERCACHE_CACHES__BONDS__TTL="4"
        )

        assert settings.caches["stock"].ttls == {"quote:*": 15, "News:*": 900}
        assert [settings.caches[name].ttl for name in ("stock", "bonds")] == [3, 4]

    def test_it_may_define_everything(self, folder, given):
        settings = given(
            LAYERCACHE_BACKENDS__FAR__TYPE="redis",
            LAYERCACHE_BACKENDS__FAR__PREFIX="app",
            LAYERCACHE_CACHES__DEFAULT__BACKEND="FAR",
            REDIS_HOST="cache.internal",
        )

        assert settings.caches["default"].backend == "far"
        assert settings.backends["far"].options.host == "cache.internal"

    def test_it_changes_a_file_that_was_asked_for_as_well(self, plain, given):
        file = plain.path / "settings.toml"

        assert given(file, LAYERCACHE_CACHES__STOCK__TTL="10").caches["stock"].ttl == 10

    def test_it_wins_over_every_file_and_environment(self, plain, given):
        plain.write("[production.caches.stock]\nttl = 7\n", ".secrets.toml")

        assert given(None, "production").caches["stock"].ttl == 7
        assert given(None, "production", LAYERCACHE_CACHES__STOCK__TTL="10").caches["stock"].ttl == 10

    def test_it_wins_over_the_seed_variables(self, plain, given):
        settings = given(
            REDIS_ENABLED="true",
            REDIS_PORT="1",
            MEMORY_CACHE_TTL_DEFAULT="1",
            LAYERCACHE_CACHES__DEFAULT__BACKEND="shared",
            LAYERCACHE_BACKENDS__SHARED__PORT="2",
            LAYERCACHE_CACHES__DEFAULT__TTL="2",
        )

        assert (settings.caches["default"].backend, settings.caches["default"].ttl) == ("shared", 2)
        assert settings.backends["shared"].options.port == 2

    def test_dynaconfs_tokens_work_in_it(self, plain, given):
        settings = given(SECONDS="7", LAYERCACHE_CACHES__STOCK__TTL="@format {env[SECONDS]}s")

        assert settings.caches["stock"].ttl == 7

    def test_those_of_the_test_suite_are_no_settings(self, plain, given):
        assert given(LAYERCACHE_TEST_SOMETHING="1").caches["stock"].ttl == 300

    @pytest.mark.parametrize(
        ("variable", "text", "message"),
        [
            (
                "LAYERCACHE_CACHES__STOCK__TTL",
                "soon",
                (
                    "caches.stock.ttl: is no duration; right are seconds (15, 0.5) and "
                    'text such as "250ms", "15s", "5m" or "1h30m" (from LAYERCACHE_CACHES__STOCK__TTL)'
                ),
            ),
            (
                "LAYERCACHE_CACHES__STOCK__TTL",
                "",
                (
                    "caches.stock.ttl: is no duration; right are seconds (15, 0.5) and "
                    'text such as "250ms", "15s", "5m" or "1h30m" (from LAYERCACHE_CACHES__STOCK__TTL)'
                ),
            ),
            (
                "LAYERCACHE_CACHES__STOCK__TTL__X",
                "1",
                (
                    "caches.stock.ttl: is no duration; right are seconds (15, 0.5) and "
                    'text such as "250ms", "15s", "5m" or "1h30m" (from LAYERCACHE_CACHES__STOCK__TTL__X)'
                ),
            ),
            (
                "LAYERCACHE_CACHES__STOCK__TTLS",
                '{ "a" = 0 }',
                (
                    "caches.stock.ttls.a: is no time to live: it has to be more "
                    "than 0 (the backend 'null' keeps nothing) (from LAYERCACHE_CACHES__STOCK__TTLS)"
                ),
            ),
            (
                "LAYERCACHE_CACHES__STOCK__TLL",
                "1",
                "caches.stock.tll: unknown key; did you mean 'ttl'? (from LAYERCACHE_CACHES__STOCK__TLL)",
            ),
            (
                "LAYERCACHE_CACHES__STOCK",
                "1",
                "caches.stock: has to be a table of settings, not a single value (from LAYERCACHE_CACHES__STOCK)",
            ),
            (
                "LAYERCACHE_CACHES",
                "1",
                "caches: has to be a table of caches by name (from LAYERCACHE_CACHES)",
            ),
            (
                "LAYERCACHE_CACHE__STOCK__TTL",
                "1",
                "cache: unknown key; did you mean 'caches'? (from LAYERCACHE_CACHE__STOCK__TTL)",
            ),
            (
                "LAYERCACHE_DEBUG",
                "1",
                "debug: unknown key; there are admin, alerts, backends, caches (from LAYERCACHE_DEBUG)",
            ),
            ("LAYERCACHE_", "1", "LAYERCACHE_: names no setting, as LAYERCACHE_CACHES__STOCK__TTL does"),
            (
                "LAYERCACHE_CACHES____TTL",
                "1",
                "LAYERCACHE_CACHES____TTL: names no setting, as LAYERCACHE_CACHES__STOCK__TTL does",
            ),
            (
                "LAYERCACHE_BACKENDS__FAR__URL",
                "redis://h",
                (
                    "backends.far.type: has to be the name of a type; there are "
                    "chain, memory, null, redis (from LAYERCACHE_BACKENDS__FAR__URL)"
                ),
            ),
            (
                "LAYERCACHE_BACKENDS__SHARED__PREFIX",
                "7",
                (
                    "backends.shared.prefix: has to be text; write @str before the value "
                    "(from LAYERCACHE_BACKENDS__SHARED__PREFIX)"
                ),
            ),
            (
                "LAYERCACHE_BACKENDS__LAYERED__LAYERS",
                "local,shared",
                (
                    "backends.layered.layers: has to be a list; write it "
                    """as '["a", "b"]' (from LAYERCACHE_BACKENDS__LAYERED__LAYERS)"""
                ),
            ),
            (
                "LAYERCACHE_BACKENDS__SHARED__CODECS",
                '["json", "zip"]',
                (
                    "backends.shared.codecs[1]: no stage named 'zip'; "
                    "did you mean 'gzip'? (from LAYERCACHE_BACKENDS__SHARED__CODECS)"
                ),
            ),
            (
                "LAYERCACHE_CACHES__STOCK__TTL",
                "@int x",
                (
                    "LAYERCACHE_CACHES__STOCK__TTL: holds a @token that dynaconf "
                    "cannot resolve (DynaconfParseError)"
                ),
            ),
            (
                "LAYERCACHE_CACHES__STOCK__TTL",
                "@merge 5",
                "LAYERCACHE_CACHES__STOCK__TTL: @merge and its kin mean nothing here: tables merge, lists replace",
            ),
            (
                "LAYERCACHE_CACHES__STOCK__TTL",
                "@del",
                "LAYERCACHE_CACHES__STOCK__TTL: @merge and its kin mean nothing here: tables merge, lists replace",
            ),
        ],
    )
    def test_a_wrong_one_is_named_in_the_fault(self, plain, given, variable, text, message):
        assert faults(given, **{variable: text}) == [message]

    def test_text_of_digits_stays_text_with_a_token(self, plain, given):
        settings = given(LAYERCACHE_BACKENDS__SHARED__PASSWORD="@str 12345")

        assert settings.backends["shared"].options.password.get_secret_value() == "12345"


class TestRedisEnabled:
    @pytest.mark.parametrize("text", ["true", "True", "TRUE", "1", "yes", "on", " true "])
    def test_it_turns_the_default_cache_from_memory_to_the_chain_of_the_file(self, plain, given, text):
        before = read_settings()
        settings = given(REDIS_ENABLED=text)

        assert {name: cache.backend for name, cache in settings.caches.items()} == {
            "default": "layered",
            "stock": "layered",
        }
        assert settings.backends == before.backends

    @pytest.mark.parametrize("text", ["false", "False", "0", "no", "off"])
    def test_false_turns_it_back_to_memory(self, plain, given, text):
        settings = given(None, "production", REDIS_ENABLED=text)

        assert settings.caches["default"].backend == "local"

    @pytest.mark.parametrize("environment", ["default", "production"])
    def test_unset_or_empty_it_changes_nothing(self, plain, given, environment):
        before = read_settings(environment=environment)

        assert given(None, environment, REDIS_ENABLED="") == before

    def test_what_is_so_already_stays(self, plain, given):
        before, production = read_settings(), read_settings(environment="production")

        assert given(REDIS_ENABLED="false") == before
        assert given(None, "production", REDIS_ENABLED="true") == production

    def test_anything_else_is_an_error(self, plain, given):
        assert faults(given, REDIS_ENABLED="ture") == ["REDIS_ENABLED: has to be true or false"]

    def test_with_nothing_there_at_all_it_makes_the_chain(self, folder, given):
        settings = given(REDIS_ENABLED="true", REDIS_HOST="cache.internal", REDIS_PORT="6380")

        assert settings.caches["default"].backend == "layered"
        assert settings.backends["layered"].options.layers == ("local", "shared")
        assert settings.backends["local"].type == "memory"
        assert (settings.backends["shared"].options.host, settings.backends["shared"].options.port) == (
            "cache.internal",
            6380,
        )

    def test_over_an_empty_file_it_makes_all_three(self, folder, given):
        folder.write("")

        settings = given(REDIS_ENABLED="true")

        assert list(settings.backends) == ["local", "shared", "layered"]
        assert settings.caches["default"].backend == "layered"

    def test_what_it_makes_takes_no_name_that_is_taken(self, folder, given):
        folder.write(
            """
            [default.backends.shared]
            type = "memory"
            [default.backends.layered]
            type = "null"
            [default.caches.default]
            backend = "shared"
            """
        )

        settings = given(REDIS_ENABLED="true")

        assert settings.caches["default"].backend == "layered_"
        assert settings.backends["layered_"].options.layers == ("shared", "shared_")

    def test_it_makes_a_chain_of_the_backends_there_are(self, folder, given):
        folder.write(
            """
            [default.backends.far]
            type = "redis"
            [default.backends.other]
            type = "memory"
            [default.backends.near]
            type = "memory"
            [default.caches.default]
            backend = "Near"
            """
        )

        settings = given(REDIS_ENABLED="true", REDIS_PORT="1", MEMORY_CACHE_MAX_SIZE="2")

        assert settings.backends["layered"].options.layers == ("near", "far")
        assert settings.backends["far"].options.port == 1
        assert settings.backends["near"].options.max_entries == 2
        assert settings.backends["other"].options.max_entries == 10_000

    def test_of_several_chains_it_takes_the_one_over_the_backend_of_the_default_cache(self, folder, given):
        folder.write(
            """
            [default.backends]
            m = { type = "memory" }
            n = { type = "memory" }
            r = { type = "redis" }
            s = { type = "redis" }
            no_redis = { type = "chain", layers = ["n", "m"] }
            over_m = { type = "chain", layers = ["m", "r"] }
            over_n = { type = "chain", layers = ["N", "S"] }
            [default.caches.default]
            backend = "n"
            """
        )

        settings = given(REDIS_ENABLED="true", REDIS_DB="7")

        assert settings.caches["default"].backend == "over_n"
        assert (settings.backends["r"].options.db, settings.backends["s"].options.db) == (None, 7)

    def test_false_makes_a_memory_backend_where_there_is_none(self, folder, given):
        folder.write(
            '[default.backends.local]\ntype = "redis"\n[default.caches.default]\nbackend = "local"\n'
        )

        settings = given(REDIS_ENABLED="false")

        assert settings.caches["default"].backend == "local_"
        assert settings.backends["local_"].type == "memory"

    @pytest.mark.parametrize("enabled", ["true", "false"])
    def test_a_default_cache_on_null_stays_off(self, folder, given, enabled):
        folder.write(
            '[default.backends.nothing]\ntype = "null"\n[default.caches.default]\nbackend = "nothing"\n'
        )

        assert given(REDIS_ENABLED=enabled).caches["default"].backend == "nothing"

    @pytest.mark.parametrize("enabled", ["true", "false"])
    @pytest.mark.parametrize(
        "text",
        [
            "backends = 5",
            "caches = 5",
            "backends.layered = 5",
            "caches.default = 5",
            "caches.default.backend = [5]",
            "backends.layered = { type = 'chain', layers = 5 }",
            "backends.layered = { type = 'chain', layers = [5, ['local']] }",
            "backends.local = { type = ['memory'] }",
        ],
    )
    def test_over_settings_that_make_no_sense_it_brings_no_other_error(self, folder, given, text, enabled):
        folder.write(f"[default]\n{text}\n")

        with suppress(ConfigError):  # where what it sets replaces the nonsense, there is none
            given(REDIS_ENABLED=enabled, REDIS_PORT="1", MEMORY_CACHE_TTL_DEFAULT="1")

    def test_a_misspelt_backend_is_not_papered_over(self, plain, given):
        found = faults(given, REDIS_ENABLED="true", LAYERCACHE_CACHES__DEFAULT__BACKEND="lokal")

        assert found == [
            (
                "caches.default.backend: no backend named 'lokal'; did you mean 'local'? "
                "(from LAYERCACHE_CACHES__DEFAULT__BACKEND)"
            )
        ]


class TestTheOtherSeeds:
    def test_they_speak_of_the_backends_there_are(self, plain, given):
        settings = given(
            REDIS_HOST="cache.internal",
            REDIS_PORT="6380",
            REDIS_PASSWORD="0123",
            REDIS_DB="3",
            REDIS_MAX_CONNECTIONS="7",
            MEMORY_CACHE_MAX_SIZE="100",
            MEMORY_CACHE_TTL_DEFAULT="60",
        )

        shared = settings.backends["shared"].options
        assert (shared.host, shared.port, shared.db, shared.max_connections) == ("cache.internal", 6380, 3, 7)
        assert shared.password.get_secret_value() == "0123"
        assert settings.backends["local"].options.max_entries == 100
        assert settings.caches["default"].ttl == settings.caches["stock"].ttl == 60

    def test_they_win_over_files_and_environments(self, plain, given):
        plain.write(
            '[production.backends.shared]\nhost = "of-the-file"\npassword = "of-the-file"\n', ".secrets.toml"
        )

        shared = given(None, "production", REDIS_HOST="of-the-variable").backends["shared"].options

        assert shared.host == "of-the-variable"
        assert shared.password.get_secret_value() == "of-the-file"

    @pytest.mark.parametrize(
        "password", ["@int x", "1e5", "true", "[a]", '"quoted"', "a#b", " blank ", "@del"]
    )
    def test_a_password_is_taken_as_it_stands(self, plain, given, password):
        options = given(REDIS_PASSWORD=password).backends["shared"].options

        assert options.password.get_secret_value() == password

    def test_a_ttl_may_be_text(self, plain, given):
        assert given(MEMORY_CACHE_TTL_DEFAULT="1h").caches["default"].ttl == 3600

    def test_empty_ones_are_none(self, plain, given):
        before = read_settings()
        names = "REDIS_HOST REDIS_PORT REDIS_PASSWORD REDIS_DB REDIS_MAX_CONNECTIONS MEMORY_CACHE_MAX_SIZE"

        assert given(**dict.fromkeys([*names.split(), "MEMORY_CACHE_TTL_DEFAULT"], "")) == before

    def test_where_there_is_nothing_that_they_could_mean_they_say_nothing(self, folder, given):
        folder.write(
            '[default.backends.nothing]\ntype = "null"\n[default.caches.stock]\nbackend = "nothing"\n'
        )
        before = read_settings()

        assert (
            given(REDIS_PORT="tcp://10.0.0.1", MEMORY_CACHE_MAX_SIZE="x", MEMORY_CACHE_TTL_DEFAULT="x")
            == before
        )

    @pytest.mark.parametrize(
        ("variable", "text", "message"),
        [
            (
                "REDIS_PORT",
                "tcp://10.0.0.1:6379",
                "backends.shared.port: has to be a whole number (from REDIS_PORT)",
            ),
            ("REDIS_PORT", "0", "backends.shared.port: has to be 1 or more (from REDIS_PORT)"),
            ("REDIS_PORT", "65536", "backends.shared.port: has to be 65535 or less (from REDIS_PORT)"),
            ("REDIS_DB", "-1", "backends.shared.db: has to be 0 or more (from REDIS_DB)"),
            ("REDIS_DB", "one", "backends.shared.db: has to be a whole number (from REDIS_DB)"),
            (
                "REDIS_MAX_CONNECTIONS",
                "0",
                "backends.shared.max_connections: has to be 1 or more (from REDIS_MAX_CONNECTIONS)",
            ),
            (
                "REDIS_MAX_CONNECTIONS",
                "1.5",
                "backends.shared.max_connections: has to be a whole number (from REDIS_MAX_CONNECTIONS)",
            ),
            (
                "REDIS_HOST",
                "redis://h:1/0",
                (
                    "backends.shared.host: is no name or address of a host; it stands alone, such as "
                    "cache.internal or 10.0.0.7 (from REDIS_HOST)"
                ),
            ),
            (
                "REDIS_HOST",
                "h:6379",
                (
                    "backends.shared.host: is no name or address of a host; it stands alone, such as "
                    "cache.internal or 10.0.0.7 (from REDIS_HOST)"
                ),
            ),
            (
                "MEMORY_CACHE_MAX_SIZE",
                "64MB",
                "backends.local.max_entries: has to be a whole number (from MEMORY_CACHE_MAX_SIZE)",
            ),
            (
                "MEMORY_CACHE_MAX_SIZE",
                "-1",
                "backends.local.max_entries: has to be 1 or more (from MEMORY_CACHE_MAX_SIZE)",
            ),
            (
                "MEMORY_CACHE_TTL_DEFAULT",
                "0",
                (
                    "caches.default.ttl: is no time to live: it has to be more than 0 (the backend "
                    "'null' keeps nothing) (from MEMORY_CACHE_TTL_DEFAULT)"
                ),
            ),
            (
                "MEMORY_CACHE_TTL_DEFAULT",
                "long",
                (
                    "caches.default.ttl: is no duration; right are seconds (15, 0.5) and text "
                    'such as "250ms", "15s", "5m" or "1h30m" (from MEMORY_CACHE_TTL_DEFAULT)'
                ),
            ),
        ],
    )
    def test_a_nonsense_value_is_a_fault_that_names_the_variable(self, plain, given, variable, text, message):
        assert faults(given, **{variable: text}) == [message]

    def test_what_does_not_fit_together_is_blamed_on_no_single_variable(self, plain, given):
        assert faults(given, LAYERCACHE_BACKENDS__SHARED__URL="unix:///s", REDIS_PORT="1") == [
            "backends.shared: a socket has no host and no port: leave them out, or the unix:// of the url"
        ]

    def test_all_of_them_are_at_fault_at_once(self, plain, given):
        found = faults(given, REDIS_PORT="x", REDIS_DB="x", REDIS_ENABLED="x", MEMORY_CACHE_MAX_SIZE="x")

        assert len(found) == 4

    @pytest.mark.parametrize("host", ["::1", "10.0.0.7", "cache_1.internal", "münchen.example"])
    def test_hosts_are_names_and_addresses(self, plain, given, host):
        assert given(REDIS_HOST=host).backends["shared"].options.host == host
