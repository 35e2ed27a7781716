"""The listening socket: it keeps working without a free file descriptor, and its connections detect a lost client."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import structlog

# The kernel probes a connection that has been idle for 60 s. After three unacknowledged probes, 10 s apart, it closes
# the connection, because the client's host is gone. Linux's own defaults take more than two hours. Not every system has
# these options.
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class Listener(socket.socket):
    """A listening socket that closes each new connection at once while no file descriptor is free for it.

    asyncio alone would schedule a retry for each slot of the backlog, and never recover. This class keeps a spare
    descriptor, and frees it for a moment to accept the connection and close it.
    """

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # accepted sockets inherit the options
        for name in KEEPALIVE.keys() & vars(socket).keys():
            self.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), KEEPALIVE[name])
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._exhausted = False  # the last connection was turned away; limits the log to one line

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection, as a socket does.

        Raises:
            BlockingIOError: no connection is waiting, or no descriptor is free for it.
        """
        try:
            accepted = super().accept()
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
            self._turn_away()
            raise BlockingIOError from error
        self._exhausted = False
        return accepted

    def close(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        super().close()

    def _turn_away(self) -> None:
        if not self._exhausted:
            self._exhausted = True
            reason = "no file descriptor is free; RLIMIT_NOFILE (ulimit -n) sets the limit"
            structlog.stdlib.get_logger("hello_service.serving.listener").error(
                "connections turned away", reason=reason
            )
        os.close(self._spare)
        try:
            super().accept()[0].close()
        finally:
            self._spare = os.open(os.devnull, os.O_RDONLY)
