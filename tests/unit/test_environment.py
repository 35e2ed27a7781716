"""Tests of the tracer's environment, which a pure function computes."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from hello_service.observability import environment
from hello_service.settings import Settings


def made(environ: Mapping[str, str]) -> dict[str, str]:
    return environment.tracer_environment(environ, Settings.from_environment(environ))


def warnings(environ: Mapping[str, str]) -> list[str]:
    return environment.configuration_warnings(environ, Settings.from_environment(environ))


def test_what_only_the_environment_can_say_is_warnings() -> None:
    """ddtrace reads these variables at import."""
    own = {
        "DD_SERVICE": "hello-service",
        "DD_TRACE_AIOHTTP_ENABLED": "false",
        "DD_UNLOAD_MODULES_FROM_SITECUSTOMIZE": "false",
        "DD_TRACE_ASYNCIO_ENABLED": "false",
        "DD_TRACE_OTEL_CTX_ENABLED": "false",
        "DD_TRACE_STATS_COMPUTATION_ENABLED": "true",
    }
    environ = made({"HOME": "/root"})

    assert environ.items() >= own.items()
    assert set(environ) == {"HOME", "DD_SERVICE", *environment.ENVIRONMENT_ONLY}


@pytest.mark.parametrize("name", ["DD_SERVICE", *environment.ENVIRONMENT_ONLY])
def test_what_an_operator_sets_wins(name: str) -> None:
    value = "1" if name != "DD_SERVICE" else "theirs"

    assert made({name: value})[name] == value


@pytest.mark.parametrize("name", ["DD_TRACE_AGENT_PORT", "DD_TRACE_ENABLED", "DD_ENV"])
def test_an_empty_variable_is_none_for_ddtrace_too(name: str) -> None:
    """ddtrace does not start with an empty port, and treats an empty DD_TRACE_ENABLED as false."""
    assert name not in made({name: ""})


@pytest.mark.parametrize("value", ["yes", "on", "TRUE", "1"])
def test_every_true_value_is_one_that_ddtrace_accepts(value: str) -> None:
    """The settings accept more words for true than ddtrace, which treats the others as false."""
    assert made({"DD_TRACE_ENABLED": value})["DD_TRACE_ENABLED"] == "true"


def test_the_given_environment_is_left_as_it_is() -> None:
    """The function is pure."""
    given = {"DD_TRACE_SAMPLE_RATE": "0.5"}
    made(given)

    assert given == {"DD_TRACE_SAMPLE_RATE": "0.5"}


def test_the_sample_rate_becomes_a_rule_and_is_remarked() -> None:
    """ddtrace 4 silently ignores the rate itself."""
    environ = made({"DD_TRACE_SAMPLE_RATE": "0.25"})

    assert json.loads(environ["DD_TRACE_SAMPLING_RULES"]) == [{"sample_rate": 0.25}]
    assert warnings(environ) == [
        "DD_TRACE_SAMPLE_RATE=0.25 is applied as DD_TRACE_SAMPLING_RULES='[{\"sample_rate\": 0.25}]'"
    ]


def test_rules_that_are_set_win_over_the_rate() -> None:
    """A warning names the variable that has no effect."""
    environ = made({"DD_TRACE_SAMPLE_RATE": "0.25", "DD_TRACE_SAMPLING_RULES": "[]"})

    assert environ["DD_TRACE_SAMPLING_RULES"] == "[]"
    assert warnings(environ) == ["DD_TRACE_SAMPLE_RATE=0.25 has no effect: DD_TRACE_SAMPLING_RULES is set and wins"]


def test_a_start_without_serve_reports_what_only_the_environment_can_set() -> None:
    """One line lists the variables, with the benefit of each."""
    rate, missing = warnings({"DD_TRACE_SAMPLE_RATE": "0.25", "DD_TRACE_ASYNCIO_ENABLED": "true"})

    assert rate.startswith("DD_TRACE_SAMPLE_RATE=0.25 is ignored by ddtrace 4: set DD_TRACE_SAMPLING_RULES=")
    assert "DD_TRACE_AIOHTTP_ENABLED=false (two more spans for each outbound call)" in missing
    assert "DD_UNLOAD_MODULES_FROM_SITECUSTOMIZE=false" in missing
    assert "DD_TRACE_ASYNCIO_ENABLED" not in missing


STYLE, EXTRACT = "DD_TRACE_PROPAGATION_STYLE", "DD_TRACE_PROPAGATION_STYLE_EXTRACT"
BEHAVIOR = "DD_TRACE_PROPAGATION_BEHAVIOR_EXTRACT"


def test_callers_are_trusted_unless_an_operator_says_otherwise() -> None:
    assert EXTRACT not in made({})
    assert made({"TRUST_TRACE_HEADERS": "false"})[EXTRACT] == "none"
    assert not [line for line in warnings(made({"TRUST_TRACE_HEADERS": "false"})) if "TRUST" in line]


@pytest.mark.parametrize("theirs", [{EXTRACT: "datadog"}, {STYLE: "tracecontext"}, {BEHAVIOR: "restart"}])
def test_an_operators_propagation_wins_with_a_warning(theirs: dict[str, str]) -> None:
    environ = made({"TRUST_TRACE_HEADERS": "false", **theirs})
    ((name, value),) = theirs.items()

    assert {key: environ.get(key) for key in (EXTRACT, STYLE, BEHAVIOR) if key in environ} == theirs
    assert warnings(environ)[0] == f"TRUST_TRACE_HEADERS=false has no effect: {name}={value} is set and wins"


@pytest.mark.parametrize(
    "theirs",
    [{EXTRACT: "none"}, {EXTRACT: "None", STYLE: "datadog"}, {STYLE: "none"}, {BEHAVIOR: "ignore", STYLE: "datadog"}],
    ids=["extract", "extract before style", "style", "behavior"],
)
def test_a_propagation_that_trusts_nobody_contradicts_nothing(theirs: dict[str, str]) -> None:
    environ = made({"TRUST_TRACE_HEADERS": "false", **theirs})

    assert not [line for line in warnings(environ) if "TRUST" in line]


def test_a_start_without_serve_is_warned_that_callers_are_trusted() -> None:
    line, *_ = warnings({"TRUST_TRACE_HEADERS": "false"})

    assert line.endswith("is applied by `hello-service serve` only: set DD_TRACE_PROPAGATION_STYLE_EXTRACT=none")
    assert not warnings({"TRUST_TRACE_HEADERS": "false", "DD_TRACE_ENABLED": "false"})[0].startswith("TRUST")
