"""Tests of `scripts/sbom`, which writes a CycloneDX document of everything that production installs."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The name and the version of each package in a lock file, without its environment marker.
LOCKED_VERSION = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)


def test_the_bill_of_materials_is_valid_and_complete() -> None:
    """It has each locked version with its hashes. `--validate` validates it against CycloneDX's own schema."""
    command = [str(ROOT / "scripts" / "sbom"), "--validate"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    document = json.loads(result.stdout)
    lock = (ROOT / "requirements" / "run.txt").read_text()
    components = document["components"]
    versions = [(component["name"], component["version"]) for component in components]

    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["name"] == "hello-service"
    assert sorted(versions) == sorted(LOCKED_VERSION.findall(lock))
    assert all(component["externalReferences"][0]["hashes"] for component in components)
    assert all(component["purl"].startswith("pkg:pypi/") for component in components)
