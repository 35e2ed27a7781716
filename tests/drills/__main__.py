"""`scripts/drill`: run the drills, print the table, and with --write update it in docs/resilience.md."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from time import monotonic

from drills.drill import Drill, Size
from drills.table import TABLE

PAGE = Path(__file__).parents[2] / "docs" / "resilience.md"
BEGIN, END = "<!-- scripts/drill --write -->\n", "<!-- end of scripts/drill --write -->"


def row(each: Drill, size: Size) -> tuple[str, bool]:
    """Run one drill; return its row and whether the promise was kept."""
    began = monotonic()
    try:
        measured, kept = each.missing or each.run(size), each.missing is None
    except Exception as error:  # noqa: BLE001 - a drill that fails must not lose the results of the others
        measured, kept = f"BROKEN: {type(error).__name__}: {error}", False
    print(f"{each.event}: {measured} ({monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    short = "" if size is Size.FULL else " (short)"
    return f"{head(each)} {' '.join(measured.split()).replace('|', '/')}{short} |", kept


def head(each: Drill) -> str:
    """Return the first two columns of a row."""
    return f"| {each.event} | {each.promise} |"


def table(rows: Mapping[str, str]) -> str:
    """Return a table with these `rows`, which are keyed by their heads."""
    return "\n".join(["| event | promise | measured |", "| --- | --- | --- |", *rows.values()])


def write(rows: Mapping[str, str]) -> None:
    """Put `rows` into the page's table. The other rows keep their earlier results."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    old, _, after = rest.partition(END)
    heads = [head(each) for each in TABLE]
    kept = {each: line for each in heads for line in old.splitlines() if line.startswith(each)}
    shown = {each: {**kept, **rows}.get(each, f"{each} not measured yet |") for each in heads}
    machine = f"CPython {platform.python_version()} on {os.cpu_count()} cores"
    PAGE.write_text(f"{before}{BEGIN}{table(shown)}\n\nMeasured by `scripts/drill`, {machine}.\n{END}{after}")


def main() -> int:
    """Run the drills whose event contains one of the given words, or all of them."""
    parser = argparse.ArgumentParser(prog="scripts/drill", description=main.__doc__)
    parser.add_argument("words", nargs="*", help="run only drills with one of these words in their event")
    parser.add_argument("--short", action="store_true", help="as the tests do, in a few minutes")
    parser.add_argument("--write", action="store_true", help="write the results into docs/resilience.md")
    given = parser.parse_args()
    size = Size.SHORT if given.short else Size.FULL
    chosen = [each for each in TABLE if not given.words or any(word in each.event for word in given.words)]
    rows, all_kept = {}, True
    for each in chosen:
        rows[head(each)], kept = row(each, size)
        all_kept = all_kept and kept
        if given.write:
            write(rows)
    print(table(rows))
    return 0 if all_kept else 1


if __name__ == "__main__":
    sys.exit(main())
