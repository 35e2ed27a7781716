"""Draws the chart in docs/performance.md as SVG: CPU per request of each traced candidate."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

from benchmarks.candidates import CANDIDATES, HELLO, RELAY, THIS_SERVICE, Point
from benchmarks.figures import Results, median_of_rounds

# All lengths are in pixels. Those without a name are margins, and the baselines of texts.
WIDTH = 900
LABEL_WIDTH = 320
LONGEST_BAR = WIDTH - LABEL_WIDTH - 90  # leaves room for the number to its right
ROW_HEIGHT = 22  # of a bar and the gap below it
TITLE_HEIGHT = 34
OUR_COLOR, PEER_COLOR = "#632ca6", "#9aa0a6"
HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
    'font-family="system-ui, sans-serif" font-size="13" role="img">'
)


def bars(results: Results, point: Point, title: str, top: int) -> Iterator[str]:
    """Yield a title, and then a bar for each traced candidate that was measured, the shortest first."""
    traced = [name for name, candidate in CANDIDATES.items() if candidate.spans]
    costs = [(cost, name) for name in traced if (cost := median_of_rounds(results, (name, point, "cpu_us")))]
    yield f'<text x="12" y="{top + 20}" font-weight="600">{escape(title)}</text>'
    longest = max((cost for cost, _ in costs), default=1)
    for number, (cost, name) in enumerate(sorted(costs)):
        y = top + TITLE_HEIGHT + number * ROW_HEIGHT
        width = max(cost / longest * LONGEST_BAR, 1)
        weight = ' font-weight="600"' if name == THIS_SERVICE else ""
        label = escape(CANDIDATES[name].title.replace("**", ""))
        yield f'<text x="{LABEL_WIDTH - 8}" y="{y + 13}" text-anchor="end"{weight}>{label}</text>'
        fill = OUR_COLOR if name == THIS_SERVICE else PEER_COLOR
        yield f'<rect x="{LABEL_WIDTH}" y="{y}" width="{width:.1f}" height="{ROW_HEIGHT - 5}" rx="2" fill="{fill}"/>'
        yield f'<text x="{LABEL_WIDTH + width + 6:.1f}" y="{y + 13}"{weight}>{cost:,.0f} µs</text>'


def draw(results: Results) -> str:
    """Return the chart as SVG."""
    rows = len([candidate for candidate in CANDIDATES.values() if candidate.spans])
    group_height = TITLE_HEIGHT + rows * ROW_HEIGHT + 14  # with space below
    height = 2 * group_height + 6
    lines = [
        HEAD.format(width=WIDTH, height=height),
        f"<title>CPU per request, all traced, {HELLO.clients} clients, one core</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
        '<g fill="#202124">',
        *bars(results, HELLO, f"CPU of one /api/hello, traced, {HELLO.clients} clients", top=0),
        *bars(
            results,
            RELAY,
            f"CPU of one /api/relay with one outbound call, traced, {RELAY.clients} clients",
            top=group_height,
        ),
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"
