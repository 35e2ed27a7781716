"""Tests of the listening socket: no free file descriptor, and clients that disappear."""

from __future__ import annotations

import errno
import os
import resource
import socket

import pytest
from structlog.testing import capture_logs

from hello_service.serving.listener import Listener


def test_a_connection_without_a_descriptor_is_closed_and_the_next_one_is_served() -> None:
    """The log has a single line, however many connections are turned away."""
    listener = Listener(socket.create_server(("127.0.0.1", 0)).detach())
    clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    with capture_logs() as lines:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))  # no descriptor below the limit is free
        try:
            for _ in range(2):
                with pytest.raises(BlockingIOError):
                    listener.accept()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        served, _ = listener.accept()
    received = [client.recv(1) for client in clients[:2]]
    for each in (*clients, served, listener, listener):  # the listener may be closed twice
        each.close()

    assert received == [b"", b""]
    assert [line["event"] for line in lines] == ["connections turned away"]


def test_the_kernel_probes_idle_connections() -> None:
    """Without the probes, a silent stream to a host that disappeared would never end."""
    with Listener(socket.create_server(("127.0.0.1", 0)).detach()) as listener:
        client = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
    with client, served:
        options = [
            served.getsockopt(level, option)
            for level, option in (
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
            )
        ]

    assert options == [1, 60, 10, 3]


def test_another_error_of_accept_is_raised() -> None:
    listener = Listener(socket.create_server(("127.0.0.1", 0)).detach())
    listener.setblocking(False)
    with pytest.raises(BlockingIOError) as raised:
        listener.accept()
    listener.close()

    assert raised.value.errno == errno.EAGAIN
