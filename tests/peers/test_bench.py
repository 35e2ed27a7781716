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
LIMIT = "raw-hypercorn"
MISSING = [
    reason
    for reason, there in (
        ("there is no wrk on this machine", shutil.which("wrk")),
        ("there is no .venv-bench: scripts/bench --help makes it", (ENVIRONMENT / "made-bench").exists()),
    )
    if not there
]
pytestmark = [pytest.mark.once, pytest.mark.serial, pytest.mark.skipif(bool(MISSING), reason=", ".join(MISSING))]


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in clean_environment().items() if name not in {"VENV", "PYTHON"}}
    command = [str(ENVIRONMENT / "bin" / "python"), "-m", "benchmarks", *arguments]
    path = f"{ENVIRONMENT / 'bin'}{os.pathsep}{kept['PATH']}"
    return subprocess.run(
        command, cwd=ROOT, env={**kept, "PATH": path, **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Return the printed text and the results."""
    kept: Path = tmp_path_factory.mktemp("bench") / "results.json"
    ended = bench("--quick", "--only", OURS_NAME, LIMIT, "--json", str(kept))

    assert ended.returncode == 0, ended.stderr
    return ended.stdout, json.loads(kept.read_text())


def test_every_point_is_measured(measured: tuple[str, dict[str, Any]]) -> None:
    """Each contestant runs without a failure, and has a cost and a start time."""
    (first,) = measured[1]["rounds"]

    assert set(first) == {OURS_NAME, LIMIT}
    for name, found in first.items():
        assert found["start_s"] > 0
        assert set(found["points"]) == {point.name for point in ALL[name].points}
        for sample in found["points"].values():
            assert sample["cpu_us"] > 0
            assert sample["failures"] == 0
    assert first[OURS_NAME]["points"][HELLO.name]["completed"] > 0


def test_no_span_is_lost(measured: tuple[str, dict[str, Any]]) -> None:
    """In addition to the spans that were due, only those of interrupted requests and of the first request may arrive."""
    for sample in measured[1]["rounds"][0][OURS_NAME]["points"].values():
        each = 1 if sample["spans_due"] == sample["completed"] else 2
        assert sample["spans_due"] <= sample["spans"] <= each * sample["sent"] + 1


def test_it_prints_the_tables(measured: tuple[str, dict[str, Any]]) -> None:
    """The tables show the contestants, this service by clients, and the targets that such a run can measure."""
    printed, results = measured
    lines = printed.splitlines()

    assert [line for line in lines if line.startswith(f"| {ALL[OURS_NAME].title} |")]
    assert [line for line in lines if line.startswith("| 1,024 |")]
    assert [
        line for line in lines if line.startswith("| requests/s of `/api/relay`, 256 clients ÷ 64 clients | ≥ 0.9 |")
    ]
    assert figures.ratio(results, (OURS_NAME, HELLO, "cpu_us"), (LIMIT, HELLO, "cpu_us")) is not None
    assert report.text(results) == printed.rstrip("\n")


def test_the_picture_can_be_drawn(measured: tuple[str, dict[str, Any]]) -> None:
    """Each contestant measured with tracing has a bar in each group."""
    assert picture.draw(measured[1]).count("<rect x=") == 2


def test_without_wrk_the_error_has_the_package_to_install() -> None:
    ended = bench("--quick", PATH="")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "wrk is not installed: apt-get install wrk\n"
