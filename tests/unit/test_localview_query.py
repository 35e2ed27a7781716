"""The search language finds what it says, and says what is wrong with a search."""

from __future__ import annotations

import pytest
from tracing_data import span, trace

from hello_service.localview.query import QueryError, parse

ROOT = span(trace=0xABCDEF, resource="GET /api/relay", ms=120, meta={"http.status_code": "500", "env": "dev"})
CHILD = span(
    ROOT,
    service="greeter",
    resource="GET /api/hello/<name>",
    ms=40,
    error=True,
    name="http.request",
    meta={"http.status_code": "404", "version": "1.2", "error.message": "Connection refused"},
    metrics={"retries": 3, "share": 0.5},
)
TRACE = trace(ROOT, CHILD)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "service:web",
        "service:WEB",
        "service:gre*",
        'resource_name:"GET /api/relay"',
        "resource_name:*relay",
        "resource_name:*hello/<name>",
        "operation_name:http.request",
        "env:dev",
        "version:1.2",
        "version:*",
        "status:error",
        "status:ok",
        "service:greeter status:error",
        "service:greeter AND status:error",
        "@http.status_code:500",
        "@http.status_code:5*",
        "@http.status_code:>=500",
        "@http.status_code:[400 TO 499]",
        "@http.status_code:<500",
        "@retries:3",
        "@retries:>2",
        "@share:<=0.5",
        "@duration:>100ms",
        "@duration:>=120ms",
        "@duration:<0.05s",
        "@duration:40ms",
        "@duration:[39ms TO 41ms]",
        "@duration:>100000us",
        "@duration:<1m",
        "relay",
        "connection REFUSED",
        '"Connection refused"',
        "/api/hello/<name>",
        "0000000000abcdef",
        "11259375",
        "00-00000000000000000000000000abcdef-0000000000000001-01",
        "trace_id:00000000000000000000000000abcdef",
        "-service:db",
        "service:web -@http.status_code:403",
        '-"not there"',
    ],
)
def test_a_search_finds_the_trace(text: str) -> None:
    """Terms that people know from Datadog."""
    assert parse(text).matches(TRACE)


@pytest.mark.parametrize(
    "text",
    [
        "service:we",
        "service:web status:error",  # not on one and the same span
        "-status:error",
        "-service:greeter",
        "version:2",
        "@http.status_code:>500",
        "@missing:1",
        "@missing:>1",
        "@error.message:>1",
        "@duration:>1s",
        "@duration:[1s TO 2s]",
        "resource_name:GET",
        'service:"w*"',
        "nothing",
        "relay -hello",
        "trace_id:1",
    ],
)
def test_a_search_leaves_the_trace_out(text: str) -> None:
    """Plain terms hold on one and the same span, terms with - on none."""
    assert not parse(text).matches(TRACE)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("foo:bar", "There is no term foo"),
        ("http://x", 'Text with a colon stands in quotation marks: "http://x"'),
        ("status:500", "The HTTP status is @http.status_code:500"),
        ("@duration:>100", "@duration is a number with its unit"),
        ("@duration:>", "not nothing"),
        ("@duration:100xs", "Units: ns, us, ms, s, m"),
        ("@http.status_code:>abc", "can be compared with a number only, not with abc"),
        ("@http.status_code:>", "not with nothing"),
        ("@http.status_code:[400", "is no range"),
        ("@http.status_code:[400,499]", "is no range"),
        ('"open', "A quotation mark is open"),
        ('service:"open', "A quotation mark is open"),
        ("service:", "service: has no value"),
        ("service: web", "service: has no value"),
        ("web -", "A - stands alone"),
        ("a OR b", "OR can't be read"),
        ("(a", "can't be read"),
        ("service:(a OR b)", "alternatives and brackets are not known"),
        ("trace_id:xyz", "A trace id is 32 hexadecimal characters"),
    ],
)
def test_a_mistake_gets_a_sentence(text: str, says: str) -> None:
    """Never an empty list."""
    with pytest.raises(QueryError) as raised:
        parse(text)

    assert says in str(raised.value)
    assert str(raised.value).endswith((".", '"'))
