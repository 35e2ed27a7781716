"""The definition of a drill: an event, the service's promise, and a function that causes the event and checks the
promise.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

T = TypeVar("T")


class Size(Enum):
    """The size of a drill: SHORT for the tests, FULL for the numbers in its event and its promise."""

    SHORT = "short"
    FULL = "full"

    def of(self, short: T, full: T) -> T:
        """Return `short` if this is SHORT, otherwise `full`."""
        return short if self is Size.SHORT else full


Run = Callable[[Size], str]


@dataclass(frozen=True)
class Drill:
    """One row of the table.

    Attributes:
        event: what happens to the service.
        promise: how the service behaves when it happens.
        run: causes the event and returns the measured figures. Raises AssertionError if the promise is broken.
        needs: programs that the drill requires.
        every_python: whether the result may depend on the Python version, so that CI runs the drill on each version.
    """

    event: str
    promise: str
    run: Run
    needs: tuple[str, ...] = ()
    every_python: bool = False

    @property
    def skip_reason(self) -> str | None:
        """Why the drill can't run here: the required programs that aren't installed. None if all are installed."""
        missing = [program for program in self.needs if shutil.which(program) is None]
        return f"not on this machine: {', '.join(missing)}" if missing else None


def drill(
    event: str, promise: str, needs: tuple[str, ...] = (), *, every_python: bool = False
) -> Callable[[Run], Drill]:
    """Return a decorator that turns a function into a drill with that function as its `run`."""
    return lambda run: Drill(event=event, promise=promise, run=run, needs=needs, every_python=every_python)
