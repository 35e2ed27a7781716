"""Which Host and Origin headers a server on this machine accepts. A leaf.

A name that resolves to this machine but belongs to somebody's web page (DNS rebinding) must not read what is shown here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from urllib.parse import urlsplit

# A name without dots can't be registered: compose calls the agent `datadog-agent`. Docker resolves the second to the host.
NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?")
DOCKER_HOST = "host.docker.internal"
PORT = re.compile(r":\d{1,5}")


def host_name(header: str) -> str | None:
    """Return the lower-case name or address in the value of a Host header, without port and brackets; None if malformed."""
    name, bracket, port = header.strip().lower().rpartition("]")
    if bracket:
        name = name.removeprefix("[")
    else:
        name, colon, digits = port.partition(":")
        port = colon + digits
    if not name or (port and not PORT.fullmatch(port)):
        return None
    return name.removesuffix(".")


def is_local(name: str, allowed: Collection[str] = ()) -> bool:
    """Whether `name`, as `host_name` returns it, is a loopback name, an address, has no dots, or is `allowed`."""
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return bool(NAME.fullmatch(name)) or name.endswith(".localhost") or name == DOCKER_HOST or name in allowed


def is_own_origin(origin: str, host: str) -> bool:
    """Whether a request with this Origin header comes from the page that is served under the Host header `host`."""
    try:
        return urlsplit(origin).netloc.lower() == host.strip().lower() != ""
    except ValueError:
        return False
