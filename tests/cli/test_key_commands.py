"""`layercache get`, `explain`, `delete`, `invalidate` and `clear`: in a store that others share, or in a service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from operating import asked, layers, run, write_settings
from serving import serving
from waiting import until

from layercache import Caches
from layercache.testing import ValkeyServer
from layercache.testing.server import free_port

KEY = "a/b?c d%2F..#é"
READ, WRITE = "r" * 32, "w" * 40


@pytest.fixture
def settings(folder: Path, server: ValkeyServer) -> Path:
    backends = layers(server.url) | {"nothing": {"type": "null"}}
    return write_settings(
        folder, backends, {"default": "layered", "quotes": "far", "near": "local", "none": "nothing"}
    )


@pytest.fixture
def service(settings: Path) -> Iterator[Caches]:
    """A process that has been at work for a while, with a near layer of its own."""
    with Caches(settings) as caches:
        for name in ("default", "quotes", "near"):
            caches[name].set("k", {"price": 1.5, "of": "Zoë"}, tags=["t"])
            caches[name].set(KEY, "odd")
        yield caches


@pytest.fixture
def shown(settings: Path) -> Iterator[tuple[Caches, str]]:
    """A service that shows values, with tokens, and where its management API is."""
    text = settings.read_text()
    admin = f'[default.admin]\nread_token = "{READ}"\nwrite_token = "{WRITE}"\nshow_values = true\n'
    settings.write_text(f"{text}\n{admin}")
    with Caches(settings) as caches, serving(caches) as url:
        settings.write_text(text)
        caches["near"].set("k", [1], tags=["t"])
        caches["near"].set(KEY, "odd")
        yield caches, url


def gone(cache: Any, key: str) -> bool:
    return cache.get(key) is None


class TestInAStore:
    def test_a_value_is_printed_as_json(self, service: Caches) -> None:
        done = run("get", "k", "-c", "quotes")

        assert done.exit_code == 0
        assert done.output == '{"price": 1.5, "of": "Zoë"}\n'
        assert run("get", "k").output == done.output
        told = json.loads(run("get", "k", "--json").output)
        assert told == {
            "cache": "default",
            "key": "k",
            "state": "fresh",
            "value": {"price": 1.5, "of": "Zoë"},
        }

    def test_a_none_is_a_value(self, service: Caches) -> None:
        service["quotes"].set("none", None)

        done = run("get", "none", "-c", "QUOTES")

        assert (done.exit_code, done.output) == (0, "null\n")

    def test_where_there_is_no_value_it_exits_3(self, service: Caches) -> None:
        done, as_json = run("get", "other"), run("get", "other", "--json")

        assert done.exit_code == as_json.exit_code == 3
        assert "there is nothing under 'other'" in done.stderr
        assert not done.stdout
        assert json.loads(as_json.stdout)["state"] == "absent"

    def test_a_stale_value_is_printed_when_that_will_do(self, service: Caches, settings: Path) -> None:
        service["quotes"].invalidate("t", soft=True)

        fresh, stale = run("get", "k", "-c", "quotes"), run("get", "k", "-c", "quotes", "--stale", "--json")

        assert fresh.exit_code == 3
        assert "--stale" in fresh.stderr
        told = json.loads(stale.stdout)
        assert (stale.exit_code, told["state"], told["value"]["price"]) == (0, "stale", 1.5)

    def test_explain_says_what_each_layer_has(self, service: Caches) -> None:
        done, told = run("explain", "k"), json.loads(run("explain", "k", "--json").output)

        assert done.exit_code == 0
        assert "get_or_set would hit: it is fresh in far" in done.output
        assert "of this command" in done.output
        assert [(layer["name"], layer["state"]) for layer in told["layers"]] == [
            ("local", "absent"),
            ("far", "fresh"),
        ]
        assert {tag["tag"] for tag in told["layers"][1]["tags"]} == {"*", "t"}

    def test_a_key_gives_the_terminal_no_orders(self, service: Caches) -> None:
        service["quotes"].set("\x1b[2J[bold]k", "\x1b[2J", tags=["\x9b2J"])

        explained = run("explain", "\x1b[2J[bold]k", "-c", "quotes")
        got = run("get", "\x1b[2J[bold]k", "-c", "quotes")

        assert "\\x1b[2J[bold]k" in explained.output
        assert "\\x9b2J" in explained.output
        assert not {"\x1b", "\x9b"} & set(explained.output + got.output)

    def test_what_is_deleted_goes_from_the_memory_of_others_as_well(self, service: Caches) -> None:
        assert service["default"].get("k") is not None

        done = run("delete", "k", "other", KEY)

        assert done.exit_code == 0
        assert (
            done.output == f"default: 'k' deleted\ndefault: 'other' was not there\ndefault: {KEY!r} deleted\n"
        )
        until(lambda: gone(service["default"], "k"))

    def test_what_is_invalidated_goes_from_the_memory_of_others_as_well(self, service: Caches) -> None:
        soft = run("invalidate", "t", "--soft", "--json")
        until(lambda: "stale" in service["default"].explain("k").would)
        hard = run("invalidate", "t", "u")

        assert json.loads(soft.output) == {"cache": "default", "tags": ["t"], "soft": True}
        assert hard.output == "default: what carries 't' or 'u' is gone\n"
        until(lambda: service["default"].explain("k").layers[1].state == "invalid")
        assert service["quotes"].get("k") is not None

    def test_clear_asks_first(self, service: Caches) -> None:

        refused, nobody = asked("\n", "clear", "-c", "default"), asked("", "clear", "-c", "default")
        assert refused.exit_code == nobody.exit_code == 1
        assert "Drop every key of default?" in refused.stderr
        assert service["default"].get("k") is not None

        done = asked("y\n", "clear", "-c", "default", "--json")
        assert json.loads(done.stdout) == {"cache": "default", "cleared": True}
        until(lambda: gone(service["default"], "k"))
        assert service["quotes"].get("k") is not None
        assert run("clear", "-c", "quotes", "--yes").output == "quotes: cleared\n"
        until(lambda: gone(service["quotes"], "k"))

    def test_a_token_in_the_variable_is_no_setting(
        self, service: Caches, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LAYERCACHE_ADMIN_TOKEN", WRITE)

        assert run("get", "k", "-c", "quotes").exit_code == 0

    def test_which_cache_is_to_be_cleared_has_to_be_said(self, service: Caches) -> None:
        assert run("clear", "--yes").exit_code == 2
        assert service["default"].get("k") is not None

    def test_what_is_in_the_memory_of_others_alone_is_out_of_reach(self, settings: Path) -> None:
        for words in (
            ("get", "k"),
            ("explain", "k"),
            ("delete", "k"),
            ("invalidate", "t"),
            ("clear", "--yes"),
        ):
            done = run(*words, "-c", "near")
            assert done.exit_code == 4
            assert "--url" in done.stderr
            assert "near is in the memory of each process alone" in done.stderr
        assert "none stores nothing" in json.loads(run("get", "k", "-c", "none", "--json").stdout)["error"]

    def test_wrong_names_and_keys_are_wrong_usage(self, settings: Path) -> None:
        unknown = run("get", "k", "-c", "quots")

        assert unknown.exit_code == 2
        assert "did you mean" in unknown.output
        assert run("get", "", "-c", "quotes").exit_code == 2
        assert run("invalidate", "*", "-c", "quotes").exit_code == 2

    @pytest.mark.parametrize("backend", ["far", "layered"])
    def test_a_store_that_does_not_answer_is_told_and_nothing_said_to_be_done(
        self, folder: Path, backend: str
    ) -> None:
        backends = layers(f"redis://127.0.0.1:{free_port()}/0")
        write_settings(folder, backends, {"default": backend})

        for words in (
            ("get", "k"),
            ("explain", "k"),
            ("delete", "k"),
            ("invalidate", "t"),
            ("clear", "-c", "default", "-y"),
        ):
            done = run(*words)
            assert done.exit_code == 1, words
            assert "'far'" in done.stderr + done.stdout
            assert done.stdout == "" or words[0] == "explain"
        assert "do it again" in run("delete", "k").stderr


class TestInAService:
    def test_its_memory_is_reached(self, shown: tuple[Caches, str], monkeypatch: pytest.MonkeyPatch) -> None:
        caches, url = shown
        monkeypatch.setenv("LAYERCACHE_ADMIN_TOKEN", WRITE)
        monkeypatch.setenv("LAYERCACHE_ADMIN_URL", f"{url}/")

        assert run("get", "k", "-c", "near").output == "[1]\n"
        assert run("get", KEY, "-c", "near").output == '"odd"\n'
        assert run("get", "other", "-c", "near").exit_code == 3
        assert "would hit: it is fresh in local" in run("explain", "k", "-c", "near").output
        assert run("invalidate", "t", "-c", "near").exit_code == 0
        assert gone(caches["near"], "k")
        assert run("delete", KEY, "-c", "near").output == f"near: {KEY!r} deleted\n"
        assert gone(caches["near"], KEY)
        caches["near"].set("k", 1)
        assert run("clear", "-c", "near", "--yes").exit_code == 0
        assert gone(caches["near"], "k")

    def test_what_it_answers_is_what_is_answered_here(self, shown: tuple[Caches, str]) -> None:
        caches, url = shown
        caches["quotes"].set("k", 1, tags=["t"])

        here = json.loads(run("explain", "k", "-c", "quotes", "--json").output)
        there = json.loads(
            run("explain", "k", "-c", "quotes", "--json", "--url", url, "--token", READ).output
        )

        assert here.keys() == there.keys()
        assert here["layers"][0].keys() == there["layers"][0].keys()
        assert here["layers"][0]["tags"] == there["layers"][0]["tags"]

    def test_what_it_refuses_is_told(self, shown: tuple[Caches, str]) -> None:
        _, url = shown

        without = run("get", "k", "-c", "near", "--url", url)
        reading = run("delete", "k", "-c", "near", "--url", url, "--token", READ)
        unknown = run("get", "k", "-c", "nera", "--url", url, "--token", READ)

        assert without.exit_code == 1
        assert "LAYERCACHE_ADMIN_TOKEN" in without.stderr
        assert reading.exit_code == 1
        assert "the write token is wanted" in reading.stderr
        assert unknown.exit_code == 2
        assert "did you mean 'near'" in unknown.stderr

    def test_values_that_it_hides_are_not_said_to_be_absent(self, service: Caches) -> None:
        with serving(service) as url:
            done = run("get", "k", "-c", "near", "--url", url)

        assert done.exit_code == 1
        assert "show_values" in done.stderr

    def test_what_is_no_management_api_is_told(self, shown: tuple[Caches, str]) -> None:
        _, url = shown

        nobody = run("get", "k", "--url", f"http://127.0.0.1:{free_port()}", "--json")
        elsewhere = run("explain", "k", "--url", f"{url}/dashboard/somewhere", "--token", READ)
        no_url = run("get", "k", "--url", "localhost:8790")

        assert nobody.exit_code == elsewhere.exit_code == 1
        assert "does not answer" in json.loads(nobody.stdout)["error"]
        assert no_url.exit_code == 2
