"""Tests of the Host and Origin headers that a local server accepts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hello_service.localview.hosts import host_name, is_local, is_own_origin


@pytest.mark.parametrize(
    "header",
    [
        "127.0.0.1:8126",
        "localhost",
        "LOCALHOST:1",
        "localhost.:8126",
        "app.localhost:8126",
        "[::1]:8126",
        "[::1]",
        "192.168.1.5:8126",
        "datadog-agent:8126",
        "host.docker.internal:8126",
        "agent.example",  # the test allows this name
        "trace_agent:8126",
    ],
)
def test_local_names_and_addresses_are_accepted(header: str) -> None:
    name = host_name(header)

    assert name is not None
    assert is_local(name, {"agent.example"})


@pytest.mark.parametrize(
    "header",
    [
        "evil.example",
        "evil.example:8126",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evillocalhost.example",
        "a..b",
        ".",
        "",
        ":8126",
        "localhost:",
        "localhost:x",
        "localhost:8126:1",
        "[::1",
        "[evil.example]",
        "[]",
        "user@localhost",
        "localhost/evil",
        "ёж",  # not ASCII
        "-a",
    ],
)
def test_any_other_host_is_rejected(header: str) -> None:
    name = host_name(header)

    assert name is None or not is_local(name)


@given(st.text(max_size=30))
def test_no_header_raises_an_exception(header: str) -> None:
    name = host_name(header)

    if name is not None:
        assert isinstance(is_local(name), bool)
    assert isinstance(is_own_origin(header, "localhost:8126"), bool)


def test_only_the_origin_of_the_page_itself_is_accepted() -> None:
    assert is_own_origin("http://localhost:8126", "LOCALHOST:8126")
    assert not is_own_origin("http://evil.example", "localhost:8126")
    assert not is_own_origin("http://localhost:8081", "localhost:8126")
    assert not is_own_origin("null", "localhost:8126")
    assert not is_own_origin("http://[", "localhost:8126")
    assert not is_own_origin("", "")
