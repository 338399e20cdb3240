"""Addresses of sentinels and clusters: what they come to, what is wrong with others, and what they hide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from layercache import ConfigError
from layercache.config import effective, read_settings
from layercache_redis.options import Place, RedisOptions

SECRET = "hunter2"
MASK = "**********"
IN_PASSWORDS = "in a password '/', '?' and '@' are written %2F, %3F and %40"


def options_of(**table: Any) -> RedisOptions:
    options: RedisOptions = (
        read_settings({"backends": {"b": {"type": "redis"} | table}}).backends["b"].options
    )
    return options


def faults_of(**table: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        options_of(**table)
    return [str(fault) for fault in caught.value.faults]


def places(url: str) -> list[str]:
    return [str(place) for place in options_of(url=url).places()]


class TestPlaces:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("redis+sentinel://h/s", ["h:26379"]),
            ("redis+sentinel://h:1/s", ["h:1"]),
            ("redis+sentinel://a,b:2,c/s", ["a:26379", "b:2", "c:26379"]),
            ("redis+sentinel://u:p,q@a,b/s", ["a:26379", "b:26379"]),
            (
                "redis+sentinel://[::1],[fe80::2]:2,10.0.0.3/s",
                ["[::1]:26379", "[fe80::2]:2", "10.0.0.3:26379"],
            ),
            ("redis+sentinel://10.0.0.3,[::1]/s", ["10.0.0.3:26379", "[::1]:26379"]),
            ("redis+cluster://h", ["h:6379"]),
            ("redis+cluster://h:1/", ["h:1"]),
            ("redis+cluster://a,b:2", ["a:6379", "b:2"]),
            ("redis+cluster://[::1],[::2]:2", ["[::1]:6379", "[::2]:2"]),
            ("REDIS+Cluster://H", ["h:6379"]),
            ("redis://[::1]", ["[::1]:6379"]),
        ],
    )
    def test_each_host_has_its_port_or_the_standard_one(self, url: str, expected: list[str]) -> None:
        assert places(url) == expected

    @pytest.mark.parametrize(
        ("url", "tls"),
        [
            ("redis+sentinel://h/s", False),
            ("rediss+sentinel://h/s", True),
            ("redis+cluster://h", False),
            ("rediss+cluster://h", True),
        ],
    )
    def test_a_second_s_is_for_tls(self, url: str, tls: bool) -> None:
        assert [place.tls for place in options_of(url=url).places()] == [tls]

    def test_what_tls_needs_is_said_as_for_one_server(self) -> None:
        query = "ssl_ca_certs=/ca.pem&ssl_check_hostname=False"
        for url in (f"rediss+sentinel://h/s?{query}", f"rediss+cluster://h?{query}"):
            options = options_of(url=url)

            assert (options.tls("ssl_ca_certs"), options.tls("ssl_check_hostname")) == ("/ca.pem", "false")
        assert (
            options_of(url="rediss+cluster://h", tls_ca_file="/mine.pem").tls("ssl_ca_certs") == "/mine.pem"
        )

    def test_a_place_with_an_address_of_colons_reads_as_one(self) -> None:
        assert str(Place("::1", 6379)) == "[::1]:6379"


class TestService:
    @pytest.mark.parametrize(
        ("url", "service", "database"),
        [
            ("redis+sentinel://h/mymaster", "mymaster", 0),
            ("redis+sentinel://h/mymaster/", "mymaster", 0),
            ("redis+sentinel://h/mymaster/7", "mymaster", 7),
            ("redis+sentinel://h/mymaster?db=7", "mymaster", 7),
            ("redis+sentinel://h/12", "12", 0),
            ("redis+sentinel://h/12/3", "12", 3),
            ("redis+sentinel://h/a%2Fb/3", "a/b", 3),
        ],
    )
    def test_it_is_the_first_part_of_the_path_and_the_database_the_second(
        self, url: str, service: str, database: int
    ) -> None:
        options = options_of(url=url)

        assert (options.url.service, options.database()) == (service, database)

    def test_the_option_db_wins(self) -> None:
        assert options_of(url="redis+sentinel://h/s/7", db=3).database() == 3

    def test_servers_and_sentinels_are_logged_in_to_apart(self) -> None:
        plain = options_of(url="redis+sentinel://u:p@h/s")
        both = options_of(url="redis+sentinel://u:p@h/s?sentinel_username=v&sentinel_password=q")
        given = options_of(url="redis+sentinel://u:p@h/s?sentinel_password=q", password="r")

        assert (plain.login(), plain.login(sentinel=True)) == (("u", "p"), (None, None))
        assert (both.login(), both.login(sentinel=True)) == (("u", "p"), ("v", "q"))
        assert (given.login(), given.login(sentinel=True)) == (("u", "r"), (None, "q"))


class TestFaults:
    @pytest.mark.parametrize(
        ("url", "problem"),
        [
            ("redis+sentinel://h", "names no service, which sentinels know their servers by"),
            ("redis+sentinel://h/", "names no service, which sentinels know their servers by"),
            ("redis+sentinel://h//0", "names no service, which sentinels know their servers by"),
            ("redis+sentinel://h/s/a", "names a database that is no number"),
            ("redis+sentinel://h/s/0/1", "names a database that is no number"),
            ("redis+sentinel://h/s/-1", "names a database that is no number"),
            ("redis+sentinel:///s", "has no host and port"),
            ("redis+sentinel://a,,b/s", "has no host and port"),
            ("redis+sentinel://a,b:0/s", "has no host and port"),
            ("redis+sentinel://a,b:x/s", f"has no host and port; {IN_PASSWORDS}"),
            ("redis+sentinel://a,[::1/s", f"has no host and port; {IN_PASSWORDS}"),
            ("redis+sentinel://[::1],[x]/s", f"has no host and port; {IN_PASSWORDS}"),
            ("redis+sentinel://:a/b@h/s", f"has no host and port; {IN_PASSWORDS}"),
            (
                "redis+sentinel://h/s?socket_timeout=1",
                (
                    "has a query of more than db, username, password, sentinel_username, sentinel_password; "
                    "all else is said by options of the backend"
                ),
            ),
            ("redis+sentinel://h/s?sentinel_password=", "has a query whose sentinel_password makes no sense"),
            ("redis+cluster://", "has no host and port"),
            ("redis+cluster://h/0", "names a database, which a cluster does not have"),
            ("redis+cluster://h/s", "names a database, which a cluster does not have"),
            (
                "redis+cluster://h?db=1",
                "has a query of more than username, password; all else is said by options of the backend",
            ),
            ("redis://a,b", "has no host and port"),
            ("redis-sentinel://h/s", "is no address of a Redis server"),
        ],
    )
    def test_a_malformed_one_is_a_fault_that_says_what_is_right(self, url: str, problem: str) -> None:
        [fault] = faults_of(url=url)

        assert fault.startswith(f"backends.b.url: {problem}; right are redis://host:6379/0, ")
        assert fault.endswith(
            "redis+sentinel://host:26379,host:26379/service/0 and redis+cluster://host:6379,host:6379"
        )

    @pytest.mark.parametrize("option", [{"host": "h"}, {"port": 1}, {"host": "h", "port": 1}], ids=str)
    @pytest.mark.parametrize(
        ("url", "named"),
        [
            ("redis+sentinel://a/s", "sentinels"),
            ("redis+sentinel://a,b/s", "sentinels"),
            ("redis+cluster://a", "nodes of a cluster"),
            ("redis+cluster://a,b", "nodes of a cluster"),
        ],
    )
    def test_a_host_of_its_own_would_be_one_of_several(
        self, url: str, named: str, option: dict[str, Any]
    ) -> None:
        assert faults_of(url=url, **option) == [
            f"backends.b: the url names {named}: leave out host and port (REDIS_HOST, REDIS_PORT)"
        ]

    def test_a_cluster_has_no_databases(self) -> None:
        assert faults_of(url="redis+cluster://h", db=1) == [
            "backends.b: a cluster has no databases: leave out db (REDIS_DB)"
        ]
        assert options_of(url="redis+cluster://h", db=0).database() == 0


class TestSecrets:
    @pytest.mark.parametrize(
        ("url", "masked"),
        [
            (f"redis+sentinel://:{SECRET}@a,b/s/0", f"redis+sentinel://:{MASK}@a,b/s/0"),
            (f"redis+sentinel://u:{SECRET},x@a,b/s", f"redis+sentinel://u:{MASK}@a,b/s"),
            (
                f"redis+sentinel://a/s?sentinel_username=v&sentinel_password={SECRET}",
                f"redis+sentinel://a/s?sentinel_username=v&sentinel_password={MASK}",
            ),
            (
                f"rediss+sentinel://a/s?sentinel%5Fpassword={SECRET}",
                f"rediss+sentinel://a/s?sentinel_password={MASK}",
            ),
            (f"redis+cluster://u:{SECRET}@a,b:1", f"redis+cluster://u:{MASK}@a,b:1"),
            (f"redis+cluster://a,b?password={SECRET}", f"redis+cluster://a,b?password={MASK}"),
        ],
    )
    def test_a_password_is_masked_wherever_it_is_printed(self, url: str, masked: str) -> None:
        settings = read_settings({"backends": {"b": {"type": "redis", "url": url}}})

        options = settings.backends["b"].options
        assert str(options.url) == masked
        assert effective(settings)["backends"]["b"]["url"] == masked
        assert SECRET not in f"{settings} {settings!r} {options!r}"
        assert options.url.text == url

    @pytest.mark.parametrize(
        "url",
        [
            f"redis+sentinel://:{SECRET}@h",
            f"redis+sentinel://:{SECRET}/x@h/s",
            f"redis+sentinel://h/s/{SECRET}",
            f"redis+sentinel://h,{SECRET}:x/s",
            f"redis+cluster://:{SECRET}@h/1",
            f"redis+cluster://h?passwort={SECRET}",
        ],
    )
    def test_a_fault_repeats_no_part_of_it(self, url: str) -> None:
        assert SECRET not in str(faults_of(url=url, host="h"))


class TestVariables:
    """Those that a service was given for one server, over a file that names sentinels or a cluster."""

    SENTINELS = "redis+sentinel://a,b/s/0"

    @pytest.fixture
    def read(self, folder: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RedisOptions]:
        def read(url: str, **variables: str) -> RedisOptions:
            folder.write(
                f'[default.backends.far]\ntype = "redis"\nurl = "{url}"\n'
                '[default.caches.default]\nbackend = "far"\n'
            )
            for name, text in variables.items():
                monkeypatch.setenv(name, text)
            options: RedisOptions = read_settings().backends["far"].options
            return options

        return read

    @pytest.mark.parametrize("variable", ["REDIS_HOST", "REDIS_PORT"])
    def test_a_host_or_port_contradicts_an_address_of_several(
        self, read: Callable[..., RedisOptions], variable: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            read(self.SENTINELS, **{variable: "6380"})

        assert [str(fault) for fault in caught.value.faults] == [
            "backends.far: the url names sentinels: leave out host and port (REDIS_HOST, REDIS_PORT)"
        ]

    def test_a_database_contradicts_a_cluster(self, read: Callable[..., RedisOptions]) -> None:
        with pytest.raises(ConfigError) as caught:
            read("redis+cluster://a,b", REDIS_DB="1")

        assert [str(fault) for fault in caught.value.faults] == [
            "backends.far: a cluster has no databases: leave out db (REDIS_DB)"
        ]

    def test_password_and_database_are_those_of_the_servers(self, read: Callable[..., RedisOptions]) -> None:
        options = read(self.SENTINELS, REDIS_PASSWORD=SECRET, REDIS_DB="3", REDIS_MAX_CONNECTIONS="7")

        assert (options.login(), options.login(sentinel=True)) == ((None, SECRET), (None, None))
        assert (options.database(), options.max_connections) == (3, 7)

    def test_the_whole_address_may_come_from_one(self, read: Callable[..., RedisOptions]) -> None:
        options = read("redis://one", LAYERCACHE_BACKENDS__FAR__URL=self.SENTINELS)

        assert [str(place) for place in options.places()] == ["a:26379", "b:26379"]
