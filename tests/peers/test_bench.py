"""Tests of `scripts/bench` with two contestants and one short round."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from running import ROOT, clean_environment

from benchmarks import figures, picture, report
from benchmarks.contest import ALL, HELLO, OURS_NAME

ENVIRONMENT = ROOT / ".venv-bench"
RAW_HYPERCORN = "raw-hypercorn"
MISSING = [
    reason
    for reason, available in (
        ("there is no wrk on this machine", shutil.which("wrk")),
        ("there is no .venv-bench: scripts/bench --help makes it", (ENVIRONMENT / "made-bench").exists()),
    )
    if not available
]
pytestmark = [pytest.mark.once, pytest.mark.serial, pytest.mark.skipif(bool(MISSING), reason=", ".join(MISSING))]


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in clean_environment().items() if name not in {"VENV", "PYTHON"}}
    variables = {**inherited, "PATH": f"{ENVIRONMENT / 'bin'}{os.pathsep}{inherited['PATH']}", **environment}
    command = [str(ENVIRONMENT / "bin" / "python"), "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Run the benchmark, and return the printed text and the results."""
    results: Path = tmp_path_factory.mktemp("bench") / "results.json"
    done = bench("--quick", "--only", OURS_NAME, RAW_HYPERCORN, "--json", str(results))

    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(results.read_text())


def test_every_point_is_measured(measured: tuple[str, dict[str, Any]]) -> None:
    """Each contestant runs without a failure, and has a cost and a start time."""
    (only_round,) = measured[1]["rounds"]

    assert set(only_round) == {OURS_NAME, RAW_HYPERCORN}
    for name, result in only_round.items():
        assert result["start_s"] > 0
        assert set(result["points"]) == {point.name for point in ALL[name].points}
        for sample in result["points"].values():
            assert sample["cpu_us"] > 0
            assert sample["failures"] == 0
    assert only_round[OURS_NAME]["points"][HELLO.name]["completed"] > 0


def test_no_span_is_lost(measured: tuple[str, dict[str, Any]]) -> None:
    """Every span that was due arrives. The only others are those of interrupted requests and of the first request."""
    for sample in measured[1]["rounds"][0][OURS_NAME]["points"].values():
        spans_per_request = 1 if sample["spans_due"] == sample["completed"] else 2  # a relay has a second one
        assert sample["spans_due"] <= sample["spans"] <= spans_per_request * sample["sent"] + 1


def test_it_prints_the_tables(measured: tuple[str, dict[str, Any]]) -> None:
    """They show the contestants, this service by number of clients, and the targets that this run can measure."""
    printed, results = measured
    lines = printed.splitlines()

    assert [line for line in lines if line.startswith(f"| {ALL[OURS_NAME].title} |")]
    assert [line for line in lines if line.startswith("| 1,024 |")]
    assert [
        line for line in lines if line.startswith("| requests/s of `/api/relay`, 256 clients ÷ 64 clients | ≥ 0.9 |")
    ]
    assert figures.ratio(results, (OURS_NAME, HELLO, "cpu_us"), (RAW_HYPERCORN, HELLO, "cpu_us")) is not None
    assert report.text(results) == printed.rstrip("\n")


def test_the_picture_can_be_drawn(measured: tuple[str, dict[str, Any]]) -> None:
    """Each contestant measured with tracing has a bar in each group."""
    assert picture.draw(measured[1]).count("<rect x=") == 2


def test_without_wrk_the_error_has_the_package_to_install() -> None:
    done = bench("--quick", PATH="")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "wrk is not installed: apt-get install wrk\n"
