"""Tests of the trace loss monitor: it counts lost traces, and reports whether the agent accepts any."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from hello_service.observability.trace_loss import TraceLossMonitor


class Writer:
    """A stand-in with the parts of ddtrace's writer that the monitor uses."""

    log = logging.getLogger(__name__)

    def __init__(self) -> None:
        self.rejected: str | None = None
        self.reported: list[object] = []

    def _send_payload(self, *_: object) -> None:
        if self.rejected is not None:
            raise OSError(self.rejected)

    def _metrics_dist(self, name: str, count: int = 1, tags: object = None) -> None:
        self.reported.append((name, count, tags))

    def send(self, count: int, rejected: str | None = None) -> None:
        self.rejected = rejected
        try:
            self._send_payload(b"", count, "agent")
        except OSError as error:
            self.log.error("failed to send, dropping %d traces to intake at %s: %s", count, "agent", str(error))  # noqa: TRY400 - the same call as in ddtrace


@pytest.fixture
def writer() -> Writer:
    """Return an instance of a fresh class, because the monitor's patch is permanent."""
    fresh: Any = type("Fresh", (Writer,), {"__module__": __name__})
    return fresh()  # type: ignore[no-any-return]


@pytest.fixture
def monitor(writer: Writer) -> TraceLossMonitor:
    """Return a monitor that watches the writer."""
    monitor = TraceLossMonitor()
    monitor.watch(type(writer))
    return monitor


def test_an_outage_is_logged_in_two_lines(
    writer: Writer, monitor: TraceLossMonitor, caplog: pytest.LogCaptureFixture
) -> None:
    """The number of lines does not depend on the length of the outage. Other errors of ddtrace are logged as before."""
    writer.send(1)
    writer.send(2, "no response")
    during = (monitor.lost, monitor.error)
    writer.send(3, "rejected" * 100)
    writer.log.error("failed to encode")
    writer.send(4)
    writer.send(5)

    assert during == (2, "no response")
    assert (monitor.lost, monitor.error) == (5, None)
    assert [record.getMessage() for record in caplog.records] == [
        "the agent accepts no traces: no response",
        "failed to encode",
        "the agent accepts traces again; 5 were lost",
    ]


def test_traces_that_are_dropped_before_they_are_sent_are_counted(writer: Writer, monitor: TraceLossMonitor) -> None:
    """The buffer may be full, or a trace too large or impossible to encode. ddtrace's own metrics are sent as before."""
    for name in ("buffer.dropped.traces", "buffer.accepted.traces", "buffer.dropped.bytes", "encoder.dropped.traces"):
        writer._metrics_dist(name, 2, ["reason:full"])

    assert monitor.lost == 4
    assert writer.reported[-1] == ("encoder.dropped.traces", 2, ["reason:full"])


def test_an_outage_that_does_not_end_is_summarized(
    writer: Writer, monitor: TraceLossMonitor, caplog: pytest.LogCaptureFixture
) -> None:
    """The number of lost traces is logged when the process ends. Without losses, nothing is logged."""
    monitor.end()
    writer.send(2, "no response")
    monitor.end()

    assert [record.getMessage() for record in caplog.records][1:] == [
        "the agent accepted no traces until the process ended; 2 were lost"
    ]


def test_a_writer_is_watched_once(writer: Writer, monitor: TraceLossMonitor) -> None:
    """A process may create more than one app."""
    monitor.watch(type(writer))
    writer.send(2, "no response")

    assert monitor.lost == 2


class LaterWriter(Writer):
    """A future writer of ddtrace with other parameters and other results."""

    def _send_payload(self, *_: object, **__: object) -> object:  # type: ignore[override]  # as a later ddtrace may
        super()._send_payload()
        return "sent"

    def _metrics_dist(self, *args: object, **kwargs: object) -> None:
        self.reported.append((args, kwargs))


@pytest.mark.parametrize(
    ("args", "kwargs", "lost"),
    [
        ((b"", 2, "agent"), {}, 2),
        ((b"", 2), {"client": "agent", "unit": "ms"}, 2),
        ((), {"payload": b"", "count": 2, "client": "agent"}, 2),
        ((b"",), {}, 1),
        ((b"", "two"), {}, 0),
        ((), {"error": 1}, 0),
    ],
)
def test_payloads_of_another_signature_do_not_raise(args: Any, kwargs: Any, lost: int) -> None:
    """The writer's own result and exceptions reach its caller, and the monitor counts the traces that it can."""
    later: Any = type("Fresh", (LaterWriter,), {})
    monitor, writer = TraceLossMonitor(), later()
    monitor.watch(later)
    result = writer._send_payload(*args, **kwargs)
    writer.rejected = "no agent"
    with pytest.raises(OSError, match="no agent"):
        writer._send_payload(*args, **kwargs)

    assert result == "sent"
    assert monitor.lost == lost


@pytest.mark.parametrize(
    ("args", "kwargs", "lost"),
    [
        (("buffer.dropped.traces", 2), {"tags": [], "unit": "ms"}, 2),
        (("buffer.dropped.traces", 2, [], "ms"), {}, 2),
        ((), {"name": "encoder.dropped.traces", "count": 2}, 2),
        (("buffer.dropped.traces", "two"), {}, 0),
        (([], 2), {}, 0),
        ((), {}, 0),
    ],
)
def test_metrics_of_another_signature_do_not_raise(args: Any, kwargs: Any, lost: int) -> None:
    later: Any = type("Fresh", (LaterWriter,), {})
    monitor, writer = TraceLossMonitor(), later()
    monitor.watch(later)
    writer._metrics_dist(*args, **kwargs)

    assert writer.reported == [(args, kwargs)]
    assert monitor.lost == lost


def test_a_log_that_can_not_be_written_does_not_raise(writer: Writer, monitor: TraceLossMonitor) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError(record.msg)

    handler = Broken()
    logging.getLogger().addHandler(handler)
    try:
        writer.rejected = "no agent"
        with pytest.raises(OSError, match="no agent"):
            writer._send_payload(b"", 2, "agent")
        writer.rejected = None
        writer._send_payload(b"", 2, "agent")
    finally:
        logging.getLogger().removeHandler(handler)

    assert (monitor.lost, monitor.error) == (2, None)
