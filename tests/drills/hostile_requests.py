"""Hostile requests and frames as bytes, with the expected response to each."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

HOST = b"Host: localhost\r\n"
BODY = b'{"name": "Ada"}'  # 15 bytes, which is f as the size of a chunk
KEY = b"Sec-WebSocket-Key: MDAwMDAwMDAwMDAwMDAwMA==\r\n"  # any 16 bytes, in base64
POST = b"POST /api/hello HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def get(target: bytes = b"/api/hello", headers: bytes = HOST, version: bytes = b"1.1", method: bytes = b"GET") -> bytes:
    """Return a request without a body."""
    return method + b" " + target + b" HTTP/" + version + b"\r\n" + headers + b"\r\n"


def post(body: bytes) -> bytes:
    """Return a JSON request with `body` as it is."""
    return POST + b"Content-Length: %d\r\n\r\n" % len(body) + body


def handshake(headers: bytes = b"", key: bytes = KEY, path: bytes = b"/api/hello/ws") -> bytes:
    """Return the request that opens a WebSocket. `headers` are more header lines, each with its CRLF."""
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    return get(path, HOST + upgrade + key + headers)


def frame(opcode: int, payload: bytes, *, last: bool = True, masked: bool = True, reserved: int = 0) -> bytes:
    """Return a WebSocket frame (RFC 6455, section 5.2). If it is masked, the mask is 0.

    The opcodes are 0 for a continuation, 1 for text, 2 for bytes, 8 for a close, 9 for a ping.
    """
    mask = 0x80 if masked else 0
    head = bytes([last << 7 | reserved << 4 | opcode])
    if len(payload) < 126:
        head += bytes([mask | len(payload)])
    elif len(payload) < 65_536:
        head += bytes([mask | 126]) + struct.pack("!H", len(payload))
    else:
        head += bytes([mask | 127]) + struct.pack("!Q", len(payload))
    return head + (bytes(4) if masked else b"") + payload


def rapid_reset(streams: int) -> bytes:
    """Return an HTTP/2 connection with `streams` requests, and a reset right after each one (CVE-2023-44487)."""
    head = bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff")  # the headers of a GET (RFC 7541, appendix C.4.1)
    # Each stream is a HEADERS frame, which ends headers and stream, and an RST_STREAM frame with the code CANCEL (8).
    # A frame's length has three bytes.
    frames = b"".join(
        struct.pack("!I", len(head))[1:] + b"\x01\x05" + struct.pack("!I", number) + head
        + b"\0\0\x04\x03\0" + struct.pack("!II", number, 8)
        for number in range(1, 2 * streams, 2)  # a client's streams have odd numbers
    )  # fmt: skip
    # The connection begins with a preface and an empty SETTINGS frame.
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0" + frames


@dataclass(frozen=True)
class Attack:
    """One hostile request, and the response that the service must send.

    Attributes:
        name: what is wrong with the request. CL is Content-Length, and TE is Transfer-Encoding.
        data: the request.
        status: the status of the response.
        closes: whether the service closes the connection after the response. Otherwise the connection can be reused.
    """

    name: str
    data: bytes
    status: int
    closes: bool = True


REQUESTS = (
    Attack("CL+TE", POST + b"Content-Length: 15\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n" + BODY + b"\r\n0\r\n\r\n", 400),
    Attack("TE+CL", POST + b"transfer-encoding: chunked\r\nCONTENT-LENGTH: 4\r\n\r\n0\r\n\r\n" + get(b"/health"), 400),
    Attack("CL twice", POST + b"Content-Length: 15\r\nContent-Length: 15\r\n\r\n" + BODY, 400),
    Attack("CL twice, different", POST + b"Content-Length: 15\r\nContent-Length: 16\r\n\r\n" + BODY, 400),
    Attack("CL as a list", POST + b"Content-Length: 15, 15\r\n\r\n" + BODY, 400),
    Attack("CL negative", POST + b"Content-Length: -1\r\n\r\n", 400),
    Attack("CL signed", POST + b"Content-Length: +15\r\n\r\n" + BODY, 400),
    Attack("CL with 5,000 digits", POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
    Attack("TE unknown", POST + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
    Attack("TE twice", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
    Attack("TE followed by a space", POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    Attack("chunk size not a number", CHUNKED + b"zz\r\n" + BODY, 400),
    Attack("chunk of -1", CHUNKED + b"-1\r\n" + BODY, 400),
    Attack("chunk size too long", CHUNKED + b"f" * 40 + b"\r\n", 400),
    Attack("chunk without end", CHUNKED + b"f\r\n" + BODY + b"XX0\r\n\r\n", 400),
    Attack("chunks of one byte", CHUNKED + b"1\r\na\r\n" * 7_000 + b"0\r\n\r\n", 400, closes=False),  # not JSON
    Attack("body over the limit", POST + b"Content-Length: 1000000\r\n\r\n", 413),
    Attack("huge header", get(headers=HOST + b"X: " + b"a" * 200_000 + b"\r\n"), 431),
    Attack("10,000 headers", get(headers=HOST + b"".join(b"X-%d: a\r\n" % number for number in range(10_000))), 431),
    Attack("huge target", get(b"/" + b"a" * 200_000), 414),
    Attack("no Host", get(headers=b""), 400),
    Attack("two Hosts", get(headers=HOST + HOST), 400),
    Attack("Host with raw bytes", get(headers=b"Host: a b[::\xff\r\n"), 400),
    Attack("Host with half an IPv6 address", get(headers=b"Host: [\r\n"), 400),
    Attack("Host with an invalid IPv6 address", get(headers=b"Host: [1:2]\r\n"), 400),
    Attack("Host with a path", get(headers=b"Host: a/../b\r\n"), 400),
    Attack("HTTP/0.9", b"GET /api/hello\r\n\r\n", 400),
    Attack("HTTP/9.9", get(version=b"9.9"), 505),
    Attack("HTTP/2 by prior knowledge, rapid reset", rapid_reset(1000), 505),
    # A server may ignore an upgrade (RFC 9110, section 7.8).
    Attack("HTTP/2 by upgrade", get(headers=HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: _\r\n"), 200, closes=False),
    Attack("HEAD with HTTP/3.0", get(version=b"3.0", method=b"HEAD"), 505),
    Attack("TLS", bytes.fromhex("160301020001000001fc0303") + bytes(500), 400),  # a ClientHello
    Attack("random bytes", b"\xff" + os.urandom(300) + b"\r\n\r\n", 400),  # no method begins with \xff
    Attack("target without a path", get(b"?x=1"), 400),
    Attack("path without /", get(b"api/hello"), 400),
    # The host of an absolute target replaces the Host header (RFC 9112, section 3.2.2). The service accepts any host.
    Attack("absolute target", get(b"http://other/api/hello"), 200, closes=False),
    Attack("absolute target without path", get(b"HTTP://[::1]:80?x=1"), 200, closes=False),
    Attack("malformed absolute target", get(b"http://["), 400),
    Attack("CONNECT", get(b"other:80", method=b"CONNECT"), 501),
    Attack("unknown method", get(method=b"!#$"), 501),
    Attack("path with raw bytes", get(b"/api/hello/\xff\xfe"), 400),
    # Percent-encoded bytes that aren't UTF-8 are decoded as U+FFFD.
    Attack("path not UTF-8", get(b"/api/hello/%ff%fe"), 200, closes=False),
    Attack("path with a NUL", get(b"/api/hello/%00"), 422, closes=False),
    Attack("path with a line break", get(b"/nope%0d%0aX:%20y"), 404, closes=False),
    Attack("query not UTF-8", get(b"/api/hello?name=%ff%fe&%ff"), 200, closes=False),
    Attack("number with too many digits", get(b"/api/hello/stream?count=" + b"9" * 6000), 422, closes=False),
    Attack("header not UTF-8", get(headers=HOST + b"Cookie: \xff=\xff\r\nAccept: \xff;q=\xff\r\nBaggage: \xff=\xff\r\n"), 200, closes=False),
    Attack("header name not UTF-8", get(headers=HOST + b"X\xff: 1\r\n"), 400),
    Attack("header with a NUL", get(headers=HOST + b"X: a\0b\r\n"), 400),
    Attack("header with a bare CR", get(headers=HOST + b"X: a\rContent-Length: 5\r\n"), 400),
    Attack("body not UTF-8", post(b'{"name": "\xff"}'), 400, closes=False),
    Attack("body with a lone surrogate", post(b'{"name": "\\ud800"}'), 422, closes=False),
    Attack("JSON 60,000 deep", post(b"[" * 60_000), 400, closes=False),
    Attack("JSON number with too many digits", post(b'{"name": ' + b"1" * 5000 + b"}"), 400, closes=False),
    # The charset is ignored, because JSON has no such parameter (RFC 8259, section 11).
    Attack("unknown charset", POST.replace(b"json", b"json; charset=nope") + b"Content-Length: 15\r\n\r\n" + BODY, 200, closes=False),
    Attack("media type not UTF-8", POST.replace(b"application", b"\xff") + b"Content-Length: 15\r\n\r\n" + BODY, 415, closes=False),
    Attack("WebSocket without a key", handshake(key=b""), 400),
    Attack("WebSocket of version 99", handshake().replace(b"13", b"99"), 426),
    Attack("WebSocket with a body", handshake(b"Content-Length: 5\r\n") + b"hello", 400),
    # A client must wait for the response to its handshake (RFC 6455, section 4.1).
    Attack("WebSocket frame before the handshake response", handshake() + frame(1, b"Ada"), 400),
    Attack("WebSocket on an unknown path", handshake(path=b"/api/nope"), 404),
)  # fmt: skip

# These frames are sent over an open WebSocket, which the service closes without sending anything except a close frame.
# \x03\xe8 is the close code 1000.
FRAMES = {
    "not masked": frame(1, b"Ada", masked=False),
    "reserved bits": frame(1, b"Ada", reserved=7),
    "unknown opcode": frame(11, b"Ada"),
    "text not UTF-8": frame(1, b"\xff\xfe"),
    "long ping": frame(9, b"a" * 200),
    "ping in parts": frame(9, b"a", last=False),
    "continuation without a start": frame(0, b"a"),
    "close code 1": frame(8, b"\0\1"),
    "half a close code": frame(8, b"\0"),
    "close reason not UTF-8": frame(8, b"\x03\xe8\xff"),
    # In the next two, \xff announces a length of eight bytes, \xfe one of two bytes, and bytes(4) is the mask.
    "negative length": b"\x81\xff" + b"\xff" * 8 + bytes(4),
    "length in more bytes than needed": b"\x81\xfe\0\3" + bytes(4) + b"Ada",
    "random bytes": b"\xff" + os.urandom(1000),  # in \xff, all reserved bits are set
    "after the close": frame(8, b"\x03\xe8") + frame(1, b"Ada"),
    # Larger than a message may be, which is 64 KiB by default.
    "100 kB": frame(1, b"a" * 100_000),
    "20 MB": frame(1, b"a" * 20_000_000),
    "20 MB in parts": frame(1, b"a" * 1000, last=False) + frame(0, b"a" * 1000, last=False) * 20_000,
}
# These headers are sent in a handshake. The service accepts each handshake, because it negotiates no extensions and
# ignores a malformed list of subprotocols.
HANDSHAKES = (
    b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=abc\r\n",
    b"Sec-WebSocket-Extensions: \xff\r\n",
    b"Sec-WebSocket-Protocol: \xff\r\n",
)
