"""Tests of the trace loss monitor: it counts lost traces, and reports whether the agent accepts any."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from hello_service.observability.trace_loss import TraceLossMonitor


class FakeWriter:
    """A stand-in with the parts of ddtrace's writer that the monitor uses.

    Attributes:
        send_error: the text of the error that the next payload causes, None if it is sent.
        metrics: the metrics that were recorded.
    """

    log = logging.getLogger(__name__)

    def __init__(self) -> None:
        self.send_error: str | None = None
        self.metrics: list[object] = []

    def _send_payload(self, *_: object) -> None:
        if self.send_error is not None:
            raise OSError(self.send_error)

    def _metrics_dist(self, name: str, count: int = 1, tags: object = None) -> None:
        self.metrics.append((name, count, tags))

    def send(self, count: int, send_error: str | None = None) -> None:
        """Send a payload with `count` traces, and log an error as ddtrace does."""
        self.send_error = send_error
        try:
            self._send_payload(b"", count, "agent")
        except OSError as error:
            self.log.error("failed to send, dropping %d traces to intake at %s: %s", count, "agent", str(error))  # noqa: TRY400 - the same call as in ddtrace


def new_subclass(writer_class: type[FakeWriter]) -> Any:
    """Return a subclass for one test, because the monitor patches a class permanently."""
    # The monitor filters the log lines of the module in which the class is defined.
    return type("Writer", (writer_class,), {"__module__": __name__})


@pytest.fixture
def writer() -> FakeWriter:
    return new_subclass(FakeWriter)()  # type: ignore[no-any-return]


@pytest.fixture
def monitor(writer: FakeWriter) -> TraceLossMonitor:
    """Return a monitor that watches the class of `writer`."""
    monitor = TraceLossMonitor()
    monitor.watch(type(writer))
    return monitor


def test_an_outage_is_logged_in_two_lines(
    writer: FakeWriter, monitor: TraceLossMonitor, caplog: pytest.LogCaptureFixture
) -> None:
    """The number of lines does not depend on the length of the outage. Other errors of ddtrace are logged as before."""
    writer.send(1)
    writer.send(2, send_error="no response")
    during_outage = (monitor.lost, monitor.error)
    writer.send(3, send_error="rejected")
    writer.log.error("failed to encode")
    writer.send(4)
    writer.send(5)

    assert during_outage == (2, "no response")
    assert (monitor.lost, monitor.error) == (5, None)
    assert [record.getMessage() for record in caplog.records] == [
        "the agent accepts no traces: no response",
        "failed to encode",
        "the agent accepts traces again; 5 were lost",
    ]


def test_traces_that_are_dropped_before_they_are_sent_are_counted(
    writer: FakeWriter, monitor: TraceLossMonitor
) -> None:
    """The buffer may be full, or a trace too large or impossible to encode. ddtrace's metrics are still sent."""
    for name in ("buffer.dropped.traces", "buffer.accepted.traces", "buffer.dropped.bytes", "encoder.dropped.traces"):
        writer._metrics_dist(name, 2, ["reason:full"])

    assert monitor.lost == 4
    assert writer.metrics[-1] == ("encoder.dropped.traces", 2, ["reason:full"])


def test_an_outage_that_does_not_end_is_summarized(
    writer: FakeWriter, monitor: TraceLossMonitor, caplog: pytest.LogCaptureFixture
) -> None:
    """The number of lost traces is logged when the process ends. Without losses, nothing is logged."""
    monitor.end()
    writer.send(2, send_error="no response")
    monitor.end()
    _first_message, last_message = [record.getMessage() for record in caplog.records]

    assert last_message == "the agent accepted no traces until the process ended; 2 were lost"


def test_a_writer_is_watched_once(writer: FakeWriter, monitor: TraceLossMonitor) -> None:
    """A process may create more than one app."""
    monitor.watch(type(writer))
    writer.send(2, send_error="no response")

    assert monitor.lost == 2


class FutureWriter(FakeWriter):
    """A future writer of ddtrace with other parameters and other results."""

    def _send_payload(self, *_: object, **__: object) -> object:  # type: ignore[override]  # other parameters and another result
        super()._send_payload()
        return "sent"

    def _metrics_dist(self, *args: object, **kwargs: object) -> None:
        self.metrics.append((args, kwargs))


@pytest.mark.parametrize(
    ("args", "kwargs", "lost"),
    [
        ((b"", 2, "agent"), {}, 2),
        ((b"", 2), {"client": "agent", "unit": "ms"}, 2),
        ((), {"payload": b"", "count": 2, "client": "agent"}, 2),
        ((b"",), {}, 1),  # without a count, it is one trace
        ((b"", "two"), {}, 0),
        ((), {"error": 1}, 0),  # the name of one of the monitor's own variables
    ],
)
def test_a_changed_signature_of_send_payload_does_not_raise(args: Any, kwargs: Any, lost: int) -> None:
    """The writer's own result and exceptions reach its caller, and the monitor counts the traces that it can."""
    writer_class = new_subclass(FutureWriter)
    monitor, writer = TraceLossMonitor(), writer_class()
    monitor.watch(writer_class)
    result = writer._send_payload(*args, **kwargs)
    writer.send_error = "no agent"
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
def test_a_changed_signature_of_metrics_dist_does_not_raise(args: Any, kwargs: Any, lost: int) -> None:
    writer_class = new_subclass(FutureWriter)
    monitor, writer = TraceLossMonitor(), writer_class()
    monitor.watch(writer_class)
    writer._metrics_dist(*args, **kwargs)

    assert writer.metrics == [(args, kwargs)]
    assert monitor.lost == lost


def test_a_log_that_cannot_be_written_does_not_raise(writer: FakeWriter, monitor: TraceLossMonitor) -> None:
    class BrokenHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError(record.msg)

    handler = BrokenHandler()
    logging.getLogger().addHandler(handler)
    try:
        writer.send_error = "no agent"
        with pytest.raises(OSError, match="no agent"):
            writer._send_payload(b"", 2, "agent")
        writer.send_error = None
        writer._send_payload(b"", 2, "agent")
    finally:
        logging.getLogger().removeHandler(handler)

    assert (monitor.lost, monitor.error) == (2, None)
