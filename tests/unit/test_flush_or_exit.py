"""Tests of how the process exits: it sends the last spans, or drops them after a time limit."""

from __future__ import annotations

import os
import threading

import pytest

from hello_service.observability import status
from hello_service.serving import server


class Exited(BaseException):
    """Raised in place of the exit of this process. Like SystemExit, it passes through `except Exception`."""


def fake_exit(code: int) -> None:
    raise Exited(code)


def test_the_process_exits_normally_if_the_spans_are_sent_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    flushes: list[float] = []
    monkeypatch.setattr(status, "flush", flushes.append)
    monkeypatch.setattr(os, "_exit", fake_exit)  # a call would fail this test
    server.flush_or_exit(seconds=5)

    assert flushes == [server.HOUR_SECONDS]  # in effect no timeout, because `flush_or_exit` has its own


def test_the_exit_does_not_wait_for_a_silent_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is 0 because the requests were served."""
    agent_responds = threading.Event()
    monkeypatch.setattr(status, "flush", lambda _: agent_responds.wait(10))  # far longer than the time limit
    monkeypatch.setattr(os, "_exit", fake_exit)
    with pytest.raises(Exited) as exit_error:
        server.flush_or_exit(seconds=0.05)
    agent_responds.set()  # ends the thread that sends the spans

    assert exit_error.value.args == (0,)
