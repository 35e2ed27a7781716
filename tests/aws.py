"""AWS for tests: moto's API on loopback and the real AWS CLI. Every command line is recorded.

A program stands in for the docker commands that need a registry; it records its command lines, too.
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
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs

import boto3
from fake_http import served
from running import BIN, ROOT, eventually, free_port, started, unmeasured_environment

REGION = "eu-west-1"
DEPLOY = ROOT / "deploy" / "deploy"
# Prefixes of the verbs that only read; every other verb changes something.
READING = ("describe-", "get", "list-", "wait")


# Runs before the AWS CLI: a stub may replace one command, so that a test can use any response of AWS.
STUBBED = """[ -x "$RECORD.stubs/$1-$2" ] && exec "$RECORD.stubs/$1-$2" "$@" """
# Shell code that runs for every command: it writes one line, with a unit separator after each argument.
WRITE_DOWN = """{ printf '%s\\037' "$@"; echo; } >>"$RECORD" """
WRITE_DOWN_DOCKER = """{ printf '%s\\037' docker "$@"; echo; } >>"$RECORD" """
# docker without a registry: `login` only needs a password, `push` registers a manifest in ECR.
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


# The source of a client of aws_cli_server.py, whose first argument is the path of the socket.
AWS_CLI_CLIENT = """import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    socket.send_fds(server, [b"."], [0, 1, 2])
    server.sendall(json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    sys.exit(server.recv(1)[0])
"""


@dataclass
class Ran:
    """One run of deploy/deploy: its exit code, its output, and every command that it ran."""

    code: int
    stdout: str
    stderr: str
    commands: list[list[str]]

    @property
    def changes(self) -> list[str]:
        """Return each AWS command that changes something, as `service verb`, and each docker command."""
        changing = [each for each in self.commands if each[0] == "docker" or not each[1].startswith(READING)]
        return [" ".join(each[:2]) for each in changing]


@dataclass
class Account:
    """An AWS account at `url`, and a folder for the recorded commands."""

    url: str
    place: Path
    environment: dict[str, str] = field(default_factory=dict)

    def client(self, service: str, region: str = REGION) -> Any:
        """Return a client of the API, which shows what the account contains."""
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "y"}
        return boto3.client(service, region_name=region, endpoint_url=self.url, **keys)

    @contextmanager
    def stubbed(self, **responses: object) -> Iterator[None]:
        """Replace commands until the block ends.

        With `ecs__describe_tasks=...`, `aws ecs describe-tasks` prints that value as JSON; a string is an error message.
        """
        stubs = {name.replace("__", "-", 1).replace("_", "-"): response for name, response in responses.items()}
        for name, response in stubs.items():
            shown, code = (response, 254) if isinstance(response, str) else (json.dumps(response), 0)
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

    def deploy(self, *arguments: str, stdin: str = "", **environment: str) -> Ran:
        """Run deploy/deploy with `environment` and the standard input `stdin`."""
        return self.run([str(DEPLOY), *arguments], stdin, **environment)

    def run(self, command: list[str], stdin: str = "", **environment: str) -> Ran:
        """Run any command against this account."""
        record = self.place / "commands"
        record.unlink(missing_ok=True)
        variables = {**self.environment, **environment}
        done = subprocess.run(
            command, cwd=ROOT, env=variables, input=stdin, capture_output=True, text=True, check=False
        )
        lines = record.read_text().splitlines() if record.exists() else []
        return Ran(done.returncode, done.stdout, done.stderr, [line.split("\037")[:-1] for line in lines])


@contextmanager
def account(place: Path, engine_environment: Mapping[str, str] | None = None) -> Iterator[Account]:
    """Yield an account that contains only its default network.

    `engine_environment`: the environment of a container engine that builds images; without one, builds are only recorded.
    """
    port = free_port()
    api = [sys.executable, str(Path(__file__).with_name("aws_server.py")), "-H", "127.0.0.1", "-p", str(port)]
    environment = {name: value for name, value in unmeasured_environment().items() if not name.startswith("AWS_")}
    with started(api, {**environment, "MOTO_ECS_SERVICE_RUNNING": "1"}) as running, aws_cli(environment) as cli:

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
            "AWS": str(place / "aws-cli"),
            "BUILDS": str(place / "builds") if engine_environment else "true",
        }
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in (engine_environment or {}).items())
        program(place / "builds", f'{exports}exec docker "$@"')
        program(place / "aws-cli", f'exec {cli} "$@"')
        program(place / "aws", f'{WRITE_DOWN}\n{STUBBED}\nexec "$AWS" "$@"')
        (place / "commands.stubs").mkdir()
        program(place / "docker-without-registry", f"{WRITE_DOWN_DOCKER}\n{DOCKER}")
        yield Account(url, place, environment)


@contextmanager
def aws_cli(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a shell command that runs the AWS CLI in a fork of a process that has loaded it."""
    with TemporaryDirectory() as folder:  # a short name, because the path of a socket is limited to 108 bytes
        path = Path(folder) / "aws"
        server = [sys.executable, str(Path(__file__).with_name("aws_cli_server.py")), str(path)]
        with started(server, environment) as running:

            def listens() -> bool:
                assert running.process.poll() is None, running.lines
                return path.exists()

            eventually(listens, timeout=60)
            yield shlex.join([sys.executable, "-I", "-S", "-c", AWS_CLI_CLIENT, str(path)])


def program(path: Path, body: str) -> None:
    """Write `body` as a shell program."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class _RolledBack(BaseHTTPRequestHandler):
    """A CloudFormation API that rolls back every stack that is created."""

    created = False

    def do_POST(self) -> None:
        body = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        action, name = body["Action"][0], body["StackName"][0]
        stack = f"<StackName>{name}</StackName><CreationTime>2026-01-01T00:00:00Z</CreationTime>"
        if action == "CreateStack":
            type(self).created = True
            self._respond(200, action, "<StackId>arn:stack</StackId>")
        elif not self.created:
            self._respond(
                400, "Error", f"<Code>ValidationError</Code><Message>Stack with id {name} does not exist</Message>"
            )
        elif action == "DescribeStacks":
            status = "<StackStatus>ROLLBACK_COMPLETE</StackStatus>"
            self._respond(200, action, f"<Stacks><member>{stack}{status}</member></Stacks>")
        else:
            self._respond(200, action, f"<StackEvents>{self._events()}</StackEvents>")

    def _events(self) -> str:
        """Return the events of the stack, newest first; a cancelled resource is not the reason."""
        events = [
            ("Cluster", "AWS::ECS::Cluster", "CREATE_FAILED", "Resource creation cancelled"),
            (
                "LoadBalancer",
                "AWS::ElasticLoadBalancingV2::LoadBalancer",
                "CREATE_FAILED",
                "At least two subnets in two different Availability Zones must be specified",
            ),
            ("stack", "AWS::CloudFormation::Stack", "CREATE_IN_PROGRESS", "User Initiated"),
            ("Repository", "AWS::ECR::Repository", "CREATE_FAILED", "of an earlier attempt"),
        ]
        form = "<LogicalResourceId>{}</LogicalResourceId><ResourceType>{}</ResourceType>"
        form += "<ResourceStatus>{}</ResourceStatus><ResourceStatusReason>{}</ResourceStatusReason>"
        fixed = "<EventId>e</EventId><StackId>s</StackId><StackName>s</StackName><Timestamp>2026-01-01T00:00:00Z</Timestamp>"
        return "".join(f"<member>{fixed}{form.format(*each)}</member>" for each in events)

    def _respond(self, status: int, action: str, inner: str) -> None:
        wrapped = f"<{action}Result>{inner}</{action}Result>" if status < 400 else f"<Error>{inner}</Error>"
        tag = f"{action}Response"
        body = f'<{tag} xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">{wrapped}</{tag}>'.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def cloudformation_that_rolls_back() -> Iterator[str]:
    """Yield the URL of a CloudFormation API that can't create a stack."""
    _RolledBack.created = False
    with served(ThreadingHTTPServer(("127.0.0.1", 0), _RolledBack)) as url:
        yield url
