"""Tests of `scripts/adopt`, which turns a fresh copy of this repository into a service with another name."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
from copies import copy_to, run, run_unit_tests
from running import BIN

pytestmark = pytest.mark.once

# Regular expressions of the repository may contain a character class between the words of the name.
OLD_NAME = re.compile(r"hello(?:[-_]|\[[-_]+\])service|HelloService")
# The unit tests that read the service's name in files, in the environment and in a process's output.
TESTS_THAT_READ_THE_NAME = (
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


@pytest.mark.parametrize("name", ["my-orders", "orders"])
def test_a_renamed_copy_does_not_contain_the_old_name(copy: Path, name: str) -> None:
    """The script is deleted too, and the copy passes ruff and import-linter."""
    adopted = run(copy, "scripts/adopt", name)
    package = name.replace("-", "_")
    files = [path for path in copy.rglob("*") if path.is_file() and "_cache" not in str(path)]
    with_old_name = [path for path in files if OLD_NAME.search(str(path.relative_to(copy)))]
    with_old_name += [
        path
        for path in files  # CHANGELOG.md keeps the old name
        if path.name != "CHANGELOG.md" and OLD_NAME.search(path.read_bytes().decode(errors="replace"))
    ]

    assert adopted.returncode == 0, adopted.stderr
    assert with_old_name == []
    assert (copy / package / "observability" / "tracing.py").is_file()
    assert not (copy / "scripts" / "adopt").exists()
    assert run(copy, "ruff", "check").returncode == 0
    assert run(copy, "ruff", "format", "--check").returncode == 0
    assert run(copy, "lint-imports").returncode == 0


@pytest.mark.timeout(900)
def test_the_tests_of_a_renamed_copy_pass(copy: Path) -> None:
    """All tests can be collected. Only the unit tests that read the name run here; test_make_it_yours.py runs all."""
    adopted = run(copy, "scripts/adopt", "orders")
    assert adopted.returncode == 0, adopted.stderr
    collected = run(
        copy, str(BIN / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", "tests"
    )
    assert collected.returncode == 0, collected.stdout
    tests = run_unit_tests(copy, *(f"tests/unit/test_{part}.py" for part in TESTS_THAT_READ_THE_NAME))
    assert tests.returncode == 0, tests.stdout


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
        ("hello-service", "is the service's name already"),
        ("hello_service", "is the service's name already"),
    ],
)
def test_an_unsuitable_name_is_rejected_and_changes_nothing(copy: Path, name: str, reason: str) -> None:
    adopted = run(copy, "scripts/adopt", name)

    assert adopted.returncode == 1
    assert reason in adopted.stderr
    assert (copy / "hello_service" / "app.py").is_file()


def test_a_second_rename_is_rejected(copy: Path) -> None:
    """After the first rename, the script could not tell the service's name from the same word elsewhere."""
    backup = copy / "adopt_backup.py"  # the script deletes itself
    shutil.copy(copy / "scripts" / "adopt.py", backup)
    run(copy, "scripts/adopt", "orders")
    backup.rename(copy / "scripts" / "adopt.py")
    second = run(copy, sys.executable, "scripts/adopt.py", "invoices")

    assert second.returncode == 1
    assert "has been renamed already" in second.stderr
