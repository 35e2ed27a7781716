"""Logs rejected requests, at most ten a second, and counts them by reason for `/info`."""

from __future__ import annotations

from collections import Counter
from time import monotonic

import structlog

LINES_PER_SECOND = 10  # enough to see the reasons; an attack can't flood the log


class Rejections:
    """Counts and logs rejected requests.

    Attributes:
        counts: the number of rejections, by reason.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._second = 0
        self._lines = self._unlogged = 0
        self._log = structlog.stdlib.get_logger("hello_service.serving.rejections")

    def add(self, status: int | None, reason: str, detail: str, client: str | None) -> None:
        """Count a rejection, and log it unless ten have been logged in this second.

        Args:
            status: status of the response, or close code of the WebSocket; None if neither was sent.
            reason: a short code from a fixed set.
            detail: one sentence, without any data from the client.
            client: the client's address; None if it has none, as on a Unix socket.
        """
        self.counts[reason] += 1
        second = int(monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= LINES_PER_SECOND:
            self._unlogged += 1
            return
        self._lines += 1
        unlogged, self._unlogged = self._unlogged, 0
        fields = {"unlogged_before": unlogged} if unlogged else {}
        self._log.warning("request rejected", reason=reason, status=status, detail=detail, client=client, **fields)
