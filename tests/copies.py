"""Fresh copies of this repository, and the changes that docs/make-it-yours.md describes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from running import BIN, ROOT, unmeasured_environment

GUIDE = Path("docs", "make-it-yours.md")
MADE = shutil.ignore_patterns(
    ".git", ".venv*", "__pycache__", ".coverage*", ".*_cache", ".hypothesis", "snapshots", "vcr-cassettes"
)
BLOCK = re.compile(r"^`([^`\n]+)`([^\n]*):\n\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def copy_to(folder: Path) -> Path:
    """Copy this repository as in a fresh clone, but without its history, and return the path of the copy."""
    return Path(shutil.copytree(ROOT, folder, ignore=MADE, dirs_exist_ok=True))


def environment(copy: Path) -> dict[str, str]:
    """Return an environment in which Python imports the package from the copy."""
    return {**unmeasured_environment(), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(copy)}


def run(copy: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run `command` in the copy."""
    return subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True, check=False)


def unit_tests(copy: Path, *paths: str) -> subprocess.CompletedProcess[str]:
    """Run the unit tests of the copy, or those in `paths`, except the one that would install an environment there."""
    command = (str(BIN / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider")
    # Nothing has installed the copy, so its distribution has no version.
    uninstalled = "tests/unit/test_command_line.py::test_the_version_matches_the_installed_distribution"
    left_out = ("--ignore", "tests/unit/test_sbom.py", "--deselect", uninstalled)
    return run(copy, *command, *left_out, *(paths or ["tests/unit"]))


def follow(copy: Path, heading: str) -> dict[str, int]:
    """Make the changes of one section of the guide; return the number of lines added to each file."""
    guide = (copy / GUIDE).read_text()
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", guide, re.MULTILINE | re.DOTALL)
    lines: dict[str, int] = {}
    for name, note, language, block in BLOCK.findall(section):
        path = copy / name
        if language == "diff":
            path.write_text(patched(path.read_text(), block))
            lines[name] = len(re.findall(r"^\+", block, re.MULTILINE))
        else:
            assert "a new file" in note
            assert not path.exists()
            path.write_text(block)
            lines[name] = block.count("\n")
    return lines


def patched(text: str, diff: str) -> str:
    """Return `text` with the hunks of `diff` applied; each hunk must match in exactly one place."""
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text
