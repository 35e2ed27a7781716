"""The environment: what is read, what is refused, what is shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hello_service.settings import CLOSING_SECONDS, Settings, SettingsError, mask_credentials

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_older_guides_variables_have_its_defaults() -> None:
    """Whoever comes from the Flask guide finds the same names and values."""
    settings = Settings.from_environment({})

    assert (settings.dd_agent_host, settings.dd_trace_agent_port) == ("localhost", 8126)
    assert (settings.dd_service, settings.dd_env, settings.dd_version) == ("hello-service", None, None)
    assert (settings.dd_trace_enabled, settings.dd_trace_sample_rate) == (True, None)
    assert (settings.host, settings.port) == ("0.0.0.0", 8080)


def test_a_variable_sets_its_field() -> None:
    """Names are the fields' names in upper case; lists are separated by commas."""
    settings = Settings.from_environment({"PORT": "81", "DD_TRACE_ENABLED": "false", "PROBE_PATHS": "/a, /b", "X": "1"})

    assert (settings.port, settings.dd_trace_enabled, settings.probe_paths) == (81, False, ("/a", "/b"))


def test_an_empty_variable_counts_as_unset() -> None:
    """Compose files and task definitions pass variables on empty."""
    assert Settings.from_environment({"PORT": "", "UPSTREAM_URL": ""}) == Settings()


def test_every_bad_variable_is_named_at_once() -> None:
    """With its value and the reason, so that one start is enough to mend them all."""
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment(
            {"PORT": "http", "DRAIN_SECONDS": "-1", "UPSTREAM_URL": "ftp://x", "LOG_LEVEL": "LOUD"}
        )

    assert str(refused.value).splitlines() == [
        "PORT='http': must be a valid integer, unable to parse string as an integer",
        "UPSTREAM_URL='ftp://x': must be a URL like http://host:port/path",
        "DRAIN_SECONDS='-1': must be greater than or equal to 0",
        "LOG_LEVEL='LOUD': must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'",
    ]


@pytest.mark.parametrize("rate", ["1.5", "-0.1", "half"])
def test_a_sample_rate_outside_of_0_to_1_is_refused(rate: str) -> None:
    """With variable, value and reason."""
    with pytest.raises(SettingsError, match=f"DD_TRACE_SAMPLE_RATE='{rate}': must be "):
        Settings.from_environment({"DD_TRACE_SAMPLE_RATE": rate})


@pytest.mark.parametrize("url", ["unix:///var/run/datadog/apm.socket", "http://agent:8126", "https://agent"])
def test_an_agent_url_may_be_http_or_a_socket(url: str) -> None:
    """It wins over host and port."""
    settings = Settings.from_environment({"DD_TRACE_AGENT_URL": url, "DD_AGENT_HOST": "elsewhere"})

    assert settings.agent_url == url


@pytest.mark.parametrize("url", ["agent:8126", "unix://", "http://", "ftp://agent"])
def test_any_other_agent_url_is_refused(url: str) -> None:
    """ddtrace would fall back to its default without a word."""
    with pytest.raises(SettingsError, match=r"DD_TRACE_AGENT_URL=.*must be http://host:port or unix:///path/to/socket"):
        Settings.from_environment({"DD_TRACE_AGENT_URL": url})


def test_without_an_agent_url_host_and_port_name_the_agent() -> None:
    """As in ddtrace."""
    settings = Settings.from_environment({"DD_AGENT_HOST": "agent", "DD_TRACE_AGENT_PORT": "9126"})

    assert settings.agent_url == "http://agent:9126"


def test_a_probe_path_is_absolute() -> None:
    """A path that can never match is a mistake."""
    with pytest.raises(SettingsError, match=r"PROBE_PATHS=.*must be paths that start with /, and 'health' does not"):
        Settings.from_environment({"PROBE_PATHS": "health"})


def test_credentials_in_a_url_are_never_shown() -> None:
    """Neither among the settings nor in a complaint."""
    shown = Settings(upstream_url="http://ada:secret@host/x?y=1").public()
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment({"UPSTREAM_URL": "ftp://ada:secret@host"})

    assert shown["UPSTREAM_URL"] == "http://***@host/x?***"
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("value", ["http://[secret", "ada:secret@host"])
def test_what_is_no_url_is_masked_whole(value: str) -> None:
    """Nothing can be told of it."""
    assert mask_credentials(value) == "***"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://ada:secret@host/x?token=secret", "http://***@host/x?***"),
        ("http://host/x?token=secret", "http://host/x?***"),
        ("http://host/x", "http://host/x"),
        ("unix:///run/@agent", "unix:///run/@agent"),
    ],
)
def test_secrets_of_a_url_are_masked(url: str, shown: str) -> None:
    """The rest of it is what an operator wants to see."""
    assert mask_credentials(url) == shown


def test_the_stop_budget_is_the_sum_of_its_parts() -> None:
    """Drain, grace, closing, flush."""
    settings = Settings(drain_seconds=1, graceful_seconds=2, flush_seconds=3)

    assert settings.stop_budget_seconds == 1 + 2 + 3 + CLOSING_SECONDS


def values_of(schema: Mapping[str, Any]) -> str:
    """Return the values that a field with this JSON schema takes, in the words of docs/settings.md."""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    (kind,) = kinds
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    if "maximum" in kind:
        least = f"above {kind['exclusiveMinimum']}" if "exclusiveMinimum" in kind else f"{kind['minimum']:g}"
        return f"{least} to {kind['maximum']:,}"
    return {"boolean": "`true`, `false`", "array": "a list, separated by commas"}.get(kind["type"], "text")


def test_the_page_lists_every_variable_with_its_default_and_values() -> None:
    properties = Settings.model_json_schema()["properties"]
    rows = ["| variable | default | values | what it does |", "| --- | --- | --- | --- |"]
    for name, value in Settings().public().items():
        shown = "unset" if value is None else ",".join(value) if isinstance(value, list) else str(value)
        shown = shown.lower() if isinstance(value, bool) else shown
        schema = properties[name.lower()]
        rows.append(f"| `{name}` | {shown} | {values_of(schema)} | {schema['description']} |")

    assert "\n".join(rows) in PAGE.read_text()
