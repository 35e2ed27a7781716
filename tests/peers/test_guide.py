"""Tests of deploy/README.md: every command runs as written, in order, in the environment of one shell."""

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
# Commands that the API on loopback does not support, and the reason.
UNSUPPORTED = {
    'aws cloudformation detect-stack-drift --stack-name "$STACK"': "the API on loopback does not detect drift",
}
# The commands that ask for a confirmation, and what the reader types: the name of the stack.
CONFIRMATIONS = {
    "deploy/deploy destroy": "hello-service\n",
    "deploy/deploy destroy --stack hello-service-dev": "hello-service-dev\n",
    'deploy/deploy destroy --stack "$STACK"': "hello-by-hand\n",
}


def commands() -> list[str]:
    """Return the commands of the guide in order: those of its code blocks and of its last table."""
    found = re.findall(r"```bash\n(.*?)```|^\| [^|`]+ \| `([^`]+)` \|[^|]+\|$", GUIDE, re.DOTALL | re.MULTILINE)
    return [line for block, cell in found for line in (block or cell).splitlines() if line]


@contextmanager
def load_balancer(account: Account) -> Iterator[str]:
    """Run an HTTP proxy in place of all load balancers. It responds with the version that the service should run."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ecs = account.client("ecs")
            # The host is an output of the stack, whose name is also that of the cluster.
            stacks = account.client("cloudformation").describe_stacks()["Stacks"]
            (cluster,) = [each["StackName"] for each in stacks if self.headers["Host"] in json.dumps(each["Outputs"])]
            (ecs_service,) = ecs.describe_services(cluster=cluster, services=["hello-service"])["services"]
            task = ecs.describe_task_definition(taskDefinition=ecs_service["taskDefinition"])["taskDefinition"]
            environment = {each["name"]: each["value"] for each in task["containerDefinitions"][0]["environment"]}
            body = json.dumps({"status": "ok", "version": environment["DD_VERSION"]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with served(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        yield url


class Reader:
    """A reader of the guide, who runs its commands in a clean checkout."""

    def __init__(self, account: Account, checkout: Path, proxy: str) -> None:
        self.account = account
        self.checkout = checkout
        network = account.network()
        # The reader's values of the variables for which the guide exports an example.
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
        self.exports = checkout.parent / "exports"  # the shell's variables, which each command reads and writes
        self.exports.touch()
        self.git("init", "--quiet")
        self.commit()

    def git(self, *arguments: str) -> None:
        identity = ["-c", "user.name=reader", "-c", "user.email=reader@example.com"]
        subprocess.run(["git", *identity, *arguments], cwd=self.checkout, check=True, capture_output=True)

    def head(self) -> str:
        """Return the version of the checkout."""
        head = ["git", "rev-parse", "--short=12", "HEAD"]
        return subprocess.run(head, cwd=self.checkout, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "A version")

    def run(self, line: str, stdin: str = "") -> str:
        """Run `line` in the shell's current environment, and return its output.

        It is unchanged, except that the reader's own value replaces an exported example.
        """
        export = re.match(r"export (\w+)=", line)
        if export and export[1] in self.own_values:
            line = f"export {export[1]}='{self.own_values[export[1]]}'"
        script = f'set -a; . "{self.exports}"; set +a\n{line}\nexport -p >"{self.exports}"'
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.checkout,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert self.own_values["DD_API_KEY"] not in done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader with an account of their own."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "deploy", checkout / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / ".gitignore").write_text("__pycache__\n")
    folder = tmp_path / "account"
    folder.mkdir()
    with aws.account(folder) as account:
        shutil.copy(folder / "docker-without-registry", folder / "docker")
        with load_balancer(account) as proxy:
            yield Reader(account, checkout, proxy)


def test_a_session_from_the_first_command_to_the_last(reader: Reader) -> None:
    """Every command of the guide runs as written. The reader only sets values, commits, and confirms."""
    ecs, printed = reader.account.client("ecs"), {}
    for line in commands():
        if line == "deploy/deploy up":
            reader.commit()
        if line.startswith("export DD_API_KEY") and line in printed:  # the second time, the guide replaces the key
            reader.own_values["DD_API_KEY"] = KEY[::-1]
        if line not in UNSUPPORTED:
            printed[line] = reader.run(line, stdin=CONFIRMATIONS.get(line, ""))
            if line.startswith("curl"):
                assert json.loads(printed[line])["version"] == reader.head()

    assert "from hello-service:2 back to hello-service:1" in printed["deploy/deploy rollback"]
    assert "running tasks are replaced" in printed["deploy/deploy up"]
    assert "no mistake" in printed["python deploy/check.py deploy/task-definition.json"]
    assert json.loads(printed["python deploy/monitors.py --env production"])["monitors"]
    assert reader.account.client("cloudformation").describe_stacks()["Stacks"] == []
    for family in ("hello-service", "hello-service-dev", "hello-by-hand"):
        assert ecs.list_task_definitions(familyPrefix=family, status="ACTIVE")["taskDefinitionArns"] == []


def test_every_command_is_found() -> None:
    """`commands` returns those of the table, and each command in UNSUPPORTED and CONFIRMATIONS is in the guide."""
    assert {*UNSUPPORTED, *CONFIRMATIONS, 'curl --fail --silent "http://$LOAD_BALANCER/info"'} <= set(commands())


def test_the_guide_lists_the_rights_of_the_role_that_deploys() -> None:
    template = (ROOT / "deploy" / "stack.yaml").read_text()
    role = template[template.index("  DeployRole:") : template.index("  Scaling:")]  # the next resource
    actions = re.findall(r"(?<!\")\b(?:cloudformation|secretsmanager|ecr|ecs|iam):(\w+)", role.split("Policies:")[1])

    assert len(actions) > 20
    assert [action for action in actions if f"`{action}`" not in GUIDE] == []


def test_the_guide_has_the_platforms_of_the_script() -> None:
    assert set(definition.PLATFORMS.values()) == {"linux/amd64", "linux/arm64"}
    assert "linux/arm64" in GUIDE


def test_the_costs_are_those_that_the_script_calculates() -> None:
    """The table of the guide is the output of deploy/cost.py."""
    printed = subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "cost.py")], capture_output=True, text=True, check=True
    ).stdout

    assert printed in GUIDE


def test_every_link_within_the_guide_leads_to_a_section() -> None:
    sections = {
        re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in re.findall(r"^#+ (.*)$", GUIDE, re.MULTILINE)
    }

    assert set(re.findall(r"\]\(#([^)]+)\)", GUIDE)) <= sections


def test_every_parameter_is_in_the_guide() -> None:
    """The table of `--set` has each parameter of the stack that `--set` accepts."""
    parameters = re.findall(
        r"^  (\w+):\n    Type:", (ROOT / "deploy" / "stack.yaml").read_text().split("Conditions:")[0], re.MULTILINE
    )
    missing = [name for name in parameters if f"`{name}`" not in GUIDE and f"{name}=" not in GUIDE]

    assert set(parameters) >= set(RESERVED)
    assert [name for name in missing if name not in RESERVED] == []
