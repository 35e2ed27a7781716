"""The search language: which traces does a person mean?

    service:web status:error -@http.status_code:404 @duration:>100ms "GET /api"

Terms are combined with spaces; `-` before a term means not. A trace is found when one of its spans fulfils every
plain term and none of its spans fulfils a term with `-`. A mistake is a `QueryError`, whose text is for a person.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import translate

from hello_service.localview.spans import Span, Trace
from hello_service.localview.store import trace_key
from hello_service.localview.units import MICROSECOND, MILLISECOND, MINUTE, SECOND

Test = Callable[[Span], bool]

FIELDS: dict[str, Callable[[Span], str | None]] = {
    "service": lambda span: span.service,
    "resource_name": lambda span: span.resource,
    "operation_name": lambda span: span.name,
    "env": lambda span: span.meta.get("env"),
    "version": lambda span: span.meta.get("version"),
}
KNOWN = ("service", "resource_name", "operation_name", "status", "env", "version", "trace_id")
UNITS = {
    "ns": 1,
    "us": MICROSECOND,
    "µs": MICROSECOND,
    "μs": MICROSECOND,
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "min": MINUTE,
}
TERM = re.compile(r'(-)?(?:(@?[A-Za-z_][\w.\-]*):)?("[^"]*"|\[[^]]*]|[^\s"]\S*)?\s*')
COMPARISON = re.compile(r"(>=|<=|>|<)(.*)")
RANGE = re.compile(r"\[\s*(\S+)\s+TO\s+(\S+)\s*]")
DURATION = re.compile(r"(\d+(?:\.\d+)?)([a-zµμ]+)")


class QueryError(ValueError):
    """What is wrong with a search, in one sentence for a person."""


@dataclass(frozen=True)
class Query:
    """A search that was understood."""

    wanted: tuple[Test, ...]
    unwanted: tuple[Test, ...]

    def matches(self, trace: Trace) -> bool:
        """Whether `trace` is what was searched for."""
        found = not self.wanted or any(all(test(span) for test in self.wanted) for span in trace.spans)
        return found and not any(test(span) for test in self.unwanted for span in trace.spans)


def parse(text: str) -> Query:
    """Return the search that `text` says; nothing finds everything.

    Raises:
        QueryError: for what it can't mean.
    """
    wanted: list[Test] = []
    unwanted: list[Test] = []
    text, at = text.strip(), 0
    while at < len(text):
        found = TERM.match(text, at)
        assert found is not None  # noqa: S101 - every part of it is optional
        minus, key, value = found.groups()
        if not value:
            raise QueryError(_without_value(text[found.end() :], key))
        if value != "AND" or key:
            (unwanted if minus else wanted).append(_test(key, value))
        at = found.end()
    return Query(tuple(wanted), tuple(unwanted))


def _without_value(rest: str, key: str | None) -> str:
    if rest.startswith('"') and '"' not in rest[1:]:
        return 'A quotation mark is open: a phrase stands between two of them, like "GET /api".'
    if key:
        return f"{key}: has no value. {key}:* finds whatever has one."
    return "A - stands alone: it belongs before the term that is not wanted, like -status:error."


def _test(key: str | None, value: str) -> Test:
    if key is None:
        return _free_text(value)
    if value.startswith("("):
        raise QueryError(
            f"{key}:{value} can't be read: alternatives and brackets are not known here. * stands for anything."
        )
    if key.startswith("@"):
        return _duration(value) if key == "@duration" else _tag(key[1:], value)
    if key == "status":
        if value not in {"ok", "error"}:
            raise QueryError(f"status is ok or error, not {value}. The HTTP status is @http.status_code:{value}.")
        return lambda span: span.error == (value == "error")
    if key == "trace_id":
        wanted = trace_key(value.strip('"'))
        if wanted is None:
            raise QueryError("A trace id is 32 hexadecimal characters, or a decimal number.")
        return lambda span: span.trace_id == wanted
    if key not in FIELDS:
        raise QueryError(
            f"There is no term {key}. Known are {', '.join(KNOWN)}; a tag has an @ before it: @{key}:{value}. "
            f'Text with a colon stands in quotation marks: "{key}:{value}".'
        )
    of, pattern = FIELDS[key], _pattern(value)
    return lambda span: _fits(pattern, of(span))


def _free_text(value: str) -> Test:
    if value == "OR" or value.startswith("("):
        raise QueryError(
            f"{value} can't be read: alternatives and brackets are not known here. Terms are combined with spaces."
        )
    words = value.strip('"').lower()
    number = trace_key(words)

    def found(span: Span) -> bool:
        if number is not None and number in {span.trace_id, span.span_id}:
            return True
        texts = (span.resource, span.service, span.name, *span.meta.values())
        return any(words in text.lower() for text in texts)

    return found


def _duration(value: str) -> Test:
    holds = _numeric(value, _nanoseconds)
    if holds is None:
        wanted = _nanoseconds(value)
        return lambda span: span.duration == wanted
    return lambda span: holds(span.duration)


def _nanoseconds(text: str) -> float:
    found = DURATION.fullmatch(text)
    if found is None or found[2] not in UNITS:
        raise QueryError(
            f"@duration is a number with its unit, like @duration:>100ms, not {text or 'nothing'}. Units: ns, us, ms, s, m."
        )
    return float(found[1]) * UNITS[found[2]]


def _tag(name: str, value: str) -> Test:
    def number(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise QueryError(f"@{name} can be compared with a number only, not with {text or 'nothing'}.") from None

    def tag(span: Span) -> str | None:
        return span.meta[name] if name in span.meta else _plain(span.metrics.get(name))

    holds = _numeric(value, number)
    if holds is None:
        pattern = _pattern(value)
        return lambda span: _fits(pattern, tag(span))

    def compares(span: Span) -> bool:
        try:
            return holds(float(tag(span) or "none"))
        except ValueError:
            return False

    return compares


def _numeric(value: str, number: Callable[[str], float]) -> Callable[[float], bool] | None:
    """Return the test that `>5`, `<=5` or `[1 TO 5]` is, None when `value` is none of them."""
    if value.startswith("["):
        found = RANGE.fullmatch(value)
        if found is None:
            raise QueryError(f"{value} is no range: one is written [400 TO 499].")
        least, most = number(found[1]), number(found[2])
        return lambda given: least <= given <= most
    found = COMPARISON.fullmatch(value)
    if found is None:
        return None
    limit = number(found[2])
    return {
        ">": lambda given: given > limit,
        ">=": lambda given: given >= limit,
        "<": lambda given: given < limit,
        "<=": lambda given: given <= limit,
    }[found[1]]


def _pattern(value: str) -> re.Pattern[str]:
    """Return what a value has to be, upper and lower case alike; `*` stands for anything, but not between quotes."""
    if value.startswith('"'):
        return re.compile(re.escape(value.strip('"')), re.IGNORECASE)
    return re.compile(translate(value.replace("[", "[[]").replace("?", "[?]")), re.IGNORECASE)


def _fits(pattern: re.Pattern[str], text: str | None) -> bool:
    return text is not None and pattern.fullmatch(text) is not None


def _plain(number: float | None) -> str | None:
    return None if number is None else f"{number:.15g}"
