"""Runs scripts/test-versions as CI does: with the oldest ddtrace that tracing.py supports and the locked one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import BIN, ROOT, clean_environment


@pytest.mark.once
@pytest.mark.timeout(600)
def test_the_spans_are_right_with_the_oldest_and_the_locked_ddtrace() -> None:
    """Both are installed from PyPI with each release of Quart for this Python, and run on Hypercorn and uvicorn."""
    versions = Path(__file__).with_name("versions.py")
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # BIN has uv
    environment = clean_environment({"PYTHONPATH": str(ROOT / "tests"), "PATH": path})
    command = [sys.executable, str(versions), "oldest", "locked"]
    process = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    rows = process.stdout.splitlines()[2:]  # below the table's header

    assert process.returncode == 0, process.stdout + process.stderr
    assert len(rows) >= 4  # two releases of ddtrace, each with at least two of Quart
    assert all(row.endswith("| yes | yes |") for row in rows)
