"""A stand-in for a FireLens router: receives Fluentd's forward protocol on port 24224, and prints each record as JSON.

It must run in any image that has Python, so it decodes MessagePack without a library.
"""

from __future__ import annotations

import json
import signal
import socketserver
import sys
from io import BufferedIOBase
from typing import Any

# The first byte of a value is its type. For a short collection or text, the same byte also holds the length. Otherwise
# these tables give the number of bytes that hold the length, the number itself, or the data of an extension.
COLLECTIONS = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}  # arrays, then maps
TEXTS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}  # bytes, then text
# The signed numbers, from 0xD0 on, are read as unsigned, because no test reads a negative one.
NUMBERS = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}  # such as Fluentd's EventTime
FLOAT = 0xCB
CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


def read_number(stream: BufferedIOBase, size: int) -> int:
    """Read an unsigned number of `size` bytes."""
    return int.from_bytes(stream.read(size), "big")


def read_value(stream: BufferedIOBase) -> Any:
    """Read one value.

    Raises:
        EOFError: at the end of the stream.
    """
    if not (first := stream.read(1)):
        raise EOFError
    kind = first[0]
    if 0x80 <= kind < 0xA0 or kind in COLLECTIONS:
        count = read_number(stream, COLLECTIONS[kind]) if kind in COLLECTIONS else kind & 0x0F
        is_map = kind < 0x90 or kind in {0xDE, 0xDF}
        if is_map:
            return {read_value(stream): read_value(stream) for _ in range(count)}
        return [read_value(stream) for _ in range(count)]
    if 0xA0 <= kind < 0xC0 or kind in TEXTS:
        length = read_number(stream, TEXTS[kind]) if kind in TEXTS else kind & 0x1F
        return stream.read(length).decode(errors="replace")
    return read_scalar(stream, kind)


def read_scalar(stream: BufferedIOBase, kind: int) -> Any:
    """Read the rest of a number, a constant, an extension or a float. The last two stay encoded: no test reads them."""
    if kind in NUMBERS:
        return read_number(stream, NUMBERS[kind])
    if kind in CONSTANTS:
        return CONSTANTS[kind]
    if kind in EXTENSIONS:
        return stream.read(1 + EXTENSIONS[kind]).hex()  # one more byte for the type of the extension
    if kind == FLOAT:
        return stream.read(8).hex()
    return kind if kind < 0x80 else kind - 0x100  # a small number, which the first byte itself holds


class ForwardHandler(socketserver.StreamRequestHandler):
    """Handles one connection, whose messages have the form [tag, time, record, options]."""

    def handle(self) -> None:
        while True:
            try:
                tag, _, record, *_ = read_value(self.rfile)
            except EOFError:
                return
            sys.stdout.write(json.dumps({"tag": tag, **record}) + "\n")
            sys.stdout.flush()


class Server(socketserver.ThreadingTCPServer):
    """A server with a thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Server(("0.0.0.0", 24224), ForwardHandler).serve_forever()
