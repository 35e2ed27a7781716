"""Every undocumented name that this package relies on, as strings; checked at start. A leaf.

The names are resolved by importlib, so that no folder imports a library that is not its own. `broken` reports what a
new release of a library renamed, removed or gave other parameters, before the first request depends on it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import CodeType
from typing import Any


@dataclass(frozen=True)
class Name:
    """One undocumented name.

    Attributes:
        path: `module:attribute` or `module:Class.attribute`. Several, separated by ` | `, are alternatives: one must
            be there, as where releases of a library differ.
        parameters: names of the leading parameters, in order, as this package passes them; empty: not checked.
        uses: names that the code of the function must contain, such as the instance attributes that it sets.
    """

    path: str
    parameters: Sequence[str] = ()
    uses: Sequence[str] = ()


# By the part of this package that relies on them.
NAMES: Mapping[str, Sequence[Name]] = {
    "http1": (
        Name(
            "hypercorn.asyncio.tcp_server:TCPServer",
            ("app", "loop", "config", "context", "state", "reader", "writer"),
        ),
        Name("hypercorn.asyncio.run:worker_serve", uses=("TCPServer", "create_sockets")),
        Name(
            "hypercorn.app_wrappers:ASGIWrapper.__call__",
            ("self", "scope", "receive", "send", "sync_spawn", "call_soon"),
        ),
        Name("hypercorn.config:Sockets", ("secure_sockets", "insecure_sockets", "quic_sockets")),
    ),
    "websocket": (
        Name("websockets.server:ServerProtocol.accept", ("self", "request")),
        Name("websockets.protocol:Protocol.fail", ("self", "code", "reason")),
    ),
}

# What is done without a part, and what to do about it.
WITHOUT: Mapping[str, str] = {
    "http1": "Hypercorn's own classes serve HTTP and WebSocket. Install the versions in requirements/run.txt.",
    "websocket": "Hypercorn's own classes serve HTTP and WebSocket. Install the versions in requirements/run.txt.",
}


def broken(part: str) -> list[str]:
    """Return one sentence for each name of `part` that is not what this package relies on; empty when all hold."""
    return [sentence for name in NAMES[part] if (sentence := _complaint(name)) is not None]


def check() -> dict[str, list[str]]:
    """Return `broken(part)` for each part that is broken, with the sentence of `WITHOUT` at its end."""
    found = {part: broken(part) for part in NAMES}
    return {part: [*sentences, WITHOUT[part]] for part, sentences in found.items() if sentences}


def _complaint(name: Name) -> str | None:
    complaints = [_alternative(path, name) for path in name.path.split(" | ")]
    return None if None in complaints else complaints[0]


def _alternative(path: str, name: Name) -> str | None:
    module, _, attributes = path.partition(":")
    try:
        found: Any = import_module(module)
    except ImportError:
        return f"Module {module} can't be imported."
    for attribute in filter(None, attributes.split(".")):
        if not hasattr(found, attribute):
            return f"{path} is missing: {attribute} was renamed or removed."
        found = getattr(found, attribute)
    if name.parameters:
        actual = list(inspect.signature(found).parameters)
        if actual[: len(name.parameters)] != list(name.parameters):
            return f"{path} takes ({', '.join(actual)}), expected ({', '.join(name.parameters)})."
    used_names = _names(found.__code__) if name.uses else set()
    missing = [used for used in name.uses if used not in used_names]
    return f"{path} no longer uses {', '.join(missing)}." if missing else None


def _names(code: CodeType) -> set[str]:
    """Return every name in `code` and in the functions that it defines."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return {*code.co_names, *code.co_varnames}.union(*inner)
