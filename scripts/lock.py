"""Compile requirements/*.txt from pyproject.toml: every version with its hashes, for all supported Pythons.

The files contain no URL of a package index. Their first line has a digest of the declaration, so a test can detect a
stale file offline. Locked versions stay if they still satisfy the declaration; `--upgrade` locks the newest.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
UV = "uv==0.13.9"
# Each file, and the file whose locked versions constrain it, so that all files have the same versions. `run` has the
# dependencies of the project, each other file also those of the dependency group with its name.
FILES = {"run": None, "dev": "run", "test": "dev", "bench": "test"}


def declaration_digest() -> str:
    """Return a digest of everything in pyproject.toml that determines the lock files, and of uv's version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    inputs = [
        project["project"]["dependencies"],
        project["project"]["requires-python"],
        project["dependency-groups"],
        UV,
    ]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def header() -> str:
    return f"# Made by scripts/lock from declaration {declaration_digest()}. Do not edit.\n"


def compile_file(name: str, source: list[str], options: list[str]) -> None:
    """Compile `source` into requirements/NAME.txt."""
    target = REQUIREMENTS / f"{name}.txt"
    # `--universal` locks for every platform and, from the given version on, every Python.
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--python-version", "3.11"]
    command += ["--no-header", "--no-annotate", "--output-file", str(target), *options, *source]
    subprocess.run(command, cwd=ROOT, check=True)
    target.write_text(header() + target.read_text())


def main() -> None:
    """Compile the requirements of uv itself, and every file in `FILES`."""
    upgrade = ["--upgrade"] if "--upgrade" in sys.argv else []
    uv_in = REQUIREMENTS / "uv.in"
    uv_in.write_text(f"{UV}\n")
    compile_file("uv", [str(uv_in)], upgrade)
    uv_in.unlink()
    for name, constraint in FILES.items():
        options = [*upgrade]
        if constraint:
            options += ["--group", name, "--constraint", f"requirements/{constraint}.txt"]
        compile_file(name, ["pyproject.toml"], options)


if __name__ == "__main__":
    main()
