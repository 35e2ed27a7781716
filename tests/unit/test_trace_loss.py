"""What of ddtrace's writer is seen: traces that were lost, and whether the agent takes any."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from ddtrace.internal.writer import NativeWriter

from hello_service.observability.trace_loss import Delivery


class Writer:
    """As much of ddtrace's as is looked at."""

    log = logging.getLogger(__name__)

    def __init__(self) -> None:
        self.refused: str | None = None
        self.reported: list[object] = []

    def _send_payload(self, *_: object) -> None:
        if self.refused is not None:
            raise OSError(self.refused)

    def _metrics_dist(self, name: str, count: int = 1, tags: object = None) -> None:
        self.reported.append((name, count, tags))

    def send(self, count: int, refused: str | None = None) -> None:
        self.refused = refused
        try:
            self._send_payload(b"", count, "agent")
        except OSError as error:
            self.log.error("failed to send, dropping %d traces to intake at %s: %s", count, "agent", str(error))  # noqa: TRY400 - ddtrace's words


@pytest.fixture
def writer() -> Writer:
    """One of a fresh class, which can be watched without an end of it."""
    fresh: Any = type("Fresh", (Writer,), {"__module__": __name__})
    return fresh()  # type: ignore[no-any-return]


@pytest.fixture
def delivery(writer: Writer) -> Delivery:
    """It watches that writer."""
    watching = Delivery()
    watching.watch(type(writer))
    return watching


def test_an_outage_is_two_lines(writer: Writer, delivery: Delivery, caplog: pytest.LogCaptureFixture) -> None:
    """However long it lasts; other errors of ddtrace are logged as ever."""
    writer.send(1)
    writer.send(2, "no answer")
    during = (delivery.lost, delivery.error)
    writer.send(3, "refused" * 100)
    writer.log.error("failed to encode")
    writer.send(4)
    writer.send(5)

    assert during == (2, "no answer")
    assert (delivery.lost, delivery.error) == (5, None)
    assert [record.getMessage() for record in caplog.records] == [
        "the agent takes no traces: no answer",
        "failed to encode",
        "the agent takes traces again, 5 were lost",
    ]


def test_what_is_dropped_before_it_is_sent_counts_too(writer: Writer, delivery: Delivery) -> None:
    """A full buffer, a trace that is too large, one that can't be encoded; each is reported as before."""
    for name in ("buffer.dropped.traces", "buffer.accepted.traces", "buffer.dropped.bytes", "encoder.dropped.traces"):
        writer._metrics_dist(name, 2, ["reason:full"])

    assert delivery.lost == 4
    assert writer.reported[-1] == ("encoder.dropped.traces", 2, ["reason:full"])


def test_an_outage_that_does_not_end_is_summed_up(
    writer: Writer, delivery: Delivery, caplog: pytest.LogCaptureFixture
) -> None:
    """When the process ends; where nothing is amiss there is nothing to say."""
    delivery.end()
    writer.send(2, "no answer")
    delivery.end()

    assert [record.getMessage() for record in caplog.records][1:] == [
        "the agent took no traces to the end, 2 were lost"
    ]


def test_a_writer_is_watched_once(writer: Writer, delivery: Delivery) -> None:
    """However many apps a process makes."""
    delivery.watch(type(writer))
    writer.send(2, "no answer")

    assert delivery.lost == 2


@pytest.mark.parametrize("missing", ["_send_payload", "_metrics_dist", None])
def test_a_ddtrace_without_them_is_left_alone(missing: str | None) -> None:
    """Nothing is counted, and nothing breaks."""
    delivery = Delivery()
    members = {name: getattr(Writer, name) for name in ("_send_payload", "_metrics_dist") if name != missing}
    delivery.watch(type("Later", (), members) if missing else None)

    assert delivery.lost is None


def test_this_ddtrace_has_them() -> None:
    """With the arguments that are passed on."""
    assert NativeWriter._send_payload.__code__.co_varnames[:4] in {
        ("self", "payload", "count", "client"),
        ("of", "payload", "count", "args"),  # watched by an app of another test
    }
    assert "name" in NativeWriter._metrics_dist.__code__.co_varnames[:4]
