"""Tests of the demo endpoint /api/relay."""

from __future__ import annotations

import pytest
from fake_upstream import fake_upstream
from in_process import problem, serving

from hello_service.settings import Settings


@pytest.mark.parametrize("count", [0, 21])  # the bounds are 1 and 20
async def test_a_count_outside_its_bounds_is_422(count: int) -> None:
    async with serving(Settings()) as client:
        response = await client.get(f"/api/relay?count={count}")
        assert problem(response, await response.get_json(force=True)) == (422, "invalid")


@pytest.mark.parametrize(
    ("path", "status_and_code"),
    [("/broken", (502, "upstream-failed")), ("/hang", (504, "upstream-late"))],
)
async def test_each_failure_of_the_upstream_has_its_own_status(path: str, status_and_code: tuple[int, str]) -> None:
    async with (
        fake_upstream() as fake,
        serving(Settings(upstream_url=fake.url + path, upstream_timeout_seconds=0.2)) as client,
    ):
        response = await client.get("/api/relay?count=2")
        assert problem(response, await response.get_json(force=True)) == status_and_code


async def test_a_saturated_relay_is_a_503_with_retry_after() -> None:
    """After the seconds in `Retry-After`, the current calls have ended."""
    async with fake_upstream() as fake:
        settings = Settings(
            upstream_url=f"{fake.url}/hang", upstream_timeout_seconds=5, upstream_connections=1, upstream_waiting=0
        )
        async with serving(settings) as client:
            response = await client.get("/api/relay?count=2")
            assert problem(response, await response.get_json(force=True)) == (503, "upstream-saturated")
            assert response.headers["Retry-After"] == "5"


async def test_a_relay_passes_responses_on_and_masks_credentials() -> None:
    """The response contains the URL of the upstream without its credentials."""
    async with fake_upstream() as fake:
        url = fake.url.replace("http://", "http://ada:secret@") + "/json"
        async with serving(Settings(upstream_url=url)) as client:
            document = await (await client.get("/api/relay?count=2")).get_json()

            assert document["answers"] == [{"status": 200, "body": {"message": 1}}] * 2
            assert "secret" not in str(document)
            assert fake.paths == ["/json", "/json"]


@pytest.mark.parametrize(("limit", "status"), [(14, 200), (13, 502)])
async def test_a_response_of_exactly_the_largest_size_is_relayed(limit: int, status: int) -> None:
    """A response that is one byte larger is a 502."""
    async with fake_upstream() as fake:
        # The body of /json has 14 bytes.
        settings = Settings(upstream_url=f"{fake.url}/json", upstream_body_bytes=limit)
        async with serving(settings) as client:
            response = await client.get("/api/relay?count=1")
            assert response.status_code == status
