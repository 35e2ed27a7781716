"""The app in this process, without a server, for tests."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from quart import Blueprint
from quart.typing import TestClientProtocol

from hello_service.app import create_app
from hello_service.problems import MEDIA_TYPE
from hello_service.settings import Settings


@asynccontextmanager
async def serving(
    settings: Settings, endpoints: Sequence[Blueprint] | None = None
) -> AsyncIterator[TestClientProtocol]:
    """Yield a test client of the app. `endpoints`, if given, replace the service's own."""
    async with create_app(settings, environ={}, endpoints=endpoints).test_app() as app:
        yield app.test_client()


def problem(response: Any, document: dict[str, Any]) -> tuple[int, str]:
    """Check the members that every problem has, and return the status and the code."""
    assert response.content_type == MEDIA_TYPE
    assert document["status"] == response.status_code
    assert document["title"]
    assert re.fullmatch("urn:hello-service:problem:[a-z-]+", document["type"])  # the pattern in /openapi.json
    assert document["detail"].endswith(".")
    return response.status_code, document["type"].removeprefix("urn:hello-service:problem:")
