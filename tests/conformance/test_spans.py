"""Tests that the spans of Quart with tracing.py and of FastAPI with ddtrace's own integration differ only as the
table says.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conformance.comparison import Difference
from conformance.differences import TABLE
from conformance.scenarios import SCENARIOS, Scenario

Differ = Callable[[Scenario], list[Difference]]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_spans_differ_only_where_the_table_says_why(scenario: Scenario, differ: Differ) -> None:
    """Spans are compared attribute by attribute."""
    unexplained = [
        str(found) for found in differ(scenario) if not any(line.covers(scenario.name, found) for line in TABLE)
    ]

    assert unexplained == []


@pytest.mark.timeout(300)  # where it runs alone, it runs every scenario
def test_the_table_has_no_line_that_nothing_needs(differ: Differ) -> None:
    """A difference that no longer exists is removed from the table."""
    found = [(scenario.name, difference) for scenario in SCENARIOS for difference in differ(scenario)]

    assert [line for line in TABLE if not any(line.covers(*each) for each in found)] == []


def test_a_scenario_has_a_name_of_its_own() -> None:
    """The table identifies scenarios by name."""
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
