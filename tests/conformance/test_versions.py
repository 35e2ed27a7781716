"""scripts/test-versions, as CI runs it: the oldest ddtrace that tracing.py takes, and the locked one, from PyPI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import BIN, ROOT, clean_environment


@pytest.mark.xdist_group("versions")  # shares nothing with the other tests of this folder
@pytest.mark.once
@pytest.mark.timeout(600)
def test_the_oldest_and_the_locked_ddtrace_make_the_same_spans() -> None:
    """With each release of Quart that this Python has, on Hypercorn and uvicorn."""
    versions = Path(__file__).with_name("versions.py")
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"  # uv is there
    environment = clean_environment({"PYTHONPATH": str(ROOT / "tests"), "PATH": path})
    command = [sys.executable, str(versions), "oldest", "locked"]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    rows = done.stdout.splitlines()[2:]

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rows) >= 4
    assert all(row.endswith("| yes | yes |") for row in rows)
