"""The parts of the process that need no process of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest
from hypercorn.config import Config

from hello_service.app import create_app
from hello_service.observability import trace_loss, tracing
from hello_service.serving import server
from hello_service.settings import Settings


async def test_another_server_of_the_process_keeps_hypercorns_own_class() -> None:
    """Only a configuration of ours brings our connections."""
    arguments: list[Any] = [None, None, Config(), None, {}, None, None]

    assert isinstance(server.tcp_server(*arguments), server.HYPERCORN_TCP_SERVER)


@pytest.mark.parametrize("broken", [{}, {"fast_span": ["It changed."]}], ids=["whole", "broken"])
def test_the_middleware_makes_the_span_where_the_cheaper_one_is_broken(
    monkeypatch: pytest.MonkeyPatch, broken: dict[str, list[str]]
) -> None:
    given: list[Callable[..., Any] | None] = []

    def trace(_app: object, _probes: Collection[str], _service: str, middleware: Callable[..., Any] | None) -> None:
        given.append(middleware)

    monkeypatch.setattr(tracing, "active", lambda: True)
    monkeypatch.setattr(tracing, "trace", trace)
    monkeypatch.setattr(trace_loss, "watch", lambda: None)
    create_app(Settings(), {}, broken)

    assert [middleware is None for middleware in given] == [bool(broken)]
