"""A drill: an event, what the service promises for it, and how the two are brought together."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Size(Enum):
    """How much of an event: SHORT is for every run of the tests, FULL is what the promise says."""

    SHORT = "short"
    FULL = "full"

    def of(self, short: int, full: int) -> int:
        """Return the number that belongs to this size."""
        return short if self is Size.SHORT else full


Run = Callable[[Size], str]


@dataclass(frozen=True)
class Drill:
    """One row of the table.

    Attributes:
        event: what happens to the service.
        promise: what it promises then.
        run: makes it happen; returns the measured figures, and raises AssertionError where the promise is broken.
        needs: programs of the machine without which it can't be run.
        every_python: whether one Python may behave otherwise than another.
    """

    event: str
    promise: str
    run: Run
    needs: tuple[str, ...] = ()
    every_python: bool = False

    @property
    def missing(self) -> str | None:
        """Say which program is missing here, None when all are there."""
        missing = [program for program in self.needs if shutil.which(program) is None]
        return f"not on this machine: {', '.join(missing)}" if missing else None


def drill(
    event: str, promise: str, needs: tuple[str, ...] = (), *, every_python: bool = False
) -> Callable[[Run], Drill]:
    """Make a drill of a function that runs it."""
    return lambda run: Drill(event, promise, run, needs, every_python)
