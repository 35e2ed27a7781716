"""What a search that found nothing may have meant: each suggestion is tried before it is made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import islice

from hello_service.localview import terms
from hello_service.localview.query import FIELD, Query, QueryError, parse
from hello_service.localview.spans import Trace

MOST = 3
LOWER_OPERATOR = re.compile(r"(?<=\s)(or|and|not)(?=\s)")


def alternatives(wanted: Query, traces: Sequence[Trace]) -> list[tuple[str, int]]:
    """Return up to `MOST` searches like `wanted` that find some of `traces`, each with how many."""
    return list(islice(_finding(wanted, traces), MOST))


def _finding(wanted: Query, traces: Sequence[Trace]) -> Iterator[tuple[str, int]]:
    for text in dict.fromkeys(_candidates(wanted, traces)):
        try:
            number = sum(map(parse(text).matches, traces))
        except QueryError:
            continue
        if number:
            yield text, number


def _candidates(wanted: Query, traces: Sequence[Trace]) -> Iterator[str]:
    upper = LOWER_OPERATOR.sub(lambda operator: operator[1].upper(), wanted.text)
    if upper != wanted.text:
        yield upper
    for place, piece in enumerate(wanted.pieces):
        for instead in _instead(piece, traces):
            yield " ".join([*wanted.pieces[:place], instead, *wanted.pieces[place + 1 :]])
    for place in range(len(wanted.pieces)) if len(wanted.pieces) > 1 else ():
        yield " ".join([*wanted.pieces[:place], *wanted.pieces[place + 1 :]])


def _instead(piece: str, traces: Sequence[Trace]) -> Iterator[str]:
    """Yield terms like `piece`: a close value, the value as a part, a close tag."""
    named = FIELD.match(piece)
    if named is None or piece[named.end() :].startswith(("(", "[", ">", "<")):
        return
    field, value = named[1], piece[named.end() :]
    plain = terms.unescaped(value[1:-1]) if value.startswith('"') else value
    if field.startswith("@"):
        names = sorted({name for trace in traces for span in trace.spans for name in (*span.meta, *span.metrics)})
        if field[1:] not in names:
            yield from (f"@{name}:{value}" for name in get_close_matches(field[1:], names, n=2))
            return
        values = {span.meta.get(field[1:], "") for trace in traces for span in trace.spans}
    elif field in terms.FIELDS:
        values = {terms.FIELDS[field](span) or "" for trace in traces for span in trace.spans}
    else:
        return
    yield from (terms.exact(field, each) for each in get_close_matches(plain, sorted(values - {""}), n=1))
    if "*" not in value and re.fullmatch(r"[^\s()\"]+", plain):
        yield f"{field}:*{plain}*"
