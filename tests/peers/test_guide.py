"""deploy/README.md: every command in it is run here as it stands there, in its order, in one shell's environment."""

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

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(600)]

GUIDE = (ROOT / "deploy" / "README.md").read_text()
KEY = "ffeeddccbbaa99887766554433221100"
# What no API on loopback has: the command, and why it is left out.
NOT_HERE = {
    "aws cloudformation detect-stack-drift --stack-name hello-service": "the API on loopback knows no drift",
}


def commands() -> list[str]:
    """Return the commands of the guide in order, one a line."""
    blocks = re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def block(beginning: str) -> list[str]:
    """Return the commands from the one that begins so to the end of its block."""
    (found,) = [each for each in re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL) if each.startswith(beginning)]
    return [line for line in found.splitlines() if line]


@contextmanager
def front_door(account: Account) -> Iterator[str]:
    """Stand where the load balancer's name would lead: a proxy that answers as the version that the service runs."""

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ecs = account.client("ecs")
            (running,) = ecs.describe_services(cluster="hello-service", services=["hello-service"])["services"]
            task = ecs.describe_task_definition(taskDefinition=running["taskDefinition"])["taskDefinition"]
            environment = {each["name"]: each["value"] for each in task["containerDefinitions"][0]["environment"]}
            body = json.dumps({"status": "ok", "version": environment["DD_VERSION"]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with served(ThreadingHTTPServer(("127.0.0.1", 0), Door)) as url:
        yield url


class Reader:
    """A person in a clean checkout who types the guide's commands."""

    def __init__(self, account: Account, place: Path, door: str) -> None:
        self.account = account
        self.place = place
        network = account.network()
        self.variables = {
            **account.environment,
            "http_proxy": door,
            "no_proxy": "127.0.0.1",
            "DD_API_KEY": KEY,
            "VPC": network["VpcId"],
            "PUBLIC": network["LoadBalancerSubnets"],
            "PRIVATE": network["TaskSubnets"],
            "VERSION": "1.0.0",
        }
        self.typed: list[str] = []
        self.git("init", "--quiet")
        self.commit()

    def git(self, *arguments: str) -> None:
        identity = ["-c", "user.name=reader", "-c", "user.email=reader@example.com"]
        subprocess.run(["git", *identity, *arguments], cwd=self.place, check=True, capture_output=True)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "A version")

    def types(self, *lines: str, given: str = "") -> str:
        """Run `lines` as they are and return what the last one said."""
        said = ""
        for line in lines:
            self.typed.append(line)
            if line in NOT_HERE or line.startswith("export "):
                continue
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", line],
                cwd=self.place,
                env=self.variables,
                input=given,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            assert KEY not in done.stdout + done.stderr
            said = done.stdout
        return said

    def parameters(self, **more: str) -> None:
        values = {**self.account.network(), **more}
        (self.place / "parameters.json").write_text(
            json.dumps([{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()])
        )

    def learns(self) -> None:
        """Take over from the stack's outputs what later commands name."""
        stack = self.account.client("cloudformation").describe_stacks(StackName="hello-service")["Stacks"][0]
        outputs = {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
        groups = self.account.client("elbv2").describe_target_groups()["TargetGroups"]
        self.variables |= {
            "SECRET_ARN": outputs["SecretArn"],
            "REPOSITORY": outputs["RepositoryUri"],
            "LOAD_BALANCER": outputs["LoadBalancerName"],
            "TARGET_GROUP": groups[0]["TargetGroupArn"],
        }


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader with an account of their own."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "deploy", checkout / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / ".gitignore").write_text("*.json\n__pycache__\n")
    place = tmp_path / "account"
    place.mkdir()
    with aws.account(place) as account:
        (place / "docker").write_text((place / "docker-without-registry").read_text())
        (place / "docker").chmod(0o755)
        with front_door(account) as door:
            yield Reader(account, checkout, door)


def test_every_command_of_the_guide_does_what_it_says(reader: Reader) -> None:
    """By the script and by hand, each to a service that answers; at the end, the list before production."""
    ecs = reader.account.client("ecs")

    # By hand.
    reader.parameters()
    reader.types(*block("aws cloudformation create-stack"))
    reader.learns()
    reader.types(*block("printf"))
    reader.types(*block("docker build"))
    dry, register = block("deploy/deploy up --dry-run --version")
    printed = reader.types(dry)
    (reader.place / "filled-in.json").write_text(printed[printed.index("{\n") : printed.index("\n}\n") + 2])
    registered = json.loads(reader.types(register))["taskDefinition"]
    reader.parameters(TaskDefinition=registered["taskDefinitionArn"])
    assert json.loads(reader.types(*block("aws cloudformation update-stack")))["version"] == "1.0.0"

    # The list, of what runs now.
    assert json.loads(reader.types(*block("aws ecs describe-services")))["version"] == "1.0.0"

    # The script: a first time where nothing is, again, back, and away.
    reader.types(block("deploy/deploy up\n")[2], given="hello-service\n")
    first = block("export AWS_DEFAULT_REGION")
    reader.types(*first)
    reader.commit()
    up, back, away = block("deploy/deploy up\n")
    reader.types(up)
    assert len(ecs.list_task_definitions(familyPrefix="hello-service", status="ACTIVE")["taskDefinitionArns"]) == 2
    assert "back to" in reader.types(back)
    reader.types(away, given="hello-service\n")
    assert ecs.list_task_definitions(familyPrefix="hello-service", status="ACTIVE")["taskDefinitionArns"] == []

    reader.types(*block("python deploy/cost.py"))

    assert set(reader.typed) == set(commands())


def test_the_build_for_graviton_is_the_one_that_the_script_asks_for() -> None:
    """The guide names both platforms, as the script has them."""
    assert set(definition.PLATFORMS.values()) == {"linux/amd64", "linux/arm64"}
    assert "linux/arm64" in GUIDE


def test_the_costs_are_those_that_the_script_calculates() -> None:
    """The table of the guide is what deploy/cost.py prints."""
    printed = subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "cost.py")], capture_output=True, text=True, check=True
    ).stdout

    assert printed in GUIDE


def test_a_link_within_the_guide_leads_somewhere() -> None:
    """Each is the name of a section."""
    sections = {
        re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in re.findall(r"^#+ (.*)$", GUIDE, re.MULTILINE)
    }

    assert set(re.findall(r"\]\(#([^)]+)\)", GUIDE)) <= sections


def test_every_parameter_is_told() -> None:
    """The table of `--set` has each parameter of the stack that a person decides."""
    parameters = re.findall(
        r"^  (\w+):\n    Type:", (ROOT / "deploy" / "stack.yaml").read_text().split("Conditions:")[0], re.MULTILINE
    )
    untold = [name for name in parameters if f"`{name}`" not in GUIDE and f"{name}=" not in GUIDE]

    assert untold == []
