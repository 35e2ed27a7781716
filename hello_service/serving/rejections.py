"""Requests that were rejected: one log line each, at most ten a second, and a counter by reason for `/info`."""

from __future__ import annotations

from collections import Counter
from time import monotonic

import structlog

LINES_PER_SECOND = 10


class Rejections:
    """Counts and logs what was rejected.

    Attributes:
        counts: how often, by reason.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._second = 0
        self._lines = self._unlogged = 0
        self._log = structlog.stdlib.get_logger("hello_service.serving.rejections")

    def add(self, status: int | None, reason: str, detail: str, client: str | None) -> None:
        """Count one, and log it if there have not been ten in this second.

        Args:
            status: of the response, a WebSocket's close code, None where there was none.
            reason: short code, of a fixed set.
            detail: one sentence, without anything that the client sent.
            client: its address.
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
