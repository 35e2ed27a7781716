"""The grammar of the search language.

    service:web (status:error OR @duration:>100ms) -@http.status_code:404 "GET /api"

A space or `AND` combines terms, `OR` separates alternatives, `-` or `NOT` negates, and parentheses group terms or the
values of one field. A search finds a trace if one of its spans matches. A negated part must match no span of the trace.
The module `terms` implements the terms. For an invalid search, `parse` raises a `QueryError` that suggests valid ones.

    any    = all { "OR" all }
    all    = single { [ "AND" ] single }
    single = { "-" | "NOT" } ( group | term )
    group  = "(" any ")"
    term   = field ":" ( group | value ) | value

The parser has a method for each rule, such as `read_any`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hello_service.localview import terms
from hello_service.localview.spans import Span, Trace
from hello_service.localview.terms import Selector, TermError, Value, quoted

MAX_DEPTH = 50  # of nested parentheses, because the parser is recursive
MAX_REPAIRS = 20  # a suggestion corrects at most this many mistakes of a search
OPERATOR = re.compile(r'(AND|OR|NOT)(?=[\s()"]|$)')
# The name of a field, a tag, or a tag in quotation marks, with the colon.
FIELD = re.compile(r'([A-Za-z_][\w.\-]*|@[A-Za-z_][\w.\-/]*|@"(?:[^"\\]|\\.)*"):')
PHRASE = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
RANGE = re.compile(r"\[[^\[\]]*\]")
# The beginning of a URL, or of a host and its port. The text before the colon is not a field.
ADDRESS = re.compile(r"[A-Za-z][\w+.\-]*://|localhost:\d|[A-Za-z][\w.\-]*:\d{1,5}/")
OPEN_RANGE = re.compile(r"\[[^\s()]*(?:\s+TO(?:\s+[^\s()]+)?)?")  # a range without its closing ]
HEADER = re.compile(r"\s*trace(?:response|parent):\s*(\S+)\s*")  # a header copied with its name
NEGATIVE_NUMBER = re.compile(r"-\.?\d")  # within the values of a field, as in @retries:(-5 OR 3)
NEXT_WORD = re.compile(r'\s+([^\s()"]+)')
NOT_CLOSED = "A parenthesis ( is not closed."


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
    select: Selector
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
        return _Parser(text).read_query()
    except _Mistake as mistake:
        repaired = [_repair(correction) for correction in mistake.corrections(text)]
        suggestions = [suggestion for suggestion in dict.fromkeys(repaired) if suggestion]  # without duplicates
        raise QueryError(str(mistake), suggestions, unfinished=mistake.unfinished) from None


def _repair(text: str) -> str:
    """Return `text` with its remaining mistakes corrected, or an empty text if one of them has no correction."""
    for _ in range(MAX_REPAIRS):
        try:
            return _Parser(text).read_query().text
        except _Mistake as mistake:
            text = next(iter(mistake.corrections(text)), "")
    return ""


class _Mistake(Exception):  # noqa: N818 - internal; callers get a `QueryError`
    """A mistake in the text from `begin` to `end`, with replacements for that part."""

    def __init__(
        self, message: str, begin: int, end: int, replacements: Sequence[str], *, unfinished: bool = False
    ) -> None:
        super().__init__(message)
        self.begin, self.end, self.replacements = begin, end, replacements
        self.unfinished = unfinished

    def corrections(self, text: str) -> list[str]:
        """Return `text` with the mistake replaced, once for each replacement."""
        before, after = text[: self.begin], text[self.end :]
        return [f"{before}{replacement}{after}".strip() for replacement in self.replacements]


class _Parser:
    """A recursive descent parser.

    `position` is the index of the next character to read. The parameter `field` of a method is the field whose values
    are read, such as `service` within `service:(web OR shop)`, or None outside of such parentheses.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.depth = 0

    def read_query(self) -> Query:
        """Read the whole search."""
        if not self.text.strip():
            return Query(text="", select=lambda _, spans: spans)
        pieces: list[str] = []
        selector = self.read_any(None, pieces)
        if self.position < len(self.text):
            raise self.stray_parenthesis()
        return Query(text=self.text.strip(), select=selector, pieces=tuple(pieces))

    def read_any(self, field: str | None, pieces: list[str] | None = None) -> Selector:
        """Read alternatives. If there is only one, its terms are added to `pieces`."""
        terms_read: list[str] = []
        alternatives = [self.read_all(field, terms_read)]
        while self.next_operator() == "OR":
            self.read_operator("OR")
            alternatives.append(self.read_all(field, terms_read))
        if len(alternatives) > 1:
            return _any_of(alternatives)
        if pieces is not None:
            pieces += terms_read
        return alternatives[0]

    def read_all(self, field: str | None, pieces: list[str]) -> Selector:
        """Read terms that must all match, and add them to `pieces`."""
        if (operator := self.next_operator()) in {"AND", "OR"}:
            raise self.dangling_operator(operator, self.position)
        selectors: list[Selector] = []
        while self.starts_term():
            begin = self.position
            selectors.append(self.read_single(field))
            pieces.append(self.text[begin : self.position])
            if self.next_operator() == "AND":
                self.read_operator("AND")
        if not selectors:  # the next character is a )
            raise self.stray_parenthesis()
        return selectors[0] if len(selectors) == 1 else _all_of(selectors)

    def read_single(self, field: str | None) -> Selector:
        """Read a term or a group, with any negations before it."""
        is_negated = False
        while True:
            self.skip_space()
            if self.next_operator() == "NOT":
                self.read_operator("NOT")
            elif field and NEGATIVE_NUMBER.match(self.text, self.position):
                break
            elif self.text.startswith("-", self.position):
                self.read_minus()
            else:
                break
            is_negated = not is_negated
        selector = self.read_group(field) if self.text[self.position] == "(" else self.read_term(field)
        return _none_of(selector) if is_negated else selector

    def read_operator(self, operator: str) -> None:
        """Read `operator`, which begins at the current position and must have a term after it."""
        begin = self.position
        self.position += len(operator)
        if not self.starts_term():
            raise self.dangling_operator(operator, begin)

    def read_minus(self) -> None:
        """Read a `-`, which must have a term directly after it."""
        begin = self.position
        self.position += 1
        if self.position == len(self.text) or self.text[self.position] in ") \t\r\n":
            message = "This - has no term. Write it directly before the term to exclude, like -status:error."
            self.skip_space()
            replacements = [f"{quoted('-')} "]
            if self.starts_term():
                replacements.insert(0, "-")  # directly before that term
            elif self.text[:begin].strip():
                replacements.insert(0, "")  # the search without the -
            raise _Mistake(message, begin, self.position, replacements, unfinished=self.position == len(self.text))

    def read_group(self, field: str | None) -> Selector:
        """Read a group in parentheses."""
        begin = self.position
        self.position += 1
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Mistake(f"Parentheses are nested more than {MAX_DEPTH} deep.", begin, begin + 1, [])
        if self.is_at_end():
            raise _Mistake(NOT_CLOSED, begin, self.position, [quoted("(")], unfinished=True)
        if self.text[self.position] == ")":
            raise _Mistake("The parentheses () are empty.", begin, self.position + 1, ["*"])
        selector = self.read_any(field)
        if self.position == len(self.text):
            replacements = [self.text[begin:] + ")", self.text[begin + 1 :]]
            raise _Mistake(NOT_CLOSED, begin, self.position, replacements, unfinished=True)
        self.position += 1  # the closing parenthesis
        self.depth -= 1
        return selector

    def read_term(self, field: str | None) -> Selector:
        """Read `field:value`, `field:(values)` or a value alone."""
        begin = self.position
        prefix = None if ADDRESS.match(self.text, self.position) else FIELD.match(self.text, self.position)
        if prefix is None:
            value = self.read_value(allow_range=field is not None)
            return self.term_selector(field, value, begin)
        self.position = prefix.end()
        name = prefix[1]
        if field is not None:  # a field within the values of another one
            self.read_value(allow_range=False, allow_empty=True)
            term = self.text[begin : self.position]
            message = f"{term} is not a value of {field}. The parentheses after {field}: can contain only its values."
            raise _Mistake(message, begin, self.position, [quoted(term)])
        next_character = self.text[self.position : self.position + 1]
        if not terms.is_known(name):
            raise self.unknown_field(name, begin)
        if not next_character or next_character.isspace() or next_character == ")":
            raise self.missing_value(terms.missing_value(name), begin)
        if next_character == "(":
            return self.read_group(name)
        value = self.read_value(allow_range=True)
        if value.text in {">", ">=", "<", "<="} and not value.literal:
            raise self.missing_value(terms.missing_value(name), begin)
        return self.term_selector(name, value, begin)

    def term_selector(self, field: str | None, value: Value, begin: int) -> Selector:
        """Return the function that selects the spans matching the term just read, which begins at `begin`."""
        try:
            return terms.selector(field, value)
        except TermError as error:
            term = self.text[begin : self.position]
            prefix = f"{field}:" if field and term.startswith(f"{field}:") else ""
            replacements = [replacement.whole or f"{prefix}{replacement.value}" for replacement in error.replacements]
            unfinished = error.unfinished and self.position == len(self.text)
            raise _Mistake(str(error), begin, self.position, replacements, unfinished=unfinished) from None

    def missing_value(self, error: TermError, begin: int) -> _Mistake:
        """Return the mistake for a field whose value is missing or follows a space."""
        field_and_colon = self.text[begin : self.position]
        replacements = [replacement.whole for replacement in error.replacements]
        if next_word := NEXT_WORD.match(self.text, self.position):
            joined = field_and_colon + next_word[1]
            try:
                _Parser(joined).read_query()
            except _Mistake:
                pass
            else:
                return _Mistake(str(error), begin, next_word.end(), [joined])
        return _Mistake(str(error), begin, self.position, replacements, unfinished=self.position == len(self.text))

    def unknown_field(self, name: str, begin: int) -> _Mistake:
        """Return the mistake for a field that doesn't exist."""
        value_begin = self.position
        if self.text.startswith("(", self.position):
            self.read_group("@any")  # any tag; only the end of the group matters
        else:
            self.read_value(allow_range=True, allow_empty=True)
        end = self.position
        value = self.text[value_begin:end] or "*"
        plain_text = quoted(self.text[begin:end])
        message = f'Unknown field "{name}". For a span tag write @{name}:{value}; for plain text write {plain_text}.'
        # Without a value but with text after it, this is probably a copied message, such as "ValueError: no such file".
        if value_begin == end and self.text[end:].strip():
            word = NEXT_WORD.match(self.text, end)
            similar = [f"{known}:{word[1] if word else '*'}" for known in terms.similar_fields(name)]
            quoted_message = quoted(self.text[begin:].rstrip())
            return _Mistake(message, begin, len(self.text), [*similar, quoted_message])
        replacements = [*(f"{known}:{value}" for known in terms.similar_fields(name)), f"@{name}:{value}", plain_text]
        return _Mistake(message, begin, end, replacements, unfinished=end == value_begin)

    def read_value(self, *, allow_range: bool, allow_empty: bool = False) -> Value:
        """Read a phrase, a word or, with `allow_range`, a range. With `allow_empty`, the word may be empty."""
        begin = self.position
        if self.text.startswith('"', begin):
            phrase = PHRASE.match(self.text, begin)
            if phrase is None:
                rest = terms.unescaped(self.text[begin + 1 :])
                raise _Mistake(
                    "A quotation mark is not closed.", begin, len(self.text), [quoted(rest)], unfinished=True
                )
            self.position = phrase.end()
            return Value(terms.unescaped(phrase[0][1:-1]), literal=True)
        if allow_range and self.text.startswith("[", begin):
            if match := RANGE.match(self.text, begin):
                self.position = match.end()
                return Value(match[0])
            if "]" not in self.text[begin:]:
                raise self.open_range(begin)
        self.position = self.word_end(begin)
        assert allow_empty or self.position > begin  # noqa: S101 - callers have checked this
        return Value(self.text[begin : self.position])

    def open_range(self, begin: int) -> _Mistake:
        """Return the mistake for a range that is not closed."""
        match = OPEN_RANGE.match(self.text, begin)
        assert match is not None  # noqa: S101 - the text begins with a [
        parts = match[0].split()  # up to three: one end, TO, and the other end
        closed = f"{match[0]}]" if len(parts) == 3 else f"{parts[0]} TO *]"
        unfinished = match.end() == len(self.text.rstrip())
        message = "A range has no ] at its end. Write it like [400 TO 499]."
        return _Mistake(message, begin, match.end(), [closed, quoted(match[0])], unfinished=unfinished)

    def word_end(self, begin: int) -> int:
        """Return the end of the word that begins at `begin`. Balanced parentheses are part of it, as in `work()`."""
        depth = 0
        for position in range(begin, len(self.text)):
            character = self.text[position]
            if character.isspace() or character == '"' or (character == ")" and depth == 0):
                return position
            if character == "(":
                depth += 1
            elif character == ")":
                depth -= 1
        return len(self.text)

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
        return _Mistake("A parenthesis ) has no matching (.", self.position, self.position + 1, replacements)

    def next_operator(self) -> str | None:
        """Skip white space, and return the operator that begins there, if any. It is not read yet."""
        self.skip_space()
        match = OPERATOR.match(self.text, self.position)
        return match[1] if match else None

    def starts_term(self) -> bool:
        """Skip white space, and return whether a term begins there."""
        return not self.is_at_end() and self.text[self.position] != ")" and self.next_operator() not in {"AND", "OR"}

    def is_at_end(self) -> bool:
        """Skip white space, and return whether the text ends there."""
        self.skip_space()
        return self.position == len(self.text)

    def skip_space(self) -> None:
        """Skip white space."""
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1


def _all_of(parts: Sequence[Selector]) -> Selector:
    """Return the function that selects the spans that all `parts` match."""

    def select(trace: Trace, spans: Sequence[Span]) -> Sequence[Span]:
        for part in parts:
            if not spans:
                break
            spans = part(trace, spans)
        return spans

    return select


def _any_of(parts: Sequence[Selector]) -> Selector:
    """Return the function that selects the spans that at least one of `parts` matches."""

    def select(trace: Trace, spans: Sequence[Span]) -> Sequence[Span]:
        matching_ids = {id(span) for part in parts for span in part(trace, spans)}
        return [span for span in spans if id(span) in matching_ids]

    return select


def _none_of(part: Selector) -> Selector:
    """Return the function that selects all spans if `part` matches no span of the whole trace, else no spans."""
    return lambda trace, spans: [] if part(trace, trace.spans) else spans
