"""Runs each drill of `scripts/drill` in its short form, and checks the table in docs/resilience.md."""

from __future__ import annotations

import subprocess
import sys

import pytest
from drills.__main__ import PAGE, head
from drills.drill import Drill, Size
from drills.table import DRILLS
from running import ROOT, unmeasured_environment


def parameter(drill: Drill) -> object:
    """Return `drill` as a parameter, marked `serial`, and `once` unless its result may depend on the Python version."""
    marks = [pytest.mark.serial] if drill.every_python else [pytest.mark.serial, pytest.mark.once]
    if drill.skip_reason:
        marks.append(pytest.mark.skip(reason=drill.skip_reason))
    return pytest.param(drill, marks=marks, id=drill.event)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("drill", [parameter(drill) for drill in DRILLS])
def test_the_promise_is_kept(drill: Drill) -> None:
    """`run` raises AssertionError if the promise is broken. Use pytest's `-s` to see the measured figures."""
    measured = drill.run(Size.SHORT)

    print(f"\n{drill.event}: {measured}")  # noqa: T201 - see above
    assert measured


def test_the_page_shows_the_figures_of_every_drill() -> None:
    """The table has one row for each drill, and every promise was kept. `scripts/drill --write` writes the rows."""
    heads = tuple(head(drill) for drill in DRILLS)
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith(heads)]

    assert len(rows) == len(DRILLS)
    assert not [row for row in rows if "BROKEN" in row or "not measured yet" in row]


def test_a_word_that_is_in_no_event_is_rejected() -> None:
    """Otherwise an empty table would look like a success."""
    result = subprocess.run(
        [sys.executable, "-m", "drills", "--short", "no such drill"],
        env=unmeasured_environment({"PYTHONPATH": str(ROOT / "tests")}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 2
    assert "no drill's event contains 'no such drill'" in result.stderr
