"""`scripts/bench`: measure all candidates in interleaved rounds, and print the tables."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import endurance, measure, process, report
from benchmarks.candidates import CANDIDATES

# The seconds are those of the warm-up and of the measurement.
ROUNDS, SECONDS = 3, (1, 4)  # takes a quarter of an hour
QUICK_ROUNDS, QUICK_SECONDS = 1, (0, 1)  # takes two minutes, without a warm-up


def measure_candidate(name: str, backend: measure.Backend, seconds: tuple[int, int]) -> dict[str, Any]:
    """Start one candidate, measure it at each of its points, and return the results.

    A point is a path and a number of clients.
    """
    candidate = CANDIDATES[name]
    with measure.running_candidate(candidate, backend) as (port, process_tree):
        start_seconds = process.wait_until_responding(port, process_tree, candidate.points[0].path)
        results: dict[str, Any] = {"start_s": start_seconds, "points": {}}
        for point in candidate.points:
            sample = measure.sample(candidate, point, (port, process_tree), backend, seconds)
            results["points"][point.name] = asdict(sample)
            print_progress(
                f"  {name} {point.name}: {sample.cpu_us:.0f} µs CPU per request, "
                f"{sample.per_second:.0f} requests/s, p99 {sample.p99_ms:.0f} ms"
            )
    return results


def print_progress(text: str) -> None:
    """Print to standard error, because standard output has only the tables."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print the tables, and save the results if requested."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short round without the endurance test; takes two minutes"
    )
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}, or {QUICK_ROUNDS} with --quick")
    parser.add_argument("--only", nargs="+", choices=CANDIDATES, metavar="NAME", help=", ".join(CANDIDATES))
    parser.add_argument(
        "--write", action="store_true", help="save the results, and update the tables and the chart in the docs"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the results to FILE")
    parser.add_argument("--draw", action="store_true", help="redraw tables and chart from the saved results")
    options = parser.parse_args()
    if options.write and (options.quick or options.only):
        parser.error("--write replaces all saved results, so it can't be used with --quick or --only")
    if options.draw:
        report.write_docs(report.load())
        return 0
    if shutil.which("wrk") is None:
        print("wrk is not installed: apt-get install wrk", file=sys.stderr)
        return 1
    start = time.monotonic()
    names = options.only or list(CANDIDATES)
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if options.quick else (ROUNDS, SECONDS)
    results: dict[str, Any] = {"environment": report.environment(), "rounds": [], "endurance": None}
    process.raise_file_limit()
    with measure.running_backend() as backend:
        for number in range(options.rounds or rounds):
            print_progress(f"round {number + 1}")
            results["rounds"].append({name: measure_candidate(name, backend, seconds) for name in names})
        if not options.quick and not options.only:
            print_progress("endurance")
            results["endurance"] = endurance.run(backend)
    results = report.with_rounded_numbers(results)
    results["minutes"] = round((time.monotonic() - start) / 60, 1)
    print(report.text(results))
    if options.json:
        report.save(results, options.json)
    if options.write:
        report.save(results)
        report.write_docs(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
