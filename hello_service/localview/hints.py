"""Suggests alternatives to a search that found nothing. Each suggestion finds at least one trace."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import islice

from hello_service.localview import terms
from hello_service.localview.query import FIELD, Query, QueryError, parse
from hello_service.localview.spans import Trace

MAX_SUGGESTIONS = 3
LOWERCASE_OPERATOR = re.compile(r"(?<=\s)(or|and|not)(?=\s)")


def alternatives(query: Query, traces: Sequence[Trace]) -> list[tuple[str, int]]:
    """Return up to `MAX_SUGGESTIONS` searches similar to `query`, each with the number of `traces` that it finds."""
    return list(islice(_successful_candidates(query, traces), MAX_SUGGESTIONS))


def _successful_candidates(query: Query, traces: Sequence[Trace]) -> Iterator[tuple[str, int]]:
    """Yield each candidate that finds traces, with their number."""
    for text in dict.fromkeys(_candidates(query, traces)):  # without duplicates
        try:
            candidate = parse(text)
        except QueryError:
            continue
        count = sum(candidate.matches(trace) for trace in traces)
        if count:
            yield text, count


def _candidates(query: Query, traces: Sequence[Trace]) -> Iterator[str]:
    """Yield `query` with its operators in capitals, then with one piece (a term or a group) replaced or left out."""
    with_capitals = LOWERCASE_OPERATOR.sub(lambda match: match[1].upper(), query.text)
    if with_capitals != query.text:
        yield with_capitals
    for index, piece in enumerate(query.pieces):
        for replacement in _replacements(piece, traces):
            yield " ".join([*query.pieces[:index], replacement, *query.pieces[index + 1 :]])
    if len(query.pieces) > 1:
        for index in range(len(query.pieces)):
            yield " ".join([*query.pieces[:index], *query.pieces[index + 1 :]])


def _replacements(piece: str, traces: Sequence[Trace]) -> Iterator[str]:
    """Yield terms similar to `piece`: with a similar tag, with a similar value, or with `*` around the value."""
    prefix = FIELD.match(piece)
    if prefix is None:
        return
    field, value = prefix[1], piece[prefix.end() :]
    if value.startswith(("(", "[", ">", "<")):  # a group, a range or a comparison
        return
    unquoted = terms.unescaped(value[1:-1]) if value.startswith('"') else value
    spans = [span for trace in traces for span in trace.spans]
    if field.startswith("@"):
        tag = field[1:]
        names = sorted({name for span in spans for name in (*span.meta, *span.metrics)})
        if tag not in names:
            yield from (f"@{name}:{value}" for name in get_close_matches(tag, names, n=2))
            return
        values = {span.meta.get(tag, "") for span in spans}
    elif field in terms.TEXT_FIELDS:
        values = {terms.TEXT_FIELDS[field](span) or "" for span in spans}
    else:
        return
    yield from (terms.exact(field, similar) for similar in get_close_matches(unquoted, sorted(values - {""}), n=1))
    if "*" not in value and re.fullmatch(r"[^\s()\"]+", unquoted):  # a value that is valid without quotation marks
        yield f"{field}:*{unquoted}*"
