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

from benchmarks import picture
from benchmarks.contest import ALL, HELLO, OURS_NAME, RELAY
from benchmarks.figures import TARGETS, Results, lost, middle, ratio, total, value

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results.json"
PICTURE = ROOT / "docs" / "benchmarks.svg"
BEGIN, END = "<!-- scripts/bench --write -->\n", "<!-- end of scripts/bench --write -->"
PACKAGES: tuple[str, ...] = (
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
)
PACKAGES += ("aiohttp", "httpx", "httpx-aiohttp", "requests", "uvloop")


def machine() -> dict[str, Any]:
    """Return what the results depend on in addition to the code."""
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _number(found: float | None, digits: int = 0) -> str:
    return "—" if found is None else f"{found:,.{digits}f}"


def contestants(results: Results) -> Iterator[str]:
    """Yield the table of all that were measured: medians over the rounds."""
    yield "| 64 clients, one core | `/api/hello` CPU µs | requests/s | p99 ms | `/api/relay` CPU µs | requests/s | p50 ms | p99 ms | failures | spans lost | RSS MiB | start s |"
    yield "| --- " + "| ---: " * 11 + "|"
    for name, contestant in ALL.items():
        rounds = [each[name] for each in results["rounds"] if name in each]
        if not rounds:
            continue
        cells = [_number(middle(results, (name, HELLO, field))) for field in ("cpu_us", "per_second", "p99_ms")]
        cells += [
            _number(middle(results, (name, RELAY, field))) for field in ("cpu_us", "per_second", "p50_ms", "p99_ms")
        ]
        cells += [_number(total(results, name, "failures"))]
        cells += [_number(lost(results, name) if contestant.spans else None)]
        memory = [max(sample["rss_mib"] for sample in each["points"].values()) for each in rounds]
        cells += [_number(median(memory)), _number(median(each["start_s"] for each in rounds), 1)]
        yield f"| {contestant.title} | {' | '.join(cells)} |"


def concurrency(results: Results) -> Iterator[str]:
    """Yield the cost of this service's `/api/relay`, by number of clients."""
    yield "| `/api/relay`, clients | CPU µs | requests/s | p50 ms | p99 ms | failures |"
    yield "| ---: " * 6 + "|"
    for point in ALL[OURS_NAME].points:
        if not point.path.startswith("/api/relay"):
            continue
        cells = [
            _number(middle(results, (OURS_NAME, point, field)))
            for field in ("cpu_us", "per_second", "p50_ms", "p99_ms")
        ]
        failures = sum(value(each, (OURS_NAME, point, "failures")) or 0 for each in results["rounds"])
        yield f"| {point.clients:,} | {' | '.join(cells)} | {failures:.0f} |"


def targets(results: Results) -> Iterator[str]:
    """Yield each target with its result."""
    yield "| figure | target | median (minimum to maximum) | reached |"
    yield "| --- | --- | --- | --- |"
    for target in TARGETS:
        if found := ratio(results, target.value, target.to):
            side = "≥" if target.at_least else "≤"
            reached = "yes" if target.reached(found) else "**no**"
            yield f"| {target.figure} | {side} {target.limit:g} | {found} | {reached} |"


def endurance(results: Results) -> Iterator[str]:
    """Yield the results of the endurance and the overload test."""
    if (result := results["endurance"]) is None:
        return
    before, half, after = result["rss_mib"]
    yield (f"RSS of one process: {before:.0f} MiB before, {half:.0f} after 50,000 requests, {after:.0f} after 100,000.")
    yield (
        f"Offered {result['offered'] / result['seconds']:,.0f} requests a second for {result['seconds']:.0f} s, twice the maximum rate: "
        f"{result['sent']:,} accepted, {result['failures']} failed, {result['spans']:,} spans received, "
        f"{result['spans'] / result['sent']:.3f} of those expected"
        + (f"; `/info` counts {result['lost']} lost." if result["lost"] is not None else ".")
    )


def made(results: Results) -> str:
    """Return the sentence about the measurement's conditions."""
    known, rounds = results["machine"], len(results["rounds"])
    return (
        f"Medians of {rounds} interleaved round{'s' if rounds > 1 else ''}, {results['minutes']:g} minutes: CPython {known['python']}, "
        f"ddtrace {known['packages']['ddtrace']}, {known['cores']} cores. Read the ratios; absolute times depend on the machine."
    )


def text(results: Results) -> str:
    """Return all tables as text."""
    parts = [contestants(results)]
    if any(OURS_NAME in each for each in results["rounds"]):
        parts += [concurrency(results), targets(results), endurance(results)]
    return "\n\n".join(table for part in parts if (table := "\n".join(part))) + f"\n\n{made(results)}"


def kept() -> Results:
    """Return the saved results."""
    results: Results = json.loads(RESULTS.read_text())
    return results


def rounded(results: Results) -> Results:
    """Return `results` without insignificant digits."""
    less: Results = json.loads(json.dumps(results), parse_float=lambda number: round(float(number), 3))
    return less


def keep(results: Results, path: Path) -> None:
    """Write `results` to `path`."""
    path.write_text(json.dumps(results, indent=1) + "\n")


def parts(results: Results) -> dict[Path, str]:
    """Return the text between the markers of each file."""
    return {
        ROOT / "docs" / "performance.md": "\n".join([*contestants(results), "", made(results)]),
        ROOT / "benchmarks" / "README.md": "\n".join(
            [*targets(results), "", *concurrency(results), "", *endurance(results)]
        ),
    }


def write(results: Results) -> None:
    """Draw the picture, and put the tables between their markers."""
    PICTURE.write_text(picture.draw(results))
    for path, between in parts(results).items():
        before, _, rest = path.read_text().partition(BEGIN)
        path.write_text(f"{before}{BEGIN}{between}\n{END}{rest.partition(END)[2]}")
