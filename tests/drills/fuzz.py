"""Drills with generated requests, from /openapi.json and from the grammars of trace headers."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from running import Agent, Span, eventually, service, trace_agent
from schemathesis.checks import CHECKS, load_all_checks

from drills.drill import Size, drill

CHECK_NAMES = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
SLOW_PATHS = re.compile(r"/api/hello/stream|/api/relay")  # a request takes up to two seconds
BATCH = 500  # the trace agent keeps all spans of a batch, and returns all of them each time it is polled
SEED = 7  # any number


def hypothesis_settings(examples: int) -> settings:
    """Return settings for `examples` cases. With `SEED`, each run has the same cases, and none is stored on disk.

    A failing case is reported as it is, without a search for a smaller one.
    """
    return settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@drill(
    "schemathesis over `/openapi.json`",
    "No response is a 5xx, and the status, media type, headers and body of each response match the schema",
)
def fuzzed_api(size: Size) -> str:
    """Each operation receives valid and invalid requests over a real socket."""
    load_all_checks()
    checks = CHECKS.get_by_names(list(CHECK_NAMES))
    statuses: Counter[int] = Counter()
    with service("http://127.0.0.1:1", {"DD_TRACE_ENABLED": "false"}) as running:
        schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
        operations: list[Any] = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]
        for operation in operations:
            # This is a maximum, because few operations have this many different cases.
            examples = size.of(3, 20) if SLOW_PATHS.match(operation.path) else size.of(60, 2500)
            for mode in schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE:
                # Invalid requests differ in their query or body, so the operation must have one of them.
                if mode is schemathesis.GenerationMode.NEGATIVE and not (operation.query or operation.body):
                    continue
                _fuzz(operation.as_strategy(generation_mode=mode), examples, checks, statuses)
        assert running.stop() == 0
    assert statuses.total() >= size.of(200, 10_000), f"too few requests to prove anything: {statuses}"
    counts = ", ".join(f"{count} of {status}" for status, count in sorted(statuses.items()))
    return f"{statuses.total()} requests to {len(operations)} operations, every response matches the schema: {counts}"


def _fuzz(cases: Any, examples: int, checks: Any, statuses: Counter[int]) -> None:
    """Send requests for up to `examples` generated cases, check each response, and count the statuses."""

    @seed(SEED)
    @hypothesis_settings(examples)
    @given(case=cases)
    def request(case: Any) -> None:
        response = case.call_and_validate(checks=checks)
        statuses[response.status_code] += 1

    request()


# With stats, ddtrace would not send a trace that the caller's sampling decision rejects.
SEND_ALL = {"DD_TRACE_STATS_COMPUTATION_ENABLED": "false"}
HEX = "0123456789abcdef"


def hexadecimal(length: int) -> st.SearchStrategy[str]:
    return st.text(HEX, min_size=length, max_size=length)


# Without ASCII control characters, which no header may contain, and without spaces, which are removed at both ends.
ANYTHING = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60)
# In this order: valid, any version, ids of a wrong length, a fifth field, a trace id or span id of zeros, and any text.
TRACE_PARENTS = st.one_of(
    st.builds("00-{}-{}-{}".format, hexadecimal(32), hexadecimal(16), hexadecimal(2)),
    st.builds("{}-{}-{}-{}".format, hexadecimal(2), hexadecimal(32), hexadecimal(16), hexadecimal(2)),
    st.builds("00-{}-{}-{}".format, hexadecimal(31), hexadecimal(17), hexadecimal(2)),
    st.builds("00-{}-{}-{}-{}".format, hexadecimal(32), hexadecimal(16), hexadecimal(2), ANYTHING),
    st.builds("00-{}-{}-01".format, st.just("0" * 32), hexadecimal(16)),
    st.builds("00-{}-{}-01".format, hexadecimal(32), st.just("0" * 16)),
    ANYTHING,
)
# Numbers below 0, above 64 bits and above 128 bits are included.
NUMBERS = st.one_of(st.integers(-(2**70), 2**130).map(str), st.just("0"), ANYTHING)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "traceparent": TRACE_PARENTS,
        "tracestate": st.one_of(st.builds("dd=s:{};t.dm:{},x={}".format, NUMBERS, ANYTHING, ANYTHING), ANYTHING),
        "x-datadog-trace-id": NUMBERS,
        "x-datadog-parent-id": NUMBERS,
        "x-datadog-sampling-priority": st.one_of(st.integers(-5, 5).map(str), ANYTHING),
        "x-datadog-origin": ANYTHING,
        "x-datadog-tags": st.one_of(st.builds("_dd.p.tid={},_dd.p.dm={}".format, hexadecimal(16), ANYTHING), ANYTHING),
        "baggage": st.one_of(st.builds("{}={}".format, ANYTHING, ANYTHING), ANYTHING),
    },
)
LOWER_64_BITS = 2**64 - 1
# W3C Trace Context, section 3.2: version 00 has four fields, a later version may have more, and version ff is invalid.
# Ids of zeros are also invalid, which this expression doesn't check.
VALID_TRACE_PARENT = re.compile(
    r"(?!ff)(?:00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}"
    r"|(?!00)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?)"
)
DECIMAL = re.compile(r"[0-9]{1,20}")  # 20 digits, as 64 bits need at most


def valid_contexts(headers: dict[str, str]) -> set[tuple[int, int]]:
    """Return the valid contexts in `headers`: the lower 64 bits of the trace id, and the span id.

    Datadog's ids may also be zero, negative or too large here. The service need not continue such a context.
    """
    contexts: set[tuple[int, int]] = set()
    if match := VALID_TRACE_PARENT.fullmatch(headers.get("traceparent", "")):
        # Two of the four groups match: those for version 00, or those for a later version.
        trace_id, span_id = (int(group, 16) for group in match.groups() if group)
        if trace_id and span_id:
            contexts.add((trace_id & LOWER_64_BITS, span_id))
    # Of Datadog's headers, only the trace id is required.
    datadog_trace_id = headers.get("x-datadog-trace-id", "")
    datadog_parent_id = headers.get("x-datadog-parent-id", "0")
    priority = headers.get("x-datadog-sampling-priority", "0")
    numbers = (datadog_trace_id, datadog_parent_id, priority)
    if all(DECIMAL.fullmatch(number.removeprefix("-")) for number in numbers):
        contexts.add((int(datadog_trace_id), int(datadog_parent_id)))
    return contexts


def leniently_read_trace_id(headers: dict[str, str]) -> int | None:
    """Return the trace id that ddtrace reads from Datadog's header: it skips bytes that aren't UTF-8, as in `4é2`."""
    decoded = headers.get("x-datadog-trace-id", "").encode("latin-1").decode(errors="ignore")
    try:
        return int(decoded)
    except ValueError:
        return None


@drill(
    "hypothesis over trace headers",
    "No response is a 5xx. A valid W3C or Datadog context is continued, whatever the other headers contain, an "
    "invalid one starts a new trace, and each request has its span",
)
def trace_headers(size: Size) -> str:
    """The spans that a real agent receives are compared with the headers."""
    cases: list[dict[str, str]] = []

    @seed(SEED)
    @hypothesis_settings(size.of(500, 20_000))
    @given(headers=HEADERS)
    def generate(headers: dict[str, str]) -> None:
        cases.append(headers)

    generate()
    continued_count = 0
    with trace_agent() as agent, service(agent.url, SEND_ALL) as running, httpx.Client() as client:
        for start in range(0, len(cases), BATCH):
            batch = cases[start : start + BATCH]
            agent.clear()
            for number, headers in enumerate(batch):
                raw = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
                status = client.get(f"{running.url}/api/hello?number={number}", headers=raw).status_code
                assert status == 200, (status, headers)
            spans = _spans_by_number(agent, len(batch))
            continued_count += sum(_continues(headers, spans[number]) for number, headers in enumerate(batch))
        assert running.stop() == 0
    assert 0 < continued_count < len(cases), continued_count
    new_count = len(cases) - continued_count
    return f"{len(cases)} sets of headers, all 200: {continued_count} contexts continued, {new_count} new traces"


def _spans_by_number(agent: Agent, count: int) -> dict[int, Span]:
    """Wait for `count` spans, and return them by the number in their query."""
    spans = eventually(agent.spans, lambda spans: len(spans) >= count)
    return {int(span["meta"]["http.url"].rpartition("=")[2]): span for span in spans}


def _continues(headers: dict[str, str], span: Span) -> bool:
    """Return whether `span` continues a context of the headers.

    Raises:
        AssertionError: the span has a parent that isn't in the headers, or it starts a new trace although it must
            continue one.
    """
    trace_id = span["trace_id"] & LOWER_64_BITS
    parent_id = span.get("parent_id") or 0
    contexts = valid_contexts(headers)
    if (trace_id, parent_id) in contexts or trace_id == leniently_read_trace_id(headers):
        return True
    assert not parent_id, f"{headers} led to trace {trace_id}, parent {parent_id}"
    # A context must be continued if its ids fit into 64 bits and aren't zero.
    assert not any(0 < trace < 2**64 and 0 < parent < 2**64 for trace, parent in contexts), (
        f"{headers} is not continued"
    )
    return False
