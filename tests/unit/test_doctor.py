"""Tests of the doctor without an agent and without a running service."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from email.message import Message
from pathlib import Path
from typing import Any

import click
import pytest

import hello_service.doctor
from hello_service.doctor import Check, agent, environment, examine, server, wire
from hello_service.doctor.context import CheckContext, agent_address, no_agent_reason
from hello_service.doctor.finding import (
    Finding,
    Redaction,
    Result,
    exit_code,
    failed,
    passed,
    report,
    unknown,
    warned,
)
from hello_service.doctor.wire import Response

KEY = "0123456789abcdef0123456789abcdef"  # has the form of an API key
CHECKS = {check.name: check.run for check in hello_service.doctor.CHECKS}
UNIFIED_TAGS = {"DD_SERVICE": "shop", "DD_ENV": "prod", "DD_VERSION": "1.2"}
UNLOAD_VARIABLE = "DD_UNLOAD_MODULES_FROM_SITECUSTOMIZE"

# Each row: the check, the environment, the outcome, a part of the sentence and a part of the fix.
FINDINGS: tuple[tuple[str, dict[str, str], str, str, str], ...] = (
    ("settings", {}, "pass", "every variable", ""),
    ("settings", {"PORT": "x"}, "fail", "PORT must be a valid integer", "docs/settings.md"),
    ("settings", {"PORT": "x", "HOST": ""}, "fail", "PORT must", "docs/settings.md"),
    (
        "settings",
        {"PORT": "x", "DD_TRACE_SAMPLE_RATE": "what"},
        "fail",
        "DD_TRACE_SAMPLE_RATE must be a valid number",
        "docs/settings.md",
    ),
    ("ddtrace", {}, "pass", "ddtrace 4.", ""),
    ("tracing on", {}, "pass", "no variable disables", ""),
    ("tracing on", {"DD_TRACE_ENABLED": "1"}, "pass", "no variable disables", ""),
    ("tracing on", {"DD_TRACE_ENABLED": ""}, "pass", "no variable disables", ""),
    ("tracing on", {"DD_TRACE_ENABLED": "false"}, "fail", "DD_TRACE_ENABLED disables", "unset DD_TRACE_ENABLED"),
    ("tracing on", {"DD_TRACE_ENABLED": "false", "PORT": "x"}, "fail", "DD_TRACE_ENABLED disables", "unset"),
    ("tracing on", {"DD_TRACE_ENABLED": "yes"}, "warn", "false to a bare", "DD_TRACE_ENABLED=true"),
    ("tracing on", {"DD_TRACE_ENABLED": "yes", "PORT": "x"}, "warn", "false to a bare", "DD_TRACE_ENABLED=true"),
    ("tracing on", {"DD_APM_TRACING_ENABLED": "false"}, "fail", "DD_APM_TRACING_ENABLED", "unset"),
    ("tracing on", {"OTEL_TRACES_EXPORTER": "none"}, "fail", "OTEL_TRACES_EXPORTER", "unset"),
    ("agent address", {}, "pass", "http://localhost:8126 (default, because no variable is set)", ""),
    ("agent address", {"DD_AGENT_HOST": "dd"}, "pass", "http://dd:8126 (DD_AGENT_HOST)", ""),
    ("agent address", {"DD_AGENT_HOST": "::1"}, "pass", "http://[::1]:8126 (DD_AGENT_HOST)", ""),
    ("agent address", {"DD_AGENT_HOST": "[::1]"}, "pass", "http://[::1]:8126 (DD_AGENT_HOST)", ""),
    ("agent address", {"DD_TRACE_AGENT_URL": "localhost:8126"}, "fail", "DD_TRACE_AGENT_URL gives", "http://host:8126"),
    ("agent address", {"DD_TRACE_AGENT_URL": "http://a:b"}, "fail", "DD_TRACE_AGENT_URL gives", "http://host:8126"),
    ("agent address", {"OTEL_TRACES_EXPORTER": "otlp"}, "skipped", "sent as OTLP", ""),
    ("agent address", {"DD_AGENTLESS_ENABLED": "true"}, "skipped", "to Datadog itself", ""),
    ("agent", {"OTEL_TRACES_EXPORTER": "otlp"}, "skipped", "sent as OTLP", ""),
    ("agent", {"DD_TRACE_AGENT_URL": "nonsense"}, "skipped", "no usable address", ""),
    ("clock", {"DD_TRACE_AGENT_URL": "nonsense"}, "skipped", "no agent responds", ""),
    ("agent variables", {}, "pass", "no variables contradict", ""),
    ("agent variables", {"DD_TRACE_AGENT_URL": "unix:///x", "DD_AGENT_HOST": "b"}, "warn", "DD_AGENT_HOST", "unset"),
    (
        "agent variables",
        {"DD_TRACE_AGENT_URL": "http://a:1", "DD_AGENT_HOST": "b", "DD_TRACE_AGENT_PORT": "2"},
        "warn",
        "ddtrace uses DD_TRACE_AGENT_URL and ignores the different value of DD_AGENT_HOST and DD_TRACE_AGENT_PORT",
        "unset DD_AGENT_HOST DD_TRACE_AGENT_PORT",
    ),
    (
        "agent variables",
        {"DD_TRACE_AGENT_URL": "http://a:8126", "DD_AGENT_HOST": "a", "DD_TRACE_AGENT_PORT": "8126"},
        "pass",
        "the variables agree",
        "",
    ),
    (
        "agent variables",
        {"DD_TRACE_AGENT_HOSTNAME": "a", "DD_AGENT_HOST": "b"},
        "warn",
        "ddtrace uses DD_TRACE_AGENT_HOSTNAME and ignores the different value of DD_AGENT_HOST",
        "unset DD_AGENT_HOST",
    ),
    ("proxy", {}, "pass", "no proxy", ""),
    (
        "proxy",
        {"HTTP_PROXY": "http://p"},
        "fail",
        "HTTP_PROXY sends ddtrace's traces for localhost through a proxy",
        "Add localhost to NO_PROXY",
    ),
    ("proxy", {"all_proxy": "http://p", "DD_AGENT_HOST": "127.0.0.1"}, "fail", "all_proxy sends", "Add 127.0.0.1 to"),
    ("proxy", {"http_proxy": "http://p", "DD_AGENT_HOST": "dd"}, "warn", "http_proxy sends", "Add dd to NO_PROXY"),
    ("proxy", {"HTTP_PROXY": "http://p", "NO_PROXY": "x, localhost"}, "pass", "no proxy", ""),
    ("proxy", {"HTTPS_PROXY": "http://p"}, "pass", "no proxy", ""),
    ("proxy", {"HTTPS_PROXY": "http://p", "DD_TRACE_AGENT_URL": "https://dd"}, "warn", "HTTPS_PROXY sends", "dd"),
    ("proxy", {"OTEL_TRACES_EXPORTER": "otlp"}, "skipped", "sent as OTLP", ""),
    ("proxy", {"DD_TRACE_AGENT_URL": "unix:///x"}, "skipped", "no address", ""),
    ("service, env, version", UNIFIED_TAGS, "pass", "service shop, environment prod, version 1.2", ""),
    ("service, env, version", {**UNIFIED_TAGS, "DD_ENV": ""}, "warn", "DD_ENV not set", "DD_ENV=..."),
    ("service, env, version", {}, "warn", "DD_SERVICE, DD_ENV, DD_VERSION not set", "DD_VERSION=..."),
    ("sampling", {}, "pass", "every trace is kept", ""),
    ("sampling", {"DD_TRACE_SAMPLE_RATE": "0.25"}, "pass", "25% of the traces are kept (DD_TRACE_SAMPLE_RATE)", ""),
    ("sampling", {"DD_TRACE_SAMPLE_RATE": "0.25", "PORT": "x"}, "pass", "25% of the traces", ""),
    ("sampling", {"DD_TRACE_SAMPLE_RATE": "half"}, "pass", "every trace is kept", ""),
    ("sampling", {"DD_TRACE_SAMPLE_RATE": "0"}, "fail", "DD_TRACE_SAMPLE_RATE keeps no trace", "unset"),
    ("sampling", {"DD_TRACE_SAMPLING_RULES": '[{"sample_rate": 0.1}]'}, "pass", "10% of the traces", ""),
    (
        "sampling",
        {"DD_TRACE_SAMPLING_RULES": '[{"sample_rate": 0, "name": "x"}]'},
        "pass",
        "applies to some traces",
        "",
    ),
    (
        "sampling",
        {"DD_TRACE_SAMPLING_RULES": '[{"sample_rate": 1, "resource": "GET /"}, {"sample_rate": 0}]'},
        "pass",
        "keeps only traces that an earlier rule matches",
        "",
    ),
    (
        "sampling",
        {"DD_TRACE_SAMPLING_RULES": '[{"sample_rate": 0, "name": "x"}, {"sample_rate": 0}]'},
        "fail",
        "keeps no trace",
        "unset",
    ),
    (
        "sampling",
        {"DD_TRACE_SAMPLING_RULES": '[{"sample_rate": 1, "name": "x"}, {"sample_rate": 0.1}]'},
        "pass",
        "10% of the traces that no earlier rule matches are kept",
        "",
    ),
    (
        "sampling",
        {"DD_TRACE_SAMPLING_RULES": '[{"sample_rate": 0}, {"sample_rate": 1, "name": "x"}]'},
        "fail",
        "keeps no trace",
        "unset",
    ),
    (
        "sampling",
        {
            "DD_TRACE_SAMPLING_RULES": '[{"sample_rate": 0.1}]',
            "DD_TRACE_SAMPLE_RATE": "0.5",
            "OTEL_TRACES_SAMPLER": "always_off",
        },
        "pass",
        "10% of the traces are kept (DD_TRACE_SAMPLING_RULES)",
        "",
    ),
    ("sampling", {"DD_TRACE_SAMPLING_RULES": "[1]"}, "warn", "not a valid list of rules", "sample_rate"),
    ("sampling", {"DD_TRACE_SAMPLING_RULES": '[{"sample_rate": "1"}]'}, "warn", "not a valid list", "sample_rate"),
    ("sampling", {"DD_TRACE_SAMPLING_RULES": "0.5"}, "warn", "not a valid list of rules", "sample_rate"),
    ("sampling", {"DD_TRACE_SAMPLING_RULES": "[{]"}, "warn", "not a valid list of rules", "sample_rate"),
    ("sampling", {"DD_TRACE_SAMPLE_RATE": "1", "DD_TRACE_RATE_LIMIT": "0"}, "fail", "DD_TRACE_RATE_LIMIT=0", "unset"),
    (
        "sampling",
        {"OTEL_TRACES_SAMPLER": "always_off"},
        "fail",
        "OTEL_TRACES_SAMPLER keeps no trace",
        "unset OTEL_TRACES_SAMPLER",
    ),
    ("API key", {}, "skipped", "not set here", ""),
    ("API key", {"DD_API_KEY": KEY}, "pass", "form of an API key", ""),
    ("API key", {"DD_API_KEY": f'{{"DD_API_KEY": "{KEY}"}}'}, "fail", "whole JSON object", ":DD_API_KEY::"),
    ("API key", {"DD_API_KEY": f"{KEY}\n"}, "fail", "spaces or quotes", "alone"),
    ("API key", {"DD_API_KEY": f'"{KEY}"'}, "fail", "spaces or quotes", "alone"),
    ("API key", {"DD_API_KEY": KEY + "01234567"}, "fail", "application key", "API key"),  # 40 characters
    ("API key", {"DD_API_KEY": "changeme"}, "fail", "not 32 hexadecimal", "API key"),
    ("ECS task", {}, "skipped", "not in an ECS task", ""),
    ("old settings", {}, "pass", "no setting", ""),
    ("old settings", {"DD_TRACE_SAMPLE_RATE": "0.5"}, "warn", "ignored under a bare", "DD_TRACE_SAMPLING_RULES="),
    ("old settings", {"DD_TRACE_SAMPLE_RATE": "0.5", "DD_TRACE_SAMPLING_RULES": "[]"}, "pass", "no setting", ""),
    ("old settings", {"DD_ECS_FARGATE": "true"}, "warn", "DD_ECS_FARGATE is a misspelling", "ECS_FARGATE=true"),
    ("old settings", {"DD_HOSTNAME": "h"}, "pass", "no setting", ""),
    (
        "old settings",
        {"DD_HOSTNAME": "h", "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE"},
        "warn",
        "billed host",
        "unset DD_HOSTNAME",
    ),
    (
        "old settings",
        {"DD_HOSTNAME": "h", "AWS_EXECUTION_ENV": "AWS_ECS_EC2", "ECS_CONTAINER_METADATA_URI_V4": "http://x/v4"},
        "pass",
        "no setting",
        "",
    ),
    ("old settings", {"DD_SERVICE_NAME": "s"}, "warn", "DD_SERVICE_NAME has no effect", "DD_SERVICE="),
    ("old settings", {"DD_TRACE_AGENT_HOSTNAME": "h"}, "warn", "still overrides", "DD_AGENT_HOST="),
    (
        "old settings",
        {"DD_AGENT_PORT": "1", "DATADOG_ENV": "e"},
        "warn",
        "DD_AGENT_PORT is deprecated",
        "DD_ENV=...; DD_TRACE_AGENT_PORT=...",
    ),
    ("gevent", {}, "pass", "not installed", ""),
    ("started once", {}, "pass", "one way only", ""),
    (
        "started once",
        {"PYTHONPATH": "/x/ddtrace/bootstrap"},
        "warn",
        "already runs under ddtrace-run",
        "hello-service serve",
    ),
)


@pytest.mark.parametrize(("check", "environ", "outcome", "sentence", "fix"), FINDINGS)
def test_a_check_reports_outcome_sentence_and_fix(
    check: str, environ: dict[str, str], outcome: str, sentence: str, fix: str
) -> None:
    """Only a warning or a failure has a fix."""
    finding = CHECKS[check](CheckContext(environ))

    assert finding.outcome == outcome, finding
    assert sentence in finding.sentence
    assert fix in (finding.fix or "")
    assert bool(finding.fix) == (outcome in {"warn", "fail"})


def test_an_unusable_value_is_not_shown() -> None:
    """The value may be a secret in the wrong variable."""
    finding = environment.settings(
        CheckContext({"PORT": "hunter2", "PROBE_PATHS": "hunter2,/x", "LOG_LEVEL": "hunter2"})
    )

    assert "hunter2" not in finding.sentence
    assert all(part in finding.sentence for part in ("PORT", "PROBE_PATHS must be paths", "LOG_LEVEL must be 'DEBUG'"))


def test_an_error_message_of_unknown_form_is_not_shown() -> None:
    """A later version may word the errors of the settings differently."""
    context = CheckContext({})
    context.settings_errors = ["hunter2"]

    assert environment.settings(context).sentence == "the service can't start: a variable is invalid"


@pytest.mark.parametrize(
    ("version", "outcome"), [("4.4.9", "fail"), ("4.5.0", "pass"), ("4.16.0rc1", "pass"), (None, "fail")]
)
def test_the_version_of_ddtrace_is_checked(
    version: str | None, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since version 4.5, ddtrace sends the last spans of a process that gets SIGTERM."""
    if version is not None:
        metadata = tmp_path / f"ddtrace-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ddtrace\nVersion: {version}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    finding = environment.installed(CheckContext({}))

    assert finding.outcome == outcome
    assert ("pip install" in str(finding.fix)) == (outcome == "fail")


@pytest.mark.parametrize(("value", "outcome"), [("", "warn"), ("auto", "fail"), ("1", "fail"), ("false", "pass")])
def test_gevent_with_ddtrace_is_reported(
    value: str, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If gevent is installed, ddtrace unloads modules when it starts, unless the variable is false.

    `serve` sets the variable to false if it is unset or empty, so then only a bare ddtrace-run is affected.
    """
    (tmp_path / "gevent.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    finding = environment.gevent(CheckContext({UNLOAD_VARIABLE: value}))

    assert finding.outcome == outcome
    assert (finding.fix == f"{UNLOAD_VARIABLE}=false") == (outcome != "pass")


@pytest.mark.parametrize("line", ["import ddtrace.auto", "import ddtrace.auto  # first", "from ddtrace import auto"])
def test_ddtrace_auto_in_the_source_is_reported(line: str, tmp_path: Path) -> None:
    """`serve` starts ddtrace-run, which must not be combined with ddtrace.auto."""
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "shop.py").write_text(f'"""A shop."""\n{line}\n')
    finding = environment.started_once(CheckContext({}), tmp_path)

    assert finding == Finding(
        outcome="warn",
        sentence="shop.py imports ddtrace.auto, and `serve` starts ddtrace-run: use one only",
        fix="Remove the import from shop.py",
    )


# Each of these environments sets the agent's address in a different way.
ADDRESS_ENVIRONMENTS: tuple[dict[str, str], ...] = (
    {},
    {"DD_AGENT_HOST": "a"},
    {"DD_AGENT_HOST": ""},
    {"DD_AGENT_HOST": "::1"},
    {"DD_TRACE_AGENT_PORT": "1"},
    {"DD_AGENT_PORT": "2"},
    {"DD_TRACE_AGENT_HOSTNAME": "b"},
    {"DATADOG_TRACE_AGENT_HOSTNAME": "c"},
    {"DD_TRACE_AGENT_HOSTNAME": "b", "DD_AGENT_HOST": "a", "DD_TRACE_AGENT_PORT": "1", "DD_AGENT_PORT": "2"},
    {"DD_TRACE_AGENT_URL": "unix:///x", "DD_AGENT_HOST": "a"},
    {"DD_TRACE_AGENT_URL": "https://d:3/path", "DD_TRACE_AGENT_PORT": "1"},
)
# A program that prints the agent URL that ddtrace uses in each environment of the list on its standard input.
PRINT_AGENT_URLS = """
import json, os, sys
from ddtrace.internal.settings._agent import AgentConfig
urls = []
for environ in json.load(sys.stdin):
    os.environ.update(environ)
    urls.append(AgentConfig().trace_agent_url)
    for name in environ:
        del os.environ[name]
print(json.dumps(urls))
"""


def test_the_agent_address_is_the_one_that_ddtrace_uses() -> None:
    result = subprocess.run(
        [sys.executable, "-c", PRINT_AGENT_URLS],
        input=json.dumps(ADDRESS_ENVIRONMENTS),
        capture_output=True,
        text=True,
        check=True,
    )
    urls = json.loads(result.stdout.splitlines()[-1])  # ddtrace may print other lines before this one

    assert [agent_address(environ).url for environ in ADDRESS_ENVIRONMENTS] == urls


def test_an_existing_agent_socket_is_the_default_address(tmp_path: Path) -> None:
    """As in ddtrace, a variable that sets the address takes precedence over the socket."""
    path = tmp_path / "apm.socket"
    path.touch()

    assert agent_address({}, path).url == f"unix://{path}"
    assert agent_address({"DD_AGENT_HOST": "a"}, path).url == "http://a:8126"


def test_an_agent_protocol_version_disables_otlp() -> None:
    """With DD_TRACE_AGENT_PROTOCOL_VERSION, ddtrace sends spans to the agent even if OTEL_TRACES_EXPORTER is `otlp`."""
    environ = {"OTEL_TRACES_EXPORTER": "OTLP"}

    assert no_agent_reason(environ) is not None
    assert no_agent_reason({**environ, "DD_TRACE_AGENT_PROTOCOL_VERSION": "v0.4"}) is None


@pytest.mark.parametrize(
    ("host", "no_proxy", "is_exempt"),
    [
        ("localhost", "localhost", True),
        ("localhost", "*", True),
        ("localhost", "127.0.0.1", False),
        ("localhost", "127.0.0.0/8", False),
        ("127.0.0.1", "127.0.0.0/8,localhost", True),
        ("127.0.0.1", "localhost", False),
        ("127.0.0.1", "*", False),
        ("127.0.0.1", "127.0.0.1:8126", False),
        ("agent.internal", ".internal", True),
        ("agent.internal", "gent.internal", False),
        ("localhost", "", False),
    ],
)
def test_no_proxy_has_the_same_meaning_as_for_ddtraces_exporter(host: str, no_proxy: str, is_exempt: bool) -> None:
    """An address matches only an address or a network, and a name matches only a name, a parent domain or `*`."""
    assert agent.is_exempt(host, {"no_proxy": no_proxy}) == is_exempt


def info_response(**overrides: Any) -> Response:
    """Return a response of `/info` from a traced server, with some values of its `tracing` member replaced."""
    traced = {"active": True, "reason": None, "ddtrace": "4", "agent": "http://localhost:8126", "sampling_rules": None}
    body = json.dumps({"tracing": {**traced, **overrides}}).encode()
    return Response(status=200, headers=Message(), body=body, milliseconds=1.0)


def judge(response: Response, **environ: str) -> Finding:
    return server.judge("the server", response, CheckContext(environ))


@pytest.mark.parametrize("url", ["http://localhost:8126", "http://127.0.0.1:8126", "http://[::1]:8126"])
def test_names_of_the_loopback_interface_are_the_same_agent(url: str) -> None:
    assert judge(info_response(agent="http://127.0.0.1:8126"), DD_TRACE_AGENT_URL=url).outcome == "pass"


def test_a_server_with_another_environment_is_recognized() -> None:
    """On a laptop, the doctor often runs in another shell than the server, with other variables."""
    other_agent = info_response(agent="http://b:1")

    assert judge(info_response(sampling_rules="[]"), DD_TRACE_SAMPLING_RULES="[]").outcome == "pass"
    assert "a different sampling" in judge(info_response(), DD_TRACE_SAMPLING_RULES="[]").sentence
    assert "a different sampling" in judge(info_response(), DD_TRACE_SAMPLE_RATE="0.5").sentence
    assert "agent address and sampling" in judge(other_agent, DD_TRACE_SAMPLING_RULES="[]").sentence
    assert judge(other_agent, PORT="x").outcome == "pass"  # invalid settings can't be compared


@pytest.mark.parametrize(
    ("tracing", "outcome", "sentence"),
    [
        ({"active": True, "reason": None, "traces_lost": 0}, "pass", "the server is traced"),
        (
            {"active": False, "reason": "DD_TRACE_ENABLED is false", "traces_lost": None},
            "fail",
            "the server is not traced: DD_TRACE_ENABLED is false",
        ),
    ],
)
def test_the_public_part_of_info_is_enough(tracing: dict[str, Any], outcome: str, sentence: str) -> None:
    """The doctor compares only values that `/info` shows. The public part has no agent and no sampling rules."""
    body = json.dumps({"tracing": tracing}).encode()
    response = Response(status=200, headers=Message(), body=body, milliseconds=1.0)
    finding = judge(response, DD_TRACE_SAMPLING_RULES="[]", DD_TRACE_AGENT_URL="http://b:1")

    assert (finding.outcome, finding.sentence) == (outcome, sentence)


def test_an_untraced_server_is_a_failure_with_the_servers_reason() -> None:
    finding = judge(info_response(active=False, reason="not started under ddtrace-run"))

    assert (finding.outcome, finding.sentence) == ("fail", "the server is not traced: not started under ddtrace-run")


def test_the_exit_code_is_that_of_the_worst_finding() -> None:
    """Exit code 0: traces would arrive. 1: they would not. 2: undetermined."""
    warning, failure = Result("x", warned("", "")), Result("x", failed("", ""))
    undetermined = Result("x", unknown(""))

    assert exit_code([warning]) == 0
    assert exit_code([warning, undetermined]) == 2
    assert exit_code([undetermined, failure]) == 1


def test_secrets_are_removed_from_any_text() -> None:
    """The doctor redacts variables with secret names, credentials in URLs, and anything in the form of a key.

    It also redacts the password `p@ss` of the URL, which is encoded there as `p%40ss`.
    """
    redact = Redaction({"MY_TOKEN": "tok-1", "A_URL": "http://me:p%40ss@host/", "OTEL_EXPORTER_OTLP_HEADERS": "k=vvv"})

    assert redact(f"tok-1 http://me:p%40ss@host p@ss k=vvv {KEY}. word") == "*** http://***@host *** *** ***. word"


def test_a_check_that_raises_an_exception_does_not_stop_the_others() -> None:
    """Its own result is undetermined."""

    def raise_error(_: CheckContext) -> Finding:
        raise ZeroDivisionError

    checks = [Check("broken", raise_error), Check("fine", lambda _: passed("fine"))]
    results = list(examine({"DD_TRACE_AGENT_URL": "nonsense"}, checks=checks))

    assert [result.finding.sentence for result in results] == ["this check failed with ZeroDivisionError", "fine"]
    assert exit_code(results) == 2


def test_a_check_that_hangs_is_abandoned() -> None:
    """Its result is undetermined, because the check might have failed."""

    def hang(_: CheckContext) -> Finding:
        threading.Event().wait()
        return passed("too late")

    (result,) = examine({"DD_TRACE_AGENT_URL": "nonsense"}, checks=[Check("hanging", hang)], seconds=0.1)

    assert result == Result("hanging", unknown("no result within 0.1 s"))


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'"x"', b"\xff"])
def test_the_document_of_a_response_without_a_json_object_is_empty(body: bytes) -> None:
    assert Response(status=200, headers=Message(), body=body, milliseconds=1.0).document() == {}


def test_every_address_of_a_name_is_tried() -> None:
    """localhost resolves to ::1 and 127.0.0.1, and an agent may listen on only one of them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with wire._connect_to_first(["::1", "127.0.0.1"], port, seconds=2.0) as connection:
            assert connection.getpeername() == ("127.0.0.1", port)
        with wire._connect_to_first(["127.0.0.1", "::1"], port, seconds=2.0) as connection:
            assert connection.getpeername() == ("127.0.0.1", port)


def test_no_process_is_started_after_the_examination() -> None:
    """A slow check must not leave a process behind."""
    with CheckContext({"DD_TRACE_AGENT_URL": "nonsense"}) as context:
        pass

    with pytest.raises(TimeoutError):
        context.start("hello_service", "serve")


def documented_rows() -> list[tuple[str, str]]:
    """Return the columns "check" and "message" of the table in docs/troubleshooting.md."""
    page = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
    table = page.partition("\n| check | message | fix |\n")[2].partition("\n\n")[0]
    rows = [line.split(" | ") for line in table.splitlines()[1:]]  # the first line is the separator below the heading
    return [(row[0].removeprefix("| "), row[1]) for row in rows]


def test_the_troubleshooting_page_lists_every_check_and_quotes_its_messages() -> None:
    """Each quoted text is a part of the doctor's source."""
    source = "".join(path.read_text() for path in Path(hello_service.doctor.__file__).parent.glob("*.py"))
    quotations = {text for _, message in documented_rows() for text in re.findall(r"`([^`]+)`", message)}

    assert {check for check, _ in documented_rows()} == CHECKS.keys()
    assert {text for text in quotations if text not in source} == set()


def test_a_report_fits_its_width() -> None:
    """Words to copy, such as URLs, are never broken."""
    word = "http://" + "a" * 60
    results = [Result("agent", failed("the agent does not respond to " + "x " * 40, f"look at {word}"))]
    lines = click.unstyle(report(results, width=70)).splitlines()

    assert all(len(line) <= 70 or word in line for line in lines)
    assert len(lines) == 3 + 2 + 1 + 1 + 1  # sentence, fix, empty line, counts, verdict
