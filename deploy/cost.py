"""Print the monthly cost of traces as a Markdown table.

Run `python deploy/cost.py`. Its options (`--help`) replace the loads and the assumptions with your own. The prices are
Datadog's list prices for APM on Fargate, billed annually, in US dollars, from its documentation of November 2026
(docs.datadoghq.com, "APM Billing" and "View and Alert on APM Usage"). Check the current prices.
"""

from __future__ import annotations

import argparse
import sys

TASK_PRICE = 2.00  # per task and month; it includes TASK_GB ingested and TASK_SPANS indexed
TASK_GB, TASK_SPANS = 10, 65_000
INGESTED_GB_PRICE = 0.10
INDEXED_MILLION_PRICE = 1.70  # kept for 15 days
INDEXED_FRACTION = 0.1  # an example, because it depends on your retention filters

# A conservative estimate of the size of one span on the wire; a test measures the real size.
SPAN_BYTES = 1300
# The relay calls this service three times, so it has 1 + 3 + 3 spans: one for its own request, three for the calls, and
# three for the requests that the service receives from them.
SPANS_PER_REQUEST = {"GET /api/hello": 1, "GET /api/relay?count=3": 7}
SECONDS_PER_MONTH = 30 * 24 * 3600


def monthly_cost(
    *, spans: float, requests: float, tasks: int, rate: float = 1.0, indexed: float = INDEXED_FRACTION
) -> tuple[float, float, float]:
    """Return the gigabytes ingested, the millions of spans indexed, and the dollars of one month.

    Args:
        spans: number of spans per request.
        requests: number of requests per month.
        tasks: average number of running tasks.
        rate: fraction of traces that are sent, 0 to 1.
        indexed: fraction of the sent spans that retention filters keep for search, 0 to 1.
    """
    sent_spans = spans * requests * rate
    gigabytes, indexed_spans = sent_spans * SPAN_BYTES / 1e9, sent_spans * indexed
    dollars = tasks * TASK_PRICE
    dollars += max(0.0, gigabytes - tasks * TASK_GB) * INGESTED_GB_PRICE
    dollars += max(0.0, indexed_spans - tasks * TASK_SPANS) / 1e6 * INDEXED_MILLION_PRICE
    return gigabytes, indexed_spans / 1e6, dollars


def table(rates: list[float], per_second: list[float], tasks: int, indexed: float) -> str:
    """Return the costs of several loads as a Markdown table.

    `rates` are fractions of traces that are sent; `per_second` are requests per second.
    """
    assumptions = f"{tasks} tasks, {SPAN_BYTES} bytes a span, {indexed:.0%} of the spans indexed"
    prices = (
        f"${TASK_PRICE:.2f} a task, ${INGESTED_GB_PRICE:.2f} for each GB above {TASK_GB} GB a task, and "
        f"${INDEXED_MILLION_PRICE:.2f} for each million indexed spans above {TASK_SPANS:,} a task"
    )
    lines = [
        f"{assumptions}. A month costs {prices}.",
        "",
        "| route | spans a request | requests a second | requests a month | traces sent | GB | million indexed | $ a month |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for route, spans in SPANS_PER_REQUEST.items():
        for load in per_second:
            for rate in rates:
                requests = load * SECONDS_PER_MONTH
                gigabytes, millions, dollars = monthly_cost(
                    spans=spans, requests=requests, tasks=tasks, rate=rate, indexed=indexed
                )
                cells = [f"`{route}`", f"{spans}", f"{load:g}", f"{requests / 1e6:,.1f} million", f"{rate:.0%}"]
                cells += [f"{gigabytes:,.1f}", f"{millions:,.2f}", f"{dollars:,.2f}"]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--per-second", type=float, nargs="+", default=[10, 200], help="requests per second")
    parser.add_argument("--rate", type=float, nargs="+", default=[1.0, 0.1], help="fraction of traces that are sent")
    parser.add_argument("--tasks", type=int, default=2, help="average number of running tasks")
    parser.add_argument(
        "--indexed", type=float, default=INDEXED_FRACTION, help="fraction of spans that retention filters keep"
    )
    options = parser.parse_args()
    sys.stdout.write(table(options.rate, options.per_second, options.tasks, options.indexed) + "\n")


if __name__ == "__main__":
    main()
