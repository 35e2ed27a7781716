"""Checks the Host and Origin headers of requests to a server on this machine. It imports nothing of this package.

This prevents DNS rebinding, where a web page reads local data because its own domain name resolves to this machine.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from urllib.parse import urlsplit

# A name without dots can't be a registered domain. An example is `datadog-agent`, the agent's name in compose.
NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?")
DOCKER_HOST = "host.docker.internal"  # in a container, the name of the machine that runs Docker
PORT = re.compile(r":\d{1,5}")


def host_name(header: str) -> str | None:
    """Return the lower-case name or address in a Host header, without port and brackets, or None if it is malformed."""
    header = header.strip().lower()
    name, bracket, port = header.rpartition("]")
    if bracket:  # an IPv6 address, such as [::1]:8081
        name = name.removeprefix("[")
    else:
        name, colon, digits = header.partition(":")
        port = colon + digits
    if not name or (port and not PORT.fullmatch(port)):
        return None
    return name.removesuffix(".")  # a fully qualified name may end with a dot


def is_local(name: str, allowed: Collection[str] = ()) -> bool:
    """Return whether `name`, from `host_name`, is an IP address, has no dots, is a local name or is `allowed`.

    Every IP address is accepted, because DNS rebinding needs a domain name.
    """
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return bool(NAME.fullmatch(name)) or name.endswith(".localhost") or name == DOCKER_HOST or name in allowed
    return True


def is_own_origin(origin: str, host: str) -> bool:
    """Return whether a request with the headers Origin and Host comes from a page of the same server."""
    own_host = host.strip().lower()
    try:
        return own_host != "" and urlsplit(origin).netloc.lower() == own_host  # the netloc of `null` is empty, too
    except ValueError:
        return False
