"""Tests of the demo endpoints under /api/faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from in_process import problem, serving
from quart import Quart
from quart.typing import TestClientProtocol as Client  # pytest would collect a class whose name starts with "Test"

from hello_service.api.faults import Fault
from hello_service.settings import Settings


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with serving(Settings(faults=True)) as client:
        client.app.testing = False  # errors become responses, as in production
        yield client


@pytest.mark.parametrize("path", ["/api/faults/slow?seconds=-1", "/api/faults/status/299"])  # errors start at 400
async def test_a_value_outside_its_bounds_is_422(client: Client, path: str) -> None:
    response = await client.get(path)

    assert problem(response, await response.get_json(force=True)) == (422, "invalid")


async def test_the_error_fault_is_an_unhandled_exception(client: Client) -> None:
    response = await client.get("/api/faults/error")

    assert problem(response, await response.get_json(force=True)) == (500, "internal-error")


async def test_the_stream_fault_breaks_off(client: Client) -> None:
    with pytest.raises((ExceptionGroup, Fault)):  # Quart 0.23 runs a request in a task group
        await client.get("/api/faults/stream")


@pytest.mark.parametrize("code", [400, 404, 418, 503])
async def test_the_status_fault_responds_with_the_requested_status(client: Client, code: int) -> None:
    """A developer can request any error to see its trace."""
    response = await client.get(f"/api/faults/status/{code}")

    assert problem(response, await response.get_json(force=True))[0] == code


async def test_the_slow_fault_returns_the_requested_seconds(client: Client) -> None:
    """Zero is a valid duration."""
    response = await client.get("/api/faults/slow?seconds=0")

    assert await response.get_json() == {"seconds": 0.0}


async def test_the_background_fault_responds_before_it_fails(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    response = await client.get("/api/faults/background?seconds=0")
    app: Quart = client.app
    await asyncio.gather(*app.background_tasks)

    assert response.status_code == 202
    assert "this background task always fails" in caplog.text


async def test_faults_are_not_served_by_default() -> None:
    async with serving(Settings()) as client:
        assert (await client.get("/api/faults/error")).status_code == 404
        assert "/api/faults/error" not in (await (await client.get("/")).get_json())["links"]
