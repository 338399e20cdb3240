"""Which file is read, which environment of it, and how tables come together."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from dynaconf import Dynaconf

from layercache import Caches, ConfigError, UnknownCache, configure, get_cache
from layercache.config import read_settings

MEMORY = '[default.backends.local]\ntype = "memory"\n[default.caches.default]\nbackend = "local"\n'


def cache_named(name: str) -> str:
    return f"{MEMORY}[default.caches.{name}]\n"


class TestTheFile:
    def test_it_is_the_one_in_the_working_folder(self, folder):
        file = folder.write(cache_named("here"))

        settings = read_settings()

        assert "here" in settings.caches
        assert settings.origin == str(file)

    def test_it_is_the_nearest_above_when_the_working_folder_has_none(self, folder, monkeypatch):
        folder.write(cache_named("far"))
        nearest = folder.write(cache_named("near"), "a/settings.toml")
        (folder.path / "a/b/c").mkdir(parents=True)
        monkeypatch.chdir(folder.path / "a/b/c")

        settings = read_settings()

        assert "near" in settings.caches
        assert settings.origin == str(nearest)

    def test_the_one_in_the_working_folder_wins_over_those_above(self, folder, monkeypatch):
        folder.write(cache_named("above"))
        folder.write(cache_named("here"), "a/settings.toml")
        monkeypatch.chdir(folder.path / "a")

        assert "here" in read_settings().caches

    def test_a_folder_of_that_name_is_no_file(self, folder, monkeypatch):
        folder.write(cache_named("above"))
        (folder.path / "a/settings.toml").mkdir(parents=True)
        monkeypatch.chdir(folder.path / "a")

        assert "above" in read_settings().caches

    @pytest.mark.parametrize("name", ["elsewhere/app.toml", "a,b;c/settings.toml", "app.conf"])
    def test_it_is_the_one_that_the_variable_names(self, plain, monkeypatch, name):
        plain.write(cache_named("named"), name)
        monkeypatch.setenv("LAYERCACHE_SETTINGS", name)

        assert "named" in read_settings().caches

    def test_it_is_the_one_asked_for_whatever_the_variable_names(self, plain, monkeypatch):
        monkeypatch.setenv("LAYERCACHE_SETTINGS", str(plain.write(cache_named("named"), "named.toml")))
        asked_for = plain.write(cache_named("asked"), "asked.toml")

        assert "asked" in read_settings(asked_for).caches
        assert "asked" in Caches(str(asked_for))

    def test_an_empty_variable_names_none(self, plain, monkeypatch):
        monkeypatch.setenv("LAYERCACHE_SETTINGS", "")

        assert "stock" in read_settings().caches

    def test_without_any_one_cache_in_memory_serves(self, folder):
        settings = read_settings()

        assert settings.origin == "the built-in default"
        assert settings.environment == "development"
        assert {name: backend.type for name, backend in settings.backends.items()} == {"local": "memory"}
        assert {name: cache.backend for name, cache in settings.caches.items()} == {"default": "local"}
        get_cache().set("k", 1)
        assert get_cache().get("k") == 1

    def test_one_that_is_named_and_missing_is_an_error_and_no_default(self, plain, monkeypatch):
        with pytest.raises(ConfigError, match=r"gone\.toml: the file asked for does not exist"):
            read_settings("gone.toml")
        with pytest.raises(ConfigError, match="does not exist"):
            read_settings("")
        monkeypatch.setenv("LAYERCACHE_SETTINGS", "missing.toml")
        with pytest.raises(
            ConfigError, match=r"missing\.toml: the file that LAYERCACHE_SETTINGS names does not"
        ):
            read_settings()

    def test_a_working_folder_that_is_gone_is_an_error(self, folder):
        folder.path.rmdir()

        with pytest.raises(
            ConfigError, match=r"settings\.toml: the working folder, to look for it in, is gone"
        ):
            read_settings()

    def test_one_that_may_not_be_read_is_an_error(self, folder, monkeypatch):
        folder.write(MEMORY)

        def refuse(*_: object) -> None:  # chmod does not stop root
            raise PermissionError(13, "Permission denied", "hunter2")

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(ConfigError, match=r"settings\.toml: cannot be read: Permission denied$"):
            read_settings()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"a = \n", "settings.toml: is no TOML: Invalid value (at line 1, column 5)"),
            (b"\xff\xfe", "settings.toml: is no UTF-8 text"),
            (
                b"[default.backends.l]\ntype = '@int hunter2'",
                "settings.toml: holds a @token that dynaconf cannot resolve",
            ),
            (
                b"[default.backends.l]\ntype = '@format {this.no}'",
                "settings.toml: holds a @token that dynaconf cannot",
            ),
        ],
    )
    def test_one_that_is_broken_is_an_error_without_its_content(self, folder, content, message):
        (folder.path / "settings.toml").write_bytes(content)

        with pytest.raises(ConfigError) as caught:
            read_settings()

        assert message in str(caught.value)
        assert "hunter2" not in str(caught.value)

    def test_all_broken_files_are_named_at_once(self, folder):
        folder.write("a")
        folder.write("b", ".secrets.toml")

        with pytest.raises(ConfigError) as caught:
            read_settings()

        assert [fault.path for fault in caught.value.faults] == ["settings.toml", ".secrets.toml"]

    def test_what_a_broken_one_lacks_is_no_fault_of_the_others(self, folder):
        folder.write("a")
        folder.write('[default.caches.default]\nbackend = "local"\n', "settings.local.toml")

        with pytest.raises(ConfigError) as caught:
            read_settings()

        assert [fault.path for fault in caught.value.faults] == ["settings.toml"]

    def test_an_empty_one_defines_nothing(self, folder):
        folder.write("")

        assert list(Caches()) == []
        with pytest.raises(UnknownCache, match=r"no cache named 'default' in .*; there are none"):
            get_cache()

    def test_dynaconfs_tokens_work_in_it(self, folder, monkeypatch):
        monkeypatch.setenv("SOME_TTL", "7")
        folder.write(MEMORY + 'ttl = "@format {env[SOME_TTL]}s"\nmax_key_bytes = "@int 77"\n')

        default = read_settings().caches["default"]

        assert (default.ttl, default.max_key_bytes) == (7, 77)


class TestTheEnvironment:
    TEXT = MEMORY + "".join(
        f"[{name}.caches.default]\nttl = {ttl}\n"
        for name, ttl in [("development", 1), ("Staging", 2), ("x", 3)]
    )

    @pytest.mark.parametrize(
        ("variable", "ttl"), [(None, 1), ("", 1), ("staging", 2), ("STAGING", 2), ("x", 3), ("default", 300)]
    )
    def test_the_variable_chooses_it_and_it_is_development_when_unset(
        self, folder, monkeypatch, variable, ttl
    ):
        folder.write(self.TEXT)
        if variable is not None:
            monkeypatch.setenv("LAYERCACHE_ENV", variable)

        settings = read_settings()

        assert settings.caches["default"].ttl == ttl
        assert settings.environment == (variable or "development").lower()

    def test_the_one_asked_for_wins_over_the_variable(self, folder, monkeypatch):
        folder.write(self.TEXT)
        monkeypatch.setenv("LAYERCACHE_ENV", "x")

        assert Caches(environment="staging").settings.caches["default"].ttl == 2

    def test_a_file_need_not_name_development(self, folder):
        folder.write(MEMORY)

        assert read_settings().environment == "development"

    def test_one_that_no_file_names_is_an_error_that_lists_those_there_are(self, folder, monkeypatch):
        folder.write(self.TEXT)

        with pytest.raises(ConfigError) as asked:
            read_settings(environment="live")
        monkeypatch.setenv("LAYERCACHE_ENV", "stagging")
        with pytest.raises(ConfigError) as misspelt:
            read_settings()

        assert (
            str(asked.value.faults[0])
            == "live: no such environment; there are default, development, staging, x"
        )
        assert str(misspelt.value.faults[0]) == (
            "stagging: no such environment; did you mean 'staging'? (from LAYERCACHE_ENV)"
        )

    def test_one_asked_for_where_there_is_no_file_is_an_error(self, folder, monkeypatch):
        monkeypatch.setenv("LAYERCACHE_ENV", "production")

        with pytest.raises(ConfigError, match="1 fault in the built-in default, environment 'production'"):
            read_settings()

    def test_it_may_be_named_by_a_file_beside_the_first(self, folder):
        folder.write(MEMORY)
        folder.write("[ci.caches.default]\nttl = 9\n", "settings.local.toml")

        assert read_settings(environment="ci").caches["default"].ttl == 9

    def test_two_tables_of_one_name_in_different_case_are_one(self, folder):
        folder.write(MEMORY + "[Production.caches.a]\n[production.caches.b]\n")

        assert list(read_settings(environment="PRODUCTION").caches) == ["default", "a", "b"]


class TestMerging:
    def test_tables_merge_deeply_and_lists_replace(self, folder):
        folder.write(
            """
            [default.backends.local]
            type = "memory"
            max_entries = 5
            [default.backends.shared]
            type = "redis"
            codecs = ["json", "zstd"]
            prefix = "app"
            [default.caches.default]
            backend = "local"
            [default.caches.stock]
            ttl = "5m"
            ttls = { "quote:*" = "15s", "news:*" = "15m" }
            [production.backends.shared]
            codecs = ["json"]
            [production.caches.stock]
            ttls = { "quote:*" = "5s" }
            """
        )

        settings = read_settings(environment="production")

        assert settings.caches["stock"].ttl == 300
        assert settings.caches["stock"].ttls == {"quote:*": 5, "news:*": 900}
        assert settings.backends["local"].options.max_entries == 5
        assert settings.backends["shared"].options.prefix == "app"
        assert [stage.name for stage in settings.backends["shared"].options.codecs] == ["json"]

    def test_files_beside_win_over_the_file_and_an_environment_over_default_in_each(self, folder):
        tables = "[default.caches.{0}]\nttl = {1}\n[production.caches.{0}]\nmax_key_bytes = {1}\n"
        names = ("a", "b", "c")
        folder.write(MEMORY + "".join(tables.format(name, 1) for name in names))
        folder.write("".join(tables.format(name, 2) for name in names[1:]), "settings.local.toml")
        folder.write("".join(tables.format(name, 3) for name in names[2:]), ".secrets.toml")

        caches = read_settings(environment="production").caches

        assert [(caches[name].ttl, caches[name].max_key_bytes) for name in names] == [(1, 1), (2, 2), (3, 3)]

    def test_default_beside_wins_over_an_environment_of_the_file(self, folder):
        folder.write(MEMORY + "[production.caches.default]\nttl = 1\n")
        folder.write("[default.caches.default]\nttl = 2\n", "settings.local.toml")

        assert read_settings(environment="production").caches["default"].ttl == 2

    def test_the_local_variant_has_the_name_of_the_file(self, folder):
        file = folder.write(MEMORY, "app.toml")
        folder.write("[default.caches.default]\nttl = 1\n", "app.local.toml")
        folder.write("[default.caches.default]\nttl = 2\n", "settings.local.toml")

        assert read_settings(file).caches["default"].ttl == 1

    def test_secrets_alone_are_no_settings_file(self, folder):
        folder.write("[default.caches.default]\nttl = 2\n", ".secrets.toml")

        assert read_settings().origin == "the built-in default"

    def test_names_and_keys_are_compared_without_case_and_patterns_are_not(self, folder):
        folder.write(
            """
            [default.Backends.LOCAL]
            Type = "memory"
            [default.backends.Chained]
            type = "chain"
            layers = ["Local"]
            [default.caches.Default]
            backend = "loCAL"
            [default.caches.stock]
            backend = "CHAINED"
            ttls = { "Quote:*" = 1 }
            [development.CACHES.STOCK]
            TTL = 2
            ttls = { "quote:*" = 3 }
            """
        )

        with Caches() as caches:
            assert list(caches.settings.backends) == ["local", "chained"]
            assert list(caches) == ["default", "stock"]
            assert caches.settings.caches["stock"].ttl == 2
            assert caches.settings.caches["stock"].ttls == {"Quote:*": 1, "quote:*": 3}
            for name in ("default", "Stock"):
                caches[name].set("k", name)
                assert caches[name].get("k") == name

    @pytest.mark.parametrize(
        "variable",
        [
            "DOTTED_LOOKUP",
            "ENVIRONMENTS",
            "INCLUDES",
            "PRELOAD",
            "SETTINGS_FILE",
            "LOAD_DOTENV",
            "DYNABOXIFY",
        ],
    )
    def test_variables_meant_for_dynaconf_change_nothing(self, plain, monkeypatch, variable):
        monkeypatch.setenv("LAYERCACHE_CACHES__STOCK__TTLS", '{ "x:*" = 1 }')
        before = read_settings(environment="production")
        monkeypatch.setenv(
            f"{variable}_FOR_DYNACONF", str(plain.write("[default]\nintruder = 1\n", "other.toml"))
        )
        monkeypatch.setenv("MERGE_ENABLED_FOR_DYNACONF", "true")
        monkeypatch.setenv("DYNACONF_CACHES", "@json {}")
        plain.write("LAYERCACHE_CACHES__STOCK__TTL=1", ".env")

        assert read_settings(environment="production") == before


class TestDynaconfByItself:
    """What `layercache.sources` and our own merging are there for; when these fail, look whether they still are."""

    TEXT = """
    [default.caches.stock]
    ttl = 1
    codecs = ["json", "zstd"]
    [production.caches.news]
    ttl = 2
    [production.caches.stock]
    codecs = ["json"]
    """

    def read(self, folder, **options: Any) -> dict[str, Any]:
        file = folder.write(self.TEXT, "dynaconf.toml")
        found = Dynaconf(settings_files=[str(file)], environments=True, env="production", **options)
        return found.as_dict()["CACHES"]

    def test_without_merging_it_replaces_the_whole_table_of_caches(self, folder):
        assert self.read(folder) == {"news": {"ttl": 2}, "stock": {"codecs": ["json"]}}

    def test_with_merging_it_concatenates_lists(self, folder):
        merged = self.read(folder, merge_enabled=True)

        assert merged["stock"]["ttl"] == 1
        assert merged["stock"]["codecs"] == ["json", "zstd", "json"]

    def test_ours_does_neither(self, folder):
        folder.write(
            """
            [default.backends.l]
            type = "redis"
            codecs = ["json", "zstd"]
            [live.backends.l]
            codecs = ["json"]
            [live.backends.m]
            type = "memory"
            """
        )

        settings = read_settings(environment="live")

        assert list(settings.backends) == ["l", "m"]
        assert [stage.name for stage in settings.backends["l"].options.codecs] == ["json"]


class TestInheritance:
    def test_every_cache_inherits_what_it_does_not_say_from_the_default_one(self, folder):
        folder.write(
            """
            [default.backends.local]
            type = "memory"
            [default.backends.other]
            type = "memory"
            [default.caches.default]
            backend = "local"
            ttl = "1h"
            max_key_bytes = 99
            ttls = { "a:*" = 1, "b:*" = 2 }
            [default.caches.stock]
            ttl = "5m"
            ttls = { "b:*" = 3, "c:*" = 4 }
            [default.caches.news]
            backend = "other"
            """
        )

        caches = read_settings().caches

        assert (caches["stock"].backend, caches["stock"].ttl, caches["stock"].max_key_bytes) == (
            "local",
            300,
            99,
        )
        assert caches["stock"].ttls == {"a:*": 1, "b:*": 3, "c:*": 4}
        assert caches["default"].ttls == {"a:*": 1, "b:*": 2}
        assert (caches["news"].backend, caches["news"].ttl) == ("other", 3600)

    def test_one_line_turns_all_caches_to_another_backend_in_an_environment(self, plain):
        assert {cache.backend for cache in read_settings().caches.values()} == {"local"}
        assert {cache.backend for cache in read_settings(environment="production").caches.values()} == {
            "layered"
        }

    def test_without_a_default_cache_each_stands_alone(self):
        tables = {"backends": {"m": {"type": "memory"}}, "caches": {"a": {"backend": "m"}, "b": {"ttl": 1}}}

        with pytest.raises(ConfigError) as caught:
            read_settings(tables)

        assert [str(fault) for fault in caught.value.faults] == ["caches.b.backend: is required"]


FLAT: dict[str, Any] = {
    "backends": {"m": {"type": "memory", "codecs": ["json"]}},
    "caches": {"default": {"backend": "m", "ttl": "1m"}, "stock": {}},
}


class TestAMapping:
    def test_the_default_table_alone_will_do(self):
        settings = read_settings(FLAT)

        assert settings.origin == "a mapping"
        assert settings.caches["stock"].ttl == 60

    def test_it_may_have_environments(self, monkeypatch):
        mapping = {"default": FLAT, "Production": {"caches": {"stock": {"ttl": 1}}}}

        assert read_settings(mapping).caches["stock"].ttl == 60
        assert read_settings(mapping, "production").caches["stock"].ttl == 1
        monkeypatch.setenv("LAYERCACHE_ENV", "production")
        assert read_settings(mapping).caches["stock"].ttl == 1

    def test_an_environment_that_it_lacks_is_an_error(self, monkeypatch):
        with pytest.raises(ConfigError, match="live: no such environment; there are default"):
            read_settings({"default": FLAT}, "live")
        monkeypatch.setenv("LAYERCACHE_ENV", "live")
        with pytest.raises(ConfigError, match="live: no such environment"):
            read_settings(FLAT, "live")

    def test_the_variable_does_not_choose_where_there_are_no_environments(self, monkeypatch):
        monkeypatch.setenv("LAYERCACHE_ENV", "live")

        assert read_settings(FLAT).caches["stock"].ttl == 60

    def test_variables_do_not_touch_it(self, monkeypatch):
        before = read_settings(FLAT)
        monkeypatch.setenv("LAYERCACHE_CACHES__STOCK__TTL", "1")
        monkeypatch.setenv("LAYERCACHE_NONSENSE", "1")
        monkeypatch.setenv("MEMORY_CACHE_TTL_DEFAULT", "1")
        monkeypatch.setenv("REDIS_ENABLED", "true")
        monkeypatch.setenv("LAYERCACHE_SETTINGS", "missing.toml")

        assert read_settings(FLAT) == before

    def test_reading_does_not_change_it_nor_share_its_lists(self):
        given = deepcopy(FLAT)

        settings = read_settings(given)
        given["caches"]["default"]["ttl"] = "9m"

        assert given["backends"] == FLAT["backends"]
        assert settings.caches["default"].ttl == 60

    def test_an_empty_one_defines_nothing(self, monkeypatch):
        monkeypatch.setenv("LAYERCACHE_ENV", "live")

        assert list(Caches({})) == []

    def test_for_ever_may_be_none_or_text(self):
        mapping = deepcopy(FLAT)
        mapping["caches"] |= {"a": {"ttl": None}, "b": {"ttl": "forever"}}

        caches = read_settings(mapping).caches

        assert caches["a"].ttl == caches["b"].ttl == float("inf")


class TestWorlds:
    def test_several_live_side_by_side(self, plain):
        with Caches() as one, Caches(environment="default") as two, Caches(FLAT) as three:
            one["stock"].set("k", 1)
            two["stock"].set("k", 2)
            three["stock"].set("k", 3)
            get_cache("stock").set("k", 4)

            assert [world["stock"].get("k") for world in (one, two, three)] == [1, 2, 3]
            assert get_cache("stock").get("k") == 4

    def test_configure_replaces_the_settings_of_the_process(self, plain):
        get_cache("stock").set("k", 1)

        configure({"backends": {"m": {"type": "memory"}}, "caches": {"news": {"backend": "m"}}})

        assert get_cache("news").get("k") is None
        with pytest.raises(UnknownCache):
            get_cache("stock")

    def test_configure_takes_a_file_and_an_environment(self, plain):
        configure(Path("settings.toml"), "production")

        assert get_cache.__globals__["_default"].settings.environment == "production"

    def test_configure_with_wrong_settings_changes_nothing(self, plain):
        cache = get_cache("stock")
        cache.set("k", 1)

        with pytest.raises(ConfigError):
            configure({"caches": {"default": {"backend": "nowhere"}}})

        assert get_cache("stock") is cache
        assert cache.get("k") == 1

    def test_an_unknown_name_is_an_error_with_the_nearest_names(self, plain):
        with pytest.raises(UnknownCache) as caught:
            get_cache("stok")

        file = plain.path / "settings.toml"
        assert str(caught.value) == (
            f"no cache named 'stok' in {file}, environment 'development'; did you mean 'stock'?"
        )
        with pytest.raises(UnknownCache, match="there are default, stock"):
            get_cache("zzz")
