"""`scripts/drill`: run the drills, print the table, and keep it in README where that is asked for."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

from drills.drill import Drill, Size
from drills.table import TABLE

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- scripts/drill --write -->\n", "<!-- end of scripts/drill --write -->"


def row(each: Drill, size: Size) -> tuple[str, bool]:
    """Run one drill; return its row and whether the promise was kept."""
    began = monotonic()
    try:
        measured, kept = each.missing or each.run(size), each.missing is None
    except AssertionError as error:
        measured, kept = f"BROKEN: {error}", False
    print(f"{each.event}: {measured} ({monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    return f"| {each.event} | {each.promise} | {' '.join(measured.split()).replace('|', '/')} |", kept


def table(rows: list[str], size: Size) -> Iterator[str]:
    """Yield the lines of the table, and the machine that it was measured on."""
    yield "| event | promise | measured |"
    yield "| --- | --- | --- |"
    yield from rows
    yield ""
    yield f"Measured by `scripts/drill` at {size.value} size: CPython {platform.python_version()}, {os.cpu_count()} cores."


def main() -> int:
    """Run those whose event holds one of the words given, all without."""
    parser = argparse.ArgumentParser(prog="scripts/drill", description=main.__doc__)
    parser.add_argument("words", nargs="*", help="run only drills with one of these words in their event")
    parser.add_argument("--short", action="store_true", help="as the tests do, in a few minutes")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    given = parser.parse_args()
    size = Size.SHORT if given.short else Size.FULL
    chosen = [each for each in TABLE if not given.words or any(word in each.event for word in given.words)]
    results = [row(each, size) for each in chosen]
    text = "\n".join(table([line for line, _ in results], size))
    print(text)
    if given.write:
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(f"{before}{BEGIN}{text}\n{END}{rest.partition(END)[2]}")
    return 0 if all(kept for _, kept in results) else 1


if __name__ == "__main__":
    sys.exit(main())
