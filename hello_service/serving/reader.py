"""Parses the requests of a connection one at a time, with llhttp (RFC 9112, sections 2 to 7).

The parser gets the bytes in pieces that end where a message can end: at an empty line, or at the end of the
Content-Length. So it never sees two requests at once; the next request stays unparsed until its turn. The result does
not depend on how the network splits the bytes.
"""

from __future__ import annotations

from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from hello_service.serving.request import HEAD_BYTES, Head, Rejected, read_request_line

EMPTY_LINE = b"\r\n\r\n"
CHUNK_OVERHEAD_BYTES = 65_536  # chunk extensions or trailers in a row
UNKNOWN_UPGRADE = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"


class RequestReader:
    """Reads one request after another: call `read_head` until it returns a head, then `read_body` until `complete`.

    Attributes:
        received: data that is not consumed yet; the parser has seen its first `_parsed` bytes.
        head: the head of the current request; None before its first line is complete.
        complete: the whole request has been read.
    """

    def __init__(self) -> None:
        self.received = bytearray()
        self.begin()

    def begin(self) -> None:
        """Begin the next request."""
        self.head: Head | None = None
        self.complete = False
        self._parser: Any = None
        self._parsed = 0
        self._head_complete = False
        self._left: int | None = None  # of a body with a Content-Length
        self._overhead = 0
        self._body: list[bytes] = []

    def read_head(self) -> Head | None:
        """Return the head of the request once it is complete.

        Raises:
            Rejected: the head is malformed or too large.
        """
        received = self.received
        if self.head is None:
            while received.startswith(b"\r\n"):
                del received[:2]  # RFC 9112, section 2.2
            if not received or received == b"\r":
                return None
            self.head = read_request_line(received)
            if self.head is None:
                return None
            self._parser = HttpRequestParser(self)
        end = min(self._next_empty_line(), HEAD_BYTES)
        try:
            self._parse(end)
        finally:
            if self._head_complete:  # before llhttp's error, because its reason is more precise
                self.head.check()
        if not self._head_complete:
            if end == HEAD_BYTES:
                raise Rejected(431, "head-size", f"The head is longer than {HEAD_BYTES} bytes.")
            return None
        self._consume(end)
        self._left, self.complete = self.head.content_length, not self.head.has_body
        if self.head.upgrade and self.head.chunked:  # the parser does not read the body of an upgrade
            self._parser = HttpRequestParser(self)
            self._parser.feed_data(UNKNOWN_UPGRADE)
        return self.head

    def read_body(self) -> bytes:
        """Return the body data received so far.

        Raises:
            Rejected: the chunks are malformed.
        """
        if self._left is not None:
            body = bytes(self.received[: self._left])
            del self.received[: len(body)]
            self._left -= len(body)
            self.complete = self._left == 0
            return body
        while len(self.received) > self._parsed and not self.complete:
            end = self._next_empty_line()
            self._overhead += end - self._parsed
            self._parse(end)
            if self._overhead > CHUNK_OVERHEAD_BYTES:
                raise Rejected(400, "malformed", f"Chunk extensions have more than {CHUNK_OVERHEAD_BYTES} bytes.")
            self._consume(end if self.complete else max(end - 3, 0))  # an empty line may have begun in these three
        body, self._body = b"".join(self._body), []
        return body

    def close(self) -> None:
        """Release the parser, which refers back to this object."""
        self._parser = None

    def _next_empty_line(self) -> int:
        """Return the offset after the next unparsed empty line, or the length of the received data if there is none."""
        found = self.received.find(EMPTY_LINE, max(self._parsed - 3, 0))
        return len(self.received) if found < 0 else found + 4

    def _parse(self, end: int) -> None:
        piece = bytes(self.received[self._parsed : end])
        self._parsed = end
        try:
            self._parser.feed_data(piece)
        except HttpParserUpgrade:
            pass  # it stops at the end of each upgrade's head, and so of the piece
        except HttpParserError as error:
            raise Rejected(400, "malformed", f"{error}.") from None

    def _consume(self, count: int) -> None:
        del self.received[:count]
        self._parsed -= count

    # The parser's callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_complete:  # trailers are dropped
            self.head.add(name, value)  # type: ignore[union-attr]  # the parser begins with a head

    def on_headers_complete(self) -> None:
        if not self._head_complete:
            self._head_complete = True
            # After the end of a message the parser no longer has these.
            self.head.keep_alive = self._parser.should_keep_alive()  # type: ignore[union-attr]
            self.head.upgrade = self._parser.should_upgrade()  # type: ignore[union-attr]

    def on_body(self, data: bytes) -> None:
        self._overhead = 0
        self._body.append(data)

    def on_message_complete(self) -> None:
        self.complete = True
