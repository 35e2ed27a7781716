"""Counts traces that ddtrace's writer dropped or could not send.

ddtrace reports them to DogStatsD, or once a minute in its log. This module shows them at `/info`, and logs the start
and the end of an outage. contract.py lists the writer's names that this module relies on; without them it counts
nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

# The writer's metrics of dropped traces.
DROPPED = {"buffer.dropped.traces", "encoder.dropped.traces"}


class TraceLossMonitor:
    """Watches the writer. It never raises into ddtrace, whatever arguments the writer passes.

    Attributes:
        lost: the number of traces that will never arrive; None if they are not counted.
        error: the reason why the agent currently accepts no traces; None while it accepts them.
    """

    lost: int | None = None
    error: str | None = None

    def __init__(self) -> None:
        self._lock = threading.Lock()  # spans end in one thread and are sent in another
        self._log = logging.getLogger(__name__)

    def watch(self, writer_class: Any) -> None:
        """Count the traces that instances of `writer_class` drop or can't send. Further calls do nothing."""
        if self.lost is not None:
            return
        send, report = writer_class._send_payload, writer_class._metrics_dist  # noqa: SLF001 - ddtrace has no hook

        # `args` are the method's: the writer, the payload, and the number of traces in it.
        @wraps(send)
        def send_payload(*args: Any, **kwargs: Any) -> Any:
            try:
                result = send(*args, **kwargs)
            except Exception as error:
                self._observe(self._on_failure, error, *args[2:3], **kwargs)
                raise
            self._observe(self._on_success)
            return result

        @wraps(report)
        def metrics_dist(*args: Any, **kwargs: Any) -> Any:
            self._observe(self._on_metric, *args[1:], **kwargs)  # without the writer
            return report(*args, **kwargs)

        writer_class._send_payload, writer_class._metrics_dist = send_payload, metrics_dist  # noqa: SLF001 - the same
        self.lost = 0
        logging.getLogger(writer_class.__module__).addFilter(_is_new)

    def _observe(self, callback: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        with suppress(Exception):
            callback(*args, **kwargs)

    def _on_failure(self, error: Exception, count: int = 1, **_: Any) -> None:
        outage_begins = self.error is None
        self.error = str(error)[:200]  # a short line for the log and `/info`
        self._count_lost(count)
        if outage_begins:
            self._log.warning("the agent accepts no traces: %s", self.error)

    def _on_success(self) -> None:
        outage_ends = self.error is not None
        self.error = None
        if outage_ends:
            self._log.warning("the agent accepts traces again; %s were lost", self.lost)

    def _on_metric(self, name: str, count: int = 1, *_: Any, **__: Any) -> None:
        if name in DROPPED:
            self._count_lost(count)

    def _count_lost(self, count: int) -> None:
        with self._lock:
            self.lost = (self.lost or 0) + count

    def status(self) -> dict[str, Any]:
        """Return the fields for `/info`."""
        return {"agent_error": self.error, "traces_lost": self.lost}

    def end(self) -> None:
        """Log the loss if the outage has lasted until the process ends."""
        if self.error is not None:
            self._log.warning("the agent accepted no traces until the process ended; %s were lost", self.lost)


def _is_new(record: logging.LogRecord) -> bool:
    """Whether ddtrace's log line reports more than a failed send, which the monitor has already logged."""
    return not (isinstance(record.msg, str) and record.msg.startswith("failed to send, dropping"))


current = TraceLossMonitor()  # a process has one writer


def watch() -> None:
    """Watch the writer of this process."""
    from ddtrace.internal.writer import NativeWriter  # noqa: PLC0415 - fails if contract.py has reported this name

    current.watch(NativeWriter)
