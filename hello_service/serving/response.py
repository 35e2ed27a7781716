"""Serializes a response: status line, headers and the framing of the body (RFC 9112, sections 4, 6 and 7)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from time import time

from hello_service.middleware.security_headers import SECURITY_HEADERS
from hello_service.problems import HTTP_ERRORS, MEDIA_TYPE, document

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
# Valid header lines (RFC 9110, sections 5.1 and 5.5), as `header_lines` writes them.
HEADER_LINES = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [^\r\n\0]*\r\n)*")
STATUSES_WITHOUT_BODY = {204, 205, 304}  # RFC 9110, sections 6.4.1 and 15.3.6

Headers = Iterable[tuple[bytes, bytes]]


class Response:
    """Turns the ASGI messages of one response into bytes.

    A head with a Content-Length waits for the first piece of the body, so that both need one write. Any other head is
    written at once, because a stream's client waits for it.

    Attributes:
        keep_alive: the connection can be reused after this response.
        head_written: the head has been returned for writing.
        fully_written: every byte that the client expects has been returned for writing.
        ended: the application has sent its last message.
    """

    def __init__(self, method: bytes, version: str, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.head_written = self.fully_written = self.ended = False
        self._ends_with_connection = False  # the end of the connection is the end of the body
        self._method = method
        self._version = version
        self._head: bytes | None = None
        self._body_left: int | None = None  # bytes still to come; None without a Content-Length, or without a body
        self._chunked = False
        self._bodyless = False  # the client expects no body
        self._has_upgrade = False  # there is an Upgrade header, so Connection lists it (RFC 9110, section 7.8)

    @property
    def started(self) -> bool:
        """Whether the application has sent the head."""
        return self._head is not None

    @property
    def would_seem_complete(self) -> bool:
        """Whether a close would make the client mistake the part that is written for the whole response (HTTP/1.0)."""
        return self._ends_with_connection and self.head_written and not self.fully_written

    def start(self, status: int, headers: Headers) -> bytes:
        """Start the response. Return the bytes to write now.

        Raises:
            RuntimeError: the response has already been started.
            ValueError: status or headers can't be sent.
        """
        if self._head is not None:
            raise RuntimeError("The response has already been started.")
        if status < 200 or status > 999:  # three digits (RFC 9112, section 4); 1xx is not a final status
            raise ValueError(f"{status} is not a valid response status.")
        # An unknown status has an empty reason phrase, but the space before it is required (RFC 9112, section 4).
        status_line = STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        lines, length = self._serialize_headers(headers)
        if status == HTTPStatus.RESET_CONTENT:
            length = 0  # RFC 9110, section 15.3.6
        self._bodyless = self._method == b"HEAD" or status in STATUSES_WITHOUT_BODY
        self._chunked = length is None and not self._bodyless and self._version == "1.1"
        if self._chunked:
            lines += b"transfer-encoding: chunked\r\n"
        elif length is not None and status != HTTPStatus.NO_CONTENT:  # RFC 9110, section 8.6
            lines += b"content-length: %d\r\n" % length
        elif not self._bodyless:
            self._ends_with_connection = True
            self.keep_alive = False
        connection_options = []
        if not self.keep_alive:
            connection_options.append(b"close")
        if self._has_upgrade:
            connection_options.append(b"upgrade")
        if connection_options:
            lines += b"connection: %b\r\n" % b", ".join(connection_options)
        self._body_left = None if self._bodyless else length
        self._head = status_line + lines + b"\r\n"
        return self.release_head() if length is None else b""

    def _serialize_headers(self, headers: Headers) -> tuple[bytes, int | None]:
        """Return the lines of `headers`, except those that `start` itself adds, and the Content-Length.

        A `Connection: close` clears `keep_alive`. An Upgrade header sets `_has_upgrade`.
        """
        remaining, length, has_date = [], None, False
        for name, value in headers:
            lower_name = name.lower()
            if lower_name == b"content-length":
                if length is not None or not value.isdigit():
                    raise ValueError("The response has an invalid Content-Length.")
                length = int(value)
            elif lower_name == b"connection":
                if b"close" in value.lower():
                    self.keep_alive = False
            elif lower_name != b"transfer-encoding":
                has_date = has_date or lower_name == b"date"
                self._has_upgrade = self._has_upgrade or lower_name == b"upgrade"
                remaining.append((name, value))
        return header_lines(remaining) + (b"" if has_date else date_line()), length

    def release_head(self) -> bytes:
        """Return the head for writing; nothing if it has been written."""
        if self._head is None or self.head_written:
            return b""
        self.head_written = True
        return self._head

    def body(self, data: bytes, more: bool) -> bytes:
        """Add a piece of the body. Return the bytes to write.

        Raises:
            RuntimeError: the response has not been started, or the body is longer than its Content-Length.
        """
        if self._head is None:
            raise RuntimeError("The response has not been started.")
        if self._body_left is not None and len(data) > self._body_left:
            raise RuntimeError("The body is longer than its Content-Length.")
        head = self.release_head()
        if self._bodyless:
            data = b""
        elif self._chunked:
            if data:  # an empty chunk would end the body
                data = b"%x\r\n%b\r\n" % (len(data), data)
            if not more:
                data += b"0\r\n\r\n"
        elif self._body_left is not None:
            self._body_left -= len(data)
        self.ended = not more
        self.fully_written = self._body_left == 0 or (self.ended and self._body_left is None)
        return head + data


def switching_protocols(headers: Headers) -> bytes:
    """Return the response that turns a connection into a WebSocket.

    Raises:
        ValueError: a header can't be sent.
    """
    fields = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), *headers]
    return STATUS_LINES[101] + header_lines(fields) + date_line() + b"\r\n"


def header_lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Serialize `headers`.

    Raises:
        ValueError: a header is invalid, or would be split into two.
    """
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    if HEADER_LINES.fullmatch(lines) is None or lines.count(b"\n") != len(headers):
        raise ValueError("The response has a header that can't be sent.")
    return lines


_date = (0, b"")


def date_line() -> bytes:
    """Return the Date header, which is cached for a second."""
    global _date  # noqa: PLW0603 - a cache of the clock
    second = int(time())
    if second != _date[0]:
        _date = (second, b"date: " + formatdate(second, usegmt=True).encode() + b"\r\n")
    return _date[1]


def problem(status: int, method: bytes, headers: Headers = ()) -> bytes:
    """Return a complete response with a problem (RFC 9457) as its body and `Connection: close`."""
    code, detail = HTTP_ERRORS[status]
    body = json.dumps(document(status, code, detail)).encode()
    response = Response(method, "1.1", keep_alive=False)
    fields = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        *SECURITY_HEADERS,
        *headers,
    ]
    return response.start(status, fields) + response.body(body, more=False)
