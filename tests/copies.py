"""Makes fresh copies of this repository, and applies the changes of docs/make-it-yours.md to them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from running import BIN, ROOT, unmeasured_environment

GUIDE = Path("docs", "make-it-yours.md")
# ddapm-test-agent creates the last two folders.
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", "__pycache__", ".coverage*", ".*_cache", ".hypothesis", "snapshots", "vcr-cassettes"
)
# A code block of the guide. Its groups are the path in backticks, the note after the path, the language, and the text.
BLOCK = re.compile(r"^`([^`\n]+)`([^\n]*):\n\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def copy_to(folder: Path) -> Path:
    """Copy the files that a fresh clone would have, without the history, and return the path of the copy."""
    return Path(shutil.copytree(ROOT, folder, ignore=NOT_COPIED, dirs_exist_ok=True))


def environment(copy: Path) -> dict[str, str]:
    """Return an environment in which Python imports the package from `copy`."""
    return {**unmeasured_environment(), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(copy)}


def run(copy: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run `command` in the folder `copy`."""
    return subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True, check=False)


def run_unit_tests(copy: Path, *paths: str) -> subprocess.CompletedProcess[str]:
    """Run the unit tests of the copy, or only those in `paths`, except tests that need an installed copy."""
    command = (str(BIN / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider")
    # The copy isn't installed, so its distribution has no version.
    version_test = "tests/unit/test_command_line.py::test_the_version_matches_the_installed_distribution"
    # test_sbom.py would create a virtual environment in the copy.
    excluded = ("--ignore", "tests/unit/test_sbom.py", "--deselect", version_test)
    return run(copy, *command, *excluded, *(paths or ["tests/unit"]))


def apply_section(copy: Path, heading: str) -> None:
    """Apply every block of the guide's section `heading` to the copy."""
    guide = (copy / GUIDE).read_text()
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", guide, re.MULTILINE | re.DOTALL)
    for name, note, language, block in BLOCK.findall(section):
        path = copy / name
        if language == "diff":
            path.write_text(apply_diff(path.read_text(), block))
        else:
            assert "a new file" in note
            assert not path.exists()
            path.write_text(block)


def apply_diff(text: str, diff: str) -> str:
    """Return `text` with the hunks of `diff` applied, which are separated by `@@`.

    The old lines of each hunk must occur in `text` exactly once.
    """
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text
