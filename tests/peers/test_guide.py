"""Runs every command of deploy/README.md as it is written there, in order, in one shell's environment."""

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
# Commands that an API on loopback lacks, and the reason.
NOT_HERE = {
    'aws cloudformation detect-stack-drift --stack-name "$STACK"': "the API on loopback does not detect drift",
}
DESTROY = {
    "deploy/deploy destroy": "hello-service\n",
    "deploy/deploy destroy --stack hello-service-dev": "hello-service-dev\n",
}
DESTROY['deploy/deploy destroy --stack "$STACK"'] = "hello-by-hand\n"


def commands() -> list[str]:
    """Return the commands of the guide in order: those of its code blocks and of its last table."""
    found = re.findall(r"```bash\n(.*?)```|^\| [^|`]+ \| `([^`]+)` \|[^|]+\|$", GUIDE, re.DOTALL | re.MULTILINE)
    return [line for block, cell in found for line in (block or cell).splitlines() if line]


@contextmanager
def load_balancer(account: Account) -> Iterator[str]:
    """Stand in for the load balancers: a proxy that responds as the version that the service runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ecs = account.client("ecs")
            stacks = account.client("cloudformation").describe_stacks()["Stacks"]
            (cluster,) = [each["StackName"] for each in stacks if self.headers["Host"] in json.dumps(each["Outputs"])]
            (running,) = ecs.describe_services(cluster=cluster, services=["hello-service"])["services"]
            task = ecs.describe_task_definition(taskDefinition=running["taskDefinition"])["taskDefinition"]
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
    """A person in a clean checkout who types the guide's commands."""

    def __init__(self, account: Account, place: Path, proxy: str) -> None:
        self.account = account
        self.place = place
        network = account.network()
        # The variables that a reader sets: each `export` of the guide whose value is an example.
        self.own = {
            "AWS_DEFAULT_REGION": aws.REGION,
            "DD_API_KEY": KEY,
            "VPC": network["VpcId"],
            "PUBLIC": network["LoadBalancerSubnets"],
            "PRIVATE": network["TaskSubnets"],
            "MY_NETWORK": network["AllowedCidr"],
            "GITHUB": "owner/name",
        }
        self.environment = {**account.environment, "http_proxy": proxy, "no_proxy": "127.0.0.1"}
        self.exports = place.parent / "exports"  # keeps the shell's variables between commands
        self.exports.touch()
        self.git("init", "--quiet")
        self.commit()

    def git(self, *arguments: str) -> None:
        identity = ["-c", "user.name=reader", "-c", "user.email=reader@example.com"]
        subprocess.run(["git", *identity, *arguments], cwd=self.place, check=True, capture_output=True)

    def head(self) -> str:
        """Return the version that is checked out."""
        head = ["git", "rev-parse", "--short=12", "HEAD"]
        return subprocess.run(head, cwd=self.place, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "A version")

    def types(self, line: str, stdin: str = "") -> str:
        """Run `line` unchanged in the shell's current environment, and return its output."""
        if (own := re.match(r"export (\w+)=", line)) and own[1] in self.own:
            line = f"export {own[1]}='{self.own[own[1]]}'"
        script = f'set -a; . "{self.exports}"; set +a\n{line}\nexport -p >"{self.exports}"'
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.place,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert self.own["DD_API_KEY"] not in done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader with an account of their own."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "deploy", checkout / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / ".gitignore").write_text("__pycache__\n")
    place = tmp_path / "account"
    place.mkdir()
    with aws.account(place) as account:
        (place / "docker").write_text((place / "docker-without-registry").read_text())
        (place / "docker").chmod(0o755)
        with load_balancer(account) as proxy:
            yield Reader(account, checkout, proxy)


def test_a_session_from_the_first_command_to_the_last(reader: Reader) -> None:
    """Every command of the guide runs as written; the reader only sets values, commits, and types names."""
    ecs, printed = reader.account.client("ecs"), {}
    for number, line in enumerate(commands()):
        if line == "deploy/deploy up":
            reader.commit()
        if line.startswith("export DD_API_KEY") and number > 2:
            reader.own["DD_API_KEY"] = KEY[::-1]
        if line not in NOT_HERE:
            printed[line] = reader.types(line, stdin=DESTROY.get(line, ""))
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
    """The table's commands are found, and each command in NOT_HERE and DESTROY is in the guide."""
    assert {*NOT_HERE, *DESTROY, 'curl --fail --silent "http://$LOAD_BALANCER/info"'} <= set(commands())


def test_the_rights_are_those_of_the_role_that_deploys() -> None:
    """The guide lists each action of DeployRole."""
    template = (ROOT / "deploy" / "stack.yaml").read_text()
    role = template[template.index("  DeployRole:") : template.index("  Scaling:")]
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


def test_every_link_within_the_guide_is_a_section() -> None:
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
