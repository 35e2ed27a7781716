"""Runs the AWS CLI in one region, and explains its errors."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import Any

LONG_ARGUMENT = 2000  # characters; a dry run does not print longer ones, because it prints the task definition anyway
NOT_YET = "(made by the stack)"  # in a dry run, the value of an output that does not exist yet
REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d")  # such as eu-west-1 or us-gov-west-1
# A part of AWS's error message, and the advice for the user.
ADVICE = {
    "ExpiredToken": "Your AWS session has expired: sign in again (aws sso login).",
    "UnrecognizedClient": "AWS does not recognize these credentials: check AWS_PROFILE, or sign in again.",
    "AccessDenied": 'These credentials lack a permission: see "Rights" in deploy/README.md.',
    "UnauthorizedOperation": 'These credentials lack a permission: see "Rights" in deploy/README.md.',
    "Throttling": "AWS limits the rate of these calls: wait a minute, and run the same command again.",
    "Could not connect": "The network or the region's name may be wrong: check the connection and --region.",
}


class Failure(Exception):  # noqa: N818 - a message to the user, not a bug
    """A problem that the user can solve; `str()` is the message, which includes the remedy."""


class AwsError(Exception):
    """The AWS CLI failed; `str()` is the command and the CLI's message."""


def echo(text: str) -> None:
    """Print a line, and flush it so that it appears before the output of docker."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    """Print a warning to standard error."""
    sys.stderr.write(f"warning: {text}\n")
    sys.stderr.flush()


def with_advice(error: AwsError) -> str:
    """Return the message of `error`, followed by advice."""
    advice = next(
        (advice for part, advice in ADVICE.items() if part in str(error)),
        "Correct the problem, then run the same command again.",
    )
    return f"{error} {advice}"


class Aws:
    """The AWS CLI in one region. In a dry run, `change` only prints its command."""

    def __init__(self, region: str | None, *, dry_run: bool) -> None:
        self.dry_run = dry_run
        if shutil.which("aws") is None:
            raise Failure("The AWS CLI is not installed: there is no command named aws.")
        self.environment = {**os.environ, "AWS_PAGER": ""}
        self.region = (
            region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or self._configured_region()
        )
        if not self.region:
            raise Failure("No region: set AWS_DEFAULT_REGION, or add --region eu-west-1.")
        if not REGION.fullmatch(self.region):
            raise Failure(f"{self.region!r} is not the name of a region; an example is eu-west-1.")
        self.environment |= {"AWS_REGION": self.region, "AWS_DEFAULT_REGION": self.region}

    def run(self, *arguments: str, stdin: str | None = None) -> Any:
        """Run a command with the standard input `stdin`. Return its output, parsed if it is JSON.

        Raises:
            AwsError: when the command fails.
        """
        command = ["aws", *arguments, "--output", "json"]
        completed = subprocess.run(
            command, env=self.environment, input=stdin, capture_output=True, text=True, check=False
        )
        if completed.returncode:
            message = " ".join(completed.stderr.split()) or f"exit code {completed.returncode}."
            raise AwsError(f"aws {arguments[0]} {arguments[1]} failed: {message.rstrip('.')}.")
        try:
            return json.loads(completed.stdout) if completed.stdout.strip() else None
        except ValueError:
            return completed.stdout.strip()

    def change(self, *arguments: str, stdin: str | None = None) -> Any:
        """Run a command that changes something; a dry run prints it instead."""
        if self.dry_run:
            shortened = (argument if len(argument) < LONG_ARGUMENT else "..." for argument in arguments)
            echo(f"  would run: aws {shlex.join(shortened)}")
            return None
        return self.run(*arguments, stdin=stdin)

    def account_id(self) -> str:
        """Return the id of the account.

        Raises:
            Failure: when there are no usable credentials, or the region does not respond.
        """
        try:
            return str(self.run("sts", "get-caller-identity")["Account"])
        except AwsError as error:
            if "Could not connect" in str(error):
                raise Failure(f"The region {self.region} does not respond. Is the name right? {error}") from None
            raise Failure(f"No usable AWS credentials: {with_advice(error)}") from None

    def _configured_region(self) -> str:
        completed = subprocess.run(
            ["aws", "configure", "get", "region"], env=self.environment, capture_output=True, text=True, check=False
        )
        return completed.stdout.strip()
