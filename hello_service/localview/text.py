"""Escapes control characters, and characters that hide or reorder text, in text from other programs.

It imports nothing of this package.
"""

from __future__ import annotations

import re

# Carriage returns without a line feed, C0 except tab and line feed, DEL, C1, soft hyphen, bidirectional controls,
# invisible characters, line and paragraph separators, lone surrogates (which can't be encoded), tag characters. Joiners
# are not escaped, because Persian and emoji need them.
HIDDEN = re.compile(
    "\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
LAYOUT = re.compile("[\r\n\t]")
ESCAPES = {"\r": r"\r", "\n": r"\n", "\t": r"\t"}


def escape_hidden(text: str, *, one_line: bool = False) -> str:
    r"""Return `text` with each invisible, control or reordering character escaped, such as `\x9b` or `\u202e`.

    Line feeds and tabs are escaped only with `one_line`.
    """
    if text.isprintable():
        return text
    text = HIDDEN.sub(_escape, text)
    return LAYOUT.sub(_escape, text) if one_line else text


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in ESCAPES:
        return ESCAPES[character]
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
