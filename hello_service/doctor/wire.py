"""Sends an HTTP request over TCP, TLS or a Unix socket, without a proxy. One timeout covers DNS to response."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from email.message import Message
from enum import Enum
from http.client import HTTPConnection, HTTPException
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

T = TypeVar("T")

MAX_RESPONSE_BYTES = 1_048_576  # of a body; the rest is not read


class Reason(Enum):
    """Why there was no response."""

    UNRESOLVED = "the host name does not resolve"
    REFUSED = "nothing listens there"
    MISSING = "there is no such socket"
    DENIED = "this user has no permission for the socket"
    SILENT = "no response came"
    BROKEN = "the connection broke, or the response was not HTTP"


class NoResponse(Exception):  # noqa: N818 - a result of the check, not an error of this program
    """There was no HTTP response; `reason` has the cause."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True)
class Response:
    """An HTTP response and the milliseconds that it took."""

    status: int
    headers: Message
    body: bytes
    milliseconds: float

    def document(self) -> dict[str, Any]:
        """Return the JSON object in the body, or an empty dictionary if the body is anything else."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}


def in_background(work: Callable[[], T]) -> Future[T]:
    """Start `work` in a daemon thread, so that the process can exit even if the thread hangs."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - the future raises it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def get(url: str, path: str, seconds: float) -> Response:
    """GET `path` below `url` (http, https or unix) in `seconds` at most.

    Raises:
        NoResponse: no response arrived, for any reason.
    """
    request = _Request(url, path, seconds)
    try:
        return in_background(request.send).result(seconds)
    except TimeoutError:
        raise NoResponse(request.timeout_reason) from None
    except PermissionError:
        raise NoResponse(Reason.DENIED) from None
    except FileNotFoundError:
        raise NoResponse(Reason.MISSING) from None
    except ConnectionRefusedError:
        raise NoResponse(Reason.REFUSED) from None
    except (socket.gaierror, UnicodeError):  # UnicodeError: not a valid host name
        raise NoResponse(Reason.UNRESOLVED) from None
    except (OSError, HTTPException):
        raise NoResponse(Reason.BROKEN) from None


class _Request:
    """A request that records its current step, so that a timeout has a reason."""

    def __init__(self, url: str, path: str, seconds: float) -> None:
        self.timeout_reason = Reason.SILENT
        self._parts = urlsplit(url)
        self._path = path if self._parts.scheme == "unix" else self._parts.path.rstrip("/") + path
        self._seconds = seconds

    def send(self) -> Response:
        start = monotonic()
        connection = HTTPConnection(self._parts.hostname or "localhost", timeout=self._seconds)
        connection.sock = self._connect()
        try:
            connection.request("GET", self._path, headers={"Connection": "close"})
            response = connection.getresponse()
            body = response.read(MAX_RESPONSE_BYTES)
            return Response(response.status, response.headers, body, milliseconds=(monotonic() - start) * 1000)
        finally:
            connection.close()

    def _connect(self) -> socket.socket:
        if self._parts.scheme == "unix":
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(self._seconds)
            try:
                connection.connect(unquote(self._parts.path))
            except OSError:
                connection.close()
                raise
            return connection
        host, tls = self._parts.hostname or "", self._parts.scheme == "https"
        self.timeout_reason = Reason.UNRESOLVED
        port = self._parts.port or (443 if tls else 80)
        addresses = [str(address[0]) for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        self.timeout_reason = Reason.SILENT
        connection = _connect_to_first(addresses, port, self._seconds)
        return ssl.create_default_context().wrap_socket(connection, server_hostname=host) if tls else connection


def _connect_to_first(hosts: list[str], port: int, seconds: float) -> socket.socket:
    """Connect to the first of `hosts` that accepts a connection, or raise the error of the last one."""
    for host in hosts[:-1]:
        try:
            return socket.create_connection((host, port), timeout=seconds)
        except OSError:  # localhost can be both ::1 and 127.0.0.1, and the server may listen on only one of them
            continue
    return socket.create_connection((hosts[-1], port), timeout=seconds)
