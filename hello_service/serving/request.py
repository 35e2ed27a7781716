"""The head of a request and the checks that may reject it (RFC 9112, sections 3 and 6; RFC 9110, section 7.2).

llhttp rejects malformed headers and bodies. This module reads the request line, and rejects ambiguous requests, which
two servers could parse differently (request smuggling), and requests that the application could not serve.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

# Request line, headers and empty line. RFC 9112, section 3, recommends at least 8,000 for the request line alone.
HEAD_BYTES = 65_536
HOST_BYTES = 255  # RFC 3986, section 3.2.2
# CONNECT is missing, because this is not a proxy. TRACE reaches the application, where no route supports it.
METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH"})

TOKEN_CHARACTER = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
# The parts are separated by one space. The target has no `#`, because some parsers would end it there.
REQUEST_LINE = re.compile(rb"(" + TOKEN_CHARACTER + rb"+) ([!-\"$-~]+) HTTP/(\d\.\d)\r\n")
FIRST_BYTE = re.compile(TOKEN_CHARACTER)
# Host, and path with query, of an absolute target. An empty host is invalid.
ABSOLUTE = re.compile(rb"https?://([^/?:][^/?]*)(.*)", re.IGNORECASE)
LABEL = rb"[\w~!$&'()*+,;=%-]{1,63}"  # of a host name; IDNA limits its length
PERCENT_ENCODED = rb"(?=(?:[^%]|%[0-9A-Fa-f]{2})*\Z)"  # two hexadecimal digits follow each `%`
NAME = rb"(?:" + LABEL + rb"\.)*" + LABEL + rb"\.?"
HOST = re.compile(PERCENT_ENCODED + rb"(?:" + NAME + rb"|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])?(?::(?P<port>\d{0,5}))?")


class Rejected(Exception):  # noqa: N818 - the request is rejected
    """A request that is not served.

    Args:
        status: status of the response.
        reason: a short code for log and counter.
        detail: one sentence for the log.
        headers: additional headers of the response.
    """

    def __init__(self, status: int, reason: str, detail: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.headers = headers


@dataclass
class Head:
    """The head of one request.

    Attributes:
        target: path and query, or `*`.
        host: the host of a target in absolute form, which replaces the Host header; None for another target.
        headers: names in lower case, values without surrounding whitespace.
        content_length: None without a Content-Length header.
        chunked: the body is sent in chunks.
        keep_alive: version and Connection header allow another request on the connection.
        upgrade: the client has requested another protocol.
    """

    method: bytes
    target: bytes
    version: str
    host: bytes | None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    content_length: int | None = None
    chunked: bool = False
    keep_alive: bool = False
    upgrade: bool = False

    @property
    def has_body(self) -> bool:
        """Whether the request has a chunked body, or a Content-Length above 0."""
        return self.chunked or bool(self.content_length)

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for a 100 before it sends the body (RFC 9110, section 10.1.1)."""
        return self.version == "1.1" and any(
            expectation.strip(b" \t").lower() == b"100-continue"
            for name, value in self.headers
            if name == b"expect"
            for expectation in value.split(b",")
        )

    @property
    def opens_websocket(self) -> bool:
        """Whether this is a WebSocket handshake; any other upgrade, or a choice of several, is served as plain HTTP."""
        if not self.upgrade or self.method != b"GET" or self.version != "1.1":
            return False
        options = b",".join(value for name, value in self.headers if name == b"connection").lower().split(b",")
        if b"upgrade" not in {option.strip(b" \t") for option in options}:
            return False  # llhttp also accepts Proxy-Connection, which no standard defines
        return [value.lower() for name, value in self.headers if name == b"upgrade"] == [b"websocket"]

    def add(self, name: bytes, value: bytes) -> None:
        """Add one header line."""
        self.headers.append((name.lower(), value.rstrip(b" \t")))  # llhttp removes leading whitespace only

    def check(self) -> None:
        """Read and check the headers that determine the request's host and the end of its body.

        Raises:
            Rejected: 400, or 501 for an unknown transfer coding.
        """
        hosts, codings = [], []
        for name, value in self.headers:
            if name == b"host":
                hosts.append(value)
            elif name == b"content-length":
                self.content_length = int(value)  # llhttp has checked that it is unique and a number
            elif name == b"transfer-encoding":
                codings.append(value.lower())
        self._check_hosts(hosts)
        if codings:
            self._check_codings(codings)

    def _check_hosts(self, hosts: list[bytes]) -> None:
        if len(hosts) > 1 or (not hosts and self.version == "1.1"):
            raise Rejected(400, "host", f"Expected one Host header, got {len(hosts)}.")
        if self.host is not None:
            self.headers = [(name, value) for name, value in self.headers if name != b"host"]
            self.headers.append((b"host", self.host))
            hosts.append(self.host)
        if not all(map(is_host, hosts)):
            raise Rejected(400, "host", "The host is not a valid name or address.")

    def _check_codings(self, codings: list[bytes]) -> None:
        if self.version == "1.0":
            raise Rejected(400, "length", "HTTP/1.0 has no Transfer-Encoding.")
        if codings != [b"chunked"]:
            raise Rejected(501, "length", "The only supported transfer coding is chunked.")
        self.chunked = True

    def scope(self, kind: str, rest: Mapping[str, Any]) -> dict[str, Any]:
        """Return the ASGI scope of this request, with the keys that the connection adds in `rest`."""
        path, _, query = self.target.partition(b"?")
        return {
            "type": kind,
            # From version 2.4 on, `send` raises an OSError after a disconnect. Here it does nothing.
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": self.version,
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": self.headers,
            **rest,
        }


def read_request_line(received: bytes | bytearray) -> Head | None:
    """Return the head at the start of `received`, without its headers; None while the line is incomplete.

    Raises:
        Rejected: 400, 414 (the target is too long), 501 (method) or 505 (version).
    """
    if FIRST_BYTE.match(received) is None:
        raise Rejected(400, "malformed", "The request does not begin with a method.")
    if received.find(b"\n", 0, HEAD_BYTES) < 0:
        if len(received) < HEAD_BYTES:
            return None
        if received.find(b" ", 0, HEAD_BYTES) < 0:
            raise Rejected(501, "method", f"The method is longer than {HEAD_BYTES} bytes.")
        raise Rejected(414, "target-size", f"The request line is longer than {HEAD_BYTES} bytes.")
    line = REQUEST_LINE.match(received)
    if line is None:
        raise Rejected(400, "malformed", "The first line is not a request line.")
    method, target, version = (bytes(part) for part in line.groups())
    # RFC 9110, section 2.5, recommends processing 1.2 as 1.1, but llhttp rejects it.
    if version not in {b"1.0", b"1.1"}:
        raise Rejected(505, "version", "Only HTTP/1.0 and HTTP/1.1 are supported.")
    if method not in METHODS:
        raise Rejected(501, "method", "Unknown method; methods are case-sensitive.")
    host = None
    if absolute := ABSOLUTE.fullmatch(target):
        host, path = absolute.groups()
        target = _complete_path(path, method)
    if not target.startswith(b"/") and (method, target) != (b"OPTIONS", b"*"):
        raise Rejected(400, "target", "The target is neither a path nor a URL.")
    return Head(method, target, version.decode(), host)


def _complete_path(path: bytes, method: bytes) -> bytes:
    """Return the target for the `path` of an absolute URL. The path may be empty, or a query alone."""
    if not path and method == b"OPTIONS":
        return b"*"  # RFC 9112, section 3.2.4
    return path if path.startswith(b"/") else b"/" + path


def is_host(value: bytes) -> bool:
    """Return whether `value` is a host with or without a port (RFC 3986, section 3.2.2) that IDNA accepts.

    An empty Host header is valid (RFC 9112, section 3.2).
    """
    match = HOST.fullmatch(value)
    if match is None or len(value) > HOST_BYTES or int(match["port"] or 0) > 65_535:
        return False
    if match["ipv6"] is not None:
        try:
            ipaddress.IPv6Address(match["ipv6"].decode())
        except ValueError:
            return False
    return True
