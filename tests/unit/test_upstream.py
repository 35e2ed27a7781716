"""The outbound client against an upstream that misbehaves on a real socket."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator

import pytest
from drills.asking import until
from fake_upstream import FakeUpstream, fake_upstream

from hello_service.clients.upstream import Answer, Upstream
from hello_service.problems import UpstreamFailed, UpstreamLate, UpstreamSaturated
from hello_service.settings import Settings

NO_JSON = "The upstream's answer says that it is JSON and can't be read as that."


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
    [
        ("/json", Answer(200, {"message": 1})),
        ("/text", Answer(200, "hi")),
        ("/wide", Answer(200, [[]] * 200)),
        ("/float", Answer(200, 1.5)),
        ("/missing", Answer(404, "none")),
        ("/reason", Answer(200, "hi")),
    ],
)
async def test_an_answer_is_passed_on(fake: FakeUpstream, upstream: Upstream, path: str, answer: Answer) -> None:
    """JSON is parsed, text is text, and the upstream's 4xx is an answer, too."""
    assert await upstream.get(fake.url + path) == answer


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/broken", "The upstream answered 500."),
        ("/redirect", "The upstream answered 302."),
        ("/loop", "The upstream answered 302."),
        ("/not-json", NO_JSON),
        ("/deep", NO_JSON),
        ("/deeper", NO_JSON),
        ("/nan", NO_JSON),
        ("/endless", NO_JSON),
        ("/gzip", "The upstream's answer is compressed, which was not asked for."),
        ("/gzip-said-late", "The upstream's answer is compressed, which was not asked for."),
        ("/garbage", "The upstream's answer is not HTTP."),
        ("/cut", "The upstream's answer broke off."),
        ("/reset", "The upstream's answer broke off."),
        ("/nothing", "The upstream closed the connection before it answered."),
        ("/big", "The upstream's answer is larger than this service takes."),
    ],
)
async def test_nonsense_is_a_failed_upstream(fake: FakeUpstream, upstream: Upstream, path: str, detail: str) -> None:
    """No foreign exception gets out, a redirect is not followed, and it is called once."""
    with pytest.raises(UpstreamFailed) as failed:
        await upstream.get(fake.url + path)

    assert failed.value.detail == detail
    assert fake.paths == [path]


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("http://127.0.0.1:1/", "The upstream refused the connection, or could not be reached."),  # nobody listens
        ("http://nowhere.invalid/", "The upstream's host name does not resolve."),  # RFC 2606: it never will
        ("http://[::/", "The upstream could not be called."),  # httpx has an error outside of its tree for it
        ("ftp://127.0.0.1/", "The upstream could not be called."),
        (f"http://{'x' * 64}.invalid/", "The upstream could not be called."),
    ],
)
async def test_an_upstream_that_can_not_be_reached_has_failed(upstream: Upstream, url: str, detail: str) -> None:
    """Nothing of what libraries say gets to the caller."""
    with pytest.raises(UpstreamFailed) as failed:
        await upstream.get(url)

    assert failed.value.detail == detail


async def test_an_upstream_without_tls_can_not_be_reached_over_tls(upstream: Upstream) -> None:
    """It is said what was tried."""

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        with pytest.raises(UpstreamFailed, match="could not be reached over TLS"):
            await upstream.get(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")


async def test_the_cause_of_a_failure_does_not_hold_the_url(fake: FakeUpstream, upstream: Upstream) -> None:
    """Its query may be secret, and the cause goes to the span."""
    url = f"{fake.url}/garbage?token=hidden"
    with pytest.raises(UpstreamFailed) as failed:
        await upstream.get(url)

    assert "Bad status line" in str(failed.value.__cause__)
    assert "hidden" not in "".join(traceback.format_exception(failed.value))


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/hang", "The upstream did not answer in time."),
        ("/drip", "The upstream's answer was not complete in time."),
    ],
)
async def test_a_late_answer_is_a_late_upstream(fake: FakeUpstream, path: str, detail: str) -> None:
    """Silence and a byte now and then alike."""
    async with Upstream(Settings(upstream_timeout_seconds=0.3)) as upstream:
        with pytest.raises(UpstreamLate) as late:
            await upstream.get(fake.url + path)

    assert late.value.detail == detail


@pytest.mark.parametrize("path", ["/once", "/once-reset", "/once-half"])
async def test_a_call_on_a_stale_connection_is_made_once_more(
    fake: FakeUpstream, upstream: Upstream, path: str
) -> None:
    """On a new connection, though others that are as stale are in the pool."""
    await asyncio.gather(*(upstream.get(fake.url + path) for _ in range(3)))
    answer = await upstream.get(f"{fake.url}/json")

    assert answer.status == 200
    assert fake.dropped == ["/json"]


async def test_a_call_is_made_no_third_time(fake: FakeUpstream, upstream: Upstream) -> None:
    """What the new connection does counts."""
    await upstream.get(f"{fake.url}/once")
    with pytest.raises(UpstreamFailed, match="closed the connection before it answered"):
        await upstream.get(f"{fake.url}/nothing")

    assert fake.paths == ["/once", "/nothing", "/nothing"]


async def test_a_second_attempt_has_the_rest_of_the_time(fake: FakeUpstream) -> None:
    """Not as much again."""
    async with Upstream(Settings(upstream_timeout_seconds=0.3)) as upstream:
        await upstream.get(f"{fake.url}/once")
        with pytest.raises(UpstreamLate):
            await upstream.get(f"{fake.url}/hang")

    assert fake.dropped == ["/hang"]


async def test_no_cookie_goes_from_one_call_to_another(fake: FakeUpstream, upstream: Upstream) -> None:
    """They are made for different callers."""
    await upstream.get(f"{fake.url}/cookie")
    await upstream.get(f"{fake.url}/json")

    assert "cookie" not in fake.heads[1].lower()


async def test_a_call_that_finds_no_connection_is_saturated(fake: FakeUpstream) -> None:
    """When its time is over if it may wait, at once if too many wait already."""
    settings = Settings(upstream_timeout_seconds=0.2, upstream_connections=1, upstream_waiting=1)
    async with Upstream(settings) as upstream, upstream._slot(0):
        calls = [asyncio.create_task(upstream.get(f"{fake.url}/json")) for _ in range(2)]
        waited, refused = await asyncio.gather(*calls, return_exceptions=True)

    assert isinstance(waited, UpstreamSaturated)
    assert str(waited) == "All connections to the upstream are busy."
    assert isinstance(refused, UpstreamSaturated)
    assert str(refused) == "All connections to the upstream are busy, and too many calls wait for one."
    assert fake.paths == []


async def test_a_crowd_is_told_to_come_back_later(fake: FakeUpstream) -> None:
    """The more have been refused, the later; in the next spell as soon as ever."""
    settings = Settings(upstream_timeout_seconds=0.5, upstream_connections=1, upstream_waiting=1)
    async with Upstream(settings) as upstream, upstream._slot(0):

        async def crowd(count: int) -> list[int]:
            calls = (upstream.get(f"{fake.url}/json") for _ in range(count))
            refused = await asyncio.gather(*calls, return_exceptions=True)
            return [int(each.headers["Retry-After"]) for each in refused if isinstance(each, UpstreamSaturated)]

        first = await crowd(10)
        second = await crowd(2)

    assert sorted(first) == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]  # the last call has waited, which began a new spell
    assert second == [1, 1]


async def test_failures_leave_no_task_behind(fake: FakeUpstream) -> None:
    """Neither when a call fails, nor when it is cancelled."""

    def running() -> set[str]:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        return {str(task.get_coro()) for task in tasks if "FakeUpstream" not in str(task.get_coro())}

    async with Upstream(Settings(upstream_timeout_seconds=0.3)) as upstream:
        before = running()
        for path in ("/hang", "/drip", "/big", "/cut", "/reset", "/garbage", "/nothing", "/gzip"):
            with pytest.raises((UpstreamFailed, UpstreamLate)):
                await upstream.get(fake.url + path)
        cancelled = asyncio.create_task(upstream.get(f"{fake.url}/hang"))
        await until(lambda: fake.paths.count("/hang") == 2)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError, match="nobody waits for this call any longer"):
            await cancelled

        assert running() == before


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
