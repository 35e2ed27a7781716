"""A listening socket that survives a process without free file descriptors."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import structlog


class Listener(socket.socket):
    """Closes the connections for which there is no file descriptor.

    asyncio alone would schedule itself again for each place in the backlog, and never recover. A spare descriptor is
    given up for a moment to take a connection and to close it.
    """

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._full = False

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection, as a socket does.

        Raises:
            BlockingIOError: there was none, or no descriptor for it.
        """
        try:
            accepted = super().accept()
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
            self._turn_away()
            raise BlockingIOError from error
        self._full = False
        return accepted

    def close(self) -> None:
        """Close the socket and the spare descriptor."""
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        super().close()

    def _turn_away(self) -> None:
        if not self._full:
            self._full = True
            reason = "no file descriptor is free; RLIMIT_NOFILE (ulimit -n) sets how many there are"
            structlog.stdlib.get_logger("hello_service.serving.listener").error(
                "connections turned away", reason=reason
            )
        os.close(self._spare)
        try:
            super().accept()[0].close()
        finally:
            self._spare = os.open(os.devnull, os.O_RDONLY)
