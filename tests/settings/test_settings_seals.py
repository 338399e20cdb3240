"""Seal keys in settings: where they come from, what is refused, and that they are shown nowhere."""

from __future__ import annotations

import pytest

from layercache import Caches, ConfigError
from layercache.config import effective, read_settings

SECRET = "abcdefghijklmnopqrstuvwxyz0123456789"
OTHER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def backend(**options):
    return {"backends": {"b": {"type": "redis"} | options}, "caches": {"default": {"backend": "b"}}}


def faults(**options):
    with pytest.raises(ConfigError) as caught:
        read_settings(backend(**options))
    assert SECRET not in str(caught.value)
    return [str(fault) for fault in caught.value.faults]


def keys_of(settings):
    return [(key.id, key.secret.decode()) for key in settings.backends["b"].options.seal_keys]


class TestWhereTheyComeFrom:
    SETTINGS = """
        [default.backends.b]
        type = "redis"
        codecs = ["pickle", "zstd", "sign"]
        [default.caches.default]
        backend = "b"
        """

    def test_the_secrets_file(self, folder):
        file = folder.write(self.SETTINGS)
        file.with_name(".secrets.toml").write_text(
            f'[default.backends.b]\nseal_keys = ["2026-06:{SECRET}", "2026-01:{OTHER}"]\n'
        )

        settings = read_settings(file)

        assert keys_of(settings) == [("2026-06", SECRET), ("2026-01", OTHER)]
        assert [stage.name for stage in settings.backends["b"].options.codecs] == ["pickle", "zstd", "sign"]

    @pytest.mark.parametrize("value", [f"a:{SECRET}", f'["a:{SECRET}"]'])
    def test_a_variable(self, folder, value):
        file = folder.write(self.SETTINGS)

        settings = read_settings(file, environ={"LAYERCACHE_BACKENDS__B__SEAL_KEYS": value})

        assert keys_of(settings) == [("a", SECRET)]


class TestWhatIsRefused:
    def test_a_pickle_that_nobody_verifies(self):
        for codecs in (["pickle"], ["pickle", "zstd"]):
            (fault,) = faults(codecs=codecs)
            assert fault.startswith("backends.b.codecs: reading 'pickle' runs code that the bytes name")

    def test_a_seal_without_a_key(self):
        (fault,) = faults(codecs=["json", "sign"])

        assert fault.startswith(
            "backends.b.seal_keys: the stage 'sign' of `codecs` needs a key; right is an id and"
        )

    def test_what_stands_behind_a_seal(self):
        (fault,) = faults(codecs=["json", "encrypt", "gzip"], seal_keys=f"a:{SECRET}")

        assert fault.startswith("backends.b.codecs: 'gzip' has to stand before 'encrypt'")

    @pytest.mark.parametrize(
        ("keys", "start"),
        [
            ([f"a:{SECRET}", "b:hunter2"], "backends.b.seal_keys[1]: has a secret of fewer than 32 characters"),
            ([f"{SECRET}{OTHER}"], "backends.b.seal_keys[0]: is no seal key"),
            ([f"a b:{SECRET}"], "backends.b.seal_keys[0]: is no seal key"),
            ([f"a:{SECRET} "], "backends.b.seal_keys[0]: is no seal key"),
            ([f"a:{'x' * 40}"], "backends.b.seal_keys[0]: has a secret that is not random"),
            ([[SECRET]], "backends.b.seal_keys[0]: is no seal key"),
            ([f"a:{SECRET}", f"a:{OTHER}"], "backends.b.seal_keys: two keys have the same id"),
            ({"a": SECRET}, "backends.b.seal_keys: has to be a list"),
            (5, "backends.b.seal_keys: has to be a list"),
        ],
    )  # fmt: skip
    def test_what_is_no_list_of_keys(self, keys, start):
        (fault,) = faults(codecs=["json", "sign"], seal_keys=keys)[:1]

        assert fault.startswith(start)

    def test_options_that_a_seal_does_not_have(self):
        (fault,) = faults(codecs=["json", {"type": "sign", "keys": [SECRET]}])

        assert "sign.keys: unknown key" in fault


def test_a_chain_over_pickle_needs_it_in_every_layer():
    far = {"type": "redis", "codecs": ["pickle", "sign"], "seal_keys": [f"a:{SECRET}"]}
    tables = {
        "backends": {"n": {"type": "memory"}, "f": far, "c": {"type": "chain", "layers": ["n", "f"]}},
        "caches": {"default": {"backend": "c"}},
    }
    with pytest.raises(ConfigError, match="need the same first stage"):
        read_settings(tables)
    tables["backends"]["n"]["codecs"] = ["pickle"]

    assert read_settings(tables)


def test_keys_are_shown_nowhere():
    with Caches(backend(codecs=["pickle", "sign"], seal_keys=[f"a:{SECRET}"])) as caches:
        options = caches.settings.backends["b"].options
        cache = caches["default"]
        pipeline = cache._layer.space._commands.pipeline
        shown = [
            caches,
            caches.settings,
            options,
            options.seal_keys,
            pipeline,
            pipeline.seals,
            cache,
            vars(pipeline),
        ]

    assert SECRET not in f"{shown} {[str(each) for each in shown]} {effective(caches.settings)}"
    assert effective(caches.settings)["backends"]["b"]["seal_keys"] == ["a:**********"]


def test_in_memory_alone_pickle_needs_no_seal():
    tables = {
        "backends": {"m": {"type": "memory", "codecs": ["pickle"]}},
        "caches": {"default": {"backend": "m"}},
    }
    with Caches(tables) as caches:
        caches["default"].set("k", {(1, 2): {3}})

        assert caches["default"].get("k") == {(1, 2): {3}}
