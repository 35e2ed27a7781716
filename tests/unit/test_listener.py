"""Tests of the listening socket: what happens without a free file descriptor, and when a client disappears."""

from __future__ import annotations

import errno
import os
import resource
import socket

import pytest
from structlog.testing import capture_logs

from hello_service.serving.listener import Listener


def test_connections_are_closed_while_no_descriptor_is_free() -> None:
    """The log has a single line, however many connections are turned away. Later connections are served again."""
    listener = Listener(socket.create_server(("127.0.0.1", 0)).detach())
    clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)  # POSIX: open() returns the lowest free descriptor
    os.close(lowest_free)
    with capture_logs() as lines:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))  # no descriptor below the limit is free
        try:
            for _ in range(2):
                with pytest.raises(BlockingIOError):
                    listener.accept()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        connection, _ = listener.accept()
    received = [client.recv(1) for client in clients[:2]]
    for open_socket in (*clients, connection, listener, listener):  # a second close of the listener has no effect
        open_socket.close()

    assert received == [b"", b""]  # the first two clients were disconnected
    assert [line["event"] for line in lines] == ["connections turned away"]


def test_the_kernel_probes_idle_connections() -> None:
    """Without the probes, a silent stream to a host that disappeared would never end."""
    with Listener(socket.create_server(("127.0.0.1", 0)).detach()) as listener:
        client = socket.create_connection(listener.getsockname())
        connection, _ = listener.accept()
    with client, connection:
        is_enabled = connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle_seconds = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        interval_seconds = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
        count = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)

    assert is_enabled == 1
    # A connection to a host that disappeared is closed after 60 + 3 * 10 seconds.
    assert (idle_seconds, interval_seconds, count) == (60, 10, 3)


def test_the_error_is_raised_unchanged_if_no_connection_is_waiting() -> None:
    """The error that the listener raises itself, if no descriptor is free, has no errno."""
    listener = Listener(socket.create_server(("127.0.0.1", 0)).detach())
    listener.setblocking(False)
    with pytest.raises(BlockingIOError) as error:
        listener.accept()
    listener.close()

    assert error.value.errno == errno.EAGAIN
