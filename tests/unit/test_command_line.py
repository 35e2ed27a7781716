"""Tests of the command line: readable help, and errors that suggest the right option."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest
from click.testing import CliRunner, Result

from hello_service.__main__ import main


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environ)


def test_the_version_matches_the_installed_distribution() -> None:
    assert run("--version").output == f"hello-service {version('hello-service')}\n"


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in main.commands)], ids=" ".join)
def test_no_description_is_cut_off(arguments: list[str]) -> None:
    _, _, description = run(*arguments).output.partition("\n\n")  # the usage line above it contains "..."

    assert "..." not in description
    assert "Show this message and exit." in description


def test_the_help_lists_the_variables_of_options() -> None:
    text = run("dev", "--help").output

    # click may break the line at any space.
    assert set(re.findall(r"env\s+var:\s+(\w+)", text)) == {"HOST", "PORT"}


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["dev", "--agent-port", "9000", "--view-port", "9000"], "--agent-port and --view-port are both 9000."),
        (["dev", "--agent-port", "8080"], "--port and --agent-port are both 8080."),
        (["view", "--view-port", "8126"], "--agent-port and --view-port are both 8126."),
    ],
)
def test_two_options_with_the_same_port_are_rejected(arguments: list[str], options: str) -> None:
    """This includes ports that are defaults."""
    result = run(*arguments)

    assert result.exit_code == 2
    assert f"{options} Choose different ports." in result.output


def test_a_service_on_another_address_may_have_the_port_of_the_page() -> None:
    result = run("dev", "--host", "203.0.113.7", "--port", "8081")  # no machine has this address, so the start fails

    assert result.exit_code == 1
    assert "Choose different ports." not in result.output


def test_the_error_for_an_invalid_variable_contains_its_name_and_value() -> None:
    result = run("dev", PORT="abc")

    assert result.exit_code == 2
    assert "env var: 'PORT'" in result.output
    assert "'abc'" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["dev", "--host", "203.0.113.7", "--port", "0"],  # no machine has this address
        ["dev", "--host", "no.such.host.invalid", "--port", "0"],
        ["view", "--host", "203.0.113.7", "--agent-port", "0"],
    ],
    ids=["dev with an address", "dev with a name", "view"],
)
def test_the_error_for_an_address_that_cannot_be_used_suggests_the_host_option(arguments: list[str]) -> None:
    result = run(*arguments)

    assert result.exit_code == 1
    assert "another address with --host" in result.output


@pytest.mark.parametrize("arguments", [["--", "no-such-server"], ["no-such-server", "--help"]])
def test_a_command_that_does_not_exist_is_reported(arguments: list[str]) -> None:
    """Options after the command belong to the command."""
    result = run("trace", *arguments)

    assert result.exit_code == 1
    assert "Command 'no-such-server' was not found on PATH." in result.output
