"""Tests that the lock files agree with pyproject.toml, and that production installs nothing that only tests need."""

from __future__ import annotations

import runpy
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.stem)
def test_the_lock_files_are_up_to_date(path: Path) -> None:
    """`scripts/lock` ran after the last change of the dependencies, and wrote exact versions and no index URL.

    The first line of a lock file has a digest of the dependencies.
    """
    header = runpy.run_path(str(ROOT / "scripts" / "lock.py"))["header"]
    text = path.read_text()

    assert text.splitlines()[0] == header().strip()
    assert "://" not in text
    assert all("==" in line for line in text.splitlines() if line[:1].isalpha())  # each line that names a package


def test_production_installs_no_package_of_a_dependency_group() -> None:
    """Packages that only tests and development need belong to a group."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    lock = (ROOT / "requirements" / "run.txt").read_text()
    production_packages = {line.split("==")[0] for line in lock.splitlines() if "==" in line}
    entries = [entry for group in groups.values() for entry in group if isinstance(entry, str)]
    group_packages = {entry.split(">")[0].split("[")[0] for entry in entries}  # without versions and extras

    # Quart depends on flask, and the group `bench` also lists it.
    assert production_packages & group_packages == {"flask"}
