"""Parses the requests of a connection one at a time, with llhttp (RFC 9112, sections 2 to 7).

The parser gets the bytes in pieces that never continue after an empty line, because a head and a chunked body end with
one. A body with a Content-Length does not go through the parser. So the parser never gets a part of the next request,
and the result does not depend on how the network splits the bytes.
"""

from __future__ import annotations

from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from hello_service.serving.request import HEAD_BYTES, Head, Rejected, read_request_line

EMPTY_LINE = b"\r\n\r\n"
CHUNK_OVERHEAD_BYTES = 65_536  # maximum of chunk framing, extensions and trailers without body data in between
# A chunked body is parsed in pieces of this size. In each piece, the overhead after the last body data is not counted,
# so larger pieces would make the limit less exact.
PIECE_BYTES = 4096
# A head that makes a new parser expect a chunked body.
CHUNKED_HEAD = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"


class RequestReader:
    """Reads one request after another: call `read_head` until it returns a head, then `read_body` until `complete`.

    Attributes:
        received: data that is not consumed yet; its first `_parsed` bytes have been passed to the parser.
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
        self._body_left: int | None = None  # bytes still to come of a body with a Content-Length
        self._overhead = 0  # bytes since the last body data of a chunked body
        self._body: list[bytes] = []

    def read_head(self) -> Head | None:
        """Return the head of the request, or None while it is incomplete.

        Raises:
            Rejected: the head is malformed, ambiguous, unsupported or too large.
        """
        received = self.received
        if self.head is None:
            while received.startswith(b"\r\n"):
                del received[:2]  # empty lines before a request are ignored (RFC 9112, section 2.2)
            if not received or received == b"\r":
                return None
            self.head = read_request_line(received)
            if self.head is None:
                return None
            self._parser = HttpRequestParser(self)
        end = self._next_piece_end(HEAD_BYTES - self._parsed)
        try:
            self._parse(end)
        finally:
            if self._head_complete:
                self.head.check()  # raises its own error in place of llhttp's, because its reason is more precise
        if not self._head_complete:
            if end == HEAD_BYTES:
                raise Rejected(431, "head-size", f"The head is longer than {HEAD_BYTES} bytes.")
            return None
        self._consume(end)
        self._body_left, self.complete = self.head.content_length, not self.head.has_body
        if self.head.upgrade and self.head.chunked:
            # llhttp does not read the body of an upgrade, so a new parser reads it, after a head without the upgrade.
            self._parser = HttpRequestParser(self)
            self._parser.feed_data(CHUNKED_HEAD)
        return self.head

    def read_body(self) -> bytes:
        """Return the body data received so far.

        Raises:
            Rejected: the chunks are malformed, or have too much overhead.
        """
        if self._body_left is not None:
            body = bytes(self.received[: self._body_left])
            del self.received[: len(body)]
            self._body_left -= len(body)
            self.complete = self._body_left == 0
            return body
        while len(self.received) > self._parsed and not self.complete:
            end = self._next_piece_end(PIECE_BYTES)
            self._overhead += end - self._parsed
            self._parse(end)
            if self._overhead > CHUNK_OVERHEAD_BYTES:
                raise Rejected(400, "malformed", f"Chunk extensions or trailers exceed {CHUNK_OVERHEAD_BYTES} bytes.")
            # The last three bytes may be the start of an empty line.
            self._consume(end if self.complete else max(end - 3, 0))
        body, self._body = b"".join(self._body), []
        return body

    def close(self) -> None:
        """Release the parser, which refers back to this object."""
        self._parser = None

    def _next_piece_end(self, limit: int) -> int:
        """Return the offset after the next unparsed empty line, or after `limit` unparsed bytes if there is none."""
        end = min(self._parsed + limit, len(self.received))
        # An empty line may begin in the last three bytes that were parsed.
        offset = self.received.find(EMPTY_LINE, max(self._parsed - 3, 0), end)
        return end if offset < 0 else offset + len(EMPTY_LINE)

    def _parse(self, end: int) -> None:
        piece = bytes(self.received[self._parsed : end])
        self._parsed = end
        try:
            self._parser.feed_data(piece)
        except HttpParserUpgrade:
            pass  # the parser stops after the head of an upgrade, where the piece ends anyway
        except HttpParserError as error:
            raise Rejected(400, "malformed", f"{error}.") from None

    def _consume(self, count: int) -> None:
        del self.received[:count]
        self._parsed -= count

    # The parser's callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_complete:  # trailers are dropped
            self.head.add(name, value)  # type: ignore[union-attr]  # there is a head before there is a parser

    def on_headers_complete(self) -> None:
        if not self._head_complete:  # otherwise this is `CHUNKED_HEAD`
            self._head_complete = True
            # The parser resets these at the end of a message.
            self.head.keep_alive = self._parser.should_keep_alive()  # type: ignore[union-attr]
            self.head.upgrade = self._parser.should_upgrade()  # type: ignore[union-attr]

    def on_body(self, data: bytes) -> None:
        self._overhead = 0
        self._body.append(data)

    def on_message_complete(self) -> None:
        self.complete = True
