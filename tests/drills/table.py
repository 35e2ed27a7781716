"""All drills, in the order of the table."""

from __future__ import annotations

from drills import fuzz, hostile, starved, stopping
from drills.drill import Drill

TABLE: tuple[Drill, ...] = (
    stopping.requests_in_flight,
    hostile.hostile_clients,
    fuzz.api_fuzzed,
    fuzz.trace_headers,
    starved.descriptors_run_out,
    starved.odd_machine,
)
