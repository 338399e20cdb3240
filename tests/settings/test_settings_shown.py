"""What is shown of settings: all that is in force and no secret; and what reading them costs in imports."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import textwrap
import traceback
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from layercache import BackendError, Caches, ConfigError
from layercache.codecs.json import JsonStage
from layercache.config import effective, read_settings
from layercache.options import Codecs, Secret, StageOptions, options, plain, stages
from layercache.settings import BackendSettings, Settings

SECRET = "hunter2"
MASK = "**********"
CLOSED = "127.0.0.1:1"

URLS = [
    (f"redis://:{SECRET}@{CLOSED}/0", f"redis://:{MASK}@{CLOSED}/0"),
    (f"redis://app:{SECRET}@{CLOSED}", f"redis://app:{MASK}@{CLOSED}"),
    (f"rediss://app:{SECRET}@[::1]:1/2", f"rediss://app:{MASK}@[::1]:1/2"),
    (f"redis://app:a:{SECRET}@{CLOSED}", f"redis://app:{MASK}@{CLOSED}"),
    (f"redis://app:{SECRET}:b@{CLOSED}", f"redis://app:{MASK}@{CLOSED}"),
    (f"redis://app:a@{SECRET}@{CLOSED}", f"redis://app:{MASK}@{CLOSED}"),
    (f"redis://app:{SECRET}@b@{CLOSED}", f"redis://app:{MASK}@{CLOSED}"),
    (f"redis://{CLOSED}?password={SECRET}&db=1", f"redis://{CLOSED}?password={MASK}&db=1"),
    (f"redis://{CLOSED}?p%61ssword={SECRET}", f"redis://{CLOSED}?password={MASK}"),
    (f"unix:///gone.sock?password={SECRET}", f"unix:///gone.sock?password={MASK}"),
    (
        f"unix:///gone.sock?db=0&password={SECRET}&username=u",
        f"unix:///gone.sock?db=0&password={MASK}&username=u",
    ),
    (f"unix://u:{SECRET}@/gone.sock", f"unix://u:{MASK}@/gone.sock"),
]


def tables(**options: Any) -> dict[str, Any]:
    return {
        "backends": {
            "m": {"type": "null"},
            "b": {"type": "redis"} | options,
            "c": {"type": "chain", "layers": ["m", "b"]},
        },
        "caches": {"default": {"backend": "b"}, "chained": {"backend": "c"}},
    }


def shown(caches: Caches) -> str:
    """All the ways to print a world and its settings, together."""
    settings = caches.settings
    backend = caches.backend("b")
    parts = (
        caches,
        settings,
        settings.backends,
        settings.backends["b"].options,
        backend,
        backend.options,
        caches["default"],
    )
    return " ".join(f"{part} {part!r}" for part in parts) + json.dumps(effective(settings))


class TestSecrets:
    @pytest.mark.parametrize(("url", "masked"), URLS)
    def test_a_password_in_a_url_is_masked_wherever_it_is_printed(self, url, masked):
        caches = Caches(tables(url=url))

        assert SECRET not in shown(caches)
        assert str(caches.settings.backends["b"].options.url) == masked
        assert effective(caches.settings)["backends"]["b"]["url"] == masked
        assert caches.settings.backends["b"].options.url.text == url

    def test_a_password_of_its_own_is_masked_wherever_it_is_printed(self):
        caches = Caches(tables(password=SECRET))

        assert SECRET not in shown(caches)
        assert effective(caches.settings)["backends"]["b"]["password"] == MASK
        assert caches.settings.backends["b"].options.password.get_secret_value() == SECRET

    @pytest.mark.parametrize(
        "given", [{"url": url} for url, _ in URLS if "rediss" not in url] + [{"password": SECRET, "port": 1}]
    )
    def test_an_error_of_the_backend_does_not_tell_it(self, given, caplog):
        caplog.set_level(logging.DEBUG)
        with Caches(tables(**given)) as caches:
            with pytest.raises(BackendError) as caught:
                caches["default"].get("k")
            caches["chained"].set("k", 1)

        printed = "".join(traceback.format_exception(caught.value))
        assert SECRET not in f"{caught.value} {caught.value!r} {printed}"
        assert "failed" in caplog.text
        assert SECRET not in caplog.text

    def test_nor_does_a_server_that_refuses_it(self, server_url):
        caches = Caches(tables(url=server_url, username="app", password=SECRET))

        with caches, pytest.raises(BackendError) as caught:
            caches["default"].get("k")

        printed = "".join(traceback.format_exception(caught.value))
        assert SECRET not in f"{caught.value} {caught.value!r} {printed}"

    @pytest.mark.parametrize(
        "options",
        [
            {"password": [SECRET]},
            {"password": {"value": SECRET}},
            {"password": SECRET, "port": "x"},
            {"host": f":{SECRET}@localhost"},
            {"port": SECRET},
            {"db": SECRET},
            {"timeout": SECRET},
            {"max_value_bytes": SECRET},
            {"prefix": [SECRET]},
            {"codecs": SECRET},
            {"codecs": [[SECRET]]},
            {"codecs": ["json", {"type": "zstd", "level": SECRET}]},
        ],
    )
    def test_a_fault_repeats_no_value(self, options):
        with pytest.raises(ConfigError) as caught:
            Caches(tables(**options))

        printed = "".join(traceback.format_exception(caught.value))
        assert SECRET not in f"{caught.value} {caught.value!r} {printed}"

    @pytest.mark.parametrize("url", [f"redis://u:p@{SECRET}@h:1/0", f"unix:///s?password={SECRET}&db=1"])
    def test_a_url_where_a_name_belongs_is_repeated_without_its_password(self, url):
        wrong = {
            "backends": {
                "a": {"type": url},
                "b": {"type": "redis", "codecs": [url]},
                "c": {"type": "chain", "layers": [url]},
            },
            "caches": {"default": {"backend": url}},
        }

        with pytest.raises(ConfigError) as caught:
            read_settings(wrong)

        assert len(caught.value.faults) == 4
        assert SECRET not in f"{caught.value} {caught.value.faults}"

    @pytest.mark.parametrize(
        "text",
        [f"@int {SECRET}", f"@json {{{SECRET}", f"@reset {SECRET}", f"@format {{{SECRET}}}", f"[{SECRET}"],
    )
    def test_a_variable_that_cannot_be_read_is_not_repeated(self, folder, monkeypatch, text):
        monkeypatch.setenv("LAYERCACHE_BACKENDS__LOCAL__MAX_BYTES", text)

        with pytest.raises(ConfigError) as caught:
            read_settings()

        printed = "".join(traceback.format_exception(caught.value))
        assert "LAYERCACHE_BACKENDS__LOCAL__MAX_BYTES" in printed
        assert SECRET not in f"{caught.value!r} {printed}"

    def test_a_file_that_cannot_be_read_is_not_repeated(self, folder):
        folder.write(f'[default.backends.b]\npassword = "@int {SECRET}"\n')

        with pytest.raises(ConfigError) as caught:
            read_settings()

        assert SECRET not in "".join(traceback.format_exception(caught.value))

    PIECES = st.text(alphabet=":/@?#[]%&= 1\n\\.", max_size=6)

    @given(st.sampled_from(["redis", "rediss", "unix", "REDIS", "http", ""]), PIECES, PIECES, st.booleans())
    @example("redis", "1#", "", True)
    @example("redis", "1?", "", True)
    @example("redis", "1/", "", True)
    @example("redis", "@", "/", True)
    @example("unix", "@/", "", True)
    @example("redis", "[", "]", True)
    def test_however_a_url_is_broken_its_password_is_not_told(self, scheme, before, after, in_login):
        password = f"{before}{SECRET}{after}"
        end = f":{password}@host:6379/0" if in_login else f"host:6379/0?password={password}"

        try:
            caches = Caches(tables(url=f"{scheme}://{end}"))
        except ConfigError as error:
            told = f"{error} {error!r}"
        else:
            told = shown(caches)

        assert SECRET not in told


class Odd:
    def __str__(self) -> str:
        return "odd"


@options
class Sealed:
    key: Secret


class SealedStage(JsonStage):
    Options = Sealed


@options
class ToyOptions:
    odd: Odd
    token: Secret | None = None
    codecs: Codecs = stages("json")


class TestEffective:
    def test_it_fills_in_every_default_and_leaves_out_what_is_not_set(self, folder):
        folder.write(
            """
            [default.backends.local]
            type = "memory"
            [default.backends.shared]
            type = "redis"
            port = 6380
            codecs = ["json", { type = "zstd", level = 6 }, "gzip"]
            [default.backends.layered]
            type = "chain"
            layers = ["local", "shared"]
            [default.caches.default]
            backend = "Layered"
            ttl = 90
            [default.caches.stock]
            ttl = "forever"
            ttls = { "quote:*" = 15 }
            """
        )

        found = effective(read_settings())

        assert (
            found["backends"]["local"].items()
            >= {
                "type": "memory",
                "max_entries": 10_000,
                "max_bytes": "64MB",
                "codecs": ["json"],
            }.items()
        )
        assert (
            found["backends"]["shared"].items()
            >= {
                "type": "redis",
                "url": "redis://localhost:6379/0",
                "port": 6380,
                "prefix": "layercache",
                "codecs": [
                    "json",
                    {"type": "zstd", "level": 6, "min_bytes": 256},
                    {"type": "gzip", "level": 6, "min_bytes": 256},
                ],
                "timeout": "250ms",
                "max_connections": 50,
                "max_value_bytes": "32MB",
            }.items()
        )
        assert not {"host", "password", "db"} & found["backends"]["shared"].keys()
        assert found["backends"]["layered"] == {
            "type": "chain",
            "layers": ["local", "shared"],
            "on_outage": "serve",
            "degraded_ttl": "30s",
            "outbox_length": 10_000,
        }
        assert (
            found["caches"]["default"].items() >= {"backend": "layered", "ttl": "1m30s", "ttls": {}}.items()
        )
        assert (
            found["caches"]["stock"].items()
            >= {"backend": "layered", "ttl": "forever", "ttls": {"quote:*": "15s"}}.items()
        )
        assert list(found) == ["backends", "caches"]

    def test_it_is_json_and_read_again_says_the_same(self, plain):
        settings = read_settings(environment="production")

        found = json.loads(json.dumps(effective(settings), allow_nan=False))

        again = read_settings(found)
        assert again.caches == settings.caches
        assert again.backends == settings.backends
        assert effective(again) == found

    def test_the_options_of_others_are_shown_as_well(self):
        shown = plain(ToyOptions(odd=Odd(), token=Secret(SECRET), codecs=()))

        assert shown == {"odd": "odd", "token": MASK, "codecs": []}

    def test_secrets_of_stages_are_masked(self):
        stage = StageOptions("sealed", SealedStage, Sealed(key=Secret(SECRET)))

        assert plain(ToyOptions(odd=Odd(), codecs=(stage,)))["codecs"] == [{"type": "sealed", "key": MASK}]

    def test_a_backend_that_cannot_be_imported_is_shown_by_its_type(self):
        assert effective(
            Settings("a mapping", "development", {"t": BackendSettings("toy", None, None)}, {})
        ) == {
            "backends": {"t": {"type": "toy"}},
            "caches": {},
        }


class TestImports:
    def run(self, code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    SETTINGS = """
    settings = {
        "backends": {
            "local": {"type": "memory"},
            "shared": {"type": "redis", "url": "rediss://u:p@h:1/0", "codecs": ["json", "zstd"]},
            "layered": {"type": "chain", "layers": ["local", "shared"]},
        },
        "caches": {"default": {"backend": "local"}, "far": {"backend": "layered"}},
    }
    """

    def test_reading_settings_of_a_redis_backend_imports_no_driver(self):
        printed = self.run(
            f"""
            import sys
            {textwrap.indent(textwrap.dedent(self.SETTINGS), " " * 12).strip()}
            import layercache_redis
            from layercache.config import effective, read_settings
            effective(read_settings(settings))
            print([name for name in sys.modules if name.split(".")[0] in ("redis", "hiredis")])
            """
        )

        assert printed == "[]\n"

    def test_without_the_driver_a_backend_that_is_not_used_is_no_fault_and_one_that_is_says_what_to_install(
        self,
    ):
        printed = self.run(
            f"""
            import sys
            sys.modules["redis"] = None  # as if it were not installed
            {textwrap.indent(textwrap.dedent(self.SETTINGS), " " * 12).strip()}
            from layercache import Caches, MissingExtra
            with Caches(settings) as caches:
                caches["default"].set("k", 1)
                print(caches["default"].get("k"))
                try:
                    caches["far"]
                except MissingExtra as error:
                    print(error)
            """
        )

        value, message = printed.splitlines()
        assert value == "1"
        assert message.startswith("the backend 'redis' needs the package 'redis")
        assert message.endswith("pip install 'layercache-framework[redis]'")
