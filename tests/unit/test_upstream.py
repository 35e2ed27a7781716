"""Tests of the outbound client against a fake upstream on a real socket."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator

import aiohttp
import httpx
import pytest
from drills.connections import until
from fake_upstream import FakeUpstream, fake_upstream

from hello_service.clients.upstream import Limits, Upstream, UpstreamResponse
from hello_service.problems import (
    UpstreamBadStatus,
    UpstreamConnectError,
    UpstreamFailed,
    UpstreamProtocolError,
    UpstreamReadError,
    UpstreamSaturated,
    UpstreamTimeout,
    UpstreamTooLarge,
)

NOT_JSON = "The upstream's response is not valid JSON."
COMPRESSED = "The upstream's response is compressed, which was not requested."
# After its response to one of these paths, the upstream drops the connection as soon as the next request arrives on it.
STALE_CONNECTION_PATHS = ["/once", "/once-reset", "/once-half"]


@pytest.fixture
async def fake() -> AsyncIterator[FakeUpstream]:
    async with fake_upstream() as fake:
        yield fake


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream(Limits(timeout_seconds=2)) as upstream:
        yield upstream


@pytest.mark.parametrize(
    ("path", "response"),
    [
        ("/json", UpstreamResponse(200, {"message": 1})),
        ("/text", UpstreamResponse(200, "hi")),
        ("/wide", UpstreamResponse(200, [[]] * 200)),  # more brackets than JSON_DEPTH, but only two levels
        ("/float", UpstreamResponse(200, 1.5)),
        ("/missing", UpstreamResponse(404, "none")),
        ("/reason", UpstreamResponse(200, "hi")),  # the reason phrase is not valid UTF-8
    ],
)
async def test_a_response_is_passed_on(
    fake: FakeUpstream, upstream: Upstream, path: str, response: UpstreamResponse
) -> None:
    """JSON is parsed, text stays text, and a 4xx of the upstream is passed on as well."""
    assert await upstream.get(fake.url + path) == response


@pytest.mark.parametrize(
    ("path", "error_type", "detail"),
    [
        ("/broken", UpstreamBadStatus, "The upstream responded with status 500."),
        ("/redirect", UpstreamBadStatus, "The upstream responded with status 302."),
        ("/loop", UpstreamBadStatus, "The upstream responded with status 302."),  # to itself
        ("/not-json", UpstreamProtocolError, NOT_JSON),
        ("/deep", UpstreamProtocolError, NOT_JSON),  # 200 nested arrays
        ("/deep-objects", UpstreamProtocolError, NOT_JSON),  # 200 nested objects
        ("/deeper", UpstreamProtocolError, NOT_JSON),  # 100,000 nested arrays
        ("/nan", UpstreamProtocolError, NOT_JSON),
        ("/infinity", UpstreamProtocolError, NOT_JSON),  # 1e999, which Python reads as infinity
        ("/gzip", UpstreamProtocolError, COMPRESSED),
        ("/gzip-second-header", UpstreamProtocolError, COMPRESSED),
        ("/garbage", UpstreamProtocolError, "The upstream's response is not HTTP."),
        ("/cut", UpstreamReadError, "The upstream's response was cut short."),
        ("/reset", UpstreamReadError, "The upstream's response was cut short."),
        ("/nothing", UpstreamReadError, "The upstream closed the connection before it responded."),
        ("/big", UpstreamTooLarge, "The upstream's response is larger than this service accepts."),
    ],
)
async def test_each_kind_of_bad_response_has_its_own_error(
    fake: FakeUpstream, upstream: Upstream, path: str, error_type: type[UpstreamFailed], detail: str
) -> None:
    """No exception of another library propagates, no redirect is followed, and the upstream is called once."""
    with pytest.raises(UpstreamFailed) as error:
        await upstream.get(fake.url + path)

    assert type(error.value) is error_type
    assert error.value.detail == detail
    assert fake.paths == [path]


async def test_a_caller_gets_the_bad_status(fake: FakeUpstream, upstream: Upstream) -> None:
    with pytest.raises(UpstreamBadStatus) as error:
        await upstream.get(f"{fake.url}/broken")

    assert error.value.upstream_status == 500


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("http://127.0.0.1:1/", "The upstream refused the connection, or could not be reached."),  # no server listens
        ("http://nowhere.invalid/", "The upstream's host name does not resolve."),  # RFC 2606 reserves .invalid
        ("http://[::/", "The upstream could not be called."),  # httpx raises an error that is not an HTTPError
        ("ftp://127.0.0.1/", "The upstream could not be called."),
        (f"http://{'x' * 64}.invalid/", "The upstream could not be called."),  # a label has at most 63 characters
        ("/path", "The upstream could not be called."),
        ("", "The upstream could not be called."),
    ],
)
async def test_an_unreachable_upstream_is_a_connect_error(upstream: Upstream, url: str, detail: str) -> None:
    """The caller gets no text from the HTTP libraries."""
    with pytest.raises(UpstreamConnectError) as error:
        await upstream.get(url)

    assert error.value.detail == detail


def exported_exceptions(module: object) -> list[type[Exception]]:
    """Return the exceptions that `module` exports, without the warnings."""
    exports = [value for value in vars(module).values() if isinstance(value, type)]
    return [export for export in exports if issubclass(export, Exception) and not issubclass(export, Warning)]


# Exceptions of aiohttp's server and WebSockets. The client uses neither.
UNUSED = {aiohttp.EofStream, aiohttp.WebSocketError, aiohttp.WSMessageTypeError}


@pytest.mark.parametrize(
    "error_type", [*exported_exceptions(aiohttp), OSError, ConnectionResetError, TimeoutError, ValueError]
)
async def test_no_exception_of_aiohttp_is_left_unmapped(
    fake: FakeUpstream, upstream: Upstream, error_type: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parameters also include the exceptions that later releases of aiohttp add."""
    if error_type in UNUSED:
        return

    def fail(*_: object, **__: object) -> None:
        raise error_type.__new__(error_type)  # without its arguments, which differ between exceptions

    monkeypatch.setattr(upstream._client._transport.session, "request", fail)  # type: ignore[attr-defined]  # in clients/transport.py
    with pytest.raises((UpstreamFailed, UpstreamTimeout)) as error:
        await upstream.get(fake.url)

    assert type(error.value) is not UpstreamFailed  # but a subclass, or UpstreamTimeout


@pytest.mark.parametrize("error_type", exported_exceptions(httpx))
async def test_no_exception_of_httpx_is_left_unmapped(
    fake: FakeUpstream, upstream: Upstream, error_type: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exceptions of streams and cookies are left out, because responses are read as a whole and no cookies are kept."""
    if issubclass(error_type, (httpx.StreamError, httpx.CookieConflict)):
        return

    async def fail(*_: object, **__: object) -> None:
        raise error_type.__new__(error_type)  # without its arguments, which differ between exceptions

    monkeypatch.setattr(upstream._client, "send", fail)
    with pytest.raises(UpstreamConnectError):
        await upstream.get(fake.url)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"a": "x\r\nb: y"}, None),  # a line break, as in a token that was read from a file with its last line break
        ({"a": "\u2019"}, None),  # not ASCII
        ({}, float("nan")),  # not JSON
        ({}, "\ud800"),  # a lone surrogate, which UTF-8 can't encode
    ],
)
async def test_an_invalid_header_or_body_is_not_sent(
    fake: FakeUpstream, upstream: Upstream, headers: dict[str, str], body: object
) -> None:
    with pytest.raises(UpstreamConnectError, match="could not be called"):
        await upstream.post(f"{fake.url}/json", body, headers=headers)

    assert fake.paths == []


@pytest.mark.parametrize("path", ["/whole", "/chunked"])
async def test_the_largest_body_is_accepted_and_one_byte_more_is_not(fake: FakeUpstream, path: str) -> None:
    async with Upstream(Limits(body_bytes=100_000)) as upstream:
        fake.body_bytes = 100_000
        response = await upstream.get(fake.url + path)
        fake.body_bytes += 1
        with pytest.raises(UpstreamTooLarge):
            await upstream.get(fake.url + path)

    assert len(response.body) == 100_000


async def test_json_and_headers_are_posted(fake: FakeUpstream) -> None:
    """A header of one call overrides the same header of the client, regardless of case."""
    async with Upstream(Limits(), headers={"Authorization": "Bearer ours", "X-Team": "a"}) as upstream:
        await upstream.post(f"{fake.url}/json", {"name": "Ada"}, peer_service="billing")
        await upstream.post(f"{fake.url}/json", [1], headers={"authorization": "Bearer theirs"})
    first_head, second_head = (head.lower() for head in fake.heads)

    assert fake.bodies == [b'{"name":"Ada"}', b"[1]"]
    assert first_head.startswith("post /json http/1.1")
    assert "\r\nauthorization: bearer ours\r\n" in first_head
    assert "\r\ncontent-type: application/json\r\n" in first_head
    assert "\r\naccept-encoding: identity\r\n" in first_head
    assert "\r\nx-team: a\r\n" in second_head
    assert second_head.count("authorization: ") == 1
    assert "bearer theirs" in second_head


@pytest.mark.parametrize("path", STALE_CONNECTION_PATHS)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_call_that_is_not_idempotent_is_sent_once(
    fake: FakeUpstream, upstream: Upstream, path: str, method: str
) -> None:
    """RFC 9110, section 9.2.2: the upstream may have acted on the call before it closed the stale connection."""
    await upstream.get(fake.url + path)
    with pytest.raises(UpstreamReadError):
        await upstream.request(method, f"{fake.url}/json", json=1)

    assert [head.split()[0] for head in fake.heads] == ["GET", method]


async def test_an_idempotent_call_is_retried_with_its_body(fake: FakeUpstream, upstream: Upstream) -> None:
    await upstream.get(f"{fake.url}/once")
    response = await upstream.request("PUT", f"{fake.url}/json", json={"a": 1})

    assert response.status == 200
    assert [head.split()[0] for head in fake.heads] == ["GET", "PUT", "PUT"]
    assert fake.bodies[1:] == [b'{"a":1}'] * 2


async def test_a_saturated_peer_does_not_delay_another(fake: FakeUpstream) -> None:
    """Each `Upstream` has its own connections and limits."""
    async with (
        Upstream(Limits(connections=1, waiting=0)) as busy,
        Upstream(Limits(connections=1, waiting=0)) as other,
        busy._slot(deadline=0),  # occupies the only connection of `busy`; the deadline applies only to a wait
    ):
        with pytest.raises(UpstreamSaturated):
            await busy.get(f"{fake.url}/json")
        response = await other.get(f"{fake.url}/json")

    assert response.status == 200


async def test_an_upstream_without_tls_cannot_be_reached_over_tls(upstream: Upstream) -> None:
    """The error states that TLS was attempted."""

    async def respond_without_tls(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(respond_without_tls, "127.0.0.1", 0) as server:
        with pytest.raises(UpstreamFailed, match="could not be reached over TLS"):
            await upstream.get(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")


async def test_the_cause_of_a_failure_does_not_contain_the_url(fake: FakeUpstream, upstream: Upstream) -> None:
    """The URL's query may be secret, and the cause goes to the span."""
    url = f"{fake.url}/garbage?token=hidden"
    with pytest.raises(UpstreamFailed) as error:
        await upstream.get(url)

    assert "Bad status line" in str(error.value.__cause__)
    assert "hidden" not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/hang", "The upstream did not respond in time."),
        ("/drip", "The upstream's response was not complete in time."),
    ],
)
async def test_a_late_response_is_an_upstream_timeout(fake: FakeUpstream, path: str, detail: str) -> None:
    """The upstream is silent, or it sends a byte now and then."""
    async with Upstream(Limits(timeout_seconds=0.3)) as upstream:
        with pytest.raises(UpstreamTimeout) as error:
            await upstream.get(fake.url + path)

    assert error.value.detail == detail
    # The traceback is short, because overload causes many timeouts.
    assert "TimeoutError" not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("path", STALE_CONNECTION_PATHS)
async def test_a_call_on_a_stale_connection_is_retried(fake: FakeUpstream, upstream: Upstream, path: str) -> None:
    """The retry uses a new connection, even if the pool has other stale ones."""
    await asyncio.gather(*(upstream.get(fake.url + path) for _ in range(3)))
    response = await upstream.get(f"{fake.url}/json")

    assert response.status == 200
    assert fake.dropped == ["/json"]


async def test_a_retry_is_not_retried(fake: FakeUpstream, upstream: Upstream) -> None:
    """The result of the retry is final."""
    await upstream.get(f"{fake.url}/once")
    with pytest.raises(UpstreamFailed, match="closed the connection before it responded"):
        await upstream.get(f"{fake.url}/nothing")

    assert fake.paths == ["/once", "/nothing", "/nothing"]


async def test_a_retry_has_only_the_remaining_time(fake: FakeUpstream) -> None:
    """The timeout doesn't start again with the retry."""
    async with Upstream(Limits(timeout_seconds=0.3)) as upstream:
        await upstream.get(f"{fake.url}/once")
        with pytest.raises(UpstreamTimeout):
            await upstream.get(f"{fake.url}/hang")

    assert fake.dropped == ["/hang"]


async def test_a_cookie_is_neither_kept_nor_sent_with_another_call(fake: FakeUpstream, upstream: Upstream) -> None:
    """The other call may be for another caller."""
    await upstream.get(f"{fake.url}/cookie")
    await upstream.get(f"{fake.url}/json")

    assert list(upstream._client.cookies.jar) == []
    assert "cookie" not in fake.heads[1].lower()


async def test_a_call_without_a_free_connection_is_saturated(fake: FakeUpstream) -> None:
    """A waiting call fails after its timeout. A further call fails at once if too many calls are already waiting."""
    limits = Limits(timeout_seconds=0.2, connections=1, waiting=1)
    async with Upstream(limits) as upstream, upstream._slot(deadline=0):
        calls = [asyncio.create_task(upstream.get(f"{fake.url}/json")) for _ in range(2)]
        first_error, second_error = await asyncio.gather(*calls, return_exceptions=True)

    assert isinstance(first_error, UpstreamSaturated)
    assert str(first_error) == "All connections to the upstream are busy."
    assert isinstance(second_error, UpstreamSaturated)
    assert str(second_error) == "All connections to the upstream are busy, and too many calls wait for one."
    assert fake.paths == []


async def test_retry_after_grows_with_the_number_of_rejected_calls(fake: FakeUpstream) -> None:
    """`Retry-After` starts again at the timeout when the next overload begins."""
    async with Upstream(Limits(timeout_seconds=60, connections=2, waiting=0)) as upstream:

        async def retry_after(count: int) -> list[str]:
            """Return the `Retry-After` of each of `count` rejected calls."""
            calls = (upstream.get(f"{fake.url}/json") for _ in range(count))
            errors = await asyncio.gather(*calls, return_exceptions=True)
            return [error.headers["Retry-After"] for error in errors if isinstance(error, UpstreamSaturated)]

        async with upstream._slot(deadline=0), upstream._slot(deadline=0):
            first_overload = await retry_after(4)
            upstream._rejecting_since -= 61  # as if that overload had begun longer ago than the timeout
            second_overload = await retry_after(2)

    # One timeout, and with two connections, half of a timeout more for each call that was rejected before.
    assert first_overload == ["60", "90", "120", "150"]
    assert second_overload == ["60", "90"]


async def test_failed_and_canceled_calls_leave_no_task(fake: FakeUpstream) -> None:
    def client_tasks() -> set[str]:
        """Return the tasks of this event loop, except those of the fake upstream and the test itself."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        return {str(task.get_coro()) for task in tasks if "FakeUpstream" not in str(task.get_coro())}

    async with Upstream(Limits(timeout_seconds=0.3)) as upstream:
        tasks_before = client_tasks()
        for path in ("/hang", "/drip", "/big", "/cut", "/reset", "/garbage", "/nothing", "/gzip"):
            with pytest.raises((UpstreamFailed, UpstreamTimeout)):
                await upstream.get(fake.url + path)
        call = asyncio.create_task(upstream.get(f"{fake.url}/hang"))
        await until(lambda: fake.paths.count("/hang") == 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError, match="the result is no longer needed"):  # CANCELED in transport.py
            await call

        assert client_tasks() == tasks_before


async def test_failures_release_their_connection_and_slot(fake: FakeUpstream) -> None:
    """Otherwise the last call would find no free connection."""
    async with Upstream(Limits(timeout_seconds=0.3, connections=1)) as upstream:
        for path in ("/hang", "/drip", "/big", "/cut", "/garbage", "/gzip"):
            with pytest.raises((UpstreamFailed, UpstreamTimeout)):
                await upstream.get(fake.url + path)
        response = await upstream.get(f"{fake.url}/json")

    assert response.status == 200


async def test_connections_are_reused(fake: FakeUpstream, upstream: Upstream) -> None:
    """Ten calls in sequence use one connection."""
    for _ in range(10):
        await upstream.get(f"{fake.url}/json")

    assert fake.open_connections == 1
    assert len(fake.paths) == 10


async def test_the_hook_receives_each_request_and_its_hints(fake: FakeUpstream) -> None:
    """Tracing uses this hook to name the span."""
    peer_services: list[str] = []

    async def hook(request: object) -> None:
        peer_services.append(request.extensions["peer_service"])  # type: ignore[attr-defined]  # duck-typed as in tracing.py

    async with Upstream(Limits(), on_request=hook) as upstream:
        await upstream.get(f"{fake.url}/json", peer_service="billing")

    assert peer_services == ["billing"]
