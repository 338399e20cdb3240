"""The judge of histories is judged first: it objects to what is wrong, and to nothing else."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import pytest
from histories import EVERY_NODE, Event, events_of, objections

MOST = 5.0  # max_staleness


def did(operation: Any, began: float, ended: float, value: Any = None, **fields: Any) -> Event:
    """An operation on `k`; times and value first, as they are what matters."""
    return Event(
        **{"node": "a", "key": "k", **fields}, operation=operation, began=began, ended=ended, value=value
    )


def read(at: float, value: Any, node: str = "b") -> Event:
    return did("read", at, at, value, node=node)


WRITTEN = did("write", 1, 2, "old", tags=("t",))
LOADED = did("load", 1, 4, "old", tags=("t",))


def rules(*events: Event, late: bool = True) -> list[str]:
    return [objection.rule for objection in objections(events, MOST, late=late)]


def test_nothing_and_what_is_there_are_no_matter() -> None:
    assert rules(WRITTEN, read(0, None), read(3, "old"), read(1000, "old"), read(1000, None)) == []


def test_what_nobody_wrote_for_that_key_is_objected_to() -> None:
    other = did("write", 1, 2, "other", key="l")

    assert rules(WRITTEN, other, read(3, "other"), read(3, "new")) == ["never written"] * 2


def test_what_a_node_did_itself_may_be_lost_where_the_store_was_set_back() -> None:
    written, read_after = did("write", 1, 2, "old"), did("read", 5, 5.1, "old")
    set_back = did("outage", 2.5, 6, key="", node=EVERY_NODE)

    assert rules(written, did("delete", 3, 4), read_after) == ["older than what this node did"]
    assert rules(written, did("delete", 3, 4), set_back, read_after) == []
    assert rules(written, did("delete", 2.1, 2.2), set_back, read_after) == ["older than what this node did"]


def test_what_was_written_only_later_is_objected_to_but_not_what_was_being_written() -> None:
    assert rules(WRITTEN, did("read", 0, 0.5, "old")) == ["never written"]
    assert rules(WRITTEN, did("read", 0, 1.5, "old")) == []


ENDS = [
    did("write", 3, 4, "new"),
    did("delete", 3, 4),
    did("invalidate", 3, 4, key="", tags=("t", "u")),
    did("clear", 3, 4, key=""),
]


@pytest.mark.parametrize("made", [WRITTEN, LOADED])
@pytest.mark.parametrize("end", ENDS, ids=[end.operation for end in ENDS])
def test_what_has_ended_may_be_read_for_max_staleness_and_no_longer(made: Event, end: Event) -> None:
    assert rules(made, end, read(9, "old")) == []
    assert rules(made, end, read(9.1, "old")) == ["too old"]


@pytest.mark.parametrize("end", ENDS, ids=[end.operation for end in ENDS])
def test_a_node_sees_at_once_what_it_did_itself(end: Event) -> None:
    assert rules(WRITTEN, end, read(4, "old", "a")) == []  # at the moment itself nobody knows
    assert rules(WRITTEN, end, read(4.1, "old", "a")) == ["older than what this node did"]


@pytest.mark.parametrize(
    "other",
    [
        did("write", 3, 4, "new", key="l"),
        did("delete", 3, 4, key="l"),
        did("invalidate", 3, 4, key="", tags=("u",)),
        did("write", 1.5, 1.9, "new"),  # at the same time: nobody knows which was first
        did("delete", 0, 4),
        did("write", 0, 0.5, "older"),
    ],
)
def test_what_concerns_others_or_was_at_the_same_time_or_before_ends_nothing(other: Event) -> None:
    assert rules(WRITTEN, other, read(100, "old")) == []


def test_what_was_loaded_is_as_old_as_the_beginning_of_its_load() -> None:
    deleted = did("delete", 2, 3)

    assert rules(LOADED, deleted, read(100, "old")) == ["too old"]
    assert rules(LOADED, did("delete", 0, 3), read(100, "old")) == []


def test_what_was_written_twice_counts_from_the_last_time() -> None:
    again = did("write", 5, 6, "old")

    assert rules(WRITTEN, did("delete", 3, 4), again, read(100, "old")) == []


class TestUnknownOutcomes:
    DELETED = did("delete", 3, 4, outcome="unknown")
    DELIVERED = did("delivered", 10, 11, key="")

    def test_it_may_never_have_been_done(self) -> None:
        assert rules(WRITTEN, self.DELETED, read(100, "old")) == []

    def test_but_holds_where_it_was_made(self) -> None:
        assert rules(WRITTEN, self.DELETED, read(4.1, "old", "a")) == ["older than what this node did"]

    def test_once_delivered_it_holds_everywhere(self) -> None:
        assert rules(WRITTEN, self.DELETED, self.DELIVERED, read(16, "old")) == []
        assert rules(WRITTEN, self.DELETED, self.DELIVERED, read(16.1, "old")) == ["too old"]

    def test_what_was_delivered_before_it_or_by_another_node_says_nothing_of_it(self) -> None:
        before, another = did("delivered", 3.5, 11), did("delivered", 10, 11, node="b")

        assert rules(WRITTEN, self.DELETED, before, another, read(100, "old")) == []

    def test_a_write_may_come_true_at_any_time_later(self) -> None:
        written = did("write", 1, 2, "old", outcome="unknown")
        deleted = did("delete", 20, 21, node="b")

        assert rules(written, deleted, self.DELIVERED, read(100, "old", "c")) == []
        assert rules(written, deleted, self.DELIVERED, read(100, "old", "c"), late=False) == ["too old"]

    def test_what_never_returned_has_no_end(self) -> None:
        killed = did("delete", 3, inf, outcome="unknown")

        assert rules(WRITTEN, killed, read(100, "old"), read(100, "old", "a")) == []


class TestOutages:
    DELETED = did("delete", 3, 4)

    def test_a_node_that_is_cut_off_may_show_what_it_had_when_that_began(self) -> None:
        cut_off = did("outage", 8, 30, node="b")

        assert rules(WRITTEN, self.DELETED, cut_off, read(29, "old")) == []
        assert rules(WRITTEN, self.DELETED, cut_off, read(29, "old", "c")) == ["too old"]
        assert rules(WRITTEN, self.DELETED, cut_off, read(31, "old")) == ["too old"]

    def test_but_not_what_was_too_old_by_then(self) -> None:
        assert rules(WRITTEN, self.DELETED, did("outage", 10, 30, node="b"), read(29, "old")) == ["too old"]

    def test_what_it_does_meanwhile_holds_for_itself(self) -> None:
        cut_off = did("outage", 2.5, 30)

        assert rules(WRITTEN, self.DELETED, cut_off, read(5, "old", "a")) == ["older than what this node did"]

    def test_when_all_are_what_is_wrong_is_right_again_within_max_staleness(self) -> None:
        everywhere = did("outage", 8, 30, node=EVERY_NODE)

        assert rules(WRITTEN, self.DELETED, everywhere, read(35, "old")) == []
        assert rules(WRITTEN, self.DELETED, everywhere, read(35.1, "old")) == ["too old"]


def test_a_store_that_was_set_back_may_show_what_it_had_then_until_that_is_made_good() -> None:
    deleted = did("delete", 3, 4)
    set_back = did("outage", 20, 30, 3.5, node=EVERY_NODE)

    assert rules(WRITTEN, deleted, read(19, "old")) == ["too old"]
    assert rules(WRITTEN, deleted, set_back, read(19, "old")) == ["too old"]
    assert rules(WRITTEN, deleted, set_back, read(29, "old"), read(29, "old", "a")) == []
    assert rules(WRITTEN, deleted, set_back, read(35.1, "old")) == ["too old"]


def test_an_objection_says_what_was_read_and_why_it_is_wrong() -> None:
    (objection,) = objections([WRITTEN, did("delete", 3, 4), read(10, "old")], MOST)

    assert str(objection) == (
        "too old: b: read k = 'old', 10.000 to 10.000\n"
        "  it was made by a: write k = 'old' ['t'], 1.000 to 2.000\n"
        "  and its end should have been a: delete k, 3.000 to 4.000"
    )


def test_events_are_lines_of_a_file_of_which_the_last_may_be_cut_off(tmp_path: Path) -> None:
    events = [WRITTEN, did("delete", 3, inf, outcome="unknown"), read(9, {"a": [1]})]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(f"{event.line()}\n" for event in events) + events[0].line()[:20])

    assert events_of(file) == events
