"""Tests of the variables that `serve` sets for ddtrace, and of the warnings about an operator's variables."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from hello_service.observability import environment
from hello_service.settings import Settings


def tracer_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return environment.tracer_environment(environ, Settings.from_environment(environ))


def warnings(environ: Mapping[str, str]) -> list[str]:
    return environment.configuration_warnings(environ, Settings.from_environment(environ))


def trust_warnings(environ: Mapping[str, str]) -> list[str]:
    return [warning for warning in warnings(environ) if "TRUST_TRACE_HEADERS" in warning]


def test_variables_that_ddtrace_reads_at_import_are_set() -> None:
    """Nothing else is added to the environment."""
    expected = {
        "DD_SERVICE": "hello-service",
        "DD_TRACE_AIOHTTP_ENABLED": "false",
        "DD_UNLOAD_MODULES_FROM_SITECUSTOMIZE": "false",
        "DD_TRACE_ASYNCIO_ENABLED": "false",
        "DD_TRACE_OTEL_CTX_ENABLED": "false",
        "DD_TRACE_STATS_COMPUTATION_ENABLED": "true",
    }
    environ = tracer_environment({"HOME": "/root"})

    assert environ.items() >= expected.items()
    assert set(environ) == {"HOME", "DD_SERVICE", *environment.ENVIRONMENT_ONLY}


@pytest.mark.parametrize("name", ["DD_SERVICE", *environment.ENVIRONMENT_ONLY])
def test_a_value_from_the_operator_wins(name: str) -> None:
    value = "1"  # differs from every default

    assert tracer_environment({name: value})[name] == value


@pytest.mark.parametrize("name", ["DD_TRACE_AGENT_PORT", "DD_TRACE_ENABLED", "DD_ENV"])
def test_an_empty_variable_is_removed(name: str) -> None:
    """ddtrace does not start with an empty port, and treats an empty DD_TRACE_ENABLED as false."""
    assert name not in tracer_environment({name: ""})


@pytest.mark.parametrize("value", ["yes", "on", "TRUE", "1"])
def test_every_spelling_of_true_becomes_true(value: str) -> None:
    """The settings accept more spellings of true than ddtrace, which treats the others as false."""
    assert tracer_environment({"DD_TRACE_ENABLED": value})["DD_TRACE_ENABLED"] == "true"


def test_the_original_environment_is_not_modified() -> None:
    environ = {"DD_TRACE_SAMPLE_RATE": "0.5"}
    tracer_environment(environ)

    assert environ == {"DD_TRACE_SAMPLE_RATE": "0.5"}


def test_the_sample_rate_becomes_a_rule_with_a_warning() -> None:
    """ddtrace 4 silently ignores the rate itself."""
    environ = tracer_environment({"DD_TRACE_SAMPLE_RATE": "0.25"})

    assert json.loads(environ["DD_TRACE_SAMPLING_RULES"]) == [{"sample_rate": 0.25}]
    assert warnings(environ) == [
        "DD_TRACE_SAMPLE_RATE=0.25 is applied as DD_TRACE_SAMPLING_RULES='[{\"sample_rate\": 0.25}]'"
    ]


def test_sampling_rules_from_the_operator_win_over_the_rate() -> None:
    """A warning reports the variable that has no effect."""
    environ = tracer_environment({"DD_TRACE_SAMPLE_RATE": "0.25", "DD_TRACE_SAMPLING_RULES": "[]"})

    assert environ["DD_TRACE_SAMPLING_RULES"] == "[]"
    assert warnings(environ) == ["DD_TRACE_SAMPLE_RATE=0.25 has no effect: DD_TRACE_SAMPLING_RULES is set and wins"]


def test_a_start_without_serve_warns_of_unset_variables() -> None:
    """One line lists the unset variables, and the disadvantage of each."""
    rate_warning, unset_warning = warnings({"DD_TRACE_SAMPLE_RATE": "0.25", "DD_TRACE_ASYNCIO_ENABLED": "true"})

    assert rate_warning.startswith("DD_TRACE_SAMPLE_RATE=0.25 is ignored by ddtrace 4: set DD_TRACE_SAMPLING_RULES=")
    assert "DD_TRACE_AIOHTTP_ENABLED=false (two more spans for each outbound call)" in unset_warning
    assert "DD_UNLOAD_MODULES_FROM_SITECUSTOMIZE=false" in unset_warning
    assert "DD_TRACE_ASYNCIO_ENABLED" not in unset_warning


STYLE, EXTRACT = "DD_TRACE_PROPAGATION_STYLE", "DD_TRACE_PROPAGATION_STYLE_EXTRACT"
BEHAVIOR = "DD_TRACE_PROPAGATION_BEHAVIOR_EXTRACT"


def test_trace_headers_are_trusted_unless_the_setting_is_false() -> None:
    environ = tracer_environment({"TRUST_TRACE_HEADERS": "false"})

    assert EXTRACT not in tracer_environment({})
    assert environ[EXTRACT] == "none"
    assert trust_warnings(environ) == []


@pytest.mark.parametrize("propagation", [{EXTRACT: "datadog"}, {STYLE: "tracecontext"}, {BEHAVIOR: "restart"}])
def test_a_propagation_setting_from_the_operator_wins_with_a_warning(propagation: dict[str, str]) -> None:
    environ = tracer_environment({"TRUST_TRACE_HEADERS": "false", **propagation})
    ((name, value),) = propagation.items()

    assert {key: environ[key] for key in (EXTRACT, STYLE, BEHAVIOR) if key in environ} == propagation
    assert warnings(environ)[0] == f"TRUST_TRACE_HEADERS=false has no effect: {name}={value} is set and wins"


@pytest.mark.parametrize(
    "propagation",
    [{EXTRACT: "none"}, {EXTRACT: "None", STYLE: "datadog"}, {STYLE: "none"}, {BEHAVIOR: "ignore", STYLE: "datadog"}],
    ids=["extract", "extract before style", "style", "behavior"],
)
def test_a_propagation_setting_that_ignores_trace_headers_needs_no_warning(propagation: dict[str, str]) -> None:
    environ = tracer_environment({"TRUST_TRACE_HEADERS": "false", **propagation})

    assert trust_warnings(environ) == []


def test_a_start_without_serve_warns_that_trace_headers_are_trusted() -> None:
    """With tracing disabled, the headers have no effect, so there is no warning."""
    (warning,) = trust_warnings({"TRUST_TRACE_HEADERS": "false"})

    assert warning.endswith("is applied by `hello-service serve` only: set DD_TRACE_PROPAGATION_STYLE_EXTRACT=none")
    assert trust_warnings({"TRUST_TRACE_HEADERS": "false", "DD_TRACE_ENABLED": "false"}) == []
