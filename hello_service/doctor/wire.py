"""One HTTP request over TCP, TLS or a Unix socket, with one timeout from DNS to response. No proxy. A leaf."""

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

RESPONSE_BYTES = 1_048_576


class Reason(Enum):
    """Why there was no response."""

    UNRESOLVED = "the host name does not resolve"
    REFUSED = "nothing listens there"
    MISSING = "there is no such socket"
    DENIED = "this user has no permission for the socket"
    SILENT = "the connection was accepted, but no response came"
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
        """Return the JSON object in the body, an empty one if there is none."""
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
        NoResponse: there was none, for any reason.
    """
    request = _Request(url, path, seconds)
    try:
        return in_background(request.send).result(seconds)
    except TimeoutError:
        raise NoResponse(request.waiting_for) from None
    except PermissionError:
        raise NoResponse(Reason.DENIED) from None
    except FileNotFoundError:
        raise NoResponse(Reason.MISSING) from None
    except ConnectionRefusedError:
        raise NoResponse(Reason.REFUSED) from None
    except (socket.gaierror, UnicodeError):
        raise NoResponse(Reason.UNRESOLVED) from None
    except (OSError, HTTPException):
        raise NoResponse(Reason.BROKEN) from None


class _Request:
    """A request that tracks the step it is waiting for."""

    def __init__(self, url: str, path: str, seconds: float) -> None:
        self.waiting_for = Reason.SILENT
        self._parts = urlsplit(url)
        self._path = path if self._parts.scheme == "unix" else self._parts.path.rstrip("/") + path
        self._seconds = seconds

    def send(self) -> Response:
        begun = monotonic()
        connection = HTTPConnection(self._parts.hostname or "localhost", timeout=self._seconds)
        connection.sock = self._connected()
        try:
            connection.request("GET", self._path, headers={"Connection": "close"})
            response = connection.getresponse()
            body = response.read(RESPONSE_BYTES)
            return Response(response.status, response.headers, body, (monotonic() - begun) * 1000)
        finally:
            connection.close()

    def _connected(self) -> socket.socket:
        if self._parts.scheme == "unix":
            connected = socket.socket(socket.AF_UNIX)
            connected.settimeout(self._seconds)
            try:
                connected.connect(unquote(self._parts.path))
            except OSError:
                connected.close()
                raise
            return connected
        host, tls = self._parts.hostname or "", self._parts.scheme == "https"
        self.waiting_for = Reason.UNRESOLVED
        addresses = socket.getaddrinfo(host, self._parts.port or (443 if tls else 80), type=socket.SOCK_STREAM)
        self.waiting_for = Reason.SILENT
        connected = _first_that_connects([str(found[4][0]) for found in addresses], addresses[0][4][1], self._seconds)
        return ssl.create_default_context().wrap_socket(connected, server_hostname=host) if tls else connected


def _first_that_connects(hosts: list[str], port: Any, seconds: float) -> socket.socket:
    for host in hosts[:-1]:
        try:
            return socket.create_connection((host, port), timeout=seconds)
        except OSError:  # localhost is ::1 and 127.0.0.1, and one of them may do
            continue
    return socket.create_connection((hosts[-1], port), timeout=seconds)
