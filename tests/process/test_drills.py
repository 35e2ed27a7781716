"""Tests of the drills of `scripts/drill` in their short form."""

from __future__ import annotations

import pytest
from drills.__main__ import PAGE, head
from drills.drill import Drill, Size
from drills.table import TABLE


def marked(each: Drill) -> object:
    """Return `each` as a parameter; it runs on one Python only if all of them behave alike."""
    marks = [pytest.mark.serial] if each.every_python else [pytest.mark.serial, pytest.mark.once]
    if each.missing:
        marks.append(pytest.mark.skip(reason=each.missing))
    return pytest.param(each, marks=marks, id=each.event)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("drill", [marked(each) for each in TABLE])
def test_the_promise_is_kept(drill: Drill) -> None:
    """Run with -s to see the measured figures."""
    measured = drill.run(Size.SHORT)

    print(f"\n{drill.event}: {measured}")  # noqa: T201 - see above
    assert measured


def test_the_page_shows_the_figures_of_every_drill() -> None:
    """There is one row for each drill, and none is broken. `scripts/drill --write` writes them."""
    shown = [line for line in PAGE.read_text().splitlines() if any(line.startswith(head(each)) for each in TABLE)]

    assert len(shown) == len(TABLE)
    assert not [line for line in shown if "BROKEN" in line or "not measured yet" in line]
