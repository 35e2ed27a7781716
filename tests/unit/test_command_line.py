"""Tests of the command line: readable help, and errors that name the right option."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest
from click.testing import CliRunner, Result

from hello_service.__main__ import main


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, arguments, env=environ)


def test_the_version_is_that_of_the_distribution() -> None:
    assert run("--version").output == f"hello-service {version('hello-service')}\n"


@pytest.mark.parametrize("command", [None, *main.commands])
def test_no_description_is_cut_off(command: str | None) -> None:
    text = run(*([command] if command else []), "--help").output

    _, _, described = text.partition("\n\n")  # the usage has dots of its own
    assert "..." not in described
    assert "Show this message and exit." in described


def test_the_variables_of_options_are_named() -> None:
    text = run("dev", "--help").output

    assert set(re.findall(r"env\s+var:\s+(\w+)", text)) == {"HOST", "PORT"}


def test_a_bad_variable_is_named_in_the_error() -> None:
    done = run("dev", PORT="abc")

    assert done.exit_code == 2
    assert "env var: 'PORT'" in done.output
    assert "'abc'" in done.output


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["dev", "--host", "10.9.9.9", "--port", "0"], "another address with --host"),
        (["dev", "--host", "no.such.host.invalid", "--port", "0"], "another address with --host"),
        (["view", "--host", "10.9.9.9", "--agent-port", "0"], "another address with --host"),
    ],
    ids=["address", "name", "view"],
)
def test_an_address_of_another_machine_is_blamed_on_host(
    arguments: list[str], option: str, capfd: pytest.CaptureFixture[str]
) -> None:
    done = run(*arguments)

    assert done.exit_code == 1
    assert option in done.output + capfd.readouterr().err


def test_a_command_that_can_not_be_traced_is_explained() -> None:
    done = run("trace", "--", "no-such-server")

    assert done.exit_code == 1
    assert "Command 'no-such-server' was not found on PATH." in done.output
