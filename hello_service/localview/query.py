"""The grammar of the search language.

    service:web (status:error OR @duration:>100ms) -@http.status_code:404 "GET /api"

A space or `AND` combines terms, `OR` separates alternatives, `-` or `NOT` negates, and parentheses group terms or the
values of one field. A search finds a trace if one of its spans matches; a negated part must match no span of the trace.
The module `terms` implements the terms. For an invalid search, `parse` raises a `QueryError` that suggests valid ones.

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

MAX_DEPTH = 50  # of nested parentheses
MAX_REPAIRS = 20  # a suggestion corrects at most this many mistakes of a search
OPERATOR = re.compile(r'(AND|OR|NOT)(?=[\s()"]|$)')
FIELD = re.compile(r'([A-Za-z_][\w.\-]*|@[A-Za-z_][\w.\-/]*|@"(?:[^"\\]|\\.)*"):')
PHRASE = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
RANGE = re.compile(r"\[[^\[\]]*\]")
# The beginning of a URL, or of a host and its port. The text before the colon is not a field.
ADDRESS = re.compile(r"[A-Za-z][\w+.\-]*://|localhost:\d|[A-Za-z][\w.\-]*:\d{1,5}/")
OPEN_RANGE = re.compile(r"\[[^\s()]*(?:\s+TO(?:\s+[^\s()]+)?)?")  # a range without its ]
HEADER = re.compile(r"\s*trace(?:response|parent):\s*(\S+)\s*")  # a header copied with its name
NOT_CLOSED = "A parenthesis ( is not closed."
NEXT_WORD = re.compile(r'\s+([^\s()"]+)')


class QueryError(ValueError):
    """The search is invalid. `str()` is the message to show.

    Attributes:
        suggestions: valid searches that may have been meant.
        unfinished: whether the search may become valid when more characters are typed.
    """

    def __init__(self, message: str, suggestions: Sequence[str], *, unfinished: bool) -> None:
        super().__init__(message)
        self.suggestions = tuple(suggestions)
        self.unfinished = unfinished


@dataclass(frozen=True)
class Query:
    """A parsed search.

    Attributes:
        pieces: the parts of `text` that must all match; empty if the outermost operator is OR.
    """

    text: str
    select: Select
    pieces: tuple[str, ...] = ()

    def spans(self, trace: Trace) -> Sequence[Span]:
        """Return the spans of `trace` that match the search."""
        return self.select(trace, trace.spans)

    def matches(self, trace: Trace) -> bool:
        """Return whether the search finds `trace`."""
        return bool(self.spans(trace))

    def with_term(self, term: str) -> str:
        """Return this search narrowed by `term`."""
        text = f"({self.text})" if self.text and not self.pieces else self.text
        return f"{text} {term}".strip()

    def without_term(self, term: str) -> str:
        """Return this search without the piece `term`."""
        return " ".join(piece for piece in self.pieces if piece != term)


def parse(text: str) -> Query:
    """Return the parsed search. An empty `text` finds every trace.

    Raises:
        QueryError: the search is invalid.
    """
    if header := HEADER.fullmatch(text):
        text = header[1]
    try:
        return _Parser(text).query()
    except _Mistake as mistake:
        corrections = [_repaired(each) for each in mistake.corrected(text)]
        suggestions = [each for each in dict.fromkeys(corrections) if each]
        raise QueryError(str(mistake), suggestions, unfinished=mistake.unfinished) from None


def _repaired(text: str) -> str:
    """Return `text` with its other mistakes corrected, or an empty text if one has no correction."""
    for _ in range(MAX_REPAIRS):
        try:
            return _Parser(text).query().text
        except _Mistake as mistake:
            text = next(iter(mistake.corrected(text)), "")
    return ""


class _Mistake(Exception):  # noqa: N818 - internal; callers get a `QueryError`
    """A mistake in the text from `begin` to `end`, with replacements for that part."""

    def __init__(
        self, message: str, begin: int, end: int, replacements: Sequence[str], *, unfinished: bool = False
    ) -> None:
        super().__init__(message)
        self.begin, self.end, self.replacements = begin, end, replacements
        self.unfinished = unfinished

    def corrected(self, text: str) -> list[str]:
        return [f"{text[: self.begin]}{each}{text[self.end :]}".strip() for each in self.replacements]


class _Parser:
    """A recursive descent parser.

    `at` is the position of the next character to read. Where a method has a parameter `field`, it is the field whose
    values are read, such as `service` within `service:(web OR shop)`, or None outside of such parentheses.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0

    def query(self) -> Query:
        """Read the whole search."""
        if not self.text.strip():
            return Query("", lambda _, spans: spans)
        pieces: list[str] = []
        select = self.any(None, pieces)
        if self.at < len(self.text):
            raise self.stray_parenthesis()
        return Query(self.text.strip(), select, tuple(pieces))

    def any(self, field: str | None, pieces: list[str] | None = None) -> Select:
        """Read alternatives. If there is only one, its terms are added to `pieces`."""
        terms_read: list[str] = []
        alternatives = [self.all(field, terms_read)]
        while self.operator() == "OR":
            begin, self.at = self.at, self.at + len("OR")
            if not self.starts_term():
                raise self.dangling_operator("OR", begin)
            alternatives.append(self.all(field, terms_read))
        if len(alternatives) > 1:
            return _any_of(alternatives)
        if pieces is not None:
            pieces += terms_read
        return alternatives[0]

    def all(self, field: str | None, pieces: list[str]) -> Select:
        """Read terms that must all match, and add them to `pieces`."""
        if (operator := self.operator()) in {"AND", "OR"}:
            raise self.dangling_operator(operator, self.at)
        selects: list[Select] = []
        while self.starts_term():
            begin = self.at
            selects.append(self.single(field))
            pieces.append(self.text[begin : self.at])
            if self.operator() == "AND":
                begin, self.at = self.at, self.at + len("AND")
                if not self.starts_term():
                    raise self.dangling_operator("AND", begin)
        if not selects:  # the next character is a )
            raise self.stray_parenthesis()
        return selects[0] if len(selects) == 1 else _all_of(selects)

    def single(self, field: str | None) -> Select:
        """Read a term or a group, with any negations before it."""
        negated = False
        while True:
            self.skip_space()
            if self.operator() == "NOT":
                begin, self.at = self.at, self.at + len("NOT")
                if not self.starts_term():
                    raise self.dangling_operator("NOT", begin)
            elif field and re.match(r"-\.?\d", self.text[self.at :]):  # a negative number, as in @retries:(-5 OR 3)
                break
            elif self.text.startswith("-", self.at):
                self.minus()
            else:
                break
            negated = not negated
        select = self.group(field) if self.text[self.at] == "(" else self.term(field)
        return _none_of(select) if negated else select

    def minus(self) -> None:
        """Read a `-`."""
        begin, self.at = self.at, self.at + 1
        if self.at == len(self.text) or self.text[self.at] in ") \t\r\n":
            message = "This - has no term. Write it directly before the term to exclude, like -status:error."
            self.skip_space()
            replacements = [f"{quoted('-')} "]
            if self.starts_term():
                replacements.insert(0, "-")
            elif self.text[:begin].strip():
                replacements.insert(0, "")
            raise _Mistake(message, begin, self.at, replacements, unfinished=self.at == len(self.text))

    def group(self, field: str | None) -> Select:
        """Read a group in parentheses."""
        begin, self.at = self.at, self.at + 1
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Mistake(f"Parentheses are nested more than {MAX_DEPTH} deep.", begin, begin + 1, [])
        if self.at_end():
            raise _Mistake(NOT_CLOSED, begin, self.at, [quoted("(")], unfinished=True)
        if self.text[self.at] == ")":
            raise _Mistake("The parentheses () are empty.", begin, self.at + 1, ["*"])
        select = self.any(field)
        if self.at == len(self.text):
            replacements = [self.text[begin:] + ")", self.text[begin + 1 :]]
            raise _Mistake(NOT_CLOSED, begin, self.at, replacements, unfinished=True)
        self.at += 1
        self.depth -= 1
        return select

    def term(self, field: str | None) -> Select:
        """Read `field:value`, `field:(values)` or a value alone."""
        begin = self.at
        prefix = None if ADDRESS.match(self.text, self.at) else FIELD.match(self.text, self.at)
        if prefix is None:
            value = self.value(ranges=field is not None)
            return self.checked(lambda: terms.term(field, value), field or "", begin)
        self.at = prefix.end()
        name = prefix[1]
        if field is not None:  # a field within the values of another one
            self.value(ranges=False, empty=True)
            whole = self.text[begin : self.at]
            message = f"{whole} is not a value of {field}. The parentheses after {field}: can contain only its values."
            raise _Mistake(message, begin, self.at, [quoted(whole)])
        following = self.text[self.at : self.at + 1]
        if not terms.is_known(name):
            raise self.unknown_field(name, begin)
        if not following or following.isspace() or following == ")":
            raise self.missing_value(terms.missing_value(name), begin)
        if following == "(":
            return self.group(name)
        value = self.value(ranges=True)
        if value.text in {">", ">=", "<", "<="} and not value.literal:
            raise self.missing_value(terms.missing_value(name), begin)
        return self.checked(lambda: terms.term(name, value), name, begin)

    def checked(self, make: Callable[[], Select], field: str, begin: int) -> Select:
        """Return the result of `make`. Turn a `TermError` into a mistake in the term that begins at `begin`."""
        try:
            return make()
        except TermError as error:
            whole = self.text[begin : self.at]
            prefix = f"{field}:" if field and whole.startswith(f"{field}:") else ""
            replacements = [each.whole or f"{prefix}{each.value}" for each in error.replacements]
            unfinished = error.unfinished and self.at == len(self.text)
            raise _Mistake(str(error), begin, self.at, replacements, unfinished=unfinished) from None

    def missing_value(self, error: TermError, begin: int) -> _Mistake:
        """Return the mistake for a field whose value is missing or follows a space."""
        head, end = self.text[begin : self.at], self.at
        replacements = [each.whole or "" for each in error.replacements]
        if next_word := NEXT_WORD.match(self.text, self.at):
            joined = head + next_word[1]
            try:
                _Parser(joined).query()
            except _Mistake:
                pass
            else:
                return _Mistake(str(error), begin, next_word.end(), [joined])
        return _Mistake(str(error), begin, end, replacements, unfinished=end == len(self.text))

    def unknown_field(self, name: str, begin: int) -> _Mistake:
        """Return the mistake for a field that doesn't exist."""
        value_begin = self.at
        if self.text.startswith("(", self.at):
            self.group("@any")  # only its end matters
        else:
            self.value(ranges=True, empty=True)
        value, end = self.text[value_begin : self.at] or "*", self.at
        plain = quoted(self.text[begin:end])
        message = f'Unknown field "{name}". For a span tag write @{name}:{value}; for plain text write {plain}.'
        # Without a value but with text after it, this is probably a copied message, such as "ValueError: no such file".
        if value_begin == end and self.text[end:].strip():
            word = NEXT_WORD.match(self.text, end)
            similar = [f"{known}:{word[1] if word else '*'}" for known in terms.similar(name)]
            whole = quoted(self.text[begin:].rstrip())
            return _Mistake(message, begin, len(self.text), [*similar, whole])
        replacements = [*(f"{known}:{value}" for known in terms.similar(name)), f"@{name}:{value}", plain]
        return _Mistake(message, begin, end, replacements, unfinished=end == value_begin)

    def value(self, *, ranges: bool, empty: bool = False) -> Value:
        """Read a phrase, a word or, with `ranges`, a range. With `empty`, the word may be empty."""
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
            if match := RANGE.match(self.text, begin):
                self.at = match.end()
                return Value(match[0])
            if "]" not in self.text[begin:]:
                raise self.open_range(begin)
        self.at = self.word_end(begin)
        assert empty or self.at > begin  # noqa: S101 - callers have checked this
        return Value(self.text[begin : self.at])

    def open_range(self, begin: int) -> _Mistake:
        """Return the mistake for a range that is not closed."""
        match = OPEN_RANGE.match(self.text, begin)
        assert match is not None  # noqa: S101 - the text begins with a [
        parts = match[0].split()
        closed = f"{match[0]}]" if len(parts) == 3 else f"{parts[0]} TO *]"
        unfinished = match.end() == len(self.text.rstrip())
        message = "A range has no ] at its end. Write it like [400 TO 499]."
        return _Mistake(message, begin, match.end(), [closed, quoted(match[0])], unfinished=unfinished)

    def word_end(self, at: int) -> int:
        """Return the end of the word that begins at `at`. Balanced parentheses are part of it, as in `work()`."""
        depth = 0
        while at < len(self.text) and not self.text[at].isspace() and self.text[at] != '"':
            if self.text[at] == ")" and not depth:
                break
            depth += {"(": 1, ")": -1}.get(self.text[at], 0)
            at += 1
        return at

    def dangling_operator(self, operator: str, begin: int) -> _Mistake:
        """Return the mistake for an operator without a term beside it."""
        sides = "a term after it" if operator == "NOT" else "a term on each side"
        end = begin + len(operator)
        before, after = self.text[:begin].strip(), self.text[end:].strip()
        replacements = ["", quoted(operator)] if before or after else [quoted(operator)]
        unfinished = not after
        return _Mistake(f"{operator} needs {sides}.", begin, end, replacements, unfinished=unfinished)

    def stray_parenthesis(self) -> _Mistake:
        """Return the mistake for a `)` that closes nothing."""
        is_alone = self.text.strip() == ")"
        replacements = [quoted(")")] if is_alone else ["", quoted(")")]
        return _Mistake("A parenthesis ) has no matching (.", self.at, self.at + 1, replacements)

    def operator(self) -> str | None:
        """Return the operator at the current position, None if there is none."""
        self.skip_space()
        match = OPERATOR.match(self.text, self.at)
        return match[1] if match else None

    def starts_term(self) -> bool:
        """Return whether a term begins at the current position."""
        return not self.at_end() and self.text[self.at] != ")" and self.operator() not in {"AND", "OR"}

    def at_end(self) -> bool:
        """Return whether the rest of the text is empty."""
        self.skip_space()
        return self.at == len(self.text)

    def skip_space(self) -> None:
        """Skip white space."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1


def _all_of(parts: Sequence[Select]) -> Select:
    def select(trace: Trace, spans: Sequence[Span]) -> Sequence[Span]:
        for part in parts:
            if not spans:
                break
            spans = part(trace, spans)
        return spans

    return select


def _any_of(parts: Sequence[Select]) -> Select:
    def select(trace: Trace, spans: Sequence[Span]) -> Sequence[Span]:
        matching = {id(span) for part in parts for span in part(trace, spans)}
        return [span for span in spans if id(span) in matching]

    return select


def _none_of(part: Select) -> Select:
    """Return the function that selects all spans if `part` matches no span of the whole trace, else none."""
    return lambda trace, spans: [] if part(trace, trace.spans) else spans
