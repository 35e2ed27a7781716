"""What became of the traces that ddtrace's writer was given: how many were lost, and whether the agent takes any now.

ddtrace says it to DogStatsD, or once a minute in its log; here `/info` says it, and the log when it begins and when it is
over. The writer is known by name alone: a later ddtrace that has it no more is left alone, and nothing is counted.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any


class Delivery:
    """What is known of it.

    Attributes:
        lost: how many traces were made and will never arrive; None where it can't be counted.
        error: why the agent takes none now; None while it does.
    """

    lost: int | None = None
    error: str | None = None

    def __init__(self) -> None:
        self._lock = threading.Lock()  # spans end in one thread, and are sent in another
        self._log = logging.getLogger(__name__)

    def watch(self, writer: Any) -> None:
        """Count what the class `writer` sends and drops. Once is enough."""
        send, report = getattr(writer, "_send_payload", None), getattr(writer, "_metrics_dist", None)
        if send is None or report is None or self.lost is not None:
            return
        self.lost = 0

        def send_payload(of: Any, payload: bytes, count: int, *args: Any) -> None:
            try:
                send(of, payload, count, *args)
            except Exception as error:
                self._lose(count)
                if self.error is None:
                    self._log.warning("the agent takes no traces: %.200s", error)
                self.error = str(error)[:200]
                raise
            if self.error is not None:
                self._log.warning("the agent takes traces again, %s were lost", self.lost)
            self.error = None

        def metrics_dist(of: Any, name: str, count: int = 1, tags: list[str] | None = None) -> None:
            if name in {"buffer.dropped.traces", "encoder.dropped.traces"}:
                self._lose(count)
            report(of, name, count, tags)

        writer._send_payload, writer._metrics_dist = send_payload, metrics_dist  # noqa: SLF001 - ddtrace has no hook for it
        said = logging.getLogger(writer.__module__)
        said.addFilter(lambda record: not str(record.msg).startswith("failed to send, dropping"))

    def _lose(self, count: int) -> None:
        with self._lock:
            self.lost = (self.lost or 0) + count

    def status(self) -> dict[str, Any]:
        """Return what `/info` says of it."""
        return {"agent_error": self.error, "traces_lost": self.lost}

    def end(self) -> None:
        """Say what was lost where nothing can be sent any more."""
        if self.error is not None:
            self._log.warning("the agent took no traces to the end, %s were lost", self.lost)


current = Delivery()  # a process has one writer


def watch() -> None:
    """Watch the writer of this process."""
    current.watch(getattr(sys.modules.get("ddtrace.internal.writer"), "NativeWriter", None))
