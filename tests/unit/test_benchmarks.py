"""Tests of the figures that scripts/bench computes, and of the pages that show its results."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks import chart, figures, profile, report
from benchmarks.candidates import CANDIDATES, HELLO, RELAY, THIS_SERVICE, Point

ROOT = Path(__file__).parents[2]
APPS = {path.stem for path in (ROOT / "benchmarks" / "apps").glob("[!_]*.py")}


def sample(cpu_us: float, **overrides: float) -> dict[str, float]:
    """Return the fields of a sample without failures or lost spans, updated with `overrides`.

    The other values are arbitrary.
    """
    fields = {
        "cpu_us": cpu_us,
        "per_second": 100,
        "p50_ms": 1,
        "p99_ms": 2,
        "failures": 0,
        "completed": 10,
        "sent": 12,
        "spans_due": 10,
        "spans": 10,
        "rss_mib": 90,
        "other_core": 0.1,
    }
    return {**fields, **overrides}


def one_round(samples: dict[str, dict[Point, dict[str, float]]]) -> dict[str, Any]:
    """Return a round in the form in which `scripts/bench` saves it.

    `samples` maps the name of each candidate to its samples, one for each point.
    """
    return {
        name: {"start_s": 1.5, "points": {point.name: fields for point, fields in by_point.items()}}
        for name, by_point in samples.items()
    }


def results(*rounds: dict[str, Any]) -> figures.Results:
    """Return results of `rounds` in the form in which `scripts/bench` saves them."""
    environment = {"python": "3.13.0", "cores": 2, "packages": {"ddtrace": "4.16.0"}}
    return {"environment": environment, "rounds": list(rounds), "endurance": None, "minutes": 1.0}


# Each of these identifies a value in a round: candidate, point, and field of the sample.
OUR_CPU = (THIS_SERVICE, HELLO, "cpu_us")
NAIVE_CPU = ("naive", HELLO, "cpu_us")
NOT_MEASURED = ("aiohttp", HELLO, "cpu_us")


def round_of_two(our_us: float, naive_us: float) -> dict[str, Any]:
    return one_round({THIS_SERVICE: {HELLO: sample(our_us)}, "naive": {HELLO: sample(naive_us)}})


THREE_ROUNDS = results(round_of_two(100, 200), round_of_two(300, 400), round_of_two(90, 300))


def test_a_ratio_compares_values_of_the_same_round() -> None:
    """The figure is the median of the rounds' ratios, because a slow machine slows both values of a round."""
    assert figures.ratio(THREE_ROUNDS, OUR_CPU, NAIVE_CPU) == figures.Spread(median=0.5, minimum=0.3, maximum=0.75)
    assert figures.median_of_rounds(THREE_ROUNDS, OUR_CPU) == 100
    assert str(figures.ratio(THREE_ROUNDS, OUR_CPU, NAIVE_CPU)) == "0.50 (0.30 to 0.75)"


def test_a_value_that_was_not_measured_is_none() -> None:
    """A candidate that did not run gets neither a zero nor an error in the table, which leaves it out.

    `lost_spans` is a sum, so it is 0.
    """
    assert figures.ratio(THREE_ROUNDS, OUR_CPU, NOT_MEASURED) is None
    assert figures.median_of_rounds(THREE_ROUNDS, (THIS_SERVICE, RELAY, "cpu_us")) is None
    assert figures.lost_spans(THREE_ROUNDS, "aiohttp") == 0


def test_spans_that_never_arrived_count_as_lost() -> None:
    """Surplus spans belong to requests that the end of the load cut off, so they don't make up for lost spans.

    `spans_due` is 10 in each sample.
    """
    lossy_rounds = results(
        one_round({THIS_SERVICE: {HELLO: sample(1, spans=7), RELAY: sample(1, spans=99)}}),
        one_round({THIS_SERVICE: {HELLO: sample(1, spans=9, failures=2)}}),
    )

    assert figures.lost_spans(lossy_rounds, THIS_SERVICE) == 3 + 1
    assert figures.total(lossy_rounds, THIS_SERVICE, "failures") == 2


def test_a_target_is_an_upper_or_a_lower_limit() -> None:
    """A cost must not be above its target, and requests per second must not be below theirs."""
    at_most = next(target for target in figures.TARGETS if not target.at_least and not target.best_round)
    at_least = next(target for target in figures.TARGETS if target.at_least)

    def ratios_around(limit: float) -> list[figures.Spread]:
        # Only the median counts for these targets, so minimum and maximum are arbitrary.
        return [figures.Spread(median=limit + change, minimum=0, maximum=99) for change in (-0.1, 0, 0.1)]

    assert [at_most.reached(ratio) for ratio in ratios_around(at_most.limit)] == [True, True, False]
    assert [at_least.reached(ratio) for ratio in ratios_around(at_least.limit)] == [False, True, True]


def test_a_latency_target_is_reached_if_the_best_round_reaches_it() -> None:
    target = next(target for target in figures.TARGETS if target.best_round)

    assert target.limit == 1
    assert target.reached(figures.Spread(median=1.2, minimum=0.9, maximum=1.3))
    assert not target.reached(figures.Spread(median=1.2, minimum=1.1, maximum=1.3))


def test_the_cost_of_tracing_is_a_difference_within_a_round() -> None:
    # Any two candidates will do. NAIVE_CPU costs more than OUR_CPU, as tracing would.
    overhead = figures.TracingOverhead(traced=NAIVE_CPU, untraced=OUR_CPU)
    not_measured = figures.TracingOverhead(traced=OUR_CPU, untraced=NOT_MEASURED)

    # The ratios of the rounds are (200 - 100) / 100, (400 - 300) / 300 and (300 - 90) / 90.
    assert figures.ratio(THREE_ROUNDS, overhead, OUR_CPU) == figures.Spread(median=1, minimum=1 / 3, maximum=210 / 90)
    assert figures.ratio(THREE_ROUNDS, overhead, NOT_MEASURED) is None
    assert figures.median_of_rounds(THREE_ROUNDS, not_measured) is None


def test_the_table_of_targets_shows_a_missed_target() -> None:
    # In THREE_ROUNDS, the naive candidate was measured with `/api/hello` only, so it has one row.
    (row,) = [line for line in report.targets_table(THREE_ROUNDS) if "naive" in line]
    slow_table = report.targets_table(results(round_of_two(9, 10)))  # a ratio of 0.9

    assert row.endswith("| ≤ 0.6 | 0.50 (0.30 to 0.75) | yes |")
    assert "| **no** |" in "\n".join(slow_table)


# Any results will do here, because only the paths are used.
@pytest.mark.parametrize("path", report.generated_texts(THREE_ROUNDS), ids=lambda path: path.parent.name)
def test_the_tables_match_the_saved_results(path: Path) -> None:
    """`scripts/bench --draw` rebuilds the tables from the saved results."""
    tables = path.read_text().partition(report.BEGIN)[2].partition(report.END)[0]

    assert tables == report.generated_texts(report.load())[path] + "\n"


def test_the_chart_matches_the_saved_results() -> None:
    """Each traced candidate has a bar for each of the two endpoints. The shortest bar of an endpoint is first."""
    svg = report.CHART.read_text()
    texts = [text.text or "" for text in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    costs = [int(text.removesuffix(" µs").replace(",", "")) for text in texts if text.endswith(" µs")]
    traced = [candidate.title.replace("**", "") for candidate in CANDIDATES.values() if candidate.spans]

    assert svg == chart.draw(report.load())
    assert all(texts.count(title) == 2 for title in traced)
    half = len(costs) // 2  # the number of bars of one endpoint
    assert costs == sorted(costs[:half]) + sorted(costs[half:])


def test_every_candidate_is_measured() -> None:
    """A command starts each file of benchmarks/apps, and each file that a command starts exists."""
    commands = " ".join(part for candidate in CANDIDATES.values() for part in candidate.command or ())
    modules = [part.partition(":")[0] for part in commands.split() if ".apps." in part]

    assert {module.rpartition(".")[2] for module in modules} == APPS


def test_a_sample_counts_for_the_innermost_layer() -> None:
    """Time in the standard library counts for its caller, and time in the event loop itself for asyncio.

    A thread without a Python frame counts for no layer. The count of a function includes all that it calls.
    """
    # The output of py-spy: the frames of a stack, the outermost first, and its number of samples.
    stacks = [
        "run (asyncio/base_events.py:1);handle (/v/site-packages/quart/app.py:2);dumps (/lib/json/__init__.py:3) 5",
        "run (asyncio/base_events.py:1);handle (/v/site-packages/quart/app.py:2);send (/w/hello_service/serving/http1.py:3) 2",
        "run (/w/hello_service/serving/server.py:9);run_once (asyncio/base_events.py:1) 1",
        " 70",
    ]
    layers, functions = profile.count_samples(stacks)

    assert layers == {"Quart": 5, "hello_service: HTTP/1.1": 2, "asyncio": 1}
    assert functions["quart/app.py handle"] == 7
