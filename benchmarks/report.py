"""Writes the results file and the tables of docs/performance.md and benchmarks/README.md."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import chart
from benchmarks.candidates import CANDIDATES, HELLO, RELAY, THIS_SERVICE
from benchmarks.figures import TARGETS, Results, lost_spans, median_of_rounds, ratio, total, value

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results.json"
CHART = ROOT / "docs" / "benchmarks.svg"
BEGIN, END = "<!-- scripts/bench --write -->\n", "<!-- end of scripts/bench --write -->"
PACKAGES = (
    "ddtrace",
    "quart",
    "hypercorn",
    "fastapi",
    "starlette",
    "uvicorn",
    "litestar",
    "granian",
    "flask",
    "gunicorn",
    "aiohttp",
    "httpx",
    "httpx-aiohttp",
    "requests",
    "uvloop",
)


def environment() -> dict[str, Any]:
    """Return what the results depend on: the versions of Python and of the packages, and the number of cores."""
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _cell(number: float | None, digits: int = 0) -> str:
    return "—" if number is None else f"{number:,.{digits}f}"


def candidates_table(results: Results) -> Iterator[str]:
    """Yield the table of all candidates that were measured, with medians over the rounds."""
    yield f"| {HELLO.clients} clients, one core | `/api/hello` CPU µs | requests/s | p99 ms | `/api/relay` CPU µs | requests/s | p50 ms | p99 ms | failures | spans lost | RSS MiB | start s |"
    yield "| --- " + "| ---: " * 11 + "|"
    for name, candidate in CANDIDATES.items():
        entries = [one_round[name] for one_round in results["rounds"] if name in one_round]
        if not entries:
            continue
        cells = [_cell(median_of_rounds(results, (name, HELLO, field))) for field in ("cpu_us", "per_second", "p99_ms")]
        cells += [
            _cell(median_of_rounds(results, (name, RELAY, field)))
            for field in ("cpu_us", "per_second", "p50_ms", "p99_ms")
        ]
        cells += [_cell(total(results, name, "failures"))]
        cells += [_cell(lost_spans(results, name) if candidate.spans else None)]
        memory = [max(sample["rss_mib"] for sample in entry["points"].values()) for entry in entries]
        cells += [_cell(median(memory)), _cell(median(entry["start_s"] for entry in entries), digits=1)]
        yield f"| {candidate.title} | {' | '.join(cells)} |"


def concurrency_table(results: Results) -> Iterator[str]:
    """Yield the table of this service's `/api/relay`, by number of clients."""
    yield "| `/api/relay`, clients | CPU µs | requests/s | p50 ms | p99 ms | failures |"
    yield "| ---: " * 6 + "|"
    for point in CANDIDATES[THIS_SERVICE].points:
        if not point.path.startswith("/api/relay"):
            continue
        cells = [
            _cell(median_of_rounds(results, (THIS_SERVICE, point, field)))
            for field in ("cpu_us", "per_second", "p50_ms", "p99_ms")
        ]
        failures = sum(value(one_round, (THIS_SERVICE, point, "failures")) or 0 for one_round in results["rounds"])
        yield f"| {point.clients:,} | {' | '.join(cells)} | {failures:.0f} |"


def targets_table(results: Results) -> Iterator[str]:
    """Yield the table of the targets whose values were measured."""
    yield "| figure | target | median (minimum to maximum) | reached |"
    yield "| --- | --- | --- | --- |"
    for target in TARGETS:
        if result := ratio(results, target.numerator, target.denominator):
            sign = "≥" if target.at_least else "≤"
            reached = "yes" if target.reached(result) else "**no**"
            yield f"| {target.title} | {sign} {target.limit:g} | {result} | {reached} |"


def endurance_sentences(results: Results) -> Iterator[str]:
    """Yield sentences about the endurance test and the overload test."""
    if (result := results["endurance"]) is None:
        return
    # benchmarks/endurance.py has the numbers of these sentences. It isn't imported, because the tests have no uvloop.
    before, halfway, after = result["rss_mib"]
    yield (
        f"RSS of one process: {before:.0f} MiB before, {halfway:.0f} after 50,000 requests, {after:.0f} after 100,000."
    )
    offered_rate = result["offered"] / result["seconds"]
    yield (
        f"Offered {offered_rate:,.0f} requests a second for {result['seconds']:.0f} s, twice the maximum rate: "
        f"{result['sent']:,} sent, {result['failures']} failed, {result['spans']:,} spans received "
        f"({result['spans'] / result['sent']:.1%} of the expected one per request)"
        + (f"; `/info` counts {result['lost']} lost." if result["lost"] is not None else ".")
    )


def conditions(results: Results) -> str:
    """Return sentences about the conditions of the measurement."""
    environment, rounds = results["environment"], len(results["rounds"])
    plural = "s" if rounds > 1 else ""
    return (
        f"Medians of {rounds} interleaved round{plural}, {results['minutes']:g} minutes: "
        f"CPython {environment['python']}, ddtrace {environment['packages']['ddtrace']}, {environment['cores']} cores. "
        "Compare the rows with each other; absolute times depend on the machine."
    )


def text(results: Results) -> str:
    """Return the tables and the conditions as text. Without results of this service, there is only the first table."""
    tables = [candidates_table(results)]
    if any(THIS_SERVICE in one_round for one_round in results["rounds"]):
        tables += [concurrency_table(results), targets_table(results), endurance_sentences(results)]
    paragraphs = ["\n".join(lines) for lines in tables] + [conditions(results)]
    return "\n\n".join(filter(None, paragraphs))


def load() -> Results:
    """Return the results that `scripts/bench --write` saved."""
    results: Results = json.loads(RESULTS.read_text())
    return results


def with_rounded_numbers(results: Results) -> Results:
    """Return `results` with every number rounded to three decimal places."""
    # JSON's parser visits every number, however deeply it is nested.
    result: Results = json.loads(json.dumps(results), parse_float=lambda number: round(float(number), 3))
    return result


def save(results: Results, path: Path = RESULTS) -> None:
    """Write `results` to `path`, by default to the file that `load` reads."""
    path.write_text(json.dumps(results, indent=1) + "\n")


def generated_texts(results: Results) -> dict[Path, str]:
    """Return, for each file, the text between its markers."""
    return {
        ROOT / "docs" / "performance.md": "\n".join([*candidates_table(results), "", conditions(results)]),
        ROOT / "benchmarks" / "README.md": "\n".join(
            [*targets_table(results), "", *concurrency_table(results), "", *endurance_sentences(results)]
        ),
    }


def write_docs(results: Results) -> None:
    """Draw the chart, and put the tables between the markers of their files."""
    CHART.write_text(chart.draw(results))
    for path, tables in generated_texts(results).items():
        before, _, rest = path.read_text().partition(BEGIN)
        path.write_text(f"{before}{BEGIN}{tables}\n{END}{rest.partition(END)[2]}")
