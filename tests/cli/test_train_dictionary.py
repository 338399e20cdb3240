"""`layercache train-dictionary`: new values take a quarter, everybody learns of it, old ones stay readable."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import quotes
from operating import far, run, write_settings
from waiting import until

from layercache import Caches
from layercache.options import StageOptions
from layercache.spi import Transform
from layercache.testing import ValkeyCluster, ValkeyServer
from layercache.testing.server import free_port


def quote(number: int) -> dict[str, Any]:
    """A quote of about 1 KB of JSON, as a service has it from its source."""
    made: dict[str, Any] = json.loads(quotes.quote(number))
    return made


def size(value: Any) -> int:
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


QUOTES = {f"quote:{number}": quote(number) for number in range(300)}
OTHERS = {f"other:{number}": quote(5000 + number) for number in range(200)}


@pytest.fixture
def settings(folder: Path, server: ValkeyServer) -> Path:
    return write_settings(folder, {"far": far(server.url)}, {"quotes": "far"})


def fill(settings: Path, values: dict[str, Any] = QUOTES) -> None:
    with Caches(settings) as caches:
        caches["quotes"].set_many(values)


def dictionaries(server: ValkeyServer) -> list[str]:
    names: list[str] = server.ask("KEYS", "*%dict*")
    return sorted(names)


def share(server: ValkeyServer, keys: Iterable[str] = OTHERS) -> float:
    """What values take on the server, of what their JSON takes."""
    taken = sum(server.ask("STRLEN", f"t:quotes:{key}") for key in keys)
    return taken / sum(size(OTHERS[key]) for key in keys)


def know_of_none(caches: Caches) -> None:
    """Have a process follow the log, and learn that no dictionary is in use."""
    space = caches.backend("far").key_space("quotes")

    def follows() -> bool:
        caches["quotes"].set_many(QUOTES)
        return "log_lag" in space.gauges()

    until(follows)
    caches["quotes"].set_many(QUOTES)


def is_small(caches: Caches, server: ValkeyServer) -> bool:
    """Whether a quote that is stored now takes a third of its JSON."""
    caches["quotes"].set("other:0", OTHERS["other:0"])
    return share(server, ["other:0"]) < 0.33


def test_a_process_that_runs_learns_of_it_and_a_quote_takes_a_quarter(
    settings: Path, server: ValkeyServer
) -> None:
    with Caches(settings) as running:
        cache = running["quotes"]
        know_of_none(running)
        cache.set_many(OTHERS)
        without = share(server)
        cache.delete_many(list(OTHERS))

        done = run("train-dictionary", "-c", "quotes")
        until(lambda: is_small(running, server))
        cache.set_many(OTHERS)

        assert done.exit_code == 0
        assert share(server) <= 0.25 < without <= 0.6
        assert cache.get_many([*QUOTES, *OTHERS]) == {**QUOTES, **OTHERS}
    with Caches(settings) as fresh:
        assert fresh["quotes"].get("other:1") == OTHERS["other:1"]
        assert fresh["quotes"].get_many([*QUOTES, *OTHERS]) == {**QUOTES, **OTHERS}


def test_the_process_that_trains_learns_of_it_as_well(settings: Path, server: ValkeyServer) -> None:
    with Caches(settings) as caches:
        know_of_none(caches)

        caches.backend("far").train_dictionary("quotes", 2000)

        until(lambda: is_small(caches, server))


def test_it_stays_on_the_server_and_the_log_says_so(settings: Path, server: ValkeyServer) -> None:
    fill(settings)

    id = json.loads(run("train-dictionary", "-c", "quotes", "--json").output)["dictionary"]["id"]

    assert dictionaries(server) == ["t:%dict:quotes", f"t:%dict:quotes:{id}"]
    assert server.ask("GET", "t:%dict:quotes") == str(id)
    assert [server.ask("TTL", name) for name in dictionaries(server)] == [-1, -1]
    ((_, (node, _, news, cache)),) = server.ask("XREVRANGE", "t:%log", "+", "-", "COUNT", 1)
    assert (node, news, cache) == ("n", "d", "quotes:")


def test_it_says_what_was_gained(settings: Path) -> None:
    fill(settings)

    done = run("train-dictionary", "-c", "quotes")
    again = json.loads(run("train-dictionary", "-c", "quotes", "--json").output)

    lines = done.output.splitlines()
    assert lines[0].startswith(f"quotes: dictionary {again['dictionary']['id']} of ")
    assert "from 300 samples" in lines[0]
    assert [line.rpartition(" ")[2][-1] for line in lines[1:]] == ["%"] * 3
    assert again.keys() == {"origin", "environment", "cache", "dictionary"}
    made = again["dictionary"]
    assert made["samples"] == 300
    assert made["payload_bytes"] == sum(
        len(json.dumps(one, separators=(",", ":"))) for one in QUOTES.values()
    )
    assert made["with_dictionary"] < 0.25 * made["payload_bytes"] < made["without"]


def test_the_same_values_give_the_same_dictionary_in_whatever_order_they_are_found(
    settings: Path, server: ValkeyServer
) -> None:
    fill(settings)
    id = json.loads(run("train-dictionary", "-c", "quotes", "--json").output)["dictionary"]["id"]
    with ValkeyServer() as other:
        fill(write_settings(settings.parent, {"far": far(other.url)}, {"quotes": "far"}))

        assert json.loads(run("train-dictionary", "-c", "quotes", "--json").output)["dictionary"]["id"] == id


def test_no_more_samples_are_taken_than_wanted(settings: Path) -> None:
    fill(settings)

    done = run("train-dictionary", "-c", "quotes", "--samples", "50", "--json")

    assert json.loads(done.output)["dictionary"]["samples"] == 50


def test_another_is_trained_from_what_the_first_has_compressed(settings: Path, server: ValkeyServer) -> None:
    fill(settings)
    first = json.loads(run("train-dictionary", "-c", "quotes", "--json").output)["dictionary"]
    others = {f"other:{number}": quote(number) for number in range(2000, 2300)}
    fill(settings, others)

    second = json.loads(run("train-dictionary", "-c", "quotes", "--json").output)["dictionary"]

    assert second["id"] != first["id"]
    assert second["samples"] == 600
    assert len(dictionaries(server)) == 3
    with Caches(settings) as caches:
        assert caches["quotes"].get_many([*QUOTES, *others]) == {**QUOTES, **others}


def test_one_that_was_lost_is_used_no_more_so_that_another_can_be_trained(
    settings: Path, server: ValkeyServer
) -> None:
    with Caches(settings) as running:
        running["quotes"].set_many(QUOTES)
        id = running.backend("far").train_dictionary("quotes", 2000).id
        until(lambda: is_small(running, server))
        running["quotes"].set_many(QUOTES)
        server.ask("DEL", f"t:%dict:quotes:{id}")

        too_few = run("train-dictionary", "-c", "quotes")

        def is_trained() -> bool:
            running["quotes"].set_many(QUOTES)
            return run("train-dictionary", "-c", "quotes").exit_code == 0

        until(is_trained)

        assert too_few.exit_code == 1
        assert len(dictionaries(server)) == 2
    with Caches(settings) as fresh:
        assert fresh["quotes"].get_many(list(QUOTES)) == QUOTES


def test_only_what_is_valid_and_not_too_large_is_a_sample(settings: Path, server: ValkeyServer) -> None:
    with Caches(settings) as caches:
        caches["quotes"].set_many({f"stale:{number}": quote(number) for number in range(3000, 3050)})
        caches["quotes"].clear()
        caches["quotes"].set_many(QUOTES)
        caches["quotes"].set("large", [quote(number) for number in range(100)])
        caches["quotes"].set("large and small", "x" * 100_000)
    server.ask("SET", "t:quotes:foreign", "no frame")
    server.ask("RPUSH", "t:quotes:list", "no frame")

    done = run("train-dictionary", "-c", "quotes", "--json")

    assert json.loads(done.output)["dictionary"]["samples"] == 300


class Flipped(Transform):
    """Turns each byte around."""

    name = "flipped"

    def encode(self, payload: bytes) -> bytes:
        return bytes(byte ^ 0xFF for byte in payload)

    def decode(self, payload: bytes, max_bytes: int) -> bytes:
        return self.encode(payload)


class Reversed(Transform):
    """The last byte first."""

    name = "reversed"

    def encode(self, payload: bytes) -> bytes:
        return payload[::-1]

    def decode(self, payload: bytes, max_bytes: int) -> bytes:
        return self.encode(payload)


def test_what_it_is_trained_from_has_been_through_the_stages_before_it_and_no_other(
    server: ValkeyServer,
) -> None:
    before, after = (StageOptions(stage.name, stage, None) for stage in (Flipped, Reversed))
    codecs = ["json", before, "zstd", after]
    world = {"backends": {"far": far(server.url, codecs=codecs)}, "caches": {"quotes": {"backend": "far"}}}
    with Caches(world) as caches:
        caches["quotes"].set_many(QUOTES)

        made = caches.backend("far").train_dictionary("quotes", 2000)

        assert made.samples == 300
        until(lambda: is_small(caches, server))
        assert caches["quotes"].get("other:0") == OTHERS["other:0"]
    dictionary = server.ask("GET", f"t:%dict:quotes:{made.id}").encode(errors="surrogateescape")
    assert Flipped(None).encode(b"regularMarket") in dictionary


def test_the_far_layer_of_a_chain_does_it(folder: Path, server: ValkeyServer) -> None:
    backends = {"local": {"type": "memory"}, "far": far(server.url)}
    backends["layered"] = {"type": "chain", "layers": ["local", "far"]}
    fill(write_settings(folder, backends, {"quotes": "layered"}))

    assert run("train-dictionary", "-c", "quotes").exit_code == 0

    assert len(dictionaries(server)) == 2


def test_a_cluster_has_its_samples_everywhere(folder: Path) -> None:
    with ValkeyCluster() as cluster:
        file = write_settings(folder, {"far": far(cluster.url)}, {"quotes": "far"})
        fill(file)

        made = json.loads(run("train-dictionary", "-c", "quotes", "--json").output)["dictionary"]

        with Caches(file) as fresh:
            fresh["quotes"].set("other:0", OTHERS["other:0"])
            owner = cluster.owner(cluster.slot_of("t:quotes:other:0"))
            assert share(owner, ["other:0"]) < 0.33
            assert fresh["quotes"].get("other:0") == OTHERS["other:0"]
    assert made["samples"] == 300


class TestRefusals:
    def test_a_backend_without_the_stage_is_told_what_would_be_right(
        self, folder: Path, server: ValkeyServer
    ) -> None:
        backends = {"plain": far(server.url, codecs=["json"]), "local": {"type": "memory"}}
        write_settings(folder, backends, {"quotes": "plain", "near": "local"})

        plain, near = run("train-dictionary", "-c", "quotes"), run("train-dictionary", "-c", "near", "--json")

        assert (plain.exit_code, near.exit_code) == (1, 1)
        assert 'right is codecs = ["json", "zstd"]' in plain.stderr
        assert 'codecs = ["json", "zstd"]' in json.loads(near.output)["error"]

    def test_too_few_values_change_nothing(self, settings: Path, server: ValkeyServer) -> None:
        fill(settings, dict(list(QUOTES.items())[:10]))

        done = run("train-dictionary", "-c", "quotes")

        assert done.exit_code == 1
        assert "10 samples of" in done.stderr
        assert "20 or more" in done.stderr
        assert dictionaries(server) == []

    def test_values_with_nothing_in_common_change_nothing(self, settings: Path, server: ValkeyServer) -> None:
        fill(settings, {f"k{number}": number for number in range(1000)})

        done = run("train-dictionary", "-c", "quotes")

        assert done.exit_code == 1
        assert "not make the values of cache 'quotes' smaller" in done.stderr
        assert dictionaries(server) == []

    def test_a_server_that_is_down_is_told(self, folder: Path) -> None:
        write_settings(folder, {"far": far(f"redis://:s3cret@127.0.0.1:{free_port()}/0")}, {"quotes": "far"})

        done = run("train-dictionary", "-c", "quotes")

        assert done.exit_code == 1
        assert done.stderr.startswith("backend 'far': ")
        assert "s3cret" not in done.output

    def test_a_cache_that_is_not_there_is_wrong_usage(self, settings: Path) -> None:
        done = run("train-dictionary", "-c", "quots")

        assert done.exit_code == 2
        assert "did you mean 'quotes'" in done.stderr
