"""Tests that the table lists every difference between Quart's spans with tracing.py and FastAPI's with ddtrace's own
integration.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conformance.comparison import Difference
from conformance.differences import TABLE
from conformance.scenarios import SCENARIOS, Scenario

DifferencesOf = Callable[[Scenario], list[Difference]]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_spans_differ_only_where_the_table_gives_a_reason(scenario: Scenario, differences_of: DifferencesOf) -> None:
    """Spans are compared attribute by attribute."""
    unexplained = [
        str(difference)
        for difference in differences_of(scenario)
        if not any(row.covers(scenario.name, difference) for row in TABLE)
    ]

    assert unexplained == []


@pytest.mark.timeout(300)  # it runs each scenario that no earlier test of its process has run
def test_every_row_of_the_table_matches_a_difference(differences_of: DifferencesOf) -> None:
    """If a difference no longer exists, its row must be removed from the table."""
    differences = [(scenario.name, difference) for scenario in SCENARIOS for difference in differences_of(scenario)]
    unused = [row for row in TABLE if not any(row.covers(name, difference) for name, difference in differences)]

    assert unused == []


def test_no_two_scenarios_have_the_same_name() -> None:
    """The table identifies scenarios by name."""
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
