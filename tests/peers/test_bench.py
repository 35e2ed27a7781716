"""Tests of `scripts/bench` with two candidates and one short round."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from running import ROOT, clean_environment

from benchmarks import chart, figures, report
from benchmarks.candidates import CANDIDATES, HELLO, THIS_SERVICE

VENV = ROOT / ".venv-bench"
RAW_HYPERCORN = "raw-hypercorn"

skip_reasons = []
if shutil.which("wrk") is None:
    skip_reasons.append("wrk is not installed")
if not (VENV / "made-bench").exists():  # scripts/bench writes this file at the end of the installation
    skip_reasons.append(".venv-bench is missing: scripts/bench --help makes it")
pytestmark = [
    pytest.mark.once,
    pytest.mark.serial,
    pytest.mark.skipif(bool(skip_reasons), reason=", ".join(skip_reasons)),
]


@dataclass
class BenchmarkRun:
    """The text that a run of the benchmark printed, and the results that it saved."""

    printed: str
    results: dict[str, Any]


def run_bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmark in `.venv-bench`, with `environment` added to this process's environment."""
    path = f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}"
    variables = clean_environment({"PATH": path, **environment})
    command = [str(VENV / "bin" / "python"), "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def benchmark_run(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkRun:
    """Measure this service and raw ASGI on Hypercorn in one short round."""
    results_file: Path = tmp_path_factory.mktemp("bench") / "results.json"
    process = run_bench("--quick", "--only", THIS_SERVICE, RAW_HYPERCORN, "--json", str(results_file))

    assert process.returncode == 0, process.stderr
    return BenchmarkRun(printed=process.stdout, results=json.loads(results_file.read_text()))


def test_every_point_is_measured(benchmark_run: BenchmarkRun) -> None:
    """A point is a path and a number of clients. At each one, no request fails. Start times are measured, too."""
    (only_round,) = benchmark_run.results["rounds"]

    assert set(only_round) == {THIS_SERVICE, RAW_HYPERCORN}
    for name, result in only_round.items():
        assert result["start_s"] > 0
        assert set(result["points"]) == {point.name for point in CANDIDATES[name].points}
        for sample in result["points"].values():
            assert sample["cpu_us"] > 0
            assert sample["failures"] == 0
    assert only_round[THIS_SERVICE]["points"][HELLO.name]["completed"] > 0


def test_no_span_is_lost(benchmark_run: BenchmarkRun) -> None:
    """All spans of completed requests arrive. More can arrive only for interrupted requests and the first request."""
    (only_round,) = benchmark_run.results["rounds"]
    candidate = CANDIDATES[THIS_SERVICE]

    for point in candidate.points:
        sample = only_round[THIS_SERVICE]["points"][point.name]
        spans_per_request = candidate.spans[point.path.partition("?")[0]]
        spans_of_all_requests = spans_per_request * sample["sent"] + 1  # the first request measured the start time
        assert sample["spans_due"] <= sample["spans"] <= spans_of_all_requests


def test_the_tables_are_printed(benchmark_run: BenchmarkRun) -> None:
    """The tables show the candidates, this service by number of clients, and the targets that this run measured."""
    printed, results = benchmark_run.printed, benchmark_run.results

    assert f"\n| {CANDIDATES[THIS_SERVICE].title} |" in printed
    assert "\n| 1,024 |" in printed  # the row for 1,024 clients
    assert "\n| requests/s of `/api/relay`, 256 clients ÷ 64 clients | ≥ 0.9 |" in printed
    assert figures.ratio(results, (THIS_SERVICE, HELLO, "cpu_us"), (RAW_HYPERCORN, HELLO, "cpu_us")) is not None
    assert report.text(results) == printed.rstrip("\n")


def test_the_chart_can_be_drawn(benchmark_run: BenchmarkRun) -> None:
    """Each of its two groups has a bar for this service, the only candidate of this run that is traced."""
    assert chart.draw(benchmark_run.results).count("<rect x=") == 2


def test_the_error_without_wrk_has_the_command_that_installs_it() -> None:
    process = run_bench("--quick", PATH="")

    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr == "wrk is not installed: apt-get install wrk\n"


@pytest.mark.parametrize("options", [["--quick"], ["--only", THIS_SERVICE]], ids=["--quick", "--only"])
def test_a_partial_run_cannot_replace_the_saved_results(options: list[str]) -> None:
    process = run_bench("--write", *options)

    assert process.returncode == 2
    assert "can't be used with --quick or --only" in process.stderr
