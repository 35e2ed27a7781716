"""A timeout that is cheap to restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timeout:
    """Calls a function after some seconds. A restart for each request is cheap: it reuses the event loop's timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None
        self._callback: Callable[[], None] | None = None
        self._due = 0.0

    def start(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call `callback` in `seconds`. This cancels an earlier callback."""
        self._due, self._callback = self._loop.time() + seconds, callback
        # A timer that is due earlier keeps running, because `_fire` then waits for the rest of the time.
        if self._handle is None or self._handle.when() > self._due:
            self._arm()

    def stop(self) -> None:
        """Cancel the callback."""
        self._callback = None

    def close(self) -> None:
        """Cancel the callback and the event loop's timer."""
        self._callback = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_at(self._due, self._fire)

    def _fire(self) -> None:
        self._handle = None
        if self._callback is None:
            return
        if self._loop.time() < self._due:  # `start` has been called again meanwhile
            self._arm()
            return
        callback, self._callback = self._callback, None
        callback()
