"""The outbound client against an upstream that misbehaves on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fake_upstream import FakeUpstream, fake_upstream

from hello_service.problems import UpstreamFailed, UpstreamLate, UpstreamSaturated
from hello_service.settings import Settings
from hello_service.upstream import Answer, Upstream


@pytest.fixture
async def fake() -> AsyncIterator[FakeUpstream]:
    async with fake_upstream() as fake:
        yield fake


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream(Settings(upstream_timeout_seconds=2)) as upstream:
        yield upstream


@pytest.mark.parametrize(
    ("path", "answer"),
    [("/json", Answer(200, {"message": 1})), ("/text", Answer(200, "hi")), ("/missing", Answer(404, "none"))],
)
async def test_an_answer_is_passed_on(fake: FakeUpstream, upstream: Upstream, path: str, answer: Answer) -> None:
    """JSON is parsed, text is text, and the upstream's 4xx is an answer, too."""
    assert await upstream.get(fake.url + path) == answer


@pytest.mark.parametrize("path", ["/broken", "/redirect", "/not-json", "/gzip", "/garbage", "/cut", "/nothing", "/big"])
async def test_nonsense_is_a_failed_upstream(fake: FakeUpstream, upstream: Upstream, path: str) -> None:
    """No foreign exception gets out, and a redirect is not followed."""
    with pytest.raises(UpstreamFailed) as failed:
        await upstream.get(fake.url + path)

    assert failed.value.detail.endswith(".")
    assert "127.0.0.1" not in failed.value.detail


async def test_a_refused_connection_is_a_failed_upstream(upstream: Upstream) -> None:
    """Port 1 of the loopback: nobody listens."""
    with pytest.raises(UpstreamFailed, match="could not be reached"):
        await upstream.get("http://127.0.0.1:1/")


async def test_a_url_that_can_not_be_called_is_a_failed_upstream(upstream: Upstream) -> None:
    """httpx has its own error for these, outside of its tree."""
    with pytest.raises(UpstreamFailed):
        await upstream.get("http://[::/")


@pytest.mark.parametrize("path", ["/hang", "/drip"])
async def test_a_late_answer_is_a_late_upstream(fake: FakeUpstream, path: str) -> None:
    """Silence and a byte now and then alike."""
    async with Upstream(Settings(upstream_timeout_seconds=0.3)) as upstream:
        with pytest.raises(UpstreamLate):
            await upstream.get(fake.url + path)


async def test_a_call_that_finds_no_connection_is_saturated(fake: FakeUpstream) -> None:
    """When its time is over if it may wait, at once if too many wait already."""
    settings = Settings(upstream_timeout_seconds=0.2, upstream_connections=1, upstream_waiting=1)
    async with Upstream(settings) as upstream, upstream._slot():
        calls = [asyncio.create_task(upstream.get(f"{fake.url}/json")) for _ in range(2)]
        waited, refused = await asyncio.gather(*calls, return_exceptions=True)

    assert isinstance(waited, UpstreamSaturated)
    assert str(waited) == "All connections to the upstream are busy."
    assert isinstance(refused, UpstreamSaturated)
    assert str(refused) == "All connections to the upstream are busy, and too many calls wait for one."
    assert fake.paths == []


async def test_failures_leave_no_connection_and_no_slot_behind(fake: FakeUpstream) -> None:
    """After every kind of failure the next call is served."""
    async with Upstream(Settings(upstream_timeout_seconds=0.3, upstream_connections=1)) as upstream:
        for path in ("/hang", "/drip", "/big", "/cut", "/garbage", "/gzip"):
            with pytest.raises((UpstreamFailed, UpstreamLate)):
                await upstream.get(fake.url + path)
        answer = await upstream.get(f"{fake.url}/json")

    assert answer.status == 200


async def test_connections_are_kept(fake: FakeUpstream, upstream: Upstream) -> None:
    """Ten calls one after the other use one."""
    for _ in range(10):
        await upstream.get(f"{fake.url}/json")

    assert fake.open == 1
    assert len(fake.paths) == 10


async def test_the_hook_sees_each_request_and_its_hints(fake: FakeUpstream) -> None:
    """That is how tracing names the span."""
    seen: list[str] = []

    async def hook(request: object) -> None:
        seen.append(request.extensions["peer_service"])  # type: ignore[attr-defined]  # duck-typed as in tracing.py

    async with Upstream(Settings(), hook) as upstream:
        await upstream.get(f"{fake.url}/json", "billing")

    assert seen == ["billing"]
