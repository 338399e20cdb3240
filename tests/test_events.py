"""Events: what happens makes tags of caches invalid, as the settings and the code have declared it, in one place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pytest

import layercache
from layercache import (
    BackendError,
    Caches,
    ConfigError,
    Invalidation,
    InvalidOption,
    UnknownCache,
    UnknownEvent,
    WrongFields,
    get_cache,
)
from layercache.events import of_the_process

Emit = Callable[..., list[Invalidation]]


def settings(**caches: Any) -> dict[str, Any]:
    return {"backends": {"m": {"type": "memory"}}, "caches": {"default": {"backend": "m"}, **caches}}


@pytest.fixture(params=["emit", "aemit"])
def emit_in(request: pytest.FixtureRequest) -> Callable[[Any], Emit]:
    """`emit` of a world, or of the module, on either face."""

    def emit_in(target: Any) -> Emit:
        if request.param == "emit":
            found: Emit = target.emit
            return found
        return lambda *args, **fields: asyncio.run(target.aemit(*args, **fields))

    return emit_in


@pytest.fixture
def process() -> Iterator[None]:
    """A process in which nobody has declared anything."""
    layercache.close()
    of_the_process._reactions.clear()
    yield
    layercache.close()
    of_the_process._reactions.clear()


# -- a world


class TestEmit:
    @pytest.fixture
    def world(self) -> Iterator[Caches]:
        with Caches(settings(stock={}, news={})) as world:
            yield world

    @pytest.fixture
    def emit(self, world: Caches, emit_in: Callable[[Any], Emit]) -> Emit:
        return emit_in(world)

    def test_invalidates_what_was_declared_and_says_so(self, world: Caches, emit: Emit) -> None:
        world.on("price_updated", tags=["quote:{symbol}", "quotes"], cache="stock")
        stock = world["stock"]
        for key, tag in {"a": "quote:AAPL", "b": "quotes", "c": "quote:MSFT"}.items():
            stock.set(key, 1, tags=[tag])

        emitted = emit("price_updated", symbol="AAPL")

        assert emitted == [Invalidation("stock", ("quote:AAPL", "quotes"), soft=False)]
        assert stock.get_many(["a", "b", "c"]) == {"c": 1}

    def test_in_every_cache_once_for_all_tags_and_once_for_those_that_become_stale(
        self, world: Caches, emit: Emit
    ) -> None:
        world.on("e", tags=["a", "b"], cache="stock")
        world.on("e", tags=["{x}"], cache="news", soft=True)
        world.on("e", tags=["c", "b"], cache="stock", soft=True)
        world.on("e", tags=["d"], cache="STOCK")
        called: list[tuple[str, Any, bool]] = []
        for name in ("stock", "news"):
            space: Any = world[name]._layer.space
            invalidate = space.invalidate

            def noted(tags: Any, soft: bool, name: str = name, invalidate: Any = invalidate) -> None:
                called.append((name, tags, soft))
                invalidate(tags, soft)

            space.invalidate = noted

        emitted = emit("e", x="y")

        assert called == [tuple(each) for each in emitted]
        assert called == [
            ("stock", ("a", "b", "d"), False),
            ("stock", ("c",), True),  # what is gone need not become stale as well
            ("news", ("y",), True),
        ]

    def test_softly_is_stale_and_not_gone(self, world: Caches, emit: Emit) -> None:
        world.on("e", tags=["t"], soft=True)
        world["default"].set("k", 1, tags=["t"])

        assert emit("e") == [Invalidation("default", ("t",), soft=True)]

        assert world["default"].get("k") is None
        assert world["default"].peek("k") == 1

    def test_declared_twice_is_as_good_as_once(self, world: Caches, emit: Emit) -> None:
        for _ in range(2):
            world.on("e", tags=["t", "t"])

        assert emit("e") == [Invalidation("default", ("t",), soft=False)]

    def test_names_are_compared_without_case(self, world: Caches, emit: Emit) -> None:
        world.on("Price_Updated", tags=["t"], cache="Stock")

        assert emit("PRICE_updated") == [Invalidation("stock", ("t",), soft=False)]

    def test_fields_stand_in_tags_as_in_an_f_string(self, world: Caches, emit: Emit) -> None:
        world.on("e", tags=["{{{a}}}:{b}:{a}", "{event}"])

        (emitted,) = emit("e", a="x y", b=date(2024, 1, 31), event=7)

        assert emitted.tags == ("{x y}:2024-01-31:x y", "7")

    def test_fields_are_those_of_all_tags_together(self, world: Caches, emit: Emit) -> None:
        world.on("e", tags=["{a}"], cache="stock")
        world.on("e", tags=["{b}"], cache="news")

        assert [each.tags for each in emit("e", a=1, b=2)] == [("1",), ("2",)]
        with pytest.raises(WrongFields, match=r"has the fields a, b; missing: 'b'$"):
            emit("e", a=1)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({}, "has the fields symbol; missing: 'symbol'"),
            ({"symbl": 1}, "has the fields symbol; missing: 'symbol'; none of them: 'symbl'"),
            ({"symbol": 1, "period": 2}, "has the fields symbol; none of them: 'period'"),
        ],
    )
    def test_other_fields_are_refused_and_nothing_is_invalidated(
        self, world: Caches, emit: Emit, given: Any, message: str
    ) -> None:
        world.on("e", tags=["t", "{symbol}"])
        world["default"].set("k", 1, tags=["t"])

        with pytest.raises(WrongFields, match=message) as caught:
            emit("e", **given)

        assert isinstance(caught.value, TypeError)
        assert world["default"].get("k") == 1

    @pytest.mark.parametrize("symbol", ["", "*", "x" * 300])
    def test_nor_is_anything_by_a_field_that_makes_no_tag(
        self, world: Caches, emit: Emit, symbol: str
    ) -> None:
        world.on("e", tags=["t", "{symbol}"])
        world["default"].set("k", 1, tags=["t"])

        with pytest.raises(InvalidOption, match="a tag is text of 1 to 255 bytes"):
            emit("e", symbol=symbol)

        assert world["default"].get("k") == 1

    def test_an_event_that_nobody_knows_brings_the_nearest_names(self, world: Caches, emit: Emit) -> None:
        with pytest.raises(UnknownEvent, match=r"no event named 'price_updatd' in a mapping.*there are none"):
            emit("price_updatd")
        world.on("price_updated", tags=["t"])

        with pytest.raises(UnknownEvent, match="did you mean 'price_updated'") as caught:
            emit("price_updatd", symbol="AAPL")

        assert isinstance(caught.value, LookupError)

    def test_where_a_cache_fails_the_others_are_seen_to_all_the_same(
        self, emit_in: Callable[[Any], Emit]
    ) -> None:
        down = {"type": "redis", "url": "redis://127.0.0.1:1/0"}
        told = settings(one={"backend": "down"}, two={}, three={"backend": "down"})
        told["backends"]["down"] = down
        with Caches(told) as world:
            for name in ("one", "two", "three"):
                world.on("e", tags=["t"], cache=name)
            world["two"].set("k", 1, tags=["t"])

            with pytest.raises(BackendError) as caught:
                emit_in(world)("e")

            assert world["two"].get("k") is None
            assert [note.split(":")[0] for note in caught.value.__notes__] == ["another cache failed as well"]


class TestOn:
    @pytest.mark.parametrize(
        ("event", "options", "message"),
        [
            ("e", {"tags": "quotes"}, r"several tags are wanted, such as \['quotes'\]"),
            ("e", {"tags": [""]}, "a tag is text of 1 to 255 bytes"),
            ("e", {"tags": ["*"]}, "a tag is text of 1 to 255 bytes"),
            ("e", {"tags": ["{a"]}, r"the tag '\{a' is no template: expected '}'"),
            ("e", {"tags": ["{a!r}"]}, "holds a format"),
            ("e", {"tags": ["{a:>9}"]}, "holds a format"),
            ("e", {"tags": ["{a.b}"]}, r"names 'a.b'; a field is a plain name, such as \{symbol\}"),
            ("e", {"tags": ["{}"]}, "names ''; a field is a plain name"),
            ("e", {"tags": ["{0}"]}, "names '0'; a field is a plain name"),
            ("", {"tags": ["t"]}, "an event has a name, such as 'price_updated'; got ''"),
            (7, {"tags": ["t"]}, "an event has a name, such as 'price_updated'; got 7"),
        ],
    )
    @pytest.mark.parametrize("at", ["world", "process"])
    def test_what_cannot_be_is_refused_and_declares_nothing(
        self, process: None, event: Any, options: Any, message: str, at: str
    ) -> None:
        with Caches(settings()) as world:
            with pytest.raises(InvalidOption, match=message):
                (world if at == "world" else layercache).on(event, **options)

            with pytest.raises(UnknownEvent):
                world.emit("e")
        assert list(of_the_process) == []

    def test_a_cache_that_is_not_defined_is_named_with_the_nearest(self) -> None:
        with (
            Caches(settings(stock={})) as world,
            pytest.raises(UnknownCache, match=r"no cache named 'stokc'.*did you mean 'stock'"),
        ):
            world.on("e", tags=["t"], cache="stokc")


# -- the settings


class TestSettings:
    def test_a_list_is_of_tags_and_a_table_says_more(self) -> None:
        told = {"price_updated": ["quote:{symbol}"], "closed": {"tags": ["quotes"], "soft": True}}
        with Caches(settings(stock={"events": told})) as world:
            assert world.emit("price_updated", symbol="A") == [
                Invalidation("stock", ("quote:A",), soft=False)
            ]
            assert world.emit("closed") == [Invalidation("stock", ("quotes",), soft=True)]

    def test_what_the_code_declares_comes_besides(self) -> None:
        with Caches(settings(stock={"events": {"e": ["a"]}})) as world:
            world.on("e", tags=["b"], cache="stock")

            assert world.emit("e") == [Invalidation("stock", ("a", "b"), soft=False)]

    def test_those_of_the_default_cache_are_everybodys_until_they_are_taken_back(self) -> None:
        told = settings(stock={}, news={"events": {"e": []}}, blog={"events": {"e": ["b"]}})
        told["caches"]["default"]["events"] = {"e": ["a"], "f": ["{x}"]}
        with Caches(told) as world:
            assert [(each.cache, each.tags) for each in world.emit("e")] == [
                ("default", ("a",)),
                ("stock", ("a",)),
                ("blog", ("b",)),
            ]
            assert len(world.emit("f", x=1)) == 4

    def test_one_that_is_taken_back_everywhere_is_known_and_takes_any_fields(self) -> None:
        with Caches(settings(stock={"events": {"price_updated": []}})) as world:
            assert world.emit("price_updated", symbol="AAPL") == []

    def test_a_variable_sets_one_whatever_its_case(
        self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "settings.toml").write_text(
            '[default.backends.m]\ntype = "memory"\n[default.caches.default]\nbackend = "m"\n'
            '[default.caches.stock.events]\nPrice_Updated = ["quote:{symbol}"]\n'
        )
        with Caches() as world:
            assert world.emit("price_updated", symbol="A")[0].tags == ("quote:A",)

        monkeypatch.setenv("LAYERCACHE_CACHES__STOCK__EVENTS__PRICE_UPDATED", '["q:{symbol}"]')
        with Caches() as world:
            assert world.emit("price_updated", symbol="A") == [Invalidation("stock", ("q:A",), soft=False)]

    def test_every_fault_is_told_at_once_with_its_path_and_once(self) -> None:
        told = settings(
            stock={
                "events": {
                    "a": ["{x!r}"],
                    "b": {"sofd": True, "tags": ["*"]},
                    "c": "quotes",
                    "d": {"soft": "often"},
                    "f": ["t", 7],
                }
            },
            news={"events": ["e"]},
        )
        told["caches"]["default"]["events"] = {"e": ["{y.z}"], "g": {"tags": ["t"], "sofd": True}}

        with pytest.raises(ConfigError) as caught:
            Caches(told)

        faults = dict(caught.value.faults)
        assert len(faults) == len(caught.value.faults)
        assert faults == {
            "caches.default.events.e": (
                "the tag '{y.z}' names 'y.z'; a field is a plain name, such as {symbol}, that emit is given"
            ),
            "caches.default.events.g.sofd": "unknown key; did you mean 'soft'?",
            "caches.stock.events.a": (
                "the tag '{x!r}' holds a format; what it names stands in it as it is: {name}"
            ),
            "caches.stock.events.b.tags": "a tag is text of 1 to 255 bytes, and not '*'; got '*'",
            "caches.stock.events.b.sofd": "unknown key; did you mean 'soft'?",
            "caches.stock.events.c": "has to be a list",
            "caches.stock.events.d.tags": "is required",
            "caches.stock.events.d.soft": "has to be true or false",
            "caches.stock.events.f[1]": "has to be text",
            "caches.news.events": "has to be a table",
        }


# -- the process


@pytest.mark.usefixtures("process")
class TestModule:
    def test_before_any_settings_are_read_and_after_others_came(self, emit_in: Callable[[Any], Emit]) -> None:
        layercache.on("price_updated", tags=["quote:{symbol}"], cache="stock")  # as a module is imported
        emit = emit_in(layercache)

        for _ in range(2):
            layercache.configure(settings(stock={"events": {"price_updated": ["quotes"]}}))
            stock = get_cache("stock")
            stock.set("k", 1, tags=["quote:AAPL"])

            assert emit("price_updated", symbol="AAPL") == [
                Invalidation("stock", ("quotes", "quote:AAPL"), soft=False)
            ]
            assert stock.get("k") is None

        layercache.configure(settings(stock={}))
        assert emit("price_updated", symbol="A") == [Invalidation("stock", ("quote:A",), soft=False)]

    def test_it_speaks_to_the_default_world_alone(self) -> None:
        layercache.configure(settings())
        layercache.on("e", tags=["t"])
        with Caches(settings()) as world:
            world.on("f", tags=["t"])

            with pytest.raises(UnknownEvent):
                world.emit("e")
            with pytest.raises(UnknownEvent, match=r"there are e$"):
                layercache.emit("f")

    def test_a_cache_that_the_settings_do_not_define_is_said_as_soon_as_they_are_known(
        self, emit_in: Callable[[Any], Emit]
    ) -> None:
        layercache.on("e", tags=["t"], cache="stokc")
        layercache.on("e", tags=["t"])
        layercache.configure(settings(stock={}))
        get_cache().set("k", 1, tags=["t"])

        with pytest.raises(UnknownCache, match="did you mean 'stock'"):
            emit_in(layercache)("e")
        assert get_cache().get("k") is None  # the others were seen to
        with pytest.raises(UnknownCache, match="did you mean 'stock'"):
            layercache.on("e", tags=["t"], cache="stokc")
