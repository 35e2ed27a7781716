"""Tests of deploy/README.md: its commands run as written, in order, in one environment, and it agrees with the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aws
import definition
import pytest
from aws import Account
from fake_http import served
from running import ROOT
from stack import RESERVED

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(600)]

GUIDE = (ROOT / "deploy" / "README.md").read_text()
KEY = "ffeeddccbbaa99887766554433221100"
# Commands that don't run here.
UNSUPPORTED = {
    'aws cloudformation detect-stack-drift --stack-name "$STACK"',  # the fake AWS account does not detect drift
}
# The input of each command that requires a confirmation: the name of the stack.
CONFIRMATIONS = {
    "deploy/deploy destroy": "hello-service\n",
    "deploy/deploy destroy --stack hello-service-dev": "hello-service-dev\n",
    'deploy/deploy destroy --stack "$STACK"': "hello-by-hand\n",
}


def guide_commands() -> list[str]:
    """Return the commands in the guide's code blocks and in its table with a command column, in their order."""
    code_block = r"```bash\n(.*?)```"
    table_row = r"^\| [^|`]+ \| `([^`]+)` \|[^|]+\|$"  # the second of three cells is code
    matches = re.findall(f"{code_block}|{table_row}", GUIDE, re.DOTALL | re.MULTILINE)
    return [line for block, cell in matches for line in (block or cell).splitlines() if line]


def deploy_role_policies() -> str:
    """Return the text of the policies of DeployRole in deploy/stack.yaml."""
    template = (ROOT / "deploy" / "stack.yaml").read_text()
    role = template[template.index("  DeployRole:") : template.index("  Scaling:")]  # the next resource
    return role.split("Policies:")[1]


@contextmanager
def load_balancer(account: Account) -> Iterator[str]:
    """Run an HTTP proxy in place of all load balancers. It responds with the version that the service should run."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ecs = account.client("ecs")
            # A load balancer's host name is an output of its stack. Stack and cluster have the same name.
            stacks = account.client("cloudformation").describe_stacks()["Stacks"]
            (cluster,) = [
                stack["StackName"] for stack in stacks if self.headers["Host"] in json.dumps(stack["Outputs"])
            ]
            (ecs_service,) = ecs.describe_services(cluster=cluster, services=["hello-service"])["services"]
            task = ecs.describe_task_definition(taskDefinition=ecs_service["taskDefinition"])["taskDefinition"]
            variables = task["containerDefinitions"][0]["environment"]
            (version,) = [variable["value"] for variable in variables if variable["name"] == "DD_VERSION"]
            body = json.dumps({"status": "ok", "version": version}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with served(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        yield url


class Reader:
    """A reader of the guide, who runs its commands in a clean checkout. `proxy` responds in place of load balancers."""

    def __init__(self, account: Account, checkout: Path, proxy: str) -> None:
        self.account = account
        self.checkout = checkout
        network = account.network()
        # The reader's own values for variables that the guide exports with an example value.
        self.own_values = {
            "AWS_DEFAULT_REGION": aws.REGION,
            "DD_API_KEY": KEY,
            "VPC": network["VpcId"],
            "PUBLIC": network["LoadBalancerSubnets"],
            "PRIVATE": network["TaskSubnets"],
            "MY_NETWORK": network["AllowedCidr"],
            "GITHUB": "owner/name",
        }
        self.environment = {**account.environment, "http_proxy": proxy, "no_proxy": "127.0.0.1"}
        # A script of `export` commands: each command of the guide gets the variables that earlier ones have exported.
        self.exports = checkout.parent / "exports"
        self.exports.touch()
        self.git("init", "--quiet")
        self.commit()

    def git(self, *arguments: str) -> None:
        identity = ["-c", "user.name=reader", "-c", "user.email=reader@example.com"]
        subprocess.run(["git", *identity, *arguments], cwd=self.checkout, check=True, capture_output=True)

    def version(self) -> str:
        """Return the version that deploy/deploy gives this checkout by default."""
        command = ["git", "rev-parse", "--short=12", "HEAD"]
        return subprocess.run(command, cwd=self.checkout, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "A version")

    def run(self, line: str, stdin: str = "") -> str:
        """Run `line` with the variables that were exported so far, and return its output.

        The line is unchanged, except that the reader's own value replaces an exported example.
        """
        export = re.match(r"export (\w+)=", line)
        if export and export[1] in self.own_values:
            line = f"export {export[1]}='{self.own_values[export[1]]}'"
        script = f'set -a; . "{self.exports}"; set +a\n{line}\nexport -p >"{self.exports}"'
        process = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.checkout,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, f"{line}\n{process.stdout}\n{process.stderr}"
        assert self.own_values["DD_API_KEY"] not in process.stdout + process.stderr
        return process.stdout


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Yield a reader with a new fake AWS account and a checkout of deploy/."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "deploy", checkout / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / ".gitignore").write_text("__pycache__\n")
    folder = tmp_path / "account"
    folder.mkdir()
    with aws.account(folder) as account:
        shutil.copy(folder / "docker-without-registry", folder / "docker")  # the guide's own commands run `docker`
        with load_balancer(account) as proxy:
            yield Reader(account, checkout, proxy)


def test_every_command_of_the_guide_succeeds(reader: Reader) -> None:
    """The commands run in order and as written. The reader only sets values, commits, and confirms."""
    ecs = reader.account.client("ecs")
    outputs: dict[str, str] = {}  # of the last run of each command
    for line in guide_commands():
        if line == "deploy/deploy up":
            reader.commit()  # so that each `up` deploys another version
        if line.startswith("export DD_API_KEY") and line in outputs:  # the second time, the guide replaces the key
            reader.own_values["DD_API_KEY"] = KEY[::-1]
        if line not in UNSUPPORTED:
            outputs[line] = reader.run(line, stdin=CONFIRMATIONS.get(line, ""))
            if line.startswith("curl"):
                assert json.loads(outputs[line])["version"] == reader.version()

    assert "from hello-service:2 back to hello-service:1" in outputs["deploy/deploy rollback"]
    assert "running tasks are replaced" in outputs["deploy/deploy up"]
    assert "no mistake" in outputs["python deploy/check.py deploy/task-definition.json"]
    assert json.loads(outputs["python deploy/monitors.py --env production"])["monitors"]
    assert reader.account.client("cloudformation").describe_stacks()["Stacks"] == []
    for family in ("hello-service", "hello-service-dev", "hello-by-hand"):
        assert ecs.list_task_definitions(familyPrefix=family, status="ACTIVE")["taskDefinitionArns"] == []


def test_guide_commands_include_the_table_and_all_exceptions() -> None:
    """Otherwise, a change of the guide could make UNSUPPORTED, CONFIRMATIONS or the pattern for tables useless."""
    command_in_table = 'curl --fail --silent "http://$LOAD_BALANCER/info"'

    assert {*UNSUPPORTED, *CONFIRMATIONS, command_in_table} <= set(guide_commands())


def test_the_guide_lists_the_rights_of_the_role_that_deploys() -> None:
    # "iam:PassedToService", in quotation marks, is the key of a condition.
    action_without_quotes = r"(?<!\")\b(?:cloudformation|secretsmanager|ecr|ecs|iam):(\w+)"
    actions = re.findall(action_without_quotes, deploy_role_policies())

    assert len(actions) > 20  # fewer would mean that the pattern no longer matches
    assert [action for action in actions if f"`{action}`" not in GUIDE] == []


def test_the_guide_has_both_platforms_of_the_script() -> None:
    assert set(definition.PLATFORMS.values()) == {"linux/amd64", "linux/arm64"}
    assert "linux/amd64" in GUIDE
    assert "linux/arm64" in GUIDE


def test_the_guide_has_the_costs_that_the_script_calculates() -> None:
    """The table of the guide is the output of deploy/cost.py."""
    command = [sys.executable, str(ROOT / "deploy" / "cost.py")]
    process = subprocess.run(command, capture_output=True, text=True, check=True)

    assert process.stdout in GUIDE


def test_every_link_within_the_guide_leads_to_a_section() -> None:
    headings = re.findall(r"^#+ (.*)$", GUIDE, re.MULTILINE)
    # GitHub's anchors: lower case, without punctuation, hyphens for spaces.
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}

    assert set(re.findall(r"\]\(#([^)]+)\)", GUIDE)) <= anchors


def test_the_guide_has_every_parameter_of_the_stack() -> None:
    """Only the RESERVED ones, which `--set` does not accept, may be missing."""
    template = (ROOT / "deploy" / "stack.yaml").read_text()
    parameters = re.findall(r"^  (\w+):\n    Type:", template.split("Conditions:")[0], re.MULTILINE)
    missing = {name for name in parameters if f"`{name}`" not in GUIDE and f"{name}=" not in GUIDE}

    assert set(parameters) >= set(RESERVED)
    assert missing <= set(RESERVED)
