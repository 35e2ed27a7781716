"""Formats numbers with their units."""

from __future__ import annotations

from datetime import datetime

MICROSECOND, MILLISECOND, SECOND, MINUTE = 1_000, 1_000_000, 1_000_000_000, 60_000_000_000  # nanoseconds


def duration(nanoseconds: float) -> str:
    """Return a duration, such as `0 ms`, `850 ns`, `12.3 µs`, `4.56 ms`, `1.20 s`, `3 min 20 s`."""
    if nanoseconds >= MINUTE:
        minutes, seconds = divmod(round(nanoseconds / SECOND), 60)
        return f"{minutes:,} min {seconds} s"
    for size, unit in ((SECOND, "s"), (MILLISECOND, "ms"), (MICROSECOND, "µs")):
        if nanoseconds >= size:
            number = nanoseconds / size
            return f"{number:.{_decimals(number)}f} {unit}"
    return f"{nanoseconds:.0f} ns" if nanoseconds else "0 ms"


def _decimals(number: float) -> int:
    """Return the number of decimals that shows at least three digits of `number`."""
    if number < 10:
        return 2
    return 1 if number < 100 else 0


def quantity(number: int, unit: str) -> str:
    """Return a number of things, such as `1 span` or `1,234 spans`."""
    return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"


def percent(share: float) -> str:
    """Return a share from 0 to 1 as a percentage, such as `0.4%` or `12%`. Only 0 itself is shown as `0%`."""
    number = share * 100
    if 0 < number < 0.1:
        return "< 0.1%"
    return f"{number:.1f}%" if 0 < number < 10 else f"{number:.0f}%"


def rate(per_second: float) -> str:
    """Return requests per second as `0.35 req/s`, `12.4 req/s`, `1,200 req/s`."""
    return f"{per_second:,.{_decimals(per_second)}f} req/s"


def clock(nanoseconds: int) -> str:
    """Return the local time of day, such as `14:05:30.123`, of a time since the epoch."""
    try:
        moment = datetime.fromtimestamp(nanoseconds // SECOND).astimezone()
    except (OverflowError, ValueError, OSError):
        return "no valid time"
    return f"{moment:%H:%M:%S}.{nanoseconds % SECOND // MILLISECOND:03}"
