"""What is wrong with settings: every fault at once, where it is, and what would be right."""

from __future__ import annotations

import math
import sys
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from layercache import Caches, ConfigError
from layercache.config import read_settings
from layercache.settings import Settings

MEMORY: dict[str, Any] = {"type": "memory"}
RIGHT_DURATIONS = 'right are seconds (15, 0.5) and text such as "250ms", "15s", "5m" or "1h30m"'
RIGHT_SIZES = 'right are bytes (65536), 1 or more, and text such as "512KB", "64MB" or "1GB"'
RIGHT_URLS = (
    "right are redis://host:6379/0, rediss://host:6379/0 (TLS), unix:///path/to/socket?db=0, "
    "redis+sentinel://host:26379,host:26379/service/0 and redis+cluster://host:6379,host:6379"
)


def faults(source: Any, environment: str | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_settings(source, environment)
    assert type(caught.value) is ConfigError
    return [str(fault) for fault in caught.value.faults]


def faults_of_backend(table: Any, **others: Any) -> list[str]:
    return faults({"backends": {"b": table, **others}})


def test_every_fault_is_listed_with_its_path_the_file_and_the_environment(folder):
    file = folder.write(
        """
        [default.backends.local]
        type = "memory"
        coedcs = 5
        max_bytes = -5
        [default.backends.shared]
        type = "redis"
        url = "http://:hunter2@localhost"
        codecs = ["jsno"]
        timeout = "forever"
        [default.backends.layered]
        type = "chain"
        layers = ["local", "shared", "nowhere"]
        [default.backends.other]
        type = "memroy"
        [default.caches.default]
        backend = "locla"
        ttl = 0
        [default.caches.stock]
        tll = "5m"
        [default.caches.news]
        ttls = { "a:*" = "soon" }
        [default.chaces.x]
        [production.caches]
        flat = 3
        [staging.backend.x]
        [caches.y]
        """
    )

    with pytest.raises(ConfigError) as caught:
        Caches(environment="production")

    assert (
        str(caught.value)
        == f"""\
15 faults in {file}, environment 'production':
  default.chaces: unknown key; did you mean 'caches'?
  staging.backend: unknown key; did you mean 'backends'?
  caches: stands outside an environment; write [default.caches]
  caches.flat: has to be a table of settings, not a single value
  backends.local.max_bytes: is no size; {RIGHT_SIZES}
  backends.local.coedcs: unknown key; did you mean 'codecs'?
  backends.shared.url: is no address of a Redis server; {RIGHT_URLS}
  backends.shared.codecs[0]: no stage named 'jsno'; did you mean 'json'?
  backends.shared.timeout: is too long to wait: at most a day; right is a time such as "250ms"
  backends.other.type: no backend named 'memroy'; did you mean 'memory'?
  backends.layered.layers: no backend named 'nowhere'; there are local, shared, layered, other
  caches.default.ttl: is no time to live: it has to be more than 0 (the backend 'null' keeps nothing)
  caches.default.backend: no backend named 'locla'; did you mean 'local'?
  caches.stock.tll: unknown key; did you mean 'ttl'?
  caches.news.ttls.a:*: is no duration; {RIGHT_DURATIONS}"""
    )
    assert caught.value.origin == str(file)
    assert caught.value.environment == "production"
    assert caught.value.faults[0] == ("default.chaces", "unknown key; did you mean 'caches'?")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"coedcs": 5}, "coedcs: unknown key; did you mean 'codecs'?"),
        ({"max_entries": 0}, "max_entries: has to be 1 or more"),
        ({"max_entries": -1}, "max_entries: has to be 1 or more"),
        ({"max_entries": "10"}, "max_entries: has to be a whole number"),
        ({"max_entries": 1.5}, "max_entries: has to be a whole number"),
        ({"max_entries": True}, "max_entries: has to be a whole number"),
        ({"max_entries": [1]}, "max_entries: has to be a whole number"),
        ({"max_bytes": 0}, f"max_bytes: is no size; {RIGHT_SIZES}"),
        ({"max_bytes": -5}, f"max_bytes: is no size; {RIGHT_SIZES}"),
        ({"max_bytes": 10**400}, "max_bytes: is more memory than there is"),
        ({"max_bytes": "9" * 5000}, f"max_bytes: is no size; {RIGHT_SIZES}"),
        ({"max_bytes": "-5MB"}, f"max_bytes: is no size; {RIGHT_SIZES}"),
        ({"max_bytes": "much"}, f"max_bytes: is no size; {RIGHT_SIZES}"),
        ({"max_bytes": True}, f"max_bytes: is no size; {RIGHT_SIZES}"),
        ({"max_bytes": 1.5}, f"max_bytes: is no size; {RIGHT_SIZES}"),
        (
            {"max_ttl": 0},
            "max_ttl: is no time to live: it has to be more than 0 (the backend 'null' keeps nothing)",
        ),
        (
            {"max_ttl": "-5s"},
            "max_ttl: is no time to live: it has to be more than 0 (the backend 'null' keeps nothing)",
        ),
        ({"max_ttl": "0.1ms"}, "max_ttl: is too short: times are kept in milliseconds"),
        ({"max_ttl": 10**400}, f"max_ttl: is no duration; {RIGHT_DURATIONS}"),
        ({"max_ttl": 1e300}, 'max_ttl: is longer than a century; write "forever"'),
        ({"max_ttl": math.nan}, f"max_ttl: is no duration; {RIGHT_DURATIONS}"),
        ({"max_ttl": True}, f"max_ttl: is no duration; {RIGHT_DURATIONS}"),
        ({"max_ttl": date(2024, 1, 1)}, f"max_ttl: is no duration; {RIGHT_DURATIONS}"),
        (
            {"max_ttl": timedelta(0)},
            "max_ttl: is no time to live: it has to be more than 0 (the backend 'null' keeps nothing)",
        ),
        ({"codecs": []}, "codecs: has to name one stage at least, such as 'json'"),
        ({"codecs": "json"}, "codecs: has to be a list"),
        ({"codecs": {"json": 1}}, "codecs: has to be a list"),
        ({"codecs": ["jsn"]}, "codecs[0]: no stage named 'jsn'; did you mean 'json'?"),
        (
            {"codecs": [5]},
            (
                "codecs[0]: has to be the name of a stage, or a table with its options such as "
                '{ type = "zstd", level = 6 }'
            ),
        ),
        (
            {"codecs": [{"level": 5}]},
            (
                "codecs[0]: has to be the name of a stage, or a table with its options such as "
                '{ type = "zstd", level = 6 }'
            ),
        ),
        (
            {"codecs": ["json", "zstd"]},
            "codecs: only the first stage has work to do here: this backend keeps values, not frames",
        ),
    ],
)
def test_a_memory_backend_says_what_is_wrong_with_it(table, message):
    assert faults_of_backend(MEMORY | table) == [f"backends.b.{message}"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"timeout": 0}, "timeout: is no time to wait: it has to be more than 0"),
        (
            {"timeout": "forever"},
            'timeout: is too long to wait: at most a day; right is a time such as "250ms"',
        ),
        ({"timeout": "2d"}, 'timeout: is too long to wait: at most a day; right is a time such as "250ms"'),
        ({"prefix": ""}, "prefix: has to have 1 or more characters"),
        ({"prefix": "p" * 201}, "prefix: has to have 200 characters at most"),
        ({"prefix": 5}, "prefix: has to be text"),
        ({"password": 5}, "password: has to be text"),
        ({"port": True}, "port: has to be a whole number"),
        (
            {"host": "h", "url": "unix:///s"},
            ": a socket has no host and no port: leave them out, or the unix:// of the url",
        ),
        ({"tls_ca_file": "ca.pem"}, ": tls_ca_file is for TLS: the url has to begin with rediss://"),
        ({"max_connections": 0}, "max_connections: has to be 1 or more"),
        ({"max_value_bytes": -1}, f"max_value_bytes: is no size; {RIGHT_SIZES}"),
        (
            {"codecs": ["zstd", "json"]},
            "codecs: the first stage has to turn values into bytes, such as 'json'; 'zstd' does not",
        ),
        ({"codecs": ["json", "json"]}, "codecs: 'json' takes values, so it can only be the first stage"),
        (
            {"codecs": ["json", "zstd", "zstd"]},
            "codecs: a stage can be named only once; here are json, zstd, zstd",
        ),
        (
            {"codecs": ["json", {"type": "zstd", "levle": 3}]},
            "codecs[1]: zstd.levle: unknown key; did you mean 'level'?",
        ),
        (
            {"codecs": ["json", {"type": "zstd", "level": 99, 5: 5}]},
            "codecs[1]: zstd.level: has to be 22 or less; zstd.5: unknown key; there are level, min_bytes",
        ),
        ({"usrname": "x"}, "usrname: unknown key; did you mean 'username'?"),
    ],
)
def test_a_redis_backend_says_what_is_wrong_with_it(table, message):
    path = "backends.b" if message.startswith(":") else "backends.b."

    assert faults_of_backend({"type": "redis"} | table) == [f"{path}{message}"]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "is no address of a Redis server"),
        ("localhost:6379", "is no address of a Redis server"),
        ("http://localhost", "is no address of a Redis server"),
        ("redis:/localhost", "is no address of a Redis server"),
        ("redis://", "has no host and port"),
        ("redis://:6379", "has no host and port"),
        ("redis://user@:6379", "has no host and port"),
        ("redis://h:0", "has no host and port"),
        ("redis://a..b", "has no host and port"),
        (f"redis://{'a' * 70}.b", "has no host and port"),
        ("redis://a%20b", "has no host and port"),
        ("redis://[::1", "has no host and port; in a password '/', '?' and '@' are written %2F, %3F and %40"),
        ("redis://[x]", "has no host and port; in a password '/', '?' and '@' are written %2F, %3F and %40"),
        (
            "redis://h:port",
            "has no host and port; in a password '/', '?' and '@' are written %2F, %3F and %40",
        ),
        (
            "redis://h:65536",
            "has no host and port; in a password '/', '?' and '@' are written %2F, %3F and %40",
        ),
        (
            "redis://:a/b@h",
            "has no host and port; in a password '/', '?' and '@' are written %2F, %3F and %40",
        ),
        ("redis://h/a", "names a database that is no number"),
        ("redis://h/0/1", "names a database that is no number"),
        ("redis://h/-1", "names a database that is no number"),
        ("redis://h/\u0661", "names a database that is no number"),
        ("redis://h/" + "9" * 5000, "names a database that is no number"),
        (" redis://h", "holds a blank, a line end or a '#'; in a password they are written %20, %0A and %23"),
        (
            "redis://h\n",
            "holds a blank, a line end or a '#'; in a password they are written %20, %0A and %23",
        ),
        (
            "redis://u:1#2@h",
            "holds a blank, a line end or a '#'; in a password they are written %20, %0A and %23",
        ),
        ("redis://h?db=a", "has a query whose db makes no sense"),
        ("redis://h?password=", "has a query whose password makes no sense"),
        (
            "redis://h?socket_timeout=5",
            "has a query of more than db, username, password; all else is said by options of the backend",
        ),
        (
            "redis://h?nonsense",
            "has a query of more than db, username, password; all else is said by options of the backend",
        ),
        (
            "redis://h?ssl_cert_reqs=none",
            "has a query of more than db, username, password; all else is said by options of the backend",
        ),
        ("rediss://h?ssl_cert_reqs=perhaps", "has a query whose ssl_cert_reqs makes no sense"),
        ("unix://", "names no socket"),
        ("unix:///", "names no socket"),
        ("unix://run/redis.sock", "names a host; the path of a socket begins with a third slash"),
        ("unix:///s?db=x", "has a query whose db makes no sense"),
        (5, "is no URL"),
        (b"redis://h", "is no URL"),
        (["redis://h"], "is no URL"),
        (None, "is no URL"),
    ],
)
def test_a_malformed_url_is_a_fault(url, problem):
    assert faults_of_backend({"type": "redis", "url": url}) == [f"backends.b.url: {problem}; {RIGHT_URLS}"]


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "REDIS://H:1/",
        "redis://h:6379/15",
        "redis://[::1]:6379",
        "redis://user:pass@10.0.0.7:6379/0",
        "redis://:p%40ss%2F@h",
        "rediss://h?db=1&ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=False",
        "unix:///run/redis.sock?db=1&username=u&password=p",
        "unix://u:p@/run/redis.sock",
        "redis://münchen.example",
    ],
)
def test_what_the_check_of_urls_lets_pass_the_driver_can_open_a_connection_with(url):
    import redis

    read = read_settings({"backends": {"b": {"type": "redis", "url": url}}})

    pool = redis.ConnectionPool.from_url(read.backends["b"].options.url.text)
    pool.make_connection()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "a chain has at least one layer"),
        (["m", "M"], "a backend can be a layer only once"),
        (["m", "x"], "no backend named 'x'; there are b, m, r, c"),
        (["m", "c"], "'c' is a chain; name its layers here instead"),
        (["b"], "'b' is a chain; name its layers here instead"),
        ("m", "has to be a list"),
        (5, "has to be a list"),
    ],
)
def test_a_chain_says_what_is_wrong_with_its_layers(layers, message):
    others = {"m": MEMORY, "r": {"type": "redis"}, "c": {"type": "chain", "layers": ["m"]}}

    assert faults_of_backend({"type": "chain", "layers": layers}, **others) == [
        f"backends.b.layers: {message}"
    ]


@pytest.mark.parametrize("layers", [[5], ["m", None]])
def test_a_layer_is_named_by_text(layers):
    where = f"backends.b.layers[{len(layers) - 1}]"

    assert faults_of_backend({"type": "chain", "layers": layers}, m=MEMORY) == [f"{where}: has to be text"]


def test_a_chain_without_layers_is_a_fault():
    assert faults_of_backend({"type": "chain"}) == ["backends.b.layers: is required"]


def test_the_layers_of_a_chain_need_the_same_serializer(offer):
    offer(
        "layercache.stages",
        "upper",
        """
        from layercache.codecs.json import JsonStage
        class Offered(JsonStage):
            name = "upper"
        """,
    )
    others = {"m": MEMORY, "r": {"type": "redis", "codecs": ["upper"]}}

    assert faults_of_backend({"type": "chain", "layers": ["m", "r"]}, **others) == [
        (
            "backends.b.layers: all layers need the same first stage in `codecs`, to give back the same values; "
            "here m with 'json', r with 'upper'"
        )
    ]


def test_a_layer_with_faults_of_its_own_brings_no_others():
    others = {"m": {"type": "memory", "max_bytes": 0}, "n": {"type": "nope"}}

    assert faults_of_backend({"type": "chain", "layers": ["m", "n"]}, **others) == [
        f"backends.m.max_bytes: is no size; {RIGHT_SIZES}",
        "backends.n.type: no backend named 'nope'; there are chain, memory, null, redis",
    ]


@pytest.mark.parametrize(
    ("caches", "expected"),
    [
        ({"default": {"backend": "x"}}, ["default.backend: no backend named 'x'; there are b"]),
        ({"default": {}}, ["default.backend: is required"]),
        ({"default": {"backend": 5}}, ["default.backend: has to be text"]),
        ({"default": {"backend": "b", "ttl": "abc"}}, [f"default.ttl: is no duration; {RIGHT_DURATIONS}"]),
        (
            {"default": {"backend": "b", "ttls": {"a": 0, 5: "x"}}},
            [
                "default.ttls.a: is no time to live: it has to be more than 0 (the backend 'null' keeps nothing)",
                f"default.ttls.5: is no duration; {RIGHT_DURATIONS}",
            ],
        ),
        ({"default": {"backend": "b", "ttls": [1]}}, ["default.ttls: has to be a table"]),
        ({"default": {"backend": "b", "max_key_bytes": 0}}, ["default.max_key_bytes: has to be 1 or more"]),
        ({"default": 5}, ["default: has to be a table of settings, not a single value"]),
        (
            {"a b": {"backend": "b"}},
            [
                "a b: a name is made of letters, digits, '_', '-' and '.', and begins with one of the first two"
            ],
        ),
        (
            {"": {"backend": "b"}},
            [": a name is made of letters, digits, '_', '-' and '.', and begins with one of the first two"],
        ),
        (
            {"{x}": {"backend": "b"}},
            [
                "{x}: a name is made of letters, digits, '_', '-' and '.', and begins with one of the first two"
            ],
        ),
    ],
)
def test_a_cache_says_what_is_wrong_with_it(caches, expected):
    assert faults({"backends": {"b": MEMORY}, "caches": caches}) == [f"caches.{fault}" for fault in expected]


def test_what_is_inherited_is_at_fault_once_and_where_it_stands():
    caches = {
        "default": {"backend": "nope", "ttl": "soon", "ttls": {"a.b": 0}},
        "stock": {},
        "news": {"ttl": "later", "ttls": {"c": 0}, "backend": "nay"},
    }

    found = faults({"backends": {"b": MEMORY}, "caches": caches})

    assert [fault.split(":")[0] for fault in found] == [
        "caches.default.ttl",
        "caches.default.ttls.a.b",
        "caches.default.backend",
        "caches.news.ttl",
        "caches.news.ttls.c",
        "caches.news.backend",
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"backends": 5}, ["backends: has to be a table of backends by name"]),
        ({"backends": {"b": 5}}, ["backends.b: has to be a table of settings, not a single value"]),
        (
            {"backends": {"b": {}}},
            ["backends.b.type: has to be the name of a type; there are chain, memory, null, redis"],
        ),
        (
            {"backends": {"b": {"type": 5}}},
            ["backends.b.type: has to be the name of a type; there are chain, memory, null, redis"],
        ),
        (
            {"backends": {"b": {"type": "mem"}}},
            ["backends.b.type: no backend named 'mem'; did you mean 'memory'?"],
        ),
        ({"caches": {}, "backend": {}}, ["backend: unknown key; did you mean 'backends'?"]),
        ({"cache": {"stock": {}}}, ["cache.stock: unknown key; there are admin, alerts, backends, caches"]),
        ({"default": {}, "caches": {}}, ["caches: stands outside an environment; write [default.caches]"]),
        ({"default": 5}, ["default: is a single value, where only environments stand"]),
        ({"default": {}, "x": 5}, ["x: is a single value, where only environments stand"]),
        ({"default": {"cachse": {}}}, ["default.cachse: unknown key; did you mean 'caches'?"]),
        ({"default": {}, "other": {"cachse": {}}}, ["other.cachse: unknown key; did you mean 'caches'?"]),
    ],
)
def test_what_is_no_settings_at_all_is_a_fault(source, expected):
    assert faults(source) == expected


def test_a_table_that_holds_itself_is_a_fault():
    table: dict[str, Any] = {"type": "null"}
    table["self"] = table

    assert faults_of_backend(table) == ["backends.b.self: unknown key; there are codecs"]


class TestPackagesOfOthers:
    """Backends and stages that cannot be loaded."""

    @pytest.mark.parametrize(
        ("code", "problem"),
        [
            ("Other = 1", "module 'offered_{}' has no attribute 'Offered'"),
            ("Offered = 1", "entry point {0} = 'offered_{0}:Offered' is no "),
        ],
    )
    def test_an_offer_that_is_none_is_a_fault(self, offer, code, problem):
        backend, stage = offer("layercache.backends", "toy", code), offer("layercache.stages", "joy", code)

        [of_backend] = faults_of_backend({"type": backend})
        [of_stage] = faults_of_backend({"type": "redis", "codecs": [stage]})

        assert of_backend.startswith(f"backends.b.type: 'toy' cannot be loaded: {problem.format(backend)}")
        assert of_stage.startswith(f"backends.b.codecs[0]: 'joy' cannot be loaded: {problem.format(stage)}")

    def test_a_stage_whose_package_is_missing_is_a_fault(self, offer):
        offer("layercache.stages", "toy", "import not_installed_anywhere")

        assert faults_of_backend({"type": "redis", "codecs": ["toy"]}) == [
            "backends.b.codecs[0]: 'toy' cannot be loaded: No module named 'not_installed_anywhere'"
        ]

    def test_a_backend_whose_package_is_missing_is_no_fault_until_it_is_opened(self, offer):
        offer("layercache.backends", "toy", "import not_installed_anywhere")
        tables = {
            "backends": {
                "t": {"type": "toy", "url": "x"},
                "m": MEMORY,
                "c": {"type": "chain", "layers": ["m", "t"]},
            },
            "caches": {"default": {"backend": "m"}, "toys": {"backend": "t"}},
        }

        caches = Caches(tables)

        caches["default"].set("k", 1)
        with pytest.raises(ImportError, match="not_installed_anywhere"):
            caches["toys"]


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """Install a package that offers something by name, for one test."""

    def install(group: str, name: str, code: str) -> str:
        from textwrap import dedent

        module = f"offered_{name}"
        (tmp_path / f"{module}.py").write_text(dedent(code), encoding="utf-8")
        info = tmp_path / f"{module}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n", encoding="utf-8"
        )
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:Offered\n", encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, module, raising=False)
        return name

    yield install
    for module in [name for name in sys.modules if name.startswith("offered_")]:
        del sys.modules[module]


# -- whatever is given

NAMES = st.sampled_from(
    [
        "default",
        "production",
        "backends",
        "caches",
        "b",
        "m",
        "Stock",
        "type",
        "backend",
        "ttl",
        "ttls",
        "codecs",
        "layers",
        "url",
        "password",
        "host",
        "port",
        "timeout",
        "max_entries",
        "max_bytes",
        "max_ttl",
        "prefix",
        "db",
        "level",
        "tls_ca_file",
    ]
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), math.inf, math.nan]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [
            "memory",
            "redis",
            "null",
            "chain",
            "json",
            "zstd",
            "gzip",
            "b",
            "m",
            "5m",
            "forever",
            "64MB",
            "0s",
            "-1",
            "redis://h:1/0",
            "unix:///s?db=1",
            "redis://[",
            "@int",
        ]
    ),
    st.dates(),
    st.timedeltas(),
    st.binary(max_size=3),
)
ANY_NAME = st.one_of(NAMES, NAMES, st.text(max_size=5), st.integers(), st.none(), st.tuples(st.integers()))
ANYTHING = st.recursive(
    VALUES,
    lambda inner: st.one_of(
        st.dictionaries(ANY_NAME, inner, max_size=5),
        st.lists(inner, max_size=3),
        st.tuples(inner),
    ),
    max_leaves=20,
)
OPTIONS = st.dictionaries(ANY_NAME, ANYTHING, max_size=4)
BACKENDS = st.builds(
    lambda type_, rest: rest | {"type": type_},
    st.sampled_from(["memory", "redis", "chain", "null", "x"]),
    OPTIONS,
)
NEARLY_RIGHT = st.fixed_dictionaries(
    {},
    optional={
        "backends": st.one_of(ANYTHING, st.dictionaries(ANY_NAME, BACKENDS, max_size=4)),
        "caches": st.one_of(ANYTHING, st.dictionaries(ANY_NAME, OPTIONS, max_size=4)),
    },
)


def outcome(*args: Any) -> Settings | ConfigError:
    try:
        return read_settings(*args)
    except ConfigError as error:
        return error


def makes_sense(found: Settings | ConfigError) -> bool:
    return bool(str(found)) and (isinstance(found, Settings) or found.faults != ())


@settings(max_examples=300)
@example({"backends": {"b": {"type": "memory", "codecs": []}}}, None)
@example({"backends": {"b": {"type": "memory", "max_ttl": 10**400}}}, None)
@example({"backends": {"b": {"type": "chain", "layers": 5}}, "caches": {"default": {"backend": "b"}}}, None)
@given(
    st.one_of(
        st.dictionaries(ANY_NAME, ANYTHING, max_size=4),
        NEARLY_RIGHT,
        st.dictionaries(st.sampled_from(["default", "development", "Production"]), NEARLY_RIGHT, max_size=3),
    ),
    st.sampled_from([None, "production", "x"]),
)
def test_any_mapping_makes_settings_or_a_config_error(mapping, environment):
    assert makes_sense(outcome(mapping, environment))


@settings(max_examples=150)
@given(
    st.dictionaries(
        st.one_of(
            st.sampled_from(
                [
                    "REDIS_ENABLED",
                    "REDIS_HOST",
                    "REDIS_PORT",
                    "REDIS_DB",
                    "MEMORY_CACHE_TTL_DEFAULT",
                    "LAYERCACHE_ENV",
                ]
            ),
            st.lists(NAMES, max_size=4).map(lambda parts: "__".join(["LAYERCACHE_CACHES", *parts])),
            st.lists(NAMES, max_size=3).map(lambda parts: "LAYERCACHE_" + "__".join(parts)),
        ),
        st.one_of(
            st.text(max_size=8),
            st.sampled_from(
                [
                    "true",
                    "false",
                    "1",
                    "5m",
                    "@int",
                    "@del",
                    "@format",
                    "@json",
                    "@reset",
                    "{a=1}",
                    "[1]",
                    "[[",
                    "{}",
                    "@jinja",
                ]
            ),
        ),
        max_size=4,
    )
)
def test_any_variables_make_settings_or_a_config_error(environ):
    assert makes_sense(outcome(None, None, environ))
