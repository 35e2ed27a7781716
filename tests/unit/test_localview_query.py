"""Tests of the search language: what searches find, and how mistakes are reported and corrected."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tracing_data import span, trace

from hello_service.localview import hints, query, terms
from hello_service.localview.query import MAX_DEPTH, QueryError, parse

META = {"http.status_code": "500", "env": "dev", "http.url": "http://127.0.0.1:8080/api/relay?count=3"}
ROOT = span(trace=0xABCDEF, resource="GET /api/relay", duration_ms=120, meta=META)
CHILD = span(
    ROOT,
    service="greeter",
    resource="GET /api/hello/<name>",
    duration_ms=40,
    error=True,
    name="http.request",
    meta={"http.status_code": "404", "version": "1.2", "error.message": "Connection refused"},
    metrics={"retries": 3, "share": 0.5},
)
CALL = span(ROOT, name="work()", meta={"span.kind": "client", "peer.service": "postgres"})
TRACE = trace(ROOT, CHILD, CALL)


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
        "11259375",  # the trace id 0xABCDEF as a decimal number
        "00-00000000000000000000000000abcdef-0000000000000001-01",
        "trace_id:00000000000000000000000000abcdef",
        "-service:db",
        "service:web -@http.status_code:403",
        '-"not there"',
        "service:db OR service:greeter",
        "service:(db OR greeter)",
        "service:(web OR db) @http.status_code:500",
        "(service:db OR status:error) service:greeter",
        "NOT service:db",
        "--service:web",
        "-(service:db OR env:prod)",
        "service:(-db -mail)",
        "-(service:web status:error)",  # no span has both
        "status:ERROR",
        "status:*",
        "status:(ok OR error)",
        'status:"error"',
        "@duration:*",
        "@retries:(-5 OR [2 TO 4])",
        "@http.status_code:[500 TO *]",
        '@"http.status_code":404',
        "trace_id:*abcdef",
        "trace_id:0000*",
        "connection*refused",
        "http://127.0.0.1:8080/api/relay?count=3",
        "http://127.0.0.1:8080/api/relay#top",
        "http://other:1/x/trace/00000000000000000000000000abcdef?span=7",  # the address of the trace's page
        "127.0.0.1:8080/api",
        "work()",
        "traceresponse: 00-00000000000000000000000000abcdef-0000000000000001-01",
        "request_to:web",
        "request_to:post*",
        'call:"web -> postgres"',
        "call:*",
    ],
)
def test_a_search_matches_the_trace(text: str) -> None:
    """Most terms are the same as in Datadog."""
    assert parse(text).matches(TRACE)


@pytest.mark.parametrize(
    "text",
    [
        "service:we",
        "service:web status:error",  # no span has both
        "-status:error",
        "-service:greeter",
        "NOT (service:web OR service:db)",
        "service:(db OR mail)",
        "service:web (status:error OR version:1.2)",  # no span has both
        "trace_id:abc*",
        "request_to:mail",
        'call:"postgres -> web"',
        "http://127.0.0.1:9/api/relay",
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
def test_a_search_does_not_match_the_trace(text: str) -> None:
    """All terms must match the same span, and terms with - must match no span."""
    assert not parse(text).matches(TRACE)


@pytest.mark.parametrize(
    ("text", "message", "suggestions"),
    [
        (
            "foo:bar",
            'Unknown field "foo". For a span tag write @foo:bar; for plain text write "foo:bar".',
            ["@foo:bar", '"foo:bar"'],
        ),
        ("foo:", 'For a span tag write @foo:*; for plain text write "foo:".', ["@foo:*", '"foo:"']),
        ("foo:(a OR b)", "@foo:(a OR b)", ["@foo:(a OR b)", '"foo:(a OR b)"']),
        ("stauts:error", 'Unknown field "stauts"', ["status:error", "@stauts:error", '"stauts:error"']),
        ("stauts: error", 'Unknown field "stauts"', ["status:error", '"stauts: error"']),
        ("ValueError: no such thing", "Unknown field", ['"ValueError: no such thing"']),
        (
            'resource:"GET /api/hello"',
            'Unknown field "resource"',
            ['resource_name:"GET /api/hello"', '@resource:"GET /api/hello"', '"resource:\\"GET /api/hello\\""'],
        ),
        ("duration:>5ms", "Unknown field", ["@duration:>5ms", '"duration:>5ms"']),
        ("http.status_code:500", "@http.status_code:500", ["@http.status_code:500", '"http.status_code:500"']),
        ("status:", "status: needs a value, ok or error.", ["status:error", "status:ok"]),
        ("status:500", "write @http.status_code:500", ["@http.status_code:500"]),
        ("status:5xx", "write @http.status_code:5*", ["@http.status_code:5*"]),
        ("status:erorr", "status is ok or error, not erorr", ["status:error"]),
        ('status:""', "status is ok or error, not empty", ["status:error", "status:ok"]),
        ("@duration:>100", "@duration is a number with its unit", ["@duration:>100ms", "@duration:>100s"]),
        ("@duration:>", "@duration: needs a time, like @duration:>100ms", ["@duration:>100ms"]),
        ("@duration:> 100ms", "@duration: needs a time", ["@duration:>100ms"]),
        ("@duration:100xs", "Units: ns, us, ms, s, m", ["@duration:100ms", "@duration:100s"]),
        ('@duration:"100"', "Units: ns, us, ms, s, m", ["@duration:100ms", "@duration:100s"]),
        ("@duration:[100 TO 200]", "@duration is a number with its unit", ["@duration:[100ms TO 200ms]"]),
        ("@duration:[100ms,1s]", "Write it like @duration:[100ms TO 1s]", ["@duration:[100ms TO 1s]"]),
        ("@duration:abc", "not abc", []),
        ("@http.status_code:>abc", "only with a number, not with abc", ['@http.status_code:">abc"']),
        ("@http.status_code:>", "@http.status_code: needs a value", ["@http.status_code:*"]),
        ("@http.status_code:[400", "has no ] at its end", ["@http.status_code:[400 TO *]", '@http.status_code:"[400"']),
        ("@x:[400 TO 499 a", "has no ]", ["@x:[400 TO 499] a", '@x:"[400 TO 499" a']),
        ("@x:[400,499]", "is not a range", ["@x:[400 TO 499]", '@x:"[400,499]"']),
        ("@x:[]", "is not a range", ['@x:"[]"']),
        ("@x:[499 TO 400]", "is empty", ["@x:[400 TO 499]"]),
        ("version:>1.2", "version is text and can't be compared", ['version:">1.2"']),
        ("service:[a TO b]", "service is text and can't be compared", ['service:"[a TO b]"']),
        ('"open', "A quotation mark is not closed", ['"open"']),
        ('service:"open', "A quotation mark is not closed", ['service:"open"']),
        ("service:", "service: needs a value", ["service:*"]),
        ("service: web", "service: needs a value", ["service:web"]),
        ("trace_id:", "trace_id: needs a trace id", []),
        ("trace_id:xyz", '"xyz" is not a trace id', ['"xyz"']),
        ("web -", "This - has no term", ["web", 'web "-"']),
        ("- web", "This - has no term", ["-web", '"-" web']),
        ("-", "This - has no term", ['"-"']),
        ("a OR", "OR needs a term on each side", ["a", 'a "OR"']),
        ("OR a", "OR needs a term on each side", ["a", '"OR" a']),
        ("a OR OR b", "OR needs a term on each side", ["a  OR b", 'a "OR" OR b']),
        ("AND", "AND needs a term on each side", ['"AND"']),
        ("a AND", "AND needs a term on each side", ["a", 'a "AND"']),
        ("NOT", "NOT needs a term after it", ['"NOT"']),
        ("(a", "( is not closed", ["(a)", "a"]),
        ("service:(a OR b", "( is not closed", ["service:(a OR b)", "service:a OR b"]),
        ("(", "( is not closed", ['"("']),
        ("()", "() are empty", ["*"]),
        ("a)", ") has no matching (", ["a", 'a")"']),
        (")", ") has no matching (", ['")"']),
        ("service:(a OR env:b)", "env:b is not a value of service", ['service:(a OR "env:b")']),
        ("foo:bar status:", "Unknown field", ["@foo:bar status:error", '"foo:bar" status:error']),
        ("(" * (MAX_DEPTH + 1) + "a", f"more than {MAX_DEPTH} deep", []),
    ],
)
def test_a_mistake_is_reported_with_suggestions(text: str, message: str, suggestions: list[str]) -> None:
    """Each suggestion is a valid search."""
    with pytest.raises(QueryError) as error:
        parse(text)

    assert message in str(error.value)
    assert str(error.value).endswith((".", '"'))  # a sentence, or one that ends with a quoted search
    assert list(error.value.suggestions) == suggestions
    for suggestion in suggestions:
        parse(suggestion)


@pytest.mark.parametrize(
    "text",
    [
        "status:",
        "status:e",
        "@duration:>",
        "@duration:>10",
        "@duration:1.",
        '"op',
        "a OR",
        "(a",
        "(",
        "a -",
        "@x:[400",
        "@x:[400 TO",
        "foo:",
        "trace_id:6b0a",
        "NOT",
        "a AND ",
    ],
)
def test_a_search_that_more_characters_may_make_valid_is_unfinished(text: str) -> None:
    with pytest.raises(QueryError) as error:
        parse(text)

    assert error.value.unfinished


@pytest.mark.parametrize("text", ["foo:bar", "status:500", "status: a", "a)", "a OR OR b", "@x:[400,499]", "- a"])
def test_a_mistake_that_more_characters_cannot_correct_is_not_unfinished(text: str) -> None:
    with pytest.raises(QueryError) as error:
        parse(text)

    assert not error.value.unfinished


PIECES = st.sampled_from(
    [
        *'()- "[]>5*a,\\ß\u202e',  # each of these characters is a piece
        "service:",
        "@x:",
        "@duration:",
        "status:",
        "foo:",
        "trace_id:",
        "call:",
        '@"o:d":',
        "OR",
        "AND",
        "NOT",
        " TO ",
        "ms",
    ]
)
TEXTS = st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=30)


@given(TEXTS)
@example('NOT"a')
@example('NOT"web"')
@example('foo:"')
@example("@duration:>>")
@example("a:[b:[c:[")
def test_any_text_is_either_valid_or_a_query_error(text: str) -> None:
    """The suggestions of the error are valid, and valid searches can be evaluated."""
    try:
        search = parse(text)
    except QueryError as error:
        for suggestion in error.suggestions:
            parse(suggestion).matches(TRACE)
    else:
        search.matches(TRACE)
        parse(search.with_term("service:web"))
        if search.pieces:
            assert parse(" ".join(search.pieces)).matches(TRACE) == search.matches(TRACE)


@given(
    field=st.sampled_from(
        ["service", "resource_name", "operation_name", "@x", "@od d", '@q"', "@a:b", "@", "@ü.x-y/z"]
    ),
    value=st.text(max_size=20),
    other_value=st.text(max_size=20),
)
@example(field="@x", value="[1 TO 2]", other_value="1.5")
@example(field="service", value="*", other_value="a")
@example(field="@x", value="\\", other_value='"')
@example(field="service", value="7/x", other_value="a")
def test_an_exact_term_finds_only_its_value(field: str, value: str, other_value: str) -> None:
    """The value and the tag's name may contain any characters. Facets and links use exact terms."""
    attributes = {"service": "service", "resource_name": "resource", "operation_name": "name"}

    def matches_span_with(text: str) -> bool:
        if field in attributes:
            searched_span = span(**{attributes[field]: text})  # type: ignore[arg-type]  # attributes that are text
        else:
            searched_span = span(meta={field.removeprefix("@"): text})
        return parse(terms.exact(field, value)).matches(trace(searched_span))

    assert matches_span_with(value)
    # A search ignores case. In Unicode, these three conversions differ.
    if all(convert(other_value) != convert(value) for convert in (str.lower, str.casefold, str.upper)):
        assert not matches_span_with(other_value)


def test_a_term_is_added_to_a_search_and_removed_again() -> None:
    """An added term does not change the meaning of the others."""
    with_or, with_two_terms = parse("service:web OR service:db"), parse("service:web  -env:prod")

    assert with_or.with_term("status:error") == "(service:web OR service:db) status:error"
    assert parse("").with_term("status:error") == "status:error"
    assert with_two_terms.with_term("x") == "service:web  -env:prod x"
    assert with_two_terms.pieces == ("service:web", "-env:prod")
    assert with_two_terms.without_term("service:web") == "-env:prod"


@pytest.mark.parametrize(
    ("text", "suggestions"),
    [
        ("service:greter", ["service:greeter"]),
        ("service:greet", ["service:greeter", "service:*greet*"]),
        ('resource_name:"GET /api/rely"', ['resource_name:"GET /api/relay"']),
        ("@http.status_cod:500", ["@http.status_code:500"]),
        ("@version:9.2", ["@version:1.2"]),
        ("service:web or service:greeter", ["service:web OR service:greeter"]),
        ("status:error service:mail", ["status:error"]),
        ("@http.status_code:>9000", []),
        ("service:(x OR y)", []),
        ("call:nothing", []),
        ("nothing", []),
        ("zzz and and zzz", []),
    ],
)
def test_a_search_that_finds_nothing_gets_suggestions_that_find_traces(text: str, suggestions: list[str]) -> None:
    """The alternatives begin with `suggestions`. If `suggestions` is empty, there are no alternatives.

    Each alternative comes with the number of traces that it finds.
    """
    alternatives = hints.alternatives(parse(text), [TRACE])

    assert [search for search, _ in alternatives[: len(suggestions)]] == suggestions
    assert bool(alternatives) == bool(suggestions)
    for search, trace_count in alternatives:
        assert parse(search).matches(TRACE)
        assert trace_count == 1


def test_a_search_with_too_many_mistakes_is_not_corrected() -> None:
    mistakes = " ".join(f"unknown{number}:1" for number in range(query.MAX_REPAIRS + 1))

    assert query._repair(mistakes) == ""
