"""Tests of `scripts/sbom`, which writes a valid CycloneDX document of everything that production installs."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCKED = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)


def test_the_bill_of_materials_is_valid_and_complete() -> None:
    """The document has each locked version with its hashes. `scripts/sbom` validates it against CycloneDX's own
    schema.
    """
    command = [str(ROOT / "scripts" / "sbom"), "--validate"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    document = json.loads(result.stdout)
    lock = (ROOT / "requirements" / "run.txt").read_text()
    listed = [(component["name"], component["version"]) for component in document["components"]]

    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["name"] == "hello-service"
    assert sorted(listed) == sorted(LOCKED.findall(lock))
    assert all(part["externalReferences"][0]["hashes"] for part in document["components"])
    assert all(part["purl"].startswith("pkg:pypi/") for part in document["components"])
