"""The grammar of the search language: which traces does a person mean?

    service:web (status:error OR @duration:>100ms) -@http.status_code:404 "GET /api"

A space or `AND` combines terms, `OR` separates alternatives, `-` or `NOT` negates, parentheses group, also the values of
one field. A trace is found when one of its spans fulfils the search; a negated part must hold for no span of the trace.
`terms` knows the single terms. A mistake is a `QueryError`: a sentence for a person, and searches that would be understood.

    any    = all { "OR" all }
    all    = single { [ "AND" ] single }
    single = { "-" | "NOT" } ( "(" any ")" | field ":" ( "(" any ")" | value ) | value )
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hello_service.localview import terms
from hello_service.localview.spans import Span, Trace
from hello_service.localview.terms import Select, TermError, Value, quoted

DEEPEST = 50  # parentheses within each other
REPAIRS = 20  # mistakes of one search that a suggestion corrects
OPERATOR = re.compile(r'(AND|OR|NOT)(?=[\s()"]|$)')
FIELD = re.compile(r'([A-Za-z_][\w.\-]*|@[A-Za-z_][\w.\-/]*|@"(?:[^"\\]|\\.)*"):')
PHRASE = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
RANGE = re.compile(r"\[[^\[\]]*\]")
ADDRESS = re.compile(r"[A-Za-z][\w+.\-]*://|localhost:\d|[A-Za-z][\w.\-]*:\d{1,5}/")
OPEN_RANGE = re.compile(r"\[[^\s()]*(?:\s+TO(?:\s+[^\s()]+)?)?")
HEADER = re.compile(r"\s*trace(?:response|parent):\s*(\S+)\s*")  # a line that was copied from a response
NEXT_WORD = re.compile(r'\s+([^\s()"]+)')


class QueryError(ValueError):
    """What is wrong with a search, in a sentence for a person.

    Attributes:
        suggestions: whole searches that are understood, each of which may be what was meant.
        unfinished: whether more of the text may repair it, as while it is typed.
    """

    def __init__(self, message: str, suggestions: Sequence[str], *, unfinished: bool) -> None:
        super().__init__(message)
        self.suggestions = tuple(suggestions)
        self.unfinished = unfinished


@dataclass(frozen=True)
class Query:
    """A search that was understood.

    Attributes:
        pieces: the parts of `text` that a trace has to fulfil all together; empty where the outermost operator is OR.
    """

    text: str
    select: Select
    pieces: tuple[str, ...] = ()

    def spans(self, trace: Trace) -> Sequence[Span]:
        """Return the spans of `trace` that fulfil the search."""
        return self.select(trace, trace.spans)

    def matches(self, trace: Trace) -> bool:
        """Whether `trace` is what was searched for."""
        return bool(self.spans(trace))

    def with_term(self, term: str) -> str:
        """Return the search for the spans of this one that `term` finds, too."""
        text = f"({self.text})" if self.text and not self.pieces else self.text
        return f"{text} {term}".strip()

    def without_term(self, term: str) -> str:
        """Return this search without `term`, which is one of its pieces."""
        return " ".join(piece for piece in self.pieces if piece != term)


def parse(text: str) -> Query:
    """Return the search that `text` means; an empty text finds every trace.

    Raises:
        QueryError: for a text that can't mean anything.
    """
    if header := HEADER.fullmatch(text):
        text = header[1]
    try:
        return _Parser(text).query()
    except _Mistake as mistake:
        wholes = [_repaired(whole) for whole in mistake.corrected(text)]
        suggestions = [whole for whole in dict.fromkeys(wholes) if whole]
        raise QueryError(str(mistake), suggestions, unfinished=mistake.unfinished) from None


def _repaired(text: str) -> str:
    """Return `text` with what else is wrong in it corrected, or nothing where that is not known."""
    for _ in range(REPAIRS):
        try:
            return _Parser(text).query().text
        except _Mistake as mistake:
            text = next(iter(mistake.corrected(text)), "")
    return ""


class _Mistake(Exception):  # noqa: N818 - `QueryError` is what callers see
    """What is wrong with the text from `begin` to `end`, and what may stand there instead."""

    def __init__(self, message: str, begin: int, end: int, instead: Sequence[str], *, unfinished: bool = False) -> None:
        super().__init__(message)
        self.begin, self.end, self.instead = begin, end, instead
        self.unfinished = unfinished

    def corrected(self, text: str) -> list[str]:
        return [f"{text[: self.begin]}{instead}{text[self.end :]}".strip() for instead in self.instead]


class _Parser:
    """Reads a search from left to right; `at` is how far it has come."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0

    def query(self) -> Query:
        """Return the whole search."""
        if not self.text.strip():
            return Query("", lambda _, spans: spans)
        pieces: list[str] = []
        select = self.any(None, pieces)
        if self.at < len(self.text):
            raise self.stray()
        return Query(self.text.strip(), select, tuple(pieces))

    def any(self, field: str | None, pieces: list[str] | None = None) -> Select:
        """Read alternatives; what stands alone is added to `pieces`."""
        own: list[str] = []
        found = [self.all(field, own)]
        while self.operator() == "OR":
            begin, self.at = self.at, self.at + 2
            if not self.starts_term():
                raise self.dangling("OR", begin)
            found.append(self.all(field, own))
        if len(found) == 1 and pieces is not None:
            pieces += own
        return found[0] if len(found) == 1 else _either(found)

    def all(self, field: str | None, pieces: list[str]) -> Select:
        """Read terms that hold together."""
        if (operator := self.operator()) in {"AND", "OR"}:
            raise self.dangling(operator, self.at)
        found: list[Select] = []
        while self.starts_term():
            begin = self.at
            found.append(self.single(field))
            pieces.append(self.text[begin : self.at])
            if self.operator() == "AND":
                begin, self.at = self.at, self.at + 3
                if not self.starts_term():
                    raise self.dangling("AND", begin)
        if not found:  # only a ) can stand here
            raise self.stray()
        return found[0] if len(found) == 1 else _every(found)

    def single(self, field: str | None) -> Select:
        """Read one term, or a group, or the negation of one."""
        negated = False
        while True:
            self.skip()
            if self.operator() == "NOT":
                begin, self.at = self.at, self.at + 3
                if not self.starts_term():
                    raise self.dangling("NOT", begin)
            elif self.text.startswith("-", self.at) and not (field and re.match(r"-\.?\d", self.text[self.at :])):
                self.minus()
            else:
                break
            negated = not negated
        select = self.group(field) if self.text[self.at] == "(" else self.term(field)
        return _none(select) if negated else select

    def minus(self) -> None:
        """Read a `-`."""
        begin, self.at = self.at, self.at + 1
        if self.at == len(self.text) or self.text[self.at] in ") \t\r\n":
            message = "This - stands alone. It belongs directly before the term to exclude, like -status:error."
            self.skip()
            instead = ["-"] if self.starts_term() else [""] if self.text[:begin].strip() else []
            raise _Mistake(message, begin, self.at, [*instead, f"{quoted('-')} "], unfinished=self.at == len(self.text))

    def group(self, field: str | None) -> Select:
        """Read what stands in parentheses."""
        begin, self.at = self.at, self.at + 1
        self.depth += 1
        if self.depth > DEEPEST:
            raise _Mistake(f"More than {DEEPEST} parentheses stand within each other.", begin, begin + 1, [])
        if self.end():
            message = "This ( has no ) after it."
            raise _Mistake(message, begin, self.at, [quoted("(")], unfinished=True)
        if self.text[self.at] == ")":
            raise _Mistake("Nothing stands between ( and ).", begin, self.at + 1, ["*"])
        select = self.any(field)
        if self.at == len(self.text):
            instead = [self.text[begin:] + ")", self.text[begin + 1 :]]
            raise _Mistake("This ( has no ) after it.", begin, self.at, instead, unfinished=True)
        self.at += 1
        self.depth -= 1
        return select

    def term(self, field: str | None) -> Select:
        """Read `field:value`, `field:(values)` or a value alone."""
        begin = self.at
        named = None if ADDRESS.match(self.text, self.at) else FIELD.match(self.text, self.at)
        if named is None:
            value = self.value(ranges=field is not None)
            return self.checked(lambda: terms.term(field, value), field or "", begin)
        self.at = named.end()
        name = named[1]
        if field is not None:
            self.value(ranges=False, empty=True)
            whole = self.text[begin : self.at]
            message = f"{whole} can't stand in the parentheses of {field}: they hold values of {field} only."
            raise _Mistake(message, begin, self.at, [quoted(whole)])
        following = self.text[self.at : self.at + 1]
        if not terms.known(name):
            raise self.unknown(name, begin)
        if not following or following.isspace() or following == ")":
            raise self.without_value(terms.missing(name), begin)
        if following == "(":
            return self.group(name)
        value = self.value(ranges=True)
        if value.text in {">", ">=", "<", "<="} and not value.literal:
            raise self.without_value(terms.missing(name), begin)
        return self.checked(lambda: terms.term(name, value), name, begin)

    def checked(self, make: Callable[[], Select], field: str, begin: int) -> Select:
        """Return what `make` makes of the term that began at `begin`."""
        try:
            return make()
        except TermError as error:
            whole = self.text[begin : self.at]
            prefix = f"{field}:" if field and whole.startswith(f"{field}:") else ""
            instead = [each.whole or f"{prefix}{each.value}" for each in error.instead]
            unfinished = error.unfinished and self.at == len(self.text)
            raise _Mistake(str(error), begin, self.at, instead, unfinished=unfinished) from None

    def without_value(self, error: TermError, begin: int) -> _Mistake:
        """Return the mistake of a field whose value is missing, or stands behind a space."""
        ends = self.at == len(self.text)
        head, own_end = self.text[begin : self.at], self.at
        instead = [each.whole or "" for each in error.instead]
        if joined := NEXT_WORD.match(self.text, self.at):
            try:
                _Parser(head + joined[1]).query()
            except _Mistake:
                pass
            else:
                return _Mistake(str(error), begin, joined.end(), [head + joined[1]])
        return _Mistake(str(error), begin, own_end, instead, unfinished=ends)

    def unknown(self, name: str, begin: int) -> _Mistake:
        """Return the mistake of a field that there is not."""
        value_begin = self.at
        if self.text.startswith("(", self.at):
            self.group("@any")
        else:
            self.value(ranges=True, empty=True)
        value, end = self.text[value_begin : self.at] or "*", self.at
        plain = quoted(self.text[begin:end])
        message = f'Unknown field "{name}". For a span tag write @{name}:{value}; for plain text write {plain}.'
        instead = [f"@{name}:{value}", plain]
        if value_begin == end and self.text[end:].strip():  # as in a message that was copied
            word = NEXT_WORD.match(self.text, end)
            similar = [f"{known}:{word[1] if word else '*'}" for known in terms.similar(name)]
            whole = quoted(self.text[begin:].rstrip())
            return _Mistake(message, begin, len(self.text), [*similar, whole])
        instead = [*(f"{known}:{value}" for known in terms.similar(name)), *instead]
        return _Mistake(message, begin, end, instead, unfinished=end == value_begin)

    def value(self, *, ranges: bool, empty: bool = False) -> Value:
        """Read a phrase, a range or a word."""
        begin = self.at
        if self.text.startswith('"', begin):
            phrase = PHRASE.match(self.text, begin)
            if phrase is None:
                rest = terms.unescaped(self.text[begin + 1 :])
                raise _Mistake(
                    "A quotation mark is not closed.", begin, len(self.text), [quoted(rest)], unfinished=True
                )
            self.at = phrase.end()
            return Value(terms.unescaped(phrase[0][1:-1]), literal=True)
        if ranges and self.text.startswith("[", begin):
            if found := RANGE.match(self.text, begin):
                self.at = found.end()
                return Value(found[0])
            if "]" not in self.text[begin:]:
                raise self.open_range(begin)
        self.at = self.word_end(begin)
        assert empty or self.at > begin  # noqa: S101 - callers have looked
        return Value(self.text[begin : self.at])

    def open_range(self, begin: int) -> _Mistake:
        """Return the mistake of a range without an end."""
        found = OPEN_RANGE.match(self.text, begin)
        assert found is not None  # noqa: S101 - it begins with a [
        ends_of_it = found[0].split()
        whole = f"{found[0]}]" if len(ends_of_it) == 3 else f"{ends_of_it[0]} TO *]"
        instead = [whole, quoted(found[0])]
        ends = found.end() == len(self.text.rstrip())
        message = "This range has no ] at its end. A range looks like [400 TO 499]."
        return _Mistake(message, begin, found.end(), instead, unfinished=ends)

    def word_end(self, at: int) -> int:
        """Return where the word from `at` on ends; parentheses that it opens itself are part of it, as in `work()`."""
        opened = 0
        while at < len(self.text) and not self.text[at].isspace() and self.text[at] != '"':
            if self.text[at] == ")" and not opened:
                break
            opened += {"(": 1, ")": -1}.get(self.text[at], 0)
            at += 1
        return at

    def dangling(self, operator: str, begin: int) -> _Mistake:
        """Return the mistake of an operator that has no term beside it."""
        sides = "a term after it" if operator == "NOT" else "a term on each side"
        alone = self.text[:begin].strip() + self.text[begin + len(operator) :].strip()
        instead = [quoted(operator), *([""] if alone else [])]
        end = begin + len(operator)
        ends = not self.text[end:].strip()
        return _Mistake(f"{operator} needs {sides}.", begin, end, instead[::-1], unfinished=ends)

    def stray(self) -> _Mistake:
        """Return the mistake of a `)` that closes nothing."""
        alone = self.text.strip() == ")"
        instead = [quoted(")")] if alone else ["", quoted(")")]
        return _Mistake("This ) has no ( before it.", self.at, self.at + 1, instead)

    def operator(self) -> str | None:
        """Return the operator that comes next."""
        self.skip()
        found = OPERATOR.match(self.text, self.at)
        return found[1] if found else None

    def starts_term(self) -> bool:
        """Whether a term comes next."""
        return not self.end() and self.text[self.at] != ")" and self.operator() not in {"AND", "OR"}

    def end(self) -> bool:
        """Whether nothing comes any more."""
        self.skip()
        return self.at == len(self.text)

    def skip(self) -> None:
        """Pass over white space."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1


def _every(parts: Sequence[Select]) -> Select:
    def select(trace: Trace, spans: Sequence[Span]) -> Sequence[Span]:
        for part in parts:
            if not spans:
                break
            spans = part(trace, spans)
        return spans

    return select


def _either(parts: Sequence[Select]) -> Select:
    def select(trace: Trace, spans: Sequence[Span]) -> Sequence[Span]:
        found = {id(span) for part in parts for span in part(trace, spans)}
        return [span for span in spans if id(span) in found]

    return select


def _none(part: Select) -> Select:
    return lambda trace, spans: [] if part(trace, trace.spans) else spans
