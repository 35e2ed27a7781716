"""The terms of the search language: fields, tags, durations and plain text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import translate
from urllib.parse import unquote

from hello_service.localview.calls import calls, requests
from hello_service.localview.spans import Span, Trace
from hello_service.localview.store import trace_key
from hello_service.localview.units import MICROSECOND, MILLISECOND, MINUTE, SECOND

# A function that receives a trace and some of its spans, and returns those spans that match.
Selector = Callable[[Trace, Sequence[Span]], Sequence[Span]]

TEXT_FIELDS: dict[str, Callable[[Span], str | None]] = {
    "service": lambda span: span.service,
    "resource_name": lambda span: span.resource,
    "operation_name": lambda span: span.name,
    "env": lambda span: span.meta.get("env"),
    "version": lambda span: span.meta.get("version"),
}
FIELDS = ("service", "resource_name", "operation_name", "status", "env", "version", "trace_id", "call", "request_to")
ALIASES = {  # names from Datadog and other tools, suggested as corrections
    "resource": "resource_name",
    "operation": "operation_name",
    "name": "operation_name",
    "span_name": "operation_name",
    "error": "status",
    "environment": "env",
    "trace": "trace_id",
    "traceid": "trace_id",
    "id": "trace_id",
    "duration": "@duration",
    "status_code": "@http.status_code",
    "http_status": "@http.status_code",
    "url": "@http.url",
    "route": "@http.route",
    "method": "@http.method",
}
UNITS = {
    "ns": 1,
    "us": MICROSECOND,
    "µs": MICROSECOND,  # U+00B5, the micro sign
    "μs": MICROSECOND,  # U+03BC, the Greek letter
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "min": MINUTE,
}
COMPARISON = re.compile(r"(>=|<=|>|<)(.*)", re.DOTALL)
RANGE = re.compile(r"\[\s*(\S+)\s+TO\s+(\S+)\s*\]")
# A malformed range that has two ends, with a comma, `to`, dots or the like between them.
TWO_ENDS = re.compile(r"\[\s*([^\s,;\]]+?)\s*(?:,|;|\s|\bto\b|\.\.+|\s-\s)+\s*([^\s,;\]]+?)\s*\]")
DURATION = re.compile(r"(\d+(?:\.\d+)?)([a-zµμ]+)")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
TRACE_ADDRESS = re.compile(r"/trace/([0-9a-f]{32})")


@dataclass(frozen=True)
class Value:
    """A value in a search. It is `literal` if it was quoted: then no character in it is special."""

    text: str
    literal: bool = False


@dataclass(frozen=True)
class Replacement:
    """A replacement for a term: another `value` of the same field, or a `whole` other term."""

    value: str = ""
    whole: str = ""


class TermError(ValueError):
    """The term is invalid. `str()` is the message to show.

    Attributes:
        replacements: valid terms that may have been meant.
        unfinished: whether the term may become valid when more characters are typed.
    """

    def __init__(self, message: str, *replacements: Replacement, unfinished: bool = False) -> None:
        super().__init__(message)
        self.replacements = replacements
        self.unfinished = unfinished


def quoted(text: str) -> str:
    """Return `text` in quotation marks, with backslashes and quotation marks escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def unescaped(text: str) -> str:
    """Return `text`, which was between quotation marks, without the backslashes that escape characters."""
    return re.sub(r'\\(["\\])', r"\1", text)


def exact(field: str, value: str) -> str:
    """Return the term for spans in which `field`, such as `service` or `@http.route`, is exactly `value`."""
    if field.startswith("@") and not re.fullmatch(r"@[A-Za-z_][\w.\-/]*", field):
        field = f"@{quoted(field[1:])}"
    plain = re.fullmatch(r"(?!\d+/)\w[\w./\-]*", value)  # not 7/x, because service:7/x looks like host, port and path
    return f"{field}:{value if plain else quoted(value)}"


def is_known(field: str) -> bool:
    """Return whether `field` is a tag or one of `FIELDS`."""
    return field.startswith("@") or field in FIELDS


def similar_fields(field: str) -> list[str]:
    """Return the existing fields that may have been meant by an unknown `field`."""
    if field.lower() in ALIASES:
        return [ALIASES[field.lower()]]
    return get_close_matches(field.lower(), FIELDS, n=1, cutoff=0.7)


def missing_value(field: str) -> TermError:
    """Return the error for a field without a value."""
    if field == "status":
        return TermError(
            "status: needs a value, ok or error.", Replacement(whole="status:error"), Replacement(whole="status:ok")
        )
    if field == "@duration":
        return TermError("@duration: needs a time, like @duration:>100ms.", Replacement(whole="@duration:>100ms"))
    if field == "trace_id":
        return TermError("trace_id: needs a trace id: 32 hexadecimal characters or a decimal number.")
    return TermError(
        f"{field}: needs a value. {field}:* finds every span that has one.", Replacement(whole=f"{field}:*")
    )


def selector(field: str | None, value: Value) -> Selector:
    """Return the function that selects the spans matching a term. Without a field, the term is plain text.

    Raises:
        TermError: the value is invalid for the field.
    """
    if field is None:
        return _plain_text_selector(value)
    if field.startswith("@"):
        return _select_by(_duration_test(value) if field == "@duration" else _tag_test(field, value))
    if field == "trace_id":
        return _trace_id_selector(value)
    _reject_comparison(field, value)
    pattern = _pattern(value)
    if field in {"call", "request_to"}:
        named_spans = _named_calls if field == "call" else requests

        def select_named(trace: Trace, spans: Sequence[Span]) -> Sequence[Span]:
            return _in_both(spans, [span for name, span in named_spans(trace) if pattern.fullmatch(name)])

        return select_named
    if field == "status":
        return _select_by(_status_test(value, pattern))
    text_of = TEXT_FIELDS[field]
    return _select_by(lambda span: _matches(pattern, text_of(span)))


def call_term(source: str, target: str) -> str:
    """Return the term that finds the calls from one service to another."""
    return exact("call", f"{source} -> {target}")


def _named_calls(trace: Trace) -> Iterator[tuple[str, Span]]:
    for source, target, span in calls(trace):
        yield f"{source} -> {target}", span


def _select_by(test: Callable[[Span], bool]) -> Selector:
    return lambda _, spans: [span for span in spans if test(span)]


def _in_both(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """Return the `spans` that are also in `others`."""
    ids = {id(span) for span in others}
    return [span for span in spans if id(span) in ids]


def _status_test(value: Value, pattern: re.Pattern[str]) -> Callable[[Span], bool]:
    accepted = [status for status in ("error", "ok") if pattern.fullmatch(status)]
    if not accepted:
        text = value.text.lower()
        if NUMBER.fullmatch(value.text.rstrip("*xX")):  # an HTTP status, such as 404, 5xx or 5*
            hint = f"@http.status_code:{re.sub('[*xX]+$', '*', value.text)}"
            message = f"status is ok or error, not {value.text}. To search for an HTTP status write {hint}."
            raise TermError(message, Replacement(whole=hint))
        close = get_close_matches(text, ("error", "ok"), n=1, cutoff=0.5)
        replacements = [Replacement(value=status) for status in close or ("error", "ok")]
        unfinished = not value.literal and any(status.startswith(text) for status in ("error", "ok"))
        raise TermError(f"status is ok or error, not {value.text or 'empty'}.", *replacements, unfinished=unfinished)
    return lambda span: ("error" if span.error else "ok") in accepted


def _trace_id_selector(value: Value) -> Selector:
    if "*" in value.text and not value.literal:
        pattern = _pattern(value)
        return lambda trace, spans: spans if pattern.fullmatch(trace.id) else []
    key = trace_key(value.text)
    if key is None:
        raise TermError(
            f"{quoted(value.text)} is not a trace id. A trace id is 32 hexadecimal characters or a decimal number.",
            Replacement(whole=quoted(value.text)),
            # The beginning of a trace id, or of the 55 characters of a `traceresponse` header.
            unfinished=re.fullmatch(r"[0-9a-f\-]{1,54}", value.text.lower()) is not None,
        )
    return lambda trace, spans: spans if trace.key == key else []


def _plain_text_selector(value: Value) -> Selector:
    text = value.text
    if not value.literal and "://" in text:
        text = text.partition("#")[0]  # a browser doesn't send the fragment of a URL
    searched_text = text.lower()
    trace_address = TRACE_ADDRESS.search(searched_text)  # a pasted address of a trace on this page
    pasted_id = trace_key(trace_address[1] if trace_address else searched_text)
    # A browser copies a URL percent-encoded, but a tag may contain it decoded.
    decoded_text = unquote(searched_text) if "://" in searched_text else searched_text
    pattern = _pattern(Value(f"*{text}*")) if "*" in searched_text and not value.literal else None

    def text_matches(span_text: str) -> bool:
        if pattern is not None:
            return pattern.fullmatch(span_text) is not None
        lowercase_text = span_text.lower()
        return searched_text in lowercase_text or (decoded_text != searched_text and decoded_text in lowercase_text)

    def span_matches(span: Span) -> bool:
        if pasted_id is not None and pasted_id in {span.trace_id, span.span_id}:
            return True
        return any(map(text_matches, (span.resource, span.service, span.name, *span.meta.values())))

    return _select_by(span_matches)


def _duration_test(value: Value) -> Callable[[Span], bool]:
    if value.text == "*":
        return lambda _: True
    passes = _number_test("@duration", value, _parse_nanoseconds)
    if passes is None:
        exact_duration = _parse_nanoseconds(value.text)
        return lambda span: span.duration == exact_duration
    return lambda span: passes(span.duration)


def _parse_nanoseconds(text: str) -> float:
    match = DURATION.fullmatch(text.lower())
    if match is None or match[2] not in UNITS:
        number = NUMBER.match(text.replace(",", "."))
        replacements = [number[0] + unit for unit in ("ms", "s")] if number else []
        raise _NumberError(
            f"@duration is a number with its unit, like @duration:>100ms, not {text or 'empty'}. "
            "Units: ns, us, ms, s, m.",
            replacements,
        )
    return float(match[1]) * UNITS[match[2]]


def _tag_test(field: str, value: Value) -> Callable[[Span], bool]:
    name = unescaped(field[2:-1]) if field.startswith('@"') else field[1:]

    def parse(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            message = f"{field} can be compared only with a number, not with {text or 'an empty value'}."
            raise _NumberError(message, []) from None

    def text_of(span: Span) -> str | None:
        return span.meta[name] if name in span.meta else _number_text(span.metrics.get(name))

    passes = _number_test(field, value, parse)
    if passes is None:
        pattern = _pattern(value)
        return lambda span: _matches(pattern, text_of(span))

    def tag_passes(span: Span) -> bool:
        try:
            return passes(float(text_of(span) or ""))
        except ValueError:  # the tag is missing or not a number
            return False

    return tag_passes


class _NumberError(ValueError):
    """A number in a term is invalid. `replacements` are valid numbers that may have been meant."""

    def __init__(self, message: str, replacements: Sequence[str]) -> None:
        super().__init__(message)
        self.replacements = replacements


def _number_test(field: str, value: Value, parse: Callable[[str], float]) -> Callable[[float], bool] | None:
    """Return the test for a comparison or a range, such as `>5`, `<=5` or `[1 TO 5]`; None if `value` is neither.

    `parse` returns the number in a text. Every value of `@duration` must be a number with a unit.
    """
    text = value.text
    try:
        if text.startswith("[") and not value.literal:
            return _range_test(field, text, parse)
        comparison = None if value.literal else COMPARISON.fullmatch(text)
        if comparison:
            return _comparison_test(comparison[1], parse(comparison[2]))
        if field == "@duration":
            parse(text)
    except _NumberError as error:
        if field != "@duration":
            raise TermError(str(error), Replacement(value=quoted(text))) from None
        if text.startswith("["):  # numbers without a unit may be milliseconds
            replacements = [re.sub(r"(\d)(?=[\s\]])", r"\1ms", text)]
        else:  # only the number is replaced, not the operator
            number = text.lstrip("<>=")
            replacements = [text.replace(number, replacement) for replacement in error.replacements]
        # A number whose unit is missing or may lack its second character.
        unfinished = re.fullmatch(r"[<>]?=?\d+(\.\d*)?[a-zµμ]?", text) is not None
        suggestions = [Replacement(value=replacement) for replacement in replacements]
        raise TermError(str(error), *suggestions, unfinished=unfinished) from None
    return None


def _comparison_test(operator: str, limit: float) -> Callable[[float], bool]:
    return {
        ">": lambda number: number > limit,
        ">=": lambda number: number >= limit,
        "<": lambda number: number < limit,
        "<=": lambda number: number <= limit,
    }[operator]


def _range_test(field: str, text: str, parse: Callable[[str], float]) -> Callable[[float], bool]:
    match = RANGE.fullmatch(text)
    if match is None:
        ends = TWO_ENDS.fullmatch(text)
        replacements = []
        if ends:
            replacements.append(Replacement(value=f"[{ends[1]} TO {ends[2]}]"))
        if field != "@duration":
            replacements.append(Replacement(value=quoted(text)))
        example = "[100ms TO 1s]" if field == "@duration" else "[400 TO 499]"
        raise TermError(f"{text} is not a range. Write it like {field}:{example}.", *replacements)
    least = float("-inf") if match[1] == "*" else parse(match[1])
    most = float("inf") if match[2] == "*" else parse(match[2])
    if least > most:
        swapped = Replacement(value=f"[{match[2]} TO {match[1]}]")
        raise TermError(f"The range {text} is empty. Write the smaller number first.", swapped)
    return lambda number: least <= number <= most


def _reject_comparison(field: str, value: Value) -> None:
    if value.literal:
        return
    comparison = COMPARISON.fullmatch(value.text)
    if (comparison and NUMBER.match(comparison[2])) or RANGE.fullmatch(value.text):
        raise TermError(
            f"{field} is text and can't be compared. "
            f"To search for exactly this text write {field}:{quoted(value.text)}.",
            Replacement(value=quoted(value.text)),
        )


def _pattern(value: Value) -> re.Pattern[str]:
    """Return the case-insensitive pattern of a value. `*` matches any text, unless the value is literal."""
    if value.literal:
        return re.compile(re.escape(value.text), re.IGNORECASE)
    glob = value.text.replace("[", "[[]").replace("?", "[?]")  # in a search, only the * is special
    return re.compile(translate(glob), re.IGNORECASE)


def _matches(pattern: re.Pattern[str], text: str | None) -> bool:
    return text is not None and pattern.fullmatch(text) is not None


def _number_text(number: float | None) -> str | None:
    """Return a metric as the page shows it: 3.0 as `3`, and 0.1 + 0.2 as `0.3`."""
    return None if number is None else f"{number:.15g}"
