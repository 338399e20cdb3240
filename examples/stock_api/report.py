"""What the demo measured: the phases, the verdicts, and the one table that shows them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

HIT_RATE_TARGET = 0.70
FASTER_TARGET = 0.90

_TITLES = ("requests", "upstream\ncalls", "calls\nsaved", "hit\nrate", "p50", "p99", "faster\nthan cold")


@dataclass(frozen=True, slots=True)
class Phase:
    """What one phase saw: the seconds of each answer, and what the servers counted meanwhile.

    `counted` has the calls of the market under "upstream", and hits under the type of their layer.
    """

    name: str
    seconds: Sequence[float]
    counted: Counter[str]

    @property
    def requests(self) -> int:
        return len(self.seconds)

    @property
    def upstream_calls(self) -> int:
        return self.counted["upstream"]

    @property
    def hit_rate(self) -> float:
        """The share of requests for which nobody had to ask the market."""
        return 1 - self.upstream_calls / self.requests

    @property
    def p50(self) -> float:
        return median(self.seconds)

    @property
    def p99(self) -> float:
        return quantiles(self.seconds, n=100, method="inclusive")[-1]

    def all_from(self, layer: str) -> bool:
        return self.counted[layer] == self.requests

    def saving(self, cold: "Phase") -> tuple[float, float]:
        """Return the share of a `cold` answer's time that was saved, at p50 and at p99."""
        return 1 - self.p50 / cold.p50, 1 - self.p99 / cold.p99


@dataclass(frozen=True, slots=True)
class Verdict:
    claim: str
    met: bool


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    cold: Phase
    far: Phase
    near: Phase
    browsing: Phase

    @property
    def total(self) -> Phase:
        phases = (self.cold, self.far, self.near, self.browsing)
        seconds = [took for phase in phases for took in phase.seconds]
        return Phase("whole run", seconds, sum((phase.counted for phase in phases), Counter[str]()))

    def verdicts(self) -> tuple[Verdict, ...]:
        """Hold the run against both targets, and the far and near rows against the workers' own counters."""
        rate = self.total.hit_rate
        least = min(*self.far.saving(self.cold), *self.near.saving(self.cold))
        return (
            Verdict(
                f"hit rate {rate:.1%}; the target is {HIT_RATE_TARGET:.0%} or more",
                rate >= HIT_RATE_TARGET,
            ),
            Verdict(
                f"hits at least {least:.2%} faster than cold, at p50 and p99; the target is {FASTER_TARGET:.0%}",
                least >= FASTER_TARGET,
            ),
            Verdict(
                "by the workers' count, Valkey served every far hit, memory every near hit",
                self.far.all_from("redis") and self.near.all_from("memory"),
            ),
        )

    def show(self, console: Console) -> None:
        """Print the table, and under it what is met and what is missed."""
        console.print(Group(self._table(), *map(_line, self.verdicts())))

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.add_column(no_wrap=True)
        for title in _TITLES:
            table.add_column(title, justify="right", no_wrap=True)
        table.add_row(*_counts(self.cold), *_times(self.cold), "")
        for hits in (self.far, self.near):
            table.add_row(*_counts(hits), *_times(hits), f"{hits.saving(self.cold)[0]:.2%}", style="green")
        table.add_row(*_counts(self.browsing), *_times(self.browsing), "", end_section=True)
        table.add_row(*_counts(self.total), "", "", "", style="bold")
        return table


def _counts(phase: Phase) -> tuple[str, ...]:
    calls = phase.upstream_calls
    return (
        phase.name,
        f"{phase.requests:,}",
        f"{calls:,}",
        f"{phase.requests - calls:,}",
        f"{phase.hit_rate:.1%}",
    )


def _times(phase: Phase) -> tuple[str, str]:
    return _time(phase.p50), _time(phase.p99)


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _line(verdict: Verdict) -> Text:
    word, style = ("met   ", "bold green") if verdict.met else ("MISSED", "bold red")
    return Text.assemble((word, style), "  ", verdict.claim)
