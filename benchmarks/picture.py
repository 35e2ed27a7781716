"""The chart in docs/performance.md: CPU per request of each traced contestant. The SVG is written without a library."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

from benchmarks.contest import ALL, HELLO, OURS_NAME, RELAY, Point
from benchmarks.figures import Results, median_of_rounds

# In pixels: the picture, the labels, a bar with its gap, the title of a group, and the longest bar.
WIDTH, LEFT, ROW, TOP = 900, 320, 22, 34
BARS = WIDTH - LEFT - 90
OURS, PEER = "#632ca6", "#9aa0a6"
HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
    'font-family="system-ui, sans-serif" font-size="13" role="img">'
)


def bars(results: Results, point: Point, title: str, top: int) -> Iterator[str]:
    """Yield one group of bars, the smallest first."""
    traced = [name for name, contestant in ALL.items() if contestant.spans]
    costs = [(cost, name) for name in traced if (cost := median_of_rounds(results, (name, point, "cpu_us")))]
    yield f'<text x="12" y="{top + 20}" font-weight="600">{escape(title)}</text>'
    longest = max((cost for cost, _ in costs), default=1)
    for number, (cost, name) in enumerate(sorted(costs)):
        y = top + TOP + number * ROW
        width = max(cost / longest * BARS, 1)
        weight = ' font-weight="600"' if name == OURS_NAME else ""
        label = escape(ALL[name].title.replace("**", ""))
        yield f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end"{weight}>{label}</text>'
        fill = OURS if name == OURS_NAME else PEER
        yield f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{ROW - 5}" rx="2" fill="{fill}"/>'
        yield f'<text x="{LEFT + width + 6:.1f}" y="{y + 13}"{weight}>{cost:,.0f} µs</text>'


def draw(results: Results) -> str:
    """Return the picture as SVG."""
    rows = sum(1 for contestant in ALL.values() if contestant.spans)
    group = TOP + rows * ROW + 14
    height = 2 * group + 6
    lines = [
        HEAD.format(width=WIDTH, height=height),
        f"<title>CPU per request, all traced, {HELLO.clients} clients, one core</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>',
        '<g fill="#202124">',
        *bars(results, HELLO, "CPU of one /api/hello, traced, 64 clients", 0),
        *bars(results, RELAY, "CPU of one /api/relay with one outbound call, traced, 64 clients", group),
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"
