"""Tests of the last seconds of the process: the spans are flushed, or dropped after a time limit."""

from __future__ import annotations

import os
import threading

import pytest

from hello_service.observability import status
from hello_service.serving import server


class Ended(BaseException):
    """Raised instead of an exit of this process."""


def end(code: int) -> None:
    raise Ended(code)


def test_the_process_exits_normally_if_the_spans_are_sent_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    flushes: list[float] = []
    monkeypatch.setattr(status, "flush", flushes.append)
    monkeypatch.setattr(os, "_exit", end)
    server.flush_or_exit(5)

    assert flushes == [server.HOUR_SECONDS]


def test_the_exit_does_not_wait_for_a_silent_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is 0 because the requests were served."""
    accepted = threading.Event()
    monkeypatch.setattr(status, "flush", lambda _: accepted.wait(10))
    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(Ended) as ended:
        server.flush_or_exit(0.05)
    accepted.set()

    assert ended.value.args == (0,)
