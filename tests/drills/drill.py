"""The definition of a drill: an event, the service's promise for it, and a function that causes it and checks the
promise.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Size(Enum):
    """The size of an event: SHORT runs with the tests, FULL is the size in the promise."""

    SHORT = "short"
    FULL = "full"

    def of(self, short: int, full: int) -> int:
        """Return the number for this size."""
        return short if self is Size.SHORT else full


Run = Callable[[Size], str]


@dataclass(frozen=True)
class Drill:
    """One row of the table.

    Attributes:
        event: what happens to the service.
        promise: how the service behaves then.
        run: causes the event and returns the measured figures; raises AssertionError if the promise is broken.
        needs: programs that the drill requires.
        every_python: whether the result may depend on the Python version.
    """

    event: str
    promise: str
    run: Run
    needs: tuple[str, ...] = ()
    every_python: bool = False

    @property
    def missing(self) -> str | None:
        """The required programs that aren't installed, as a sentence; None if all are."""
        missing = [program for program in self.needs if shutil.which(program) is None]
        return f"not on this machine: {', '.join(missing)}" if missing else None


def drill(
    event: str, promise: str, needs: tuple[str, ...] = (), *, every_python: bool = False
) -> Callable[[Run], Drill]:
    """Return a decorator that turns a function into the `run` of a drill."""
    return lambda run: Drill(event, promise, run, needs, every_python)
