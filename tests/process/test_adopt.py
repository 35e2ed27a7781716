"""`scripts/adopt` turns a fresh copy into a service with another name."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from copies import copy_to, run, unit_tests
from running import BIN

OLD = re.compile(r"hello(?:[-_]|\[[-_]+\])service|HelloService")
# Unit tests that read names in files, in the environment and in what a process prints.
NAMES = (
    "app",
    "benchmarks",
    "command_line",
    "contract",
    "deploy",
    "docs",
    "environment",
    "logs",
    "monitors",
    "settings",
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return copy_to(tmp_path / "copy")


@pytest.mark.once
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["my-orders", "orders"])
def test_a_copy_with_another_name_is_complete(copy: Path, name: str) -> None:
    """The old name is gone, all tests can be collected, tests that read names pass, and ruff has nothing to format or
    sort. test_make_it_yours.py runs all unit tests in such a copy.
    """
    adopted = run(copy, "scripts/adopt", name)
    package = name.replace("-", "_")
    files = [path for path in copy.rglob("*") if path.is_file() and "_cache" not in str(path)]
    left = [path for path in files if OLD.search(str(path.relative_to(copy)))]
    left += [
        path for path in files if OLD.search(path.read_bytes().decode(errors="replace")) and path.name != "CHANGELOG.md"
    ]

    assert adopted.returncode == 0, adopted.stderr
    assert left == []
    assert (copy / package / "observability" / "tracing.py").is_file()
    assert not (copy / "scripts" / "adopt").exists()
    assert run(copy, "ruff", "check").returncode == 0
    assert run(copy, "ruff", "format", "--check").returncode == 0
    assert run(copy, "lint-imports").returncode == 0
    collected = run(
        copy, str(BIN / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", "tests"
    )
    assert collected.returncode == 0, collected.stdout[-5000:]
    tests = unit_tests(copy, *(f"tests/unit/test_{name}.py" for name in NAMES))
    assert tests.returncode == 0, tests.stdout[-5000:]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("My Orders", "can't be the name of a service"),
        ("", "can't be the name of a service"),
        ("1st", "can't be the name of a service"),
        ("json", "would hide a module called json"),
        ("class", "would hide a module called class"),
        ("quart-schema", "would hide a module called quart_schema"),
        ("tests", "would hide a module called tests"),
        ("running", "would hide a module called running"),
    ],
)
def test_a_name_that_can_not_be_a_package_changes_nothing(copy: Path, name: str, reason: str) -> None:
    adopted = run(copy, "scripts/adopt", name)

    assert adopted.returncode == 1
    assert reason in adopted.stderr
    assert (copy / "hello_service").is_dir()


def test_a_second_name_is_refused(copy: Path) -> None:
    """A second run could no longer distinguish the name from other words."""
    shutil.copy(copy / "scripts" / "adopt.py", copy / "again.py")
    run(copy, "scripts/adopt", "orders")
    (copy / "again.py").rename(copy / "scripts" / "adopt.py")
    again = run(copy, sys.executable, "scripts/adopt.py", "invoices")

    assert again.returncode == 1
    assert "has been renamed already" in again.stderr
