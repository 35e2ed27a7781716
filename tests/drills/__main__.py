"""`scripts/drill`: runs the drills and prints their results as a table. With --write, it updates docs/resilience.md."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from time import monotonic

from drills.drill import Drill, Size
from drills.table import DRILLS

PAGE = Path(__file__).parents[2] / "docs" / "resilience.md"
BEGIN, END = "<!-- scripts/drill --write -->\n", "<!-- end of scripts/drill --write -->"


def run(drill: Drill, size: Size) -> tuple[str, bool]:
    """Run a drill, and return its row of the table and whether the promise was kept."""
    began = monotonic()
    promise_kept = False
    if drill.skip_reason:
        figures = drill.skip_reason
    else:
        try:
            figures = drill.run(size)
            promise_kept = True
        except Exception as error:  # noqa: BLE001 - a drill that fails must not lose the results of the others
            figures = f"BROKEN: {type(error).__name__}: {error}"
    print(f"{drill.event}: {figures} ({monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
    cell = " ".join(figures.split()).replace("|", "/")  # on one line, without the character that separates cells
    return f"{head(drill)} {cell}{size.of(' (short)', '')} |", promise_kept


def head(drill: Drill) -> str:
    """Return the first two columns of the drill's row."""
    return f"| {drill.event} | {drill.promise} |"


def table(rows: Mapping[str, str]) -> str:
    """Return a Markdown table of `rows`. Each key is the head of its row."""
    return "\n".join(["| event | promise | measured |", "| --- | --- | --- |", *rows.values()])


def write(rows: Mapping[str, str]) -> None:
    """Put `rows` into the page's table. A drill that has no row in `rows` keeps its earlier row."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    old_table, _, after = rest.partition(END)
    updated: dict[str, str] = {}
    for key in map(head, DRILLS):
        unmeasured = f"{key} not measured yet |"
        earlier = next((line for line in old_table.splitlines() if line.startswith(key)), unmeasured)
        updated[key] = rows.get(key, earlier)
    machine = f"CPython {platform.python_version()} on {os.cpu_count()} cores"
    PAGE.write_text(f"{before}{BEGIN}{table(updated)}\n\nMeasured by `scripts/drill`, {machine}.\n{END}{after}")


def main() -> int:
    """Run all drills, or only those that the words select, and print their results as a table."""
    parser = argparse.ArgumentParser(prog="scripts/drill", description=main.__doc__)
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="run only the drills whose event contains one of these words"
    )
    parser.add_argument("--short", action="store_true", help="run the short forms, as the tests do, in a few minutes")
    parser.add_argument("--write", action="store_true", help="write the results into docs/resilience.md")
    options = parser.parse_args()
    for word in options.words:
        if not any(word in drill.event for drill in DRILLS):
            parser.error(f"no drill's event contains {word!r}; docs/resilience.md lists the drills")
    size = Size.SHORT if options.short else Size.FULL
    rows: dict[str, str] = {}
    every_promise_kept = True
    for drill in DRILLS:
        if options.words and not any(word in drill.event for word in options.words):
            continue
        rows[head(drill)], promise_kept = run(drill, size)
        every_promise_kept = every_promise_kept and promise_kept
        if options.write:
            write(rows)
    print(table(rows))
    return 0 if every_promise_kept else 1


if __name__ == "__main__":
    sys.exit(main())
