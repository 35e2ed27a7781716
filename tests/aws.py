"""A fake AWS account for tests: moto's API on loopback, and the real AWS CLI, whose command lines are recorded.

A shell script replaces docker, because `docker login` and `docker push` need a registry. Its command lines are also
recorded.
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
# The AWS CLI's commands that only read have one of these prefixes. Every other command changes something. "get" has no
# dash, because `aws configure get` only reads, too.
READ_ONLY_PREFIXES = ("describe-", "get", "list-", "wait")

# Shell code that appends a command line to the record, with a unit separator (octal 037) after each argument.
RECORD_AWS = """{ printf '%s\\037' "$@"; echo; } >>"$RECORD" """
RECORD_DOCKER = """{ printf '%s\\037' docker "$@"; echo; } >>"$RECORD" """
# Shell code that runs a test's stub in place of the AWS CLI, if there is one for the command.
RUN_STUB = """[ -x "$RECORD.stubs/$1-$2" ] && exec "$RECORD.stubs/$1-$2" "$@" """
# docker without a registry: `login` only checks that it receives a password, and `push` registers a manifest in ECR,
# with a digest made from the image's name.
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
# A client of aws_cli_server.py, as Python code. Its first argument is the path of the server's socket. The descriptors
# are sent with one byte, because a message can't consist of descriptors alone.
AWS_CLI_CLIENT = """import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    socket.send_fds(server, [b"."], [0, 1, 2])
    server.sendall(json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    sys.exit(server.recv(1)[0])
"""


@dataclass
class CommandResult:
    """The exit code and output of one program, and every AWS and docker command that it ran.

    A docker command begins with "docker", and an AWS command with the name of its service.
    """

    code: int
    stdout: str
    stderr: str
    commands: list[list[str]]

    @property
    def changes(self) -> list[str]:
        """The first two words of each docker command, and of each AWS command that changes something."""
        return [
            " ".join(command[:2])
            for command in self.commands
            if command[0] == "docker" or not command[1].startswith(READ_ONLY_PREFIXES)
        ]


@dataclass
class Account:
    """An AWS account whose API is at `url`.

    `folder` contains the recorded commands and the stubs. Programs that use the account run in `environment`.
    """

    url: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def client(self, service: str, region: str = REGION) -> Any:
        """Return a boto3 client for checking what the account contains."""
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "y"}
        return boto3.client(service, region_name=region, endpoint_url=self.url, **keys)

    @contextmanager
    def stubbed(self, **responses: object) -> Iterator[None]:
        """Replace AWS commands with stubs until the block ends.

        With `ecs__describe_tasks=VALUE`, `aws ecs describe-tasks` prints VALUE as JSON. If VALUE is a string, the
        command fails with this error message.
        """
        stubs = {name.replace("__", "-", 1).replace("_", "-"): response for name, response in responses.items()}
        for name, response in stubs.items():
            if isinstance(response, str):
                body = f"echo {shlex.quote(response)} >&2\nexit 254"  # the AWS CLI's exit code for an error response
            else:
                body = f"echo {shlex.quote(json.dumps(response))}"
            write_program(self.folder / "commands.stubs" / name, body)
        try:
            yield
        finally:
            for name in stubs:
                (self.folder / "commands.stubs" / name).unlink()

    def network(self) -> dict[str, str]:
        """Return a value for each parameter of the stack that has no default."""
        ec2 = self.client("ec2")
        subnets = ",".join(subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"])
        vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        return {"VpcId": vpc, "LoadBalancerSubnets": subnets, "TaskSubnets": subnets, "AllowedCidr": "203.0.113.7/32"}

    def deploy(self, *arguments: str, stdin: str = "", **environment: str) -> CommandResult:
        """Run deploy/deploy with `environment` added to the account's environment, and `stdin` as standard input."""
        return self.run([str(DEPLOY), *arguments], stdin, **environment)

    def run(self, command: list[str], stdin: str = "", **environment: str) -> CommandResult:
        """Run any command in the account's environment, with `environment` added to it."""
        record = self.folder / "commands"
        record.unlink(missing_ok=True)
        variables = {**self.environment, **environment}
        result = subprocess.run(
            command, cwd=ROOT, env=variables, input=stdin, capture_output=True, text=True, check=False
        )
        lines = record.read_text().splitlines() if record.exists() else []
        commands = [line.split("\037")[:-1] for line in lines]  # each line ends with a separator
        return CommandResult(result.returncode, result.stdout, result.stderr, commands)


@contextmanager
def account(folder: Path, engine_environment: Mapping[str, str] | None = None) -> Iterator[Account]:
    """Yield an account that contains only its default network. Its scripts are written to `folder`.

    Images are built with `engine_environment`, which selects a container engine. Without it, builds are only recorded.
    """
    port = free_port()
    api_server = [sys.executable, str(Path(__file__).with_name("aws_server.py")), "-H", "127.0.0.1", "-p", str(port)]
    environment = {name: value for name, value in unmeasured_environment().items() if not name.startswith("AWS_")}
    api_environment = {**environment, "MOTO_ECS_SERVICE_RUNNING": "1"}  # moto reports one task of a service as running
    with started(api_server, api_environment) as running, aws_cli(environment) as cli:

        def listens() -> bool:
            assert running.process.poll() is None, running.lines
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        eventually(listens, timeout=60)
        url = f"http://127.0.0.1:{port}"
        # deploy/deploy runs `aws`, which is found on this PATH, and $DOCKER. Both record their command line in $RECORD.
        # Then `aws` runs a stub or $AWS, and $DOCKER runs $BUILDS for a build.
        environment |= {
            "PATH": f"{folder}{os.pathsep}{BIN}{os.pathsep}{environment['PATH']}",
            "HOME": str(folder),
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "DOCKER": str(folder / "docker-without-registry"),
            "RECORD": str(folder / "commands"),
            "AWS": str(folder / "aws-cli"),
            "BUILDS": str(folder / "builds") if engine_environment else "true",  # the command `true` does nothing
        }
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in (engine_environment or {}).items())
        write_program(folder / "builds", f'{exports}exec docker "$@"')
        write_program(folder / "aws-cli", f'exec {cli} "$@"')
        write_program(folder / "aws", f'{RECORD_AWS}\n{RUN_STUB}\nexec "$AWS" "$@"')
        (folder / "commands.stubs").mkdir()
        write_program(folder / "docker-without-registry", f"{RECORD_DOCKER}\n{DOCKER}")
        yield Account(url, folder, environment)


@contextmanager
def aws_cli(environment: Mapping[str, str]) -> Iterator[str]:
    """Start aws_cli_server.py, and yield a shell command that runs the AWS CLI in a fork of that server."""
    with TemporaryDirectory() as folder:  # has a short path: the path of a socket is limited to 108 bytes
        path = Path(folder) / "aws"
        server = [sys.executable, str(Path(__file__).with_name("aws_cli_server.py")), str(path)]
        with started(server, environment) as running:

            def listens() -> bool:
                assert running.process.poll() is None, running.lines
                return path.exists()

            eventually(listens, timeout=60)
            fast_python = [sys.executable, "-I", "-S"]  # without the site-packages, which the client doesn't need
            yield shlex.join([*fast_python, "-c", AWS_CLI_CLIENT, str(path)])


def write_program(path: Path, body: str) -> None:
    """Write an executable shell script that runs `body`."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class _RollingBackHandler(BaseHTTPRequestHandler):
    """A CloudFormation API that rolls back every stack that is created."""

    created = False  # set on the class, because each request has its own handler

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
        """Return the events of the stack, newest first. Only the load balancer's failure caused the rollback.

        That failure also canceled the creation of the cluster. The repository failed in an earlier attempt.
        """
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
        template = "<LogicalResourceId>{}</LogicalResourceId><ResourceType>{}</ResourceType>"
        template += "<ResourceStatus>{}</ResourceStatus><ResourceStatusReason>{}</ResourceStatusReason>"
        constant = "<EventId>e</EventId><StackId>s</StackId><StackName>s</StackName>"
        constant += "<Timestamp>2026-01-01T00:00:00Z</Timestamp>"
        return "".join(f"<member>{constant}{template.format(*event)}</member>" for event in events)

    def _respond(self, status: int, action: str, inner: str) -> None:
        result = f"<{action}Result>{inner}</{action}Result>" if status < 400 else f"<Error>{inner}</Error>"
        tag = f"{action}Response"
        body = f'<{tag} xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">{result}</{tag}>'.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def cloudformation_that_rolls_back() -> Iterator[str]:
    """Yield the URL of a CloudFormation API that rolls back every stack."""
    _RollingBackHandler.created = False
    with served(ThreadingHTTPServer(("127.0.0.1", 0), _RollingBackHandler)) as url:
        yield url
