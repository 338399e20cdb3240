"""The demo's verdicts: what its exit code says must be what was measured."""

from collections import Counter

import pytest
from rich.console import Console

from stock_api.report import Phase, Report

COLD, HIT = [2.0, 2.5, 3.0], [0.002, 0.002, 0.003]


def report(*, far=HIT, near=HIT, browsing_calls=0, far_hits=3):
    return Report(
        cold=Phase("cold", COLD, Counter(upstream=3)),
        far=Phase("far hit", far, Counter(redis=far_hits)),
        near=Phase("near hit", near, Counter(memory=3)),
        browsing=Phase("browsing", HIT * 3, Counter(upstream=browsing_calls)),
    )


def met(report):
    return [verdict.met for verdict in report.verdicts()]


def test_fast_hits_at_a_high_rate_meet_every_target():
    assert met(report()) == [True, True, True]


def test_the_hit_rate_counts_every_call_of_the_run():
    assert report(browsing_calls=2).total.hit_rate == pytest.approx(1 - 5 / 18)
    assert met(report(browsing_calls=3)) == [False, True, True]


@pytest.mark.parametrize("layer", ["far", "near"])
def test_slow_hits_in_either_layer_miss_the_target(layer):
    assert met(report(**{layer: [0.002, 0.002, 0.4]})) == [True, False, True]


def test_a_row_that_another_layer_served_is_called_out():
    assert met(report(far_hits=2)) == [True, True, False]


def test_the_table_fits_a_terminal_of_80_columns():
    console = Console(width=80, record=True, file=None, quiet=False)
    with console.capture() as captured:
        report().show(console)

    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.strip().startswith(("far hit", "near hit")) for line in lines) == 2
