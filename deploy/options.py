"""The command line of deploy/deploy: its options, and the validation of their values before any change."""

from __future__ import annotations

import argparse
import math
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import api_key
import definition
from aws_cli import Failure
from stack import parameter_problem

# The forms of --site, --version, --env and --sample-rate. `_pattern_problems` has them in words.
SITE = re.compile(r"([a-z]{2}\d\.)?(datadoghq\.com|datadoghq\.eu|ddog-gov\.com)")
VERSION = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
ENVIRONMENT = re.compile(r"[a-z][a-z0-9_./:-]{0,199}")
RATE = re.compile(r"\d*\.?\d+")
# The characters and the lengths that AWS allows in the name and in the value of a tag.
TAG_NAME, TAG_VALUE = re.compile(r"[\w +=.:/@-]{1,128}"), re.compile(r"[\w +=.:/@-]{0,256}")
# The placeholders that deploy/deploy fills in, and the source of their values.
RESERVED_PLACEHOLDERS = {
    "FAMILY": "--stack",
    "IMAGE": "the stack and --version",
    "VERSION": "--version",
    "ENVIRONMENT": "--env",
    "SAMPLE_RATE": "--sample-rate",
    "DD_SITE": "--site",
    "REGION": "--region",
    "CPU_ARCHITECTURE": "--set CpuArchitecture",
    "TRUST_TRACE_HEADERS": "--set TrustTraceHeaders",
    "ECS_TASK_COLLECTION": "--set EcsTaskCollection",
    "EXECUTION_ROLE_ARN": "the stack",
    "TASK_ROLE_ARN": "the stack",
    "SECRET_ARN": "the stack",
    "SERVICE_LOG_GROUP": "the stack",
    "AGENT_LOG_GROUP": "the stack",
}


def build_parser(documentation: str) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    In its help, the first line of `documentation` is above the options, and the rest is below them.
    """
    description, _, epilog = documentation.partition("\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="up | rollback | definition | unprotect | destroy"
    )
    up = commands.add_parser("up", help="deploy")
    rollback = commands.add_parser("rollback", help="run the previous revision that was stable")
    print_definition = commands.add_parser("definition", help="print the filled-in task definition")
    unprotect = commands.add_parser("unprotect", help="lift the protection against deletion")
    destroy = commands.add_parser("destroy", help="delete everything")
    for command in (up, rollback, print_definition, unprotect, destroy):
        command.add_argument(
            "--stack", default="hello-service", help="name of the stack, the cluster and the repository"
        )
        command.add_argument("--region", help="AWS region; default: AWS_DEFAULT_REGION")
    for command in (up, rollback):
        command.add_argument("--url", help="URL for the smoke test; default: the load balancer's own name")
        command.add_argument(
            "--no-smoke",
            action="store_true",
            help="send no request at the end, for a machine that can't reach the service",
        )
        command.add_argument(
            "--patience",
            default="120",
            metavar="SECONDS",
            help="time limit of the smoke test, and of the wait for a healthy Agent",
        )
    for command in (up, print_definition):
        command.add_argument("--version", help="tag of the image and DD_VERSION; default: the commit")
        command.add_argument("--env", help="DD_ENV; initially production")
        command.add_argument("--site", help="Datadog site, such as datadoghq.eu; initially datadoghq.com")
        command.add_argument("--sample-rate", help="fraction of traces to keep, 0 to 1; initially 1.0")
        command.add_argument(
            "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of stack.yaml"
        )
        command.add_argument(
            "--fill", action="append", default=[], metavar="NAME=VALUE", help="a placeholder of your own"
        )
        command.add_argument("--task-definition", type=Path, default=definition.FILE, help="the file to fill in")
    up.add_argument("--tag", action="append", default=[], metavar="NAME=VALUE", help="a tag for every resource")
    up.add_argument(
        "--protect",
        action=argparse.BooleanOptionalAction,
        help="protection against deletion; initially on, but off for --env dev",
    )
    up.add_argument(
        "--allow-open-http", action="store_true", help="confirm plain HTTP that the whole internet can reach"
    )
    up.add_argument("--dry-run", action="store_true", help="change nothing, and print what would be done")
    rollback.add_argument("--to", type=int, metavar="REVISION", help="the number of the revision to run")
    destroy.add_argument("--yes", action="store_true", help="delete without a confirmation")
    return parser


def check(options: argparse.Namespace) -> None:
    """Reject all malformed options in one message, by name and value, before any change.

    Raises:
        Failure: when options are malformed; the message has a line for each.
    """
    # Each command has only some of the options, so an absent option gets a default that is valid.
    problems = _pattern_problems(options)
    if getattr(options, "url", None) is not None and not _is_url(options.url):
        problems.append(f"--url {options.url}: it must be an address such as https://hello.example.com")
    problems += _parse_patience(options)
    for option in ("set", "fill", "tag"):
        for argument in getattr(options, option, []):
            if problem := _pair_problem(option, argument, options):
                problems.append(f"--{option} {argument}: {problem}")
    key = os.environ.get("DD_API_KEY", "")
    if options.command == "up" and key and not api_key.KEY_FORM.fullmatch(key):
        problems.append(
            f"DD_API_KEY has {len(key)} characters: it must be 32 hexadecimal digits"
            + ("; is it an application key?" if len(key) == 40 else "")  # the length of an application key
        )
    _reject(problems)


def check_patterns(options: argparse.Namespace) -> None:
    """Reject malformed values of --version, --env, --site and --sample-rate.

    Raises:
        Failure: when values are malformed; the message has a line for each.
    """
    _reject(_pattern_problems(options))


def _reject(problems: list[str]) -> None:
    if problems:
        raise Failure("Nothing was done.\n" + "\n".join(f"  {problem}." for problem in problems))


def _pattern_problems(options: argparse.Namespace) -> list[str]:
    problems: list[str] = []
    for name, pattern, form in (
        ("version", VERSION, "letters, digits, '_', '.' and '-', at most 128, because it is the tag of an image"),
        ("env", ENVIRONMENT, "lower-case letters, digits and _ . / : -, starting with a letter, as Datadog stores it"),
        (
            "site",
            SITE,
            "a Datadog site without https:// and app., such as datadoghq.com, datadoghq.eu or us3.datadoghq.com",
        ),
        ("sample_rate", RATE, "a number from 0 to 1, such as 0.1"),
    ):
        value = getattr(options, name, None)
        if value is not None and (not pattern.fullmatch(value) or (name == "sample_rate" and float(value) > 1)):
            problems.append(f"--{name.replace('_', '-')} {value}: it must be {form}")
    return problems


def parse_pairs(arguments: list[str]) -> dict[str, str]:
    """Return NAME=VALUE arguments as a mapping. If a name is repeated, its last value counts."""
    return dict(argument.split("=", 1) for argument in arguments)


def _parse_patience(options: argparse.Namespace) -> list[str]:
    """Replace the text of --patience in `options` with a number, and return the problems with it."""
    value = getattr(options, "patience", "0")
    try:
        options.patience = float(value)
    except ValueError:
        options.patience = math.nan
    return [] if 0 <= options.patience < math.inf else [f"--patience {value}: it must be a number of seconds"]


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    has_extra_parts = bool(parts.query or parts.fragment or re.search(r"\s", text))
    return bool(parts.scheme in {"http", "https"} and parts.hostname and port != 0 and not has_extra_parts)


def _pair_problem(option: str, argument: str, options: argparse.Namespace) -> str | None:
    """Return the problem with an argument of --set, --fill or --tag, None if it is valid."""
    name, equals, value = argument.partition("=")
    if not equals or not name:
        return "it must be NAME=VALUE"
    if option == "set":
        return parameter_problem(name, value)
    if option == "tag":
        return None if TAG_NAME.fullmatch(name) and TAG_VALUE.fullmatch(value) else "AWS does not allow this tag"
    if name in RESERVED_PLACEHOLDERS:
        return f"{name} comes from {RESERVED_PLACEHOLDERS[name]}"
    if name not in definition.PLACEHOLDER.findall(definition.read(options.task_definition)):
        return f"{options.task_definition.name} has no placeholder ${{{name}}}"
    return None if value else "the value is empty"
