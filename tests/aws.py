"""AWS for tests: moto's API on loopback, the real AWS CLI in front of it, and every command line written down.

docker's part that needs a registry is played by a program that writes down what it was asked, too.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import boto3
from fake_http import served
from running import BIN, ROOT, clean_environment, eventually, free_port, started

REGION = "eu-west-1"
DEPLOY = ROOT / "deploy" / "deploy"
# What reads; everything else changes something.
READING = ("describe-", "get", "list-", "wait")


# In front of the AWS CLI: a prepared program may stand for one command, so that a test can show any answer of AWS.
STUBBED = """[ -x "$RECORD.stubs/$1-$2" ] && exec "$RECORD.stubs/$1-$2" "$@" """
# Shell, as it is run for every command: one line for each, every argument ended by a unit separator.
WRITE_DOWN = """{ printf '%s\\037' "$@"; echo; } >>"$RECORD" """
WRITE_DOWN_DOCKER = """{ printf '%s\\037' docker "$@"; echo; } >>"$RECORD" """
# docker, but for the registry, which is not to be had: login wants a password, push puts a manifest where it goes.
DOCKER = """
case $1 in
build) exec "$BUILDS" "$@" ;;
login) [ -n "$(cat)" ] ;;
push)
    name=${2#*/}
    digest=$(printf %s "$2" | sha256sum | cut -c1-64)
    exec "$AWS" ecr put-image --repository-name "${name%:*}" --image-tag "${name##*:}" \\
        --image-manifest-media-type application/vnd.docker.distribution.manifest.v2+json --image-manifest \\
        "{\\"schemaVersion\\": 2, \\"config\\": {\\"digest\\": \\"sha256:$digest\\"}}" >/dev/null ;;
esac
"""


@dataclass
class Ran:
    """One run of deploy/deploy: its exit code, what it said, and every command that it ran."""

    code: int
    said: str
    complained: str
    commands: list[list[str]]

    @property
    def changes(self) -> list[str]:
        """Return what was asked of AWS that changes something, as `service verb`, and of docker."""
        changing = [each for each in self.commands if each[0] == "docker" or not each[1].startswith(READING)]
        return [" ".join(each[:2]) for each in changing]


@dataclass
class Account:
    """An AWS account at `url`, and a place to keep what is recorded."""

    url: str
    place: Path
    environment: dict[str, str] = field(default_factory=dict)

    def client(self, service: str, region: str = REGION) -> Any:
        """Return a client of the API, for asking what is there now."""
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "y"}
        return boto3.client(service, region_name=region, endpoint_url=self.url, **keys)

    @contextmanager
    def answering(self, **answers: object) -> Iterator[None]:
        """Until the block ends, `ecs__describe_tasks=...` answers that command: with JSON, or an error with that message."""
        stubs = {name.replace("__", "-", 1).replace("_", "-"): answer for name, answer in answers.items()}
        for name, answer in stubs.items():
            shown, code = (answer, 254) if isinstance(answer, str) else (json.dumps(answer), 0)
            program(
                self.place / "commands.stubs" / name, f"echo {shlex.quote(shown)} >&{2 if code else 1}\nexit {code}"
            )
        try:
            yield
        finally:
            for name in stubs:
                (self.place / "commands.stubs" / name).unlink()

    def network(self) -> dict[str, str]:
        """Return the parameters of the stack that have no default."""
        ec2 = self.client("ec2")
        subnets = ",".join(each["SubnetId"] for each in ec2.describe_subnets()["Subnets"])
        vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        return {"VpcId": vpc, "LoadBalancerSubnets": subnets, "TaskSubnets": subnets, "AllowedCidr": "203.0.113.7/32"}

    def deploy(self, *arguments: str, given: str = "", **environment: str) -> Ran:
        """Run deploy/deploy with `environment`; `given` is its standard input."""
        return self.run([str(DEPLOY), *arguments], given, **environment)

    def run(self, command: list[str], given: str = "", **environment: str) -> Ran:
        """Run any command where this account is the AWS that it finds."""
        record = self.place / "commands"
        record.unlink(missing_ok=True)
        variables = {**self.environment, **environment}
        done = subprocess.run(
            command, cwd=ROOT, env=variables, input=given, capture_output=True, text=True, check=False
        )
        lines = record.read_text().splitlines() if record.exists() else []
        return Ran(done.returncode, done.stdout, done.stderr, [line.split("\037")[:-1] for line in lines])


@contextmanager
def account(place: Path, engine_environment: Mapping[str, str] | None = None) -> Iterator[Account]:
    """Give an account with nothing in it but its default network.

    `engine_environment`: of a container engine that builds images; without one, builds are only written down.
    """
    port = free_port()
    server = [sys.executable, str(Path(__file__).with_name("aws_server.py")), "-H", "127.0.0.1", "-p", str(port)]
    environment = {name: value for name, value in clean_environment().items() if not name.startswith("AWS_")}
    with started(server, {**environment, "MOTO_ECS_SERVICE_RUNNING": "1"}) as running:

        def listens() -> bool:
            assert running.process.poll() is None, running.lines
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        eventually(listens, timeout=60)
        url = f"http://127.0.0.1:{port}"
        environment |= {
            "PATH": f"{place}{os.pathsep}{BIN}{os.pathsep}{environment['PATH']}",
            "HOME": str(place),
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "DOCKER": str(place / "docker-without-registry"),
            "RECORD": str(place / "commands"),
            "AWS": str(BIN / "aws"),
            "BUILDS": str(place / "builds") if engine_environment else "true",
        }
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in (engine_environment or {}).items())
        program(place / "builds", f'{exports}exec docker "$@"')
        program(place / "aws", f'{WRITE_DOWN}\n{STUBBED}\nexec {BIN}/aws "$@"')
        (place / "commands.stubs").mkdir()
        program(place / "docker-without-registry", f"{WRITE_DOWN_DOCKER}\n{DOCKER}")
        yield Account(url, place, environment)


def program(path: Path, body: str) -> None:
    """Write `body` as a shell program."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class _RolledBack(BaseHTTPRequestHandler):
    """CloudFormation where every stack that is created is rolled back."""

    created = False

    def do_POST(self) -> None:
        body = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        action, name = body["Action"][0], body["StackName"][0]
        stack = f"<StackName>{name}</StackName><CreationTime>2026-01-01T00:00:00Z</CreationTime>"
        if action == "CreateStack":
            type(self).created = True
            self._answer(200, action, "<StackId>arn:stack</StackId>")
        elif not self.created:
            self._answer(
                400, "Error", f"<Code>ValidationError</Code><Message>Stack with id {name} does not exist</Message>"
            )
        elif action == "DescribeStacks":
            status = "<StackStatus>ROLLBACK_COMPLETE</StackStatus>"
            self._answer(200, action, f"<Stacks><member>{stack}{status}</member></Stacks>")
        else:
            self._answer(200, action, f"<StackEvents>{self._events()}</StackEvents>")

    def _events(self) -> str:
        """The newest first: what was cancelled is not the reason."""
        happened = [
            ("Cluster", "AWS::ECS::Cluster", "CREATE_FAILED", "Resource creation cancelled"),
            (
                "LoadBalancer",
                "AWS::ElasticLoadBalancingV2::LoadBalancer",
                "CREATE_FAILED",
                "At least two subnets in two different Availability Zones must be specified",
            ),
            ("stack", "AWS::CloudFormation::Stack", "CREATE_IN_PROGRESS", "User Initiated"),
            ("Repository", "AWS::ECR::Repository", "CREATE_FAILED", "of an attempt before"),
        ]
        told = "<LogicalResourceId>{}</LogicalResourceId><ResourceType>{}</ResourceType>"
        told += "<ResourceStatus>{}</ResourceStatus><ResourceStatusReason>{}</ResourceStatusReason>"
        fixed = "<EventId>e</EventId><StackId>s</StackId><StackName>s</StackName><Timestamp>2026-01-01T00:00:00Z</Timestamp>"
        return "".join(f"<member>{fixed}{told.format(*each)}</member>" for each in happened)

    def _answer(self, status: int, action: str, inner: str) -> None:
        wrapped = f"<{action}Result>{inner}</{action}Result>" if status < 400 else f"<Error>{inner}</Error>"
        tag = f"{action}Response"
        body = f'<{tag} xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">{wrapped}</{tag}>'.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def cloudformation_that_rolls_back() -> Iterator[str]:
    """Give the address of a CloudFormation that can't create a stack."""
    _RolledBack.created = False
    with served(ThreadingHTTPServer(("127.0.0.1", 0), _RolledBack)) as url:
        yield url
