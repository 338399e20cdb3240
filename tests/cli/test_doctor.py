"""`layercache doctor`: how the backends are, and a fix for whatever is wrong."""

from __future__ import annotations

import json
import os
import pty
import runpy
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import SHUT_RDWR, SHUT_WR, create_connection, create_server, socket
from typing import Any

import pytest
import trustme
from operating import COMMAND, far, run, write_settings
from waiting import until

from layercache import BackendError, Caches
from layercache.spi import Finding
from layercache.testing import ValkeyCluster, ValkeySentinels, ValkeyServer
from layercache.testing.server import free_port
from layercache_redis.diagnoses import of_info
from layercache_redis.options import RedisOptions

SOUND = {"maxmemory": "64mb", "maxmemory_policy": "allkeys-lru"}
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def sound() -> Iterator[ValkeyServer]:
    """A server as a cache wants it."""
    with ValkeyServer(**SOUND) as server:
        yield server


class Report:
    """What `doctor --json` says of the backend `far`, which the cache `quotes` uses."""

    def __init__(self, folder: Path, url: str, **options: Any) -> None:
        write_settings(folder, {"far": far(url, **options)}, {"quotes": "far"})
        began = time.monotonic()
        done = run("doctor", "--json")
        self.seconds = time.monotonic() - began
        self.text, self.exit_code = done.output, done.exit_code
        self.findings = [Finding(**found) for found in json.loads(done.output)["backends"]["far"]["findings"]]

    def __getitem__(self, subject: str) -> Finding:
        (found,) = self.all(subject)
        return found

    def all(self, subject: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.subject == subject]

    def levels(self) -> set[str]:
        return {finding.level for finding in self.findings}


class TestOneServer:
    def test_a_sound_one_gives_no_reason_to_complain(self, folder: Path, sound: ValkeyServer) -> None:
        report = Report(folder, sound.url)

        assert report.exit_code == 0
        assert report.levels() == {"ok"}
        assert not any(finding.fix for finding in report.findings)
        assert [finding.subject for finding in report.findings] == [
            "connection", "latency", "version", "topology", "memory", "memory policy", "persistence", "password",
            "clock", "rights", "log", "dictionary", "fill", "circuit",
        ]  # fmt: skip
        assert report["connection"].message == f"127.0.0.1:{sound.port} answers"
        assert "of 64.0 MB used" in report["memory"].message
        assert report["topology"].message == "standalone, 0 replicas"

    def test_no_bound_of_memory_and_no_eviction_are_warned_of(self, folder: Path) -> None:
        with ValkeyServer() as server:
            report = Report(folder, server.url)

        assert report.exit_code == 0
        assert (report["memory"].level, report["memory policy"].level) == ("warning", "warning")
        assert "maxmemory" in report["memory"].fix
        assert "maxmemory-policy allkeys-lru" in report["memory policy"].fix

    def test_memory_used_up_with_nothing_to_evict_is_an_error(self, folder: Path) -> None:
        with ValkeyServer(maxmemory="100kb", maxmemory_policy="noeviction") as server:
            report = Report(folder, server.url)

        assert report.exit_code == 1
        assert report["memory"].level == "error"
        assert "writes are refused" in report["memory"].message

    def test_what_a_server_writes_to_its_disk_is_warned_of(self, folder: Path) -> None:
        with ValkeyServer(save="60 1", appendonly="yes", **SOUND) as server:
            report = Report(folder, server.url)

        appended, saved = report.all("persistence")
        assert (appended.level, saved.level) == ("warning", "warning")
        assert "CONFIG SET appendonly no" in appended.fix
        assert "save 60 1" in saved.message
        assert 'CONFIG SET save ""' in saved.fix

    def test_one_on_a_socket_is_on_this_host(self, folder: Path) -> None:
        with ValkeyServer(unix_socket=True, **SOUND) as server:
            report = Report(folder, server.url)

        assert report.levels() == {"ok"}
        assert report["connection"].message == f"{server.socket_path} answers"

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 0.0.0.0 is nobody's address")
    def test_one_that_anybody_reaches_without_a_password_is_warned_of(self, folder: Path) -> None:
        with ValkeyServer(bind="0.0.0.0", protected_mode="no", **SOUND) as server:
            report = Report(folder, f"redis://0.0.0.0:{server.port}/0")

        assert report["password"].level == "warning"
        assert "requirepass" in report["password"].fix

    def test_a_clock_that_is_off_is_warned_of(self, sound: ValkeyServer) -> None:
        found = {
            ahead: examined(sound.url, now=lambda ahead=ahead: time.time() + ahead)["clock"]
            for ahead in (0.0, 0.4, -30.0, 30.0)
        }

        assert [found[ahead].level for ahead in found] == ["ok", "ok", "warning", "warning"]
        assert "ms ahead of ours" in found[-30.0].message
        assert "ms behind ours" in found[30.0].message

    def test_a_long_way_is_warned_of(self, folder: Path, sound: ValkeyServer) -> None:
        with slow_way(sound.port, 0.03) as port:
            report = Report(folder, f"redis://127.0.0.1:{port}/0", timeout="250ms")

        assert report["latency"].level == "warning"
        assert "raise timeout" in report["latency"].fix

    def test_one_behind_tls_is_reached(self, folder: Path, sound: ValkeyServer) -> None:
        authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        authority.cert_pem.write_to_path(folder / "authority.pem")
        tls_proxy = runpy.run_path(str(ROOT / "redis" / "tls.py"))["tls_proxy"]

        with tls_proxy(context, sound.port) as port:
            report = Report(folder, f"rediss://localhost:{port}/0", tls_ca_file=str(folder / "authority.pem"))
            stranger = Report(folder, f"rediss://localhost:{port}/0")

        assert report.levels() == {"ok"}
        assert stranger.exit_code == 1
        assert "tls_ca_file" in stranger["connection"].fix


class TestNoServer:
    def test_one_that_was_killed_is_an_error_and_says_what_to_check(self, folder: Path) -> None:
        with ValkeyServer() as server:
            server.kill()
            report = Report(folder, server.url)

        assert report.exit_code == 1
        assert [finding.subject for finding in report.findings] == ["connection"]
        assert f"127.0.0.1:{server.port}" in report["connection"].message
        assert "start the server" in report["connection"].fix

    def test_one_that_is_silent_costs_no_more_than_the_time_out(self, folder: Path) -> None:
        with ValkeyServer() as server:
            server.pause()
            report = Report(folder, server.url, timeout="300ms")

        assert report.exit_code == 1
        assert 0.3 <= report.seconds < 3 * 0.3
        assert "raise timeout" in report["connection"].fix

    @pytest.mark.parametrize("scheme", ["redis+sentinel", "redis+cluster"])
    def test_several_that_are_all_down_are_one_error(self, folder: Path, scheme: str) -> None:
        service = "/quotes/0" if scheme == "redis+sentinel" else ""
        report = Report(folder, f"{scheme}://127.0.0.1:{free_port()},127.0.0.1:{free_port()}{service}")

        assert report.exit_code == 1
        assert "start the server" in report["connection"].fix

    def test_a_name_that_no_one_knows_is_said_to_be_wrong(self, folder: Path) -> None:
        report = Report(folder, "redis://no-such-host.invalid:6379/0")

        assert report.exit_code == 1
        assert "name of the host" in report["connection"].fix

    def test_a_circuit_that_is_open_is_told_by_the_process_that_has_it(self) -> None:
        with ValkeyServer() as server, world(server.url) as caches:
            server.kill()
            with pytest.raises(BackendError):
                caches["quotes"].get("k")

            found = {finding.subject: finding for finding in caches.backend("far").examine(["quotes"])}

        assert found["connection"].level == "error"
        assert (found["circuit"].level, found["circuit"].message[:4]) == ("warning", "open")

    def test_a_driver_that_is_not_installed_is_an_error_with_what_to_install(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "layercache_redis.backend", None)
        report = Report(folder, "redis://localhost:6379/0")

        assert report.exit_code == 1
        assert "layercache-framework[redis]" in report["backend"].message


class TestLogin:
    def test_a_password_is_seen_to_be_given_and_never_shown(self, folder: Path) -> None:
        with ValkeyServer(requirepass="in-the-secrets", **SOUND) as server:
            report = Report(folder, server.url, password="in-the-secrets")
            table = run("doctor").output

        assert report.exit_code == 0
        assert report["password"] == Finding("ok", "password", "given, for the user default")
        assert "in-the-secrets" not in report.text + table

    def test_a_wrong_one_is_an_error_that_does_not_show_it(self, folder: Path) -> None:
        with ValkeyServer(requirepass="right") as server:
            report = Report(folder, f"redis://:in-the-url@127.0.0.1:{server.port}/0")
            table = run("doctor").output
            missing = Report(folder, server.url)

        assert (report.exit_code, missing.exit_code) == (1, 1)
        assert "username and password" in report["connection"].fix
        assert missing["connection"].fix == report["connection"].fix
        assert "in-the-url" not in report.text + table

    def test_a_user_that_may_not_look_is_told_what_cannot_be_seen(self, folder: Path) -> None:
        with ValkeyServer(**SOUND) as server:
            allow(server, "~t:*", "+@all", "-config", "-info", "-ping")
            blind = Report(folder, server.url, username="app", password="s3cret")
            server.ask("ACL", "SETUSER", "app", "+info")
            shortsighted = Report(folder, server.url, username="app", password="s3cret")

        assert blind.exit_code == shortsighted.exit_code == 0
        assert blind["connection"].level == "ok"
        assert blind["latency"].fix == "ACL SETUSER app +ping"
        assert blind["server"].level == "warning"
        assert "cannot see" in blind["server"].message
        assert blind["server"].fix == "ACL SETUSER app +info"
        assert shortsighted["memory"].level == "ok"
        assert shortsighted["persistence"].level == "warning"
        assert shortsighted["persistence"].fix.startswith("ACL SETUSER app +config")

    @pytest.mark.parametrize(
        ("rights", "fix"),
        [
            (["~t:*", "+@all", "-evalsha", "-xadd"], "ACL SETUSER app +xadd +evalsha"),
            (["~other:*", "+@all"], "ACL SETUSER app ~t:*"),
        ],
    )
    def test_a_user_that_lacks_what_a_cache_needs_is_an_error(
        self, folder: Path, rights: list[str], fix: str
    ) -> None:
        with ValkeyServer(**SOUND) as server:
            allow(server, *rights)
            report = Report(folder, server.url, username="app", password="s3cret")

        assert report.exit_code == 1
        assert (report["rights"].level, report["rights"].fix) == ("error", fix)

    def test_finding_that_out_leaves_nothing_on_the_server(self, sound: ValkeyServer) -> None:
        sound.ask("FLUSHALL")

        examined(sound.url, caches=[])

        assert sound.ask("DBSIZE") == 0


class TestSeveralServers:
    def test_a_cluster_is_looked_at_as_a_whole(self, folder: Path) -> None:
        with ValkeyCluster() as cluster:
            with world(cluster.url) as caches:
                caches["quotes"].set_many({f"q{number}": number for number in range(60)})
            report = Report(folder, cluster.url)
            single = Report(folder, cluster.nodes[0].url)
            slot = cluster.slot_of("t:quotes:q1")
            cluster.owner(slot).ask("CLUSTER", "DELSLOTS", slot)
            uncovered = Report(folder, cluster.url)
            cluster.nodes[2].kill()
            broken = Report(folder, cluster.url)

        assert report.exit_code == 0
        assert report["topology"].message.startswith("a cluster of 3 primaries, state ok")
        assert report["fill"].message == "quotes: 60 entries"
        assert len(report.all("memory")) == 3
        assert report["memory policy"].level == "warning"
        assert (single.exit_code, single["topology"].level) == (1, "error")
        assert "redis+cluster://" in single["topology"].fix
        assert (uncovered.exit_code, broken.exit_code) == (1, 1)
        fixes = [finding.fix for finding in uncovered.all("topology") if finding.level == "error"]
        assert any("give their slots to others" in fix for fix in fixes)
        assert broken["connection"].level == "error"

    def test_a_cluster_without_slots_is_an_error(self, folder: Path) -> None:
        with ValkeyServer(port=free_port_with_bus(), cluster_enabled="yes") as server:
            report = Report(folder, f"redis+cluster://127.0.0.1:{server.port}")

        assert report.exit_code == 1
        assert "no node of the cluster has any slots" in report["connection"].message

    def test_sentinels_are_asked_and_missed(self, folder: Path) -> None:
        with ValkeySentinels(password="s3cret") as sentinels:
            report = Report(folder, sentinels.url, password="s3cret")
            sentinels.sentinels[2].kill()
            fewer = run("doctor", "--json")
            asked_directly = Report(folder, sentinels.sentinels[0].url)
            replica = Report(folder, sentinels.replica.url, password="s3cret")

        primary = f"127.0.0.1:{sentinels.primary.port}"
        assert report.exit_code == 0
        assert report["topology"] == Finding(
            "ok", "topology", f"3 sentinels; {primary} is the primary of 'layercache'"
        )
        assert report["replication"].level == "ok"
        missed = [
            found
            for found in json.loads(fewer.output)["backends"]["far"]["findings"]
            if found["subject"] == "topology"
        ]
        assert [found["level"] for found in missed] == ["warning"]
        assert f"127.0.0.1:{sentinels.sentinels[2].port}" in missed[0]["message"]
        assert asked_directly.exit_code == replica.exit_code == 1
        assert "redis+sentinel://" in asked_directly["topology"].fix
        assert "takes no writes" in replica["topology"].message

    def test_a_replica_that_falls_behind_is_warned_of(self) -> None:
        with (
            ValkeyServer(repl_diskless_sync_delay=0, **SOUND) as primary,
            ValkeyServer(repl_diskless_load="swapdb") as replica,
        ):
            replica.ask("REPLICAOF", "127.0.0.1", primary.port)
            until(lambda: "state=online" in primary.ask("INFO", "replication"), within=10)
            replica.pause()
            primary.ask("SET", "t:large", "x" * (9 << 20))

            found = examined(primary.url)

        assert found["replication"].level == "warning"
        assert "9.0 MB behind" in found["replication"].message


@pytest.mark.parametrize(
    ("said", "level"),
    [
        ({"redis_version": "6.0.16"}, "error"),
        ({"redis_version": "6.2.0"}, "ok"),
        ({"redis_version": "10.0.0"}, "ok"),
        ({"server_name": "valkey", "redis_version": "7.2.4", "valkey_version": "7.1.9"}, "error"),
        ({"server_name": "valkey", "redis_version": "7.2.4", "valkey_version": "8.0.1"}, "ok"),
    ],
)
def test_servers_of_old_are_errors(said: dict[str, str], level: str) -> None:
    (version,) = [found for found in of_info(said, RedisOptions()) if found.subject == "version"]

    assert version.level == level
    assert bool(version.fix) == (level == "error")


class TestCachesOnAServer:
    def test_each_is_counted_and_no_other(self, folder: Path, sound: ValkeyServer) -> None:
        sound.ask("FLUSHALL")
        sound.ask("SET", "other:quotes:k", "somebody else's")
        with world(sound.url, caches=("quotes", "news")) as caches:
            caches["quotes"].set_many({f"q{number}": number for number in range(1500)})
            caches["news"].set("n", "…")
            write_settings(folder, {"far": far(sound.url)}, {"quotes": "far", "news": "far"})
            found = json.loads(run("doctor", "--json").output)["backends"]["far"]["findings"]

        fills = [Finding(**one) for one in found if one["subject"] == "fill"]
        assert fills == [
            Finding("ok", "fill", "quotes: 1,500 entries"),
            Finding("ok", "fill", "news: 1 entry"),
        ]

    def test_one_that_a_clear_has_left_full_is_to_be_purged(self, sound: ValkeyServer) -> None:
        sound.ask("FLUSHALL")
        with world(sound.url) as caches:
            caches["quotes"].set_many({f"q{number}": number for number in range(60)})
            before = examined(sound.url)["fill"]
            caches["quotes"].clear()
            after = examined(sound.url)["fill"]

        assert before == Finding("ok", "fill", "quotes: 60 entries")
        assert (after.level, after.fix) == ("warning", "layercache purge -c quotes")
        assert "of 60 of them 60 are of no use" in after.message

    def test_a_log_that_forgets_too_soon_is_to_be_longer(self, sound: ValkeyServer) -> None:
        sound.ask("FLUSHALL")
        with world(sound.url, log_length=10) as caches:
            for number in range(300):
                caches["quotes"].set("k", number)
            short = examined(sound.url, log_length=10)["log"]
            long = examined(sound.url)["log"]

        assert (short.level, long.level) == ("warning", "ok")
        assert "log_length" in short.fix

    def test_every_stream_of_the_log_is_looked_at_and_another_number_is_told_of(
        self, sound: ValkeyServer
    ) -> None:
        sound.ask("FLUSHALL")
        with world(sound.url, log_shards=3) as caches:
            cache = caches["quotes"]

            def follows_all() -> bool:
                cache.get("k")
                return cache.stats().layers[-1].gauges.get("log_lag", 9) <= 1

            until(follows_all)
            alike, fewer = (
                [each for each in caches.backend("far").examine(["quotes"]) if each.subject == "log"],
                examined(sound.url, log_shards=2)["log"],
            )

        assert [finding.level for finding in alike] == ["ok", "ok", "ok"]
        assert [each.message.partition(":")[0] for each in alike] == [f"stream {n} of 3" for n in (1, 2, 3)]
        assert fewer.level == "warning"
        assert "log_shards is 2 here, and some process has said 3" in fewer.message
        sound.ask("FLUSHALL")  # it is said for a day, and others look at this server

    def test_a_dictionary_is_shown_and_missed(self) -> None:
        with (
            ValkeyServer(maxmemory="64mb", maxmemory_policy="volatile-lru") as server,
            world(server.url) as caches,
        ):
            caches["quotes"].set_many(
                {
                    f"q{n}": {"symbol": f"S{n}", "price": n / 7, "currency": "USD", "state": "OPEN"}
                    for n in range(60)
                }
            )
            id = caches.backend("far").train_dictionary("quotes", 100).id
            sound = examined(server.url)["dictionary"]
            server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            endangered = examined(server.url)["dictionary"]
            server.ask("DEL", f"t:%dict:quotes:{id}")
            lost = examined(server.url)["dictionary"]

        assert sound.level == "ok"
        assert f"quotes: {id}, of" in sound.message
        assert (endangered.level, "volatile-lru" in endangered.fix) == ("warning", True)
        assert (lost.level, lost.fix) == ("warning", "layercache train-dictionary -c quotes")


class TestOtherBackends:
    SETTINGS = (
        {
            "local": {"type": "memory", "max_entries": 50},
            "nothing": {"type": "null"},
            "unused": {"type": "null"},
        }
        | {"layered": {"type": "chain", "layers": ["nothing", "local"]}},
        {"quotes": "layered", "tests": "nothing"},
    )

    def report(self, folder: Path, environment: str) -> dict[str, Any]:
        write_settings(folder, *self.SETTINGS, environment=environment)
        report: dict[str, Any] = json.loads(run("doctor", "--json", "-e", environment).output)
        return report

    def test_each_says_what_it_is(self, folder: Path) -> None:
        report = self.report(folder, "testing")

        assert report.keys() == {"origin", "environment", "errors", "warnings", "backends"}
        assert (report["environment"], report["errors"], report["warnings"]) == ("testing", 0, 0)
        messages = {
            name: [one["message"] for one in backend["findings"]]
            for name, backend in report["backends"].items()
        }
        assert messages == {
            "local": ["0 of 50 entries, 0 of 67,108,864 bytes, in this process"],
            "nothing": ["stores nothing: every read is a miss, every load runs"],
            "unused": ["not looked at, as no cache of this environment uses it"],
            "layered": ["nothing (null), local (memory); nearest first"],
        }
        assert {name: backend["caches"] for name, backend in report["backends"].items()} == {
            "local": ["quotes"], "nothing": ["quotes", "tests"], "unused": [], "layered": ["quotes"],
        }  # fmt: skip

    def test_nothing_stored_is_no_good_in_production(self, folder: Path) -> None:
        report = self.report(folder, "production")

        assert report["warnings"] == 1
        (_, warning) = report["backends"]["nothing"]["findings"]
        assert (warning["level"], "tests" in warning["message"]) == ("warning", True)

    def test_memory_says_how_full_it_is_in_the_process_that_has_it(self) -> None:
        with Caches({"backends": {"m": {"type": "memory"}}, "caches": {"c": {"backend": "m"}}}) as caches:
            caches["c"].set("k", "v")

            (found,) = caches.backend("m").examine(["c"])

        assert found.message.startswith("1 of 10,000 entries, ")


class TestOutput:
    def test_it_is_a_table_by_backend_without_colours(self, folder: Path, sound: ValkeyServer) -> None:
        write_settings(
            folder, {"far": far(sound.url), "local": {"type": "memory"}}, {"quotes": "far", "n": "local"}
        )
        sound.ask("FLUSHALL")  # others may have said to how many streams they write

        done = run("doctor")

        assert done.exit_code == 0
        assert "\x1b" not in done.output
        lines = done.output.splitlines()
        assert lines[0] == f"{folder / 'settings.toml'}, environment 'development'"
        assert lines[2] == "far (redis) of quotes"
        assert lines[3] == f"ok       connection     127.0.0.1:{sound.port} answers"
        assert "local (memory) of n" in lines
        assert lines[-1] == "0 errors, 0 warnings", done.output
        assert [line for line in lines if line != line.rstrip()] == []

    def test_a_fix_stands_under_what_it_fixes(self, folder: Path) -> None:
        write_settings(folder, {"far": far(f"redis://127.0.0.1:{free_port()}/0")}, {"quotes": "far"})

        done = run("doctor")

        assert done.exit_code == 1
        assert "\n                     fix: start the server" in done.output
        assert done.output.endswith("\n1 error, 0 warnings\n")

    def test_a_terminal_gets_colours(self, folder: Path) -> None:
        write_settings(folder, {"local": {"type": "memory"}}, {"quotes": "local"})
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        environment.pop("NO_COLOR", None)

        subprocess.run(
            [*COMMAND, "doctor"],
            stdout=theirs, env=environment, check=True,
        )  # fmt: skip
        os.close(theirs)
        said = os.read(ours, 65_536).decode()
        os.close(ours)

        assert "\x1b[32mok" in said

    def test_faults_of_the_settings_are_told_as_by_check(self, folder: Path) -> None:
        write_settings(folder, {"local": {"type": "memori"}}, {"quotes": "local"})

        done, as_json = run("doctor"), run("doctor", "--json")

        assert (done.exit_code, as_json.exit_code) == (1, 1)
        assert "backends.local.type" in done.stderr
        assert json.loads(as_json.output)["faults"][0]["path"] == "backends.local.type"
        assert run("doctor", "--nonsense").exit_code == 2


# -- what the tests stand on


def world(
    url: str, caches: tuple[str, ...] = ("quotes",), now: Callable[[], float] = time.time, **options: Any
) -> Caches:
    settings = {
        "backends": {"far": far(url, **options)},
        "caches": {name: {"backend": "far"} for name in caches},
    }
    return Caches(settings, now=now)


def examined(
    url: str, caches: list[str] | None = None, now: Callable[[], float] = time.time, **options: Any
) -> dict[str, Finding]:
    """What the backend says when it is asked without the command line, by subject."""
    with world(url, now=now, **options) as opened:
        findings = opened.backend("far").examine(["quotes"] if caches is None else caches)
        return {finding.subject: finding for finding in findings}


def free_port_with_bus() -> int:
    while (port := free_port()) > 55_535:  # the nodes' own is 10,000 above it
        pass
    return port


def allow(server: ValkeyServer, *rights: str) -> None:
    server.ask("ACL", "SETUSER", "app", "on", ">s3cret", *rights)


@contextmanager
def slow_way(port: int, seconds: float) -> Iterator[int]:
    """A port from which what is said reaches `port` so much later."""

    def pass_on(source: socket, target: socket, delay: float) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                time.sleep(delay)
                target.sendall(data)
            target.shutdown(SHUT_WR)

    def serve_one(near: socket) -> None:
        with near, create_connection(("127.0.0.1", port)) as far_end:
            back = threading.Thread(target=pass_on, args=(far_end, near, 0.0))
            back.start()
            pass_on(near, far_end, seconds)
            back.join()

    def serve() -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                threads.append(threading.Thread(target=serve_one, args=(listener.accept()[0],)))
                threads[-1].start()

    threads = [threading.Thread(target=serve)]
    with create_server(("127.0.0.1", 0)) as listener:
        threads[0].start()
        yield listener.getsockname()[1]
        listener.shutdown(SHUT_RDWR)
    for thread in threads:
        thread.join(10)
