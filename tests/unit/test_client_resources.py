"""Tests of the resource names of outbound calls: readable, and limited in number for any paths and methods."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from ddtrace.trace import Span, tracer
from finished_spans import finished_spans
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hello_service.observability import tracing


@pytest.fixture(autouse=True)
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Span]]:
    """Yield the list of finished spans of a traced process that has made no call yet."""
    monkeypatch.setattr(tracing, "active", lambda: True)
    monkeypatch.setattr(tracing, "_words", {})
    with finished_spans() as spans:
        yield spans


async def resource_of_call(path: str, method: str = "GET", **extensions: Any) -> str:
    """Name the span of a call to `path` as in a real call, and return its resource."""
    with tracer.trace("http.request") as span:
        span.set_tag("component", "httpx")
        await tracing.name_client_span(httpx.Request(method, f"http://peer{path}", extensions=extensions))
        return span.resource


@pytest.mark.parametrize(
    ("path", "readable_path"),
    [
        ("/", "/"),
        ("", "/"),
        ("/api/hello", "/api/hello"),
        ("/v1/users/42/orders", "/v1/users/?/orders"),
        ("/v2/sign-in/", "/v2/sign-in/"),
        ("/user_profiles?name=ada", "/user_profiles"),
        ("/users/Ada", "/users/?"),
        ("/users/Ada%20Lovelace/orders", "/users/?/orders"),
        ("/users/ada%2Flovelace", "/users/?"),
        ("/users/ada@example.com", "/users/?"),
        ("/users/ada.lovelace", "/users/?"),
        ("/users/ada+lovelace", "/users/?"),
        ("/users/ada,grace", "/users/?"),
        ("/users/öre", "/users/?"),
        ("/users/~ada", "/users/?"),
        ("/hosts/db.internal/ping", "/hosts/?/ping"),
        ("/hosts/::ffff:a", "/hosts/?"),
        ("/tokens/abcdefghijklmnopqrstuvwxyzabcdef", "/tokens/?"),  # a word has at most 24 characters
        ("/tokens/eyJhbGciOiJub25lIn0.e30.", "/tokens/?"),
        ("/ids/deadbeef-cafe-babe-face-feedfacecafe", "/ids/?"),  # a word has at most four parts
        ("/ids/-", "/ids/?"),
        ("/v123", "/?"),  # a version has at most two digits
        ("/a//b", "/a/?/b"),
        ("/../../etc/passwd", "/etc/passwd"),  # httpx removes the dots
        ("/" + "/".join("abcdefghijklmnop"), "/a/b/c/d/e/f/g/h/?"),  # at most eight segments are readable
        ("/" + "a/" * 5000, "/a/a/a/a/a/a/a/a/?"),  # far more than eight segments
        ("/" + "a" * 50_000, "/?"),  # far more than 24 characters
    ],
)
async def test_a_path_without_a_hint_is_readable(path: str, readable_path: str) -> None:
    """Segments that look like words stay, and any other segment becomes `?`."""
    assert await resource_of_call(path) == f"GET peer{readable_path}"


async def test_a_route_hint_is_used_unchanged() -> None:
    """The hint is the extension `route` of the request."""
    assert await resource_of_call("/users/ada", route="/users/<name>") == "GET peer/users/<name>"


async def test_path_segments_that_look_like_words_are_limited_in_number(spans: list[Span]) -> None:
    """After too many different words in the same place of a path, new ones become `?`. Earlier ones stay readable."""
    await resource_of_call("/users/list")
    # 125 different names that look like words, many more than MAX_WORDS.
    user_names = [f"{first}{second}{third}" for first in "bdfgk" for second in "aeiou" for third in "lmnrs"]
    for user_name in user_names:
        await resource_of_call(f"/users/{user_name}/orders")

    # `list` is one of the words. The additional resource is that of /users/?/orders.
    assert len({span.resource for span in spans}) <= tracing.MAX_WORDS + 1
    assert await resource_of_call("/users/list") == "GET peer/users/list"
    assert await resource_of_call("/users/zoe/orders") == "GET peer/users/?/orders"
    assert await resource_of_call("/api/hello") == "GET peer/api/hello"


@pytest.mark.parametrize("component", ["httpx", "httpx2"])
async def test_a_call_of_httpx_or_httpx2_gets_its_resource(spans: list[Span], component: str) -> None:
    """httpx2 is a fork with the same interface, and ddtrace traces it as well."""
    with tracer.trace("http.request") as span:
        span.set_tag("component", component)
        await tracing.name_client_span(httpx.Request("GET", "http://peer/pots"))

    assert [span.resource for span in spans] == ["GET peer/pots"]


async def test_an_unknown_method_is_recorded_as_other(spans: list[Span]) -> None:
    """A proxy may pass on any method that its client sent. ddtrace sets `http.method` when the call is over."""
    with tracer.trace("http.request") as span:
        span.set_tag("component", "httpx")
        await tracing.name_client_span(httpx.Request("BREW", "http://peer/pots"))
        span.set_tag("http.method", "BREW")

    assert [(span.resource, span.get_tag("http.method")) for span in spans] == [("OTHER peer/pots", "OTHER")]


# Each example draws the characters of its path segments from one of these.
ALPHABETS = [
    string.ascii_lowercase,
    string.ascii_lowercase[:6] + "-",  # UUIDs without digits look like words
    string.ascii_letters + "_",
    string.ascii_letters + string.digits + "-._~@:%+",
    "a/",  # empty segments, and few different ones
]


# Each example adds 1,000 calls to the same process. Segments may be longer than a word (24 characters), and paths may
# have more than the 8 segments that stay readable.
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(),
    alphabet=st.sampled_from(ALPHABETS),
    max_length=st.integers(1, 30),
    depth=st.integers(1, 12),
)
async def test_random_ids_make_few_resources(
    spans: list[Span], seed: int, alphabet: str, max_length: int, depth: int
) -> None:
    generator = random.Random(seed)
    for _ in range(1000):
        lengths = [generator.randint(1, max_length) for _ in range(depth)]
        segments = ["".join(generator.choices(alphabet, k=length)) for length in lengths]
        await resource_of_call("/" + "/".join(segments))

    # A resource is a readable prefix, alone or followed by `?` segments.
    assert len({span.resource for span in spans}) <= 2 * tracing.MAX_PREFIXES


async def test_a_call_with_an_unusable_hint_keeps_its_default_resource() -> None:
    class Unusable:
        def __str__(self) -> str:
            raise ValueError("no text")

    assert await resource_of_call("/", route=Unusable()) == "http.request"
