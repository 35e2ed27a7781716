"""Tests of the settings: which variables are read, rejected and shown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import annotated_types
import pytest
from pydantic import AfterValidator, Field, Secret, SecretStr

from hello_service.app import create_app
from hello_service.observability import logs
from hello_service.settings import CLOSING_SECONDS, Settings, SettingsError, local_url, mask_credentials

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_variables_of_the_flask_guide_have_its_defaults() -> None:
    """A reader of the Flask guide (see docs/from-flask.md) finds the same names and values."""
    settings = Settings.from_environment({})

    assert (settings.dd_agent_host, settings.dd_trace_agent_port) == ("localhost", 8126)
    assert (settings.dd_service, settings.dd_env, settings.dd_version) == ("hello-service", None, None)
    assert (settings.dd_trace_enabled, settings.dd_trace_sample_rate) == (True, None)
    assert (settings.host, settings.port) == ("0.0.0.0", 8080)


def test_a_variable_sets_its_field() -> None:
    """Each variable is the field's name in upper case. Commas separate the items of a list.

    Variables without a field are ignored.
    """
    settings = Settings.from_environment({"PORT": "81", "DD_TRACE_ENABLED": "false", "PROBE_PATHS": "/a, /b", "X": "1"})

    assert (settings.port, settings.dd_trace_enabled, settings.probe_paths) == (81, False, ("/a", "/b"))


def test_an_empty_variable_counts_as_unset() -> None:
    """Compose files and task definitions pass on empty variables."""
    assert Settings.from_environment({"PORT": "", "UPSTREAM_URL": ""}) == Settings()


def test_all_bad_variables_are_reported_at_once() -> None:
    """The message contains each value and reason, so one failed start is enough to fix them all."""
    with pytest.raises(SettingsError) as error:
        Settings.from_environment(
            {"PORT": "http", "DRAIN_SECONDS": "-1", "UPSTREAM_URL": "ftp://x", "LOG_LEVEL": "LOUD"}
        )

    assert str(error.value).splitlines() == [
        "PORT='http': must be a valid integer, unable to parse string as an integer",
        "UPSTREAM_URL='ftp://x': must be a URL like http://host:port/path",
        "DRAIN_SECONDS='-1': must be greater than or equal to 0",
        "LOG_LEVEL='LOUD': must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'",
    ]


@pytest.mark.parametrize("rate", ["1.5", "-0.1", "half"])
def test_a_sample_rate_outside_of_0_to_1_is_rejected(rate: str) -> None:
    """The message contains the variable, the value and the reason."""
    with pytest.raises(SettingsError, match=f"DD_TRACE_SAMPLE_RATE='{rate}': must be "):
        Settings.from_environment({"DD_TRACE_SAMPLE_RATE": rate})


@pytest.mark.parametrize("url", ["unix:///var/run/datadog/apm.socket", "http://agent:8126", "https://agent"])
def test_an_agent_url_may_be_http_or_a_socket(url: str) -> None:
    """The URL takes precedence over host and port."""
    settings = Settings.from_environment({"DD_TRACE_AGENT_URL": url, "DD_AGENT_HOST": "elsewhere"})

    assert settings.agent_url == url


@pytest.mark.parametrize("url", ["agent:8126", "unix://", "http://", "ftp://agent"])
def test_any_other_agent_url_is_rejected(url: str) -> None:
    """ddtrace would silently fall back to its default."""
    with pytest.raises(SettingsError, match=r"DD_TRACE_AGENT_URL=.*must be http://host:port or unix:///path/to/socket"):
        Settings.from_environment({"DD_TRACE_AGENT_URL": url})


def test_without_an_agent_url_host_and_port_are_the_agents_address() -> None:
    """ddtrace builds the same address."""
    settings = Settings.from_environment({"DD_AGENT_HOST": "agent", "DD_TRACE_AGENT_PORT": "9126"})

    assert settings.agent_url == "http://agent:9126"
    for ipv6_host in ("::1", "[::1]"):
        assert Settings.from_environment({"DD_AGENT_HOST": ipv6_host}).agent_url == "http://[::1]:8126"


def test_a_probe_path_is_absolute() -> None:
    """A path that can never match is a mistake."""
    with pytest.raises(SettingsError, match=r"PROBE_PATHS=.*must be paths that start with /, got 'health'"):
        Settings.from_environment({"PROBE_PATHS": "health"})


def test_credentials_in_a_url_are_never_shown() -> None:
    """The credentials are neither in the public settings nor in an error message."""
    public = Settings(upstream_url="http://ada:secret@host/x?y=1").public()
    with pytest.raises(SettingsError) as error:
        Settings.from_environment({"UPSTREAM_URL": "ftp://ada:secret@host"})

    assert public["UPSTREAM_URL"] == "http://***@host/x?***"
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("value", ["http://[secret", "ada:secret@host"])
def test_a_text_that_is_not_a_url_is_masked_completely(value: str) -> None:
    """The parts of the text can't be distinguished, so any of them may be a secret."""
    assert mask_credentials(value) == "***"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("http://ada:secret@host/x?token=secret", "http://***@host/x?***"),
        ("http://host/x?token=secret", "http://host/x?***"),
        ("http://host/x", "http://host/x"),
        ("unix:///run/@agent", "unix:///run/@agent"),
    ],
)
def test_only_the_secrets_of_a_url_are_masked(url: str, masked: str) -> None:
    """The rest of the URL helps an operator."""
    assert mask_credentials(url) == masked


# Each row: the variable, a value just below its bounds, the least value, the largest value, and a value just above.
BOUNDS = [
    ("PORT", "-1", "0", "65535", "65536"),
    ("UPSTREAM_TIMEOUT_SECONDS", "0", "0.001", "300", "300.001"),  # any value above 0 is accepted, but not 0
    ("UPSTREAM_CONNECTIONS", "0", "1", "10000", "10001"),
    ("UPSTREAM_WAITING", "-1", "0", "100000", "100001"),
    ("UPSTREAM_BODY_BYTES", "0", "1", "1073741824", "1073741825"),
    ("BODY_BYTES", "0", "1", "1073741824", "1073741825"),
    ("DRAIN_SECONDS", "-0.001", "0", "110", "110.001"),
    ("GRACEFUL_SECONDS", "-0.001", "0", "110", "110.001"),
    ("FLUSH_SECONDS", "-0.001", "0", "110", "110.001"),
    ("KEEP_ALIVE_SECONDS", "0.999", "1", "4000", "4000.001"),
    ("HALF_CLOSE_SECONDS", "-0.001", "0", "60", "60.001"),
    ("BODY_TIMEOUT_SECONDS", "0.999", "1", "4000", "4000.001"),
    ("WRITE_TIMEOUT_SECONDS", "0.999", "1", "4000", "4000.001"),
    ("WEBSOCKET_PING_SECONDS", "0.999", "1", "4000", "4000.001"),
    ("DD_TRACE_SAMPLE_RATE", "-0.001", "0", "1", "1.001"),
    ("DD_TRACE_AGENT_PORT", "0", "1", "65535", "65536"),
]


@pytest.mark.parametrize(("variable", "below", "least", "largest", "above"), BOUNDS)
def test_values_are_accepted_up_to_the_bounds_and_rejected_beyond(
    variable: str, below: str, least: str, largest: str, above: str
) -> None:
    for value in (least, largest):
        settings = Settings.from_environment({variable: value})
        assert getattr(settings, variable.lower()) == float(value)
    for value in (below, above):
        with pytest.raises(SettingsError, match=f"^{variable}='{value}': must be (greater|less) than "):
            Settings.from_environment({variable: value})


def test_every_bound_is_in_the_table_above() -> None:
    """Each variable in the table has two bounds, and every numeric setting is in the table."""
    bound_types = (annotated_types.Ge, annotated_types.Gt, annotated_types.Le, annotated_types.Lt)
    bound_counts: dict[str, int] = {}
    for name, field in Settings.model_fields.items():
        count = sum(isinstance(metadata, bound_types) for metadata in field.metadata)
        if count > 0:
            bound_counts[name.upper()] = count
    numbers = {
        name.upper() for name, value in Settings() if isinstance(value, int | float) and not isinstance(value, bool)
    }

    assert bound_counts == {row[0]: 2 for row in BOUNDS}
    assert numbers <= bound_counts.keys()


@pytest.mark.parametrize("variable", ["HOST", "DD_SERVICE", "DD_AGENT_HOST"])
def test_a_required_text_must_not_be_empty(variable: str) -> None:
    """The environment can't pass an empty text, but a caller of `Settings(...)` can."""
    empty: dict[str, Any] = {variable.lower(): ""}
    with pytest.raises(ValueError, match="at least 1 character"):
        Settings(**empty)


SECRET = "s3cr3t"


def require_good(value: str) -> str:
    if "good" not in value:
        raise ValueError(f"{value!r} is not good")
    return value


class TeamSettings(Settings):
    """Settings that a team has extended. Each additional field can hold a secret."""

    inventory_token: str = ""
    api_key: str | None = None
    database_password: Annotated[str, AfterValidator(require_good)] = "good"
    signing_secrets: tuple[str, ...] = ()
    session_keys: dict[str, str] = Field({})
    key_number: int = 0
    pin: SecretStr = SecretStr("")
    card: SecretStr | None = Field(None, min_length=30)
    code: Annotated[Secret[str], Field()] | None = None
    database_dsn: str = ""
    broker_url: str = ""
    peers: tuple[str, ...] = ()


WITH_SECRETS: dict[str, Any] = {
    "inventory_token": SECRET,
    "api_key": SECRET,
    "database_password": f"{SECRET}-good",
    "signing_secrets": (SECRET, SECRET),
    "session_keys": {SECRET: SECRET},
    "pin": SECRET,
    "card": SECRET * 5,  # the 30 characters that the field requires
    "code": SECRET,
    "database_dsn": f"postgresql://ada:{SECRET}@host/x",
    "broker_url": f"amqp://host/?password={SECRET}",
    "peers": (f"http://ada:{SECRET}@one", f"http://ada:{SECRET}@two"),
    "upstream_url": f"http://ada:{SECRET}@host/x?token={SECRET}",
    "local_view_url": f"http://ada:{SECRET}@host/x?token={SECRET}",
    "dd_trace_agent_url": f"http://ada:{SECRET}@host",
}


def test_every_field_that_can_hold_a_secret_has_one_in_these_tests() -> None:
    """A new secret of `Settings` fails this test until it is added to WITH_SECRETS.

    The int `key_number` can't hold SECRET.
    """
    urls = {name for name in TeamSettings.model_fields if re.search("_url$|_dsn$", name)}

    assert (TeamSettings.secret_fields() | urls) - {"key_number"} <= set(WITH_SECRETS)


async def test_no_secret_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """No secret is in the public settings, at `/info`, in the log, or in the text of the settings object."""
    settings = TeamSettings(**WITH_SECRETS, info_details=True)
    logs.configure(settings, ids=dict)
    async with create_app(settings, environ={}).test_app() as app:
        info = await (await app.test_client().get("/info")).get_json()
    log = capsys.readouterr().err

    assert SECRET not in json.dumps(settings.public())
    assert SECRET not in repr(settings) + str(settings)
    assert SECRET not in json.dumps(info)
    assert SECRET not in log
    assert info["settings"]["INVENTORY_TOKEN"] == info["settings"]["CODE"] == "***"
    assert info["settings"]["KEY_NUMBER"] == "***"
    assert info["settings"]["PEERS"] == ["http://***@one", "http://***@two"]
    assert json.loads(log.splitlines()[0])["INVENTORY_TOKEN"] == "***"
    assert TeamSettings().public()["API_KEY"] is None  # an unset secret has nothing to mask


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_PASSWORD", SECRET),
        ("KEY_NUMBER", SECRET),
        ("CARD", SECRET),
        ("SIGNING_SECRETS", SECRET),
        ("UPSTREAM_URL", f"ftp://ada:{SECRET}@host"),
        ("UPSTREAM_URL", f"http://ada:{SECRET}@[host"),
        ("UPSTREAM_URL", f"http://ada:{SECRET}\u2100@host"),  # Python's urlsplit rejects U+2100
        ("UPSTREAM_URL", f"http://ada:{SECRET}@host:99999"),
        ("DD_TRACE_AGENT_URL", f"unix://?{SECRET}"),
        ("LOCAL_VIEW_URL", f"ftp://a@b,ftp://ada:{SECRET}@c"),
    ],
)
def test_no_error_message_quotes_a_secret(variable: str, value: str) -> None:
    """Each value is invalid for its variable."""
    with pytest.raises(SettingsError) as error:
        TeamSettings.from_environment({variable: value})

    # In a URL, only a part is masked.
    assert re.fullmatch(rf"{variable}='\S*\*\*\*\S*': must be .+", str(error.value))
    assert SECRET not in str(error.value)


def test_an_argument_that_is_not_a_setting_is_rejected() -> None:
    typo: dict[str, Any] = {"prot": 1}
    with pytest.raises(ValueError, match="prot"):
        Settings(**typo)


def test_the_stop_budget_is_the_sum_of_its_parts() -> None:
    settings = Settings(drain_seconds=1, graceful_seconds=2, flush_seconds=3)

    assert settings.stop_budget_seconds == 1 + 2 + 3 + CLOSING_SECONDS


def values_cell(schema: Mapping[str, Any]) -> str:
    """Return the cell of docs/settings.md with the values that a field with this JSON schema accepts."""
    # An optional field has two variants, of which one is null.
    (variant,) = [variant for variant in schema.get("anyOf", [schema]) if variant.get("type") != "null"]
    if "enum" in variant:
        return ", ".join(f"`{value}`" for value in variant["enum"])
    if "maximum" in variant:
        least = f"above {variant['exclusiveMinimum']}" if "exclusiveMinimum" in variant else f"{variant['minimum']:g}"
        return f"{least} to {variant['maximum']:,}"
    return {"boolean": "`true`, `false`", "array": "a list, separated by commas"}.get(variant["type"], "text")


def default_cell(value: object) -> str:
    """Return the cell of docs/settings.md with the default `value`."""
    if value is None:
        return "unset"
    if isinstance(value, list):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_the_page_lists_every_variable_with_its_default_and_values() -> None:
    properties = Settings.model_json_schema()["properties"]
    rows = ["| variable | default | values | what it does |", "| --- | --- | --- | --- |"]
    for name, value in Settings().public().items():
        schema = properties[name.lower()]
        rows.append(f"| `{name}` | {default_cell(value)} | {values_cell(schema)} | {schema['description']} |")

    assert "\n".join(rows) in PAGE.read_text()


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:8080"), ("::", "http://[::1]:8080"), ("10.0.0.1", "http://10.0.0.1:8080")],
)
def test_a_server_is_reached_from_its_own_machine(host: str, url: str) -> None:
    """If the server listens on all interfaces, clients use loopback."""
    assert local_url(host, port=8080) == url
